//! The table of claims: the meaning of each exit code and outcome. No other file knows it.

/// A claim about one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Is alive and serves the new config.
    New,
    /// Is alive and serves the old config.
    Old,
    /// Is alive and got a signal.
    Alive,
    /// Is alive and does not serve the new config.
    Kept,
    /// Got no signal of the run.
    NoSignal,
    Gone,
    /// Something failed and is named. Nothing more is claimed.
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

/// A claim about every target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Files {
    New,
    /// The old bytes if the run has touched the target, else the content before the run.
    Old,
    /// Unchanged, including the inode, and no signal to any instance.
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

/// Whether these outcomes may end with this exit code. `unconfirmed` is no success unless unproven
/// instances are accepted.
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
