//! One scan of all processes, and the processes of each group in it.

mod candidates;
mod outcome;
mod query;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    path::PathBuf,
    sync::OnceLock,
};

pub(super) use self::query::pid_named_by;
use self::{
    candidates::{Candidates, Matched},
    outcome::MatchOutcome,
};
use crate::{
    fleet::Group,
    host::{
        discover::{
            config::place_of,
            found::{Finds, Found},
            inspect::{InspectError, inspect},
            leaders::LeaderSource,
            pidfile::PidFile,
            unit::main_pid,
        },
        net::sockets::Listeners,
        parallel::par_map::par_map,
        proc::{
            kernel::{pids, strip_deleted},
            table::{Row, TableReader},
        },
    },
};

/// How many processes of the same program, but with other arguments, are named if a group has no
/// match.
const MAX_OTHERS: usize = 10;

/// How many rows of the process table are read as one task. A row takes about 25 us, so that a
/// task is far more than the cost of handing it to another core.
const ROWS_PER_TASK: usize = 16;

/// A process that may run the program of a group.
#[derive(Debug)]
struct Entry {
    pid: i32,
    parent: Option<i32>,
    /// Without the kernel's mark of a deleted file; none if this user may not see it.
    exe: Option<PathBuf>,
}

/// Every process of this host with its executable. One scan serves all groups.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// By pid.
    entries: Vec<Entry>,
    by_parent: OnceLock<HashMap<i32, Vec<usize>>>,
    listeners: OnceLock<Result<Listeners, String>>,
}

impl Scan {
    /// Scans all processes.
    ///
    /// # Errors
    /// Fails if `/proc` cannot be listed.
    pub(crate) fn take() -> io::Result<Self> {
        Ok(Self::of(&pids()?))
    }

    /// Scans the processes with these pids, which are sorted. This process is never found.
    pub(crate) fn of(listed: &[i32]) -> Self {
        let own = std::process::id();
        let pids: Vec<i32> = listed
            .iter()
            .copied()
            .filter(|pid| u32::try_from(*pid) != Ok(own))
            .collect();
        let reader = TableReader::default();
        let tasks: Vec<&[i32]> = pids.chunks(ROWS_PER_TASK).collect();
        let entries = par_map(&tasks, |pids| entries_of(pids, reader.rows(pids)));
        Self {
            entries: entries.into_iter().flatten().collect(),
            ..Self::default()
        }
    }

    /// Whether a process may be one of `group`, by its executable alone.
    pub(crate) fn may_be(&self, group: &Group, pid: i32) -> bool {
        let entry = self
            .entries
            .binary_search_by_key(&pid, |entry| entry.pid)
            .ok()
            .and_then(|index| self.entries.get(index));
        entry.is_some_and(|entry| {
            let exe = entry.exe.as_ref();
            exe.is_none_or(|exe| group.matching.has_exe(exe))
        })
    }

    /// Finds the processes of each of `groups`. A process that several groups match belongs to the
    /// first of them.
    pub(crate) async fn find_all(&self, groups: impl Iterator<Item = &Group>) -> Vec<Finds> {
        let mut all = Vec::new();
        let mut known = BTreeSet::new();
        for group in groups {
            let mut finds = self.find(group).await;
            finds.refused.retain(|(found, _)| known.insert(found.pid));
            finds.found.retain(|found| known.insert(found.pid));
            all.push(finds);
        }
        all
    }

    /// Finds the processes of `group`: those of its list, or else all matches.
    pub(crate) async fn find(&self, group: &Group) -> Finds {
        let mut finds = Finds::default();
        let query = match self.query(group) {
            Ok(query) => query,
            Err(missing) => {
                finds.missing.push(missing);
                return finds;
            }
        };
        let Candidates {
            matched,
            unread,
            may_listen,
            others,
        } = self.settled_candidates(&query).await;
        finds.blind = unread.values().find_map(InspectError::own);
        let source = LeaderSource {
            main: main_process(&matched, group).await,
            named: named_by_pid_files(&matched, group),
            pattern: group.leader.is_some(),
        };
        let outcomes = query.outcomes(matched, &source);
        if !group.instances.is_empty() {
            add_listed(&mut finds, group, outcomes, &unread);
            return finds;
        }
        if let (Some(Some(pid)), Some(path)) = (query.matching.pid, &group.matching.pid_file)
            && !outcomes.contains_key(&pid)
        {
            let why = no_match(group, &unread, pid);
            finds
                .missing
                .push((pid, format!("is named by `{}` and {why}", path.display())));
        }
        for (pid, outcome) in outcomes {
            match outcome {
                MatchOutcome::Found(found) => finds.found.push(found),
                MatchOutcome::Refused(found, why) => finds.refused.push((found, why)),
                MatchOutcome::Worker(_, leader) => finds.workers.push((pid, leader)),
                MatchOutcome::Skipped(why) => finds.skipped.push((pid, why)),
            }
        }
        let failed = unread
            .into_iter()
            .filter(|(_, e)| matches!(e, InspectError::Failed(_)));
        finds
            .skipped
            .extend(failed.map(|(pid, e)| (pid, e.to_string())));
        if finds.found.is_empty() && finds.refused.is_empty() {
            finds.skipped.extend(others.into_iter().take(MAX_OTHERS));
            if may_listen {
                let why = format!(
                    "a process that may listen where group `{}` says cannot be looked at by this \
                     user",
                    group.name
                );
                finds.missing.push((0, why));
            }
        }
        finds
    }

