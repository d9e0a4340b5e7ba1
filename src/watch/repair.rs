//! Runs that an earlier `hello watch` left open, and what to do about each before the next run.

use std::{collections::BTreeSet, path::Path};

use crate::{
    event::Direction,
    names::json_word,
    runs::{self, InterruptedRun, RunInfo, Verb},
};

/// The most runs of a chain that are followed to the run of a watch.
const MAX_CHAIN: usize = 100;

/// The runs that an earlier watch left open over some groups.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LeftOpen {
    /// Runs that may have replaced a file, the newest first. They are rolled back with proof: the
    /// wanted content stands in the source of their group, and is installed again after that.
    pub(super) revert: Vec<String>,
    /// Runs that replaced no file. The content on the disk is the operator's, so a run that proves
    /// it takes their place.
    pub(super) replace: Vec<String>,
}

/// Returns the runs that a watch left open over no other groups than `groups`.
pub(super) fn left_open(state: &Path, groups: &BTreeSet<&str>) -> LeftOpen {
    let mut left = LeftOpen::default();
    for info in runs::open_runs(state).into_iter().rev() {
        let Ok(run) = InterruptedRun::find(state, Some(&info.id)) else {
            continue;
        };
        let mut names = run.groups.iter().map(|group| group.name.as_str());
        if !names.all(|name| groups.contains(name)) || !is_of_watch(state, &run) {
            continue;
        }
        if run.verb == Verb::Revert || has_replaced(state, &run) {
            left.revert.push(run.id);
        } else {
            left.replace.push(run.id);
        }
    }
    left
}

/// Tells whether a watch began the run, or the run that it continues.
fn is_of_watch(state: &Path, run: &InterruptedRun) -> bool {
    let mut verb = run.verb;
    let mut info = run.info.clone();
    for _ in 0..MAX_CHAIN {
        if verb == Verb::Watch {
            return true;
        }
        let Some(of) = info.began.and_then(|began| began.of) else {
            return false;
        };
        info = RunInfo::of(state, &of);
        let Some(began) = &info.began else {
            return false;
        };
        verb = began.verb;
    }
    false
}

/// Tells whether the run may have replaced a file: it was rolling back, or it had begun a step of a
/// group with a source.
fn has_replaced(state: &Path, run: &InterruptedRun) -> bool {
    let back = json_word(Direction::Back);
    let events = runs::events(state, &run.id).into_iter().flatten();
    let directions = events
        .filter(|event| event["event"] == "intent")
        .map(|event| event["direction"] == back.as_str());
    let has_source = run.groups.iter().any(|group| group.source.is_some());
    directions.into_iter().any(|is_back| is_back || has_source)
}
