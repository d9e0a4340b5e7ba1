//! Accepts, and speaks HTTP/1.1 with limits: a peer that is slow holds its own connection, and not
//! for ever.

use std::{cell::RefCell, io, pin::pin, sync::Arc, time::Duration};

use futures_util::FutureExt;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::process::{Resource, getrlimit};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_io_timeout::TimeoutStream;

use super::{
    answer::Answers,
    listener::{Listener, Peer, Stream},
    seats::{Seats, Watched},
};

/// From an answer (or the start) to the last byte of the next request's head; so also how long a
/// kept connection may idle.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// For a peer that takes nothing of its answer.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// After an accept that failed for want of something (descriptors, memory): time for it to come
/// back.
const PAUSE: Duration = Duration::from_millis(50);
/// In a drain: for requests that were on their way when it began.
const SETTLE: Duration = Duration::from_millis(50);
/// Descriptors that connections leave alone: a reload opens files, too.
const SPARE: u64 = 32;

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
    slots: Arc<Semaphore>,
    seats: Arc<Seats>,
    /// Accepted, and waiting for a slot.
    waiting: RefCell<Option<(Stream, Peer)>>,
}

impl Connections {
    pub(super) fn new(listener: Listener, answers: Answers) -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let slots = usize::try_from(limit.saturating_sub(SPARE).max(1))
            .unwrap_or(usize::MAX)
            .min(Semaphore::MAX_PERMITS);
        let (slots, seats) = (Arc::new(Semaphore::new(slots)), Arc::new(Seats::new()));
        Self {
            listener,
            answers: Arc::new(answers),
            slots,
            seats,
            waiting: RefCell::default(),
        }
    }

    /// The next connection, whatever goes wrong before it; cancel safe.
    pub(super) async fn next(&self) -> Accepted {
        let mut complained = false;
        loop {
            if self.waiting.borrow().is_none() {
                match self.listener.accept().await {
                    Ok(accepted) => drop(self.waiting.replace(Some(accepted))),
                    // The peer's own fault, and only its.
                    Err(e)
                        if matches!(
                            e.kind(),
                            io::ErrorKind::ConnectionAborted
                                | io::ErrorKind::ConnectionReset
                                | io::ErrorKind::ConnectionRefused
                        ) => {}
                    Err(error) => {
                        if !complained {
                            tracing::error!(%error, "cannot accept: trying on");
                            complained = true;
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

    /// A slot for a connection that is there: where there is none, those that idle between requests
    /// give way, the oldest first.
    async fn slot(&self) -> OwnedSemaphorePermit {
        loop {
            if let Ok(slot) = self.slots.clone().try_acquire_owned() {
                return slot;
            }
            self.seats.close_one();
            // Ends as soon as one is free; never closed, it cannot fail.
            if let Ok(Ok(slot)) =
                tokio::time::timeout(PAUSE, self.slots.clone().acquire_owned()).await
            {
                return slot;
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
            // One who says that no more requests come still wants the answer.
            .half_close(true)
            .serve_connection(TokioIo::new(Box::pin(stream)), service);
        let seats = self.seats.clone();
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                biased;
                ended = connection.as_mut() => ended,
                () = seat.leaves(&seats) => {
                    // Idle it is closed, else after its answer.
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

    /// Takes in what the kernel has accepted already, then no more; ends when every connection has,
    /// or after `limit`.
    pub(super) async fn drain(self, limit: Duration) {
        let ended = async {
            loop {
                // So that the listener has been looked at since the last one.
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
            tracing::warn!(?limit, "connections that are still open are closed");
        }
    }
}
