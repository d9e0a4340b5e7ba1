//! The service manager.

use sd_notify::NotifyState;

/// Without a service manager there is nobody to tell.
pub(super) fn notify(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}
