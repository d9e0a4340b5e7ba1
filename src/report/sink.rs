//! Writes aside, so that a reader that does not read (a full pipe, Ctrl-S) or went away holds up nothing.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

/// How long the end waits for a reader that has stopped reading; the run itself is over by then.
const PATIENCE: Duration = Duration::from_secs(10);

/// An output with a thread of its own. Lines are kept in memory until the reader takes them.
#[derive(Debug)]
pub(super) struct Sink {
    lines: Option<Sender<String>>,
    /// Rises with every piece that the reader took.
    taken: Arc<AtomicU64>,
    done: Receiver<()>,
}

impl Sink {
    pub(super) fn stdout() -> Self {
        Self::new(io::stdout)
    }

    pub(super) fn stderr() -> Self {
        Self::new(io::stderr)
    }

    fn new<W: Write>(open: impl FnOnce() -> W + Send + 'static) -> Self {
        let (lines, queue) = channel::<String>();
        let (tell, done) = channel();
        let taken = Arc::new(AtomicU64::new(0));
        let counter = taken.clone();
        std::thread::spawn(move || {
            let mut out = open();
            for line in queue {
                // Small pieces, so that a slow reader is told from one that has stopped.
                for piece in line.as_bytes().chunks(4096) {
                    // Whoever closed it does not want to know.
                    if out.write_all(piece).and_then(|()| out.flush()).is_err() {
                        break;
                    }
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
            let _ = tell.send(());
        });
        Self { lines: Some(lines), taken, done }
    }

    /// Never waits.
    pub(super) fn line(&self, mut line: String) {
        line.push('\n');
        if let Some(lines) = &self.lines {
            let _ = lines.send(line);
        }
    }

    /// Waits until the reader has taken everything, or nothing for [`PATIENCE`].
    pub(super) fn close(&mut self) {
        self.lines = None;
        let (mut seen, mut since) = (self.taken.load(Ordering::Relaxed), Instant::now());
        while since.elapsed() < PATIENCE {
            // A thread that ended has dropped its sender, which ends the wait as well.
            if !matches!(self.done.recv_timeout(Duration::from_millis(100)), Err(std::sync::mpsc::RecvTimeoutError::Timeout)) {
                return;
            }
            let now = self.taken.load(Ordering::Relaxed);
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
        }
    }
}
