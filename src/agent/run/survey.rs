//! The survey of a run on this host, by the order of its coordinator.

use std::path::Path;

use super::{AgentRun, Stage, Timer};
use crate::{
    agent::{earlier::Earlier, host_agent::Agent},
    event::{Abort, Event, Interrupts, Verdict, interrupted},
    protocol::{
        ChangeOrder, InstanceEntry, Numbers, PartOf, Refused, RefusedKind, RunAnswer, SurveyOrder,
    },
    runs::{self, Verb},
    session::{
        BroadcastOrder, Caller, Prepared, RecoverOrder, SessionOptions, survey_broadcast,
        survey_recovery,
    },
};

/// The run that is continued, as the journal of this host has it.
#[derive(Debug, Default)]
struct EarlierRun {
    is_over: bool,
    part_of: Option<PartOf>,
    armed_s: Option<u64>,
}

impl AgentRun {
    pub(super) async fn survey(
        &mut self,
        agent: &Agent,
        order: SurveyOrder,
        interrupts: &mut Interrupts,
        emit: &mut dyn FnMut(&Event),
    ) -> Result<Result<RunAnswer, Abort>, Refused> {
        let mut fleet = agent.selected(&order.groups, order.every)?;
        for group in &mut fleet.groups {
            group.rollout.skips_unresponsive = order.counted.has(&group.name);
        }
        if matches!(order.others, ChangeOrder::Put { .. }) && fleet.groups.len() > 1 {
            return Err(Refused {
                kind: RefusedKind::NotAllowed,
                text: "one content is for one group, and this host has several of them".into(),
            });
        }
        let changes = self.candidates.changes(&order).map_err(|why| Refused {
            kind: RefusedKind::BadDigest,
            text: why.to_string(),
        })?;
        let is_dry_run = order.dry_run;
        let Some(options) = self.options(agent, &order) else {
            let why = "there is no state directory on this host";
            return Ok(Err(Abort::new(Verdict::Failed, why)));
        };
        let mut earlier_run = EarlierRun::default();
        let prepared = match order.of {
            Some(of) => {
                let is_asked = is_dry_run || !of.may_skip;
                ensure_begun((&options.state, &of.run), is_asked, interrupts).await?;
                let earlier = Earlier::find(&options.state, &of)?;
                let is_over = earlier.is_over;
                // The timer of the earlier run goes on with this one.
                self.timer = Timer {
                    seconds: earlier.armed_s,
                    is_armed: earlier.armed_s.is_some(),
                };
                earlier_run = EarlierRun {
                    is_over,
                    part_of: earlier.part_of,
                    armed_s: earlier.armed_s,
                };
                let order = RecoverOrder {
                    verb: if of.revert {
                        Verb::Revert
                    } else {
                        Verb::Resume
                    },
                    run: Some(earlier.run),
                    fleet: None,
                    caller: Caller::Coordinator { is_over },
                    options,
                };
                survey_recovery(order, interrupts, emit).await
            }
            None => {
                let order = BroadcastOrder {
                    fleet,
                    changes,
                    overwrite: order.overwrite,
                    count: None,
                    now: order.now,
                    verb: Verb::Broadcast,
                    replaces: Vec::new(),
                    options,
                };
                survey_broadcast(order, interrupts, emit).await
            }
        };
        let answer = match prepared {
            Ok(prepared) => {
                let prepared = (prepared, is_dry_run);
                self.prepare(prepared, earlier_run, interrupts).await
            }
            Err(abort) => Err(abort),
        };
        Ok(answer)
    }

    /// Returns the options of the run here; none without a state directory.
    fn options(&self, agent: &Agent, order: &SurveyOrder) -> Option<SessionOptions> {
        Some(SessionOptions {
            id: self.card.id.clone(),
            host: agent.name(),
            validate: order.validate,
            dry_run: order.dry_run,
            include_unresponsive: order.include_unresponsive,
            timeout: order.timeout,
            lock_timeout: order.lock_timeout,
            claimed: agent.claimed.clone(),
            reason: order.reason.clone(),
            command: order.command.clone(),
            state: agent.options.state.clone()?,
            state_args: String::new(),
            keep: agent.options.keep,
        })
    }

    /// Keeps what is prepared for the requests that follow, and answers with its plan.
    async fn prepare(
        &mut self,
        (prepared, is_dry_run): (Prepared, bool),
        earlier: EarlierRun,
        interrupts: &Interrupts,
    ) -> Result<RunAnswer, Abort> {
        if !is_dry_run {
            let epoch = prepared.raise_counter(interrupts).await?;
            // A connection that has attached meanwhile has raised it further.
            self.card.epoch.set(self.card.epoch.get().max(epoch));
        }
        let context = prepared.context();
        let plan = prepared.host_plan();
        let entries = (0..).zip(&plan.entries);
        let is_reverted = |entry: &InstanceEntry| {
            let id = (entry.pid, entry.started);
            context.reverted.contains(&id)
        };
        let reverted = entries.filter(|(_, entry)| is_reverted(entry));
        let reverted = reverted.map(|(number, _)| number).collect();
        let answer = RunAnswer::Plan {
            plan,
            rows: is_dry_run.then(|| prepared.preview()),
            unreplaced: context.unreplaced.clone(),
            back: context.back,
            now: context.now,
            is_over: earlier.is_over,
            part_of: earlier.part_of,
            armed_s: earlier.armed_s,
            reverted: Numbers(reverted),
        };
        self.stage = if is_dry_run {
            Stage::Ended
        } else {
            Stage::Prepared(Box::new(prepared))
        };
        Ok(answer)
    }
}

/// Checks that the earlier run has begun here. One that never did is kept from it, unless this run
/// only asks: its coordinator may still be there, and the run ends without this host.
///
/// # Errors
/// Fails if it has not begun, with [`RefusedKind::NeverBegan`].
async fn ensure_begun(
    (state, run): (&Path, &str),
    is_asked: bool,
    interrupts: &Interrupts,
) -> Result<(), Refused> {
    if !runs::never_began(state, run) {
        return Ok(());
    }
    let skipped = match is_asked {
        true => Ok(true),
        false => runs::skip_run(state, run, interrupted(interrupts, 0)).await,
    };
    match skipped {
        Ok(false) => Ok(()),
        Ok(true) => Err(Refused {
            kind: RefusedKind::NeverBegan,
            text: format!("run {run} never began there"),
        }),
        Err(why) => Err(Refused {
            kind: RefusedKind::NoRun,
            text: format!("run {run} never began there, and that cannot be recorded: {why}"),
        }),
    }
}
