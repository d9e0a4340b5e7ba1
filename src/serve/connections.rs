//! Listens, accepts, and speaks HTTP/1.1 with limits: a peer that is slow holds its own connection, and not for ever.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use rustix::{
    net::sockopt::set_tcp_nodelay,
    process::{Resource, getrlimit},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_io_timeout::TimeoutStream;

use super::{Failure, answer::Answers};
use crate::config::Listen;

/// From an answer (or the start) to the last byte of the next request's head; so also how long a kept connection may idle.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// For a peer that takes nothing of its answer.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// After an accept that failed for want of something (descriptors, memory): time for it to come back.
const PAUSE: Duration = Duration::from_millis(50);
/// In a drain: for requests that were on their way when it began.
const SETTLE: Duration = Duration::from_millis(50);
/// Descriptors that connections leave alone: a reload opens files, too.
const SPARE: u64 = 32;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    /// On this machine.
    pub(super) loopback: bool,
}

/// Where connections come from.
#[derive(Debug)]
pub(super) enum Listener {
    /// Bound to an address.
    Tcp(TcpListener),
    /// Bound to a file; the file's device and inode.
    Unix(UnixListener, PathBuf, (u64, u64)),
}

enum Stream {
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
        // An answer goes out whole, never waiting for the peer's acknowledgement of the one before. Connections have it from their listener.
        set_tcp_nodelay(&listener, true)?;
        Ok(Self::Tcp(listener))
    }

    fn bind_unix(path: &Path) -> io::Result<Self> {
        // A socket file that nobody listens on any more is left from an earlier life.
        if std::os::unix::net::UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        Ok(Self::Unix(listener, path.to_owned(), identity(path)?))
    }

    /// What to ask it by.
    pub(super) fn url(&self) -> io::Result<String> {
        Ok(match self {
            Self::Tcp(listener) => format!("http://{}/", listener.local_addr()?),
            Self::Unix(_, path, _) => format!("unix:{}", path.display()),
        })
    }

    async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, remote) = listener.accept().await?;
                Ok((Stream::Tcp(stream), Peer { loopback: remote.ip().to_canonical().is_loopback() }))
            }
            Self::Unix(listener, ..) => Ok((Stream::Unix(listener.accept().await?.0), Peer { loopback: true })),
        }
    }

    /// A socket file that a successor has put in its place is left alone.
    fn close(self) {
        if let Self::Unix(_, path, bound) = &self
            && identity(path).is_ok_and(|now| now == *bound)
        {
            let _ = fs::remove_file(path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    path.symlink_metadata().map(|m| (m.dev(), m.ino()))
}

/// One that is accepted and not yet served; it counts against the limit as long as it lives.
pub(super) struct Accepted {
    stream: Stream,
    peer: Peer,
    slot: OwnedSemaphorePermit,
}

/// The listener and every connection that is open.
pub(super) struct Connections {
    listener: Listener,
    answers: Arc<Answers>,
    open: GracefulShutdown,
    slots: Arc<Semaphore>,
}

impl Connections {
    pub(super) fn new(listener: Listener, answers: Answers) -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let slots = usize::try_from(limit.saturating_sub(SPARE).max(1)).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { listener, answers: Arc::new(answers), open: GracefulShutdown::new(), slots: Arc::new(Semaphore::new(slots)) }
    }

    /// The next connection, whatever goes wrong before it; cancel safe.
    pub(super) async fn next(&self) -> Accepted {
        let mut complained = false;
        loop {
            // Never closed.
            let Ok(slot) = self.slots.clone().acquire_owned().await else { std::future::pending().await };
            match self.listener.accept().await {
                Ok((stream, peer)) => return Accepted { stream, peer, slot },
                // The peer's own fault, and only its.
                Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused) => {}
                Err(error) => {
                    if !complained {
                        tracing::error!(%error, "cannot accept: trying on");
                        complained = true;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Serves it in a task of its own.
    pub(super) fn serve(&self, accepted: Accepted) {
        let Accepted { stream, peer, slot } = accepted;
        match stream {
            Stream::Tcp(stream) => self.spawn(stream, peer, slot),
            Stream::Unix(stream) => self.spawn(stream, peer, slot),
        }
    }

    fn spawn(&self, stream: impl AsyncRead + AsyncWrite + Send + 'static, peer: Peer, slot: impl Send + 'static) {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_LIMIT));
        let answers = self.answers.clone();
        let service = service_fn(move |request| {
            let answers = answers.clone();
            async move { answers.answer(request, peer).await }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            // One who says that no more requests come still wants the answer.
            .half_close(true)
            .serve_connection(TokioIo::new(Box::pin(stream)), service);
        let connection = self.open.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection");
            }
            drop(slot);
        });
    }

    /// Takes in what the kernel has accepted already, then no more; ends when every connection has, or after `limit`.
    pub(super) async fn drain(self, limit: Duration) {
        let ended = async {
            loop {
                // So that the listener has been looked at since the last one.
                tokio::task::yield_now().await;
                let (Ok(slot), Some(Ok((stream, peer)))) = (self.slots.clone().try_acquire_owned(), self.listener.accept().now_or_never()) else { break };
                self.serve(Accepted { stream, peer, slot });
            }
            self.listener.close();
            tokio::time::sleep(SETTLE).await;
            // Idle ones are closed, the others after their answer.
            self.open.shutdown().await;
        };
        if tokio::time::timeout(limit, pin!(ended)).await.is_err() {
            tracing::warn!(?limit, "connections that are still open are closed");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[tokio::test]
    async fn a_connection_has_from_its_listener_that_it_waits_for_no_acknowledgement() {
        let listener = Listener::bind(&Listen::Tcp("127.0.0.1:0".into())).await.unwrap();
        let address = listener.url().unwrap().replace("http://", "").replace('/', "");
        let _asking = TcpStream::connect(address).await.unwrap();
        let (Stream::Tcp(stream), _) = listener.accept().await.unwrap() else { panic!("it is TCP") };
        assert!(stream.nodelay().unwrap());
    }
}
