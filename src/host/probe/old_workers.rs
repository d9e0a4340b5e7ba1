//! Workers from before a signal that go on accepting connections beside the new ones. The kernel
//! may route a connection to either, so an answer proves nothing while an old one listens.

use std::{collections::BTreeSet, io, net::SocketAddr, time::Duration};

use crate::{
    assertion::address_of,
    event::Direction,
    host::{
        net::sockets::{Address, Listeners, sockets_of, sockets_of_family},
        probe::{
            answer::KernelError, children::is_called, limits::ProbeLimits,
            port_sharing::probed_address,
        },
        proc::tree::{Child, family, lives},
    },
    kernel::Stat,
    step::PlannedInstance,
};

/// Records, right before a signal, which descendants of the instance do not run the expected
/// config. In a rollback, a worker from before the first signal of the run has the old config.
/// Children that no reload of the program replaces are no such workers.
///
/// # Errors
/// Fails if a descendant cannot be read: then the record is as it was.
pub(crate) fn record_old_workers(
    member: &mut PlannedInstance,
    direction: Direction,
) -> Result<(), KernelError> {
    let family = family(member.instance.pid).map_err(KernelError::Children)?;
    let lasting = &member.group.lasting;
    let lasts = |(pid, _): &Child| lasting.iter().any(|name| is_called(*pid, name));
    let mut now = living(family.into_iter().skip(1), lives)?;
    now.retain(|child| !lasts(child));
    if direction.is_back() {
        let may_stay =
            |child: &Child| !member.signal_may_be_pending && member.workers_before.contains(child);
        member.old_workers = now
            .into_iter()
            .chain(member.new_children.iter().copied())
            .filter(|child| !may_stay(child))
            .collect();
        return Ok(());
    }
    // Workers of an instance that an earlier run may have signalled can run either config.
    if !member.signal_may_be_pending && !member.may_run_new {
        member.workers_before = now.iter().copied().collect();
    }
    member.old_workers = now.into_iter().collect();
    Ok(())
}

/// Returns those of `pids` that live, with their start times, as `read` reads them.
fn living(
    pids: impl Iterator<Item = i32>,
    read: impl Fn(i32) -> io::Result<Option<Stat>>,
) -> Result<BTreeSet<Child>, KernelError> {
    let mut living = BTreeSet::new();
    for pid in pids {
        let stat = read(pid).map_err(|e| KernelError::Process(pid, e))?;
        living.extend(stat.map(|stat| (pid, stat.started)));
    }
    Ok(living)
}

/// Returns an old worker that still listens on an address of the instance. An old worker that is
/// the only listening process of the instance is not returned. It gives every answer, so answers
/// that show the new config prove that it has read that config itself.
///
/// # Errors
/// Fails if the kernel does not tell.
pub(crate) fn listening(
    member: &PlannedInstance,
    limits: &ProbeLimits,
) -> Result<Option<i32>, KernelError> {
    if let Some(why) = &member.old_workers_unread {
        return Err(KernelError::OldWorkers(why.clone()));
    }
    let old: Vec<Child> = member
        .old_workers
        .iter()
        .copied()
        .filter(|child| may_live(*child))
        .collect();
    if old.is_empty() {
        return Ok(None);
    }
    let is_new = |pid: i32| !old.iter().any(|(old, _)| *old == pid);
    let own = sockets_of_family(member.instance.pid, is_new)?;
    let held = held_sockets(&old)?;
    let listeners = limits.listeners(Duration::ZERO)?;
    let addresses = Addresses::of(&own, &member.instance.endpoint, &listeners);
    let mut listening = held
        .into_iter()
        .filter(|(_, sockets)| {
            sockets
                .iter()
                .any(|socket| addresses.have(*socket, &listeners))
        })
        .map(|(pid, _)| pid);
    let first = listening.next();
    let is_alone =
        listening.next().is_none() && !own.iter().any(|socket| listeners.listens(*socket));
    Ok(first.filter(|_| !is_alone))
}

