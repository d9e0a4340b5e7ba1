//! New processes: the successor of an instance, an instance that was started again, and processes
//! that appeared during the run. Each has read its config after that was installed, so it must show
//! what every instance must show, but nothing that needs a baseline.

use std::time::{Duration, Instant};

use crate::{
    assertion::Source,
    event::Outcome,
    fleet::Group,
    host::{
        discover::{self, found::Found, new_processes::NewProcesses},
        net::sockets::sockets_of,
        probe::limits::ProbeLimits,
        proc::{snapshot::ProcessSnapshot, tree::children},
    },
    step::PlannedInstance,
};

mod proof;

pub(crate) use self::proof::{prove, proven};

/// The longest search for a successor that no unit and no pid file names: it starts before the
/// instance that it replaces ends.
const SEARCH: Duration = Duration::from_millis(500);
/// The longest search for a successor that a unit or a pid file names: a service manager may take
/// this long to start it again. The time of its proof comes on top.
const NAMED_SEARCH: Duration = Duration::from_secs(30);
/// The pause between two scans for new processes, or between two probes of one.
const PAUSE: Duration = Duration::from_millis(20);

/// Finds the successor of `member`, which ended. The successor descends from it, holds its
/// listening socket, or is named by the unit or the pid file of its group. Returns `None` if there
/// is none in time.
pub(crate) async fn find_successor(
    member: &PlannedInstance,
    surveyed: &ProcessSnapshot,
    limits: &ProbeLimits,
) -> Option<Found> {
    let group = &member.group;
    let is_named = group.matching.unit.is_some()
        || group.matching.pid_file.is_some()
        || !group.pid_file.is_empty();
    let patience = match member.instance.outcome {
        _ if is_named => member.timeout.clamp(SEARCH, NAMED_SEARCH),
        // The successor was searched for already when the instance died.
        Outcome::Died => Duration::ZERO,
        _ => SEARCH,
    };
    let deadline = Instant::now() + patience;
    loop {
        let late = Instant::now() >= deadline;
        let found = match limits.newest(surveyed, PAUSE) {
            Ok(newest) => unknown(member, &newest, limits).await,
            // The instance has then ended without a known successor, which is a failure.
            Err(_) => Vec::new(),
        };
        for found in found {
            if !may_lead(&found, group, surveyed) {
                continue;
            }
            // If a unit or a pid file names the leader, a child that only helps with the start is
            // no successor.
            let takes_over = match discover::is_named(&found, group).await {
                Some(takes_over) => takes_over,
                None => (late || !is_named) && replaces(&found, member, limits),
            };
            if takes_over {
                limits.add_known([(found.pid, found.started)]);
                return Some(found);
            }
        }
        if late {
            return None;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Tells whether a process is newer than the survey and no orphaned worker. An orphaned worker has
/// no workers of its own.
fn may_lead(found: &Found, group: &Group, surveyed: &ProcessSnapshot) -> bool {
    let has_workers = group
        .confirm
        .iter()
        .any(|assertion| assertion.source == Source::Workers);
    let is_childless = || children(found.pid).is_ok_and(|children| children.is_empty());
    surveyed.is_before(found.pid, found.started) && !(has_workers && is_childless())
}

/// Tells whether a process is a child that `member` had after its signal, or holds a listening
/// socket of it.
fn replaces(found: &Found, member: &PlannedInstance, limits: &ProbeLimits) -> bool {
    member.new_children.contains(&(found.pid, found.started)) || inherits(found, member, limits)
}

/// Returns the matches of the group of `member` that are not in the run and read its targets; none
/// if no new process may be one of the group.
pub(crate) async fn unknown(
    member: &PlannedInstance,
    newest: &NewProcesses,
    limits: &ProbeLimits,
) -> Vec<Found> {
    if !newest.may_have(&member.group) {
        return Vec::new();
    }
    let group = Group {
        instances: Vec::new(),
        ..(*member.group).clone()
    };
    let paths = discover::ConfigPaths::default();
    let mut unknown = Vec::new();
    for found in newest.scan().find(&group).await.found {
        let Ok(configs) = discover::configs_of(&found, &group, &paths).await else {
            continue;
        };
        let reads_same_targets = configs
            .iter()
            .map(|config| &config.path)
            .eq(&member.instance.targets);
        if reads_same_targets && !limits.is_known((found.pid, found.started)) {
            unknown.push(Found { configs, ..found });
        }
    }
    unknown
}

/// Tells whether a process holds a listening socket that `member` held.
fn inherits(found: &Found, member: &PlannedInstance, limits: &ProbeLimits) -> bool {
    let Ok(held) = sockets_of(found.pid) else {
        return false;
    };
    let Ok(listeners) = limits.listeners(PAUSE) else {
        return false;
    };
    held.iter()
        .any(|socket| member.sockets.contains(socket) && listeners.listens(*socket))
}
