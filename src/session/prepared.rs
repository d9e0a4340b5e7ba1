//! A run whose plan is made and whose candidates are staged and valid. Nothing is touched yet.

use super::{
    arrange::{Waves, arrange},
    context::{RunContext, SessionOptions},
    emit::emit_unresponsive,
    explain::Explain,
    host_plan::host_plan,
    host_session::HostSession,
    preview,
    record::record,
    rows::rows,
};
use crate::{
    event::{Abort, Event, Instance, Interrupts, Outcome, Verdict, interrupted},
    fleet::Unproven,
    host::{Host, local::check::Recheck},
    plan::Plan,
    protocol::{HostPlan, HostRows, PartOf, Validate},
    runs::{self, Journal, LastSeen},
    step::{PlannedInstance, Step},
};

/// A prepared run on this host.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(super) context: RunContext,
    pub(super) plan: Plan,
    pub(super) host: Host,
    pub(super) explain: Explain,
    has_work: bool,
    /// The seconds of the commit-confirmed timer.
    armed_s: Option<u64>,
}

impl Prepared {
    /// Stages and validates every candidate of a plan. An invalid candidate is reported first, and
    /// a needed restart before every other failure.
    pub(super) async fn new(
        (context, explain): (RunContext, Explain),
        mut plan: Plan,
        mut host: Host,
        interrupts: &mut Interrupts,
        emit: &mut dyn FnMut(&Event),
    ) -> Result<Self, Abort> {
        emit_unresponsive(&plan, emit);
        let strict = context.options.validate == Validate::Strict;
        let mut steps = all_steps(&mut plan);
        let prepared = host
            .prepare(&mut steps, strict, interrupts, &mut |event| emit(&event))
            .await;
        let restart = plan.restart.take();
        let prepared = match prepared {
            Err(abort) => Err(restart
                .filter(|_| abort.verdict != Verdict::Invalid)
                .unwrap_or(abort)),
            Ok(()) => restart.map_or(Ok(()), Err),
        };
        prepared.map_err(|abort| explain.add_to(abort, &context.options))?;
        let has_work = plan.steps().any(|s| s.is_work() || host.needs_install(s));
        Ok(Self {
            context,
            plan,
            host,
            explain,
            has_work,
            armed_s: None,
        })
    }

    /// Adds to a refusal of this run what the operator can do about it.
    pub(crate) fn explanation(&self) -> impl Fn(Abort) -> Abort + use<> {
        let explain = self.explain.clone();
        let options = self.context.options.clone();
        move |abort| explain.add_to(abort, &options)
    }

    /// The context of the run.
    pub(crate) fn context(&self) -> &RunContext {
        &self.context
    }

    /// Makes the run a part of one over hosts.
    pub(crate) fn join(&mut self, part_of: Option<PartOf>) {
        self.context.part_of = part_of;
    }

    /// Gives the run a commit-confirmed timer. Its first intent arms it.
    pub(crate) fn arm(&mut self, seconds: Option<u64>) {
        self.armed_s = seconds;
    }

    /// Returns what a coordinator must know of the plan.
    pub(crate) fn host_plan(&self) -> HostPlan {
        HostPlan {
            has_work: self.has_work,
            must_record: self.must_close_a_run(),
            ..host_plan(&self.plan)
        }
    }

    /// Returns true if a run without work must be recorded all the same. It is the end of the run
    /// that it continues, or of a run that was left open over the same targets.
    fn must_close_a_run(&self) -> bool {
        let context = &self.context;
        context.of.is_some()
            || !context.replaces.is_empty()
            || !runs::left_over(
                &context.options.state,
                &self.plan.paths(),
                &context.group_names(),
            )
            .is_empty()
    }

    /// Raises the counter of this host for the run, and returns it: the fencing token of its
    /// requests.
    ///
    /// # Errors
    /// Fails if the state directory cannot be written; nothing was touched.
    pub(crate) async fn raise_counter(&self, interrupts: &Interrupts) -> Result<u64, Abort> {
        let SessionOptions { state, id, .. } = &self.context.options;
        let raised = runs::raise_counter(state, id, interrupted(interrupts, 0)).await;
        raised.map_err(|e| runs::unusable(state, &e))
    }

    /// Shows what the run would do.
    pub(crate) fn preview(&self) -> HostRows {
        preview::preview(&self.plan, &self.host)
    }

    /// Ends a run that has nothing to do. Checks its instances and files once more: validators may
    /// have taken long since the survey. Returns its rows, and its outcomes with what the group of
    /// each says of an unproven instance.
    ///
    /// # Errors
    /// Fails with `Refused` if an instance is not what the survey showed; nothing was touched.
    pub(crate) async fn unchanged(
        mut self,
        interrupts: &mut Interrupts,
    ) -> Result<(HostRows, Vec<(Outcome, Unproven)>), Abort> {
        self.recheck_unchanged(interrupts).await?;
        let until = interrupted(interrupts, 0);
        let RunContext {
            options, groups, ..
        } = &self.context;
        let _ = LastSeen::keep(&options.state, groups, self.plan.instances(), until).await;
        Ok((rows(&self.plan, &self.host), self.plan.ends().collect()))
    }

    async fn recheck_unchanged(&mut self, interrupts: &mut Interrupts) -> Result<(), Abort> {
        let mut steps = all_steps(&mut self.plan);
        let is_complete = self
            .host
            .check(&mut steps, Recheck::All, (interrupts, 0), &mut |_| {})
            .await;
        if !is_complete {
            return Err(Abort::interrupted());
        }
        let outcome = |m: &PlannedInstance| {
            if m.failed_unsignalled() {
                Outcome::Refused
            } else {
                m.instance.outcome
            }
        };
        let changed: Vec<Instance> = self
            .plan
            .members()
            .filter(|m| m.instance.outcome != Outcome::Unchanged)
            .map(|m| Instance {
                outcome: outcome(m),
                ..m.instance.clone()
            })
            .collect();
        if changed.is_empty() {
            return Ok(());
        }
        Err(Abort::refused(changed))
    }

    /// Begins the run in the waves of its coordinator, or in those of its own plan. From here on
    /// its journal has every event.
    ///
    /// # Errors
    /// Fails if the journal cannot be begun; nothing was touched.
    pub(crate) async fn begin(
        self,
        waves: Option<&Waves>,
        interrupts: &Interrupts,
    ) -> Result<RunningSession, Abort> {
        let (plan, numbers) = match waves {
            Some(waves) => arrange(self.plan, waves)?,
            None => {
                let numbers = (0..).take(self.plan.members().count()).collect();
                (self.plan, numbers)
            }
        };
        let record = record(&self.context, &plan);
        let state = &self.context.options.state;
        let begun = Journal::begin(state, &record, interrupts).await;
        let mut journal = begun.map_err(|why| why.abort(state))?;
        for note in self.host.notes() {
            let _ = journal.record(note);
        }
        drop(record);
        let traits = (self.context.now, self.context.of.is_some());
        let mut session = HostSession::begin(
            self.context.options.host.clone(),
            (plan, numbers),
            self.host,
            journal,
            traits,
        );
        session.armed_s = self.armed_s;
        Ok(RunningSession {
            session,
            context: self.context,
        })
    }
}

/// A run on this host that has begun.
#[derive(Debug)]
pub(crate) struct RunningSession {
    pub(super) session: HostSession<Journal>,
    pub(super) context: RunContext,
}

fn all_steps(plan: &mut Plan) -> Vec<&mut Step> {
    plan.waves.iter_mut().flat_map(|w| &mut w.steps).collect()
}
