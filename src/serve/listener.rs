//! The listening socket: at an address, or at a socket file.

use std::{
    fs, io,
    net::IpAddr,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, RenameFlags, fstat, open, renameat_with},
    io::Errno,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
        sockopt::set_tcp_nodelay,
    },
};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::failure::Failure;
use crate::config::Listen;

/// The origin of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Peer {
    /// A process on this machine, with the address of the listener; none for a socket file.
    Local(Option<IpAddr>),
    /// Another machine.
    Remote,
}

/// The listening socket.
#[derive(Debug)]
pub(crate) enum Listener {
    /// Bound to an address.
    Tcp(TcpListener, IpAddr),
    /// Bound to a file, which is held open so that no other file gets its inode.
    Unix(UnixListener, PathBuf, OwnedFd),
}

pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// Binds the listener.
    ///
    /// # Errors
    /// Fails with [`Failure::Listen`] if the address cannot be listened on.
    pub(crate) async fn bind(listen: &Listen) -> Result<Self, Failure> {
        let bound = match listen {
            Listen::Tcp(address) => Self::bind_tcp(address).await,
            Listen::Unix(path) => Self::bind_unix(path),
        };
        bound.map_err(|e| Failure::Listen(listen.to_string(), e))
    }

    async fn bind_tcp(address: &str) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        // A response is sent at once, without a wait for the peer's acknowledgement of the last
        // one. Connections inherit the option from their listener (tcp(7)).
        set_tcp_nodelay(&listener, true)?;
        let own = listener.local_addr()?.ip().to_canonical();
        Ok(Self::Tcp(listener, own))
    }

    fn bind_unix(path: &Path) -> io::Result<Self> {
        remove_stale(path)?;
        let listener = UnixListener::bind(path)?;
        Ok(Self::Unix(listener, path.to_owned(), hold(path)?))
    }

    /// Returns the URL of the listener.
    pub(crate) fn url(&self) -> io::Result<String> {
        Ok(match self {
            Self::Tcp(listener, _) => format!("http://{}/", listener.local_addr()?),
            Self::Unix(_, path, _) => format!("unix:{}", path.display()),
        })
    }

    pub(super) async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(listener, own) => {
                let (stream, remote) = listener.accept().await?;
                let local = remote.ip().to_canonical().is_loopback();
                Ok((
                    Stream::Tcp(stream),
                    if local {
                        Peer::Local(Some(*own))
                    } else {
                        Peer::Remote
                    },
                ))
            }
            Self::Unix(listener, ..) => {
                Ok((Stream::Unix(listener.accept().await?.0), Peer::Local(None)))
            }
        }
    }

    /// Closes the listener and removes its socket file. A file that replaced it stays.
    pub(super) fn close(self) {
        if let Self::Unix(_, path, own) = &self {
            let _ = remove(path, own);
        }
    }
}

/// Removes a socket file that an earlier process left at `path`.
///
/// # Errors
/// Fails if `path` is another kind of file, or a process listens there.
fn remove_stale(path: &Path) -> io::Result<()> {
    let kind = match path.symlink_metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
        Ok(meta) => meta.file_type(),
    };
    if !kind.is_socket() {
        let found = match kind {
            kind if kind.is_file() => "a regular file",
            kind if kind.is_dir() => "a directory",
            kind if kind.is_symlink() => "a symbolic link",
            kind if kind.is_fifo() => "a FIFO",
            _ => "a device",
        };
        let text = format!(
            "there is {found}, and only a socket that no process listens on is replaced; move it \
             away, or name another path"
        );
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    let old = hold(path)?;
    if is_listened_on(path)? {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "a process listens there",
        ));
    }
    remove(path, &old)
}

/// Tells whether a process listens at the socket file `path`.
///
/// The socket is non-blocking, because `connect` would wait while the queue of connections is full.
fn is_listened_on(path: &Path) -> io::Result<bool> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    )?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        // EPROTOTYPE: a socket of another type is bound there.
        Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS | Errno::PROTOTYPE) => Ok(true),
        Err(Errno::CONNREFUSED) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Opens the file at `path` itself, of any kind, without following a link.
fn hold(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(
        path,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Removes `path` if it is the socket `held`.
///
/// The file is renamed first and checked again, so another file that a process puts at `path` in
/// the meantime is not removed.
fn remove(path: &Path, held: &OwnedFd) -> io::Result<()> {
    let held = fstat(held)?;
    let is_held = |path: &Path| {
        path.symlink_metadata().is_ok_and(|m| {
            m.file_type().is_socket() && (m.dev(), m.ino()) == (held.st_dev, held.st_ino)
        })
    };
    if !is_held(path) {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "another file replaced it",
        ));
    }
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".hello-{}", std::process::id()));
    let aside = path.with_file_name(name);
    match renameat_with(CWD, path, CWD, &aside, RenameFlags::NOREPLACE) {
        Ok(()) if is_held(&aside) => fs::remove_file(&aside),
        Ok(()) => {
            renameat_with(CWD, &aside, CWD, path, RenameFlags::NOREPLACE)?;
            Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "another file replaced it",
            ))
        }
        // The filesystem does not support RENAME_NOREPLACE (rename(2)).
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => fs::remove_file(path),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[tokio::test]
    async fn a_connection_inherits_tcp_nodelay_from_its_listener() {
        let listener = Listener::bind(&Listen::Tcp("127.0.0.1:0".into()))
            .await
            .unwrap();
        let address = listener
            .url()
            .unwrap()
            .replace("http://", "")
            .replace('/', "");
        let _client = TcpStream::connect(address).await.unwrap();
        let (Stream::Tcp(stream), _) = listener.accept().await.unwrap() else {
            panic!("it is TCP")
        };
        assert!(stream.nodelay().unwrap());
    }

    #[tokio::test]
    async fn only_a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let bind = || Listener::bind_unix(&path);
        fs::write(&path, "precious").unwrap();
        assert!(bind().unwrap_err().to_string().contains("regular file"));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        fs::remove_file(&path).unwrap();
        // A link is not followed.
        std::os::unix::fs::symlink(dir.path().join("real"), &path).unwrap();
        drop(std::os::unix::net::UnixListener::bind(dir.path().join("real")).unwrap());
        assert!(bind().unwrap_err().to_string().contains("symbolic link"));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(bind().unwrap_err().to_string().contains("directory"));
        fs::remove_dir(&path).unwrap();
        let first = bind().unwrap();
        assert_eq!(bind().unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        let second = bind().unwrap();
        // A file that another process put there while it served stays.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        second.close();
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            2,
            "no renamed file is left"
        );
    }

    #[tokio::test]
    async fn a_socket_with_a_full_queue_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let mut waiting = Vec::new();
        loop {
            let socket = socket_with(
                AddressFamily::UNIX,
                SocketType::STREAM,
                SocketFlags::NONBLOCK,
                None,
            )
            .unwrap();
            if connect(&socket, &SocketAddrUnix::new(&path).unwrap()) == Err(Errno::AGAIN) {
                break;
            }
            waiting.push(socket);
        }
        assert_eq!(
            Listener::bind_unix(&path).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
    }
}
