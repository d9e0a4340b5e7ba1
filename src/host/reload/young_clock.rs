//! An uptime that began a moment ago. A reload makes it fall only for as long as it had run.

use std::time::Duration;

use crate::assertion::{Assertion, Expectation};

/// From this reading on, a fall of an uptime in seconds is seen: the probes after a signal have as
/// many seconds for it.
const OLD_ENOUGH: f64 = 3.0;

/// The longest wait for that. A reading that stays small is taken after it.
pub(super) const LIMIT: Duration = Duration::from_millis(3500);

/// The pause between two readings meanwhile.
pub(super) const PAUSE: Duration = Duration::from_millis(250);

/// Tells whether a fall of one of these readings could be seen only for a moment.
pub(super) fn is_among(assertions: &[Assertion], readings: &[Option<String>]) -> bool {
    let is_young = |(assertion, reading): (&Assertion, &Option<String>)| {
        let number = reading.as_ref().and_then(|text| text.trim().parse().ok());
        assertion.expectation == Expectation::Decreased
            && number.is_some_and(|number: f64| (0.0..OLD_ENOUGH).contains(&number))
    };
    assertions.iter().zip(readings).any(is_young)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::probed::silent;

    fn is_young(expectation: Expectation, reading: &str) -> bool {
        let (_, assertion) = silent(expectation);
        is_among(&[assertion], &[Some(reading.into())])
    }

    #[test]
    fn an_uptime_is_young_for_its_first_seconds() {
        for (reading, young) in [("0", true), ("2.9", true), ("3", false), ("86400", false)] {
            assert_eq!(
                is_young(Expectation::Decreased, reading),
                young,
                "{reading}"
            );
        }
    }

    #[test]
    fn a_reading_that_is_no_uptime_is_not_young() {
        assert!(!is_young(Expectation::Decreased, "-1"));
        assert!(!is_young(Expectation::Decreased, "three"));
        assert!(!is_young(Expectation::Increased, "1"));
    }
}
