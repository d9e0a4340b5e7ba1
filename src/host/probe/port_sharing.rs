//! Who else listens where an instance does: whom a connection reaches is then chance, and what one
//! answer says proves little.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use crate::{
    fact::address_of,
    host::{
        net::sockets::{Listeners, sockets_of},
        probe::limits::ProbeLimits,
        proc::{
            kernel::{Stat, descriptors, pids, socket},
            tree::family,
        },
    },
};

/// Ancestors of a process that are looked at.
const GENERATIONS: usize = 64;

/// Processes that listen on an address of `pid` (which is asked at `endpoint`) and belong to nobody
/// in the run; each named with its executable. Sockets that several processes share are one socket:
/// what counts is a second one on the same address (`SO_REUSEPORT`).
pub(crate) fn foreign_listeners(
    pid: i32,
    endpoint: &str,
    listeners: &Listeners,
    lanes: &ProbeLimits,
) -> Vec<String> {
    // Most ports have one socket, and nobody needs to be looked at.
    if asked(endpoint).is_some_and(|asked| !listeners.is_crowded(asked.port())) {
        return Vec::new();
    }
    let known = lanes.pids();
    let Ok(own) = sockets_of(pid) else {
        return Vec::new();
    };
    let mut mine: BTreeSet<u64> = own.into_iter().collect();
    mine.extend(
        family(pid)
            .into_iter()
            .skip(1)
            .flat_map(|child| sockets_of(child).unwrap_or_default()),
    );
    let mut addresses: BTreeSet<SocketAddr> = mine
        .iter()
        .filter_map(|inode| listeners.tcp(*inode))
        .collect();
    // Who listens on all addresses is not who is reached at one that somebody else listens on.
    if let Some(asked) = asked(endpoint) {
        let six = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), asked.port());
        let four = (asked.is_ipv4() && addresses.contains(&six))
            .then_some(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), asked.port()));
        addresses.extend(four.into_iter().chain([asked]));
    }
    let foreign: BTreeSet<u64> = addresses
        .into_iter()
        .flat_map(|address| listeners.on(address))
        .filter(|inode| !mine.contains(inode))
        .collect();
    let mut held = BTreeSet::new();
    let mut strangers = Vec::new();
    for (holder, inode) in holders(&foreign) {
        held.insert(inode);
        if !descends(holder, &known) {
            let exe = std::fs::read_link(Path::new("/proc").join(holder.to_string()).join("exe"))
                .unwrap_or_default();
            strangers.push(format!("pid {holder} ({})", exe.display()));
        }
    }
    if foreign.iter().any(|inode| !held.contains(inode)) {
        strangers.push("a process that this user may not look at".into());
    }
    strangers.dedup();
    strangers
}

/// The address of `http://HOST:PORT/`.
pub(crate) fn asked(endpoint: &str) -> Option<SocketAddr> {
    address_of(endpoint).parse().ok()
}

/// Every process that holds one of the sockets, with which.
fn holders(sockets: &BTreeSet<u64>) -> Vec<(i32, u64)> {
    if sockets.is_empty() {
        return Vec::new();
    }
    let mut all = Vec::new();
    // A socket whose holder is not found is named as such.
    for pid in pids().unwrap_or_default() {
        // Whoever may not be looked at shows in a socket that nobody holds.
        let _ = descriptors(pid, |_, to| {
            all.extend(
                to.ok()
                    .and_then(socket)
                    .filter(|inode| sockets.contains(inode))
                    .map(|inode| (pid, inode)),
            )
        });
    }
    all
}

/// Whether it is, or descends from, one of `known`.
fn descends(pid: i32, known: &BTreeSet<i32>) -> bool {
    let parent = |pid: &i32| Stat::of(*pid).ok().map(|stat| stat.parent);
    std::iter::successors(Some(pid), parent)
        .take(GENERATIONS)
        .any(|pid| known.contains(&pid))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn who_holds_a_socket_is_found_and_whose_it_is() {
        let me = i32::try_from(std::process::id()).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let link = std::fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
        let inode: u64 = link
            .to_string_lossy()
            .trim_start_matches("socket:[")
            .trim_end_matches(']')
            .parse()
            .unwrap();
        assert_eq!(holders(&BTreeSet::from([inode])), [(me, inode)]);
        assert!(
            descends(me, &BTreeSet::from([me]))
                && descends(me, &BTreeSet::from([1]))
                && !descends(me, &BTreeSet::from([i32::MAX]))
        );
        let listeners = Listeners::read().unwrap();
        assert_eq!(listeners.tcp(inode), Some(listener.local_addr().unwrap()));
        let endpoint = format!("http://{}/", listener.local_addr().unwrap());
        assert_eq!(asked(&endpoint), listener.local_addr().ok());
        assert!(
            foreign_listeners(me, &endpoint, &listeners, &ProbeLimits::default()).is_empty()
                && foreign_listeners(me, "", &listeners, &ProbeLimits::default()).is_empty()
        );
    }
}
