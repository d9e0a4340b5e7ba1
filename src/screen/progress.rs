//! The progress line of a run. It is redrawn at intervals, names the instance that the run waits
//! for, and is removed when other text is written or the run ends.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The time between two redraws while nothing happens. Ten per second look steady and cost nothing.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// The columns of `  Confirming [00:00:01] `.
const HEAD: usize = 24;

/// The columns of the bar.
const BAR: usize = 16;

/// The least columns of a terminal with a bar. In a narrower one the bar would leave no room for
/// the text.
const NARROW: usize = 64;

/// True while the line is on the terminal.
static SHOWN: AtomicBool = AtomicBool::new(false);

/// The progress of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The phase, in at most 12 letters.
    pub(crate) word: &'static str,
    /// The number of items that are done.
    pub(crate) done: usize,
    /// The number of items in total; 0 if it is not known.
    pub(crate) all: usize,
    /// The text after the counts.
    pub(crate) text: String,
    /// The instance that the run waits for, and since when.
    pub(crate) awaited: Option<(String, Instant)>,
}

impl Progress {
    /// Returns the progress of a phase without items.
    pub(crate) fn of(word: &'static str, text: impl Into<String>) -> Self {
        Self {
            word,
            done: 0,
            all: 0,
            text: text.into(),
            awaited: None,
        }
    }

    /// Returns the text after the counts, with the wait.
    fn message(&self) -> String {
        let mut message = self.text.clone();
        if let Some((what, since)) = &self.awaited {
            let space = if message.is_empty() { "" } else { " " };
            let _ = write!(
                message,
                "{space}awaiting {what} for {}s",
                since.elapsed().as_secs()
            );
        }
        message
    }

    /// Returns the template for a terminal of this width, and the columns that it leaves for the
    /// text.
    fn layout(&self, columns: usize) -> (String, usize) {
        let counts = format!("{} of {}", self.done, self.all).len() + 1;
        let (template, used) = match (self.all, columns < NARROW) {
            (0, _) => ("{prefix:>12} [{elapsed_precise}] {msg}".to_owned(), HEAD),
            (_, true) => (
                "{prefix:>12} [{elapsed_precise}] {pos} of {len} {msg}".to_owned(),
                HEAD + counts,
            ),
            (_, false) => (
                format!(
                    "{{prefix:>12}} [{{elapsed_precise}}] {{bar:{BAR}}} {{pos}} of {{len}} {{msg}}"
                ),
                HEAD + BAR + 1 + counts,
            ),
        };
        (template, columns.saturating_sub(used + 1))
    }
}

/// The line on the terminal.
#[derive(Debug)]
pub(super) struct Shown {
    bar: ProgressBar,
    progress: Progress,
    columns: usize,
}

impl Shown {
    pub(super) fn new(progress: Progress) -> Self {
        SHOWN.store(true, Ordering::Relaxed);
        let bar =
            ProgressBar::with_draw_target(Some(progress.all as u64), ProgressDrawTarget::stderr());
        let shown = Self {
            bar,
            progress,
            columns: columns(),
        };
        shown.draw();
        shown
    }

    /// Shows new progress. The same phase stays on its line, and another phase gets a new line.
    pub(super) fn update(self, progress: Progress) -> Self {
        if (progress.word, progress.all) != (self.progress.word, self.progress.all) {
            self.end();
            return Self::new(progress);
        }
        let shown = Self { progress, ..self };
        shown.draw();
        shown
    }

    /// Redraws the line, also for a new width of the terminal. A narrower terminal may have wrapped
    /// the old line into several rows, which are cleared.
    pub(super) fn tick(&mut self) {
        let (old, now) = (self.columns, columns());
        if now != old {
            self.columns = now;
            let rows = old.saturating_sub(1).checked_div(now).unwrap_or(0);
            self.bar.suspend(|| {
                if rows > 0 {
                    let _ = write!(io::stderr(), "\x1b[{rows}A\r\x1b[J");
                }
            });
        }
        self.draw();
    }

    /// Writes other text above the line.
    pub(super) fn aside(&self, write: impl FnOnce()) {
        self.bar.suspend(write);
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
        SHOWN.store(false, Ordering::Relaxed);
    }

    fn draw(&self) {
        let (template, room) = self.progress.layout(self.columns);
        if let Ok(style) = ProgressStyle::with_template(&template) {
            self.bar.set_style(style);
        }
        self.bar.set_prefix(self.progress.word);
        let message = super::line(&self.progress.message())
            .chars()
            .take(room)
            .collect::<String>();
        self.bar.set_message(message);
        self.bar.set_position(self.progress.done as u64);
        self.bar.tick();
        // The cursor returns to the start of the row. After a full row, the `^C` that a terminal
        // prints would start a new row, and only that row would be cleared.
        if !self.bar.is_hidden() {
            let _ = io::stderr().write_all(b"\r");
        }
    }
}

/// Returns the width of the terminal.
fn columns() -> usize {
    usize::from(Term::stderr().size().1).max(1)
}

/// Removes the line, because the process is about to exit.
pub(crate) fn clear() {
    if SHOWN.swap(false, Ordering::Relaxed) {
        let _ = write!(io::stderr(), "\r\x1b[2K");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validating() -> Progress {
        Progress {
            done: 3,
            all: 30,
            ..Progress::of("Validating", "")
        }
    }

    #[test]
    fn the_line_names_the_instance_and_the_wait() {
        let since = Instant::now().checked_sub(Duration::from_secs(12));
        let awaited = since.map(|since| ("pid 7 and 2 more".to_owned(), since));
        assert_eq!(
            Progress {
                awaited,
                ..validating()
            }
            .message(),
            "awaiting pid 7 and 2 more for 12s"
        );
        assert_eq!(Progress::of("Gate", "of wave 1").message(), "of wave 1");
    }

    #[test]
    fn the_line_fits_the_terminal() {
        for columns in [1, 20, 40, 63, 64, 80, 200] {
            let (template, room) = validating().layout(columns);
            let counts = "3 of 30 ".len();
            let bar = if template.contains("bar") { BAR + 1 } else { 0 };
            assert!(
                room == 0 || HEAD + counts + bar + room < columns,
                "{columns}"
            );
            assert_eq!(template.contains("bar"), columns >= NARROW, "{columns}");
        }
    }
}
