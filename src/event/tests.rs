use proptest::prelude::*;

use super::*;

const STATES: [State; 10] = [
    State::Untouched,
    State::Unchanged,
    State::Confirmed,
    State::Unconfirmed,
    State::Refused,
    State::Rejected,
    State::TimedOut,
    State::Died,
    State::Reverted,
    State::RevertFailed,
];

proptest! {
    /// The table of exit codes, over every combination of states.
    #[test]
    fn a_verdict_is_what_the_states_say(
        picks in proptest::collection::vec((0..STATES.len(), any::<bool>()), 0..6),
        undone: bool,
    ) {
        let states: Vec<State> = picks.iter().map(|(p, _)| STATES[*p]).collect();
        let of = |accept: bool| {
            if accept {
                Unproven::Accept
            } else {
                Unproven::Report
            }
        };
        let ends: Vec<(State, Unproven)> = picks
            .iter()
            .map(|(p, accept)| (STATES[*p], of(*accept)))
            .collect();
        let all = |good: &[State]| states.iter().all(|s| good.contains(s));
        let new = [State::Confirmed, State::Unchanged, State::Unconfirmed];
        let untouched = [State::Reverted, State::Untouched, State::Refused];
        let wanted = if undone {
            if all(&[&untouched[..], &[State::Unchanged]].concat()) {
                Verdict::Reverted
            } else {
                Verdict::Mixed
            }
        } else if all(&new) {
            let reported = ends.contains(&(State::Unconfirmed, Unproven::Report));
            if reported {
                Verdict::Unproven
            } else {
                Verdict::Converged
            }
        } else if all(&untouched) {
            Verdict::Reverted
        } else if all(&[&new[..], &untouched, &[State::Rejected]].concat()) {
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
