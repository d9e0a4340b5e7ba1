//! The sentence that says why a run ended as it did.

use super::fleet_run::FleetRun;
use crate::{
    engine::RunEnd,
    event::{FailureKind, Instance, Outcome, Verdict, failures, process},
    inventory::HostName,
    names,
    runs::Verb,
};

/// Everything that the reasons of one run depend on.
pub(super) struct Reasons<'a> {
    run: &'a FleetRun,
    /// The rows of the instances: those of the plan, newcomers, and skipped ones.
    instances: &'a [Instance],
    has_work: bool,
    /// Hosts that the run is about are no part of it.
    is_over_some: bool,
    /// The hosts that the run has lost.
    lost: Vec<HostName>,
}

impl<'a> Reasons<'a> {
    pub(super) fn new(run: &'a FleetRun, instances: &'a [Instance], has_work: bool) -> Self {
        Self {
            run,
            instances,
            has_work,
            is_over_some: false,
            lost: Vec::new(),
        }
    }

    /// Speaks only of the hosts that were reached, if there are others.
    pub(super) fn over_some(self, is_over_some: bool) -> Self {
        Self {
            is_over_some,
            ..self
        }
    }

    /// Names the hosts that the run has lost.
    pub(super) fn with_lost(self, lost: Vec<HostName>) -> Self {
        Self { lost, ..self }
    }

    /// The end of "every instance": the hosts that it is about.
    fn hosts(&self) -> &'static str {
        if self.is_over_some {
            " of the other hosts"
        } else {
            ""
        }
    }

    /// The reason of a dry run.
    pub(super) fn dry_run(&self) -> String {
        self.with_unreplaced("dry run: nothing was touched".into())
    }

    /// The reason of a run that had nothing to do, and that continues no earlier run.
    pub(super) fn unchanged(&self) -> String {
        let by_record = self
            .instances
            .iter()
            .any(|i| i.before.is_none() && !i.targets.is_empty());
        // A touch is no change for a watch, which compares contents.
        let hint = if self.run.verb == Verb::Watch {
            ""
        } else {
            " (`touch` it to reload)"
        };
        let runs_it = if by_record {
            format!(
                "was proven on it, and neither it nor what is known to be read through it was \
                 changed since{hint}"
            )
        } else {
            "runs it already".to_owned()
        };
        self.of_every_instance(&runs_it)
    }

    /// The reason of a run that the engine carried out.
    pub(super) fn ended(&self, end: &RunEnd) -> String {
        match end.verdict {
            Verdict::Converged if !self.has_work => {
                self.with_unreplaced(format!("every instance{} runs it already", self.hosts()))
            }
            Verdict::Converged => self.with_unreplaced(format!(
                "every instance{} {}",
                self.hosts(),
                self.proved_it()
            )),
            verdict => end
                .reason
                .clone()
                .unwrap_or_else(|| self.not_converged(verdict)),
        }
    }

    /// A good end with fewer instances than the earlier run had says so.
    fn with_unreplaced(&self, reason: String) -> String {
        match &self.run.unreplaced {
            Some(unreplaced) => format!("{reason}; {unreplaced}"),
            None => reason,
        }
    }

    /// Says `what` of every instance of the run, and names the unresponsive ones that are not part
    /// of it.
    fn of_every_instance(&self, what: &str) -> String {
        let skipped: Vec<Instance> = self
            .instances
            .iter()
            .filter(|i| is_skipped(i) && is_unresponsive(i))
            .cloned()
            .collect();
        if skipped.is_empty() {
            return format!("every instance{} {what}", self.hosts());
        }
        let skipped = failures(&skipped);
        format!(
            "every other instance{} {what}; unresponsive and skipped: {skipped}",
            self.hosts()
        )
    }

    /// The config that the run installs.
    fn config(&self) -> &'static str {
        if self.run.back {
            "old config"
        } else {
            "new config"
        }
    }

    fn proved_it(&self) -> String {
        let config = self.config();
        match self.unconfirmed_pids().as_slice() {
            [] => format!("proved the {config}"),
            pids => format!(
                "proved the {config}, or its group accepts that nothing proves it: pid {}",
                names::pids(pids)
            ),
        }
    }

    /// Instances that were signalled and live, and of which nothing is proven.
    fn unconfirmed_pids(&self) -> Vec<i32> {
        self.instances
            .iter()
            .filter(|i| i.outcome == Outcome::Unconfirmed)
            .map(|i| i.pid)
            .collect()
    }

    /// The reason of a run that went to its end and did not converge.
    fn not_converged(&self, verdict: Verdict) -> String {
        if verdict == Verdict::Unproven {
            return format!(
                "nothing proves that pid {} took the {}",
                names::pids(&self.unconfirmed_pids()),
                self.config()
            );
        }
        let failed = self
            .instances
            .iter()
            .filter(|i| !(is_good(i) || is_skipped(i) && is_unresponsive(i)))
            .find_map(|i| Some((process(&i.host, i.pid), &i.failure.as_ref()?.text)));
        match failed {
            Some((process, why)) => format!("{process}: {why}"),
            None if verdict == Verdict::Partial && self.instances.iter().any(is_skipped) => {
                self.of_every_instance(&self.proved_it())
            }
            None if !self.lost.is_empty() => {
                let hosts = names::list(&self.lost, ", ", names::MOST);
                format!("lost, so that what is there is not known: {hosts}")
            }
            None => "a config is not what this run left there".into(),
        }
    }
}

