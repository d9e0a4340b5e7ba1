//! Writes in a thread of its own, so that a run never waits for a reader that has stopped (a full
//! pipe, Ctrl-S) or is gone.

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
    colour::Stream,
    progress::{Progress, Shown, TICK},
    wrap,
    written::{Noted, note},
};

/// The longest wait at the end for a reader that reads nothing. The run itself is over by then.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The same after the operator's second interrupt. A reader that still reads needs less.
const INTERRUPTED_TIMEOUT: Duration = Duration::from_millis(500);

/// The most pieces that wait for a reader: those of a run over ten thousand instances, several
/// times. A reader that takes nothing must not fill the memory of a long-lived command.
const MAX_WAITING: u64 = 1 << 16;

/// Bytes of a piece.
const PIECE: usize = 4096;

/// The least time between two wake-ups of the thread for progress.
const FRAME: Duration = Duration::from_millis(20);

/// One item for the thread.
#[derive(Debug)]
enum Item {
    Line(String),
    /// The progress has changed.
    Progress,
}

/// True after the first interrupt of the operator.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// True after the operator has asked to exit at once.
static LEAVES: AtomicBool = AtomicBool::new(false);

/// What follows the first interrupt, and what a second one does.
const ON_INTERRUPT: &str = "the run ends in order; Ctrl-C again leaves at once";

/// Records the first interrupt. A terminal with a progress line shows what follows.
pub(crate) fn interrupted() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Tells whether the operator has interrupted the command.
pub(crate) fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Limits every later wait for a reader to [`INTERRUPTED_TIMEOUT`].
pub(crate) fn leave() {
    LEAVES.store(true, Ordering::Relaxed);
}

/// An output with a thread of its own, the only one that ever writes to it. Lines are kept in
/// memory until the reader takes them.
#[derive(Debug)]
pub(crate) struct Sink {
    items: Option<Sender<Item>>,
    /// The time of the last wake-up for progress; none if no bar is shown.
    bar: Option<Cell<Instant>>,
    /// The newest progress, drawn or not; none if the run waits for nothing.
    newest: Arc<Mutex<Option<Progress>>>,
    /// The number of pieces that were sent.
    sent: Cell<u64>,
    /// The number of pieces that the reader took.
    taken: Arc<AtomicU64>,
    done: Receiver<()>,
    stream: Stream,
    /// Returns the columns of the terminal; none if it writes to no terminal.
    columns: fn() -> Option<usize>,
}

impl Sink {
    pub(crate) fn stdout() -> Self {
        Self {
            stream: Stream::Stdout,
            columns: wrap::stdout_columns,
            ..Self::new(|| Noted(io::stdout()), false)
        }
    }

    /// Returns a sink with a progress bar if `bar`, and if stderr is a terminal.
    pub(crate) fn stderr(bar: bool) -> Self {
        Self {
            columns: wrap::stderr_columns,
            ..Self::new(io::stderr, bar && io::stderr().is_terminal())
        }
    }

    /// Returns the sink with lines that fit a terminal of other columns.
    #[cfg(test)]
    pub(crate) fn with_columns(self, columns: fn() -> Option<usize>) -> Self {
        Self { columns, ..self }
    }

    /// Returns a sink with the colours of stderr, for no terminal.
    pub(crate) fn new<W: Write>(open: impl FnOnce() -> W + Send + 'static, bar: bool) -> Self {
        let (items, queue) = channel::<Item>();
        let (done_sender, done) = channel();
        let taken = Arc::new(AtomicU64::new(0));
        let counter = taken.clone();
        let newest = Arc::new(Mutex::new(None));
        let progress = newest.clone();
        std::thread::spawn(move || {
            let mut out = open();
            // A line exists only while the run waits for something.
            let mut shown: Option<Shown> = None;
            let mut has_told = false;
            while let Some(item) = next(&queue, &mut shown, &progress, &mut has_told) {
                match item {
                    Item::Progress => shown = redrawn(shown, &progress),
                    // Text and the progress line cannot share a row.
                    Item::Line(line) => match &shown {
                        Some(shown) => shown.aside(|| write(&mut out, &line, &counter)),
                        None => write(&mut out, &line, &counter),
                    },
                }
            }
            shown.iter().for_each(Shown::end);
            let _ = done_sender.send(());
        });
        Self {
            items: Some(items),
            bar: bar.then(|| Cell::new(Instant::now())),
            newest,
            sent: Cell::new(0),
            taken,
            done,
            stream: Stream::Stderr,
            columns: || None,
        }
    }

