//! The table of claims: what an exit code and an outcome say. The one place that knows it.

/// What is claimed of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Lives and serves the new config.
    New,
    /// Lives and serves the old config.
    Old,
    /// Lives and got a signal.
    Alive,
    /// Lives, and does not serve the new config.
    Kept,
    /// Got no signal of the run.
    NoSignal,
    Gone,
    /// Something failed; it is named, and nothing more is said.
    Failed,
}

pub(crate) fn of_outcome(outcome: &str) -> Option<Claim> {
    Some(match outcome {
        "confirmed" | "unchanged" => Claim::New,
        "reverted" => Claim::Old,
        "unconfirmed" => Claim::Alive,
        "rejected" => Claim::Kept,
        "untouched" | "refused" => Claim::NoSignal,
        "died" => Claim::Gone,
        "timed_out" | "revert_failed" => Claim::Failed,
        _ => return None,
    })
}

/// What is claimed of every target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Files {
    New,
    /// The old bytes where the run has touched it, else what stood there before.
    Old,
    /// As before the command, to the inode, and no signal to any instance.
    Untouched,
    Any,
}

pub(crate) fn of_exit(exit: i32) -> Option<Files> {
    Some(match exit {
        0 | 12 => Files::New,
        6 => Files::Old,
        1..=5 | 9..=11 => Files::Untouched,
        7 | 8 => Files::Any,
        _ => return None,
    })
}

/// Whether these outcomes may end with this exit code. Where an unproven instance is not accepted, `unconfirmed` is no
/// success.
pub(crate) fn fits(exit: i32, outcomes: &[&str], accepted: bool) -> bool {
    let all = |good: &[&str]| outcomes.iter().all(|o| good.contains(o));
    match exit {
        0 if accepted => all(&["confirmed", "unchanged", "unconfirmed"]),
        0 => all(&["confirmed", "unchanged"]),
        6 => all(&["reverted", "untouched", "refused", "unchanged"]),
        8 => all(&[
            "confirmed",
            "unchanged",
            "unconfirmed",
            "reverted",
            "rejected",
            "untouched",
            "refused",
        ]),
        12 => {
            outcomes.contains(&"unconfirmed")
                && all(&[
                    "confirmed",
                    "unchanged",
                    "unconfirmed",
                    "untouched",
                    "refused",
                    "reverted",
                    "rejected",
                ])
        }
        1..=5 | 9..=11 => all(&["untouched", "refused", "unchanged"]),
        _ => true,
    }
}
