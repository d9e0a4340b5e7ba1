//! One look at all processes, and who of them are a group's.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    path::PathBuf,
    sync::OnceLock,
    time::Duration,
};

use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};

use crate::{
    fleet::{Group, ListenAt, Match},
    host::{
        discover::{
            config::place_of,
            found::{Finds, Found},
            inspect::{Criteria, InspectError, Inspected, inspect, unmarked},
            leaders::{LeaderSource, Node, Role, roles},
            lookup, options, owner,
            pidfile::{PidFile, PidFileError},
            title::{self, Telling},
            unit::main_pid,
        },
        net::sockets::Listeners,
        parallel::par_map::par_map,
        proc::{guard::age, kernel::pids, user::uid_of},
    },
    identity::Line,
};

/// So many of the same program are named where nobody is found.
const OTHERS: usize = 10;

/// So long after its fork a worker may still look like its master.
const FORKED: Duration = Duration::from_secs(1);
/// Between two looks at one that does.
const AGAIN: Duration = Duration::from_millis(10);

/// A process of the scan.
#[derive(Debug)]
struct Entry {
    pid: i32,
    /// Without the kernel's mark of a replaced one; none where this user may not see it.
    exe: Option<PathBuf>,
}

/// Every process of this host with its executable; one look serves all groups.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    all: Vec<Entry>,
    by_parent: OnceLock<HashMap<i32, Vec<usize>>>,
    listeners: OnceLock<Result<Listeners, String>>,
}

/// A group with what is asked only once of the host.
pub(super) struct Asked<'a> {
    group: &'a Group,
    uids: Vec<u32>,
    matching: Criteria<'a>,
    pub(super) exclude: Option<Criteria<'a>>,
    leader: Option<Criteria<'a>>,
    worker: Option<Criteria<'a>>,
}

/// A pid, or 0, and why it is not what was asked for.
pub(super) type Missing = (i32, String);

/// What a look at everybody found for one group.
#[derive(Default)]
struct Matches {
    /// Every match, of whatever user.
    matched: BTreeMap<i32, Matched>,
    /// Who could not be looked at as a process.
    unseen: BTreeMap<i32, InspectError>,
    /// Whether somebody of whom nothing is known but that he may listen where the group says was
    /// passed over.
    may_listen: bool,
    /// The same program with other arguments: pid, and which it lacks.
    others: Vec<(i32, String)>,
}

/// What a match is, in the end.
enum End {
    Found(Found),
    Refused(Found, String),
    /// Works for this leader.
    Worker(Found, i32),
    LeftOut(String),
}

impl Scan {
    /// Looks once at every process.
    ///
    /// # Errors
    /// The system's: the kernel does not tell which processes there are.
    pub(crate) fn take() -> io::Result<Self> {
        Ok(Self::of(&pids()?))
    }

