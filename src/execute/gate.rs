//! Runs the gates of the operator on the machine of the coordinator.

use std::time::Duration;

use crate::{
    engine::{GateEnd, GateRunner},
    event::{Instance, Interrupts},
    host::{GATE_LIMIT, run_gate},
};

/// The gates of one run.
#[derive(Debug)]
pub(super) struct OperatorGates<'a> {
    /// The run's id.
    pub(super) run: &'a str,
}

impl GateRunner for OperatorGates<'_> {
    fn limit(&self) -> Duration {
        GATE_LIMIT
    }

    async fn run(
        &mut self,
        command: &[String],
        wave: usize,
        instances: &[Instance],
        interrupts: &mut Interrupts,
    ) -> GateEnd {
        let end = run_gate(command, self.run, wave, instances, interrupts).await;
        GateEnd {
            exit: end.exit,
            output: end.output,
        }
    }
}
