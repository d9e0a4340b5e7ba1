//! Messages to the service manager.

use sd_notify::NotifyState;

/// Sends states to the service manager, if there is one.
pub(crate) fn notify(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}
