//! Runs a command to its exit code.

use std::process::ExitCode;

use super::{descriptors, interrupt, refusal::fail};
use crate::{
    event::{Interrupts, Verdict},
    runtime,
};

/// Runs a command that may change something; SIGINT and SIGTERM end it in order.
pub(super) fn run_mutating<F: Future<Output = Verdict> + 'static>(
    command: impl FnOnce(Interrupts) -> F + 'static,
) -> ExitCode {
    run_until_interrupted(|interrupts| async { command(interrupts).await.exit() })
}

/// Runs a command that ends by SIGINT and SIGTERM; its output is the exit code.
pub(super) fn run_until_interrupted<F: Future<Output = u8> + 'static>(
    command: impl FnOnce(Interrupts) -> F + 'static,
) -> ExitCode {
    block_on(|| async {
        match interrupt::watch() {
            Ok(interrupts) => ExitCode::from(command(interrupts).await),
            Err(e) => fail(
                Verdict::Failed.exit(),
                &format!("cannot catch SIGINT and SIGTERM: {e}"),
            ),
        }
    })
}

/// Runs a command that SIGINT and SIGTERM may end anywhere; its output is the exit code.
pub(super) fn run_readonly(command: impl Future<Output = u8> + 'static) -> ExitCode {
    block_on(|| async { ExitCode::from(command.await) })
}

/// Runs a command that inspects processes on this thread.
fn block_on<F: Future<Output = ExitCode> + 'static>(
    command: impl FnOnce() -> F + 'static,
) -> ExitCode {
    descriptors::set_inherited_cloexec();
    runtime::run(command)
        .unwrap_or_else(|e| fail(Verdict::Failed.exit(), &format!("cannot start: {e}")))
}
