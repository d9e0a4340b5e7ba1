//! Which sockets are listened on, and by whom: one dump of the kernel's tables serves the whole
//! fleet.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    fact::Source,
    fleet::{Group, ListenAt, Speaks},
    host::proc::{
        argument::argument,
        guard::shares,
        kernel::{descriptors, socket},
        tree::{ProcessTree, family},
    },
};
use netlink_packet_core::{
    Emitable, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
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

/// The kernel answers in pieces of at most 32 KiB.
const PIECE: usize = 64 << 10;

/// Where a listening socket can be asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Listening sockets of this network namespace, by inode.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    /// Without an address where its name is abstract or relative: it listens, and cannot be asked
    /// from here.
    sockets: HashMap<u64, Option<Address>>,
    /// The same by address: several sockets may share one (`SO_REUSEPORT`).
    tcp: HashMap<SocketAddr, Vec<u64>>,
    /// So many sockets listen on each port, whatever the address.
    ports: HashMap<u16, usize>,
    /// Whether this host has `::1`; a socket on all addresses is open to IPv6 also where loopback
    /// has none.
    six: bool,
    /// Whose child everybody is, where that is known of all.
    kin: Option<ProcessTree>,
}

impl Listeners {
    /// Asks the kernel (`sock_diag(7)`).
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub(crate) fn read() -> io::Result<Self> {
        let mut sockets = HashMap::new();
        // A socket on `::` that takes IPv4 as well is in the second table alone.
        for family in [AF_INET, AF_INET6] {
            let socket_id = if family == AF_INET {
                SocketId::new_v4()
            } else {
                SocketId::new_v6()
            };
            let states = inet::StateFlags::LISTEN;
            let request = InetRequest {
                family,
                protocol: IPPROTO_TCP,
                extensions: ExtensionFlags::empty(),
                states,
                socket_id,
            };
            dump(SockDiagMessage::InetRequest(request), |said| {
                if let SockDiagMessage::InetResponse(r) = said {
                    let id = &r.header.socket_id;
                    let address = SocketAddr::new(id.source_address.to_canonical(), id.source_port);
                    sockets.insert(r.header.inode.into(), Some(Address::Tcp(address)));
                }
            })?;
        }
        let request = UnixRequest {
            state_flags: unix::StateFlags::LISTEN,
            inode: 0,
            show_flags: ShowFlags::NAME | ShowFlags::VFS,
            cookie: [0xff; 8],
        };
        let mut files: HashMap<PathBuf, Vec<(u64, u32)>> = HashMap::new();
        dump(SockDiagMessage::UnixRequest(request), |said| {
            let SockDiagMessage::UnixResponse(r) = said else {
                return;
            };
            let path = r.nlas.iter().find_map(|nla| match nla {
                Nla::Name(UnixDiagName::Pathname(path)) if Path::new(path).is_absolute() => {
                    Some(Address::Unix(path.into()))
                }
                _ => None,
            });
            if let (Some(Address::Unix(path)), Some(file)) =
                (&path, r.nlas.iter().find_map(file_of))
            {
                files
                    .entry(path.clone())
                    .or_default()
                    .push((r.header.inode.into(), file));
            }
            sockets.insert(r.header.inode.into(), path);
        })?;
        // Of several sockets that were bound to one path, all but the last have lost it: nobody who
        // connects there reaches them.
        for (path, all) in files.iter().filter(|(_, all)| all.len() > 1) {
            let Ok(now) = std::fs::metadata(path) else {
                continue;
            };
            let reached =
                |(_, file): &&(u64, u32)| u64::from(*file) == now.ino() & u64::from(u32::MAX);
            if all.iter().any(|one| reached(&one)) {
                all.iter()
                    .filter(|one| !reached(one))
                    .for_each(|(inode, _)| drop(sockets.insert(*inode, None)));
            }
        }
        let loopback = format!("{:032x} ", 1);
        let six = std::fs::read_to_string("/proc/net/if_inet6")
            .is_ok_and(|all| all.lines().any(|line| line.starts_with(&loopback)));
        let (mut tcp, mut ports) = (HashMap::<SocketAddr, Vec<u64>>::new(), HashMap::new());
        for (inode, address) in &sockets {
            if let Some(Address::Tcp(address)) = address {
                tcp.entry(*address).or_default().push(*inode);
                *ports.entry(address.port()).or_default() += 1;
            }
        }
        Ok(Self {
            sockets,
            tcp,
            ports,
            six,
            kin: None,
        })
    }

