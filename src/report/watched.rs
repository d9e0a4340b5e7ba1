//! A reporter of many runs, one after the other.

use std::time::Instant;

use super::{Output, Reporter, Summary, batch::Batch, host_tally::HostTally};
use crate::screen;

impl Reporter {
    /// Begins the next run.
    pub(crate) fn begin(&mut self) {
        self.began = Instant::now();
        self.waves.clear();
        self.hosts = HostTally::default();
        self.batch = Batch::default();
    }

    /// Ends a run: prints its object where stdout carries data. The reporter stays open.
    pub(crate) fn end(&mut self, summary: &Summary) {
        self.end_batch();
        self.idle();
        if self.output != Output::Screen {
            self.data(summary);
        }
    }

    /// Shows a line on stderr, also where progress lines are not wanted.
    pub(crate) fn say(&self, word: &str, text: &str) {
        self.stderr.line(&screen::worded(word, text));
    }
}

impl Summary {
    /// Returns the commands to type next.
    pub(crate) fn next(&self) -> &[String] {
        &self.next
    }
}