/// Tells whether the run does not include an instance.
fn is_skipped(instance: &Instance) -> bool {
    instance.wave == 0
}

fn is_unresponsive(instance: &Instance) -> bool {
    let failure = instance.failure.as_ref();
    failure.is_some_and(|failure| failure.kind == FailureKind::Unresponsive)
}

fn is_good(instance: &Instance) -> bool {
    matches!(
        instance.outcome,
        Outcome::Confirmed | Outcome::Unconfirmed | Outcome::Unchanged | Outcome::Reverted
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;
    use crate::{engine::ReachBudget, event::Failure, fleet::Share};

    fn run() -> FleetRun {
        FleetRun {
            id: String::new(),
            verb: Verb::Broadcast,
            back: false,
            now: false,
            dry_run: false,
            alone_in: None,
            unreplaced: None,
            groups: Vec::new(),
            parallel: 1,
            reach: ReachBudget {
                max: Share::Count(0),
                hosts: 2,
                unreachable: 0,
            },
        }
    }

    /// Returns the reason of a run that ended mixed without one of the engine.
    fn mixed(instances: &[Instance], lost: &[&str]) -> String {
        let lost = lost.iter().map(|host| HostName::new(host).unwrap());
        let end = RunEnd {
            verdict: Verdict::Mixed,
            reason: None,
            gates: Vec::new(),
        };
        let run = run();
        let reasons = Reasons::new(&run, instances, true).with_lost(lost.collect());
        reasons.ended(&end)
    }

    fn instance(outcome: Outcome, why: Option<&str>) -> Instance {
        Instance {
            host: HostName::new("h1").unwrap(),
            outcome,
            failure: why.map(|text| Failure {
                kind: outcome.into(),
                text: text.into(),
            }),
            ..Instance::new("web", 7, 1)
        }
    }

    #[test]
    fn a_mixed_run_whose_instances_are_good_is_so_by_the_hosts_that_it_has_lost() {
        let good = [instance(Outcome::Confirmed, None)];
        let wanted = "lost, so that what is there is not known: h2, h3";
        assert_eq!(mixed(&good, &["h2", "h3"]), wanted);
        let wanted = "a config is not what this run left there";
        assert_eq!(mixed(&good, &[]), wanted);
    }

    #[test]
    fn a_failed_instance_is_the_reason_before_a_lost_host() {
        let failed = [instance(Outcome::TimedOut, Some("no answer"))];
        assert_eq!(mixed(&failed, &["h2"]), "h1 pid 7: no answer");
    }
}
