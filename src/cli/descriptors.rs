//! How many files this process may have open, and which of them it hands on.

use std::process::ExitCode;

use rustix::{
    io::fcntl_dupfd_cloexec,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use super::refusal::fail;
use crate::{event::Verdict, host::exec, screen};

/// How many descriptors a run has open for signals and questions while no instance is stuck: a
/// pidfd for each that is signalled, and the connections of both lanes.
const DESCRIPTORS: i32 = 2000;

/// The fewest descriptors with which every look, lock and question has its own. With fewer, an
/// error of this program would look like a fact about an instance.
const FEWEST: u64 = 256;

/// At most this many files may be open at once, which is below [`FEWEST`].
pub(super) struct TooFew(u64);

impl TooFew {
    /// Tells the reason and what to do; where JSON was asked for, its object says so too.
    pub(super) fn tell(&self) -> ExitCode {
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

/// A pidfd and a connection for every instance: as many descriptors as are allowed, and room for
/// many of them from the start.
///
/// # Errors
/// Fails if fewer are allowed than are needed.
pub(super) fn raise_nofile_limit() -> Result<(), TooFew> {
    exec::remember();
    let limit = getrlimit(Resource::Nofile);
    // Without that limit, fewer instances are waited for at once.
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
    // As soon as there is a second thread, every time that the table of descriptors grows the
    // kernel waits until no core can look at the old one: some 10 ms, five times for a thousand
    // instances. Without one it is made as large as it will be at no cost.
    drop(fcntl_dupfd_cloexec(screen::stderr(), DESCRIPTORS));
    Ok(())
}

/// Keeps the descriptors that `hello` was handed from every command that it starts. Those that it
/// opens itself are kept from them already.
pub(super) fn set_inherited_cloexec() {
    close_fds::set_fds_cloexec(3, &[]);
}
