//! Reads a run back: its plan, how far it came, and the processes that it may have touched.

use std::path::Path;

use super::{
    format::RunEnded,
    info::{self, RunInfo},
    open_runs::{self, open_runs},
    order::RunOrder,
    run_name,
};

mod load;
mod record;

pub(crate) use self::load::targets as plan_targets;
pub(crate) use self::record::{InterruptedRun, RunError, RunInstance, RunTarget, SignalRecord};

impl InterruptedRun {
    /// Reads the run that `name` means; without one, the newest open run.
    ///
    /// # Errors
    /// See [`RunError`].
    pub(crate) fn find(state: &Path, name: Option<&str>) -> Result<Self, RunError> {
        let id = match name {
            // No run was ever begun.
            _ if !state.exists() => {
                return Err(name.map_or_else(
                    || RunError::NoneOpen(state.into()),
                    |name| RunError::Unknown(name.into(), state.into()),
                ));
            }
            _ if let Err(e) = super::trusted(state) => {
                return Err(RunError::State(state.into(), e));
            }
            None => newest_open(state)?,
            Some(name) => run_name::find(state, name)?,
        };
        load::load(state, &id)
    }

    /// Returns a later run over one of its targets that was left open too. The processes that it
    /// touched are not known here.
    #[must_use]
    pub(crate) fn overtaken_by(&self, state: &Path) -> Option<String> {
        let shares = |other: &RunInfo| {
            open_runs::targets(state, &other.id)
                .iter()
                .any(|path| self.targets.iter().any(|t| t.path == *path))
        };
        let order = RunOrder::read(state);
        open_runs(state)
            .into_iter()
            .rev()
            .find(|other| order.is_after(&other.id, &self.id) && shares(other))
            .map(|other| other.id)
    }

    /// Returns the run that took its place.
    #[must_use]
    pub(crate) fn superseded_by(&self) -> Option<&str> {
        match &self.info.end {
            Some(RunEnded::SupersededBy { run, .. }) => Some(run),
            _ => None,
        }
    }
}

/// Returns the id of the newest open run.
fn newest_open(state: &Path) -> Result<String, RunError> {
    if let Some(open) = open_runs(state).pop() {
        return Ok(open.id);
    }
    let running = open_runs::marked_runs(state)
        .into_iter()
        .rev()
        .find(|run| run.running);
    Err(match running {
        Some(run) => {
            let claimed = run.began.and_then(|began| began.claimed).map(Box::new);
            RunError::Running(run.id, state.into(), claimed)
        }
        None => RunError::NoneOpen(state.into()),
    })
}

/// Returns the newest run after `id` that left the target at `path` with the digest `sha256`.
#[must_use]
pub(crate) fn later(state: &Path, id: &str, path: &Path, sha256: &str) -> Option<String> {
    let wrote = |id: &String| {
        load::targets(state, id)
            .iter()
            .any(|t| t.path == path && (t.to == sha256 || t.from.as_deref() == Some(sha256)))
    };
    let ids = info::run_ids(state).unwrap_or_default();
    let order = RunOrder::read(state);
    ids.into_iter()
        .rev()
        .take_while(|other| order.is_after(other, id))
        .find(wrote)
}

#[cfg(test)]
mod tests;
