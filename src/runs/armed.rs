//! The commit-confirmed timer of a run, as its journal has it.

use std::{path::Path, time::Duration};

use super::{RunInfo, boot_id, info::events};
use crate::{event::Event, kernel::since_boot};

/// An armed timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Armed {
    /// Its length.
    pub(crate) seconds: u64,
    /// The time that is left. After a reboot it begins anew.
    pub(crate) left: Duration,
}

/// Returns the timer of an open run; none if it has none, has touched nothing yet, or was told its
/// end. A run that ended mixed is open, and rolls nothing back any more.
#[must_use]
pub(crate) fn armed(state: &Path, run: &str) -> Option<Armed> {
    let info = RunInfo::of(state, run);
    if !info.open || info.end.is_some() {
        return None;
    }
    let mut seconds = None;
    let mut heard = None;
    let lines = events(state, run).into_iter().flatten();
    for event in lines.filter_map(|line| serde_json::from_value::<Event>(line).ok()) {
        match event {
            Event::Intent { armed_s, .. } => seconds = armed_s.or(seconds),
            Event::Heard { since_boot_s } => heard = Some(Duration::from_secs(since_boot_s)),
            _ => {}
        }
    }
    let seconds = seconds?;
    let silence = match heard {
        Some(heard) if info.began?.boot_id == boot_id() => since_boot().saturating_sub(heard),
        _ => since_boot(),
    };
    let left = Duration::from_secs(seconds).saturating_sub(silence);
    Some(Armed { seconds, left })
}
