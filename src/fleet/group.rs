//! One group, with every default filled in.

use std::{path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    argv::uses,
    count::Count,
    matching::{ListenAt, Match},
    path_base::PathBase,
    reading::Reading,
    rollout::Rollout,
    source::ContentSource,
};
use crate::{
    assertion::{Assertion, Log},
    inventory::Expression,
};

/// The placeholders that stand for the endpoint of an instance.
const LISTEN: [&str; 3] = ["listen", "listen.host", "listen.port"];

/// One resolved group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Its name, unique in its file.
    pub name: String,
    /// The processes that match.
    pub matching: Match,
    /// The matches that are excluded.
    pub exclude: Option<Match>,
    /// The matches that take the signal for the others. Default: those whose parent does not match.
    pub leader: Option<Match>,
    /// The matches that are workers of a leader; one without a leader is refused.
    pub worker: Option<Match>,
    /// Pid files of a leader: the first that exists names the leader.
    pub pid_file: Vec<PathBase>,
    /// The users of the processes, by name or number; `{self}` is the caller. Empty: the caller's.
    pub users: Vec<String>,
    /// The number of instances, checked before anything is touched.
    pub count: Count,
    /// The hosts of the group; none if every host of the fleet is one.
    #[serde(default)]
    pub hosts: Option<Expression>,
    /// The number of instances on each of its hosts; none if any number will do.
    #[serde(default)]
    pub per_host: Option<Count>,
    /// The targets that an instance reads, changed as one step. For each target the first path that
    /// exists counts. Empty for a group that is only signalled and confirmed.
    pub config: Vec<Vec<PathBase>>,
    /// Directories that may contain the config of another user's process, if its own command line
    /// names the config.
    pub config_under: Vec<PathBuf>,
    /// How its program reads the command line.
    #[serde(default)]
    pub reading: Reading,
    /// The place that its new content comes from, if the operator names none.
    pub source: Option<ContentSource>,
    /// Paths that the signal does not make it read: a change of one needs a restart.
    pub needs_restart: Vec<PathBase>,
    /// A command that prints, one per line, the keys of the config that need a restart.
    pub restart_keys: Vec<String>,
    /// A command that prints the value that `{candidate}` gives to `{key}`: the same value as now
    /// needs no restart.
    pub restart_value: Vec<String>,
    /// A command that prints, one per line, the keys on disk that already wait for a restart.
    pub restart_pending: Vec<String>,
    /// A command that prints, one per line, the keys of `{config}` that another file overrides.
    #[serde(default)]
    pub overridden_keys: Vec<String>,
    /// True if the config must not be shown; none if its mode decides.
    pub secret: Option<bool>,
    /// The validator's argv, with placeholders.
    pub validate: Vec<String>,
    /// The demand on its validator.
    #[serde(default)]
    pub validation: Validation,
    /// The validator's argv for a process that replaces its arguments by a title, if `validate`
    /// needs some of them.
    #[serde(default)]
    pub validate_titled: Vec<String>,
    /// The reaction of the program to a config that it cannot load.
    pub on_bad_config: OnBadConfig,
    /// The command that starts it again after it died and the old config was restored.
    pub revive: Vec<String>,
    /// The longest time from the signal of an instance to its proof.
    pub timeout: Duration,
    /// A list of processes instead of a scan.
    pub instances: Vec<Listed>,
    /// The declaration that the program reloads on the signal; a handler alone proves nothing.
    pub reloads: Reloads,
    /// Why no signal reloads the program; none if one may.
    #[serde(default)]
    pub no_signal: Option<NoSignal>,
    /// The way of the program to reload: in place, or by a new execution of itself.
    #[serde(default)]
    pub executes_itself: ExecutesItself,
    /// The program names of children that a reload does not replace, and that serve no client.
    #[serde(default)]
    pub lasting: Vec<String>,
    /// The report that the program gives about itself.
    pub speaks: Speaks,
    /// The listening socket that is probed, of several: the first entry that matches one.
    pub listen: Vec<ListenAt>,
    /// The reload signal.
    pub signal: Signal,
    /// The command that makes an instance reload, instead of the signal; empty if there is none.
    #[serde(default)]
    pub reload_by: Vec<String>,
    /// Assertions that must all hold.
    pub confirm: Vec<Assertion>,
    /// Assertions of which each shows, if it holds after the signal and did not before, that the
    /// program rejected the config.
    pub reject: Vec<Assertion>,
    /// The log whose last lines since the signal stand under a failure.
    #[serde(default)]
    pub log: Option<Log>,
    /// The number of successive probes that must satisfy the assertions, each on a new connection.
    pub samples: u32,
    /// The kind. Without one the program is unknown, so one instance is signalled and proven alone
    /// before the others.
    pub kind: Option<String>,
    /// The end of a run with an unproven instance.
    #[serde(default)]
    pub unproven: Unproven,
    /// The waves of its instances, and the failures that a run tolerates.
    pub rollout: Rollout,
    /// Groups whose last wave is proven before the first wave of this one. A group that is not in
    /// the run stands for those that it comes after itself.
    pub after: Vec<String>,
}

