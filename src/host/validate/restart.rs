//! Keys of a new config that its program would only read at its start: they are named before
//! anything is touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    event::{Abort, Verdict},
    host::exec::{
        self, Subject,
        placeholders::{self, Values},
    },
    step::{PlannedInstance, TargetChange},
    tree::Node,
};

/// Longest that a command about keys may take.
const LIMIT: Duration = Duration::from_secs(10);
/// So many changed keys are looked at one by one; a config in which more changed is written anew,
/// and each of them counts as it stands.
const LOOKED_AT: usize = 50;

/// Holds what changes for `member` against the keys that its group's command names. `staged` is
/// where the first target's new content stands: its live path, where it was put there by somebody
/// else.
///
/// # Errors
/// `RestartRequired` with the keys; `Refused` when the command does not tell them.
pub(crate) async fn keys(
    member: &PlannedInstance,
    shifts: &[TargetChange],
    staged: &Path,
) -> Result<(), Abort> {
    let (group, i) = (&member.group, &member.instance);
    let live = i.targets.first().map_or(staged, PathBuf::as_path);
    let (adopted, known) = (
        staged == live,
        shifts.iter().all(|shift| shift.from.is_some()),
    );
    let changed: BTreeSet<String> = shifts.iter().flat_map(changed).collect();
    let command = if adopted && !group.restart_pending.is_empty() {
        &group.restart_pending
    } else {
        &group.restart_keys
    };
    // Where nobody has the old bytes, only the program itself knows what changed.
    let told = adopted && !known && !group.restart_pending.is_empty();
    if command.is_empty() || (changed.is_empty() && !told) {
        return Ok(());
    }
    let refused = |why: String| {
        Abort::new(
            Verdict::Refused,
            format!(
                "pid {}: which keys need a restart is not told: {why}",
                i.pid
            ),
        )
    };
    let named = ask(command, member, staged).await.map_err(refused)?;
    let named = keys_of(&named);
    let mut needed: Vec<String> = if told {
        named.into_iter().collect()
    } else {
        changed.intersection(&named).cloned().collect()
    };
    if !group.restart_value.is_empty() && needed.len() <= LOOKED_AT && staged.is_file() && !adopted
    {
        let mut still = Vec::new();
        for key in needed {
            let argv: Vec<String> = group
                .restart_value
                .iter()
                .map(|arg| arg.replace("{key}", &key))
                .collect();
            // Written otherwise, it may be the same value as before; what cannot be told counts as
            // another.
            let (now, new) = (
                ask(&argv, member, live).await,
                ask(&argv, member, staged).await,
            );
            if now.is_err() || now != new {
                still.push(key);
            }
        }
        needed = still;
    }
    if needed.is_empty() {
        return Ok(());
    }
    Err(Abort::new(
        Verdict::RestartRequired,
        format!(
            "pid {} ({}): {} would change only with a restart",
            i.pid,
            i.group,
            quoted(&needed)
        ),
    ))
}

/// Keys that wait for a restart by what stands on the disk already, as the program itself says;
/// none where its group does not ask it.
///
/// # Errors
/// A sentence when its command does not tell them.
pub(crate) async fn pending(member: &PlannedInstance) -> Result<BTreeSet<String>, String> {
    match member.instance.targets.first() {
        Some(live) if !member.group.restart_pending.is_empty() => Ok(keys_of(
            &ask(&member.group.restart_pending, member, live).await?,
        )),
        _ => Ok(BTreeSet::new()),
    }
}

/// As people read them.
pub(crate) fn quoted<'a>(keys: impl IntoIterator<Item = &'a String>) -> String {
    keys.into_iter()
        .map(|key| format!("`{key}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// One a line, in lower case.
pub(crate) fn keys_of(said: &str) -> BTreeSet<String> {
    said.lines()
        .map(|line| line.trim().to_lowercase())
        .filter(|key| !key.is_empty())
        .collect()
}

/// What a command says, run as the instance's user and in its environment.
async fn ask(
    argv: &[String],
    member: &PlannedInstance,
    candidate: &Path,
) -> Result<String, String> {
    ask_about(
        argv,
        member,
        member.instance.targets.first().map(PathBuf::as_path),
        candidate,
    )
    .await
}

/// The same about one file of its config, as it stands.
pub(crate) async fn ask_of(
    argv: &[String],
    member: &PlannedInstance,
    config: &Path,
) -> Result<String, String> {
    ask_about(argv, member, Some(config), config).await
}

async fn ask_about(
    argv: &[String],
    member: &PlannedInstance,
    config: Option<&Path>,
    candidate: &Path,
) -> Result<String, String> {
    let i = &member.instance;
    let known = Values {
        pid: member.identity.inside,
        exe: &placeholders::exe(&member.identity),
        args: &member.args,
        endpoint: &i.endpoint,
        config,
        candidate: Some(candidate),
    };
    let subject = Subject {
        identity: &member.identity,
        renewed: None,
    };
    let said = exec::inform(&known.fill(argv)?, subject, LIMIT)
        .await
        .map_err(|e| e.to_string())?;
    if said.code != 0 {
        return Err(format!(
            "`{}` ended with {}: {}",
            argv.first().map_or("", String::as_str),
            said.code,
            String::from_utf8_lossy(&said.stderr).trim()
        ));
    }
    Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

/// Keys that change with one target.
fn changed(shift: &TargetChange) -> BTreeSet<String> {
    let Some(from) = &shift.from else {
        return BTreeSet::new();
    };
    let (Some(old), Some(new)) = (&from.tree, &shift.to.tree) else {
        return changed_keys(&from.bytes, &shift.to.bytes);
    };
    let bytes = |node: Option<&Node>| match node {
        Some(Node::File(_, bytes)) => bytes.to_vec(),
        _ => Vec::new(),
    };
    old.differences(new)
        .iter()
        .flat_map(|d| changed_keys(&bytes(d.old), &bytes(d.new)))
        .collect()
}

/// Keys of a config in lines of `KEY = VALUE` or `KEY VALUE` with other values than before, or
/// there only before or after; in lower case.
fn changed_keys(from: &[u8], to: &[u8]) -> BTreeSet<String> {
    let (from, to) = (
        settings(&String::from_utf8_lossy(from)),
        settings(&String::from_utf8_lossy(to)),
    );
    from.keys()
        .chain(to.keys())
        .filter(|key| from.get(*key) != to.get(*key))
        .cloned()
        .collect()
}

/// Keys that the second text gives another value than the first.
pub(crate) fn set_anew(from: &[u8], to: &[u8]) -> BTreeSet<String> {
    let (from, to) = (
        settings(&String::from_utf8_lossy(from)),
        settings(&String::from_utf8_lossy(to)),
    );
    to.into_iter()
        .filter(|(key, value)| from.get(key) != Some(value))
        .map(|(key, _)| key)
        .collect()
}

/// The last value of each key, as it is written.
fn settings(text: &str) -> BTreeMap<String, String> {
    text.lines().filter_map(setting).collect()
}

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
        Some(quoted) => quoted.find('\'').map_or(value.len(), |at| at + 2),
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
            named(
                "max_connections=100\nshared_buffers = 128MB\nwork_mem = '4MB#' # more\nport = 2\n"
            ),
            ""
        );
        assert_eq!(
            named(
                "max_connections = 50\nshared_buffers = 128MB\nwork_mem = '4MB'\nport = \
                 2\nnew.key = on\n"
            ),
            "max_connections new.key work_mem"
        );
    }
}
