//! The expectations of one proof, and the condition that ends the wait for it.

use std::{cell::Cell, collections::BTreeSet};

use crate::assertion::{Assertion, Source};

/// The proof that an instance must give. The readings from before the signal are in its
/// `PlannedInstance`.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    /// The report that an instance which speaks our protocol must give.
    pub(crate) self_report: Option<SelfReportExpectation>,
    /// Resolved assertions that must all hold.
    pub(crate) confirm: Vec<Assertion>,
    /// Resolved assertions of a refusal: one that holds now and did not before ends the wait.
    pub(crate) reject: Vec<Assertion>,
    /// The number of samples in a row that must hold.
    pub(crate) samples: u32,
    /// The children before the signal, if a new child may become the successor.
    pub(crate) children_before: Option<BTreeSet<i32>>,
    /// The condition that ends the wait.
    pub(crate) until: WaitUntil,
}

impl Expected {
    /// Returns every source that is probed. An instance that speaks our protocol is probed at its
    /// `serving` path where no assertion reads an answer of its own endpoint: the digest in such an
    /// answer is the proof.
    pub(super) fn sources<'a>(&'a self, serving: &'a Source) -> impl Iterator<Item = &'a Source> {
        let mut confirm = self.confirm.iter();
        let has_own = confirm.any(|assertion| assertion.source.asks_own_endpoint());
        let serving = (self.self_report.is_some() && !has_own).then_some(serving);
        self.confirm
            .iter()
            .chain(&self.reject)
            .map(|assertion| &assertion.source)
            .chain(serving)
    }
}

/// The self-report that an instance which speaks our protocol must give.
#[derive(Debug, Clone)]
pub(crate) struct SelfReportExpectation {
    /// The part of the config that `sha256` is of.
    pub(crate) scope: Scope,
    /// The digest that the serving path must answer with.
    pub(crate) sha256: String,
    /// True if a rejection of `sha256` ends the wait.
    pub(crate) rejection_is_final: bool,
    /// True if the last attempt must be later than the one before the signal and have read
    /// `sha256`. An answer that could be from before the signal proves nothing.
    pub(crate) require_new_attempt: bool,
    /// The number of the last attempt before the signal; unknown if the instance was unresponsive.
    pub(crate) seq: u64,
}

/// The part of a config that a digest is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The file, also where a key lies over it.
    File,
    /// All layers.
    Whole,
}

/// The condition that ends the wait for a proof.
#[derive(Debug, Clone)]
pub(crate) enum WaitUntil {
    /// Everything holds.
    Shown,
    /// The deadline has passed, and everything holds then: all of it may have held before the
    /// signal.
    Deadline,
    /// Everything holds, and the instance was `seen` on the other config before that.
    Other {
        /// The reading that the other config gives to each assertion, if that is known.
        others: Vec<Option<OtherConfig>>,
        /// True if one of `others` was read, now or before the signal.
        seen: Cell<bool>,
    },
}

impl WaitUntil {
    /// Tells whether the wait goes on though everything holds; `late` tells that the deadline has
    /// passed.
    pub(super) fn waits(&self, late: bool) -> bool {
        match self {
            Self::Shown => false,
            Self::Deadline => !late,
            Self::Other { seen, .. } => !seen.get() && !late,
        }
    }

    /// Tells whether the other config must be seen and was not.
    pub(super) fn lacks_other(&self) -> bool {
        matches!(self, Self::Other { seen, .. } if !seen.get())
    }

    /// Records that the instance was seen on the other config.
    pub(super) fn mark_other_seen(&self) {
        if let Self::Other { seen, .. } = self {
            seen.set(true);
        }
    }

    /// Records the reading `now` of the assertion `index`, if only the other config gives it.
    pub(super) fn record_reading(&self, index: usize, now: &str) {
        if let Self::Other { others, seen } = self
            && let Some(Some(other)) = others.get(index)
            && other.is(now)
        {
            seen.set(true);
        }
    }
}

/// A reading that only the other config gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OtherConfig {
    /// This text.
    Text(String),
    /// Any text but this one.
    Not(String),
}

impl OtherConfig {
    /// Tells whether the reading `now` is the other config's.
    pub(crate) fn is(&self, now: &str) -> bool {
        match self {
            // A program that answers nothing while it loads shows no config.
            _ if now.trim().is_empty() => false,
            Self::Text(text) => now == text,
            Self::Not(text) => now != text,
        }
    }
}
