//! What is left of an instance that has ended, and is in the way of a new one.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::{
    host::{net::sockets::sockets_of, probe::limits::ProbeLimits, proc::tree::Child},
    kernel::{Stat, is_alive},
    step::PlannedInstance,
};

/// The longest wait for what remains of an ended instance. An init that does not reap costs the
/// whole of it, and the new process reports a worker that goes on listening.
const LONGEST: Duration = Duration::from_secs(2);

/// The pause between two checks.
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until nothing of an ended instance is in the way of a new one, but not longer than
/// [`LONGEST`]. Until its parent has reaped it, a program that reads its pid file takes it for a
/// running one. Until its workers have ended, they hold its address.
pub(super) async fn wait(member: &PlannedInstance, limits: &ProbeLimits) {
    let deadline = Instant::now() + LONGEST;
    let workers: BTreeSet<Child> = member
        .workers_before
        .iter()
        .chain(&member.old_workers)
        .chain(&member.new_children)
        .copied()
        .collect();
    let ended = (member.instance.pid, member.instance.started);
    while Instant::now() < deadline && (is_unreaped(ended) || any_listens(&workers, limits)) {
        tokio::time::sleep(PAUSE).await;
    }
}

/// Tells whether a process that has ended still has its pid.
fn is_unreaped((pid, started): Child) -> bool {
    Stat::of(pid).is_ok_and(|stat| stat.started == started)
}

/// Tells whether one of these processes lives and listens. One that cannot be read does not count.
fn any_listens(workers: &BTreeSet<Child>, limits: &ProbeLimits) -> bool {
    let held: Vec<u64> = workers
        .iter()
        .filter(|(pid, started)| is_alive(*pid, *started))
        .flat_map(|(pid, _)| sockets_of(*pid).unwrap_or_default())
        .collect();
    !held.is_empty()
        && limits
            .listeners(Duration::ZERO)
            .is_ok_and(|listeners| held.iter().any(|socket| listeners.listens(*socket)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::{net::TcpListener, process::Command, sync::Arc};

    use super::*;
    use crate::{event::Instance, fleet::Fleet};

    fn member((pid, started): Child, workers_before: Vec<Child>) -> PlannedInstance {
        let group = Fleet::of_kind("nginx").unwrap().groups.remove(0);
        let instance = Instance::new("web", pid, started);
        let mut member = PlannedInstance::new(instance, Arc::new(group), Vec::new());
        member.workers_before = workers_before;
        member
    }

    #[tokio::test]
    async fn an_ended_process_is_waited_for_until_its_parent_has_reaped_it() {
        let mut child = Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let id = (pid, Stat::of(pid).unwrap().started);
        child.kill().unwrap();
        let reaper = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            child.wait().unwrap()
        });
        wait(&member(id, Vec::new()), &ProbeLimits::default()).await;
        assert!(!is_unreaped(id));
        reaper.join().unwrap();
    }

    #[test]
    fn a_worker_counts_only_while_it_listens() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let me = BTreeSet::from([(pid, Stat::of(pid).unwrap().started)]);
        let limits = ProbeLimits::default();
        let _listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(any_listens(&me, &limits));
        let another = BTreeSet::from([(pid, 1)]);
        assert!(!any_listens(&another, &limits));
    }
}
