//! The outcome of every match of a group: found, refused, a worker, or skipped.

use std::collections::{BTreeMap, BTreeSet};

use super::{candidates::Matched, query::GroupQuery};
use crate::{
    fleet::Group,
    host::discover::{
        found::Found,
        inspect::{Inspected, inspect},
        leaders::{LeaderSource, Node, Role, roles},
        lookup, options, owner,
        reason::{MatchReason, MatchRefusal},
        title::{self, Telling},
    },
    identity::Line,
};

/// The use that a run makes of a match.
pub(super) enum MatchOutcome {
    Found(Found),
    Refused(Found, MatchRefusal),
    /// It is a worker of this leader.
    Worker(Found, i32),
    Skipped(MatchRefusal),
}

/// The matches of a group as a whole.
struct Family {
    pids: BTreeSet<i32>,
    excluded: BTreeSet<i32>,
    /// True if a match that is not excluded takes the signal.
    has_leader: bool,
}

impl GroupQuery<'_> {
    /// Decides the outcome of each match. An excluded match has none.
    pub(super) fn outcomes(
        &self,
        matched: BTreeMap<i32, Matched>,
        source: &LeaderSource,
    ) -> BTreeMap<i32, MatchOutcome> {
        let nodes: Vec<Node> = matched
            .values()
            .map(|matched| Node {
                pid: matched.process.pid,
                parent: matched.process.parent,
                leads: matched.leads,
                works: matched.works,
            })
            .collect();
        let roles = roles(&nodes, source);
        let excluded: BTreeSet<i32> = matched
            .values()
            .filter(|matched| matched.excluded)
            .map(|matched| matched.process.pid)
            .collect();
        let family = Family {
            pids: matched.keys().copied().collect(),
            has_leader: roles
                .iter()
                .any(|(pid, role)| !excluded.contains(pid) && !matches!(role, Role::Worker(_))),
            excluded,
        };
        matched
            .into_iter()
            .filter(|(_, matched)| !matched.excluded)
            .filter_map(|(pid, matched)| {
                let role = *roles.get(&pid)?;
                Some((pid, self.outcome(matched, role, &family)?))
            })
            .collect()
    }

    /// Decides the outcome of one match; none if it ended meanwhile.
    fn outcome(&self, matched: Matched, role: Role, family: &Family) -> Option<MatchOutcome> {
        let Matched { process, sure, .. } = matched;
        let not_meant = owner::not_meant(&process, &self.uids, self.group).map(MatchRefusal::from);
        let refuse = |process: Inspected, why: MatchRefusal| {
            MatchOutcome::Refused(read_as(Found::of(process), self.group), why)
        };
        Some(match role {
            Role::Worker(leader) => self.worker_outcome(process, leader, family),
            _ if !sure => {
                let why = MatchRefusal::from(MatchReason::MayMatch {
                    uid: process.uid,
                    group: self.group.name.clone(),
                });
                match not_meant {
                    // A user of the group has it: a run that converges without it would claim too
                    // much.
                    None => refuse(
                        process,
                        why.with_hint(
                            "run hello with the right to look at it, or skip it with `exclude`",
                        ),
                    ),
                    Some(_) => MatchOutcome::Skipped(why),
                }
            }
            Role::Leader => match not_meant {
                Some(why) => MatchOutcome::Skipped(why),
                None => MatchOutcome::Found(read_as(Found::of(process), self.group)),
            },
            Role::Upgraded(other) => {
                let pid = process.pid;
                let why = MatchRefusal::from(MatchReason::Upgraded { other, pid })
                    .with_hint("finish or abort the upgrade first");
                if not_meant.is_some() {
                    MatchOutcome::Skipped(why)
                } else {
                    refuse(process, why)
                }
            }
            Role::Orphan => {
                // A worker often ends a moment after its master.
                inspect(process.pid)
                    .ok()
                    .filter(|now| now.started == process.started)?;
                let why = MatchRefusal::from(MatchReason::Orphan)
                    .with_hint("end it, or skip it with `exclude`");
                // Workers often run as another user than their master did, and root is responsible
                // for both.
                if not_meant.is_none() || nix::unistd::geteuid().is_root() {
                    refuse(process, why)
                } else {
                    MatchOutcome::Skipped(why)
                }
            }
        })
    }

    /// Decides the outcome of a match that is a worker of `leader`.
    fn worker_outcome(&self, process: Inspected, leader: i32, family: &Family) -> MatchOutcome {
        let group = self.group.name.clone();
        let parent = process.parent;
        if !family.has_leader && family.excluded.contains(&parent) {
            let why = MatchRefusal::from(MatchReason::OfExcluded { parent, group });
            return MatchOutcome::Skipped(
                why.with_hint("if it takes the signal itself, say so with `leader` or `pid_file`"),
            );
        }
        if !family.has_leader && !family.pids.contains(&parent) {
            return MatchOutcome::Skipped(MatchReason::NoLeader(group).into());
        }
        MatchOutcome::Worker(Found::of(process), leader)
    }
}

/// Reads the arguments of a process as its group declares: from a title, in words of their own, and
/// with paths that its working directory does not change.
fn read_as(mut found: Found, group: &Group) -> Found {
    if let Telling::Title(text) = &found.telling
        && let Some(args) = title::arguments(found.pid, text, &group.reading)
    {
        let certain = title::certain(&args);
        found.telling = if certain == args.len() {
            Telling::Arguments
        } else {
            Telling::Joined(args[..certain].to_vec())
        };
        found.args = args;
        found.seen.line = Line::Told;
    }
    let letters = group
        .reading
        .getopt
        .as_deref()
        .filter(|letters| !letters.is_empty() && !matches!(found.telling, Telling::Title(_)));
    if let Some(args) = letters.and_then(|letters| options::unbundled(&found.args, letters)) {
        found.args = args;
    }
    for (option, value, path) in lookup::moved(&found, group) {
        lookup::replace(&mut found.args, &option, &value, &path);
    }
    found
}
