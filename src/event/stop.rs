//! Why a run ended before it had touched anything.

use super::{Instance, Verdict};

/// Most instances that one sentence names, so that it can be read.
const NAMED: usize = 10;

/// Why a run ended before it had touched anything, or how one of its steps failed.
#[derive(Debug)]
pub struct Abort {
    /// Decides the exit code.
    pub verdict: Verdict,
    /// For people.
    pub reason: String,
    /// Those that are the reason, with their trouble.
    pub instances: Vec<Instance>,
    /// Whether the run would go on without its validators.
    pub by_validation: bool,
}

impl Abort {
    /// An end that no single instance is the reason of.
    #[must_use]
    pub fn new(verdict: Verdict, reason: impl Into<String>) -> Self {
        Self {
            verdict,
            reason: reason.into(),
            instances: Vec::new(),
            by_validation: false,
        }
    }

    /// A validator said no, or could not judge where it must.
    #[must_use]
    pub fn by_validation(verdict: Verdict, reason: String) -> Self {
        Self {
            by_validation: true,
            ..Self::new(verdict, reason)
        }
    }

    /// The operator interrupted the run before it had touched anything.
    #[must_use]
    pub fn interrupted() -> Self {
        Self::new(Verdict::Failed, "halted by the operator")
    }

    /// Instances that a guard refused, by name.
    #[must_use]
    pub fn refused(instances: Vec<Instance>) -> Self {
        let text = |i: &Instance| {
            format!(
                "pid {} {}",
                i.pid,
                i.failure.as_ref().map_or("", |t| &t.text)
            )
        };
        let mut reason = instances
            .iter()
            .take(NAMED)
            .map(text)
            .collect::<Vec<_>>()
            .join("; ");
        if instances.len() > NAMED {
            reason += &format!("; and {} more", instances.len() - NAMED);
        }
        Self {
            verdict: Verdict::Refused,
            reason,
            instances,
            by_validation: false,
        }
    }
}
