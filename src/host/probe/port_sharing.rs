//! Foreign listeners on the address of an instance. The kernel may route a probe to either process,
//! so the answer proves nothing while there is one.

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use crate::{
    assertion::address_of,
    host::{
        net::sockets::{Listeners, SocketsError, sockets_of_family},
        probe::{answer::KernelError, limits::ProbeLimits},
        proc::tree::lives,
    },
    kernel::{Stat, descriptors, pids, socket},
};

/// The most ancestors of a process that are checked for a process of the run.
const MAX_ANCESTORS: usize = 64;

/// Returns the processes that listen on an address of `pid` and descend from no process of the run,
/// each named with its executable. The process `pid` is probed at `endpoint`. A socket that several
/// processes share is one socket: only a second one on the same address (`SO_REUSEPORT`) counts.
/// A process that has ended, or is in another network namespace, shares no address of this host.
///
/// # Errors
/// Fails if the sockets of the process or of a descendant cannot be read.
pub(crate) fn foreign_listeners(
    pid: i32,
    endpoint: &str,
    listeners: &Listeners,
    limits: &ProbeLimits,
) -> Result<Vec<String>, KernelError> {
    let probed = probed_address(endpoint);
    // Most ports have one socket, and no process needs to be searched for.
    if probed.is_some_and(|probed| !listeners.is_crowded(probed.port())) {
        return Ok(Vec::new());
    }
    let known = limits.pids();
    let own = match sockets_of_family(pid, |_| true) {
        Ok(own) => own,
        Err(SocketsError::OtherNetwork) => return Ok(Vec::new()),
        Err(_) if lives(pid).is_ok_and(|stat| stat.is_none()) => return Ok(Vec::new()),
        Err(why) => return Err(why.into()),
    };
    let foreign: BTreeSet<u64> = addresses(&own, probed, listeners)
        .into_iter()
        .flat_map(|address| listeners.on(address))
        .filter(|inode| !own.contains(inode))
        .collect();
    named(&foreign, &known).map_err(KernelError::Processes)
}

/// Returns the addresses of the sockets `own`, and the one that is probed.
fn addresses(
    own: &BTreeSet<u64>,
    probed: Option<SocketAddr>,
    listeners: &Listeners,
) -> BTreeSet<SocketAddr> {
    let mut addresses: BTreeSet<SocketAddr> = own
        .iter()
        .filter_map(|inode| listeners.tcp(*inode))
        .collect();
    // A socket on all addresses gets no connection to an address on which another one listens.
    if let Some(probed) = probed {
        let any_six = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), probed.port());
        if probed.is_ipv4() && addresses.contains(&any_six) {
            addresses.insert(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), probed.port()));
        }
        addresses.insert(probed);
    }
    addresses
}

/// Returns the names of the processes that hold the sockets `foreign` and descend from none of
/// `known`.
fn named(foreign: &BTreeSet<u64>, known: &BTreeSet<i32>) -> io::Result<Vec<String>> {
    let mut held = BTreeSet::new();
    let mut names = Vec::new();
    for (holder, inode) in holders(foreign)? {
        held.insert(inode);
        if !descends(holder, known) {
            let exe = std::fs::read_link(Path::new("/proc").join(holder.to_string()).join("exe"))
                .unwrap_or_default();
            names.push(format!("pid {holder} ({})", exe.display()));
        }
    }
    if foreign.iter().any(|inode| !held.contains(inode)) {
        names.push("a process that this user may not inspect".into());
    }
    names.dedup();
    Ok(names)
}

/// Returns the address of `http://HOST:PORT/`.
pub(crate) fn probed_address(endpoint: &str) -> Option<SocketAddr> {
    address_of(endpoint).parse().ok()
}

/// Returns every process that holds one of the sockets, with that socket.
fn holders(sockets: &BTreeSet<u64>) -> io::Result<Vec<(i32, u64)>> {
    if sockets.is_empty() {
        return Ok(Vec::new());
    }
    let mut holders = Vec::new();
    for pid in pids()? {
        // The sockets of a process that cannot be read have no known holder, and are named as such.
        let _ = descriptors(pid, |_, target| {
            holders.extend(
                target
                    .ok()
                    .and_then(socket)
                    .filter(|inode| sockets.contains(inode))
                    .map(|inode| (pid, inode)),
            )
        });
    }
    Ok(holders)
}

/// Tells whether a process is, or descends from, one of `known`.
fn descends(pid: i32, known: &BTreeSet<i32>) -> bool {
    let parent = |pid: &i32| Stat::of(*pid).ok().map(|stat| stat.parent);
    std::iter::successors(Some(pid), parent)
        .take(MAX_ANCESTORS)
        .any(|pid| known.contains(&pid))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::tests::unprivileged::{HIDDEN, unprivileged};

    #[test]
    fn a_process_whose_sockets_cannot_be_read_may_share_its_address() {
        let listeners = Listeners::read().unwrap();
        let limits = ProbeLimits::default();
        let read = unprivileged(|| foreign_listeners(HIDDEN, "", &listeners, &limits));
        assert!(matches!(read, Err(KernelError::OwnSockets(_))), "{read:?}");
        let ended = foreign_listeners(i32::MAX, "", &listeners, &limits).unwrap();
        assert!(ended.is_empty(), "{ended:?}");
    }

    #[test]
    fn the_holder_of_a_socket_is_found_by_its_ancestors() {
        let me = i32::try_from(std::process::id()).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let link = std::fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
        let inode: u64 = link
            .to_string_lossy()
            .trim_start_matches("socket:[")
            .trim_end_matches(']')
            .parse()
            .unwrap();
        assert_eq!(holders(&BTreeSet::from([inode])).unwrap(), [(me, inode)]);
        assert!(
            descends(me, &BTreeSet::from([me]))
                && descends(me, &BTreeSet::from([1]))
                && !descends(me, &BTreeSet::from([i32::MAX]))
        );
        let listeners = Listeners::read().unwrap();
        assert_eq!(listeners.tcp(inode), Some(listener.local_addr().unwrap()));
        let endpoint = format!("http://{}/", listener.local_addr().unwrap());
        assert_eq!(probed_address(&endpoint), listener.local_addr().ok());
        let foreign = |endpoint: &str| {
            foreign_listeners(me, endpoint, &listeners, &ProbeLimits::default()).unwrap()
        };
        assert!(foreign(&endpoint).is_empty() && foreign("").is_empty());
    }
}
