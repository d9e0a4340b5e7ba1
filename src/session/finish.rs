//! The end of a run on its host: its rows, the proofs that it leaves, and its last line.

use super::{
    context::RunContext, emit::final_events, prepared::RunningSession, proofs::proofs_of,
    rows::rows,
};
use crate::{
    event::{Event, Instance, Interrupts, Outcome, Verdict, interrupted},
    inventory::HostName,
    plan::Plan,
    protocol::{Finish, HostLink, HostRows, Lost, SessionAnswer, SessionRequest},
    runs::{self, LastSeen, ProofCache, ProofsKept},
};

/// The interrupts that the end of a run tolerates while it waits for other runs. An interrupted run
/// still records what it has done; the second interrupt ends that wait.
const PATIENCE: u8 = 1;

impl RunningSession {
    /// Tells whether this run has touched an instance or replaced a target.
    pub(crate) fn is_touched(&self) -> bool {
        self.session.is_touched()
    }

    /// Carries out a request of the engine.
    pub(crate) async fn carry_out(
        &mut self,
        request: SessionRequest,
        interrupts: &mut Interrupts,
        emit: &mut dyn FnMut(&Event),
    ) -> SessionAnswer {
        self.session.carry_out(request, interrupts, emit).await
    }

    /// Ends the run's hold on its targets: late edits are kept, and staged files are removed.
    /// Returns the rows of the report.
    pub(crate) fn close_up(&mut self, emit: &mut dyn FnMut(&Event)) -> HostRows {
        let session = &mut self.session;
        for event in final_events(&mut session.host, &session.journal) {
            emit(&event);
            let _ = session.journal.record(&event);
            session.host.note(event);
        }
        rows(&session.plan, &session.host)
    }

    /// Records how the run ended, and what it has proven. Returns false if the journal did not take
    /// the end: the run stays open then.
    pub(crate) async fn finish(
        mut self,
        end: Finish,
        interrupts: &Interrupts,
        emit: &mut dyn FnMut(&Event),
    ) -> bool {
        let kept = self.keep_final_proofs(interrupts, emit).await;
        if kept == ProofsKept::Yes && end.supersedes {
            for event in self.close_earlier_runs(end.verdict, interrupts).await {
                emit(&event);
                // The journal of the closed run has this too.
                self.session.note(&event);
            }
        }
        let finished = Event::Finished {
            verdict: end.verdict,
            reason: end.reason,
            counts: counts(&self.session.plan),
        };
        // The verdict stands, whether or not the last line of the journal can be written.
        let mut journal = self.session.journal;
        let is_recorded = journal.record(&finished).is_ok();
        journal.close(&finished, kept);
        let until = interrupted(interrupts, 0);
        let options = &self.context.options;
        if let Err(e) = runs::prune(&options.state, options.keep, &options.id, until).await {
            emit(&Event::NotPruned { why: e.to_string() });
        }
        is_recorded
    }

    /// Closes the runs that this one takes the place of. These are the run that it continues and,
    /// where it has proven everything, open runs over the same targets.
    async fn close_earlier_runs(&self, verdict: Verdict, interrupts: &Interrupts) -> Vec<Event> {
        let is_proven = |i: &Instance| matches!(i.outcome, Outcome::Confirmed | Outcome::Unchanged);
        let plan = &self.session.plan;
        let context = &self.context;
        let all = verdict == Verdict::Converged && plan.instances().all(is_proven);
        let (paths, groups, replaced) = if all {
            (
                plan.paths(),
                context.group_names(),
                context.replaces.as_slice(),
            )
        } else {
            (Vec::new(), Vec::new(), [].as_slice())
        };
        let RunContext { options, .. } = context;
        let mut closed = Vec::new();
        let of = replaced.iter().map(|run| Some(run.as_str()));
        for of in [context.of.as_deref()].into_iter().chain(of) {
            let until = interrupted(interrupts, PATIENCE);
            let runs = runs::supersede(&options.state, &options.id, of, &paths, &groups, until);
            let runs = runs.await.into_iter();
            closed.extend(runs.map(|run| Event::Superseded { run }));
        }
        closed
    }

    /// Keeps what the run has proven. The run is still open here, so that no other run removes the
    /// bytes that the proofs name, and none believes an older record.
    async fn keep_final_proofs(
        &self,
        interrupts: &Interrupts,
        emit: &mut dyn FnMut(&Event),
    ) -> ProofsKept {
        let until = || interrupted(interrupts, PATIENCE);
        let plan = &self.session.plan;
        let RunContext {
            options, groups, ..
        } = &self.context;
        let proofs = proofs_of(plan.steps(), &self.session.host);
        let proven = ProofCache::keep(&options.state, &options.id, proofs, until()).await;
        let seen = LastSeen::keep(&options.state, groups, plan.instances(), until()).await;
        if let Err(e) = &proven {
            let why =
                format!("what this run has proven: {e}; older proofs of its instances are void");
            emit(&Event::NotKept { why });
        }
        if let Err(e) = seen {
            let why =
                format!("what this run leaves alive: {e}; `hello status` will miss the end of it");
            emit(&Event::NotKept { why });
        }
        match proven {
            Ok(()) => ProofsKept::Yes,
            Err(_) => ProofsKept::No,
        }
    }
}

fn counts(plan: &Plan) -> std::collections::BTreeMap<Outcome, usize> {
    let mut counts = std::collections::BTreeMap::new();
    for instance in plan.instances() {
        *counts.entry(instance.outcome).or_insert(0) += 1;
    }
    counts
}

impl HostLink for RunningSession {
    fn name(&self) -> &HostName {
        self.session.name()
    }

    fn note(&mut self, event: &Event) {
        self.session.note(event);
    }

    fn is_journaled(&self) -> bool {
        self.session.is_journaled()
    }

    async fn hear(&mut self, _: &mut dyn FnMut(&Event)) -> Result<(), Lost> {
        Ok(())
    }

    async fn request(
        &mut self,
        request: SessionRequest,
        interrupts: &Interrupts,
        emit: &mut dyn FnMut(&Event),
    ) -> Result<SessionAnswer, Lost> {
        self.session.request(request, interrupts, emit).await
    }
}
