//! Installs the targets of steps, and reads them back.

use std::{collections::BTreeMap, path::PathBuf};

use crate::{
    event::{Abort, Event, Verdict},
    host::{
        local::{host::LocalHost, refusals::install_abort},
        proc::snapshot::ProcessSnapshot,
        target::install::sync_names,
    },
    step::{Step, TargetChange},
};

/// The targets that could not be installed, by path, each with the reason.
pub(super) type FailedInstalls = BTreeMap<PathBuf, Abort>;

impl LocalHost {
    /// Installs the new content of every target, and reads it back. A rollback goes on after a
    /// failure, and returns every target that failed.
    ///
    /// # Errors
    /// Fails, on the way forward, with the first target that could not be installed.
    pub(super) fn install(
        &mut self,
        steps: &[Step],
        emit: &mut impl FnMut(Event),
    ) -> Result<FailedInstalls, Abort> {
        let mut exchanged = BTreeMap::new();
        let mut failed = self.exchange(steps, &mut exchanged);
        if exchanged.is_empty() {
            return failed;
        }
        let is_rollback = steps.iter().any(|step| step.direction.is_back());
        // One list of the present processes, and one sync, serve all targets.
        let since = ProcessSnapshot::now().unwrap_or_else(|_| ProcessSnapshot::unseen());
        let synced = sync_names(exchanged.keys().filter_map(|path| self.targets.get(*path)))
            .map_err(install_abort);
        for (path, change) in exchanged {
            self.since.insert(path.clone(), since.clone());
            match (&synced, &mut failed) {
                (Ok(()), Ok(failed)) if failed.contains_key(path) => {}
                (Ok(()), _) => emit(Event::Installed {
                    path: path.clone(),
                    sha256: change.to.sha256.clone(),
                    rev: self.revision(path),
                }),
                (Err(abort), Ok(failed)) if is_rollback => {
                    failed
                        .entry(path.clone())
                        .or_insert_with(|| Abort::new(abort.verdict, abort.reason.clone()));
                }
                (Err(_), _) => {}
            }
        }
        match synced {
            Err(abort) if !is_rollback => failed.and(Err(abort)),
            _ => failed,
        }
    }

    /// Exchanges every target with its new content; adds the changed ones to `exchanged`.
    fn exchange<'a>(
        &mut self,
        steps: &'a [Step],
        exchanged: &mut BTreeMap<&'a PathBuf, &'a TargetChange>,
    ) -> Result<FailedInstalls, Abort> {
        let mut failed = BTreeMap::new();
        for step in steps {
            for change in &step.changes {
                match self.exchange_one(change, exchanged) {
                    None => {}
                    Some(Ok(())) => drop(failed.remove(&change.path)),
                    Some(Err(abort)) if step.direction.is_back() => {
                        failed.entry(change.path.clone()).or_insert(abort);
                    }
                    Some(Err(abort)) => return Err(abort),
                }
            }
        }
        Ok(failed)
    }

    /// Exchanges one target, and reads it back. None if it has no old content, or is not open.
    fn exchange_one<'a>(
        &mut self,
        change: &'a TargetChange,
        exchanged: &mut BTreeMap<&'a PathBuf, &'a TargetChange>,
    ) -> Option<Result<(), Abort>> {
        let from = change.from.as_ref()?;
        let target = self.targets.get_mut(&change.path)?;
        let is_held = self.held_files.held < self.held_files.limit;
        target.hold(is_held);
        let is_exchanged = match target.install(&from.sha256, &change.to, &self.run) {
            Ok(is_exchanged) => is_exchanged,
            Err(e) => return Some(Err(install_abort(e))),
        };
        if is_exchanged {
            exchanged.insert(&change.path, change);
            if target.is_held() {
                let count = if is_held {
                    &mut self.held_files.held
                } else {
                    &mut self.held_files.not_held
                };
                *count += 1;
            }
        }
        if target.holds(&change.to) {
            return Some(Ok(()));
        }
        Some(Err(Abort::new(
            Verdict::Refused,
            format!(
                "`{}` does not hold what was installed",
                change.path.display()
            ),
        )))
    }
}
