//! What readings from before a signal say of it: which second it must wait for, whether the file
//! was read without it, and whether the reload that came before is over.

use std::time::Duration;

use crate::fact::{Assertion, Expectation};

/// The longest wait for the next second of a clock: a stamp that lies further ahead is of another
/// clock.
const AHEAD: i64 = 2;
/// How far the coarse clock of the kernel, which many programs read, can be behind: two ticks of 10
/// ms.
const BEHIND: Duration = Duration::from_millis(20);

/// How long the signal must wait until a stamp of whole seconds can be later than the one that was
/// read: a reload within the same second would leave it as it is. None where it need not wait.
pub(crate) fn next_second(facts: &[Assertion], baseline: &[Option<String>]) -> Option<Duration> {
    let stamps = facts
        .iter()
        .zip(baseline)
        .filter_map(|(fact, before)| fact.whole_second(before.as_deref()?));
    let wait = until_after(stamps.max()?, jiff::Timestamp::now());
    (!wait.is_zero()).then_some(wait + BEHIND)
}

/// How long it takes from `now` until the second `stamp` is over.
fn until_after(stamp: i64, now: jiff::Timestamp) -> Duration {
    if stamp < now.as_second() || stamp - now.as_second() >= AHEAD {
        return Duration::ZERO;
    }
    let end = jiff::Timestamp::from_second(stamp + 1).unwrap_or(now);
    Duration::try_from(end.duration_since(now)).unwrap_or_default()
}

/// Makes what is expected to change compare with the survey again, where it has changed since: the
/// readings were steady before the file was installed, so the instance watches the file and has
/// read it by itself.
pub(crate) fn keep_survey(
    facts: &[Assertion],
    survey: &[Option<String>],
    baseline: &mut [Option<String>],
) {
    for ((fact, before), now) in facts.iter().zip(survey).zip(baseline) {
        if fact.expectation == Expectation::Changed
            && before.is_some()
            && now.is_some()
            && before != now
        {
            now.clone_from(before);
        }
    }
}

/// Whether an assertion that does not compare held before the run and does not hold right before
/// the signal that takes everything back: the new config shows in that, so the reload of it is
/// over. `first` and `now` are the readings.
pub(crate) fn show_the_other(
    facts: &[Assertion],
    first: &[Option<String>],
    now: &[Option<String>],
) -> bool {
    let holds = |fact: &Assertion, reading: &str| fact.holds_alone(reading);
    let readings = first
        .iter()
        .zip(now)
        .map(|(first, now)| first.as_deref().zip(now.as_deref()));
    let mut all = facts
        .iter()
        .zip(readings)
        .filter_map(|(fact, both)| Some((fact, both?)));
    all.any(|(fact, (first, now))| {
        let plain = matches!(
            fact.expectation,
            Expectation::Equals(_) | Expectation::Contains(_)
        );
        plain && !now.trim().is_empty() && holds(fact, first) && !holds(fact, now)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;
    use crate::fact::{Extract, Source};

    fn fact(wants: Expectation) -> Assertion {
        Assertion {
            source: Source::Exec(vec!["x".into()]),
            read: Extract::Stdout,
            expectation: wants,
        }
    }

    fn texts(all: &[&str]) -> Vec<Option<String>> {
        all.iter()
            .map(|text| (*text != "-").then(|| (*text).to_owned()))
            .collect()
    }

    #[test]
    fn the_signal_waits_for_the_second_after_the_stamp() {
        let now = jiff::Timestamp::new(1_000, 250_000_000).unwrap();
        for (stamp, millis) in [
            (998, 0),
            (999, 0),
            (1_000, 750),
            (1_001, 1_750),
            (1_002, 0),
            (9_999, 0),
        ] {
            assert_eq!(
                until_after(stamp, now),
                Duration::from_millis(millis),
                "{stamp}"
            );
        }
    }

    #[test]
    fn only_stamps_of_whole_seconds_are_waited_for() {
        let stamp = |wants: Expectation, text: &str| fact(wants).whole_second(text);
        assert_eq!(
            stamp(Expectation::AfterSignal, "1700000000"),
            Some(1_700_000_000)
        );
        assert_eq!(
            stamp(Expectation::AfterSignal, "2023-11-14T22:13:20Z"),
            Some(1_700_000_000)
        );
        for (wants, text) in [
            (Expectation::AfterSignal, "1700000000.5"),
            (Expectation::AfterSignal, "soon"),
            (Expectation::Changed, "1700000000"),
        ] {
            assert_eq!(stamp(wants, text), None, "{text}");
        }
    }

    #[test]
    fn what_was_read_without_a_signal_compares_with_the_survey() {
        let facts = [
            fact(Expectation::Changed),
            fact(Expectation::Increased),
            fact(Expectation::Changed),
            fact(Expectation::Changed),
        ];
        let mut now = texts(&["two", "2", "-", "same"]);
        keep_survey(&facts, &texts(&["one", "1", "one", "same"]), &mut now);
        assert_eq!(now, texts(&["one", "2", "-", "same"]));
    }

    #[test]
    fn an_assertion_that_fell_shows_the_other_config() {
        let equals = [fact(Expectation::Equals("ok".into()))];
        let shows =
            |first: &str, now: &str| show_the_other(&equals, &texts(&[first]), &texts(&[now]));
        assert!(shows("ok", "refused"));
        for (first, now) in [
            ("ok", "ok"),
            ("no", "refused"),
            ("ok", "-"),
            ("-", "no"),
            ("ok", " "),
        ] {
            assert!(!shows(first, now), "{first} {now}");
        }
        assert!(show_the_other(
            &[fact(Expectation::Contains("one".into()))],
            &texts(&["one!"]),
            &texts(&["two!"])
        ));
        assert!(!show_the_other(
            &[fact(Expectation::Changed)],
            &texts(&["one"]),
            &texts(&["two"])
        ));
    }
}
