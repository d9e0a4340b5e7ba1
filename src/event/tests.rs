use proptest::prelude::*;

use super::*;

const STATES: [Outcome; 10] = [
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
    /// The table of exit codes, over every combination of states.
    #[test]
    fn a_verdict_is_what_the_states_say(
        picks in proptest::collection::vec((0..STATES.len(), any::<bool>()), 0..6),
        undone: bool,
    ) {
        let states: Vec<Outcome> = picks.iter().map(|(p, _)| STATES[*p]).collect();
        let of = |accept: bool| {
            if accept {
                Unproven::Accept
            } else {
                Unproven::Report
            }
        };
        let ends: Vec<(Outcome, Unproven)> = picks
            .iter()
            .map(|(p, accept)| (STATES[*p], of(*accept)))
            .collect();
        let all = |good: &[Outcome]| states.iter().all(|s| good.contains(s));
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
