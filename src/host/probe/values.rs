//! The values of an instance for the placeholders of its assertions and commands.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{assertion::Showing, host::exec::placeholders::Values, step::PlannedInstance};

/// Returns the values of the placeholders of `member`; `exe` is its executable.
pub(crate) fn values_of<'a>(member: &'a PlannedInstance, exe: &'a Path) -> Values<'a> {
    let instance = &member.instance;
    let config = instance.targets.first().map(PathBuf::as_path);
    Values {
        pid: member.identity.inside,
        process: instance.pid,
        exe,
        args: &member.args,
        endpoint: &instance.endpoint,
        config,
        candidate: config,
    }
}

/// Tells whether a message may contain what an instance says. It may if every user may read its
/// targets, or if its group declares that they are not secret.
pub(crate) fn showing(member: &PlannedInstance) -> Showing {
    let is_public = |path: &PathBuf| path.metadata().is_ok_and(|m| m.mode() & 0o004 != 0);
    match member.group.secret {
        Some(false) => Showing::Open,
        None if member.instance.targets.iter().all(is_public) => Showing::Open,
        _ => Showing::Secret,
    }
}