    /// The same of those that were there a moment ago, sorted; this process is never found.
    pub(crate) fn of(there: &[i32]) -> Self {
        let me = std::process::id();
        let pids: Vec<i32> = there
            .iter()
            .copied()
            .filter(|pid| u32::try_from(*pid) != Ok(me))
            .collect();
        // Nothing but this link is read of the many that are no match.
        let entry = |pid: &i32| match std::fs::read_link(format!("/proc/{pid}/exe")) {
            Ok(exe) => Some(Entry {
                pid: *pid,
                exe: Some(unmarked(exe)),
            }),
            // One that may not be seen may be meant; a zombie and a thread of the kernel have no
            // executable.
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
                inspect(*pid).is_ok().then_some(Entry {
                    pid: *pid,
                    exe: None,
                })
            }
            Err(_) => None,
        };
        Self {
            all: par_map(&pids, entry).into_iter().flatten().collect(),
            ..Self::default()
        }
    }

    /// Everybody, by number.
    pub(crate) fn pids(&self) -> impl Iterator<Item = i32> {
        self.all.iter().map(|e| e.pid)
    }

    /// Whether a process may be one of `group`, by its executable alone.
    pub(crate) fn may_be(&self, group: &Group, pid: i32) -> bool {
        let entry = self
            .all
            .binary_search_by_key(&pid, |e| e.pid)
            .ok()
            .and_then(|at| self.all.get(at));
        entry.is_some_and(|e| e.exe.as_ref().is_none_or(|exe| group.matching.has_exe(exe)))
    }

    /// Finds the processes of each of `groups`; one that several match belongs to the first.
    pub(crate) async fn find_all(&self, groups: impl Iterator<Item = &Group>) -> Vec<Finds> {
        let (mut all, mut known) = (Vec::new(), BTreeSet::new());
        for group in groups {
            let mut finds = self.find(group).await;
            finds.refused.retain(|(f, _)| known.insert(f.pid));
            finds.found.retain(|f| known.insert(f.pid));
            all.push(finds);
        }
        all
    }

    /// Finds the processes of `group`: by its list, else among all.
    pub(crate) async fn find(&self, group: &Group) -> Finds {
        let mut finds = Finds::default();
        let asked = match self.ask(group) {
            Ok(asked) => asked,
            Err(missing) => {
                finds.missing.push(missing);
                return finds;
            }
        };
        let Matches {
            matched,
            unseen,
            may_listen,
            others,
        } = self.settled(&asked).await;
        finds.blind = unseen.values().find_map(InspectError::own);
        let no_match = |pid: &i32| {
            unseen.get(pid).map_or_else(
                || format!("is no process of group `{}`", group.name),
                InspectError::to_string,
            )
        };
        let said = LeaderSource {
            main: self.main(&matched, group).await,
            named: named(&matched, group),
            pattern: group.leader.is_some(),
        };
        let mut ends = asked.ends(matched, &said);
        if !group.instances.is_empty() {
            for listed in &group.instances {
                match ends.remove(&listed.pid) {
                    Some(End::Found(found)) => finds.found.push(Found {
                        endpoint: listed.endpoint.clone(),
                        ..found
                    }),
                    Some(End::Refused(found, why)) => finds.refused.push((found, why)),
                    Some(End::LeftOut(why)) => finds.missing.push((listed.pid, why)),
                    Some(End::Worker(found, leader)) => {
                        finds.refused.push((
                            found,
                            format!(
                                "is a worker of pid {leader}, which \
                            takes the signal for it: list that one"
                            ),
                        ));
                    }
                    None => finds.missing.push((listed.pid, no_match(&listed.pid))),
                }
            }
            return finds;
        }
        if let (Some(Some(pid)), Some(path)) = (asked.matching.pid, &group.matching.pid_file)
            && !ends.contains_key(&pid)
        {
            finds.missing.push((
                pid,
                format!("stands in `{}` and {}", path.display(), no_match(&pid)),
            ));
        }
        for (pid, end) in ends {
            match end {
                End::Found(found) => finds.found.push(found),
                End::Refused(found, why) => finds.refused.push((found, why)),
                End::Worker(_, leader) => finds.workers.push((pid, leader)),
                End::LeftOut(why) => finds.left_out.push((pid, why)),
            }
        }
        finds
            .left_out
            .extend(unseen.into_iter().filter_map(|(pid, e)| {
                matches!(e, InspectError::Failed(_)).then(|| (pid, e.to_string()))
            }));
        if finds.found.is_empty() && finds.refused.is_empty() {
            finds.left_out.extend(others.into_iter().take(OTHERS));
        }
        if may_listen && finds.found.is_empty() && finds.refused.is_empty() {
            finds.missing.push((
                0,
                format!(
                    "who listens where group `{}` says cannot be looked at by this user",
                    group.name
                ),
            ));
        }
        finds
    }

    /// Resolves what the group says of users and pid files.
    pub(super) fn ask<'a>(&self, group: &'a Group) -> Result<Asked<'a>, Missing> {
        // Nobody can be a user that is not there.
        let uids = uids_of(group).map_err(|why| (0, why))?;
        let parts = [
            Some(&group.matching),
            group.exclude.as_ref(),
            group.leader.as_ref(),
            group.worker.as_ref(),
        ];
        if parts
            .iter()
            .flatten()
            .any(|m| m.port.is_some() || m.listens.is_some())
            && let Err(why) = self.listeners()
        {
            return Err((
                0,
                format!("the kernel does not tell who listens where: {why}"),
            ));
        }
        let matching = Criteria::new(&group.matching, who(&group.matching, true)?);
        let exclude = group
            .exclude
            .as_ref()
            .map(|m| Ok(Criteria::new(m, who(m, false)?)))
            .transpose()?;
        // A pattern whose pid file says nothing fits nobody.
        let pattern = |m: &'a Option<Match>| {
            m.as_ref()
                .map(|m| Criteria::new(m, who(m, true).ok().flatten()))
        };
        Ok(Asked {
            group,
            uids,
            matching,
            exclude,
            leader: pattern(&group.leader),
            worker: pattern(&group.worker),
        })
    }

    /// Every match, once none of them is a worker that was only just forked and still has the title
    /// of its master.
    async fn settled(&self, asked: &Asked<'_>) -> Matches {
        loop {
            let matches = self.matches(asked);
            let leads = |pid: i32| matches.matched.get(&pid).is_some_and(|m| m.leads);
            let is_young = |pid: i32| age(pid).is_some_and(|age| age < FORKED);
            // In time it has another title, or is old enough to be believed.
            if !matches
                .matched
                .values()
                .any(|m| m.leads && leads(m.one.parent) && is_young(m.one.pid))
            {
                return matches;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Every match, with what it fits of `leader` and `worker`.
    fn matches(&self, asked: &Asked<'_>) -> Matches {
        let mut matches = Matches::default();
        let what = asked.matching.what;
        let mut pids: BTreeSet<i32> = match asked.matching.pid {
            Some(pid) => pid.into_iter().collect(),
            None => self
                .all
                .iter()
                .filter(|e| e.exe.as_ref().is_none_or(|exe| what.has_exe(exe)))
                .map(|e| e.pid)
                .collect(),
        };
        pids.extend(asked.group.instances.iter().map(|l| l.pid));
        let pids: Vec<i32> = pids.into_iter().collect();
        for (pid, said) in pids
            .iter()
            .zip(par_map(&pids, |pid| self.match_of(asked, *pid)))
        {
            match said {
                Ok(Likely::Match(one)) => drop(matches.matched.insert(*pid, one)),
                Ok(Likely::Other(lacks)) => matches.others.extend(lacks.map(|why| (*pid, why))),
                Ok(Likely::Hidden) => {
                    matches.may_listen |= what.port.is_some() || what.listens.is_some()
                }
                Err(e) => drop(matches.unseen.insert(*pid, e)),
            }
        }
        matches
    }

    /// What one of those that may be meant is.
    fn match_of(&self, asked: &Asked<'_>, pid: i32) -> Result<Likely, InspectError> {
        let one = inspect(pid)?;
        let fit = self.fits(&asked.matching, &one);
        if fit == Some(false) {
            return Ok(Likely::Other(asked.matching.lacks(&one)));
        }
        if fit.is_none() && !asked.matching.may_be(&one) {
            return Ok(Likely::Hidden);
        }
        let excluded = asked
            .exclude
            .as_ref()
            .is_some_and(|e| self.fits(e, &one) == Some(true));
        let fits = |wanted: &Option<Criteria<'_>>| {
            !excluded
                && wanted
                    .as_ref()
                    .is_some_and(|w| self.fits(w, &one) != Some(false))
        };
        let (leads, works, sure) = (
            fits(&asked.leader),
            fits(&asked.worker),
            fit.is_some() && one.exe.is_some(),
        );
        Ok(Likely::Match(Matched {
            one: one.closed(),
            excluded,
            sure,
            leads,
            works,
        }))
    }

    /// Whether all of a match holds; none where this user cannot tell.
    pub(super) fn fits(&self, wanted: &Criteria<'_>, one: &Inspected) -> Option<bool> {
        let itself = wanted.fits(one);
        if itself == Some(false) {
            return itself;
        }
        let port = wanted.what.port.map(ListenAt::TcpPort);
        let mut sure = itself;
        for place in port.iter().chain(&wanted.what.listens) {
            match self.listens(wanted.what, one, place) {
                Some(true) => {}
                Some(false) => return Some(false),
                None => sure = None,
            }
        }
        sure
    }

    /// Whether the process or a child of it listens there.
    fn listens(&self, what: &Match, one: &Inspected, place: &ListenAt) -> Option<bool> {
        let Ok(listeners) = self.listeners() else {
            return None;
        };
        let args = &one.line.args;
        if !listeners.any(place, args) {
            return Some(false);
        }
        let program = one.program();
        // Who starts any program, as init or a shell, does not listen where that program does.
        let counts = |child: &&Entry| {
            !what.exe.is_empty() || !what.script.is_empty() || child.exe == program
        };
        let children = self.children(one.pid).filter(counts).map(|child| child.pid);
        let held: Vec<Option<bool>> = std::iter::once(one.pid)
            .chain(children)
            .map(|pid| listeners.holds_at(pid, place, args))
            .collect();
        if held.contains(&Some(true)) {
            return Some(true);
        }
        // Of one whose descriptors are hidden nothing is known.
        (!held.contains(&None)).then_some(false)
    }

    fn children(&self, pid: i32) -> impl Iterator<Item = &Entry> {
        let by_parent = self.by_parent.get_or_init(|| {
            let mut map: HashMap<i32, Vec<usize>> = HashMap::new();
            let Ok(mut system) = System::new() else {
                return map;
            };
            system.refresh_processes_specifics(
                ProcessesToUpdate::All,
                true,
                ProcessRefreshKind::nothing().without_tasks(),
            );
            let number = |pid: sysinfo::Pid| i32::try_from(pid.as_u32()).ok();
            let parents: HashMap<i32, i32> = system
                .processes()
                .iter()
                .filter_map(|(pid, p)| Some((number(*pid)?, number(p.parent()?)?)))
                .collect();
            for (at, parent) in self
                .all
                .iter()
                .enumerate()
                .filter_map(|(at, e)| Some((at, *parents.get(&e.pid)?)))
            {
                map.entry(parent).or_default().push(at);
            }
            map
        });
        by_parent
            .get(&pid)
            .into_iter()
            .flatten()
            .filter_map(|at| self.all.get(*at))
    }

    fn listeners(&self) -> Result<&Listeners, &String> {
        self.listeners
            .get_or_init(|| Listeners::read().map_err(|e| e.to_string()))
            .as_ref()
    }

    /// The main process of the group's unit, if it has one.
    async fn main(&self, matched: &BTreeMap<i32, Matched>, group: &Group) -> Option<i32> {
        match &group.matching.unit {
            Some(unit) if !matched.is_empty() => main_pid(unit).await,
            _ => None,
        }
    }
}

/// What one that may be meant turned out to be.
#[expect(
    clippy::large_enum_variant,
    reason = "one is taken apart as soon as it is made"
)]
enum Likely {
    Match(Matched),
    /// It is none, and which argument it lacks where that is all.
    Other(Option<String>),
    /// Nothing that is known of it speaks for it.
    Hidden,
}

