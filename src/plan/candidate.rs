//! Checks of the candidates that need no validator.

use std::{collections::BTreeMap, path::Path};

use super::desired::DesiredContent;
use crate::{
    config::{self, Config},
    diagnostic::ConfigError,
    event::{Abort, Outcome, TargetKind, Verdict},
    fleet::Speaks,
    step::{Content, FileLayer, LayersError, PlannedInstance, Step, TargetChange},
};

/// Checks that the assertions can be resolved with the candidates, and that `hello serve` accepts
/// its own. Returns the first change that needs a restart, if there is one.
///
/// # Errors
/// Fails if a candidate is not valid.
pub(super) fn check(
    steps: &[Step],
    desired: &BTreeMap<&Path, DesiredContent>,
) -> Result<Option<Abort>, Abort> {
    let mut restart: Option<Abort> = None;
    for step in steps {
        let empty = Content::new(Vec::new());
        let first = step.changes.first();
        let path = first.map_or(Path::new(""), |change| change.path.as_path());
        let candidate = Candidate {
            content: first.map_or(&empty, |change| &change.to),
            named: desired.get(path).map_or(path, |d| d.named.as_path()),
            secret: first.is_some_and(|change| change.secret),
        };
        let mut checked: Vec<&str> = Vec::new();
        for instance in &step.instances {
            let group = &instance.group;
            if group.speaks == Speaks::Hello && !step.changes.is_empty() {
                let changed = candidate.check_hello(instance)?;
                restart = restart.or(changed);
            }
            restart = restart.or_else(|| restart_only_path(instance, &step.changes));
            // The file below a key is one of each instance.
            if instance.under.is_some() || !checked.contains(&group.name.as_str()) {
                checked.push(&group.name);
                candidate.check_assertions(instance)?;
            }
        }
    }
    Ok(restart)
}

/// The new content of the first target of a step.
struct Candidate<'a> {
    content: &'a Content,
    /// The path that the operator gave, for messages.
    named: &'a Path,
    secret: bool,
}

impl Candidate<'_> {
    fn invalid(&self, why: &str) -> Abort {
        Abort::new(
            Verdict::Invalid,
            format!(
                "the new config is not valid: `{}`\n{why}",
                self.named.display()
            ),
        )
    }

    /// Checks a config of `hello serve`. Returns why `instance` must be restarted for it, if it
    /// must.
    fn check_hello(&self, instance: &PlannedInstance) -> Result<Option<Abort>, Abort> {
        if self.content.kind() == TargetKind::Directory {
            return Err(self.invalid("it is a directory, and this kind of process reads one file"));
        }
        let bytes = &self.content.bytes;
        if bytes.len() as u64 > config::MAX_CONFIG {
            return Err(self.invalid(&format!("it is larger than {} bytes", config::MAX_CONFIG)));
        }
        let parsed = match instance.group.key() {
            Some(_) => self.merged(instance)?,
            None => config::parse(bytes).map_err(|e| self.fault(&e, self.named, bytes))?,
        };
        let listen = parsed.listen();
        let changed = instance
            .restart_only
            .get("listen")
            .filter(|now| *now != listen);
        Ok(changed.map(|now| {
            Abort::new(
                Verdict::RestartRequired,
                format!(
                    "pid {}: `listen` is {now} and becomes {listen}, which needs a restart",
                    instance.instance.pid
                ),
            )
        }))
    }

    /// Returns the config that an instance merges from its file and the new value of its key.
    fn merged(&self, instance: &PlannedInstance) -> Result<Config, Abort> {
        let file = instance.under.as_deref();
        FileLayer::merged(file, &self.content.bytes).map_err(|why| match (why, file) {
            (LayersError::File(e), Some(file)) => self.fault(&e, &file.path, &file.bytes),
            (LayersError::Key(e) | LayersError::File(e), _) => {
                self.fault(&e, self.named, &self.content.bytes)
            }
            (LayersError::NoMessage, None) => self.invalid("`message` is missing"),
            (LayersError::NoMessage, Some(file)) => self.invalid(&format!(
                "`message` is missing, and `{}` below it has none either",
                file.path.display()
            )),
        })
    }

    /// Returns the abort for a fault in `bytes`, those of the file or key `named`.
    fn fault(&self, e: &ConfigError, named: &Path, bytes: &[u8]) -> Abort {
        self.invalid(&if self.secret {
            format!(
                "{} (its lines are not shown: the config is a secret)",
                e.place()
            )
        } else {
            e.render(named, bytes)
        })
    }

    fn check_assertions(&self, instance: &PlannedInstance) -> Result<(), Abort> {
        let group = &instance.group;
        let config = instance.whole_config(self.content);
        for assertion in group.confirm.iter().chain(&group.reject) {
            assertion.resolved(config.as_deref()).map_err(|why| {
                self.invalid(&format!(
                    "group `{}` confirms by {}: {why}",
                    group.name,
                    assertion.source.describe("{listen}")
                ))
            })?;
        }
        Ok(())
    }
}

/// Returns why an instance must be restarted: it reads a target of the step only at its start.
fn restart_only_path(instance: &PlannedInstance, changes: &[TargetChange]) -> Option<Abort> {
    if instance.instance.outcome == Outcome::Unchanged {
        return None;
    }
    let restart_only = &instance.restart_only_paths;
    let change = changes.iter().find(|change| {
        restart_only
            .iter()
            .any(|path| path.starts_with(&change.path))
    })?;
    Some(Abort::new(
        Verdict::RestartRequired,
        format!(
            "pid {} ({}) does not read `{}` on {}, only at its start",
            instance.instance.pid,
            instance.instance.group,
            change.path.display(),
            instance.group.trigger()
        ),
    ))
}
