//! `hello status --watch`: looks again and again, until an interrupt or until its reader is gone.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{options::Options, snapshot::Snapshot, take};
use crate::{
    event::{Interrupts, Verdict},
    report::{Output, local_time},
    screen::{self, Frame},
};

/// The time between two looks at the size of the terminal and at the reader.
const TICK: Duration = Duration::from_millis(200);

/// Shows the fleet until an interrupt. Returns the exit code of the last look; 1 if there was none.
pub(crate) async fn watch(options: Options, interval: Duration, mut interrupts: Interrupts) -> u8 {
    let mut view = View::new(options.output, interval);
    let mut exit = Verdict::Failed.exit();
    loop {
        let snapshot = tokio::select! {
            snapshot = take(&options) => snapshot,
            Ok(_) = interrupts.wait_for(|n| *n > 0) => return exit,
        };
        exit = snapshot.exit;
        view.show(&snapshot);
        tokio::select! {
            reader = view.wait() => if reader == Reader::Gone { return exit },
            Ok(_) = interrupts.wait_for(|n| *n > 0) => return exit,
        }
    }
}

/// The reader of stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    There,
    Gone,
}

/// How the answers are shown.
struct View {
    output: Output,
    interval: Duration,
    /// The frame on a terminal; none where stdout is no terminal, or carries JSON.
    frame: Option<Frame>,
    /// The last answer without its times.
    last: Option<Value>,
}

impl View {
    fn new(output: Output, interval: Duration) -> Self {
        let frame = (output == Output::Screen).then(Frame::of_stdout).flatten();
        Self {
            output,
            interval,
            frame,
            last: None,
        }
    }

    /// Draws the answer on a terminal. Elsewhere an answer is printed only if it has changed.
    fn show(&mut self, snapshot: &Snapshot) {
        let at = Timestamp::now();
        let head = format!(
            "{} {} (exit {})",
            local_time(at, "%Y-%m-%d %H:%M:%S"),
            snapshot.verdict(),
            snapshot.exit
        );
        let mut lines = snapshot.lines();
        if let Some(frame) = &mut self.frame {
            let every = self.interval.as_secs_f64();
            lines.insert(0, format!("{head}, every {every}s"));
            frame.draw(lines);
            return;
        }
        let now = snapshot.without_times();
        if self.last.as_ref() == Some(&now) {
            return;
        }
        self.last = Some(now);
        if self.output == Output::Screen {
            lines.insert(0, head);
            screen::answer(lines);
        } else {
            let mut object = snapshot.json.clone();
            object["at"] = json!(at);
            screen::data([object]);
        }
    }

    /// Waits for the interval. A frame follows the size of its terminal meanwhile.
    async fn wait(&mut self) -> Reader {
        let until = Instant::now() + self.interval;
        loop {
            if screen::is_reader_gone() {
                return Reader::Gone;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Reader::There;
            }
            tokio::time::sleep(left.min(TICK)).await;
            self.frame.iter_mut().for_each(Frame::follow_size);
        }
    }
}
