//! Everything that `status` reads of one instance.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    assertions,
    row::{KnownBy, Row, RowTarget},
    targets,
};
use crate::{
    fleet::{Group, Reloads, Speaks},
    host::{
        discover::found::Found,
        local::{guards::check_exclusive_address, reload_command},
        net::sockets::Listeners,
        probe::{
            layers::key_layer,
            limits::{ProbeLimits, self_report},
        },
        proc::{guard, inside::is_its_name},
        target::as_started::is_as_it_started,
        validate::{
            current::{CurrentTarget, ValidationCache},
            run::ValidationError,
            verdicts::cannot_judge,
        },
    },
    runs::ProofCache,
    step::PlannedInstance,
};

/// The view of this host and of earlier runs that all instances share.
pub(super) struct StatusProbe {
    pub(super) listeners: Listeners,
    pub(super) limits: ProbeLimits,
    pub(super) validations: ValidationCache,
    pub(super) proofs: ProofCache,
    /// The ` --state DIR` of commands; empty for the default directory.
    pub(super) state_args: String,
    /// By the directory of a target: the run that holds its lock.
    pub(super) locks: RefCell<BTreeMap<PathBuf, Option<String>>>,
}

impl StatusProbe {
    /// Reads the row of one instance.
    pub(super) async fn row(&self, group: &Group, found: &Found) -> Row {
        let mut row = Row::new(group, found.pid, found.started);
        check_signal(&mut row, group, found).await;
        let current = self.read_targets(&mut row, group, found).await;
        let is_known = current.is_some();
        let current = current.unwrap_or_default();
        for target in &current {
            let dir = target.path.parent().unwrap_or(Path::new("/")).to_owned();
            self.locks
                .borrow_mut()
                .entry(dir)
                .or_insert_with(|| target.lock_owner());
        }
        let mut planned = self.planned(&row, group, found, &current);
        if is_known && let Err(why) = reload_command::check(&planned) {
            row.faults.push(why.to_string());
        }
        if group.speaks == Speaks::None {
            let context = (&self.listeners, &self.limits);
            assertions::check(&mut row, &mut planned, &current, context).await;
        }
        if !group.validate.is_empty() && is_known {
            if current.iter().all(CurrentTarget::has_file) {
                self.validate(&mut row, &planned, &current).await;
            } else {
                row.unvalidated = Some("its key could not be read".into());
            }
        }
        if let Some(first) = row.targets.first() {
            row.path = Some(first.path.clone());
            row.disk = first.disk.clone();
            row.runs = row.runs.take().or_else(|| first.runs.clone());
        }
        row
    }

    /// Reads the targets of an instance, and what it runs of each, as far as that is known without
    /// a check. None if the targets are not known.
    pub(super) async fn read_targets(
        &self,
        row: &mut Row,
        group: &Group,
        found: &Found,
    ) -> Option<Vec<CurrentTarget>> {
        self.find_endpoint(row, group, found);
        let current = CurrentTarget::of(found, group).await;
        row.faults
            .extend(current.as_ref().err().map(ToString::to_string));
        let targets = current.as_deref().unwrap_or_default();
        targets::add_targets(row, group, found, targets, &self.proofs);
        if group.speaks == Speaks::Hello {
            self.read_self_report(row, group, found).await;
        } else {
            self.add_doubt(row);
        }
        current.ok()
    }

    /// Says why the proofs of earlier runs say nothing of an instance.
    fn add_doubt(&self, row: &mut Row) {
        let paths: Vec<PathBuf> = row
            .targets
            .iter()
            .map(|target| target.path.clone())
            .collect();
        let Some(doubt) = self.proofs.doubt(row.pid, row.started, &paths) else {
            return;
        };
        let text = format!(
            "which config it runs is not known: {}",
            doubt.text(&self.state_args)
        );
        // A run that is under way is reported by itself.
        if !doubt.is_running() {
            row.faults.push(text.clone());
        }
        row.doubt = Some(text);
    }

    /// Finds the endpoint, and checks that no foreign listener shares it.
    fn find_endpoint(&self, row: &mut Row, group: &Group, found: &Found) {
        let endpoint = found.endpoint.clone().map_or_else(
            || self.listeners.endpoint(found.pid, &found.args, group),
            Ok,
        );
        match endpoint {
            Ok(endpoint) => {
                let exclusive =
                    check_exclusive_address(found, &endpoint, &self.listeners, &self.limits);
                row.faults
                    .extend(exclusive.err().map(|why| why.to_string()));
                row.endpoint = Some(endpoint);
            }
            Err(why) if group.needs_endpoint() => row.faults.push(why.to_string()),
            // No probe needs its endpoint.
            Err(_) => {}
        }
    }

