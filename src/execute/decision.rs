//! Whether a run over hosts may begin: every host is ready, or it is one that the run may go
//! without.

use std::collections::BTreeMap;

use crate::{
    engine::ReachBudget,
    event::{Abort, Event, HostState, Instance, Verdict, failures},
    fleet::Share,
    hosts::{ReadyHost, UnreadyHost, dismiss},
    inventory::HostName,
    names,
    report::HostReport,
    screen,
};

/// The most hosts that a refusal names.
const MOST: usize = 10;

/// The hosts of a run that may begin.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) hosts: Vec<ReadyHost>,
    pub(super) absent: Absent,
    /// The hosts that may still be lost before they are touched.
    pub(super) reach: ReachBudget,
}

/// The hosts that a run goes without, or that it has lost.
#[derive(Debug, Default)]
pub(super) struct Absent {
    hosts: Vec<HostReport>,
    /// The lost hosts that no commit has reached.
    skipped: Vec<HostName>,
    /// The hosts of the earlier run that are no part of the command.
    left: Vec<HostName>,
    /// The hosts on which the earlier run never began, so that it has touched nothing there.
    not_begun: Vec<HostName>,
    /// How many more hosts the earlier run has begun on, whose names are not known.
    pub(super) further: usize,
    /// The run continues an earlier one, which may have left its hosts on other configs.
    pub(super) is_continued: bool,
}

impl Absent {
    /// Adds a host of the earlier run that is no part of the command.
    pub(super) fn leave(&mut self, name: HostName, why: String) {
        self.left.push(name.clone());
        self.hosts.push(HostReport {
            name,
            state: HostState::Excluded,
            why: Some(why),
            version: None,
            instances: 0,
        });
    }

    /// Returns the hosts that know nothing of the earlier run.
    pub(super) fn without_run(&self) -> Vec<HostName> {
        let is_excluded = |host: &&HostReport| host.state == HostState::Excluded;
        let excluded = self.hosts.iter().filter(is_excluded);
        let excluded = excluded.map(|host| host.name.clone());
        excluded.filter(|host| !self.has_not_begun(host)).collect()
    }

    /// Tells whether the earlier run never began on this host.
    pub(super) fn has_not_begun(&self, host: &HostName) -> bool {
        self.not_begun.contains(host)
    }

    /// Returns the hosts on which the earlier run never began.
    pub(super) fn not_begun(&self) -> &[HostName] {
        &self.not_begun
    }

    /// Adds a host that was lost before a commit could reach it.
    pub(super) fn skip(&mut self, name: HostName, why: String) {
        self.skipped.push(name.clone());
        self.lose(name, why);
    }

    /// Adds a host that was lost.
    pub(super) fn lose(&mut self, name: HostName, why: String) {
        self.hosts.push(HostReport {
            name,
            state: HostState::Lost,
            why: Some(why),
            version: None,
            instances: 0,
        });
    }

    /// Returns every host of the run for its report: these, and those of its rows in `state`.
    pub(super) fn reports(&self, rows: &[Instance], state: HostState) -> Vec<HostReport> {
        let mut counts: BTreeMap<&HostName, usize> = BTreeMap::new();
        for row in rows {
            *counts.entry(&row.host).or_default() += 1;
        }
        let mut reports = self.hosts.clone();
        for report in &mut reports {
            report.instances = counts.remove(&report.name).unwrap_or(0);
        }
        reports.extend(counts.into_iter().map(|(name, instances)| HostReport {
            name: name.clone(),
            state,
            why: None,
            version: None,
            instances,
        }));
        reports
    }

    /// Returns the event of each host.
    pub(super) fn events(&self) -> impl Iterator<Item = Event> {
        self.hosts.iter().map(|host| Event::Host {
            host: host.name.clone(),
            state: host.state,
            why: host.why.clone(),
        })
    }

    fn unreached(&self) -> impl Iterator<Item = &HostReport> {
        let is_away = |host: &&HostReport| host.state == HostState::Unreachable;
        self.hosts.iter().filter(is_away)
    }

    /// Returns the hosts that the run has lost after it had begun there.
    pub(super) fn lost(&self) -> Vec<HostName> {
        let is_lost = |host: &&HostReport| host.state == HostState::Lost;
        let lost = self.hosts.iter().filter(is_lost);
        lost.map(|host| host.name.clone()).collect()
    }