impl Group {
    /// Tells whether one instance goes first alone: the program has no kind, or a bad config ends
    /// it.
    #[must_use]
    pub fn has_canary(&self) -> bool {
        self.kind.is_none() || self.on_bad_config == OnBadConfig::Dies
    }

    /// Returns why nothing reloads its instances; none if a signal or a command may.
    #[must_use]
    pub fn never_reloads(&self) -> Option<&NoSignal> {
        let is_by_command = !self.reload_by.is_empty();
        self.no_signal.as_ref().filter(|_| !is_by_command)
    }

    /// Tells whether its instances are probed at endpoints of their own.
    #[must_use]
    pub fn needs_endpoint(&self) -> bool {
        self.speaks == Speaks::Hello
            || LISTEN.iter().any(|name| uses(&self.reload_by, name))
            || self
                .confirm
                .iter()
                .chain(&self.reject)
                .any(|assertion| assertion.source.uses_listen())
    }
}

/// The reaction of a program to a config that it cannot load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnBadConfig {
    /// It keeps the old config.
    Keeps,
    /// It ends. Validation is strict, and the first wave is one instance.
    Dies,
}

/// The demand on the validator of a group whose program a bad config ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Validation {
    /// It must have one.
    #[default]
    Wanted,
    /// Its program has none, as the group declares.
    Waived,
}

/// The verdict of a run in which nothing proves the new config of a signalled instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unproven {
    /// The run is unproven, exit code 12.
    #[default]
    Report,
    /// The run may succeed; only a `fleet.toml` can set this, never a kind.
    Accept,
}

/// The declaration that a program reloads on the signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reloads {
    /// It is not declared to.
    No,
    /// It is declared to, and must have a handler.
    Yes,
    /// It is declared to, and waits for the signal in `sigwait`, which shows no handler.
    Unchecked,
}

/// Why no signal reloads a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoSignal {
    /// The reason, without its subject's name: `it ignores SIGHUP`.
    pub why: String,
    /// What the operator does instead of a reload.
    pub instead: Option<String>,
}

/// The way of a program to reload: in place, or by a new execution of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecutesItself {
    /// It keeps running the same executable.
    #[default]
    No,
    /// It executes the file that is at the path of its program then.
    Yes,
}

/// A reload signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Signal {
    Hup,
    Usr1,
    Usr2,
}

impl Signal {
    /// Returns its number.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Hup => 1,
            Self::Usr1 => 10,
            Self::Usr2 => 12,
        }
    }

    /// Returns its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hup => "SIGHUP",
            Self::Usr1 => "SIGUSR1",
            Self::Usr2 => "SIGUSR2",
        }
    }
}

/// The report that a program gives about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Speaks {
    /// Nothing: only the assertions of `confirm` count.
    None,
    /// Digest, instance and rejected configs, as `hello serve` does.
    Hello,
}

/// A process that is listed by its pid.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// Its pid.
    pub pid: i32,
    /// Its URL; found from its sockets if absent.
    pub endpoint: Option<String>,
}
