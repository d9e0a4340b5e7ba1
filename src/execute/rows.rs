//! The rows of a report, from those of the hosts.

use crate::{
    event::{At, Verdict},
    inventory::HostName,
    protocol::HostRows,
    report::RunReport,
};

/// Returns the report of these rows.
pub(super) fn report_of(verdict: Verdict, reason: String, rows: HostRows) -> RunReport {
    RunReport {
        notes: rows.notes.into_iter().map(At::local).collect(),
        ..RunReport::new(verdict, reason, rows.targets, rows.instances)
    }
}

/// Adds the rows of a host, which name it.
pub(super) fn add(rows: &mut HostRows, name: &HostName, of_host: HostRows) {
    let HostRows {
        targets,
        instances,
        notes,
    } = of_host;
    rows.targets.extend(targets.into_iter().map(|mut target| {
        target.host = name.clone();
        target
    }));
    rows.instances
        .extend(instances.into_iter().map(|mut instance| {
            instance.host = name.clone();
            instance
        }));
    rows.notes.extend(notes);
}
