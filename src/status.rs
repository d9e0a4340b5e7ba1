//! `hello status`: which processes do not run the config on their disk, and which would not survive
//! their next reload. Reads only.

use std::cell::RefCell;

use schemars::{Schema, SchemaGenerator};

use self::{
    faults::{Answer, Findings, GroupRow},
    probe::StatusProbe,
    row::Row,
};
use crate::{
    event::Verdict,
    fleet::Group,
    host::{
        discover::{Scan, found::Finds},
        net::sockets::Listeners,
        probe::limits::ProbeLimits,
        validate::current::ValidationCache,
    },
    report::fail,
    runs::{LastSeen, ProofCache},
    screen,
};

mod assertions;
mod faults;
mod options;
mod probe;
mod row;
mod targets;

pub(crate) use self::{faults::no_rows, options::Options};

/// Returns the schema of the answer.
#[must_use]
pub(crate) fn schema(mut generator: SchemaGenerator) -> Schema {
    generator.root_schema_for::<Answer<'_>>()
}

/// Probes every instance. Returns the exit code: 0 if all agree with their disk, 7 if one does not,
/// 3 if nothing was found, 9 if a run is under way.
pub(crate) async fn run(options: Options) -> u8 {
    // A problem of this program is no fault of an instance.
    let (scan, listeners) = match Scan::take().and_then(|scan| Ok((scan, Listeners::read()?))) {
        Ok(read) => read,
        Err(e) => {
            let why = format!("cannot read the processes and their sockets: {e}");
            return failed(&options, &why);
        }
    };
    let state = options.state.as_deref();
    let probe = StatusProbe {
        listeners,
        limits: ProbeLimits::default(),
        validations: ValidationCache::default(),
        proofs: state.map(ProofCache::load).unwrap_or_default(),
        locks: RefCell::default(),
    };
    let last = state.map(LastSeen::load).unwrap_or_default();
    let groups = &options.fleet.groups;
    let finds = scan.find_all(groups.iter()).await;
    if let Some(why) = finds.iter().find_map(|finds| finds.blind.as_ref()) {
        return failed(
            &options,
            &format!("cannot read the processes of this host: {why}"),
        );
    }
    probe.limits.add_known(
        finds
            .iter()
            .flat_map(|finds| &finds.found)
            .map(|f| (f.pid, f.started)),
    );
    let mut rows = Vec::new();
    let mut findings = Findings::default();
    let mut skipped = Vec::new();
    for (group, mut finds) in groups.iter().zip(finds) {
        // The operator must see that these processes were not checked.
        for (pid, why) in finds.skipped.iter().filter(|_| !options.quiet) {
            screen::tell(&screen::worded("Skipped", &format!("pid {pid} {why}")));
        }
        skipped.append(&mut finds.skipped);
        let sure = finds.found.len();
        let found = sure + finds.refused.len();
        rows.extend(group_rows(&probe, group, finds).await);
        findings
            .groups
            .push(GroupRow::of(group, (found, sure), &rows, &last));
    }
    let locks = probe.locks.into_inner().into_values().flatten().collect();
    findings.add_runs(&options, &rows, locks);
    findings.show(&options, &rows, &skipped)
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
        row.faults.push(why);
        rows.push(row);
    }
    rows
}

/// Reports why the processes could not be read. Returns the exit code.
fn failed(options: &Options, why: &str) -> u8 {
    fail(options.output, Verdict::Failed, why, &[], no_rows())
}
