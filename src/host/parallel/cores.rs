//! The cores of this machine.

use std::{sync::OnceLock, thread::available_parallelism};

/// Returns the number of cores that this process may use. The limits of its cgroup are read once:
/// they take 30 system calls, and every division of work needs the number.
pub(crate) fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| available_parallelism().map_or(1, usize::from))
}
