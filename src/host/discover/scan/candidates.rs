//! The candidates of a scan for one group, each read exactly and compared with the patterns.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    entries::{Entry, Scan},
    query::{GroupQuery, needs_listeners},
};
use crate::{
    fleet::{Group, ListenAt, Match, lacking},
    host::{
        discover::inspect::{Criteria, InspectError, Inspected, inspect},
        parallel::par_map::par_map,
        proc::{cmdline::CommandLine, guard::age},
    },
    kernel::Proc,
};

/// Longest time after its fork for which a worker may still have the title of its master.
const FORKED: Duration = Duration::from_secs(1);

/// Pause between two reads while there is such a worker.
const PAUSE: Duration = Duration::from_millis(10);

/// The result of comparing every candidate with one group.
#[derive(Default)]
pub(super) struct Candidates {
    /// Every match, of any user.
    pub(super) matched: BTreeMap<i32, Matched>,
    /// Candidates that could not be read as a process.
    pub(super) unread: BTreeMap<i32, InspectError>,
    /// True if a process was passed over that is hidden from this user, and may listen where the
    /// group says.
    pub(super) may_listen: bool,
    /// Processes of the same program with other arguments: pid, and the argument that is missing.
    pub(super) others: Vec<(i32, String)>,
}

/// A match, and which patterns of its group it fits.
pub(super) struct Matched {
    pub(super) process: Inspected,
    /// True if `exclude` fits it. Its children have no leader because of that.
    pub(super) excluded: bool,
    /// True if nothing of it is hidden from this user.
    pub(super) sure: bool,
    pub(super) leads: bool,
    pub(super) works: bool,
}

/// The result of comparing one candidate.
#[expect(
    clippy::large_enum_variant,
    reason = "a value is taken apart as soon as it is made"
)]
enum Comparison {
    Match(Matched),
    /// No match; the argument that is missing, if that is the only difference.
    Other(Option<String>),
    /// Hidden from this user, and no visible property speaks for a match.
    Hidden,
}

