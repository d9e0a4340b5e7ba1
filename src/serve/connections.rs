//! Accepts connections and serves HTTP/1.1 with limits: a slow peer delays its own connection only,
//! and that connection ends after a time.

use std::{cell::RefCell, convert::Infallible, io, pin::pin, sync::Arc, time::Duration};

use axum::{Router, response::Response};
use futures_util::FutureExt;
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustix::process::{Resource, getrlimit};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_io_timeout::TimeoutStream;

use super::{
    listener::{Listener, Peer, Stream},
    seats::{Seats, Watched},
};

/// The longest time from a response (or the start) to the end of the next request's head. It also
/// limits how long a connection may idle.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// The longest time in which a peer reads nothing of its response.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// The pause after an accept that failed for lack of descriptors or memory. It also limits each
/// wait for a slot, after which another idle connection is closed.
const PAUSE: Duration = Duration::from_millis(50);
/// The pause before a drain closes idle connections, for requests that were on their way.
const SETTLE: Duration = Duration::from_millis(50);
/// Descriptors that connections do not use, because a reload opens files.
const SPARE: u64 = 32;

/// An accepted connection. Its slot counts against the limit until the connection ends.
pub(crate) struct Accepted {
    stream: Stream,
    peer: Peer,
    slot: OwnedSemaphorePermit,
}

/// Answers the requests of every connection.
pub(crate) trait Answer: Send + Sync + 'static {
    /// Answers a request of `peer`.
    fn answer(
        &self,
        request: Request<Incoming>,
        peer: Peer,
    ) -> impl Future<Output = Result<Response, Infallible>> + Send;
}

impl Answer for Router {
    fn answer(
        &self,
        request: Request<Incoming>,
        _peer: Peer,
    ) -> impl Future<Output = Result<Response, Infallible>> + Send {
        TowerToHyperService::new(self.clone()).call(request)
    }
}

/// The listener and every connection that is open.
pub(crate) struct Connections<A> {
    listener: Listener,
    answers: Arc<A>,
    slots: Arc<Semaphore>,
    seats: Arc<Seats>,
    /// A connection that is accepted and waits for a slot.
    waiting: RefCell<Option<(Stream, Peer)>>,
}

impl<A: Answer> Connections<A> {
    pub(crate) fn new(listener: Listener, answers: A) -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let slots = usize::try_from(limit.saturating_sub(SPARE).max(1))
            .unwrap_or(usize::MAX)
            .min(Semaphore::MAX_PERMITS);
        Self {
            listener,
            answers: Arc::new(answers),
            slots: Arc::new(Semaphore::new(slots)),
            seats: Arc::new(Seats::new()),
            waiting: RefCell::default(),
        }
    }

    /// Returns the next connection; errors before it are logged. It is cancel safe.
    pub(crate) async fn next(&self) -> Accepted {
        let mut logged = false;
        loop {
            if self.waiting.borrow().is_none() {
                match self.listener.accept().await {
                    Ok(accepted) => drop(self.waiting.replace(Some(accepted))),
                    // The peer closed its connection, which is no fault of the listener.
                    Err(e)
                        if matches!(
                            e.kind(),
                            io::ErrorKind::ConnectionAborted
                                | io::ErrorKind::ConnectionReset
                                | io::ErrorKind::ConnectionRefused
                        ) => {}
                    Err(error) => {
                        if !logged {
                            tracing::error!(%error, "cannot accept a connection; retrying");
                            logged = true;
                        }
                        self.seats.close_one();
                        tokio::time::sleep(PAUSE).await;
                    }
                }
                continue;
            }
            let slot = self.slot().await;
            if let Some((stream, peer)) = self.waiting.take() {
                return Accepted { stream, peer, slot };
            }
        }
    }

    /// Waits for a slot. While there is none, idle connections are closed, the longest idle first.
    async fn slot(&self) -> OwnedSemaphorePermit {
        loop {
            if let Ok(slot) = self.slots.clone().try_acquire_owned() {
                return slot;
            }
            self.seats.close_one();
            // The semaphore is never closed, so this fails by its timeout alone.
            if let Ok(Ok(slot)) =
                tokio::time::timeout(PAUSE, self.slots.clone().acquire_owned()).await
            {
                return slot;
            }
        }
    }

    /// Serves a connection in a task of its own.
    pub(crate) fn serve(&self, accepted: Accepted) {
        let Accepted { stream, peer, slot } = accepted;
        match stream {
            Stream::Tcp(stream) => self.spawn(stream, peer, slot),
            Stream::Unix(stream) => self.spawn(stream, peer, slot),
        }
    }

    fn spawn(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
        slot: impl Send + 'static,
    ) {
        let (number, seat) = self.seats.take();
        let mut stream = TimeoutStream::new(Watched::new(stream, seat.clone()));
        stream.set_write_timeout(Some(WRITE_LIMIT));
        let answers = self.answers.clone();
        let service = service_fn(move |request| {
            let answers = answers.clone();
            async move { answers.answer(request, peer).await }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            // A peer that closed its sending side still reads the response.
            .half_close(true)
            .serve_connection(TokioIo::new(Box::pin(stream)), service);
        let seats = self.seats.clone();
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                biased;
                ended = connection.as_mut() => ended,
                () = seat.must_end(&seats) => {
                    // An idle connection closes now, a busy one after its response.
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "connection");
            }
            drop(slot);
            seats.give_back(number);
        });
    }

    /// Serves the connections that the kernel has accepted already and takes no more. Returns when
    /// every connection has ended, or after `limit`.
    pub(crate) async fn drain(self, limit: Duration) {
        let ended = async {
            loop {
                // The runtime must poll the listener again after the last connection.
                tokio::task::yield_now().await;
                let Ok(slot) = self.slots.clone().try_acquire_owned() else {
                    break;
                };
                let next = self
                    .waiting
                    .take()
                    .or_else(|| self.listener.accept().now_or_never()?.ok());
                let Some((stream, peer)) = next else { break };
                self.serve(Accepted { stream, peer, slot });
            }
            self.listener.close();
            tokio::time::sleep(SETTLE).await;
            self.seats.drain().await;
        };
        if tokio::time::timeout(limit, pin!(ended)).await.is_err() {
            tracing::warn!(?limit, "closing connections that are still open");
        }
    }
}