    /// With whose child everybody is.
    pub(crate) fn with(self, kin: Option<ProcessTree>) -> Self {
        Self { kin, ..self }
    }

    /// Whether the socket of this inode is listened on.
    pub(crate) fn listens(&self, inode: u64) -> bool {
        self.sockets.contains_key(&inode)
    }

    /// Where the socket of this inode can be asked.
    pub(crate) fn address(&self, inode: u64) -> Option<&Address> {
        self.sockets.get(&inode)?.as_ref()
    }

    /// The TCP address that the socket of this inode listens on.
    pub(crate) fn tcp(&self, inode: u64) -> Option<SocketAddr> {
        match self.sockets.get(&inode)? {
            Some(Address::Tcp(address)) => Some(*address),
            _ => None,
        }
    }

    /// Whether several sockets listen on this port.
    pub(crate) fn is_crowded(&self, port: u16) -> bool {
        self.ports.get(&port).is_some_and(|sockets| *sockets > 1)
    }

    /// Every socket that listens on this very address, by inode.
    pub(crate) fn on(&self, address: SocketAddr) -> impl Iterator<Item = u64> {
        self.tcp.get(&address).into_iter().flatten().copied()
    }

    /// Whether anybody listens where a process with these arguments would.
    pub(crate) fn any(&self, wanted: &ListenAt, args: &[String]) -> bool {
        self.sockets
            .values()
            .flatten()
            .any(|address| address.fits(wanted, args))
    }

    /// Whether the process `pid` itself holds a socket that listens there; none where this user may
    /// not see its descriptors.
    pub(crate) fn holds_at(&self, pid: i32, wanted: &ListenAt, args: &[String]) -> Option<bool> {
        let fits = |inode| {
            self.sockets.get(&inode).is_some_and(|at| {
                at.as_ref()
                    .is_some_and(|address| address.fits(wanted, args))
            })
        };
        let mut held = false;
        match descriptors(pid, |_, to| {
            held |= to.ok().and_then(socket).is_some_and(fits)
        }) {
            Ok(()) => Some(held),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Some(false),
            Err(_) => None,
        }
    }

    /// Where a process or a descendant of it listens, each once, sorted.
    ///
    /// # Errors
    /// As [`sockets_of`], of the process itself.
    pub(crate) fn addresses(&self, pid: i32) -> Result<Vec<Address>, String> {
        let mut inodes = sockets_of(pid)?;
        // A descendant that ended meanwhile, or went to another namespace, has nothing that could
        // be asked.
        let family = self
            .kin
            .as_ref()
            .map_or_else(|| family(pid), |kin| kin.family(pid));
        inodes.extend(
            family
                .into_iter()
                .skip(1)
                .flat_map(|child| sockets_of(child).unwrap_or_default()),
        );
        let mut all: Vec<Address> = inodes
            .iter()
            .filter_map(|inode| self.sockets.get(inode)?.clone())
            .collect();
        all.sort();
        all.dedup();
        Ok(all)
    }

