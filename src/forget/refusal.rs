//! Why nothing was forgotten.

use std::path::Path;

use crate::{
    event::Verdict,
    runs::{NotForgotten, OldRun},
};

/// Why nothing was removed.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) verdict: Verdict,
    pub(super) why: String,
    /// The commands of which one must run first.
    pub(super) next: Vec<String>,
    /// Set for an open run of an earlier version, which no command can finish.
    pub(super) old_version: Option<OldRun>,
}

impl Refusal {
    pub(super) fn new(verdict: Verdict, why: String) -> Self {
        Self {
            verdict,
            why,
            next: Vec::new(),
            old_version: None,
        }
    }
}

/// Returns the refusal of a command on a state directory. Its suggested commands end with
/// `state_args`: ` --state DIR`, or nothing.
pub(super) fn refusal(why: NotForgotten, (state, state_args): (&Path, &str)) -> Refusal {
    let state = state.display();
    match why {
        NotForgotten::Open(info) => {
            let next = info.next(state_args);
            let text = if info.running {
                "needs it, and runs now"
            } else {
                "is open and needs it"
            };
            Refusal {
                next,
                old_version: info.old_version(state_args),
                ..Refusal::new(Verdict::Refused, format!("run {} {text}", info.id))
            }
        }
        NotForgotten::Busy => Refusal::new(
            Verdict::Busy,
            format!("the store in `{state}` is busy: {why}"),
        ),
        NotForgotten::Io(e) => Refusal::new(
            Verdict::Failed,
            format!("the state directory `{state}` cannot be used: {e}"),
        ),
    }
}
