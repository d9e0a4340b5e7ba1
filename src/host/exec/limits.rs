//! The limit of open files: `hello` raises its own, and the commands that it starts are given the
//! one that it was started with.

use std::{io, sync::OnceLock};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

static ORIGINAL: OnceLock<(Option<u64>, Option<u64>)> = OnceLock::new();

/// Remembers the limit as it is now, before it is raised.
pub(crate) fn remember() {
    original();
}

/// The limit that `hello` was started with, soft and hard; none for no limit.
pub(super) fn original() -> (Option<u64>, Option<u64>) {
    *ORIGINAL.get_or_init(|| {
        let limit = getrlimit(Resource::Nofile);
        (limit.current, limit.maximum)
    })
}

/// Gives this process that limit.
pub(super) fn restore((current, maximum): (Option<u64>, Option<u64>)) -> io::Result<()> {
    Ok(setrlimit(Resource::Nofile, Rlimit { current, maximum })?)
}