    /// The endpoint of a process with these arguments: the first entry of the group's `listen` that
    /// fits exactly one of its addresses decides.
    ///
    /// # Errors
    /// A sentence when it listens on none, or on several of which none is chosen.
    pub(crate) fn endpoint(
        &self,
        pid: i32,
        args: &[String],
        group: &Group,
    ) -> Result<String, String> {
        let all = without_twins(self.addresses(pid)?);
        let chosen = group.listen.iter().find_map(|wanted| {
            let mut fitting = all.iter().filter(|address| address.fits(wanted, args));
            fitting.next().filter(|_| fitting.next().is_none())
        });
        match (chosen, all.as_slice()) {
            (Some(one), _) | (None, [one]) => Ok(self.url(one, scheme(group))),
            (None, []) => Err("listens on no socket".into()),
            (None, many) => {
                let many: Vec<String> = many
                    .iter()
                    .map(|one| self.url(one, scheme(group)))
                    .collect();
                let said = if group.listen.is_empty() {
                    ""
                } else {
                    "its group's `listen` fits none or several of them; "
                };
                Err(format!(
                    "listens on {}; {said}say which with `listen = \"tcp:PORT\"` in its group",
                    many.join(", ")
                ))
            }
        }
    }

    /// What the group's `listen` names, where it names something and the process listens nowhere
    /// that is it.
    pub(crate) fn missing(&self, pid: i32, args: &[String], group: &Group) -> Option<String> {
        let all = self.addresses(pid).unwrap_or_default();
        let missing = !group.listen.is_empty()
            && !all
                .iter()
                .any(|one| group.listen.iter().any(|wanted| one.fits(wanted, args)));
        missing.then(|| {
            group
                .listen
                .iter()
                .map(|wanted| format!("`{wanted}`"))
                .collect::<Vec<_>>()
                .join(", ")
        })
    }

    /// Whether it can be seen that the process listens nowhere, or nowhere that its group's
    /// `listen` names.
    pub(crate) fn is_deaf(&self, pid: i32, args: &[String], group: &Group) -> bool {
        self.addresses(pid)
            .is_ok_and(|all| all.is_empty() || self.missing(pid, args, group).is_some())
    }

    /// Whether a process or a descendant of it listens where `endpoint` says.
    pub(crate) fn holds(&self, pid: i32, endpoint: &str, group: &Group) -> bool {
        self.addresses(pid).is_ok_and(|all| {
            all.iter()
                .any(|one| self.url(one, scheme(group)) == endpoint)
        })
    }

    /// A socket on all addresses is asked on loopback.
    fn url(&self, address: &Address, scheme: &str) -> String {
        match address {
            Address::Unix(path) => format!("unix:{}", path.display()),
            Address::Tcp(addr) => {
                let mut addr = *addr;
                if addr.ip().is_unspecified() {
                    addr.set_ip(if addr.is_ipv4() || !self.six {
                        Ipv4Addr::LOCALHOST.into()
                    } else {
                        Ipv6Addr::LOCALHOST.into()
                    });
                }
                format!("{scheme}://{addr}/")
            }
        }
    }
}

/// The inode of the file that a socket was bound to; the kernel tells 32 bits of it.
fn file_of(nla: &Nla) -> Option<u32> {
    let Nla::Vfs(file) = nla else { return None };
    let mut bytes = vec![0; file.buffer_len()];
    file.emit(&mut bytes);
    bytes.first_chunk().map(|inode| u32::from_ne_bytes(*inode))
}

/// What is spoken at the endpoint, as far as its group says.
fn scheme(group: &Group) -> &'static str {
    let mut asked = group
        .confirm
        .iter()
        .chain(&group.reject)
        .filter_map(|fact| match &fact.source {
            Source::Http(ask) if fact.source.uses_listen() => {
                Some(if ask.url.starts_with("https://") {
                    "https"
                } else {
                    "http"
                })
            }
            _ => None,
        });
    if group.speaks == Speaks::Hello {
        "http"
    } else {
        asked.next().unwrap_or("tcp")
    }
}

