//! The sentence that says why a run ended as it did.

use super::context::RunContext;
use crate::{
    engine::RunEnd,
    event::{Instance, Outcome, Verdict, failures},
    names,
    plan::Plan,
    runs::Verb,
};

/// Everything that the reasons of one run depend on.
pub(super) struct Reasons<'a> {
    plan: &'a Plan,
    has_work: bool,
    back: bool,
    verb: Verb,
    unreplaced: Option<&'a str>,
}

impl<'a> Reasons<'a> {
    pub(super) fn new(context: &RunContext<'a>, plan: &'a Plan, has_work: bool) -> Self {
        Self {
            plan,
            has_work,
            back: context.back,
            verb: context.verb,
            unreplaced: context.unreplaced,
        }
    }

    /// The reason of a dry run.
    pub(super) fn dry_run(&self) -> String {
        self.with_unreplaced("dry run: nothing was touched".into())
    }

    /// The reason of a run that had nothing to do, and that continues no earlier run.
    pub(super) fn unchanged(&self) -> String {
        let by_record = self
            .plan
            .instances()
            .any(|i| i.before.is_none() && !i.targets.is_empty());
        // A touch is no change for a watch, which compares contents.
        let hint = if self.verb == Verb::Watch {
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
                self.with_unreplaced("every instance runs it already".into())
            }
            Verdict::Converged => {
                self.with_unreplaced(format!("every instance {}", self.proved_it()))
            }
            verdict => end
                .reason
                .clone()
                .unwrap_or_else(|| self.not_converged(verdict)),
        }
    }

    /// A good end with fewer instances than the earlier run had says so.
    fn with_unreplaced(&self, reason: String) -> String {
        match self.unreplaced {
            Some(unreplaced) => format!("{reason}; {unreplaced}"),
            None => reason,
        }
    }

    /// Says `what` of every instance of the run, and names the unresponsive ones that are not part
    /// of it.
    fn of_every_instance(&self, what: &str) -> String {
        let skipped: Vec<Instance> = self
            .plan
            .skipped
            .iter()
            .filter(|m| m.unresponsive)
            .map(|m| m.instance.clone())
            .collect();
        if skipped.is_empty() {
            return format!("every instance {what}");
        }
        let skipped = failures(&skipped);
        format!("every other instance {what}; unresponsive and skipped: {skipped}")
    }

    /// The config that the run installs.
    fn config(&self) -> &'static str {
        if self.back {
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
        self.plan
            .instances()
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
        let gone = self.plan.skipped.iter().filter(|m| !m.unresponsive);
        let failed = self
            .plan
            .steps()
            .flat_map(|s| &s.instances)
            .chain(&self.plan.newcomers)
            .filter(|m| !m.is_good())
            .chain(gone)
            .find_map(|m| Some((m.instance.pid, &m.instance.failure.as_ref()?.text)));
        match failed {
            Some((pid, why)) => format!("pid {pid}: {why}"),
            None if verdict == Verdict::Partial && !self.plan.skipped.is_empty() => {
                self.of_every_instance(&self.proved_it())
            }
            None => "a config is not what this run left there".into(),
        }
    }
}
