//! How one instance ended: its outcome, its failure and its proof.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How one instance ended; exactly one.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Never signalled.
    Untouched,
    /// Ran the new config already, so it got no signal.
    Unchanged,
    /// Proven on the new config.
    Confirmed,
    /// Signalled and alive; no fault was seen, and nothing proves which config it runs.
    Unconfirmed,
    /// Untouched, and a reason why the run ended.
    Refused,
    /// Signalled, and its self-report shows that it kept the old config; or its reload command
    /// refused.
    Rejected,
    /// Signalled, and not proven in time.
    TimedOut,
    /// The process ended.
    Died,
    /// Proven on the old config after the rollback.
    Reverted,
    /// Rolled back, and not proven on the old config.
    RevertFailed,
}

impl Outcome {
    /// Returns true where no reload of a run is under way: its end was seen, or no signal was sent.
    #[must_use]
    pub fn is_settled(self) -> bool {
        matches!(
            self,
            Self::Confirmed | Self::Reverted | Self::Untouched | Self::Refused
        )
    }
}

/// The kind of a failure, finer than the outcome that it led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Its endpoint did not answer before the run.
    Unresponsive,
    /// A foreign listener or an old worker listens on its address, and the kernel may route the
    /// probe to it.
    ForeignListener,
    /// The outcome is all that there is to say.
    #[serde(untagged)]
    Ended(Outcome),
}

impl From<Outcome> for FailureKind {
    fn from(outcome: Outcome) -> Self {
        Self::Ended(outcome)
    }
}

impl FailureKind {
    /// Returns the outcome that it leads to before any rollback.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        match self {
            Self::ForeignListener => Outcome::TimedOut,
            Self::Unresponsive => Outcome::Untouched,
            Self::Ended(outcome) => outcome,
        }
    }
}

/// Why one step on one instance failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// Its kind.
    pub kind: FailureKind,
    /// One line for the operator.
    pub text: String,
}

/// The strongest thing that an outcome was proven by; the strongest comes first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// The process reported the digest of the bytes that it loaded.
    Exact,
    /// It answers what only the new config makes it answer.
    Content,
    /// It reported that it loaded a config after the signal.
    Reloaded,
    /// Its workers, or its listening socket, are new.
    Workers,
    /// Nothing: its group says that nothing can be seen, or every assertion held before the signal
    /// already.
    None,
}