impl Scan {
    /// Compares every candidate, and repeats that while a match is a worker that was just forked
    /// and still has the title of its master.
    pub(super) async fn settled_candidates(&self, query: &GroupQuery<'_>) -> Candidates {
        loop {
            let candidates = self.candidates(query);
            let matched = &candidates.matched;
            let leads = |pid: i32| matched.get(&pid).is_some_and(|matched| matched.leads);
            let is_young = |pid: i32| age(pid).is_some_and(|age| age < FORKED);
            // In time it gets another title, or it is old enough for its title to count.
            let is_unsettled = |matched: &Matched| {
                matched.leads && leads(matched.process.parent) && is_young(matched.process.pid)
            };
            if !matched.values().any(is_unsettled) {
                return candidates;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Reads and compares every process that may run the program of the group.
    fn candidates(&self, query: &GroupQuery<'_>) -> Candidates {
        let what = query.matching.what;
        let mut pids: BTreeSet<i32> = match query.matching.pid {
            Some(pid) => pid.into_iter().collect(),
            None => self
                .entries
                .iter()
                .filter(|entry| entry.exe.as_ref().is_none_or(|exe| what.has_exe(exe)))
                .map(|entry| entry.pid)
                .collect(),
        };
        pids.extend(query.group.instances.iter().map(|listed| listed.pid));
        let pids: Vec<i32> = pids.into_iter().collect();
        let compared = par_map(&pids, |pid| self.compare(query, *pid));
        let mut candidates = Candidates::default();
        for (pid, comparison) in pids.into_iter().zip(compared) {
            match comparison {
                Ok(Comparison::Match(matched)) => {
                    candidates.matched.insert(pid, matched);
                }
                Ok(Comparison::Other(lacking)) => {
                    candidates.others.extend(lacking.map(|why| (pid, why)));
                }
                Ok(Comparison::Hidden) => candidates.may_listen |= needs_listeners(what),
                Err(e) => {
                    candidates.unread.insert(pid, e);
                }
            }
        }
        candidates
    }

    /// Tells whether a process may be one of `group`, by itself: without its sockets, and without
    /// other processes. One that cannot be read may be.
    pub(crate) fn may_match(&self, group: &Group, pid: i32) -> bool {
        if !self.may_be(group, pid) {
            return false;
        }
        // The file says which process it is, and may say another one a moment later.
        if group.matching.pid_file.is_some() {
            return true;
        }
        match inspect(pid) {
            Ok(process) => Criteria::new(&group.matching, None).fits(&process) != Some(false),
            Err(why) => matches!(why, InspectError::Failed(_)),
        }
    }

    /// Compares the arguments of a process alone, which is the cheapest read. Returns the result
    /// where they differ; none where the process must be read as a whole.
    fn compare_arguments(&self, query: &GroupQuery<'_>, pid: i32) -> Option<Comparison> {
        let what = query.matching.what;
        let index = self.entries.binary_search_by_key(&pid, |entry| entry.pid);
        let exe = self.entries.get(index.ok()?)?.exe.as_ref()?;
        // A script decides together with the arguments.
        if what.args.is_empty() || !what.script.is_empty() || !what.has_exe(exe) {
            return None;
        }
        let line = CommandLine::parse(&Proc::open(pid).ok()?.read("cmdline").ok()?);
        let lacks = what.lacks(&line.args)?;
        Some(Comparison::Other(
            (!what.exe.is_empty()).then(|| lacking(lacks)),
        ))
    }

    /// Reads one candidate and compares it with the patterns of the group.
    fn compare(&self, query: &GroupQuery<'_>, pid: i32) -> Result<Comparison, InspectError> {
        if let Some(other) = self.compare_arguments(query, pid) {
            return Ok(other);
        }
        let process = inspect(pid)?;
        let fit = self.fits(&query.matching, &process);
        if fit == Some(false) {
            return Ok(Comparison::Other(query.matching.lacks(&process)));
        }
        if fit.is_none() && !query.matching.may_be(&process) {
            return Ok(Comparison::Hidden);
        }
        let excluded = query
            .exclude
            .as_ref()
            .is_some_and(|exclude| self.fits(exclude, &process) == Some(true));
        let fits = |pattern: &Option<Criteria<'_>>| {
            !excluded
                && pattern
                    .as_ref()
                    .is_some_and(|pattern| self.fits(pattern, &process) != Some(false))
        };
        let leads = fits(&query.leader);
        let works = fits(&query.worker);
        let sure = fit.is_some() && process.exe.is_some();
        Ok(Comparison::Match(Matched {
            process: process.closed(),
            excluded,
            sure,
            leads,
            works,
        }))
    }

    /// Tells whether all of a match holds; none if this user cannot see that.
    pub(in crate::host::discover) fn fits(
        &self,
        criteria: &Criteria<'_>,
        process: &Inspected,
    ) -> Option<bool> {
        let itself = criteria.fits(process);
        if itself == Some(false) {
            return itself;
        }
        let port = criteria.what.port.map(ListenAt::TcpPort);
        let mut fits = itself;
        for address in port.iter().chain(&criteria.what.listens) {
            match self.listens(criteria.what, process, address) {
                Some(true) => {}
                Some(false) => return Some(false),
                None => fits = None,
            }
        }
        fits
    }

    /// Tells whether the process or a child of it listens there; none if this user cannot see that.
    fn listens(&self, what: &Match, process: &Inspected, address: &ListenAt) -> Option<bool> {
        let Ok(listeners) = self.listeners() else {
            return None;
        };
        let args = &process.line.args;
        if !listeners.any(address, args) {
            return Some(false);
        }
        let program = process.program();
        // A process that starts any program, as init or a shell, does not listen where its children
        // do: without a pattern for the program, only children of the same program count.
        let counts = |child: &&Entry| {
            !what.exe.is_empty() || !what.script.is_empty() || child.exe == program
        };
        let children = self.children(process.pid).filter(counts);
        let held: Vec<Option<bool>> = std::iter::once(process.pid)
            .chain(children.map(|child| child.pid))
            .map(|pid| listeners.holds_at(pid, address, args))
            .collect();
        if held.contains(&Some(true)) {
            return Some(true);
        }
        // A process whose descriptors are hidden may hold the socket.
        (!held.contains(&None)).then_some(false)
    }
}
