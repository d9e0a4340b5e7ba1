//! How many descriptors this process may have open, and which of them its commands inherit.

use std::process::ExitCode;

use rustix::{
    io::fcntl_dupfd_cloexec,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use super::refusal::fail;
use crate::{event::Verdict, host::exec, screen};

/// The descriptors that a large run has open while every instance answers: the pidfds of signalled
/// instances, and the connections of their probes.
const DESCRIPTORS: i32 = 2000;

/// The fewest descriptors with which every inspection, lock and probe gets its own. With fewer, an
/// error of this program would look like a failure of an instance.
const FEWEST: u64 = 256;

/// The limit of open files, if it is below [`FEWEST`].
pub(super) struct TooFew(u64);

impl TooFew {
    /// Prints the error and the command that raises the limit.
    pub(super) fn fail(&self) -> ExitCode {
        let why = format!(
            "at most {} files may be open at once, and hello needs {FEWEST}",
            self.0
        );
        let hint = screen::hint(
            "raise the limit and run the same command again:",
            &[&format!("ulimit -n {FEWEST}")],
        );
        fail(Verdict::Failed.exit(), &format!("{why}\n\n{hint}"))
    }
}

/// Raises the limit of open files as far as the system allows, and makes room for [`DESCRIPTORS`].
///
/// # Errors
/// Fails if the system allows fewer than [`FEWEST`].
pub(super) fn raise_nofile_limit() -> Result<(), TooFew> {
    exec::remember();
    let limit = getrlimit(Resource::Nofile);
    // If the limit stays as it is, fewer instances are confirmed at the same time.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
    if let Some(now) = getrlimit(Resource::Nofile)
        .current
        .filter(|now| *now < FEWEST)
    {
        return Err(TooFew(now));
    }
    // The kernel doubles the table of descriptors as it fills. In a process with several threads
    // each growth waits until no core uses the old table: about 10 ms, five times for a thousand
    // instances. With one thread the table grows to its final size without a wait.
    drop(fcntl_dupfd_cloexec(screen::stderr(), DESCRIPTORS));
    Ok(())
}

/// Keeps descriptors that `hello` inherited from the commands that it starts. Those that it opens
/// itself are close-on-exec already.
pub(super) fn set_inherited_cloexec() {
    close_fds::set_fds_cloexec(3, &[]);
}
