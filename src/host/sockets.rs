//! Which sockets are listened on, and by whom: one dump of the kernel's tables serves the whole fleet.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP},
    inet::{self, ExtensionFlags, InetRequest, SocketId},
    unix::{
        self, ShowFlags, UnixRequest,
        nlas::{Nla, UnixDiagName},
    },
};
use netlink_sys::{Socket, protocols::NETLINK_SOCK_DIAG};
use procfs::process::{FDTarget, Process};

use crate::fleet::ListenAt;

/// The kernel answers in pieces of at most 32 KiB.
const PIECE: usize = 64 << 10;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Listening sockets of this network namespace, by inode.
#[derive(Debug, Default)]
pub(crate) struct Listeners(HashMap<u64, Place>);

impl Listeners {
    /// Asks the kernel (`sock_diag(7)`).
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub(crate) fn read() -> io::Result<Self> {
        let mut map = HashMap::new();
        for family in [AF_INET, AF_INET6] {
            let socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
            let states = inet::StateFlags::LISTEN;
            let request = InetRequest { family, protocol: IPPROTO_TCP, extensions: ExtensionFlags::empty(), states, socket_id };
            dump(SockDiagMessage::InetRequest(request), |said| {
                if let SockDiagMessage::InetResponse(r) = said {
                    let id = &r.header.socket_id;
                    map.insert(r.header.inode.into(), Place::Tcp(SocketAddr::new(id.source_address, id.source_port)));
                }
            })?;
        }
        let request = UnixRequest { state_flags: unix::StateFlags::LISTEN, inode: 0, show_flags: ShowFlags::NAME, cookie: [0xff; 8] };
        dump(SockDiagMessage::UnixRequest(request), |said| {
            let SockDiagMessage::UnixResponse(r) = said else { return };
            for nla in &r.nlas {
                // A relative or abstract name cannot be asked from here.
                if let Nla::Name(UnixDiagName::Pathname(path)) = nla
                    && Path::new(path).is_absolute()
                {
                    map.insert(r.header.inode.into(), Place::Unix(path.into()));
                }
            }
        })?;
        Ok(Self(map))
    }

    /// Whether anybody listens there.
    pub(crate) fn any(&self, wanted: &ListenAt) -> bool {
        self.0.values().any(|place| place.is(wanted))
    }

    /// Whether the process holds a socket that listens there; none where this user may not see its descriptors.
    pub(crate) fn holds(&self, pid: i32, wanted: &ListenAt) -> Option<bool> {
        let fds = match Process::new(pid).and_then(|p| p.fd()) {
            Ok(fds) => fds,
            Err(procfs::ProcError::NotFound(_)) => return Some(false),
            Err(_) => return None,
        };
        let mut inodes = fds.flatten().filter_map(|fd| if let FDTarget::Socket(inode) = fd.target { Some(inode) } else { None });
        Some(inodes.any(|inode| self.0.get(&inode).is_some_and(|place| place.is(wanted))))
    }

    /// The one endpoint of a process: `http://ADDRESS/` or `unix:PATH`; `wanted` chooses among several.
    ///
    /// # Errors
    /// A sentence when it listens on none, or on several.
    pub(crate) fn of(&self, pid: i32, wanted: &[ListenAt]) -> Result<String, String> {
        let process = Process::new(pid).map_err(|e| format!("sockets: {e}"))?;
        let mut mine: Vec<String> = process
            .fd()
            .map_err(|e| format!("sockets: {e}"))?
            .flatten()
            .filter_map(|fd| match fd.target {
                FDTarget::Socket(inode) => self.0.get(&inode),
                _ => None,
            })
            .filter(|place| wanted.is_empty() || wanted.iter().any(|w| place.is(w)))
            .map(Place::url)
            .collect();
        mine.sort();
        mine.dedup();
        match mine.as_slice() {
            [one] => Ok(one.clone()),
            [] if elsewhere(pid) => Err("is in another network namespace, where this host cannot ask it".into()),
            [] if !wanted.is_empty() => Err("does not listen on what its group's `listen` says".into()),
            [] => Err("listens on no socket".into()),
            many => Err(format!("listens on {}; say which with `listen = \"tcp:PORT\"` in its group", many.join(", "))),
        }
    }
}

impl Place {
    fn is(&self, wanted: &ListenAt) -> bool {
        match (self, wanted) {
            (Self::Tcp(addr), ListenAt::TcpPort(port)) => addr.port() == *port,
            (Self::Tcp(addr), ListenAt::Tcp(wanted)) => addr == wanted,
            (Self::Unix(path), ListenAt::Unix(wanted)) => wanted.matches_path(path),
            _ => false,
        }
    }

    /// A wildcard listener is asked on loopback.
    fn url(&self) -> String {
        match self {
            Self::Unix(path) => format!("unix:{}", path.display()),
            Self::Tcp(addr) => {
                let mut addr = *addr;
                if addr.ip().is_unspecified() {
                    addr.set_ip(if addr.is_ipv4() { std::net::Ipv4Addr::LOCALHOST.into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
                }
                format!("http://{addr}/")
            }
        }
    }
}

fn elsewhere(pid: i32) -> bool {
    let namespace = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/net")).ok();
    namespace(&pid.to_string()) != namespace("self")
}

fn dump(request: SockDiagMessage, mut each: impl FnMut(&SockDiagMessage)) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(request));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.send(&bytes, 0)?;
    let mut piece = Vec::with_capacity(PIECE);
    loop {
        piece.clear();
        // The kernel always ends a dump with Done or an error, so this wait has an end.
        socket.recv(&mut piece, 0)?;
        let mut rest = piece.as_slice();
        while !rest.is_empty() {
            let Some(length) = rest.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b) as usize) else { break };
            // A socket that cannot be read (a strange name) is nobody's endpoint; the others still are.
            let payload = NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_or(NetlinkPayload::Noop, |m| m.payload);
            match payload {
                NetlinkPayload::InnerMessage(said) => each(&said),
                // An error of a dump may come inside its end, as a negative errno.
                NetlinkPayload::Done(done) if done.code < 0 => return Err(io::Error::from_raw_os_error(-done.code)),
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(e) => return Err(e.to_io()),
                _ => {}
            }
            // Messages are aligned to 4 bytes.
            rest = rest.get(length.next_multiple_of(4).max(16)..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn own_listeners_are_found_and_chosen() {
        let dir = tempfile::tempdir().unwrap();
        let pid = i32::try_from(std::process::id()).unwrap();
        let tcp = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let six = std::net::TcpListener::bind("[::1]:0").unwrap();
        let unix = dir.path().join("s.sock");
        let _unix = std::os::unix::net::UnixListener::bind(&unix).unwrap();
        let listeners = Listeners::read().unwrap();
        let port = tcp.local_addr().unwrap().port();
        assert_eq!(listeners.of(pid, &[ListenAt::TcpPort(port)]).unwrap(), format!("http://127.0.0.1:{port}/"));
        assert_eq!(listeners.of(pid, &[ListenAt::Tcp(six.local_addr().unwrap())]).unwrap(), format!("http://{}/", six.local_addr().unwrap()));
        assert_eq!(listeners.of(pid, &[format!("unix:{}", unix.display()).parse().unwrap()]).unwrap(), format!("unix:{}", unix.display()));
        assert!(listeners.of(pid, &[]).unwrap_err().contains("say which"));
    }
}
