use proptest::prelude::*;

use super::*;

const OUTCOMES: [Outcome; 10] = [
    Outcome::Untouched,
    Outcome::Unchanged,
    Outcome::Confirmed,
    Outcome::Unconfirmed,
    Outcome::Refused,
    Outcome::Rejected,
    Outcome::TimedOut,
    Outcome::Died,
    Outcome::Reverted,
    Outcome::RevertFailed,
];

proptest! {
    /// The table of exit codes, over every combination of outcomes.
    #[test]
    fn a_verdict_follows_from_the_outcomes(
        picks in proptest::collection::vec((0..OUTCOMES.len(), any::<bool>()), 0..6),
        undone: bool,
    ) {
        let outcomes: Vec<Outcome> = picks.iter().map(|(p, _)| OUTCOMES[*p]).collect();
        let unproven = |accept: bool| {
            if accept {
                Unproven::Accept
            } else {
                Unproven::Report
            }
        };
        let ends: Vec<(Outcome, Unproven)> = picks
            .iter()
            .map(|(p, accept)| (OUTCOMES[*p], unproven(*accept)))
            .collect();
        let all = |good: &[Outcome]| outcomes.iter().all(|s| good.contains(s));
        let new = [Outcome::Confirmed, Outcome::Unchanged, Outcome::Unconfirmed];
        let untouched = [Outcome::Reverted, Outcome::Untouched, Outcome::Refused];
        let wanted = if undone {
            if all(&[&untouched[..], &[Outcome::Unchanged]].concat()) {
                Verdict::Reverted
            } else {
                Verdict::Mixed
            }
        } else if all(&new) {
            let reported = ends.contains(&(Outcome::Unconfirmed, Unproven::Report));
            if reported {
                Verdict::Unproven
            } else {
                Verdict::Converged
            }
        } else if all(&untouched) {
            Verdict::Reverted
        } else if all(&[&new[..], &untouched, &[Outcome::Rejected]].concat()) {
            Verdict::Partial
        } else {
            Verdict::Mixed
        };
        prop_assert_eq!(Verdict::of(ends.iter().copied(), undone), wanted);
        let mut turned = ends.clone();
        turned.reverse();
        prop_assert_eq!(Verdict::of(turned, undone), wanted);
    }
}
