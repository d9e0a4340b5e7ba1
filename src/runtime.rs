//! The tokio runtime of a command: one thread, and others for what may block.

use std::{io, panic::resume_unwind};

use tokio::{
    runtime::{Builder, LocalOptions},
    task::{spawn_blocking, spawn_local},
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
    let ended = runtime.block_on(async { spawn_local(async { begin().await }).await });
    // What blocks at the end, if the command was interrupted, is not waited for.
    runtime.shutdown_background();
    match ended {
        Ok(output) => Ok(output),
        Err(panic) => resume_unwind(panic.into_panic()),
    }
}

/// Does `work` on another thread, and waits for its result. The wait can be given up; the work goes
/// on then, and its result is dropped.
pub(crate) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(panic) => resume_unwind(panic.into_panic()),
    }
}