/// A match, and what it fits of its group's patterns.
struct Matched {
    one: Inspected,
    /// Not meant; what it started is no leader for that.
    excluded: bool,
    /// Whether nothing of it is hidden from this user.
    sure: bool,
    leads: bool,
    works: bool,
}

impl Asked<'_> {
    /// What becomes of each match.
    fn ends(&self, matched: BTreeMap<i32, Matched>, said: &LeaderSource) -> BTreeMap<i32, End> {
        let nodes: Vec<Node> = matched
            .values()
            .map(|m| Node {
                pid: m.one.pid,
                parent: m.one.parent,
                leads: m.leads,
                works: m.works,
            })
            .collect();
        let roles = roles(&nodes, said);
        let led = roles
            .iter()
            .any(|(pid, role)| !matched[pid].excluded && !matches!(role, Role::Worker(_)));
        let (pids, excluded): (BTreeSet<i32>, BTreeSet<i32>) = (
            matched.keys().copied().collect(),
            matched
                .values()
                .filter(|m| m.excluded)
                .map(|m| m.one.pid)
                .collect(),
        );
        let end = |(pid, Matched { one, sure, .. }): (i32, Matched)| {
            let name = &self.group.name;
            let whose = self.is_not_meant(&one);
            let role = roles
                .get(&pid)
                .copied()
                .filter(|_| !excluded.contains(&pid))?;
            let end = match role {
                Role::Worker(_) if !led && excluded.contains(&one.parent) => End::LeftOut(format!(
                    "was started by pid {}, which group `{name}` excludes; if it takes the signal \
                     itself, say so with `leader` or `pid_file`",
                    one.parent
                )),
                Role::Worker(_) if !led && !pids.contains(&one.parent) => End::LeftOut(format!(
                    "is not what the `leader` of group `{name}` looks like"
                )),
                Role::Worker(leader) => End::Worker(found(one), leader),
                _ if !sure => End::LeftOut(format!(
                    "cannot be looked at by this user (it is uid {}'s), and may be one of group \
                     `{name}`",
                    one.uid
                )),
                Role::Leader => match whose {
                    Some(why) => End::LeftOut(why),
                    None => End::Found(read_as(found(one), self.group)),
                },
                Role::Upgraded(other) => {
                    let why = format!(
                        "is being upgraded: pid {other} and pid {pid} are both masters; finish or \
                         abort the upgrade first"
                    );
                    if whose.is_some() {
                        End::LeftOut(why)
                    } else {
                        End::Refused(read_as(found(one), self.group), why)
                    }
                }
                Role::Orphan => {
                    // It may have ended together with its master, only later.
                    inspect(pid).ok().filter(|now| now.started == one.started)?;
                    let why = "is a worker whose master is gone, so that nothing makes it reload; \
                               end it, or leave it out with `exclude`"
                        .to_owned();
                    // Workers often run as another user than their master did, and root answers for
                    // both.
                    let ours = whose.is_none() || nix::unistd::geteuid().is_root();
                    if ours {
                        End::Refused(read_as(found(one), self.group), why)
                    } else {
                        End::LeftOut(why)
                    }
                }
            };
            Some((pid, end))
        };
        matched.into_iter().filter_map(end).collect()
    }

    /// Why a match is not one of the group's users' processes.
    fn is_not_meant(&self, one: &Inspected) -> Option<String> {
        owner::not_meant(one, &self.uids, self.group)
    }
}

