//! The values of an instance for the placeholders of its assertions and commands.

use std::path::{Path, PathBuf};

use crate::{host::exec::placeholders::Values, step::PlannedInstance};

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
