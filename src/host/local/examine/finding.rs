//! One finding of `hello doctor`, and the topic that it belongs to.

use serde::{Deserialize, Serialize};

use crate::refusal::Refusal;

/// The subject of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Topic {
    /// The group or kind that matches the process.
    Group,
    /// Leader, worker, or another role among the matches of its group.
    Role,
    /// The group or kind that declares that the program reloads on the signal, or the command that
    /// makes it reload.
    Reloads,
    /// The process's reaction to the signal.
    Signal,
    /// The right of this user to send the signal.
    Permission,
    /// The running program, compared with the one at its path.
    Program,
    /// The process: running or stopped.
    State,
    /// The mount namespace of the process.
    Mounts,
    /// The network namespace of the process.
    Network,
    /// The paths of its config.
    Config,
    /// The replacement of its config.
    Install,
    /// The file or key that its new config comes from.
    Source,
    /// The address at which it is probed.
    Endpoint,
    /// Its answers there.
    Answers,
    /// Its validator, run once.
    Validator,
    /// The validator's result for the config on the disk.
    Disk,
    /// The effect of a config that cannot be loaded.
    BadConfig,
    /// The proof that a reload would get.
    Proof,
    /// The watch on the files that the process opens.
    Opened,
    /// Files and keys that the process reads only at its start.
    NotRead,
}

impl Topic {
    /// Returns the label on the screen, at most 12 letters long.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Group => "Group",
            Self::Role => "Role",
            Self::Reloads => "Reloads",
            Self::Signal => "Signal",
            Self::Permission => "Permission",
            Self::Program => "Program",
            Self::State => "State",
            Self::Mounts => "Mounts",
            Self::Network => "Network",
            Self::Config => "Config",
            Self::Install => "Install",
            Self::Source => "Source",
            Self::Endpoint => "Endpoint",
            Self::Answers => "Answers",
            Self::Validator => "Validator",
            Self::Disk => "Disk",
            Self::BadConfig => "Bad config",
            Self::Proof => "Proof",
            Self::Opened => "Opened",
            Self::NotRead => "Not read",
        }
    }
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finding {
    #[serde(rename = "check")]
    pub(crate) topic: Topic,
    /// True if the check permits a reload. None if it does not decide, or the result is not known.
    pub(crate) ok: Option<bool>,
    /// The result as a sentence.
    pub(crate) text: String,
    /// The next step for the operator.
    pub(crate) next: Option<String>,
    /// The commands for it, quoted for a shell.
    pub(crate) commands: Vec<String>,
}

impl Finding {
    fn new(topic: Topic, ok: Option<bool>, text: impl Into<String>) -> Self {
        Self {
            topic,
            ok,
            text: text.into(),
            next: None,
            commands: Vec::new(),
        }
    }

    /// Returns a finding that permits a reload.
    pub(crate) fn good(topic: Topic, text: impl Into<String>) -> Self {
        Self::new(topic, Some(true), text)
    }

    /// Returns a finding that does not decide.
    pub(crate) fn note(topic: Topic, text: impl Into<String>) -> Self {
        Self::new(topic, None, text)
    }

    /// Returns a finding that prevents a reload.
    pub(crate) fn bad(topic: Topic, text: impl Into<String>) -> Self {
        Self::new(topic, Some(false), text)
    }

    /// Returns the finding of a refusal.
    pub(crate) fn refused<W: ToString>(topic: Topic, refusal: &Refusal<W>) -> Self {
        let Refusal { why, hint } = refusal.reported();
        Self {
            next: hint,
            ..Self::bad(topic, why)
        }
    }

    /// Returns the finding of a check's result; `good` is the text where it lets the process pass.
    pub(super) fn of<W: ToString>(
        topic: Topic,
        result: Result<(), Refusal<W>>,
        good: impl Into<String>,
    ) -> Self {
        result.map_or_else(
            |refusal| Self::refused(topic, &refusal),
            |()| Self::good(topic, good),
        )
    }

    /// Adds what the operator can do about it, and the commands for that.
    pub(crate) fn then_run(self, next: impl Into<String>, commands: Vec<String>) -> Self {
        Self {
            commands,
            ..self.then(next)
        }
    }

    /// Adds what the operator can do about it.
    pub(crate) fn then(self, next: impl Into<String>) -> Self {
        Self {
            next: Some(next.into()),
            ..self
        }
    }

    /// Returns the same finding, without a decision.
    pub(super) fn undecided(self) -> Self {
        Self { ok: None, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_step_of_a_refusal_is_its_whole_hint() {
        let refusal = Refusal::from("is stopped; or traced").with_hint("run `a; b`; then repeat");
        let finding = Finding::refused(Topic::State, &refusal);
        assert_eq!(finding.text, "is stopped; or traced");
        assert_eq!(finding.next.as_deref(), Some("run `a; b`; then repeat"));
        assert_eq!(finding.ok, Some(false));
    }
}
