//! The progress lines of the slow parts of a run that are no batch of instances.

use std::time::Duration;

use crate::{
    event::Phase,
    screen::{PhaseEnd, Progress},
};

/// Returns the progress line of a phase: the item that is under way, the number of all, and the
/// time left where the phase has a limit.
pub(super) fn progress(
    phase: Phase,
    (done, all): (usize, usize),
    limit: Option<Duration>,
) -> Progress {
    let word = match phase {
        Phase::Connecting => "Hosts",
        Phase::Surveying => "Surveying",
        Phase::Staging => "Staging",
        Phase::Validating => "Validating",
        Phase::Judging => "Gate",
        Phase::Confirming => "Confirming",
    };
    Progress {
        done: (done + 1).min(all),
        all,
        end: limit.and_then(|limit| PhaseEnd::after(limit.as_secs_f64(), "")),
        ..Progress::of(word, "")
    }
}

/// Returns the progress line of the wait after a wave.
pub(super) fn baking(wave: usize, seconds: f64) -> Progress {
    Progress {
        end: PhaseEnd::after(seconds, "its instances are probed again"),
        ..Progress::of("Baking", format!("wave {wave} is left alone"))
    }
}