/// Programs that listen on all addresses, or on loopback, often do so once for IPv4 and once for
/// IPv6: the two are one endpoint.
fn without_twins(all: Vec<Address>) -> Vec<Address> {
    let four = |addr: &SocketAddr| match addr {
        SocketAddr::V6(six) if six.ip().is_unspecified() => {
            Some((Ipv4Addr::UNSPECIFIED, six.port()))
        }
        SocketAddr::V6(six) if six.ip().is_loopback() => Some((Ipv4Addr::LOCALHOST, six.port())),
        _ => None,
    };
    let has = |twin: (Ipv4Addr, u16)| all.contains(&Address::Tcp(twin.into()));
    let is_twin = |one: &Address| matches!(one, Address::Tcp(addr) if four(addr).is_some_and(has));
    all.iter().filter(|one| !is_twin(one)).cloned().collect()
}

impl Address {
    /// Whether it is what `wanted` says, for a process with these arguments.
    pub(crate) fn fits(&self, wanted: &ListenAt, args: &[String]) -> bool {
        match (self, wanted) {
            (Self::Tcp(addr), ListenAt::TcpPort(port)) => addr.port() == *port,
            (Self::Tcp(addr), ListenAt::Tcp(wanted)) => addr == wanted,
            (Self::Unix(path), ListenAt::Unix(wanted)) => wanted.matches_path(path),
            (_, ListenAt::Arg(option)) => {
                argument(args, option).is_some_and(|value| self.is_said(value))
            }
            _ => false,
        }
    }

    /// Whether it is what an option says: `PORT`, `:PORT`, `HOST:PORT`, or the path of a socket. A
    /// name is not looked up: its port decides.
    fn is_said(&self, value: &str) -> bool {
        match self {
            Self::Unix(path) => path == Path::new(value.strip_prefix("unix:").unwrap_or(value)),
            Self::Tcp(addr) => {
                let (host, port) = value.rsplit_once(':').unwrap_or(("", value));
                let ip = host
                    .trim_start_matches('[')
                    .trim_end_matches(']')
                    .parse::<std::net::IpAddr>();
                // Go listens on `::` when it is told `0.0.0.0`.
                let fits = ip.map_or(true, |ip| {
                    ip == addr.ip() || (ip.is_unspecified() && addr.ip().is_unspecified())
                });
                fits && port.parse() == Ok(addr.port())
            }
        }
    }
}

/// Inodes of the sockets that a process itself holds.
///
/// # Errors
/// A sentence when they cannot be read, or when it is where this host does not see who listens.
pub(crate) fn sockets_of(pid: i32) -> Result<Vec<u64>, String> {
    if shares(pid, "net") != Some(true) {
        return Err("is in another network namespace, where this host cannot ask it".into());
    }
    let mut inodes = Vec::new();
    let mut unread = None;
    let all = descriptors(pid, |_, to| match to {
        Ok(to) => inodes.extend(socket(to)),
        Err(e) => unread = Some(e),
    });
    // What cannot be read must not count as a socket that is not there.
    match all.err().or(unread) {
        Some(e) => Err(format!("sockets: {e}")),
        None => Ok(inodes),
    }
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
            let Some(length) = rest
                .first_chunk::<4>()
                .map(|b| u32::from_ne_bytes(*b) as usize)
            else {
                break;
            };
            // A socket that cannot be read (a strange name) is nobody's endpoint; the others still
            // are.
            let payload = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
                .map_or(NetlinkPayload::Noop, |m| m.payload);
            match payload {
                NetlinkPayload::InnerMessage(said) => each(&said),
                // An error of a dump may come inside its end, as a negative errno.
                NetlinkPayload::Done(done) if done.code < 0 => {
                    return Err(io::Error::from_raw_os_error(-done.code));
                }
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(e) => return Err(e.to_io()),
                _ => {}
            }
            // Messages are aligned to 4 bytes.
            rest = rest
                .get(length.next_multiple_of(4).max(16)..)
                .unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests;