/// `found` with its arguments as a process of this group has them.
fn read_as(mut found: Found, group: &Group) -> Found {
    if let Telling::Title(text) = &found.telling
        && let Some(args) = title::arguments(found.pid, text, &group.reading)
    {
        let certain = title::certain(&args);
        let telling = if certain == args.len() {
            Telling::Arguments
        } else {
            Telling::Joined(args[..certain].to_vec())
        };
        (found.args, found.telling) = (args, telling);
        found.seen.line = Line::Told;
    }
    let is_told = !matches!(found.telling, Telling::Title(_));
    let letters = group
        .reading
        .getopt
        .as_deref()
        .filter(|letters| !letters.is_empty() && is_told);
    if let Some(args) = letters.and_then(|letters| options::unbundled(&found.args, letters)) {
        found.args = args;
    }
    let moved = lookup::moved(&found, group);
    for (option, value, path) in moved {
        lookup::replace(&mut found.args, &option, &value, &path);
    }
    found
}

pub(super) fn found(one: Inspected) -> Found {
    let uid = owner::of(&one.identity.person);
    let Inspected {
        pid,
        started,
        parent,
        identity,
        exe,
        line,
        status,
        ..
    } = one;
    let telling = if line.rewritten {
        Telling::Title(line.name)
    } else {
        Telling::Arguments
    };
    let exe = exe.unwrap_or_default();
    Found {
        pid,
        started,
        parent,
        exe,
        uid,
        seen: identity,
        args: line.args,
        telling,
        status,
        endpoint: None,
        configs: Vec::new(),
    }
}

