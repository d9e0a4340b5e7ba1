//! The relation of one process to a group, and why it is not one of its leaders.

use crate::{
    fleet::{Group, Match},
    host::discover::{
        config,
        found::{Finds, Found},
        inspect::{Criteria, InspectError, Inspected, inspect},
        pidfile::PidFile,
        reason::{MatchReason, MatchRefusal},
        scan::{Scan, pid_named_by},
        unit,
    },
};

/// The relation of a process to a group.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one value per group, and only for one process"
)]
pub(crate) enum Membership {
    /// It takes the signal, also for these workers. A listed process has the endpoint that its
    /// group gives.
    Leads(Found, Vec<i32>),
    /// It matches, and prevents a reload.
    Refused(MatchRefusal),
    /// This process takes the signal for it.
    Works(i32),
    /// It matches, or may match, and is not part of a run.
    Skipped(MatchRefusal),
    /// It is no process of the group.
    NoMatch {
        /// Why.
        why: MatchRefusal,
        /// True if a part of its `match` fits: it runs the program that the group means.
        near: bool,
    },
}

/// Reads any process, in a group or not.
///
/// # Errors
/// Fails if it runs no program, or if it cannot be read.
pub(crate) fn process(pid: i32) -> Result<Found, InspectError> {
    inspect(pid).map(Found::of)
}

impl Scan {
    /// Returns the relation of the process `pid` to `group`.
    pub(crate) async fn membership(&self, group: &Group, pid: i32) -> Membership {
        let Finds {
            found,
            refused,
            workers,
            skipped,
            missing,
            ..
        } = self.find(group).await;
        if let Some(found) = found.into_iter().find(|found| found.pid == pid) {
            return Membership::Leads(
                found,
                workers
                    .into_iter()
                    .filter(|(_, leader)| *leader == pid)
                    .map(|(worker, _)| worker)
                    .collect(),
            );
        }
        if let Some((_, why)) = refused.into_iter().find(|(found, _)| found.pid == pid) {
            return Membership::Refused(why);
        }
        if let Some((_, leader)) = workers.into_iter().find(|(worker, _)| *worker == pid) {
            return Membership::Works(leader);
        }
        let (why, near) = inspect(pid).map_or_else(
            |e| (e.into(), false),
            |process| self.why_not(group, &process),
        );
        // A process that lacks an argument, or cannot be read, is listed there as well, and is no
        // match.
        let is_unread = matches!(why, MatchReason::Inspect(_));
        let is_match = |reason: &MatchReason| match reason {
            MatchReason::Lacking(_) => false,
            MatchReason::Inspect(_) => !is_unread,
            _ => true,
        };
        if let Some((_, reason)) = skipped
            .into_iter()
            .find(|(skipped, reason)| *skipped == pid && is_match(&reason.why))
        {
            return Membership::Skipped(reason);
        }
        // The reason of a pid file or a list says more than that of a pattern.
        let listed = missing
            .into_iter()
            .find(|(asked, _)| *asked == pid || *asked == 0)
            .map(|(_, why)| why);
        Membership::NoMatch {
            why: listed.filter(|_| near).unwrap_or_else(|| why.into()),
            near,
        }
    }

    /// Returns the first key of `match` that does not fit, or the other reason why the process is
    /// no match; and whether a key before that fits.
    fn why_not(&self, group: &Group, process: &Inspected) -> (MatchReason, bool) {
        let query = match self.query(group) {
            Ok(query) => query,
            Err((_, why)) => return (why, false),
        };
        let fits = |what: &Match| {
            let criteria = Criteria::new(what, pid_named_by(what, false).ok().flatten());
            self.fits(&criteria, process)
        };
        let steps = group.matching.steps();
        if let Some(index) = steps.iter().position(|(what, _)| fits(what) != Some(true)) {
            let (what, why) = &steps[index];
            return (
                if fits(what).is_none() {
                    MatchReason::Hidden
                } else {
                    MatchReason::Unfit(why.clone())
                },
                index > 0,
            );
        }
        let excluded = query
            .exclude
            .as_ref()
            .is_some_and(|exclude| self.fits(exclude, process) == Some(true));
        let why = match (excluded, group.instances.is_empty()) {
            (true, _) => MatchReason::Excluded,
            (false, false) => MatchReason::NotListed,
            (false, true) => MatchReason::Late,
        };
        (why, true)
    }
}

/// Tells whether the unit or a trusted pid file of its group names this very process; none if there
/// is neither.
pub(crate) async fn is_named(found: &Found, group: &Group) -> Option<bool> {
    let places = group.pid_file.iter().filter_map(|place| {
        config::place_of(found.pid, &found.args, place)
            .ok()
            .flatten()
    });
    let files = group
        .matching
        .pid_file
        .iter()
        .cloned()
        .chain(places)
        .filter_map(|path| PidFile::read(&path).ok());
    let mut named: Vec<i32> = files
        .filter(|file| file.is_trusted(found.uid).is_ok())
        .map(|file| file.pid)
        .collect();
    if let Some(unit) = &group.matching.unit {
        named.extend(unit::main_pid(unit).await);
    }
    (!named.is_empty()).then(|| named.contains(&found.pid))
}
