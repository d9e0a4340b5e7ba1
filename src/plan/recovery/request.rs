//! The input of a recovery plan.

use std::path::PathBuf;

use crate::{
    event::Direction,
    runs::{InterruptedRun, ProofCache},
};

/// The input of a recovery plan besides the survey.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecoveryRequest<'a> {
    /// The earlier run.
    pub left: &'a InterruptedRun,
    /// The direction.
    pub direction: Direction,
    /// True if to use a single wave and to tolerate missing instances; set when an old config is
    /// restored.
    pub at_once: bool,
    /// True if unresponsive instances are signalled too.
    pub include_unresponsive: bool,
    /// The config that each instance was last proven to run, for instances that do not report it.
    pub proven: &'a ProofCache,
}

impl RecoveryRequest<'_> {
    /// Tells whether an instance that reads `targets` may be part of the run. An instance without
    /// targets is only signalled.
    pub(super) fn concerns(&self, targets: &[PathBuf]) -> bool {
        concerns(self.left, targets)
    }

    /// Tells whether an instance that reads `targets` is part of the recovery. An instance that is
    /// only signalled has no old config.
    pub(super) fn includes(&self, targets: &[PathBuf]) -> bool {
        self.concerns(targets) && (self.direction == Direction::Forward || !targets.is_empty())
    }
}

/// Tells whether the run changes one of `targets`, or there are none.
pub(super) fn concerns(left: &InterruptedRun, targets: &[PathBuf]) -> bool {
    targets.is_empty()
        || targets
            .iter()
            .any(|path| left.targets.iter().any(|target| target.path == *path))
}
