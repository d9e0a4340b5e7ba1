//! Which connections idle: those give way when there is no room for another one.

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

/// How long a connection must have idled before it gives way: the next request of a busy client is
/// there sooner.
const IDLE: Duration = Duration::from_millis(500);

/// Stands for a request under way.
const BUSY: u64 = u64::MAX;

/// One connection.
#[derive(Debug)]
pub(super) struct Seat {
    began: Instant,
    /// Since when it idles between requests, in milliseconds after `began` of all seats; or
    /// [`BUSY`].
    since: AtomicU64,
    /// Whether it was told to end.
    told: AtomicBool,
    /// Tells it to end.
    leave: Notify,
}

impl Seat {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(BUSY - 1)
    }

    fn idles(&self) {
        self.since.store(self.now(), Ordering::Relaxed);
    }

    /// How long it has idled; none while a request is under way.
    fn idle(&self) -> Option<Duration> {
        let since = Some(self.since.load(Ordering::Relaxed)).filter(|since| *since != BUSY)?;
        Some(Duration::from_millis(self.now().saturating_sub(since)))
    }

    /// Ends when it is to end after the request that is under way, if any.
    pub(super) async fn leaves(&self, seats: &Seats) {
        loop {
            self.leave.notified().await;
            // The kernel may hold a request that this thread has not looked at yet; after this it
            // has.
            tokio::task::yield_now().await;
            if seats.drains.load(Ordering::Relaxed) || self.idle().is_some() {
                return;
            }
            self.told.store(false, Ordering::Relaxed);
        }
    }
}

/// All connections.
#[derive(Debug)]
pub(super) struct Seats {
    began: Instant,
    all: Mutex<(u64, BTreeMap<u64, Arc<Seat>>)>,
    /// Whether all are to end.
    drains: AtomicBool,
    /// One has ended.
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

    /// A seat for a new connection, and the number to give it back by.
    pub(super) fn take(&self) -> (u64, Arc<Seat>) {
        let seat = Seat {
            began: self.began,
            since: AtomicU64::new(0),
            told: AtomicBool::new(false),
            leave: Notify::new(),
        };
        seat.idles();
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

    /// Tells the connection to end that has idled longest, if it has idled long enough.
    pub(super) fn close_one(&self) {
        let all = self.all();
        let idle = all
            .1
            .values()
            .filter(|seat| !seat.told.load(Ordering::Relaxed))
            .filter_map(|seat| Some((seat.idle()?, seat)));
        if let Some((_, seat)) = idle
            .max_by_key(|(idle, _)| *idle)
            .filter(|(idle, _)| *idle >= IDLE)
        {
            seat.told.store(true, Ordering::Relaxed);
            seat.leave.notify_one();
        }
    }

    /// Tells every connection to end after the request that is under way, and waits until all have.
    pub(super) async fn drain(&self) {
        self.drains.store(true, Ordering::Relaxed);
        self.all()
            .1
            .values()
            .for_each(|seat| seat.leave.notify_one());
        while !self.all().1.is_empty() {
            self.freed.notified().await;
        }
    }
}

/// The stream of a connection, by which its seat knows whether a request is under way: from the
/// first byte that is read until what is written is handed over.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    seat: Arc<Seat>,
    /// Something was written since the last byte was read.
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
            self.seat.since.store(BUSY, Ordering::Relaxed);
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
        all: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.answered = true;
        Pin::new(&mut self.stream).poll_write_vectored(context, all)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        if std::mem::take(&mut self.answered) {
            self.seat.idles();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
