//! Reads the targets of an instance, and the state of each that is known without a probe.

use std::path::Path;

use super::row::{KnownBy, Row, RowTarget};
use crate::{
    fleet::Group,
    host::{
        discover::{self, found::Found},
        proc::guard,
        target::changed::changed_ns,
        validate::current::CurrentTarget,
    },
    runs::{ProofCache, ProvenTarget},
};

/// The error of a start time, in nanoseconds. The kernel counts it in ticks and rounds it down.
/// A process may have read a file that changed within this time after its start.
const START_TOLERANCE: i128 = 50_000_000;

/// Adds every target of an instance to its row, with the faults that the disk shows.
pub(super) fn add_targets(
    row: &mut Row,
    group: &Group,
    found: &Found,
    current: &[CurrentTarget],
    proofs: &ProofCache,
) {
    let restart_only = discover::fixed_of(found, group);
    let started_ns = guard::start_time_ns(found.started);
    for path in &restart_only {
        let target = current.iter().find(|target| target.path == *path);
        let ctime = target.and_then(|target| target.ctime);
        if is_newer(path, ctime, started_ns + START_TOLERANCE) {
            row.faults.push(format!(
                "`{}` was changed after it started, and it reads that only then: it runs an older \
                 config than its disk: restart it",
                path.display()
            ));
        }
    }
    for target in current {
        if let Err(why) = &target.disk {
            row.faults.push(why.to_string());
        }
        let proven = proofs.of(found.pid, found.started, &target.path);
        let (runs, known) = if restart_only.contains(&target.path) {
            if is_newer(&target.path, target.ctime, started_ns) {
                (None, KnownBy::No)
            } else {
                (target.sha256().map(str::to_owned), KnownBy::Started)
            }
        } else {
            known_by_proof(target, proven)
        };
        let row_target = RowTarget {
            path: target.path.clone(),
            rev: target.rev.clone(),
            disk: target.sha256().map(str::to_owned),
            runs,
            known,
        };
        if row_target.known == KnownBy::Proven {
            row.faults
                .extend(drift(&row_target, target, proven).into_iter().flatten());
        }
        row.targets.push(row_target);
    }
}

/// Returns the digest that a run has proven, and how it is known.
fn known_by_proof(
    target: &CurrentTarget,
    proven: Option<&ProvenTarget>,
) -> (Option<String>, KnownBy) {
    match proven {
        // It was changed since and has the old content again: the process may have read the other
        // content.
        Some(proven)
            if target.sha256() == Some(&proven.sha256) && target.ctime != Some(proven.ctime) =>
        {
            (None, KnownBy::No)
        }
        Some(proven) => (Some(proven.sha256.clone()), KnownBy::Proven),
        None => (None, KnownBy::No),
    }
}

/// Returns the faults of a target that has changed since its proof.
fn drift(
    row_target: &RowTarget,
    target: &CurrentTarget,
    proven: Option<&ProvenTarget>,
) -> [Option<String>; 2] {
    let path = target.path.display();
    let changed = (row_target.runs != row_target.disk)
        .then(|| format!("`{path}` on disk was changed after it was proven"));
    let behind = proven
        .and_then(|proven| proven.behind.as_deref())
        .filter(|behind| target.behind.as_deref() != Some(*behind))
        .map(|behind| {
            let change = if behind.is_empty() {
                "is read now"
            } else {
                "was changed"
            };
            format!(
                "content that is read through `{path}` (a link or an include) {change} since it \
                 was proven"
            )
        });
    [changed, behind]
}

/// Tells whether a file changed at or after `moment`. `ctime` is its last change, if known.
fn is_newer(path: &Path, ctime: Option<i128>, moment: i128) -> bool {
    ctime
        .or_else(|| path.symlink_metadata().ok().as_ref().map(changed_ns))
        .is_some_and(|changed_at| changed_at >= moment)
}