/// Whose processes a group means; names that are not on this host are nobody's, unless none is
/// left.
fn uids_of(group: &Group) -> Result<Vec<u32>, String> {
    let me = nix::unistd::geteuid().as_raw();
    if group.users.is_empty() {
        return Ok(vec![me]);
    }
    let uids: Vec<Result<u32, String>> = group
        .users
        .iter()
        .map(|user| {
            if user == "{self}" {
                Ok(me)
            } else {
                uid_of(user)
            }
        })
        .collect();
    if uids.iter().all(Result::is_err) {
        uids.into_iter().collect()
    } else {
        Ok(uids.into_iter().flatten().collect())
    }
}

/// The process that a match's `pid_file` names; where it is `needed`, a file that is not there is a
/// fault.
pub(super) fn who(what: &Match, needed: bool) -> Result<Option<i32>, Missing> {
    let Some(path) = &what.pid_file else {
        return Ok(None);
    };
    let file = match PidFile::read(path) {
        Ok(file) => file,
        Err(PidFileError::Missing) if !needed => return Ok(None),
        Err(e) => return Err((0, format!("pid file `{}`: {e}", path.display()))),
    };
    // Whether it is there is told where the others are looked at.
    if let Ok(one) = inspect(file.pid) {
        file.is_trusted(one.uid).map_err(|why| {
            (
                file.pid,
                format!(
                    "stands in `{}`, whose word does not count: {why}",
                    path.display()
                ),
            )
        })?;
    }
    Ok(Some(file.pid))
}

/// Whom the group's pid files name, as each match says where they are; the word of one that others
/// can write does not count.
fn named(matched: &BTreeMap<i32, Matched>, group: &Group) -> BTreeSet<i32> {
    let mut read: BTreeMap<PathBuf, Option<PidFile>> = BTreeMap::new();
    let mut named = BTreeSet::new();
    for one in matched.values().map(|m| &m.one) {
        let places = group
            .pid_file
            .iter()
            .filter_map(|place| place_of(one.pid, &one.line.args, place).ok().flatten());
        for path in places {
            let Some(file) = read
                .entry(path)
                .or_insert_with_key(|path| PidFile::read(path).ok())
            else {
                continue;
            };
            if matched
                .get(&file.pid)
                .is_some_and(|m| file.is_trusted(m.one.uid).is_ok())
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
