//! How a run ended, and the exit code of that.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Outcome;
use crate::fleet::Unproven;

/// How a run ended; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every instance is on the new config.
    Converged,
    /// The command could not work; nothing was touched.
    Failed,
    /// Bad arguments, or a bad fleet file.
    Usage,
    /// A group matched no process, or not its count; nothing was touched.
    NoMatch,
    /// The change was read and is not acceptable; nothing was touched.
    Invalid,
    /// A guard refused the run; nothing was touched.
    Refused,
    /// Every touched instance is proven on the old config again.
    Reverted,
    /// Something that was touched is not proven.
    Mixed,
    /// Every touched instance is proven, on the new or the old config. Some are not on the new one,
    /// on purpose.
    Partial,
    /// Another run holds the lock; nothing was touched.
    Busy,
    /// The change is valid and needs a restart; nothing was touched.
    RestartRequired,
    /// More hosts than the run may go without did not greet; nothing was touched.
    Unreachable,
    /// Every touched instance was signalled and lives, and no fault was seen. For some, nothing
    /// proves the new config.
    Unproven,
}

impl Verdict {
    /// Every verdict, in the order of the exit codes.
    pub const ALL: [Self; 13] = [
        Self::Converged,
        Self::Failed,
        Self::Usage,
        Self::NoMatch,
        Self::Invalid,
        Self::Refused,
        Self::Reverted,
        Self::Mixed,
        Self::Partial,
        Self::Busy,
        Self::RestartRequired,
        Self::Unreachable,
        Self::Unproven,
    ];

    /// Returns what the verdict says of the fleet, in one line.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::Converged => "converged: every instance is proven on the new config",
            Self::Failed => "failed: the command could not work; nothing was touched",
            Self::Usage => "usage: bad arguments or a bad fleet.toml; nothing was touched",
            Self::NoMatch => {
                "no match: a group has no instance, or not its count; nothing was touched"
            }
            Self::Invalid => "invalid: the change is not acceptable; nothing was touched",
            Self::Refused => "refused: a guard refused it, and is named; nothing was touched",
            Self::Reverted => "reverted: every touched instance is proven on the old config",
            Self::Mixed => "mixed: something that was touched is not proven; each is named",
            Self::Partial => "partial: some instances are not on the new config, on purpose",
            Self::Busy => "busy: another run holds the lock; nothing was touched",
            Self::RestartRequired => "restart required: the change is valid; nothing was touched",
            Self::Unreachable => "unreachable: too many hosts did not greet; nothing was touched",
            Self::Unproven => "unproven: no fault was seen, and nothing proves some instances",
        }
    }

    /// Returns the exit code.
    #[must_use]
    pub fn exit(self) -> u8 {
        match self {
            Self::Converged => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NoMatch => 3,
            Self::Invalid => 4,
            Self::Refused => 5,
            Self::Reverted => 6,
            Self::Mixed => 7,
            Self::Partial => 8,
            Self::Busy => 9,
            Self::RestartRequired => 10,
            Self::Unreachable => 11,
            Self::Unproven => 12,
        }
    }

    /// Returns the verdict of a run that sent signals. It depends only on the outcomes of the
    /// instances, and on whether the run rolled everything back (`undone`). Each outcome comes with
    /// what its group says of an unproven instance.
    #[must_use]
    pub fn of(outcomes: impl IntoIterator<Item = (Outcome, Unproven)>, undone: bool) -> Self {
        let mut proven = true;
        let mut all_new = true;
        let mut some_new = false;
        let mut none_new = true;
        let mut unconfirmed = false;
        for (outcome, unproven) in outcomes {
            unconfirmed |= outcome == Outcome::Unconfirmed && unproven == Unproven::Report;
            let new = matches!(
                outcome,
                Outcome::Confirmed | Outcome::Unconfirmed | Outcome::Unchanged
            );
            let old = matches!(
                outcome,
                Outcome::Reverted | Outcome::Untouched | Outcome::Refused
            );
            proven &= new || old || outcome == Outcome::Rejected;
            all_new &= new;
            some_new |= new;
            none_new &= old || outcome == Outcome::Unchanged;
        }
        match undone {
            _ if !proven => Self::Mixed,
            true if none_new => Self::Reverted,
            true => Self::Mixed,
            false if all_new && unconfirmed => Self::Unproven,
            false if all_new => Self::Converged,
            false if none_new && !some_new => Self::Reverted,
            false => Self::Partial,
        }
    }
}

#[cfg(test)]
mod tests;
