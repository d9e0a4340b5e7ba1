//! Keys of a new config that its program reads only at its start. They are named before anything is
//! changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    event::{Abort, Verdict},
    host::exec::{
        self, RunError, Subject,
        placeholders::{self, NoValue, Values},
    },
    step::{PlannedInstance, TargetChange},
    tree::Node,
};

/// The longest run of a command that prints keys.
const LIMIT: Duration = Duration::from_secs(10);

/// The most changed keys whose values are compared. Each costs two commands; with more changes the
/// config was written anew, and every key that is written otherwise counts.
const MAX_COMPARED: usize = 50;

/// Why a command did not print keys.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    #[error(transparent)]
    NoValue(#[from] NoValue),
    #[error(transparent)]
    NotRun(#[from] RunError),
    #[error("`{program}` ended with {code}: {stderr}")]
    Failed {
        program: String,
        code: i32,
        stderr: String,
    },
}

/// Compares the changed keys of `planned` with the restart keys that its group's command prints.
/// `staged` is the path of the first target's new content: its live path, if the run adopts it.
///
/// # Errors
/// Fails as `RestartRequired` with the keys, or as `Refused` if the command does not print them.
pub(crate) async fn check_keys(
    planned: &PlannedInstance,
    changes: &[TargetChange],
    staged: &Path,
) -> Result<(), Abort> {
    let instance = &planned.instance;
    let mut needed = restart_keys(planned, changes, staged)
        .await
        .map_err(|why| {
            let text = format!(
                "pid {}: the keys that need a restart are not known: {why}",
                instance.pid
            );
            Abort::new(Verdict::Refused, text)
        })?;
    let live = live_path(planned).unwrap_or(staged);
    let can_compare = !planned.group.restart_value.is_empty()
        && needed.len() <= MAX_COMPARED
        && staged.is_file()
        && staged != live;
    if can_compare {
        needed = with_other_values(needed, planned, live, staged).await;
    }
    if needed.is_empty() {
        return Ok(());
    }
    Err(Abort::new(
        Verdict::RestartRequired,
        format!(
            "pid {} ({}): {} would change only with a restart",
            instance.pid,
            instance.group,
            quoted(&needed)
        ),
    ))
}

/// Returns the path of the first target of an instance.
fn live_path(planned: &PlannedInstance) -> Option<&Path> {
    planned.instance.targets.first().map(PathBuf::as_path)
}

/// Returns the changed keys that need a restart.
async fn restart_keys(
    planned: &PlannedInstance,
    changes: &[TargetChange],
    staged: &Path,
) -> Result<Vec<String>, KeysError> {
    let group = &planned.group;
    let is_adopted = live_path(planned).is_none_or(|live| live == staged);
    let uses_pending = is_adopted && !group.restart_pending.is_empty();
    let command = if uses_pending {
        &group.restart_pending
    } else {
        &group.restart_keys
    };
    let changed: BTreeSet<String> = changes.iter().flat_map(changed).collect();
    // If the old content of an adopted config is not known, only the program knows the changes.
    let is_old_known = changes.iter().all(|change| change.from.is_some());
    let asks_program = uses_pending && !is_old_known;
    if command.is_empty() || (changed.is_empty() && !asks_program) {
        return Ok(Vec::new());
    }
    let printed = keys_of(&output(command, planned, staged).await?);
    Ok(if asks_program {
        printed.into_iter().collect()
    } else {
        changed.intersection(&printed).cloned().collect()
    })
}

/// Returns the keys whose value differs between two contents. A key that is only written otherwise
/// has the same value; one whose value is not known counts as different.
async fn with_other_values(
    keys: Vec<String>,
    planned: &PlannedInstance,
    live: &Path,
    staged: &Path,
) -> Vec<String> {
    let mut different = Vec::new();
    for key in keys {
        let argv: Vec<String> = planned
            .group
            .restart_value
            .iter()
            .map(|arg| arg.replace("{key}", &key))
            .collect();
        let old = output(&argv, planned, live).await.ok();
        let new = output(&argv, planned, staged).await.ok();
        if old.is_none() || old != new {
            different.push(key);
        }
    }
    different
}

/// Returns the keys on the disk that wait for a restart, as the program itself reports them. Empty
/// if its group has no command for it.
///
/// # Errors
/// Fails if the command does not print them.
pub(crate) async fn pending(planned: &PlannedInstance) -> Result<BTreeSet<String>, KeysError> {
    let command = &planned.group.restart_pending;
    match live_path(planned) {
        Some(live) if !command.is_empty() => Ok(keys_of(&output(command, planned, live).await?)),
        _ => Ok(BTreeSet::new()),
    }
}

/// Returns the keys in backticks, separated by commas.
pub(crate) fn quoted<'a>(keys: impl IntoIterator<Item = &'a String>) -> String {
    keys.into_iter()
        .map(|key| format!("`{key}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Returns the keys that a command has printed, one a line, in lower case.
pub(crate) fn keys_of(output: &str) -> BTreeSet<String> {
    output
        .lines()
        .map(|line| line.trim().to_lowercase())
        .filter(|key| !key.is_empty())
        .collect()
}

/// Runs a command about the first target, and returns its output.
async fn output(
    argv: &[String],
    planned: &PlannedInstance,
    candidate: &Path,
) -> Result<String, KeysError> {
    output_about(argv, planned, live_path(planned), candidate).await
}

/// Runs a command about the present content of one target, and returns its output.
pub(crate) async fn output_of(
    argv: &[String],
    planned: &PlannedInstance,
    config: &Path,
) -> Result<String, KeysError> {
    output_about(argv, planned, Some(config), config).await
}

/// Runs a command as the instance's user and in its environment, and returns its output.
async fn output_about(
    argv: &[String],
    planned: &PlannedInstance,
    config: Option<&Path>,
    candidate: &Path,
) -> Result<String, KeysError> {
    let values = Values {
        pid: planned.identity.inside,
        process: planned.identity.pid,
        exe: &placeholders::exe(&planned.identity),
        args: &planned.args,
        endpoint: &planned.instance.endpoint,
        config,
        candidate: Some(candidate),
    };
    let subject = Subject {
        identity: &planned.identity,
        renewed: None,
    };
    let output = exec::inform(&values.fill(argv)?, subject, LIMIT).await?;
    if output.code != 0 {
        return Err(KeysError::Failed {
            program: argv.first().cloned().unwrap_or_default(),
            code: output.code,
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Returns the keys that change with one target.
fn changed(change: &TargetChange) -> BTreeSet<String> {
    let Some(from) = &change.from else {
        return BTreeSet::new();
    };
    let (Some(old), Some(new)) = (&from.tree, &change.to.tree) else {
        return changed_keys(&from.bytes, &change.to.bytes);
    };
    old.differences(new)
        .iter()
        .flat_map(|difference| changed_keys(bytes_of(difference.old), bytes_of(difference.new)))
        .collect()
}

/// Returns the bytes of an entry; empty if it is no file, or does not exist.
pub(crate) fn bytes_of(node: Option<&Node>) -> &[u8] {
    match node {
        Some(Node::File(_, bytes)) => bytes,
        _ => &[],
    }
}

/// Returns the keys, in lower case, that have another value than before, or exist only before or
/// after. A config consists of lines `KEY = VALUE` or `KEY VALUE`.
fn changed_keys(from: &[u8], to: &[u8]) -> BTreeSet<String> {
    let from = settings(from);
    let to = settings(to);
    from.keys()
        .chain(to.keys())
        .filter(|key| from.get(*key) != to.get(*key))
        .cloned()
        .collect()
}

/// Returns the keys to which the second content gives another value than the first.
pub(crate) fn newly_set_keys(from: &[u8], to: &[u8]) -> BTreeSet<String> {
    let from = settings(from);
    settings(to)
        .into_iter()
        .filter(|(key, value)| from.get(key) != Some(value))
        .map(|(key, _)| key)
        .collect()
}

/// Returns the values of each key in their order, as they are written. Which of them counts is the
/// program's own rule: the last, the first, or all.
fn settings(content: &[u8]) -> BTreeMap<String, Vec<String>> {
    let mut settings: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let text = String::from_utf8_lossy(content);
    for (key, value) in text.lines().filter_map(setting) {
        settings.entry(key).or_default().push(value);
    }
    settings
}

/// Returns the key and the value of a line, if it has a key.
fn setting(line: &str) -> Option<(String, String)> {
    let line = line.trim_start();
    let end = line
        .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '-')))
        .unwrap_or(line.len());
    let (key, rest) = line.split_at(end);
    let value = rest
        .trim_start()
        .strip_prefix('=')
        .unwrap_or(rest.trim_start())
        .trim_start();
    // A `#` inside quotes begins no comment.
    let end = match value.strip_prefix('\'') {
        Some(quoted) => quoted.find('\'').map_or(value.len(), |index| index + 2),
        None => value.find('#').unwrap_or(value.len()),
    };
    (!key.is_empty()).then(|| (key.to_lowercase(), value[..end].trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_changed_are_named_whatever_their_spelling() {
        let from = b"# max_connections = 1\nmax_connections = 100 # said\nShared_Buffers \
                     128MB\nwork_mem = '4MB#'\nport = 1\nport = 2\n";
        let named = |to: &str| {
            changed_keys(from, to.as_bytes())
                .into_iter()
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(named(&String::from_utf8_lossy(from)), "");
        assert_eq!(
            named(&String::from_utf8_lossy(from).replace("port = 1\n", "port = 3\n")),
            "port",
            "each value of a repeated key counts"
        );
        assert_eq!(
            named(
                "max_connections=100\nshared_buffers = 128MB\nwork_mem = '4MB#' # \
                 more\nport = 1\nport = 2\n"
            ),
            ""
        );
        assert_eq!(
            named(
                "max_connections = 50\nshared_buffers = 128MB\nwork_mem = '4MB'\nport = \
                 1\nport = 2\nnew.key = on\n"
            ),
            "max_connections new.key work_mem"
        );
    }
}
