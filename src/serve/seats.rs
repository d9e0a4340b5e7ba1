//! The open connections, and which of them idle. Idle ones are closed when no descriptor is free
//! for another connection.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

/// The shortest idle time of a connection that is closed for another one. The next request of a
/// busy client comes sooner.
const IDLE: Duration = Duration::from_millis(500);

/// The value of [`Seat::idle_since`] while a request is under way.
const BUSY: u64 = u64::MAX;

/// One connection.
#[derive(Debug)]
pub(super) struct Seat {
    began: Instant,
    /// When the connection became idle, in milliseconds after `began` of all seats; or [`BUSY`].
    idle_since: AtomicU64,
    /// True if the connection was asked to end.
    asked: AtomicBool,
    /// Asks the connection to end.
    end: Notify,
}

impl Seat {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(BUSY - 1)
    }

    fn set_idle(&self) {
        self.idle_since.store(self.now(), Ordering::Relaxed);
    }

    /// Returns how long the connection has been idle; none while a request is under way.
    fn idle(&self) -> Option<Duration> {
        let since = Some(self.idle_since.load(Ordering::Relaxed)).filter(|since| *since != BUSY)?;
        Some(Duration::from_millis(self.now().saturating_sub(since)))
    }

    /// Waits until the connection must end, after the request that is under way.
    pub(super) async fn must_end(&self, seats: &Seats) {
        loop {
            self.end.notified().await;
            // The kernel may hold a request that this thread has not read yet. The yield lets it
            // read that first.
            tokio::task::yield_now().await;
            if seats.drains.load(Ordering::Relaxed) || self.idle().is_some() {
                return;
            }
            self.asked.store(false, Ordering::Relaxed);
        }
    }
}

/// All connections.
#[derive(Debug)]
pub(super) struct Seats {
    began: Instant,
    all: Mutex<(u64, BTreeMap<u64, Arc<Seat>>)>,
    /// True if all connections must end.
    drains: AtomicBool,
    /// Notified when a connection has ended.
    freed: Notify,
}

impl Seats {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            all: Mutex::default(),
            drains: AtomicBool::new(false),
            freed: Notify::new(),
        }
    }

    fn all(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Arc<Seat>>)> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a seat for a new connection, and the number to give it back with.
    pub(super) fn take(&self) -> (u64, Arc<Seat>) {
        let seat = Seat {
            began: self.began,
            idle_since: AtomicU64::new(0),
            asked: AtomicBool::new(false),
            end: Notify::new(),
        };
        seat.set_idle();
        let seat = Arc::new(seat);
        let mut all = self.all();
        all.0 += 1;
        let number = all.0;
        all.1.insert(number, seat.clone());
        (number, seat)
    }

    pub(super) fn give_back(&self, number: u64) {
        self.all().1.remove(&number);
        self.freed.notify_one();
    }

    /// Asks the connection that has been idle longest to end, if that is longer than [`IDLE`].
    pub(super) fn close_one(&self) {
        let all = self.all();
        let idle = all
            .1
            .values()
            .filter(|seat| !seat.asked.load(Ordering::Relaxed))
            .filter_map(|seat| Some((seat.idle()?, seat)));
        if let Some((_, seat)) = idle
            .max_by_key(|(idle, _)| *idle)
            .filter(|(idle, _)| *idle >= IDLE)
        {
            seat.asked.store(true, Ordering::Relaxed);
            seat.end.notify_one();
        }
    }

    /// Asks every connection to end after the request that is under way, and waits for all.
    pub(super) async fn drain(&self) {
        self.drains.store(true, Ordering::Relaxed);
        self.all().1.values().for_each(|seat| seat.end.notify_one());
        while !self.all().1.is_empty() {
            self.freed.notified().await;
        }
    }
}

/// The stream of a connection. It sets its seat busy at the first byte that is read, and idle when
/// the response has been flushed.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    seat: Arc<Seat>,
    /// True if something was written since the last byte was read.
    answered: bool,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, seat: Arc<Seat>) -> Self {
        Self {
            stream,
            seat,
            answered: false,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.answered = false;
            self.seat.idle_since.store(BUSY, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.answered = true;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.answered = true;
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        if std::mem::take(&mut self.answered) {
            self.seat.set_idle();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
