//! The index of a run over hosts: a journal in the coordinator's state directory. The journals of
//! the hosts are what a later run goes by; this one names the hosts, and what was seen of them.

use super::{decision::Absent, over_hosts::HostsOrder};
use crate::{
    engine::FleetPlan,
    event::{Abort, Event, Instance, Interrupts, Verdict, interrupted},
    fleet::Order,
    hosts::RemoteRun,
    inventory::HostName,
    protocol::HostLink,
    runs::{self, Journal, NotBegun, OverHosts, ProofsKept, Record},
    session::SessionOptions,
};

/// The index of one run.
#[derive(Debug)]
pub(super) struct Index {
    journal: Journal,
    options: SessionOptions,
    /// The earlier run that this one continues.
    of: Option<String>,
}

/// Begins the index of a run.
///
/// # Errors
/// Fails if the state directory cannot be written. Nothing was touched.
pub(super) async fn begin(
    order: &HostsOrder<'_>,
    plan: &FleetPlan<RemoteRun>,
    interrupts: &Interrupts,
) -> Result<Index, Abort> {
    let options = &order.options;
    let of = order.order.of.as_ref().map(|of| of.run.clone());
    let instances: Vec<Instance> = plan.hosts.iter().flat_map(instances_of).collect();
    let hosts = plan.hosts.iter().map(|host| host.link.name().clone());
    let record = Record {
        id: &options.id,
        host: HostName::local(),
        verb: order.verb,
        of: of.as_deref(),
        back: false,
        reason: options.reason.as_deref(),
        command: options.command.clone(),
        groups: &[],
        order: Order::new(),
        targets: Vec::new(),
        instances: instances.iter().collect(),
        readings: Vec::new(),
        waves: plan.waves.len(),
        contents: Vec::new(),
        over: Some(OverHosts {
            fleet: order.fleet.path.clone().unwrap_or_default(),
            hosts: hosts.collect(),
            groups: plan.groups.iter().map(|group| group.name.clone()).collect(),
        }),
    };
    let journal = Journal::begin(&options.state, &record, interrupts);
    let journal = journal.await.map_err(|why| match why {
        NotBegun::Interrupted(interrupted) => interrupted.into(),
        NotBegun::Io(e) => {
            let state = options.state.display();
            let why = format!("the state directory `{state}` cannot be used: {e}");
            Abort::new(Verdict::Failed, why)
        }
    })?;
    Ok(Index {
        journal,
        options: options.clone(),
        of,
    })
}

fn instances_of(host: &crate::engine::RunHost<RemoteRun>) -> Vec<Instance> {
    let name = host.link.name();
    let entries = host.plan.entries.iter();
    entries
        .map(|entry| {
            let group = host.plan.groups.get(usize::from(entry.group));
            let group = group.map_or("", String::as_str);
            let mut instance = Instance::new(group, entry.pid, entry.started);
            instance.host = name.clone();
            instance.wave = usize::from(entry.wave);
            instance.outcome = entry.outcome;
            instance
        })
        .collect()
}

impl Index {
    /// Appends an event of a host. The hosts' own journals have it too, so a failure ends nothing.
    pub(super) fn record(&mut self, host: &HostName, event: &Event) {
        if !matches!(event, Event::Phase { .. }) {
            let _ = self.journal.record_of(host, event);
        }
    }

    /// Records the end. The earlier run is closed as well, unless a host of it is left.
    pub(super) async fn end(
        mut self,
        finished: &Event,
        (is_over, absent): (bool, &Absent),
        interrupts: &Interrupts,
    ) {
        let SessionOptions {
            state, id, keep, ..
        } = &self.options;
        if is_over && !absent.leaves_hosts() {
            let until = interrupted(interrupts, 1);
            let of = self.of.as_deref();
            for run in runs::supersede(state, id, of, &[], &[], until).await {
                let _ = self.journal.record(&Event::Superseded { run });
            }
        }
        let _ = self.journal.record(finished);
        // A run that has lost a host is open: what happens there is not known.
        let kept = if absent.has_lost() {
            ProofsKept::No
        } else {
            ProofsKept::Yes
        };
        self.journal.close(finished, kept);
        let until = interrupted(interrupts, 0);
        let _ = runs::prune(state, *keep, id, until).await;
    }
}
