//! The limit of open files. `hello` raises its own, and gives its commands the limit that it was
//! started with.

use std::{io, sync::OnceLock};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

static ORIGINAL: OnceLock<(Option<u64>, Option<u64>)> = OnceLock::new();

/// Records the present limit, before `hello` raises it.
pub(crate) fn remember() {
    original();
}

/// Returns the limit that `hello` was started with, soft and hard; none for no limit.
pub(super) fn original() -> (Option<u64>, Option<u64>) {
    *ORIGINAL.get_or_init(|| {
        let limit = getrlimit(Resource::Nofile);
        (limit.current, limit.maximum)
    })
}

/// Sets the limit of this process.
///
/// # Errors
/// Fails if the hard limit is higher than the present one.
pub(super) fn restore((current, maximum): (Option<u64>, Option<u64>)) -> io::Result<()> {
    Ok(setrlimit(Resource::Nofile, Rlimit { current, maximum })?)
}
