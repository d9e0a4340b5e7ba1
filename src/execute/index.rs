//! The index of a run over hosts: a journal in the coordinator's state directory. The journals of
//! the hosts are what a later run goes by; this one names the hosts, and what was seen of them.

use std::path::PathBuf;

use super::{decision::Absent, hosts_order::HostsOrder};
use crate::{
    engine::FleetPlan,
    event::{Abort, Event, Instance, Interrupts, interrupted},
    fleet::Order,
    hosts::RemoteRun,
    inventory::HostName,
    protocol::HostLink,
    runs::{self, Journal, OverHosts, ProofsKept, Record, RunInfo},
    session::SessionOptions,
};

/// The most runs that are followed, each of which resumes the one before.
const MOST_RESUMES: usize = 100;

/// The index of one run.
#[derive(Debug)]
pub(super) struct Index {
    journal: Journal,
    options: SessionOptions,
    /// The earlier run that this one continues.
    of: Option<String>,
    /// The hosts of this run.
    hosts: Vec<HostName>,
}

/// Begins the index of a run.
///
/// # Errors
/// Fails if the state directory cannot be written. Nothing was touched.
pub(super) async fn begin(
    order: &HostsOrder<'_>,
    (plan, is_back): (&FleetPlan<RemoteRun>, bool),
    interrupts: &Interrupts,
) -> Result<Index, Abort> {
    let options = &order.options;
    let of = order.order.of.as_ref().map(|of| of.run.clone());
    let instances: Vec<Instance> = plan.hosts.iter().flat_map(instances_of).collect();
    let hosts = plan.hosts.iter().map(|host| host.link.name().clone());
    let hosts: Vec<HostName> = hosts.collect();
    let record = Record {
        id: &options.id,
        host: HostName::local(),
        verb: order.verb,
        of: of.as_deref(),
        back: is_back,
        claimed: None,
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
            fleet: whole_path(order),
            hosts: hosts.clone(),
            groups: groups_of(order, plan),
        }),
        part_of: None,
    };
    let journal = Journal::begin(&options.state, &record, interrupts);
    let journal = journal.await.map_err(|why| why.abort(&options.state))?;
    Ok(Index {
        journal,
        options: options.clone(),
        of,
        hosts,
    })
}

/// Returns the groups of the run. A run that finds nothing to do on any host has those of the run
/// that it continues.
fn groups_of(order: &HostsOrder<'_>, plan: &FleetPlan<RemoteRun>) -> Vec<String> {
    let groups: Vec<String> = plan.groups.iter().map(|group| group.name.clone()).collect();
    let of = order.order.of.as_ref().filter(|_| groups.is_empty());
    let began = of.and_then(|of| RunInfo::of(&order.options.state, &of.run).began);
    began.map_or(groups, |began| began.groups)
}

/// Returns the path of the fleet file from every directory: a later command may be typed in another
/// one.
fn whole_path(order: &HostsOrder<'_>) -> PathBuf {
    let path = order.fleet.path.clone().unwrap_or_default();
    std::path::absolute(&path).unwrap_or(path)
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

    /// Tells whether an earlier run has begun on hosts that are no part of this one.
    fn leaves_hosts(&self, earlier: &str, absent: &Absent) -> bool {
        let earlier = runs::over_hosts(&self.options.state, Some(earlier));
        let is_left = |host: &HostName| !self.hosts.contains(host) && !absent.has_not_begun(host);
        earlier.is_some_and(|earlier| earlier.hosts.iter().any(is_left))
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
        // A run that was resumed more than once is closed with those that resumed it.
        let mut of = self.of.clone();
        for _ in 0..MOST_RESUMES {
            let Some(earlier) = of.take() else { break };
            if !is_over || absent.leaves_hosts() || self.leaves_hosts(&earlier, absent) {
                break;
            }
            let until = interrupted(interrupts, 1);
            for run in runs::supersede(state, id, Some(&earlier), &[], &[], until).await {
                let _ = self.journal.record(&Event::Superseded { run });
            }
            of = RunInfo::of(state, &earlier)
                .began
                .and_then(|began| began.of);
        }
        // A run that has lost a host is open there, so it is open here: a resume without a name
        // must find it. One that has touched nothing anywhere has nothing to resume.
        if absent.lost().is_empty() || !is_over {
            let _ = self.journal.record(finished);
            self.journal.close(finished, ProofsKept::Yes);
        }
        let until = interrupted(interrupts, 0);
        let _ = runs::prune(state, *keep, id, until).await;
    }
}
