//! One group, with every default filled in.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    count::Count,
    matching::{ListenAt, Match},
    path_base::PathBase,
    reading::Reading,
    rollout::Rollout,
};
use crate::assertion::Assertion;

/// One group, resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Unique in its file.
    pub name: String,
    /// Which processes.
    pub matching: Match,
    /// Which of these not.
    pub exclude: Option<Match>,
    /// Which of the matches take the signal for all; without it, those whose parent is no match.
    pub leader: Option<Match>,
    /// What a match looks like that only works for a leader; one without a leader is refused.
    pub worker: Option<Match>,
    /// Where a leader writes its number: the first that exists decides who leads.
    pub pid_file: Vec<PathBase>,
    /// Whose processes, by name or number; `{self}` is the caller. Empty: the caller's own.
    pub users: Vec<String>,
    /// Number of instances, checked before anything is touched.
    pub count: Count,
    /// What an instance reads, changed as one step: of each target the first place that exists.
    /// Empty for a group that is only signalled and confirmed.
    pub config: Vec<Vec<PathBase>>,
    /// Where the config of another user's process may lie, when its own command line names it.
    pub config_under: Vec<PathBuf>,
    /// How it reads its command line.
    #[serde(default)]
    pub reading: Reading,
    /// Where each target's new content was put by somebody else; `{config}` stands for the target.
    pub source: Option<String>,
    /// Places that the signal does not make it read: a change of one needs a restart.
    pub needs_restart: Vec<PathBase>,
    /// A command that names, one a line, the keys of the config that need a restart.
    pub restart_keys: Vec<String>,
    /// A command that prints the value that `{candidate}` gives to `{key}`: the same value as now
    /// needs no restart.
    pub restart_value: Vec<String>,
    /// A command that names, one a line, the keys that wait for a restart by what stands on the
    /// disk already.
    pub restart_pending: Vec<String>,
    /// A command that names, one a line, the keys of `{config}` that another place overrides.
    #[serde(default)]
    pub overridden_keys: Vec<String>,
    /// Whether the config must not be shown; none when its mode decides.
    pub secret: Option<bool>,
    /// The validator's argv, with placeholders to fill in.
    pub validate: Vec<String>,
    /// Whether one is wanted.
    #[serde(default)]
    pub validation: Validation,
    /// The same for a process that hides its arguments behind a title, where `validate` stands for
    /// some of them.
    #[serde(default)]
    pub validate_titled: Vec<String>,
    /// What the program does with a config that it cannot load.
    pub on_bad_config: OnBadConfig,
    /// Starts it again, after it died and the old config is back.
    pub revive: Vec<String>,
    /// Per instance, from its signal to the proof.
    pub timeout: Duration,
    /// A list of processes instead of a scan.
    pub instances: Vec<Listed>,
    /// Whether somebody who knows the program says that it reloads on SIGHUP; a handler alone
    /// proves nothing.
    pub reloads: Reloads,
    /// Whether the signal makes it execute itself again.
    #[serde(default)]
    pub executes_itself: ExecutesItself,
    /// What the program tells of itself.
    pub speaks: Speaks,
    /// Which of several listening sockets is asked: the first entry that one fits.
    pub listen: Vec<ListenAt>,
    /// What makes it reload.
    pub signal: Signal,
    /// All must hold.
    pub confirm: Vec<Assertion>,
    /// One that holds after the signal and did not before says that the config was refused.
    pub reject: Vec<Assertion>,
    /// How often in a row, each time on a fresh connection.
    pub samples: u32,
    /// Without one, one instance is signalled and proven alone before the others: nobody knows what
    /// this program does.
    pub kind: Option<String>,
    /// Whether an instance that nothing proves keeps the run from being a success.
    #[serde(default)]
    pub unproven: Unproven,
    /// In which waves its instances go, and what may fail.
    pub rollout: Rollout,
    /// Groups whose last wave is proven before its first begins. One that is not in the run stands
    /// for those that it comes after itself.
    pub after: Vec<String>,
}

impl Group {
    /// Whether its instances are asked at an endpoint of their own.
    #[must_use]
    pub fn needs_endpoint(&self) -> bool {
        self.speaks == Speaks::Hello
            || self
                .confirm
                .iter()
                .chain(&self.reject)
                .any(|fact| fact.source.uses_listen())
    }
}

/// What a program does with a config that it cannot load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBadConfig {
    /// It goes on with the old one.
    Keeps,
    /// It ends: validation is strict, and one instance goes alone first.
    Dies,
}

/// Whether a group must have a validator where a config is dangerous.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Validation {
    /// It must.
    #[default]
    Wanted,
    /// The group says that its program has none.
    Waived,
}

/// What becomes of a run in which nothing proves the new config of a signalled instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unproven {
    /// It ends as unproven, exit 12.
    #[default]
    Report,
    /// It may end as a success; only a `fleet.toml` can say so, never a kind.
    Accept,
}

/// Whether a program reloads on the signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reloads {
    /// Nobody says so.
    No,
    /// Somebody says so, and its handler must be there.
    Yes,
    /// Somebody says so, of a program that waits for it in `sigwait`, which shows no handler.
    Unchecked,
}

/// Whether a program executes itself again on the signal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecutesItself {
    /// It goes on in the same program.
    #[default]
    No,
    /// It executes what stands at the path of its program by then.
    Yes,
}

/// What makes a program reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Signal {
    Hup,
    Usr1,
    Usr2,
}

impl Signal {
    /// As the kernel counts it.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Hup => 1,
            Self::Usr1 => 10,
            Self::Usr2 => 12,
        }
    }

    /// As people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hup => "SIGHUP",
            Self::Usr1 => "SIGUSR1",
            Self::Usr2 => "SIGUSR2",
        }
    }
}

/// What a program tells of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Speaks {
    /// Nothing: only the facts of `confirm` count.
    None,
    /// Digest, instance and refusals, as `hello serve` does.
    Hello,
}

/// A process named by its number.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// The process.
    pub pid: i32,
    /// Its URL; found from its sockets when absent.
    pub endpoint: Option<String>,
}
