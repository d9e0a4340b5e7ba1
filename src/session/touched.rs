//! Whether a run has touched something of a step.

use crate::{
    host::Host,
    step::{PlannedInstance, Step},
};

/// Returns true if an instance of the step was touched, or a target of it was replaced.
pub(super) fn was_touched(host: &Host, step: &Step) -> bool {
    step.instances.iter().any(PlannedInstance::is_touched)
        || step.changes.iter().any(|c| host.is_installed(&c.path))
}