    /// The processes that `pid` started, without those that run no program.
    fn children(&self, pid: i32) -> impl Iterator<Item = &Entry> {
        let by_parent = self.by_parent.get_or_init(|| {
            let mut map: HashMap<i32, Vec<usize>> = HashMap::new();
            for (index, entry) in self.entries.iter().enumerate() {
                if let Some(parent) = entry.parent {
                    map.entry(parent).or_default().push(index);
                }
            }
            map
        });
        by_parent
            .get(&pid)
            .into_iter()
            .flatten()
            .filter_map(|index| self.entries.get(*index))
    }

    fn listeners(&self) -> Result<&Listeners, &String> {
        self.listeners
            .get_or_init(|| Listeners::read().map_err(|e| e.to_string()))
            .as_ref()
    }
}

/// Turns the rows of `pids` into entries. A row without an executable, or a pid without a row, is
/// read exactly: the table could not be read completely, or the process runs no program.
fn entries_of(pids: &[i32], rows: Vec<Row>) -> Vec<Entry> {
    let mut rows = rows.into_iter().peekable();
    let entry = |pid: &i32| {
        let row = rows.next_if(|row| row.pid == *pid);
        let parent = row.as_ref().and_then(|row| row.parent);
        match row.and_then(|row| row.exe) {
            Some(exe) => Some(Entry {
                pid: *pid,
                parent,
                exe: Some(exe),
            }),
            None => exact_entry(*pid, parent),
        }
    };
    pids.iter().filter_map(entry).collect()
}

fn exact_entry(pid: i32, parent: Option<i32>) -> Option<Entry> {
    let exe = match std::fs::read_link(format!("/proc/{pid}/exe")) {
        Ok(exe) => Some(strip_deleted(&exe).to_owned()),
        // A process whose executable this user may not see may belong to a group.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => None,
        // A zombie and a thread of the kernel have no executable.
        Err(_) => return None,
    };
    let is_known = exe.is_some() && parent.is_some();
    let inspected = if is_known { None } else { inspect(pid).ok() };
    if exe.is_none() && inspected.is_none() {
        return None;
    }
    Some(Entry {
        pid,
        parent: parent.or(inspected.map(|process| process.parent)),
        exe,
    })
}

/// Sorts the outcomes of a group with a list of instances.
fn add_listed(
    finds: &mut Finds,
    group: &Group,
    mut outcomes: BTreeMap<i32, MatchOutcome>,
    unread: &BTreeMap<i32, InspectError>,
) {
    for listed in &group.instances {
        match outcomes.remove(&listed.pid) {
            Some(MatchOutcome::Found(found)) => finds.found.push(Found {
                endpoint: listed.endpoint.clone(),
                ..found
            }),
            Some(MatchOutcome::Refused(found, why)) => finds.refused.push((found, why)),
            Some(MatchOutcome::Skipped(why)) => finds.missing.push((listed.pid, why)),
            Some(MatchOutcome::Worker(found, leader)) => {
                let why = format!(
                    "is a worker of pid {leader}, which takes the signal for it: list that one"
                );
                finds.refused.push((found, why));
            }
            None => {
                let why = no_match(group, unread, listed.pid);
                finds.missing.push((listed.pid, why));
            }
        }
    }
}

/// Why a pid that was asked for is no match.
fn no_match(group: &Group, unread: &BTreeMap<i32, InspectError>, pid: i32) -> String {
    unread.get(&pid).map_or_else(
        || format!("is no process of group `{}`", group.name),
        InspectError::to_string,
    )
}

/// The main process of the group's unit, if it has one.
async fn main_process(matched: &BTreeMap<i32, Matched>, group: &Group) -> Option<i32> {
    match &group.matching.unit {
        Some(unit) if !matched.is_empty() => main_pid(unit).await,
        _ => None,
    }
}

/// The matches that the group's pid files name, as the command line of each match locates the file.
/// A file that other users can write is not trusted.
fn named_by_pid_files(matched: &BTreeMap<i32, Matched>, group: &Group) -> BTreeSet<i32> {
    let mut read: BTreeMap<PathBuf, Option<PidFile>> = BTreeMap::new();
    let mut named = BTreeSet::new();
    for process in matched.values().map(|matched| &matched.process) {
        let paths = group
            .pid_file
            .iter()
            .filter_map(|base| place_of(process.pid, &process.line.args, base).ok()?);
        for path in paths {
            let Some(file) = read
                .entry(path)
                .or_insert_with_key(|path| PidFile::read(path).ok())
            else {
                continue;
            };
            if matched
                .get(&file.pid)
                .is_some_and(|matched| file.is_trusted(matched.process.uid).is_ok())
            {
                named.insert(file.pid);
            }
            break;
        }
    }
    named
}

#[cfg(test)]
mod tests;