    /// Writes lines for the operator. It never waits.
    pub(crate) fn line(&self, text: &str) {
        let text = wrap::labelled(super::harmless(text), (self.columns)());
        let text = self.stream.paint(text);
        self.text(format!("{text}\n"));
    }

    /// Writes a JSON value, unfiltered. It never waits.
    pub(crate) fn data(&self, mut json: String) {
        json.push('\n');
        self.text(json);
    }

    /// Sends text, unless the reader has left too much of what came before.
    fn text(&self, text: String) {
        let sent = self.sent.get();
        if sent.saturating_sub(self.taken.load(Ordering::Relaxed)) > MAX_WAITING {
            note(&io::Error::other("its reader takes too little"));
            return;
        }
        let pieces = text.len().div_ceil(PIECE);
        self.sent.set(sent + u64::try_from(pieces).unwrap_or(0));
        self.send(Item::Line(text));
    }

    /// Shows progress if there is a bar; else `progress` is not called. It never waits. At most one
    /// call per [`FRAME`] wakes the thread, which redraws at intervals anyway.
    pub(crate) fn progress(&self, is_first: bool, progress: impl FnOnce() -> Option<Progress>) {
        let Some(last) = &self.bar else { return };
        if let Ok(mut newest) = self.newest.lock() {
            *newest = progress();
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

    /// Waits until the reader has taken everything, or nothing for [`CLOSE_TIMEOUT`].
    pub(crate) fn close(&mut self) {
        self.items = None;
        let timeout = || {
            if LEAVES.load(Ordering::Relaxed) {
                INTERRUPTED_TIMEOUT
            } else {
                CLOSE_TIMEOUT
            }
        };
        let mut seen = self.taken.load(Ordering::Relaxed);
        let mut since = Instant::now();
        while since.elapsed() < timeout() {
            // A thread that ended has dropped its sender, which ends the wait too.
            if !matches!(
                self.done.recv_timeout(Duration::from_millis(100)),
                Err(RecvTimeoutError::Timeout)
            ) {
                return;
            }
            let now = self.taken.load(Ordering::Relaxed);
            if now != seen {
                seen = now;
                since = Instant::now();
            }
        }
    }
}

/// Returns the next item. While a progress line is shown, it is redrawn at intervals, and the first
/// interrupt is a line above it; `has_told` is true from then on.
fn next(
    queue: &Receiver<Item>,
    shown: &mut Option<Shown>,
    newest: &Mutex<Option<Progress>>,
    has_told: &mut bool,
) -> Option<Item> {
    loop {
        let Some(line) = shown else {
            return queue.recv().ok();
        };
        match queue.recv_timeout(TICK) {
            Ok(item) => return Some(item),
            Err(RecvTimeoutError::Timeout) if is_interrupted() && !*has_told => {
                *has_told = true;
                let line = super::worded("Interrupted", ON_INTERRUPT);
                return Some(Item::Line(format!(
                    "{}\n",
                    Stream::Stderr.paint(line.into())
                )));
            }
            Err(RecvTimeoutError::Timeout) => {
                line.tick();
                *shown = redrawn(shown.take(), newest);
            }
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

/// Returns the line with the newest progress; none if the run waits for nothing.
fn redrawn(shown: Option<Shown>, newest: &Mutex<Option<Progress>>) -> Option<Shown> {
    let newest = newest.lock().ok().and_then(|newest| newest.clone());
    match (shown, newest) {
        (Some(shown), Some(newest)) => Some(shown.update(newest)),
        (None, Some(newest)) => Some(Shown::new(newest)),
        (shown, None) => {
            shown.iter().for_each(Shown::end);
            None
        }
    }
}

/// Writes small pieces, so that a slow reader differs from one that has stopped.
fn write(out: &mut impl Write, line: &str, taken: &AtomicU64) {
    for piece in line.as_bytes().chunks(PIECE) {
        // The reader closed it.
        if out.write_all(piece).and_then(|()| out.flush()).is_err() {
            break;
        }
        taken.fetch_add(1, Ordering::Relaxed);
    }
}
