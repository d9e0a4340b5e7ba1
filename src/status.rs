//! `hello status`: which processes do not run the config on their disk, and which would not survive
//! their next reload. Reads only.

use std::{cell::RefCell, path::Path};

use self::{
    faults::Findings, group_row::GroupRow, probe::StatusProbe, row::Row, snapshot::Snapshot,
};
use crate::{
    fleet::{Fleet, Group},
    host::{
        discover::{Scan, found::Finds},
        net::sockets::Listeners,
        probe::limits::ProbeLimits,
        validate::current::ValidationCache,
    },
    runs::{LastSeen, ProofCache},
};

mod answer;
mod assertions;
mod faults;
mod group_row;
mod hosts;
mod hosts_listing;
mod listing;
mod options;
mod probe;
mod row;
mod running;
mod snapshot;
mod targets;
mod watch;

pub(crate) use self::{
    answer::{no_rows, schema, skipped_lines},
    options::{HostOptions, Options},
    running::{Ask, ReadTarget, Readings, read_targets},
    watch::watch,
};

/// Probes every instance. Returns the exit code: 0 if all agree with their disk, 7 if one does not,
/// 3 if nothing was found, 9 if a run is under way.
pub(crate) async fn run(options: Options) -> u8 {
    let snapshot = take(&options).await;
    snapshot.show(options.output);
    snapshot.exit
}

/// Probes every instance once. Returns the object that `-o json` prints.
pub(crate) async fn answer(options: Options) -> serde_json::Value {
    take_here(&options).await.json
}

/// Probes every instance once, on every host of the fleet.
async fn take(options: &Options) -> Snapshot {
    match &options.fleet.hosts {
        None => take_here(options).await,
        Some(hosts) => hosts::take(options, hosts).await,
    }
}

/// Probes every instance of this machine once.
async fn take_here(options: &Options) -> Snapshot {
    let state = options.state.as_deref();
    // A problem of this program is no fault of an instance.
    let (probe, finds) = match find(&options.fleet, state, &options.state_args).await {
        Ok(found) => found,
        Err(why) => return Snapshot::failed(why.to_string(), no_rows()),
    };
    let last = state.map(LastSeen::load).unwrap_or_default();
    let groups = &options.fleet.groups;
    let mut rows = Vec::new();
    let mut findings = Findings::default();
    let mut skipped = Vec::new();
    for (group, mut finds) in groups.iter().zip(finds) {
        let texts = finds
            .skipped
            .drain(..)
            .map(|(pid, why)| (pid, why.to_string()));
        skipped.extend(texts);
        let sure = finds.found.len();
        let found = sure + finds.refused.len();
        let of_group = group_rows(&probe, group, finds).await;
        let row = GroupRow::of(group, (found, sure), &of_group, &last);
        findings.groups.push(row);
        rows.extend(of_group);
    }
    let locks = probe.locks.into_inner().into_values().flatten().collect();
    findings.add_runs(options, &rows, locks);
    findings.snapshot(options, rows, &skipped)
}

/// The processes of this machine, or their sockets, cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("cannot read the processes and their sockets: {0}")]
    System(#[from] std::io::Error),
    /// A process could not be read for a reason that is this program's own.
    #[error("cannot read the processes of this host: {0}")]
    Process(String),
}

/// Finds the processes of every group, and prepares their probes.
///
/// # Errors
/// Fails if the processes or their sockets cannot be read.
async fn find(
    fleet: &Fleet,
    state: Option<&Path>,
    state_args: &str,
) -> Result<(StatusProbe, Vec<Finds>), Unreadable> {
    let (scan, listeners) = Scan::take()
        .and_then(|scan| Ok((scan, Listeners::read()?)))
        .map_err(Unreadable::System)?;
    let probe = StatusProbe {
        listeners,
        limits: ProbeLimits::default(),
        validations: ValidationCache::default(),
        proofs: state.map(ProofCache::load).unwrap_or_default(),
        state_args: state_args.to_owned(),
        locks: RefCell::default(),
    };
    let finds = scan.find_all(fleet.groups.iter()).await;
    if let Some(why) = finds.iter().find_map(|finds| finds.blind.as_ref()) {
        return Err(Unreadable::Process(why.to_string()));
    }
    let found = finds.iter().flat_map(|finds| &finds.found);
    probe.limits.add_known(found.map(|f| (f.pid, f.started)));
    Ok((probe, finds))
}

/// Returns the rows of one group: its instances, then refused and missing processes.
async fn group_rows(probe: &StatusProbe, group: &Group, finds: Finds) -> Vec<Row> {
    let found = finds.found.iter().map(|found| probe.row(group, found));
    let mut rows = futures_util::future::join_all(found).await;
    let refused = finds
        .refused
        .into_iter()
        .map(|(found, why)| (found.pid, found.started, why));
    let missing = finds.missing.into_iter().map(|(pid, why)| (pid, 0, why));
    for (pid, started, why) in refused.chain(missing) {
        let mut row = Row::new(group, pid, started);
        row.faults.push(why.to_string());
        rows.push(row);
    }
    rows
}
