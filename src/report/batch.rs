//! The instances that were signalled together, as far as they are shown.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use super::text::{LISTED, instances};
use crate::{
    event::{Direction, process, processes},
    inventory::HostName,
    screen::{Awaited, Progress},
};

/// A process by its host and its pid.
pub(super) type ProcessName = (HostName, i32);

/// One batch of instances.
#[derive(Debug)]
pub(super) struct Batch {
    /// The direction of its signals.
    pub(super) direction: Direction,
    /// The wave that several hosts signal together; none for the batch of one host.
    wave: Option<usize>,
    /// Number of instances that were to be signalled.
    all: usize,
    /// Number of instances that have ended. A newcomer was not counted beforehand, nor was an
    /// instance that fails a second time, so this may exceed `all`.
    done: usize,
    /// The instances that have not ended, in the order of their signals.
    awaited: BTreeMap<usize, ProcessName>,
    /// The place of each in that order.
    places: HashMap<ProcessName, usize>,
    /// The place of the next.
    next: usize,
    since: Instant,
    /// The time that each instance has for its proof; none where that is not known.
    pub(super) limit: Option<Duration>,
    /// Failed instances by the reason; only of a large batch.
    failures: BTreeMap<String, Vec<ProcessName>>,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new(Direction::Forward, [])
    }
}

impl Batch {
    pub(super) fn new(
        direction: Direction,
        instances: impl IntoIterator<Item = ProcessName>,
    ) -> Self {
        let mut batch = Self {
            direction,
            wave: None,
            all: 0,
            done: 0,
            awaited: BTreeMap::new(),
            places: HashMap::new(),
            next: 0,
            since: Instant::now(),
            limit: None,
            failures: BTreeMap::new(),
        };
        batch.add(instances);
        batch
    }

    /// Returns an empty batch of a wave that several hosts signal; `all` is the number of its
    /// instances as far as that is known.
    pub(super) fn of_wave(direction: Direction, wave: usize, all: usize) -> Self {
        Self {
            wave: Some(wave),
            all,
            ..Self::new(direction, [])
        }
    }

    /// Returns true if the instances of another host belong to this batch.
    pub(super) fn is_of_wave(&self, direction: Direction, wave: usize) -> bool {
        self.direction == direction && self.wave == Some(wave)
    }

    /// Adds instances that were signalled.
    pub(super) fn add(&mut self, instances: impl IntoIterator<Item = ProcessName>) {
        for instance in instances {
            self.places.insert(instance.clone(), self.next);
            self.awaited.insert(self.next, instance);
            self.next += 1;
        }
        self.all = self.all.max(self.next);
    }

    /// Returns true if no instance belongs to it.
    pub(super) fn is_empty(&self) -> bool {
        self.all == 0 && self.done == 0
    }

    /// Counts an instance that has ended.
    pub(super) fn end(&mut self, instance: &ProcessName) {
        self.done += 1;
        if let Some(place) = self.places.remove(instance) {
            self.awaited.remove(&place);
        }
    }

    /// Keeps the failure of the instance that ended last for the summary, unless it has a line of
    /// its own.
    pub(super) fn fail(&mut self, instance: ProcessName, why: &str, verbose: bool) {
        if !self.is_listed(verbose) {
            self.failures.entry(why.into()).or_default().push(instance);
        }
    }

    /// Returns true if the instance that ended last has a line of its own.
    pub(super) fn is_listed(&self, verbose: bool) -> bool {
        verbose || (self.all <= LISTED && self.uncounted() <= LISTED)
    }

    /// Returns the number of instances that have ended and were not counted beforehand.
    fn uncounted(&self) -> usize {
        self.done.saturating_sub(self.all)
    }

    /// Returns ` (3/10)` for the instance that ended last; empty where it was not counted
    /// beforehand.
    pub(super) fn place(&self) -> String {
        if self.uncounted() == 0 {
            format!("({}/{}) ", self.done, self.all)
        } else {
            String::new()
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.done == self.all
    }

    /// Returns true where the progress line must be drawn at once.
    pub(super) fn is_at_an_end(&self) -> bool {
        self.done == 0 || self.done >= self.all
    }

    /// Ends the batch; the direction stays for the files that follow.
    pub(super) fn take(&mut self) -> Self {
        let next = Self::new(self.direction, []);
        std::mem::replace(self, next)
    }

    /// Returns the lines of a large batch: its successes, counted, and its failures by reason.
    pub(super) fn summary(self, verbose: bool) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        if self.all > LISTED && !verbose && self.done > 0 {
            let failed: usize = self.failures.values().map(Vec::len).sum();
            let word = if self.direction.is_back() {
                "Reverted"
            } else {
                "Confirmed"
            };
            let succeeded = instances(self.done - failed);
            lines.push((word, format!("({}/{}) {succeeded}", self.done, self.all)));
        }
        for (why, failed) in self.failures {
            let count = instances(failed.len());
            let text = format!("{count}: {why}: {}", processes(&failed));
            lines.push(("FAILED", text));
        }
        lines
    }

    /// Returns the progress line: how far the batch is, and which instance was signalled first of
    /// those that have not ended.
    pub(super) fn progress(&self) -> Option<Progress> {
        let word = if self.direction.is_back() {
            "Reverting"
        } else {
            "Confirming"
        };
        match self.awaited.values().next() {
            Some((host, pid)) if self.done < self.all => Some(Progress {
                done: self.done,
                all: self.all,
                awaited: Some(Awaited {
                    slowest: process(host, *pid),
                    others: self.awaited.len() - 1,
                    since: self.since,
                    limit: self.limit,
                }),
                ..Progress::of(word, "")
            }),
            // The last check, and the steps after it, may take seconds.
            _ if self.all > 0 => Some(Progress::of("Checking", "")),
            _ => None,
        }
    }
}
