//! What one process is to a group, and what keeps it from being one of its leaders.

use crate::{
    fleet::{Group, Match},
    host::discover::{
        config,
        found::{Finds, Found},
        inspect::{Criteria, Inspected, inspect},
        pidfile::PidFile,
        scan::{Scan, found, who},
        unit,
    },
};

/// What a process is to a group; each text is a sentence without its subject.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each group, and only of one process"
)]
pub(crate) enum Membership {
    /// It takes the signal, for these workers as well. A listed process has the endpoint that its
    /// group gives.
    Leads(Found, Vec<i32>),
    /// It matches, and stands in the way of a reload.
    Refused(String),
    /// This one takes the signal for it.
    Works(i32),
    /// It matches, or may do so, and may not be touched.
    LeftOut(String),
    /// It is none of the group's.
    NoMatch {
        /// Why.
        why: String,
        /// Whether a part of its `match` fits: its program is the one that is meant.
        near: bool,
    },
}

/// A process of any sort, whoever's it is; its executable is empty where this user may not see it.
///
/// # Errors
/// Why it is no process that runs a program, or cannot be looked at.
pub(crate) fn process(pid: i32) -> Result<Found, String> {
    inspect(pid).map(found).map_err(|e| e.to_string())
}

impl Scan {
    /// What the process `pid` is to `group`.
    pub(crate) async fn membership(&self, group: &Group, pid: i32) -> Membership {
        let Finds {
            found,
            refused,
            workers,
            left_out,
            missing,
            ..
        } = self.find(group).await;
        if let Some(found) = found.into_iter().find(|f| f.pid == pid) {
            return Membership::Leads(
                found,
                workers
                    .into_iter()
                    .filter(|(_, leader)| *leader == pid)
                    .map(|(worker, _)| worker)
                    .collect(),
            );
        }
        if let Some((_, why)) = refused.into_iter().find(|(f, _)| f.pid == pid) {
            return Membership::Refused(why);
        }
        if let Some((_, leader)) = workers.into_iter().find(|(worker, _)| *worker == pid) {
            return Membership::Works(leader);
        }
        let (why, near) =
            inspect(pid).map_or_else(|e| (e.to_string(), false), |one| self.why_not(group, &one));
        // One that lacks an argument is named there as well, and is no match.
        if let Some((_, left)) = left_out
            .into_iter()
            .find(|(left, said)| *left == pid && *said != why)
        {
            return Membership::LeftOut(left);
        }
        // What a pid file or a list says of it is more than what a pattern does.
        let said = missing
            .into_iter()
            .find(|(asked, _)| *asked == pid || *asked == 0)
            .map(|(_, why)| why);
        Membership::NoMatch {
            why: said.filter(|_| near).unwrap_or(why),
            near,
        }
    }

    /// The first key of `match` that does not fit, or what else keeps it out; and whether something
    /// fits.
    fn why_not(&self, group: &Group, one: &Inspected) -> (String, bool) {
        let asked = match self.ask(group) {
            Ok(asked) => asked,
            Err((_, why)) => return (why, false),
        };
        let fits =
            |what: &Match| self.fits(&Criteria::new(what, who(what, false).ok().flatten()), one);
        let steps = group.matching.steps();
        if let Some(at) = steps.iter().position(|(what, _)| fits(what) != Some(true)) {
            let (what, why) = &steps[at];
            return (
                if fits(what).is_none() {
                    "cannot be looked at by this user".into()
                } else {
                    why.clone()
                },
                at > 0,
            );
        }
        let excluded = asked
            .exclude
            .as_ref()
            .is_some_and(|e| self.fits(e, one) == Some(true));
        let why = match (excluded, group.instances.is_empty()) {
            (true, _) => "is left out by its `exclude`",
            (false, false) => "is not in the list of its `instances`",
            (false, true) => "was not there a moment ago",
        };
        (why.into(), true)
    }
}

/// Whether the unit or a pid file of its group names this very process; none where nobody's word is
/// there that counts.
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
