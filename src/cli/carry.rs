//! Carries out a command to its exit code.

use std::process::ExitCode;

use super::{descriptors, interrupt, refusal::fail};
use crate::{
    event::{Halts, Verdict},
    host::parallel::at_once::by_this_thread,
    runtime,
};

/// Runs a command that may touch something to its verdict.
pub(super) fn act<F: Future<Output = Verdict> + 'static>(
    command: impl FnOnce(Halts) -> F + 'static,
) -> ExitCode {
    wait_for(|| async {
        match interrupt::watch() {
            Ok(halts) => ExitCode::from(command(halts).await.exit()),
            Err(e) => fail(1, &format!("cannot catch SIGINT and SIGTERM: {e}")),
        }
    })
}

/// Runs what looks at processes, on this thread.
pub(super) fn wait_for<F: Future<Output = ExitCode> + 'static>(
    command: impl FnOnce() -> F + 'static,
) -> ExitCode {
    descriptors::close_handed_down();
    by_this_thread();
    runtime::run(command).unwrap_or_else(|e| fail(1, &format!("cannot start: {e}")))
}
