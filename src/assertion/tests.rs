#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use super::*;

fn assertion(expectation: Expectation) -> Assertion {
    let request = HttpRequest {
        url: "http://{listen}/".into(),
        ..HttpRequest::default()
    };
    Assertion {
        source: Source::Http(request),
        read: Extract::Body,
        expectation,
        any: None,
    }
}

#[test]
fn keys_of_the_candidate_are_filled_in() {
    let candidate = b"a = \"x\"\n[b]\nc = 5\n";
    let filled = assertion(Expectation::Equals(
        "<{candidate.a}-{candidate.b.c}>".into(),
    ))
    .resolved(Some(candidate))
    .unwrap();
    assert!(
        filled.holds("<x-5>", None, jiff::Timestamp::UNIX_EPOCH)
            && !filled.holds("<x-6>", None, jiff::Timestamp::UNIX_EPOCH)
    );
    assert!(
        assertion(Expectation::Equals("{candidate.none}".into()))
            .resolved(Some(candidate))
            .is_err_and(|e| e.why == Unresolved::NoKey("none".into()))
    );
    assert!(
        assertion(Expectation::Equals("{candidate.a}".into()))
            .resolved(Some(b"\xff"))
            .is_err()
    );
    assert!(
        assertion(Expectation::Contains("{candidate.a}".into()))
            .resolved(None)
            .is_err_and(|e| e.why == Unresolved::NotOneFile("a".into()))
    );
    assert!(
        assertion(Expectation::Contains("a".into()))
            .resolved(None)
            .is_ok()
            && assertion(Expectation::Changed).resolved(None).is_ok()
    );
}

#[test]
fn a_comparison_needs_a_reading_from_before() {
    assert!(
        assertion(Expectation::Increased).holds("10", Some("9"), jiff::Timestamp::UNIX_EPOCH)
            && !assertion(Expectation::Increased).holds(
                "9",
                Some("9"),
                jiff::Timestamp::UNIX_EPOCH
            )
    );
    assert!(
        !assertion(Expectation::Increased).holds("10", None, jiff::Timestamp::UNIX_EPOCH)
            && !assertion(Expectation::Changed).holds("x", None, jiff::Timestamp::UNIX_EPOCH)
    );
}

#[test]
fn metrics_are_found_by_name_and_labels() {
    let body = "# TYPE a gauge\nab 1\na{x=\"1\",y=\"}\"} 2\na{x=\"2\"} 3 1700\na 4\n";
    let Extract::Metric(name, labels) = Assertion::try_from(raw("metric:a{x=\"2\"}")).unwrap().read
    else {
        panic!("no metric")
    };
    assert_eq!(metric(body, &name, &labels).as_deref(), Some("3"));
    assert_eq!(metric(body, "a", &[]).as_deref(), Some("2"));
    assert_eq!(metric(body, "ab", &[]).as_deref(), Some("1"));
    assert_eq!(metric(body, "a", &[("x".into(), "9".into())]), None);
    assert!(
        Assertion::try_from(raw("metric:a{x=")).is_err()
            && Assertion::try_from(raw("mertic:a")).is_err()
    );
}

fn raw(read: &str) -> RawAssertion {
    toml::from_str(&format!(
        "http = \"http://{{listen}}/\"\nchanged = true\nread = '{read}'"
    ))
    .unwrap()
}

#[test]
fn workers_are_replaced_when_no_old_one_listens() {
    let assertion = assertion(Expectation::Replaced);
    let holds = |now: &str| {
        assertion.holds(
            now,
            Some("1:5 listens\n2:6 listens"),
            jiff::Timestamp::UNIX_EPOCH,
        )
    };
    assert!(holds("3:9 listens") && holds("1:5\n3:9 listens") && holds("1:7 listens"));
    assert!(assertion.holds(
        "1:5 listens\n3:9 listens",
        Some("1:5 kept listens\n2:6 listens"),
        jiff::Timestamp::UNIX_EPOCH
    ));
    assert!(
        !assertion.holds(
            "1:5 listens",
            Some("1:5 kept listens"),
            jiff::Timestamp::UNIX_EPOCH
        ),
        "nothing is new"
    );
    assert_eq!(
        old_workers(
            "1:5 listens\n2:6 kept listens",
            "1:5 listens\n2:6 listens\n3:9 listens"
        ),
        ["1:5"]
    );
    assert!(
        old_workers("1:5 listens", "1:5 listens").is_empty()
            && old_workers("1:5 listens", "1:5\n3:9 listens").is_empty()
    );
    assert!(
        !holds("1:5\n2:6") && !holds("1:5 listens\n3:9 listens") && !holds("") && !holds("3:9")
    );
    assert!(
        assertion.holds("3:9", Some("1:5"), jiff::Timestamp::UNIX_EPOCH),
        "where none listened, none must"
    );
}

