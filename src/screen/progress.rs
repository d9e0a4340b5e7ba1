//! The progress line of a run. It is redrawn at intervals, names the instance that the run waits
//! for, and is removed when other text is written or the run ends.

use std::{
    io::{self, Write as _},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use console::{Term, measure_text_width};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::wrap;

/// The time between two redraws while nothing happens. Ten per second look steady and cost nothing.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// The columns of `  Confirming [00:00:01] `.
const HEAD: usize = 24;

/// The columns of the bar on a terminal of at least [`WIDE`] columns.
const BAR: usize = 16;

/// The columns of the bar on a narrower terminal.
const SHORT_BAR: usize = 8;

/// The least columns of a terminal with the whole bar.
const WIDE: usize = 100;

/// The least columns of a terminal with a bar. In a narrower one the bar would leave no room for
/// the text.
const NARROW: usize = 80;

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
    /// The instances that the run waits for.
    pub(crate) awaited: Option<Awaited>,
    /// The end of the phase, where that is known.
    pub(crate) end: Option<PhaseEnd>,
}

/// The instances that a run waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Awaited {
    /// The one that has been waited for the longest.
    pub(crate) slowest: String,
    /// The number of others.
    pub(crate) others: usize,
    /// Since when.
    pub(crate) since: Instant,
    /// The time that each has; none where that is not known.
    pub(crate) limit: Option<Duration>,
}

/// The latest end of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PhaseEnd {
    /// The moment.
    pub(crate) at: Instant,
    /// The text from that moment on.
    pub(crate) then: &'static str,
}

impl PhaseEnd {
    /// Returns the end of a phase that began now and lasts for `seconds`; none if the clock has no
    /// such moment.
    pub(crate) fn after(seconds: f64, then: &'static str) -> Option<Self> {
        let left = Duration::try_from_secs_f64(seconds).ok()?;
        let at = Instant::now().checked_add(left)?;
        Some(Self { at, then })
    }

    fn text(self) -> String {
        let left = self.at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            self.then.to_owned()
        } else {
            format!("{}s left", left.as_secs_f64().ceil())
        }
    }
}

impl Awaited {
    /// Returns the text for a line with room for this many columns.
    fn text(&self, room: usize) -> String {
        let waited = self.since.elapsed().as_secs();
        let of = self.limit.map_or(String::new(), |limit| {
            format!(" of {}s", limit.as_secs_f64())
        });
        let text = |others: &str| format!("awaiting {}{others} for {waited}s{of}", self.slowest);
        let others = match self.others {
            0 => String::new(),
            others => format!(" and {others} more"),
        };
        // The counts before it say as well how many have not ended.
        let long = text(&others);
        if measure_text_width(&long) <= room {
            long
        } else {
            text("")
        }
    }
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
            end: None,
        }
    }

    /// Returns the text after the counts, in at most `room` columns.
    fn message(&self, room: usize) -> String {
        let mut parts = vec![self.text.clone()];
        parts.extend(self.end.map(PhaseEnd::text));
        parts.extend(self.awaited.as_ref().map(|awaited| awaited.text(room)));
        parts.retain(|part| !part.is_empty());
        let message = super::line(&parts.join(", ")).into_owned();
        if room == 0 {
            return String::new();
        }
        // A row that is cut ends with a whole word: a half of a number would be another number.
        let rows = wrap::cut(&message, room, 0);
        rows.into_iter().next().unwrap_or_default()
    }

    /// Returns the template for a terminal of this width, and the columns that it leaves for the
    /// text.
    fn layout(&self, columns: usize) -> (String, usize) {
        let counts = format!("{} of {}", self.done, self.all).len() + 1;
        let bar = match columns {
            WIDE.. => BAR,
            NARROW.. => SHORT_BAR,
            _ => 0,
        };
        let (template, used) = match (self.all, bar) {
            (0, _) => ("{prefix:>12} [{elapsed_precise}] {msg}".to_owned(), HEAD),
            (_, 0) => (
                "{prefix:>12} [{elapsed_precise}] {pos} of {len} {msg}".to_owned(),
                HEAD + counts,
            ),
            (_, bar) => (
                format!(
                    "{{prefix:>12}} [{{elapsed_precise}}] {{bar:{bar}}} {{pos}} of {{len}} {{msg}}"
                ),
                HEAD + bar + 1 + counts,
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
        self.bar.set_message(self.progress.message(room));
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

    /// Returns a moment that is not over yet, however busy the machine is.
    fn in_an_hour() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    fn confirming(others: usize) -> Progress {
        let awaited = Awaited {
            slowest: "pid 4194304".into(),
            others,
            since: in_an_hour(),
            limit: Some(Duration::from_millis(30_500)),
        };
        Progress {
            all: 5000,
            awaited: Some(awaited),
            ..Progress::of("Confirming", "")
        }
    }

    #[test]
    fn the_line_names_the_slowest_instance_the_wait_and_its_limit() {
        let mut line = confirming(2);
        assert_eq!(
            line.message(100),
            "awaiting pid 4194304 and 2 more for 0s of 30.5s"
        );
        line.awaited.iter_mut().for_each(|a| a.limit = None);
        assert_eq!(line.message(100), "awaiting pid 4194304 and 2 more for 0s");
    }

    #[test]
    fn a_phase_with_an_end_counts_down_and_then_says_what_follows() {
        let line = |at| Progress {
            end: Some(PhaseEnd {
                at,
                then: "probing again",
            }),
            ..Progress::of("Baking", "wave 1")
        };
        let message = line(in_an_hour()).message(100);
        let left = message.strip_prefix("wave 1, ").unwrap_or_default();
        let left = left.strip_suffix("s left").unwrap_or_default();
        assert!(
            left.parse::<u64>().is_ok_and(|left| left > 3000),
            "{message}"
        );
        assert_eq!(line(Instant::now()).message(100), "wave 1, probing again");
    }

    #[test]
    fn at_80_columns_and_5000_instances_the_slowest_and_its_limit_are_whole() {
        let (template, room) = confirming(4999).layout(80);
        assert!(template.contains("bar"), "{template}");
        assert_eq!(
            confirming(4999).message(room),
            "awaiting pid 4194304 for 0s of 30.5s"
        );
    }

    #[test]
    fn a_message_is_cut_after_a_whole_word() {
        assert_eq!(confirming(0).message(30), "awaiting pid 4194304 for 0s of");
        assert_eq!(confirming(0).message(29), "awaiting pid 4194304 for 0s");
        assert_eq!(confirming(0).message(0), "");
        let wide = Progress::of("Gate", "日本 日本");
        assert_eq!(wide.message(8), "日本");
    }

    #[test]
    fn the_line_fits_the_terminal() {
        for columns in [1, 20, 40, 63, 64, 79, 80, 99, 100, 200] {
            for progress in [validating(), confirming(4999)] {
                let (template, room) = progress.layout(columns);
                let bar = match columns {
                    100.. => BAR + 1,
                    80.. => SHORT_BAR + 1,
                    _ => 0,
                };
                assert_eq!(template.contains("bar"), bar > 0, "{columns}");
                let counts = format!("{} of {} ", progress.done, progress.all).len();
                let used = HEAD + bar + counts + measure_text_width(&progress.message(room));
                assert!(room == 0 || used < columns, "{columns}: {used}");
            }
        }
    }
}