/// Tells whether a process lives, or cannot be read.
fn may_live((pid, started): Child) -> bool {
    lives(pid).map_or(true, |stat| {
        stat.is_some_and(|stat| stat.started == started)
    })
}

/// Returns the sockets that each of these workers holds, without workers that have ended.
fn held_sockets(workers: &[Child]) -> Result<Vec<(i32, Vec<u64>)>, KernelError> {
    let mut held = Vec::new();
    for worker @ (pid, _) in workers.iter().copied() {
        match sockets_of(pid) {
            Ok(sockets) => held.push((pid, sockets)),
            Err(_) if !may_live(worker) => {}
            Err(why) => return Err(KernelError::Sockets(pid, why)),
        }
    }
    Ok(held)
}

/// The addresses on which the instance and its new workers listen, and the one that is probed.
struct Addresses<'a> {
    sockets: &'a BTreeSet<u64>,
    addresses: BTreeSet<&'a Address>,
    probed: Option<SocketAddr>,
    probed_path: Option<&'a str>,
}

impl<'a> Addresses<'a> {
    fn of(sockets: &'a BTreeSet<u64>, endpoint: &'a str, listeners: &'a Listeners) -> Self {
        let addresses = sockets
            .iter()
            .filter_map(|socket| listeners.address(*socket))
            .collect();
        Self {
            sockets,
            addresses,
            probed: probed_address(endpoint),
            probed_path: address_of(endpoint).strip_prefix("unix:"),
        }
    }

    /// Tells whether a socket is one of the instance's, or listens on one of its addresses.
    fn have(&self, socket: u64, listeners: &Listeners) -> bool {
        let is_probed = |address: &Address| match address {
            Address::Tcp(address) => self.probed.is_some_and(|probed| {
                address.port() == probed.port()
                    && (address.ip() == probed.ip() || address.ip().is_unspecified())
            }),
            Address::Unix(path) => self
                .probed_path
                .is_some_and(|probed| path.as_os_str() == probed),
        };
        listeners.listens(socket)
            && (self.sockets.contains(&socket)
                || listeners
                    .address(socket)
                    .is_some_and(|address| self.addresses.contains(address) || is_probed(address)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::sync::Arc;

    use super::*;
    use crate::{
        event::Instance,
        fleet::Fleet,
        tests::unprivileged::{HIDDEN, unprivileged},
    };

    fn me() -> Child {
        let pid = i32::try_from(std::process::id()).unwrap();
        (pid, lives(pid).unwrap().unwrap().started)
    }

    fn member(pid: i32, old_workers: Vec<Child>) -> PlannedInstance {
        let group = Fleet::of_kind("nginx").unwrap().groups.remove(0);
        let instance = Instance::new("web", pid, 1);
        let mut member = PlannedInstance::new(instance, Arc::new(group), Vec::new());
        member.old_workers = old_workers;
        member
    }

    #[test]
    fn a_worker_that_cannot_be_read_before_the_signal_is_no_ended_one() {
        let denied = |_| Err(io::ErrorKind::PermissionDenied.into());
        let read = living([7].into_iter(), denied);
        assert!(matches!(read, Err(KernelError::Process(7, _))), "{read:?}");
        let (pid, _) = me();
        let ended = i32::MAX;
        let read = living([pid, ended].into_iter(), lives).unwrap();
        assert_eq!(read, BTreeSet::from([me()]));
    }

    #[test]
    fn an_old_worker_may_listen_where_the_sockets_of_the_instance_cannot_be_read() {
        let old = me();
        let read = unprivileged(|| listening(&member(HIDDEN, vec![old]), &ProbeLimits::default()));
        assert!(matches!(read, Err(KernelError::OwnSockets(_))), "{read:?}");
    }

    #[test]
    fn an_old_worker_may_listen_where_none_could_be_recorded() {
        let mut member = member(me().0, Vec::new());
        let limits = ProbeLimits::default();
        assert_eq!(listening(&member, &limits).unwrap(), None);
        member.old_workers_unread = Some("Permission denied".into());
        let read = listening(&member, &limits);
        assert!(matches!(read, Err(KernelError::OldWorkers(_))), "{read:?}");
    }
}
