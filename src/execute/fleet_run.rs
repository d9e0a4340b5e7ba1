//! A run, besides the plans of its hosts.

use super::{continued::AloneIn, gate::OperatorGates};
use crate::{
    engine::{self, EngineOptions, FleetPlan, GroupPolicy, ReachBudget, RunEnd},
    event::{Abort, Event, Interrupts},
    fleet::Share,
    inventory::HostName,
    protocol::HostLink,
    runs::Verb,
    session::RunContext,
    waves::Rounds,
};

/// A run over prepared hosts, besides their plans.
#[derive(Debug)]
pub(crate) struct FleetRun {
    /// The run's id.
    pub(crate) id: String,
    /// The command.
    pub(crate) verb: Verb,
    /// The config that it installs is an old one.
    pub(crate) back: bool,
    /// No bake, no gate, and no rollback.
    pub(crate) now: bool,
    /// Show the run, and drop what was staged.
    pub(crate) dry_run: bool,
    /// Instances that have gone since the earlier run, for the reason of a good end.
    pub(crate) unreplaced: Option<String>,
    /// The run over hosts that it continues on this host alone.
    pub(crate) alone_in: Option<AloneIn>,
    /// The groups of the run.
    pub(crate) groups: Vec<GroupPolicy>,
    /// The hosts that work on one request at once.
    pub(crate) parallel: usize,
    /// The hosts that may be lost before they are touched.
    pub(crate) reach: ReachBudget,
}

impl FleetRun {
    /// Carries out a plan that every host has accepted. Each event comes with its host.
    ///
    /// # Errors
    /// Fails if the run ended before it touched anything.
    pub(super) async fn carry_out<L: HostLink>(
        &self,
        plan: &mut FleetPlan<L>,
        interrupts: &mut Interrupts,
        report: &mut impl FnMut(&HostName, &Event),
    ) -> Result<RunEnd, Abort> {
        let waves = Event::Waves {
            instances: plan.waves.iter().map(|wave| wave.instances).collect(),
        };
        report(&HostName::local(), &waves);
        let options = EngineOptions {
            immediate: self.now,
            parallel: self.parallel,
            reach: self.reach,
        };
        let mut gates = OperatorGates { run: &self.id };
        engine::run(plan, options, interrupts, &mut gates, report).await
    }

    /// Returns the run of a fleet of one host.
    pub(crate) fn of_this_host(context: &RunContext) -> Self {
        Self {
            id: context.options.id.clone(),
            verb: context.verb,
            back: context.back,
            now: context.now,
            dry_run: context.options.dry_run,
            unreplaced: context.unreplaced.clone(),
            alone_in: AloneIn::of(context.of.as_ref(), context.alone_in.as_ref()),
            groups: context
                .groups
                .iter()
                .map(|group| GroupPolicy {
                    name: group.name.clone(),
                    rollout: group.rollout.clone(),
                    rounds: Rounds::new(),
                })
                .collect(),
            parallel: 1,
            reach: ReachBudget {
                max: Share::Count(0),
                hosts: 1,
                unreachable: 0,
            },
        }
    }
}
