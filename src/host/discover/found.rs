//! A process of a group, and the result of a scan for one group.

use std::{collections::BTreeSet, ffi::OsString, io, path::PathBuf};

use crate::{
    event::{Instance, ReloadsBy},
    fleet::{Group, KINDS, Kind, OnBadConfig, PathBase},
    host::{
        discover::{inspect::Inspected, owner, reason::MatchRefusal, renewal, title::Telling},
        exec::{sees, variable},
        proc::guard::{self, Namespace},
    },
    identity::{Identity, Sees},
    kernel::Status,
};

/// One file or directory of a process's config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// Resolved.
    pub(crate) path: PathBuf,
    /// As the process or the fleet names it, absolute and with its links.
    pub(crate) named: PathBuf,
    /// True if neither the process nor the fleet names it: the program reads it by default.
    pub(crate) assumed: bool,
}

/// A process of a group.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) pid: i32,
    /// In clock ticks since boot.
    pub(crate) started: u64,
    /// The process that started it, or that adopted it.
    pub(crate) parent: i32,
    /// `/proc/PID/exe`; empty if this user may not see it.
    pub(crate) exe: PathBuf,
    /// Its user; of several, the one that is trusted least.
    pub(crate) uid: u32,
    /// Its identity at the survey, for the commands that are run as this process later.
    pub(crate) seen: Identity,
    /// The arguments without `argv[0]`, or the words of its title. Short options are words of their
    /// own if the group declares how the program reads them.
    pub(crate) args: Vec<String>,
    /// The completeness of `args`.
    pub(crate) telling: Telling,
    /// Its signal masks at the survey.
    pub(crate) status: Status,
    /// The endpoint that the fleet gives a listed process.
    pub(crate) endpoint: Option<String>,
    /// The targets that it reads, once they were located.
    pub(crate) configs: Vec<Config>,
}

impl Found {
    /// Takes what an inspection read of a process.
    pub(super) fn of(process: Inspected) -> Self {
        let uid = owner::of(&process.identity.person);
        let Inspected {
            pid,
            started,
            parent,
            identity,
            exe,
            line,
            status,
            ..
        } = process;
        let telling = if line.rewritten {
            Telling::Title(line.name)
        } else {
            Telling::Arguments
        };
        Self {
            pid,
            started,
            parent,
            exe: exe.unwrap_or_default(),
            uid,
            seen: identity,
            args: line.args,
            telling,
            status,
            endpoint: None,
            configs: Vec::new(),
        }
    }

    /// Returns its identity at the survey. If its group may start it again, this includes whether
    /// it sees the same files and network as this program.
    pub(crate) fn identity(&self, group: &Group) -> Identity {
        let may_start_again = !group.revive.is_empty() || group.on_bad_config == OnBadConfig::Dies;
        let sees = match may_start_again {
            true => sees(self.pid),
            false if has_own_namespace(&self.seen) => Sees::Another,
            false => Sees::NotAsked,
        };
        let renewal = renewal::of(&self.seen, group, &self.exe, &self.args);
        Identity {
            sees,
            renewal,
            ..self.seen.clone()
        }
    }

    /// Returns the variables of its environment that its group or its kind names.
    pub(crate) fn named_variables(&self, group: &Group) -> Vec<(String, OsString)> {
        let places = group.config.iter().flatten().chain(&group.reading.base);
        let of_group = places.filter_map(|place| match place {
            PathBase::Env(name, _) => Some(name.clone()),
            _ => None,
        });
        // A group that names its config itself has a process that the variable leads there as well.
        let of_kind = KINDS
            .iter()
            .filter(|kind| group.kind.as_deref() == Some(kind.name))
            .flat_map(Kind::variables)
            .map(str::to_owned);
        let names: BTreeSet<String> = of_group.chain(of_kind).collect();
        let value = |name: String| {
            let value = variable(self.pid, &name)??;
            Some((name, value))
        };
        names.into_iter().filter_map(value).collect()
    }

    /// Returns it as it is reported.
    pub(crate) fn instance(&self, group: &Group) -> Instance {
        let endpoint = self.endpoint.clone().unwrap_or_default();
        Instance {
            exe: self.exe.clone(),
            endpoint,
            targets: self
                .configs
                .iter()
                .map(|config| config.path.clone())
                .collect(),
            reloads_by: Some(ReloadsBy::of(group)),
            ..Instance::new(&group.name, self.pid, self.started)
        }
    }
}

/// Tells whether a process has its own PID, mount or network namespace. It may have others; these
/// are the ones that cost little to read.
fn has_own_namespace(seen: &Identity) -> bool {
    seen.inside != seen.pid
        || [Namespace::Mount, Namespace::Network]
            .into_iter()
            .any(|namespace| guard::shares(seen.pid, namespace) == Some(false))
}

/// The result of a scan for one group, by pid.
#[derive(Debug, Default)]
pub(crate) struct Finds {
    /// Leaders of the group's users.
    pub(crate) found: Vec<Found>,
    /// Matches that prevent a reload, and why: two masters of one service, workers without a
    /// master.
    pub(crate) refused: Vec<(Found, MatchRefusal)>,
    /// Matches whose leader takes the signal for them: pid, and the pid of the leader.
    pub(crate) workers: Vec<(i32, i32)>,
    /// Matches that are not part of a run: pid and why.
    pub(crate) skipped: Vec<(i32, MatchRefusal)>,
    /// Processes that were asked for by pid, and are gone or something else: pid and why. The pid
    /// is 0 if the reason is no process.
    pub(crate) missing: Vec<(i32, MatchRefusal)>,
    /// Why this program could not read processes, if it could not: then more may exist.
    pub(crate) blind: Option<io::Error>,
}