    /// Returns the instance as a run would plan it.
    fn planned(
        &self,
        row: &Row,
        group: &Group,
        found: &Found,
        current: &[CurrentTarget],
    ) -> PlannedInstance {
        let mut instance = found.instance(group);
        instance.endpoint = row.endpoint.clone().unwrap_or_default();
        instance.targets = current.iter().map(|target| target.path.clone()).collect();
        let mut planned =
            PlannedInstance::new(instance, Arc::new(group.clone()), found.args.clone());
        planned.identity = found.identity(group);
        planned.cwd = std::fs::read_link(format!("/proc/{}/cwd", found.pid)).unwrap_or_default();
        planned.variables = found.named_variables(group);
        planned
    }

    /// Validates the config on the disk. A validator that refuses even what its instance runs
    /// cannot judge here.
    async fn validate(&self, row: &mut Row, planned: &PlannedInstance, current: &[CurrentTarget]) {
        let is_proven = |target: &RowTarget, current: &CurrentTarget| {
            let is_same_behind = || {
                self.proofs
                    .of(row.pid, row.started, &current.path)
                    .is_none_or(|proven| proven.behind.is_some() && proven.behind == current.behind)
            };
            target.runs.is_some() && target.runs == target.disk && is_same_behind()
        };
        let is_run = |(target, current): (&RowTarget, &CurrentTarget)| {
            is_proven(target, current) || is_as_it_started(planned, &current.path)
        };
        let runs_it = !current.is_empty() && row.targets.iter().zip(current).all(is_run);
        match self.validations.of(planned, current).await.0 {
            Ok(_) => {}
            Err(ValidationError::Refused(why)) if runs_it => {
                row.unvalidated = Some(cannot_judge(&why));
            }
            Err(ValidationError::Refused(why)) => {
                row.faults
                    .push(format!("the next reload would fail: {why}"));
            }
            Err(ValidationError::NotRun(why)) => row.unvalidated = Some(why.to_string()),
        }
    }

    /// Reads the self-report of a process that speaks the protocol of `hello serve`. It is about
    /// the first target.
    async fn read_self_report(&self, row: &mut Row, group: &Group, found: &Found) {
        let Some(endpoint) = &row.endpoint else {
            return;
        };
        let report = match self_report(endpoint, &self.limits).await {
            Ok(report) => report,
            Err(why) => {
                row.faults.push(why.to_string());
                return;
            }
        };
        let reporter = (report.instance.pid, report.instance.started);
        if !is_its_name(found.pid, found.started, reporter) {
            let text = format!("its endpoint is answered by pid {}", report.instance.pid);
            row.faults.push(text);
            return;
        }
        let sha256 = match group.key().map(|key| key_layer(&report, key)) {
            None => report.effective.of_file().to_owned(),
            Some(Ok(layer)) => layer.sha256.clone(),
            Some(Err(why)) => {
                row.faults.push(why.to_string());
                return;
            }
        };
        let loaded_at = report.effective.loaded_at.as_second();
        row.age_s = Some(jiff::Timestamp::now().as_second() - loaded_at);
        row.generation = Some(report.effective.generation);
        row.runs = Some(sha256.clone());
        if let Some(first) = row.targets.first_mut() {
            if first.disk.as_ref().is_some_and(|disk| *disk != sha256) {
                row.faults.push(match &first.rev {
                    Some(rev) => format!("does not run revision {rev} of its key"),
                    None => "does not run the config on its disk".into(),
                });
            }
            first.runs = Some(sha256);
            first.known = KnownBy::SelfReport;
        }
    }
}

/// Checks that the process would take the signal.
async fn check_signal(row: &mut Row, group: &Group, found: &Found) {
    if let Some(no_signal) = group.never_reloads() {
        let text = format!("is reloaded by no signal: {}", no_signal.why);
        row.faults.push(text);
        return;
    }
    if group.reloads == Reloads::No {
        let text = format!("is not declared to reload on {}", group.trigger());
        row.faults.push(text);
    }
    // A process may block the signal for a moment, as PostgreSQL does for every new connection.
    // Such a process takes it later.
    if let Err(why) = guard::wait_for_handler(found.pid, group, Duration::ZERO).await {
        row.faults
            .push(format!("would not take the signal: it {why}"));
    }
    // A process that cannot be read has a fault by now: it would not take the signal.
    if guard::is_stopped(found.pid).unwrap_or(false) {
        row.faults.push("is stopped".into());
    }
}
