//! Refuses instances whose log another instance of the run writes as well.

use super::inspect::SurveyedInstance;
use crate::host::{local::refusals::refused, probe::limits::ProbeLimits};

/// Refuses each instance of which an assertion accepts a line that another instance may have
/// written to the same log.
pub(super) fn refuse_shared_logs(
    results: Vec<SurveyedInstance>,
    limits: &ProbeLimits,
) -> Vec<SurveyedInstance> {
    let check = |surveyed: SurveyedInstance| {
        let planned = surveyed?;
        match limits.logs.ambiguity(&planned) {
            Some(why) => Err(Box::new(refused(planned.instance.clone(), why))),
            None => Ok(planned),
        }
    };
    results.into_iter().map(check).collect()
}
