//! Why a run ended before it touched anything.

use serde::{Deserialize, Serialize};

use super::{Instance, Interrupted, Verdict, process::failures};
use crate::{inventory::HostName, refusal::Hint};

/// Why a run ended before it touched anything, or why one of its steps failed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Abort {
    /// Decides the exit code.
    pub verdict: Verdict,
    /// One sentence for the operator.
    pub reason: String,
    /// The instances that are the reason, with their failures.
    pub instances: Vec<Instance>,
    /// True where the failures of the instances are all of the reason, in the words of each host.
    #[serde(skip)]
    pub(crate) by_instances: bool,
    /// True where the run would go on without its validators.
    pub by_validation: bool,
    /// The open run over hosts that must come to its end first, where that is the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) goes_first: Option<String>,
    /// The next step; none if the verdict tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<Box<Hint>>,
}

impl Abort {
    /// Returns an abort that no single instance is the reason of.
    #[must_use]
    pub fn new(verdict: Verdict, reason: impl Into<String>) -> Self {
        Self {
            verdict,
            reason: reason.into(),
            instances: Vec::new(),
            by_instances: false,
            by_validation: false,
            goes_first: None,
            hint: None,
        }
    }

    /// Returns the abort of a validator that rejected the candidate, or that could not run where it
    /// must.
    #[must_use]
    pub fn by_validation(verdict: Verdict, reason: String) -> Self {
        Self {
            by_validation: true,
            ..Self::new(verdict, reason)
        }
    }

    /// Returns the abort of a run that the operator interrupted before it touched anything.
    #[must_use]
    pub fn interrupted() -> Self {
        Self::from(Interrupted)
    }

    /// Returns the abort of a run whose journal missed an event. A run that cannot be read later
    /// goes no further.
    #[must_use]
    pub(crate) fn unjournaled() -> Self {
        Self::new(Verdict::Failed, "the journal cannot be written")
    }

    /// Returns the abort of a run over hosts by one of them, which the reason names.
    #[must_use]
    pub(crate) fn at(self, host: &HostName) -> Self {
        let mut instances = self.instances;
        for instance in &mut instances {
            instance.host = host.clone();
        }
        Self {
            reason: format!("{host}: {}", self.reason),
            instances,
            ..self
        }
    }

    /// Adds the commands to type next; `what` leads to them.
    #[must_use]
    pub(crate) fn with_hint(self, what: &str, commands: Vec<String>) -> Self {
        let what = what.to_owned();
        Self {
            hint: Some(Box::new(Hint { what, commands })),
            ..self
        }
    }

    /// Returns the abort of a run that a guard refused because of `instances`.
    #[must_use]
    pub fn refused(instances: Vec<Instance>) -> Self {
        let reason = failures(&instances);
        Self {
            instances,
            ..Self::new(Verdict::Refused, reason)
        }
    }
}

impl From<Interrupted> for Abort {
    fn from(interrupted: Interrupted) -> Self {
        Self::new(Verdict::Failed, interrupted.to_string())
    }
}
