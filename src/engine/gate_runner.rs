//! What runs the gates of a wave: commands of the operator, on the machine of the coordinator.

use std::time::Duration;

use crate::event::{Instance, Interrupts};

/// The end of a gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GateEnd {
    /// Its exit code; none if it could not be run or did not exit by itself.
    pub(crate) exit: Option<i32>,
    /// Why there is no exit code, and what it printed.
    pub(crate) output: String,
}

/// Runs the gates of an operator.
pub(crate) trait GateRunner {
    /// The longest time that one gate may take.
    fn limit(&self) -> Duration;

    /// Runs a gate after a wave; `instances` are those of the wave. An interrupt ends it.
    async fn run(
        &mut self,
        command: &[String],
        wave: usize,
        instances: &[Instance],
        interrupts: &mut Interrupts,
    ) -> GateEnd;
}
