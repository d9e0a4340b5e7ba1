//! Dumps of the kernel's socket tables (`sock_diag(7)`).

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
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

/// The size of the receive buffer, in bytes: the kernel sends at most 32 KiB at a time.
const RECEIVE_BUFFER: usize = 64 << 10;

/// A listening socket of a path.
pub(super) struct UnixListener {
    pub(super) inode: u64,
    /// The absolute path; `None` if the name is abstract or relative.
    pub(super) path: Option<PathBuf>,
    /// The low 32 bits of the inode of the file that the socket was bound to.
    pub(super) file: Option<u32>,
}

/// Calls `each` with the inode and the address of every listening TCP socket.
///
/// # Errors
/// Fails if the kernel does not answer.
pub(super) fn each_tcp_listener(mut each: impl FnMut(u64, SocketAddr)) -> io::Result<()> {
    // A socket on `::` that accepts IPv4 as well is in the second table only.
    for family in [AF_INET, AF_INET6] {
        let socket_id = if family == AF_INET {
            SocketId::new_v4()
        } else {
            SocketId::new_v6()
        };
        let request = InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states: inet::StateFlags::LISTEN,
            socket_id,
        };
        dump(SockDiagMessage::InetRequest(request), |message| {
            if let SockDiagMessage::InetResponse(response) = message {
                let id = &response.header.socket_id;
                let address = SocketAddr::new(id.source_address.to_canonical(), id.source_port);
                each(response.header.inode.into(), address);
            }
        })?;
    }
    Ok(())
}

/// Calls `each` with every listening Unix socket.
///
/// # Errors
/// Fails if the kernel does not answer.
pub(super) fn each_unix_listener(mut each: impl FnMut(UnixListener)) -> io::Result<()> {
    let request = UnixRequest {
        state_flags: unix::StateFlags::LISTEN,
        inode: 0,
        show_flags: ShowFlags::NAME | ShowFlags::VFS,
        cookie: [0xff; 8],
    };
    dump(SockDiagMessage::UnixRequest(request), |message| {
        if let SockDiagMessage::UnixResponse(response) = message {
            each(UnixListener {
                inode: response.header.inode.into(),
                path: response.nlas.iter().find_map(path_of),
                file: response.nlas.iter().find_map(file_of),
            });
        }
    })
}

/// Returns the absolute path of a socket.
fn path_of(nla: &Nla) -> Option<PathBuf> {
    match nla {
        Nla::Name(UnixDiagName::Pathname(path)) if Path::new(path).is_absolute() => {
            Some(path.into())
        }
        _ => None,
    }
}

/// Returns the inode of the file that a socket was bound to; the kernel reports 32 bits of it.
fn file_of(nla: &Nla) -> Option<u32> {
    let Nla::Vfs(file) = nla else { return None };
    let mut bytes = vec![0; file.buffer_len()];
    file.emit(&mut bytes);
    bytes.first_chunk().map(|inode| u32::from_ne_bytes(*inode))
}

/// Sends a request, and calls `each` with every message of the answer.
fn dump(request: SockDiagMessage, mut each: impl FnMut(&SockDiagMessage)) -> io::Result<()> {
    let socket = send(request)?;
    let mut buffer = Vec::with_capacity(RECEIVE_BUFFER);
    loop {
        buffer.clear();
        // The kernel always ends a dump with Done or an error, so this wait has an end.
        socket.recv(&mut buffer, 0)?;
        let mut rest = buffer.as_slice();
        while !rest.is_empty() {
            let Some(length) = rest
                .first_chunk::<4>()
                .map(|bytes| u32::from_ne_bytes(*bytes) as usize)
            else {
                break;
            };
            // A socket that cannot be decoded, for example by its name, is no endpoint. The other
            // sockets still are.
            let payload = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
                .map_or(NetlinkPayload::Noop, |message| message.payload);
            match payload {
                NetlinkPayload::InnerMessage(message) => each(&message),
                // An error of a dump may come inside its end, as a negative errno.
                NetlinkPayload::Done(done) if done.code < 0 => {
                    return Err(io::Error::from_raw_os_error(-done.code));
                }
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(e) => return Err(e.to_io()),
                _ => {}
            }
            // Messages are aligned to 4 bytes, and have a header of 16.
            rest = rest
                .get(length.next_multiple_of(4).max(16)..)
                .unwrap_or_default();
        }
    }
}

/// Sends a request over a new socket.
fn send(request: SockDiagMessage) -> io::Result<Socket> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(request));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.send(&bytes, 0)?;
    Ok(socket)
}
