//! Carries out a command to its exit code.

use std::process::ExitCode;

use super::{descriptors, interrupt, refusal::fail};
use crate::{
    event::{Interrupts, Verdict},
    runtime,
};

/// Runs a command that may touch something to its verdict.
pub(super) fn run_mutating<F: Future<Output = Verdict> + 'static>(
    command: impl FnOnce(Interrupts) -> F + 'static,
) -> ExitCode {
    block_on(|| async {
        match interrupt::watch() {
            Ok(halts) => ExitCode::from(command(halts).await.exit()),
            Err(e) => fail(1, &format!("cannot catch SIGINT and SIGTERM: {e}")),
        }
    })
}

/// Runs what looks at processes, on this thread.
pub(super) fn block_on<F: Future<Output = ExitCode> + 'static>(
    command: impl FnOnce() -> F + 'static,
) -> ExitCode {
    descriptors::set_inherited_cloexec();
    runtime::run(command).unwrap_or_else(|e| fail(1, &format!("cannot start: {e}")))
}
