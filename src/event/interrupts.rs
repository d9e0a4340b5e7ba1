//! The interrupts of the operator: Ctrl-C, or SIGTERM.

use tokio::sync::watch;

/// How many interrupts the operator has sent. 1: send no new signal, and roll back. 2: leave now.
pub(crate) type Interrupts = watch::Receiver<u8>;

/// The error of a run that the operator has interrupted.
#[derive(Debug, thiserror::Error)]
#[error("interrupted by the operator")]
pub(crate) struct Interrupted;

/// Checks that the operator has not interrupted the run.
///
/// # Errors
/// Fails if the operator has.
pub(crate) fn check_interrupts(interrupts: &Interrupts) -> Result<(), Interrupted> {
    if *interrupts.borrow() > 0 {
        Err(Interrupted)
    } else {
        Ok(())
    }
}

/// Waits until the operator has sent more than `patience` interrupts.
pub(crate) async fn interrupted(interrupts: &Interrupts, patience: u8) {
    // The sender lives as long as the command; without one there is no interrupt.
    if interrupts
        .clone()
        .wait_for(|n| *n > patience)
        .await
        .is_err()
    {
        std::future::pending::<()>().await;
    }
}