#[test]
fn keys_that_do_not_go_together_are_a_fault() {
    for (text, wanted) in [
        ("changed = true", "exactly one of http"),
        (
            "http = \"http://x/\"\nexec = [\"x\"]\nchanged = true",
            "exactly one of http",
        ),
        ("http = \"ftp://x/\"\nchanged = true", "does not begin"),
        (
            "http = \"http://x/\"\ninsecure = true\nchanged = true",
            "for https",
        ),
        (
            "exec = [\"x\"]\nhost = \"x\"\nchanged = true",
            "go with http",
        ),
        (
            "exec = [\"x\"]\nread = \"status\"\nchanged = true",
            "over http",
        ),
        ("workers = true\nchanged = true", "replaced goes with"),
        (
            "http = \"http://x/\"\nreplaced = true",
            "replaced goes with",
        ),
    ] {
        let fault = Assertion::try_from(toml::from_str::<RawAssertion>(text).unwrap())
            .unwrap_err()
            .message;
        assert!(fault.contains(wanted), "{text}: {fault}");
    }
    assert!(
        Assertion::try_from(
            toml::from_str::<RawAssertion>("workers = true\nreplaced = true").unwrap()
        )
        .is_ok()
    );
}

#[test]
fn a_reading_that_can_never_be_a_moment_after_a_signal_says_why() {
    for reading in [
        "1700000000",
        "1.7e9",
        "2023-11-14T22:13:20Z",
        "never",
        "null",
        "-",
        "one",
    ] {
        assert_eq!(why_no_moment(reading), None, "{reading}");
    }
    for reading in ["Sun, 29 Nov 2026 20:09:20 GMT", "2026-11-29 20:09:20", "v2"] {
        assert!(
            why_no_moment(reading).is_some_and(|why| why.contains("ISO 8601")),
            "{reading}"
        );
    }
    let later = why_no_moment("99999999999");
    assert!(later.is_some_and(|why| why.contains("in the future")));
}

#[test]
fn a_moment_counts_in_its_own_precision_and_only_if_it_is_later_than_before() {
    let assertion = assertion(Expectation::AfterSignal);
    let sent = "2026-01-01T00:00:10.5004Z".parse().unwrap();
    let holds = |text: &str, before| assertion.holds(text, before, sent);
    assert!(holds("2026-01-01T00:00:10.6Z", None) && !holds("2026-01-01T00:00:10.4Z", None));
    assert!(
        holds("2026-01-01T00:00:10Z", Some("2026-01-01T00:00:09Z"))
            && !holds("2026-01-01T00:00:10Z", Some("2026-01-01T00:00:10Z"))
    );
    assert!(
        holds("1767225611", None)
            && holds("1.767225611e9", None)
            && !holds("1767225609", None)
            && !holds("soon", None)
    );
    // Prometheus and NATS print nanoseconds without trailing zeros.
    assert!(
        holds("1.7672256105005e+09", Some("1.767225e+09"))
            && !holds("1.7672256105003e+09", None)
            && !holds("1.767225609e+09", None)
    );
    assert!(
        holds("2026-01-01T00:00:10.500401001Z", None)
            && !holds("2026-01-01T00:00:10.500398999Z", None)
    );
    // The clock of the daemon is a tick behind.
    assert!(
        holds("1767225610.4950", Some("1767225609.1"))
            && !holds("1767225610.4850", Some("1767225609.1"))
    );
    // Milliseconds were rounded down, in this reading and in the one from before.
    assert!(
        holds("1767225610.500\n", Some("1767225610.499"))
            && !holds("1767225610.500", Some("1767225610.500"))
            && !holds("1767225610.499", None)
    );
}
