//! The tokio runtime of a command: one thread.

use std::{io, panic::resume_unwind};

use tokio::{
    runtime::{Builder, LocalOptions},
    task::spawn_local,
};

/// Runs the future of `begin` to its end on this thread. It runs as a task, which the thread itself
/// can wake without a system call.
///
/// # Errors
/// Fails if the system cannot create an event queue.
pub(crate) fn run<F: Future + 'static>(
    begin: impl FnOnce() -> F + 'static,
) -> io::Result<F::Output> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    match runtime.block_on(async { spawn_local(async { begin().await }).await }) {
        Ok(output) => Ok(output),
        Err(panic) => resume_unwind(panic.into_panic()),
    }
}
