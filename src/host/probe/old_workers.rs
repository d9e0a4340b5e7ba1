//! Workers from before a signal that go on accepting beside the new ones. A connection reaches
//! either by chance, so an answer proves nothing of the instance while one of them listens.

use std::{collections::BTreeSet, net::SocketAddr};

use crate::{
    fact::address_of,
    host::{
        net::sockets::{Address, Listeners, sockets_of},
        probe::{limits::ProbeLimits, port_sharing::asked},
        proc::tree::{Child, family, lives},
    },
    step::PlannedInstance,
};

/// Takes down, right before a signal, which descendants of the instance do not run the config that
/// is wanted. On the way back, a worker from before the first signal of the run has the old config.
pub(crate) fn record_old_workers(member: &mut PlannedInstance, undo: bool) {
    let pid = member.instance.pid;
    let id = |pid: i32| Some((pid, lives(pid).ok()??.started));
    let now: BTreeSet<Child> = family(pid).into_iter().skip(1).filter_map(id).collect();
    if undo {
        let may_stay =
            |child: &Child| !member.signal_may_be_pending && member.workers_before.contains(child);
        member.old_workers = now
            .into_iter()
            .chain(member.new_children.iter().copied())
            .filter(|child| !may_stay(child))
            .collect();
        return;
    }
    // Those of an instance that an earlier run may have signalled can run either config.
    if !member.signal_may_be_pending && !member.may_run_new {
        member.workers_before = now.iter().copied().collect();
    }
    member.old_workers = now.into_iter().collect();
}

/// An outdated worker that still listens where the instance does. One that is the only process of
/// the instance that listens is none: every answer is its own, so that it has read the new config
/// itself where it shows that.
///
/// # Errors
/// A sentence: the kernel does not tell.
pub(crate) fn listening(
    member: &PlannedInstance,
    lanes: &ProbeLimits,
) -> Result<Option<i32>, String> {
    let is_there = |(pid, started): Child| {
        lives(pid).map_or(true, |stat| {
            stat.is_some_and(|stat| stat.started == started)
        })
    };
    let left: Vec<Child> = member
        .old_workers
        .iter()
        .copied()
        .filter(|child| is_there(*child))
        .collect();
    if left.is_empty() {
        return Ok(None);
    }
    let pid = member.instance.pid;
    let new = |pid: &i32| !left.iter().any(|(old, _)| old == pid);
    let own: BTreeSet<u64> = family(pid)
        .into_iter()
        .filter(new)
        .flat_map(|one| sockets_of(one).unwrap_or_default())
        .collect();
    let mut held = Vec::new();
    for child @ (old, _) in left.iter().copied() {
        match sockets_of(old) {
            Ok(sockets) => held.push((old, sockets)),
            Err(_) if !is_there(child) => {}
            Err(why) => return Err(format!("pid {old}: {why}")),
        }
    }
    let listeners = lanes.listeners(std::time::Duration::ZERO)?;
    let places = Addresses::of(&own, &member.instance.endpoint, &listeners);
    let mut old = held
        .into_iter()
        .filter(|(_, sockets)| {
            sockets
                .iter()
                .any(|socket| places.have(*socket, &listeners))
        })
        .map(|(old, _)| old);
    let first = old.next();
    let is_alone = old.next().is_none() && !own.iter().any(|socket| listeners.listens(*socket));
    Ok(first.filter(|_| !is_alone))
}

/// Where the instance and its new workers listen, and where it is asked.
struct Addresses<'a> {
    sockets: &'a BTreeSet<u64>,
    addresses: BTreeSet<&'a Address>,
    asked: Option<SocketAddr>,
    path: Option<&'a str>,
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
            asked: asked(endpoint),
            path: address_of(endpoint).strip_prefix("unix:"),
        }
    }

    fn have(&self, socket: u64, listeners: &Listeners) -> bool {
        let is_asked = |address: &Address| match address {
            Address::Tcp(at) => self.asked.is_some_and(|asked| {
                at.port() == asked.port() && (at.ip() == asked.ip() || at.ip().is_unspecified())
            }),
            Address::Unix(path) => self.path.is_some_and(|asked| path.as_os_str() == asked),
        };
        let at = listeners.address(socket);
        listeners.listens(socket)
            && (self.sockets.contains(&socket)
                || at.is_some_and(|at| self.addresses.contains(at) || is_asked(at)))
    }
}