    /// Returns how many hosts that the earlier run has begun on are no part of the command.
    pub(super) fn missing_of_earlier(&self) -> usize {
        self.left.len() + self.further + self.unreached_count()
    }

    /// Tells whether a host of the fleet is not accounted for.
    pub(super) fn leaves_hosts(&self) -> bool {
        let is_left =
            |host: &HostReport| matches!(host.state, HostState::Unreachable | HostState::Lost);
        self.hosts.iter().any(is_left)
    }

    pub(super) fn unreached_count(&self) -> usize {
        self.unreached().count()
    }

    /// Tells whether the run goes without a host that it is about.
    pub(super) fn misses_hosts(&self) -> bool {
        self.knows_not_all() || !self.not_begun.is_empty()
    }

    /// Tells whether the run goes without a host on which the earlier run may have done something.
    pub(super) fn knows_not_all(&self) -> bool {
        let named = self.left.iter().chain(&self.skipped);
        self.further > 0 || named.count() > 0 || self.unreached().next().is_some()
    }

    /// Returns the verdict of a run that goes without some of its hosts: at best partial. Where an
    /// earlier run may have left one of them on the new config, a rollback of the others is mixed.
    pub(super) fn worsen(&self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Converged | Verdict::Unproven if self.misses_hosts() => Verdict::Partial,
            Verdict::Reverted if self.is_continued && self.knows_not_all() => Verdict::Mixed,
            verdict => verdict,
        }
    }

    /// Adds the hosts to the reason of the run's end.
    pub(super) fn with_reason(&self, reason: String) -> String {
        let missing = self.missing_text();
        if missing.is_empty() {
            return reason;
        }
        format!("{reason}; {missing}")
    }

    /// Names the hosts that the run goes without; empty without one.
    pub(super) fn missing_text(&self) -> String {
        let mut texts = Vec::new();
        for (what, hosts) in [
            (
                "unreachable and skipped",
                self.unreached().map(|host| &host.name).collect(),
            ),
            (
                "lost before its commit and skipped",
                self.skipped.iter().collect(),
            ),
            (
                "no part of this command",
                self.left.iter().collect::<Vec<&HostName>>(),
            ),
            (
                "the run never began and touched nothing on",
                self.not_begun.iter().collect(),
            ),
        ] {
            if !hosts.is_empty() {
                let hosts = names::list(hosts, ", ", MOST);
                texts.push(format!("{what}: {hosts}"));
            }
        }
        if self.further > 0 {
            let hosts = screen::counted(self.further, "more host");
            texts.push(format!(
                "no part of this command: {hosts} of the earlier run"
            ));
        }
        texts.join("; ")
    }
}

/// Decides whether the run may begin. If it may not, it ends on every host that is ready.
///
/// # Errors
/// Fails if more hosts than `max_unreachable` were not reached, or if another host is not ready.
/// The first of these decides: usage, failed, too many unreachable, no match, busy, refused,
/// invalid, restart.
pub(super) async fn decide(
    surveyed: Vec<Result<ReadyHost, Box<UnreadyHost>>>,
    max_unreachable: Share,
) -> Result<Ready, Abort> {
    let total = surveyed.len();
    let mut ready = Vec::new();
    let mut unready = Vec::new();
    for surveyed in surveyed {
        match surveyed {
            Ok(host) => ready.push(host),
            Err(host) => unready.push(*host),
        }
    }
    match judge(ready.len(), unready, (total, max_unreachable)) {
        Ok(absent) => Ok(Ready {
            reach: ReachBudget {
                max: max_unreachable,
                hosts: total,
                unreachable: absent.unreached().count(),
            },
            hosts: ready,
            absent,
        }),
        Err(abort) => {
            dismiss(ready.into_iter().map(|host| host.run)).await;
            Err(abort)
        }
    }
}

