//! Checks of the config: its paths, whether it can be replaced, and which parts a reload reads.

use std::path::{Path, PathBuf};

use super::finding::{Finding, Topic};
use crate::{
    event::TargetKind,
    fleet::{OnBadConfig, Speaks},
    host::{
        discover::{self, found::Found},
        reload::{opened, restart_command},
        target::install::InstallError,
        validate::{
            current::{CurrentTarget, TargetsError},
            readable::Readers,
            restart::{self, quoted},
        },
    },
    identity::Identity,
    screen::counted,
    step::{PlannedInstance, StagedSource, short},
};

/// Checks that every target of the process is known, and that the process may read it.
pub(super) fn config(
    current: &Result<Vec<CurrentTarget>, TargetsError>,
    reader: &Identity,
) -> Finding {
    let targets = match current {
        Ok(targets) => targets,
        Err(why) => return Finding::refused(Topic::Config, &why.reported()),
    };
    if targets.is_empty() {
        return Finding::note(
            Topic::Config,
            "its group has no config: it is only signalled and confirmed",
        );
    }
    let descriptions: Result<Vec<String>, &InstallError> =
        targets.iter().map(description).collect();
    let descriptions = match descriptions {
        Ok(descriptions) => descriptions,
        Err(why) => return Finding::bad(Topic::Config, why.to_string()),
    };
    let unreadable = targets
        .iter()
        .filter(|target| target.rev.is_none())
        .find_map(|target| Readers::default().refuse(reader, &target.path, &target.path));
    if let Some(why) = unreadable {
        return Finding::refused(Topic::Config, &why);
    }
    Finding::good(Topic::Config, format!("reads {}", descriptions.join(", ")))
}

/// Returns the path, kind and digest of a target.
fn description(target: &CurrentTarget) -> Result<String, &InstallError> {
    let content = target.disk.as_ref()?;
    let kind = match content.kind() {
        TargetKind::Directory => "directory",
        _ => "file",
    };
    let secret = if target.secret { ", a secret" } else { "" };
    let kind = match &target.rev {
        Some(rev) => format!("key, revision {rev}"),
        None => kind.to_owned(),
    };
    Ok(format!(
        "`{}` ({kind}, sha256:{}{secret})",
        target.path.display(),
        short(&content.sha256)
    ))
}

/// Checks that every target can be replaced.
pub(super) fn install(targets: &[CurrentTarget], pid: i32) -> Finding {
    if targets.is_empty() {
        return Finding::note(Topic::Install, "nothing is replaced");
    }
    if let Some(why) = targets
        .iter()
        .find_map(|target| target.replace_blocker(pid))
    {
        return Finding::refused(Topic::Install, &why.reported());
    }
    match targets.iter().find_map(CurrentTarget::lock_owner) {
        Some(busy) => {
            Finding::note(Topic::Install, busy).then("wait for it, or set --lock-timeout 60s")
        }
        None if targets.iter().any(|target| target.rev.is_some()) => Finding::note(
            Topic::Install,
            "the store can compare its revision; whether it may be written, only a write shows",
        ),
        None => Finding::good(Topic::Install, "can be replaced in one step"),
    }
}

/// Checks that the key of its group has a value. None if its new config comes from elsewhere.
pub(super) fn source(staged: Option<&StagedSource>) -> Option<Finding> {
    let staged = staged?;
    let content = match staged.content.as_ref()? {
        Ok(content) => content,
        Err((_, why)) => {
            let next = "name the new config with --config until the key can be read";
            return Some(Finding::bad(Topic::Source, why.clone()).then(next));
        }
    };
    let key = staged.key.as_ref()?;
    Some(Finding::good(
        Topic::Source,
        format!(
            "a run takes the new config from {key}, sha256:{} ({})",
            short(&content.sha256),
            counted(content.bytes.len(), "byte")
        ),
    ))
}

