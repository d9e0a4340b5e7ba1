//! The end of a run over other machines: rows, verdict, and the last line of every journal.

use std::{cell::RefCell, time::Duration};

use futures_util::{StreamExt, stream};

use super::{
    continued::EarlierRun, decision::Absent, fleet_run::FleetRun, index::Index, reason::Reasons,
    rows::Rows,
};
use crate::{
    engine::{FleetPlan, RunEnd, RunHost},
    event::{Abort, Event, Failure, HostState, Instance, Interrupts, Outcome, Verdict},
    hosts::{NotFinished, RemoteRun},
    inventory::HostName,
    names,
    protocol::{Finish, HostLink, HostRows},
    refusal::Hint,
    report::RunReport,
};

/// How the engine ended, and what else decides the verdict.
pub(super) struct HostsEnd<'a> {
    pub(super) run: &'a FleetRun,
    pub(super) ended: Result<RunEnd, Abort>,
    pub(super) has_work: bool,
    /// The commit-confirmed timer of each host.
    pub(super) timer: Option<Duration>,
    /// The hosts that the run went without; lost ones are added.
    pub(super) absent: Absent,
    /// The earlier run that it continues.
    pub(super) earlier: Option<&'a EarlierRun>,
    pub(super) interrupts: &'a Interrupts,
}

impl HostsEnd<'_> {
    /// Ends the run on every host, and reports it.
    ///
    /// # Errors
    /// Fails as the engine did, if it touched nothing.
    pub(super) async fn conclude(
        mut self,
        plan: FleetPlan<RemoteRun>,
        mut index: Index,
        on_event: &mut dyn FnMut(&HostName, &Event),
    ) -> Result<RunReport, Abort> {
        let mut report = |host: &HostName, event: &Event| {
            index.record(host, event);
            on_event(host, event);
        };
        let (links, mut rows) = self.close_up(plan, &mut report).await;
        let (verdict, reason, gates) = match &self.ended {
            Ok(end) => {
                let reasons = Reasons::new(self.run, &rows.instances, self.has_work)
                    .over_some(self.absent.misses_hosts())
                    .with_lost(self.absent.lost());
                let verdict = self.absent.worsen(end.verdict);
                let reason = self.absent.with_reason(reasons.ended(end));
                (verdict, reason, end.gates.clone())
            }
            Err(abort) => (abort.verdict, abort.reason.clone(), Vec::new()),
        };
        // The hosts of this run are settled by their rollback. What is open is the earlier run, on
        // the hosts that are no part of this one.
        let recorded = match (&self.ended, verdict) {
            (Ok(end), Verdict::Mixed) => end.verdict,
            _ => verdict,
        };
        let unfinished = self.finish(links, (recorded, &reason), &mut report).await;
        if let Some(timer) = self.timer.filter(|_| self.ended.is_ok()) {
            unprove(&mut rows.instances, (&unfinished, timer), &mut report);
        }
        let (verdict, reason) = self.after_finish((verdict, reason), &unfinished);
        let report = RunReport {
            run: self.run.id.clone(),
            gates,
            back: self.run.back,
            hint: self.hint(verdict),
            hosts: self.absent.reports(&rows.instances, HostState::Done),
            ..rows.report(verdict, reason.clone())
        };
        let finished = |verdict| Event::Finished {
            verdict,
            reason: reason.clone(),
            counts: report.counts(),
        };
        let is_over = self.ended.is_ok();
        index
            .end(
                &finished(recorded),
                (is_over, &self.absent),
                self.interrupts,
            )
            .await;
        on_event(&HostName::local(), &finished(verdict));
        self.ended.map(|_| report)
    }

    /// Returns the next step where the hosts that are no part of the run decide it.
    fn hint(&self, verdict: Verdict) -> Option<Hint> {
        let end = self.ended.as_ref().ok()?;
        let is_worse = end.verdict != verdict;
        let (id, back) = (&self.run.id, self.run.back);
        self.earlier
            .filter(|_| is_worse)
            .map(|earlier| earlier.next(id, verdict, back, &self.absent))
    }

    /// Ends the run's hold on the targets of every host. Returns the hosts that are still there,
    /// and the rows of all.
    async fn close_up(
        &mut self,
        plan: FleetPlan<RemoteRun>,
        report: &mut dyn FnMut(&HostName, &Event),
    ) -> (Vec<RemoteRun>, Rows) {
        let interrupts = self.interrupts;
        let report = RefCell::new(report);
        let closed = plan.hosts.into_iter().map(|mut host| {
            let report = &report;
            async move {
                let name = host.link.name().clone();
                let mut emit = |event: &Event| report.borrow_mut()(&name, event);
                let is_skipped = host.is_skipped();
                let rows = match host.lost.take() {
                    Some(why) => Err(why),
                    None => {
                        let rows = host.link.close_up(interrupts, &mut emit).await;
                        rows.map_err(|lost| {
                            report.borrow_mut()(&name, &host_lost(&name, &lost.why));
                            lost.why
                        })
                    }
                };
                (host, is_skipped, rows)
            }
        });
        let closed: Vec<_> = stream::iter(closed)
            .buffered(self.run.parallel)
            .collect()
            .await;
        let mut rows = Rows::default();
        let mut links = Vec::new();
        for (host, is_skipped, of_host) in closed {
            let name = host.link.name().clone();
            match of_host {
                Ok(of_host) => {
                    rows.add(&name, of_host);
                    links.push(host.link);
                }
                Err(why) => {
                    rows.add(&name, rows_of_lost(&host));
                    if is_skipped {
                        self.absent.skip(name, why);
                    } else {
                        self.absent.lose(name, why);
                    }
                }
            }
        }
        (links, rows)
    }

    /// Lets every host record the end. A host that is lost meanwhile is named: the run stays open
    /// there.
    async fn finish(
        &mut self,
        links: Vec<RemoteRun>,
        (verdict, reason): (Verdict, &str),
        report: &mut dyn FnMut(&HostName, &Event),
    ) -> Vec<(HostName, NotFinished)> {
        let timer = self.timer.filter(|_| self.ended.is_ok());
        let end = Finish {
            verdict,
            reason: reason.to_owned(),
            supersedes: self.ended.is_ok(),
        };
        let interrupts = self.interrupts;
        let report = RefCell::new(report);
        let finished = links.into_iter().map(|link| {
            let (report, end) = (&report, end.clone());
            async move {
                let name = link.name().clone();
                let mut emit = |event: &Event| report.borrow_mut()(&name, event);
                let finished = link.finish((end, timer), interrupts, &mut emit).await;
                (name, finished)
            }
        });
        let finished: Vec<_> = stream::iter(finished)
            .buffered(self.run.parallel)
            .collect()
            .await;
        let mut unfinished = Vec::new();
        for (name, finished) in finished {
            if let Err(not_finished) = finished {
                let why = format!("{not_finished}; the run stays open there");
                report.borrow_mut()(&name, &host_lost(&name, &why));
                unfinished.push((name.clone(), not_finished));
                self.absent.lose(name, why);
            }
        }
        unfinished
    }

    /// Returns the verdict once every host was told of it. A host that was not, and whose timer is
    /// armed, rolls back by itself: the run is on two configs then. A host that could not record
    /// the end has the run open: that is partial at best.
    fn after_finish(
        &self,
        (verdict, reason): (Verdict, String),
        unfinished: &[(HostName, NotFinished)],
    ) -> (Verdict, String) {
        if self.ended.is_err() || verdict == Verdict::Mixed || unfinished.is_empty() {
            return (verdict, reason);
        }
        let list = |is_meant: fn(&NotFinished) -> bool| {
            let meant = unfinished.iter().filter(|(_, why)| is_meant(why));
            names::list(meant.map(|(host, _)| host.to_string()), ", ", names::MOST)
        };
        if let Some(timer) = self.timer {
            let why = format!(
                "{} did not get the end of the run, and may have rolled back by the timer of {}s; \
                 on the other hosts: {reason}",
                list(|_| true),
                timer.as_secs()
            );
            return (Verdict::Mixed, why);
        }
        let unrecorded = list(|why| matches!(why, NotFinished::Unrecorded));
        if unrecorded.is_empty() {
            return (verdict, reason);
        }
        let verdict = match verdict {
            Verdict::Converged | Verdict::Unproven => Verdict::Partial,
            verdict => verdict,
        };
        let why = format!("{reason}; the journal did not take the end of the run on {unrecorded}");
        (verdict, why)
    }
}

