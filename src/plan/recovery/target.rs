//! The change of one target of an earlier run.

use std::path::Path;

use super::request::RecoveryRequest;
use crate::{
    event::{Abort, Direction, TargetKind, Verdict},
    runs::RunTarget,
    step::{Content, Survey, TargetChange, short},
};

fn refused(why: String) -> Abort {
    Abort::new(Verdict::Refused, why)
}

/// Returns the change of one target. Its present content must be the one from before the earlier
/// run, or the one that the run was installing.
pub(super) fn target_change(
    target: &RunTarget,
    survey: &Survey,
    request: RecoveryRequest<'_>,
    stored: impl Fn(&str) -> Option<Vec<u8>>,
    later_run: impl Fn(&Path, &str) -> Option<String>,
) -> Result<TargetChange, Abort> {
    let path = target.path.display();
    let now = survey
        .targets
        .get(&target.path)
        .ok_or_else(|| refused(format!("`{path}` does not exist any more")))?;
    let (from, to) = digests(target, request)?;
    let disk = &now.content;
    let kind = match target.kind {
        TargetKind::Key => TargetKind::File,
        kind => kind,
    };
    if disk.kind() != kind || ![from, Some(to)].contains(&Some(disk.sha256.as_str())) {
        return Err(changed_since(target, disk, request, later_run));
    }
    let content = |sha256: &str| {
        if disk.sha256 == sha256 {
            return Some(disk.clone());
        }
        stored(sha256)
            .and_then(|bytes| Content::from_stored(bytes, target.kind))
            .filter(|content| content.sha256 == sha256)
    };
    let to = content(to).ok_or_else(|| {
        refused(format!(
            "the bytes that `{path}` would become ({}) are not stored any more",
            short(to)
        ))
    })?;
    let group_decides = survey
        .instances
        .iter()
        .any(|m| m.group.secret.is_some() && m.instance.targets.contains(&target.path));
    let is_private = to.tree.as_ref().is_some_and(|tree| !tree.is_public());
    Ok(TargetChange {
        path: target.path.clone(),
        rev: now.rev.clone(),
        from: from.and_then(content),
        secret: now.secret || (!group_decides && is_private),
        // Its bytes are those of the earlier run: the store is not read again.
        source: None,
        to,
    })
}

/// Returns the digests that the target changes from, if it is known, and to.
fn digests<'a>(
    target: &'a RunTarget,
    request: RecoveryRequest<'_>,
) -> Result<(Option<&'a str>, &'a str), Abort> {
    let old = target.from.as_deref();
    let new = target.to.as_str();
    match request.direction {
        Direction::Forward => Ok((old, new)),
        Direction::Back => match old {
            Some(old) => Ok((Some(new), old)),
            None => Err(refused(format!(
                "run {0} cannot be rolled back: the content that was served from `{1}` before it \
                 is not known; finish it (`hello resume {0}`), or give it up (`hello forget {0} \
                 --abandon`) and revert the run before it",
                request.left.id,
                target.path.display()
            ))),
        },
    }
}

/// Reports a target that is neither the old nor the new content of the earlier run.
fn changed_since(
    target: &RunTarget,
    disk: &Content,
    request: RecoveryRequest<'_>,
    later_run: impl Fn(&Path, &str) -> Option<String>,
) -> Abort {
    let later = later_run(&target.path, &disk.sha256)
        .or_else(|| request.left.superseded_by().map(str::to_owned));
    let cause = later.map_or_else(
        || {
            "another program has changed it since; restore it, or adopt it with `hello broadcast` \
             and its group"
                .to_owned()
        },
        |run| format!("run {run} came after it (`hello history {run}`)"),
    );
    refused(format!(
        "`{}` on disk is {}, which is neither what it was before run {} ({}) nor what that made \
         it ({}): {cause}",
        target.path.display(),
        short(&disk.sha256),
        request.left.id,
        target.from.as_deref().map_or("?", short),
        short(&target.to)
    ))
}