/// Returns what the process does with a config that it cannot load.
pub(super) fn bad_config(planned: &PlannedInstance) -> Finding {
    let group = &planned.group;
    match (group.on_bad_config, group.revive.is_empty()) {
        (OnBadConfig::Keeps, _) if group.kind.is_some() => Finding::good(
            Topic::BadConfig,
            "its kind declares that it keeps its old config when it cannot load the new one",
        ),
        (OnBadConfig::Keeps, _) => Finding::good(
            Topic::BadConfig,
            "is assumed to keep its old config when it cannot load the new one; if it ends: \
             `on_bad_config = \"dies\"`",
        ),
        (OnBadConfig::Dies, false) => Finding::good(
            Topic::BadConfig,
            format!(
                "ends, and is started again on the old config by `{}`",
                group.revive.join(" ")
            ),
        ),
        (OnBadConfig::Dies, true) => {
            let by_hand = restart_command::command(planned).map_or(String::new(), |command| {
                format!("; by hand it would be: {command}")
            });
            Finding::note(
                Topic::BadConfig,
                "ends when it cannot load the new config, and must be started again by hand",
            )
            .then(format!(
                "set the command in its group with `revive = [argv]`{by_hand}"
            ))
        }
    }
}

/// Returns whether a run of this user can see that the process opens its config after the signal.
/// None for a process that reports the digest of what it has read.
pub(super) fn opened(planned: &PlannedInstance, targets: &[CurrentTarget]) -> Option<Finding> {
    if planned.group.speaks == Speaks::Hello || targets.is_empty() {
        return None;
    }
    let assumed = targets.iter().find(|target| target.assumed).map(|target| {
        format!(
            "`{}` is only its default path, or relative to its working directory",
            target.path.display()
        )
    });
    Some(match (opened::may_watch(), assumed) {
        (true, None) => Finding::good(
            Topic::Opened,
            "a run sees whether it opens its config after the signal",
        ),
        (true, Some(assumed)) => Finding::note(
            Topic::Opened,
            format!("{assumed}: a run proves it only if it sees it open that after the signal"),
        ),
        (false, None) => Finding::note(
            Topic::Opened,
            "only root sees whether it opens its config after the signal",
        ),
        (false, Some(assumed)) => Finding::note(
            Topic::Opened,
            format!("{assumed}, and only root sees whether it opens that after the signal"),
        )
        .then(format!(
            "set `config` in group `{}`, if it reads that file",
            planned.group.name
        )),
    })
}

/// Returns the files and keys that the process does not read on the signal.
pub(super) async fn not_read(
    found: &Found,
    planned: &PlannedInstance,
    targets: &[CurrentTarget],
) -> Finding {
    let group = &planned.group;
    let trigger = group.trigger();
    let restart_only = discover::fixed_of(found, group);
    let only_at_start = |paths: &[PathBuf]| {
        let paths: Vec<String> = paths
            .iter()
            .map(|path| format!("`{}`", path.display()))
            .collect();
        format!(
            "does not read {} on {trigger}, only at its start",
            paths.join(", ")
        )
    };
    let is_restart_only = |path: &Path| restart_only.iter().any(|fixed| fixed.starts_with(path));
    let unread = targets.iter().find(|target| is_restart_only(&target.path));
    if let Some(target) = unread {
        let text = only_at_start(std::slice::from_ref(&target.path));
        return Finding::bad(Topic::NotRead, text).then("restart it after a change of that");
    }
    if !restart_only.is_empty() {
        return Finding::note(Topic::NotRead, only_at_start(&restart_only));
    }
    if !group.restart_keys.is_empty() {
        return pending_keys(planned).await;
    }
    if group.speaks == Speaks::Hello {
        return Finding::good(
            Topic::NotRead,
            "a changed `listen` needs a restart, or is overridden by `--listen`; a run refuses it \
             before it touches anything",
        );
    }
    Finding::good(
        Topic::NotRead,
        format!("no file or key is known that it would not read on {trigger}"),
    )
}

/// Returns the keys on the disk that wait for a restart.
async fn pending_keys(planned: &PlannedInstance) -> Finding {
    match restart::pending(planned).await {
        Ok(keys) if keys.is_empty() => Finding::good(
            Topic::NotRead,
            "some keys need a restart; a run names them before it touches anything",
        ),
        Ok(keys) => Finding::note(
            Topic::NotRead,
            format!("a restart is needed for {} on its disk", quoted(&keys)),
        )
        .then("restart it"),
        Err(why) => Finding::note(
            Topic::NotRead,
            format!("some keys need a restart; which of them wait for one is not known: {why}"),
        ),
    }
}