/// Takes the proofs from the instances of hosts that may roll back by their timer.
fn unprove(
    instances: &mut [Instance],
    (unfinished, timer): (&[(HostName, NotFinished)], Duration),
    report: &mut dyn FnMut(&HostName, &Event),
) {
    for instance in instances {
        let host = unfinished.iter().find(|(host, _)| *host == instance.host);
        let is_new = matches!(instance.outcome, Outcome::Confirmed | Outcome::Unconfirmed);
        let Some((host, why)) = host.filter(|_| is_new) else {
            continue;
        };
        instance.outcome = Outcome::TimedOut;
        instance.proof = None;
        instance.failure = Some(Failure {
            kind: Outcome::TimedOut.into(),
            text: format!(
                "{why}; its host may have rolled back by the timer of {}s",
                timer.as_secs()
            ),
        });
        report(host, &Event::of(instance));
    }
}

pub(super) fn host_lost(name: &HostName, why: &str) -> Event {
    Event::Host {
        host: name.clone(),
        state: HostState::Lost,
        why: Some(why.to_owned()),
    }
}

/// Returns the rows of a host that is lost: the last outcomes that it has reported.
fn rows_of_lost(host: &RunHost<RemoteRun>) -> HostRows {
    HostRows {
        instances: host.instances().map(|(_, instance)| instance).collect(),
        ..HostRows::default()
    }
}
