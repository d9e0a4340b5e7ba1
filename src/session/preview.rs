//! Shows what a run would do on its host, without doing it.

use super::rows::rows;
use crate::{
    event::TargetReport,
    host::Host,
    plan::Plan,
    protocol::HostRows,
    step::{ContentDifference, Side, TargetChange},
};

/// Returns what would be done, with the difference of every config that is not secret.
pub(super) fn preview(plan: &Plan, host: &Host) -> HostRows {
    let mut rows = rows(plan, host);
    for (target, change) in rows.targets.iter_mut().zip(plan.targets()) {
        show_difference(target, change);
    }
    rows
}

fn show_difference(target: &mut TargetReport, change: &TargetChange) {
    let Some(from) = &change.from else { return };
    // A content that is on the disk already is compared with the one from before it.
    let names = match &target.disk {
        Some(disk) if *disk == target.to => ["before", "disk"],
        _ => ["now", "new"],
    };
    let sides = names.map(|name| Side { name, note: "" });
    let difference = ContentDifference::of(from, &change.to, sides);
    target.entries = difference.entries;
    target.diff = difference.diff.filter(|_| !change.secret);
}
