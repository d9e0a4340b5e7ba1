//! Writes aside, so that a reader that does not read (a full pipe, Ctrl-S) or went away holds up
//! nothing.

use std::{
    cell::Cell,
    io::{self, IsTerminal, Write},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::{Duration, Instant},
};

use super::{
    progress::{Progress, Shown, TICK},
    written::Noted,
};

/// How long the end waits for a reader that has stopped reading; the run itself is over by then.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same once the operator wants to leave at once: a reader that reads needs no longer.
const HASTE: Duration = Duration::from_millis(500);

/// Between two steps of the bar.
const FRAME: Duration = Duration::from_millis(20);

/// What is to be shown next.
#[derive(Debug)]
enum Item {
    Line(String),
    /// What the run is at has changed.
    Progress,
}

/// Whether the operator wants to leave now, so that no reader is waited for.
static LEAVES: AtomicBool = AtomicBool::new(false);

/// Waits no longer than [`HASTE`] for a reader from now on.
pub(crate) fn leave() {
    LEAVES.store(true, Ordering::Relaxed);
}

/// An output with a thread of its own, the only one that ever writes to it. Lines are kept in
/// memory until the reader takes them.
#[derive(Debug)]
pub(crate) struct Sink {
    items: Option<Sender<Item>>,
    /// Whether anybody sees a bar, and when the last one was sent.
    bar: Option<Cell<Instant>>,
    /// What the run is at, whether or not that was drawn already; none where nothing is waited for.
    at: Arc<Mutex<Option<Progress>>>,
    /// Rises with every piece that the reader took.
    taken: Arc<AtomicU64>,
    done: Receiver<()>,
}

impl Sink {
    pub(crate) fn stdout() -> Self {
        Self::new(|| Noted(io::stdout()), false)
    }

    /// With a progress bar where people look at it on a terminal.
    pub(crate) fn stderr(bar: bool) -> Self {
        Self::new(io::stderr, bar && io::stderr().is_terminal())
    }

    pub(crate) fn new<W: Write>(open: impl FnOnce() -> W + Send + 'static, bar: bool) -> Self {
        let (items, queue) = channel::<Item>();
        let (tell, done) = channel();
        let taken = Arc::new(AtomicU64::new(0));
        let counter = taken.clone();
        let at = Arc::new(Mutex::new(None));
        let newest = at.clone();
        std::thread::spawn(move || {
            let mut out = open();
            // There is one only while something is waited for.
            let mut shown: Option<Shown> = None;
            while let Some(item) = next(&queue, &mut shown, &newest) {
                match item {
                    Item::Progress => shown = redrawn(shown, &newest),
                    // A line breaks the bar, so that steps aside.
                    Item::Line(line) => match &shown {
                        Some(shown) => shown.aside(|| write(&mut out, &line, &counter)),
                        None => write(&mut out, &line, &counter),
                    },
                }
            }
            shown.iter().for_each(Shown::end);
            let _ = tell.send(());
        });
        Self {
            items: Some(items),
            bar: bar.then(|| Cell::new(Instant::now())),
            at,
            taken,
            done,
        }
    }

    /// Lines for people. Never waits.
    pub(crate) fn line(&self, text: &str) {
        self.send(Item::Line(format!("{}\n", super::harmless(text))));
    }

    /// A JSON value, exactly as it is. Never waits.
    pub(crate) fn data(&self, mut json: String) {
        json.push('\n');
        self.send(Item::Line(json));
    }

    /// Shows what the run is at, where a terminal is looked at; `progress` is asked only there.
    /// Never waits. Of a thousand steps each would wake the thread that draws, which looks by
    /// itself as well.
    pub(crate) fn progress(&self, is_first: bool, progress: impl FnOnce() -> Option<Progress>) {
        let Some(last) = &self.bar else { return };
        if let Ok(mut at) = self.at.lock() {
            *at = progress();
        }
        if is_first || last.get().elapsed() >= FRAME {
            last.set(Instant::now());
            self.send(Item::Progress);
        }
    }

    fn send(&self, item: Item) {
        if let Some(items) = &self.items {
            let _ = items.send(item);
        }
    }

    /// Waits until the reader has taken everything, or nothing for [`PATIENCE`].
    pub(crate) fn close(&mut self) {
        self.items = None;
        let (mut seen, mut since) = (self.taken.load(Ordering::Relaxed), Instant::now());
        while since.elapsed()
            < if LEAVES.load(Ordering::Relaxed) {
                HASTE
            } else {
                PATIENCE
            }
        {
            // A thread that ended has dropped its sender, which ends the wait as well.
            if !matches!(
                self.done.recv_timeout(Duration::from_millis(100)),
                Err(RecvTimeoutError::Timeout)
            ) {
                return;
            }
            let now = self.taken.load(Ordering::Relaxed);
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
        }
    }
}

/// The next item. While a line shows what the run is at, that moves meanwhile.
fn next(
    queue: &Receiver<Item>,
    shown: &mut Option<Shown>,
    at: &Mutex<Option<Progress>>,
) -> Option<Item> {
    loop {
        let Some(line) = shown else {
            return queue.recv().ok();
        };
        match queue.recv_timeout(TICK) {
            Ok(item) => return Some(item),
            Err(RecvTimeoutError::Timeout) => {
                line.tick();
                *shown = redrawn(shown.take(), at);
            }
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

/// The line as it must be now; none where nothing is waited for.
fn redrawn(shown: Option<Shown>, at: &Mutex<Option<Progress>>) -> Option<Shown> {
    let newest = at.lock().ok().and_then(|at| at.clone());
    match (shown, newest) {
        (Some(shown), Some(newest)) => Some(shown.update(newest)),
        (None, Some(newest)) => Some(Shown::new(newest)),
        (shown, None) => {
            shown.iter().for_each(Shown::end);
            None
        }
    }
}

/// Small pieces, so that a slow reader is told from one that has stopped.
fn write(out: &mut impl Write, line: &str, taken: &AtomicU64) {
    for piece in line.as_bytes().chunks(4096) {
        // Whoever closed it does not want to know.
        if out.write_all(piece).and_then(|()| out.flush()).is_err() {
            break;
        }
        taken.fetch_add(1, Ordering::Relaxed);
    }
}
