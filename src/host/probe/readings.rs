//! Readings from before a signal. They show which second the signal must wait for, whether the file
//! was read without it, and whether the reload before it is over.

use std::time::Duration;

use crate::assertion::{Assertion, Expectation};

/// The seconds from now at which a stamp is taken as one of another clock. No signal waits for it.
const MAX_AHEAD: i64 = 2;
/// The lag of the kernel's coarse clock, which many programs read: two ticks of 10 ms.
const COARSE_CLOCK_LAG: Duration = Duration::from_millis(20);

/// Returns how long the signal must wait until a stamp of whole seconds can be later than the one
/// that was read. A reload within the same second would not change it. Returns `None` if the signal
/// need not wait.
pub(crate) fn next_second(
    assertions: &[Assertion],
    baseline: &[Option<String>],
) -> Option<Duration> {
    let stamps = assertions
        .iter()
        .zip(baseline)
        .filter_map(|(assertion, before)| assertion.whole_second(before.as_deref()?));
    let wait = until_after(stamps.max()?, jiff::Timestamp::now());
    (!wait.is_zero()).then_some(wait + COARSE_CLOCK_LAG)
}

/// Returns the time from `now` until the second `stamp` is over.
fn until_after(stamp: i64, now: jiff::Timestamp) -> Duration {
    if stamp < now.as_second() || stamp - now.as_second() >= MAX_AHEAD {
        return Duration::ZERO;
    }
    let end = jiff::Timestamp::from_second(stamp + 1).unwrap_or(now);
    Duration::try_from(end.duration_since(now)).unwrap_or_default()
}

/// Sets the baseline of each `changed` assertion back to the reading of the survey, if it has
/// changed since. The readings were steady before the file was installed, so the instance watches
/// the file and has read it without a signal.
pub(crate) fn keep_survey(
    assertions: &[Assertion],
    survey: &[Option<String>],
    baseline: &mut [Option<String>],
) {
    for ((assertion, before), now) in assertions.iter().zip(survey).zip(baseline) {
        if assertion.expectation == Expectation::Changed
            && before.is_some()
            && now.is_some()
            && before != now
        {
            now.clone_from(before);
        }
    }
}

/// Tells whether an assertion that needs no baseline held before the run and does not hold right
/// before the signal of a rollback. The instance then shows the new config, so the reload of that
/// config is over. `first` and `now` are the two readings. Alternatives of `any` do not count.
pub(crate) fn show_other_config(
    assertions: &[Assertion],
    first: &[Option<String>],
    now: &[Option<String>],
) -> bool {
    let readings = first
        .iter()
        .zip(now)
        .map(|(first, now)| first.as_deref().zip(now.as_deref()));
    let mut read = assertions
        .iter()
        .zip(readings)
        .filter_map(|(assertion, readings)| Some((assertion, readings?)));
    read.any(|(assertion, (first, now))| {
        !assertion.needs_baseline()
            && assertion.any.is_none()
            && !now.trim().is_empty()
            && assertion.holds_alone(first)
            && !assertion.holds_alone(now)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;
    use crate::assertion::{Extract, Source};

    fn assertion(expectation: Expectation) -> Assertion {
        Assertion {
            source: Source::Exec(vec!["x".into()]),
            read: Extract::Stdout,
            expectation,
            any: None,
        }
    }

    fn readings(texts: &[&str]) -> Vec<Option<String>> {
        texts
            .iter()
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
        let stamp =
            |expectation: Expectation, text: &str| assertion(expectation).whole_second(text);
        assert_eq!(
            stamp(Expectation::AfterSignal, "1700000000"),
            Some(1_700_000_000)
        );
        assert_eq!(
            stamp(Expectation::AfterSignal, "2023-11-14T22:13:20Z"),
            Some(1_700_000_000)
        );
        for (expectation, text) in [
            (Expectation::AfterSignal, "1700000000.5"),
            (Expectation::AfterSignal, "soon"),
            (Expectation::Changed, "1700000000"),
        ] {
            assert_eq!(stamp(expectation, text), None, "{text}");
        }
    }

    #[test]
    fn a_config_that_was_read_without_a_signal_compares_with_the_survey() {
        let assertions = [
            assertion(Expectation::Changed),
            assertion(Expectation::Increased),
            assertion(Expectation::Changed),
            assertion(Expectation::Changed),
        ];
        let mut now = readings(&["two", "2", "-", "same"]);
        keep_survey(
            &assertions,
            &readings(&["one", "1", "one", "same"]),
            &mut now,
        );
        assert_eq!(now, readings(&["one", "2", "-", "same"]));
    }

    #[test]
    fn an_assertion_that_fell_shows_the_other_config() {
        let equals = [assertion(Expectation::Equals("ok".into()))];
        let shows = |first: &str, now: &str| {
            show_other_config(&equals, &readings(&[first]), &readings(&[now]))
        };
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
        assert!(show_other_config(
            &[assertion(Expectation::Contains("one".into()))],
            &readings(&["one!"]),
            &readings(&["two!"])
        ));
        assert!(!show_other_config(
            &[assertion(Expectation::Changed)],
            &readings(&["one"]),
            &readings(&["two"])
        ));
    }
}
