#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use super::*;

fn fact(wants: Expectation) -> Assertion {
    let ask = HttpRequest {
        url: "http://{listen}/".into(),
        ..HttpRequest::default()
    };
    Assertion {
        source: Source::Http(ask),
        read: Extract::Body,
        expectation: wants,
    }
}

#[test]
fn keys_of_the_candidate_are_filled_in() {
    let candidate = b"a = \"x\"\n[b]\nc = 5\n";
    let filled = fact(Expectation::Equals(
        "<{candidate.a}-{candidate.b.c}>".into(),
    ))
    .resolved(Some(candidate))
    .unwrap();
    assert!(
        filled.holds("<x-5>", None, jiff::Timestamp::UNIX_EPOCH)
            && !filled.holds("<x-6>", None, jiff::Timestamp::UNIX_EPOCH)
    );
    assert!(
        fact(Expectation::Equals("{candidate.none}".into()))
            .resolved(Some(candidate))
            .unwrap_err()
            .contains("no `none`")
    );
    assert!(
        fact(Expectation::Equals("{candidate.a}".into()))
            .resolved(Some(b"\xff"))
            .is_err()
    );
    assert!(
        fact(Expectation::Contains("{candidate.a}".into()))
            .resolved(None)
            .unwrap_err()
            .contains("one file")
    );
    assert!(
        fact(Expectation::Contains("a".into()))
            .resolved(None)
            .is_ok()
            && fact(Expectation::Changed).resolved(None).is_ok()
    );
}

#[test]
fn a_comparison_needs_a_reading_from_before() {
    assert!(
        fact(Expectation::Increased).holds("10", Some("9"), jiff::Timestamp::UNIX_EPOCH)
            && !fact(Expectation::Increased).holds("9", Some("9"), jiff::Timestamp::UNIX_EPOCH)
    );
    assert!(
        !fact(Expectation::Increased).holds("10", None, jiff::Timestamp::UNIX_EPOCH)
            && !fact(Expectation::Changed).holds("x", None, jiff::Timestamp::UNIX_EPOCH)
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
    let fact = fact(Expectation::Replaced);
    let holds = |now: &str| {
        fact.holds(
            now,
            Some("1:5 listens\n2:6 listens"),
            jiff::Timestamp::UNIX_EPOCH,
        )
    };
    assert!(holds("3:9 listens") && holds("1:5\n3:9 listens") && holds("1:7 listens"));
    assert!(fact.holds(
        "1:5 listens\n3:9 listens",
        Some("1:5 kept listens\n2:6 listens"),
        jiff::Timestamp::UNIX_EPOCH
    ));
    assert!(
        !fact.holds(
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
        fact.holds("3:9", Some("1:5"), jiff::Timestamp::UNIX_EPOCH),
        "where none listened, none must"
    );
}

#[test]
fn sources_and_readings_that_do_not_go_together_are_told() {
    for (text, says) in [
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
        let said = Assertion::try_from(toml::from_str::<RawAssertion>(text).unwrap())
            .unwrap_err()
            .message;
        assert!(said.contains(says), "{text}: {said}");
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
fn a_stamp_counts_as_finely_as_it_is_told_and_only_if_it_is_later_than_before() {
    let (fact, sent) = (
        fact(Expectation::AfterSignal),
        "2026-01-01T00:00:10.5004Z".parse().unwrap(),
    );
    let at = |text: &str, before| fact.holds(text, before, sent);
    assert!(at("2026-01-01T00:00:10.6Z", None) && !at("2026-01-01T00:00:10.4Z", None));
    assert!(
        at("2026-01-01T00:00:10Z", Some("2026-01-01T00:00:09Z"))
            && !at("2026-01-01T00:00:10Z", Some("2026-01-01T00:00:10Z"))
    );
    assert!(
        at("1767225611", None)
            && at("1.767225611e9", None)
            && !at("1767225609", None)
            && !at("soon", None)
    );
    // Prometheus and NATS: nanoseconds, whose zeros at the end are left out.
    assert!(
        at("1.7672256105005e+09", Some("1.767225e+09"))
            && !at("1.7672256105003e+09", None)
            && !at("1.767225609e+09", None)
    );
    assert!(
        at("2026-01-01T00:00:10.500401001Z", None) && !at("2026-01-01T00:00:10.500398999Z", None)
    );
    // The clock of the daemon is a tick behind.
    assert!(
        at("1767225610.4950", Some("1767225609.1")) && !at("1767225610.4850", Some("1767225609.1"))
    );
    // Milliseconds that were cut off, and the same ones from before.
    assert!(
        at("1767225610.500\n", Some("1767225610.499"))
            && !at("1767225610.500", Some("1767225610.500"))
            && !at("1767225610.499", None)
    );
}
