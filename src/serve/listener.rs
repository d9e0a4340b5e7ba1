//! Where connections come from: an address, or a socket file.

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

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Peer {
    /// On this machine; with the address that is listened on, or none where that is a file.
    Local(Option<IpAddr>),
    /// From elsewhere.
    Remote,
}

/// Where connections come from.
#[derive(Debug)]
pub(super) enum Listener {
    /// Bound to an address.
    Tcp(TcpListener, IpAddr),
    /// Bound to a file, which is held open: its inode is no other file's as long as it is.
    Unix(UnixListener, PathBuf, OwnedFd),
}

pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// Binds it.
    ///
    /// # Errors
    /// [`Failure::Listen`].
    pub(super) async fn bind(listen: &Listen) -> Result<Self, Failure> {
        let bound = match listen {
            Listen::Tcp(address) => Self::bind_tcp(address).await,
            Listen::Unix(path) => Self::bind_unix(path),
        };
        bound.map_err(|e| Failure::Listen(format!("{listen:?}"), e))
    }

    async fn bind_tcp(address: &str) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        // An answer goes out whole, never waiting for the peer's acknowledgement of the one before.
        // Connections have it from their listener.
        set_tcp_nodelay(&listener, true)?;
        let own = listener.local_addr()?.ip().to_canonical();
        Ok(Self::Tcp(listener, own))
    }

    fn bind_unix(path: &Path) -> io::Result<Self> {
        make_room(path)?;
        let listener = UnixListener::bind(path)?;
        Ok(Self::Unix(listener, path.to_owned(), held(path)?))
    }

    /// What to ask it by.
    pub(super) fn url(&self) -> io::Result<String> {
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

    /// Ends it, and removes its socket file. A file that has taken its place stays.
    pub(super) fn close(self) {
        if let Self::Unix(_, path, own) = &self {
            let _ = remove(path, own);
        }
    }
}

/// Removes a socket that is left from an earlier life. Anything else stays as it is.
///
/// # Errors
/// There is something else at `path`, or a process listens there.
fn make_room(path: &Path) -> io::Result<()> {
    let kind = match path.symlink_metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
        Ok(meta) => meta.file_type(),
    };
    if !kind.is_socket() {
        let what = match kind {
            kind if kind.is_file() => "a regular file",
            kind if kind.is_dir() => "a directory",
            kind if kind.is_symlink() => "a symbolic link",
            kind if kind.is_fifo() => "a FIFO",
            _ => "a device",
        };
        let text = format!(
            "there is {what}, and only a socket that no process listens on is replaced; move it \
             away, or name another path"
        );
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    let old = held(path)?;
    if is_listened_on(path)? {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "a process listens there",
        ));
    }
    remove(path, &old)
}

/// Whether a process listens at the socket file `path`. A full queue of connections is not waited
/// for, as a `connect` that may block does.
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

/// Holds the very file at `path`, whatever it is.
fn held(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(
        path,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Removes `path` if it is the held socket. It is moved aside first: what is looked at then is what
/// is removed, whatever another process puts at `path` meanwhile.
fn remove(path: &Path, own: &OwnedFd) -> io::Result<()> {
    let own = fstat(own)?;
    let is_own = |path: &Path| {
        path.symlink_metadata().is_ok_and(|m| {
            m.file_type().is_socket() && (m.dev(), m.ino()) == (own.st_dev, own.st_ino)
        })
    };
    if !is_own(path) {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "another file has taken its place",
        ));
    }
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".hello-{}", std::process::id()));
    let aside = path.with_file_name(name);
    match renameat_with(CWD, path, CWD, &aside, RenameFlags::NOREPLACE) {
        Ok(()) if is_own(&aside) => fs::remove_file(&aside),
        Ok(()) => {
            renameat_with(CWD, &aside, CWD, path, RenameFlags::NOREPLACE)?;
            Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "another file has taken its place",
            ))
        }
        // A filesystem that knows no such rename.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => fs::remove_file(path),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[tokio::test]
    async fn a_connection_has_from_its_listener_that_it_waits_for_no_acknowledgement() {
        let listener = Listener::bind(&Listen::Tcp("127.0.0.1:0".into()))
            .await
            .unwrap();
        let address = listener
            .url()
            .unwrap()
            .replace("http://", "")
            .replace('/', "");
        let _asking = TcpStream::connect(address).await.unwrap();
        let (Stream::Tcp(stream), _) = listener.accept().await.unwrap() else {
            panic!("it is TCP")
        };
        assert!(stream.nodelay().unwrap());
    }

    #[tokio::test]
    async fn only_a_dead_socket_gives_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let bind = || Listener::bind_unix(&path);
        fs::write(&path, "precious").unwrap();
        assert!(bind().unwrap_err().to_string().contains("regular file"));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        fs::remove_file(&path).unwrap();
        // Nothing at the end of the link is looked at.
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
        // What another process put there while it served is not its own.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        second.close();
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            2,
            "nothing is left beside it"
        );
    }

    #[tokio::test]
    async fn a_full_queue_is_one_that_is_listened_on() {
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
