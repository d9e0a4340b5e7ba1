//! The sockets that a process and its descendants listen on.

use std::collections::BTreeSet;

use super::{
    fact::{About, Fact, Source},
    text::{GroupText, list},
};
use crate::{
    host::net::sockets::{Listeners, sockets_of_family},
    names,
};

/// The state of a UDP socket without a peer in `/proc/net/udp` (`TCP_CLOSE` of the kernel).
const UNCONNECTED: &str = "07";

/// Writes the addresses. Of several, the first is the endpoint. Returns whether one is of TCP.
pub(super) fn write(
    pid: i32,
    listeners: &Listeners,
    text: &mut GroupText,
    facts: &mut Vec<Fact>,
) -> bool {
    let addresses = match listeners.names(pid) {
        Ok(addresses) => addresses,
        Err(why) => {
            text.note(&format!("it {why}"));
            facts.push(Fact::seen(About::Sockets, why.to_string()));
            return false;
        }
    };
    let mut all = addresses.clone();
    all.extend(udp_ports(pid).iter().map(|port| format!("udp:{port}")));
    let detail = match all.is_empty() {
        true => "listens on no socket".to_owned(),
        false => format!("listens on {}", names::list(&all, ", ", names::MOST)),
    };
    facts.push(Fact::seen(About::Sockets, detail.clone()));
    if addresses.len() > 1 {
        let why = format!("it {detail}; the first of these that it still has is probed");
        text.key("listen", &list(&addresses), Source::Seen, &why);
    } else {
        text.note(&format!("it {detail}"));
    }
    addresses.iter().any(|address| address.starts_with("tcp:"))
}

/// The UDP ports of the sockets that a process and its descendants hold. Without the right to see
/// them there are none.
fn udp_ports(pid: i32) -> BTreeSet<u16> {
    let Ok(held) = sockets_of_family(pid, |_| true) else {
        return BTreeSet::new();
    };
    let mut ports = BTreeSet::new();
    for table in ["/proc/net/udp", "/proc/net/udp6"] {
        let table = std::fs::read_to_string(table).unwrap_or_default();
        let sockets = table.lines().filter_map(udp_socket);
        ports.extend(
            sockets
                .filter(|(inode, _)| held.contains(inode))
                .map(|(_, port)| port),
        );
    }
    ports
}

/// The inode and the port of a socket without a peer, from a line of `/proc/net/udp` (proc(5)).
fn udp_socket(line: &str) -> Option<(u64, u16)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (_, port) = fields.get(1)?.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let is_open = fields.get(3) == Some(&UNCONNECTED) && port != 0;
    Some((fields.get(9)?.parse().ok()?, port)).filter(|_| is_open)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn a_udp_socket_of_this_process_has_its_port() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let pid = i32::try_from(std::process::id()).unwrap();
        assert!(udp_ports(pid).contains(&port));
    }
}
