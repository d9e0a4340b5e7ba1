//! What waits, waits on one thread.

use std::{io, panic::resume_unwind};

use tokio::{
    runtime::{Builder, LocalOptions},
    task::spawn_local,
};

/// Runs what `begin` makes to its end on this thread: as a task, which the thread itself can wake
/// without a system call.
///
/// # Errors
/// The system's, when there is nothing to wait with.
pub(crate) fn run<F: Future + 'static>(
    begin: impl FnOnce() -> F + 'static,
) -> io::Result<F::Output> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    match runtime.block_on(async { spawn_local(async { begin().await }).await }) {
        Ok(said) => Ok(said),
        Err(panic) => resume_unwind(panic.into_panic()),
    }
}