/// Returns the abort for hosts that were not reached; none if these are within the budget.
fn beyond_budget(
    unready: &[UnreadyHost],
    (total, max_unreachable): (usize, Share),
) -> Option<Abort> {
    let is_away = |host: &&UnreadyHost| host.state == HostState::Unreachable;
    let unreached = unready.iter().filter(is_away);
    let budget = ReachBudget {
        max: max_unreachable,
        hosts: total,
        unreachable: 0,
    };
    if unreached.clone().count() <= budget.left() {
        return None;
    }
    let why = unreached.map(|host| format!("{}: {}", host.name, host.abort.reason));
    let why = names::list(why, "; ", MOST);
    let why = format!("{why}{}", budget.text());
    Some(Abort::new(Verdict::Unreachable, why))
}

fn judge(ready: usize, unready: Vec<UnreadyHost>, budget: (usize, Share)) -> Result<Absent, Abort> {
    let beyond = beyond_budget(&unready, budget);
    let is_skipped =
        |host: &UnreadyHost| matches!(host.state, HostState::Unreachable | HostState::Excluded);
    let (skipped, refused): (Vec<UnreadyHost>, Vec<UnreadyHost>) =
        unready.into_iter().partition(is_skipped);
    let aborts = refused.into_iter().map(|host| (host.name, host.abort));
    let ends = [worst(aborts.collect()), beyond];
    let first = ends.into_iter().flatten();
    if let Some(abort) = first.min_by_key(|abort| rank(abort.verdict)) {
        return Err(abort);
    }
    if ready == 0 {
        let why = skipped.into_iter().map(|host| (host.name, host.abort));
        let none = || Abort::new(Verdict::NoMatch, "no host is part of the run");
        return Err(worst(why.collect()).unwrap_or_else(none));
    }
    let not_begun = skipped.iter().filter(|host| host.never_began);
    let not_begun: Vec<HostName> = not_begun.map(|host| host.name.clone()).collect();
    let hosts = skipped.into_iter().map(|host| HostReport {
        name: host.name,
        state: host.state,
        why: Some(host.abort.reason),
        version: host.version,
        instances: 0,
    });
    Ok(Absent {
        hosts: hosts.collect(),
        not_begun,
        ..Absent::default()
    })
}

/// Returns the place of an exit code in the order in which they decide.
fn rank(verdict: Verdict) -> usize {
    match verdict {
        Verdict::Usage => 0,
        Verdict::Failed => 1,
        Verdict::Unreachable => 2,
        Verdict::NoMatch => 3,
        Verdict::Busy => 4,
        Verdict::Refused => 5,
        Verdict::Invalid => 6,
        Verdict::RestartRequired => 7,
        _ => 8,
    }
}

/// Returns the abort of a run by those of its hosts: the verdict that comes first in the order of
/// the exit codes, with every host that has it, and the next step on the first of them that names
/// one.
pub(super) fn worst(aborts: Vec<(HostName, Abort)>) -> Option<Abort> {
    let worst = aborts.iter().map(|(_, abort)| abort.verdict);
    let verdict = worst.min_by_key(|verdict| rank(*verdict))?;
    let mut reasons: Vec<(String, Vec<HostName>)> = Vec::new();
    let mut joined = Abort::new(verdict, "");
    let mut is_by_instances = true;
    for (name, abort) in aborts {
        if abort.verdict != verdict {
            continue;
        }
        joined.by_validation |= abort.by_validation;
        joined.goes_first = joined.goes_first.or(abort.goes_first);
        let hint = abort.hint.map(|hint| Box::new(hint.on(&name)));
        joined.hint = joined.hint.or(hint);
        is_by_instances &= abort.reason == failures(&abort.instances);
        joined
            .instances
            .extend(abort.instances.into_iter().map(|mut instance| {
                instance.host = name.clone();
                instance
            }));
        match reasons
            .iter_mut()
            .find(|(reason, _)| *reason == abort.reason)
        {
            Some((_, hosts)) => hosts.push(name),
            None => reasons.push((abort.reason, vec![name])),
        }
    }
    let text = |(reason, hosts): (String, Vec<HostName>)| {
        format!("{}: {reason}", names::list(hosts.iter(), ", ", MOST))
    };
    joined.reason = names::list(reasons.into_iter().map(text), "; ", MOST);
    joined.by_instances = is_by_instances;
    // The coordinator has its own commands for these, which are about every host.
    if joined.by_validation || joined.goes_first.is_some() || !joined.instances.is_empty() {
        joined.hint = None;
    }
    Some(joined)
}

#[cfg(test)]
mod tests;
