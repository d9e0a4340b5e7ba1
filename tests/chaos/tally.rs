//! Counts of a round and its findings.

use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) claims: BTreeMap<&'static str, u64>,
    pub(crate) faults: BTreeMap<String, u64>,
    pub(crate) exits: BTreeMap<String, u64>,
    pub(crate) found: Vec<Finding>,
}

/// A claim that does not hold.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    pub(crate) kind: &'static str,
    pub(crate) claim: &'static str,
    pub(crate) text: String,
}

impl Tally {
    /// Counts a claim. A claim that does not hold is kept with its kind and a text.
    pub(crate) fn claim(
        &mut self,
        claim: &'static str,
        holds: bool,
        kind: impl FnOnce() -> &'static str,
        text: impl FnOnce() -> String,
    ) {
        *self.claims.entry(claim).or_default() += 1;
        if !holds {
            self.found.push(Finding {
                kind: kind(),
                claim,
                text: text(),
            });
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        for (name, count) in other.claims {
            *self.claims.entry(name).or_default() += count;
        }
        for (name, count) in other.faults {
            *self.faults.entry(name).or_default() += count;
        }
        for (name, count) in other.exits {
            *self.exits.entry(name).or_default() += count;
        }
        self.found.extend(other.found);
    }

    pub(crate) fn total(&self) -> u64 {
        self.claims.values().sum()
    }

    pub(crate) fn of(&self, kind: impl Fn(&str) -> bool) -> usize {
        self.found.iter().filter(|f| kind(f.kind)).count()
    }
}
