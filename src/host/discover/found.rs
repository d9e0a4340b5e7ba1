//! A process of a group, and what a look for one group's processes found.

use std::path::PathBuf;

use crate::{
    event::Instance,
    fleet::{Group, OnBadConfig},
    host::{
        discover::{renewal, title::Telling},
        exec::sees,
        proc::{guard, kernel::Status},
    },
    identity::{Identity, Sees},
};

/// One file or directory of a process's config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// Resolved.
    pub(crate) path: PathBuf,
    /// True where neither the process nor the fleet names it: it is what its program reads by
    /// default.
    pub(crate) assumed: bool,
}

/// A process of a group.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// Process number.
    pub(crate) pid: i32,
    /// Start time in clock ticks since boot.
    pub(crate) started: u64,
    /// Who started it, or who has taken it in.
    pub(crate) parent: i32,
    /// `/proc/PID/exe`.
    pub(crate) exe: PathBuf,
    /// Its user; of several, the one that is trusted least.
    pub(crate) uid: u32,
    /// The process that was seen, for whatever is started for it later.
    pub(crate) seen: Identity,
    /// Its arguments without its own name; a command line that was rewritten into one string by its
    /// words. Short options stand in words of their own where its group says how it reads them.
    pub(crate) args: Vec<String>,
    /// Whether these are all of its arguments.
    pub(crate) telling: Telling,
    /// What becomes of signals to it, when it was found.
    pub(crate) status: Status,
    /// The endpoint that the fleet gives, for a listed process.
    pub(crate) endpoint: Option<String>,
    /// The targets that it reads, once they were looked for.
    pub(crate) configs: Vec<Config>,
}

impl Found {
    /// The process that was seen. Where its group would start it again, also whether it sees what
    /// this process sees.
    pub(crate) fn identity(&self, group: &Group) -> Identity {
        let may_start_again = !group.revive.is_empty() || group.on_bad_config == OnBadConfig::Dies;
        let sees = match may_start_again {
            true => sees(self.pid),
            false if stands_elsewhere(&self.seen) => Sees::Another,
            false => Sees::NotAsked,
        };
        let renewal = renewal::of(&self.seen, group, &self.exe, &self.args);
        Identity {
            sees,
            renewal,
            ..self.seen.clone()
        }
    }

    /// As it is reported.
    pub(crate) fn instance(&self, group: &str) -> Instance {
        let endpoint = self.endpoint.clone().unwrap_or_default();
        Instance {
            exe: self.exe.clone(),
            endpoint,
            targets: self
                .configs
                .iter()
                .map(|config| config.path.clone())
                .collect(),
            ..Instance::new(group, self.pid, self.started)
        }
    }
}

/// Whether a process has its own PID, mount or network namespace; only a part of what it may have
/// of its own, which costs little to look at.
fn stands_elsewhere(seen: &Identity) -> bool {
    seen.inside != seen.pid
        || ["mnt", "net"]
            .into_iter()
            .any(|space| guard::shares(seen.pid, space) == Some(false))
}

/// What a look for one group's processes found; all by pid.
#[derive(Debug, Default)]
pub(crate) struct Finds {
    /// Leaders of the group's users.
    pub(crate) found: Vec<Found>,
    /// Matches that stand in the way of a reload, and why: two masters of one service, workers
    /// without a master.
    pub(crate) refused: Vec<(Found, String)>,
    /// Matches that another takes the signal for: pid, and that of their leader.
    pub(crate) workers: Vec<(i32, i32)>,
    /// Matches that may not be touched: pid and why.
    pub(crate) left_out: Vec<(i32, String)>,
    /// Processes asked for by number that are gone or something else: pid and why; 0 where the
    /// reason is no process.
    pub(crate) missing: Vec<(i32, String)>,
    /// Why this program could not look at processes, where it could not: then others may be there.
    pub(crate) blind: Option<String>,
}
