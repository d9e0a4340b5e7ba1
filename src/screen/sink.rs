//! Writes aside, so that a reader that does not read (a full pipe, Ctrl-S) or went away holds up nothing.

use std::{
    cell::Cell,
    io::{self, IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How long the end waits for a reader that has stopped reading; the run itself is over by then.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two steps of the bar.
const FRAME: Duration = Duration::from_millis(20);

/// What is to be shown next.
#[derive(Debug)]
enum Item {
    Line(String),
    Bar { word: &'static str, done: usize, all: usize },
}

/// An output with a thread of its own, the only one that ever writes to it. Lines are kept in memory until the reader takes them.
#[derive(Debug)]
pub(crate) struct Sink {
    items: Option<Sender<Item>>,
    /// Whether anybody sees a bar, and when the last one was sent.
    bar: Option<Cell<Instant>>,
    /// Rises with every piece that the reader took.
    taken: Arc<AtomicU64>,
    done: Receiver<()>,
}

impl Sink {
    pub(crate) fn stdout() -> Self {
        Self::new(io::stdout, false)
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
        std::thread::spawn(move || {
            let mut out = open();
            // There is one only while something is waited for.
            let mut shown: Option<ProgressBar> = None;
            for item in queue {
                match item {
                    Item::Bar { word, done, all } if bar && done < all => {
                        let bar = shown.get_or_insert_with(|| progress(all));
                        bar.set_message(word);
                        bar.set_position(done as u64);
                    }
                    Item::Bar { .. } => shown.take().iter().for_each(ProgressBar::finish_and_clear),
                    // A line breaks the bar, so that steps aside.
                    Item::Line(line) => match &shown {
                        Some(bar) => bar.suspend(|| write(&mut out, &line, &counter)),
                        None => write(&mut out, &line, &counter),
                    },
                }
            }
            shown.iter().for_each(ProgressBar::finish_and_clear);
            let _ = tell.send(());
        });
        Self { items: Some(items), bar: bar.then(|| Cell::new(Instant::now())), taken, done }
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

    /// Never waits.
    pub(crate) fn bar(&self, word: &'static str, done: usize, all: usize) {
        let Some(last) = &self.bar else { return };
        // Nobody sees each of a thousand, and each would wake the thread that draws.
        if done == 0 || done >= all || last.get().elapsed() >= FRAME {
            last.set(Instant::now());
            self.send(Item::Bar { word, done, all });
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

fn progress(all: usize) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(all as u64), ProgressDrawTarget::stderr());
    match ProgressStyle::with_template("{msg:>12} [{elapsed}] {wide_bar} {pos}/{len}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
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
