//! The new content of each target, which is the same for every instance that reads it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fmt::Display,
    path::{Path, PathBuf},
};

use super::readers::Readers;
use crate::{
    change::{Change, Changes, edit, entry, fits, put},
    event::{Abort, SourceReport, TargetKind, Verdict},
    fleet::{Group, url_of},
    step::{Content, StagedSource, SurveyedTarget},
    tree::shown,
};

/// The new content of one target.
#[derive(Debug)]
pub(super) struct DesiredContent {
    pub(super) to: Content,
    /// The path or URL of its source, for messages; the target itself if no other source was named.
    pub(super) named: PathBuf,
    /// The key of a store that it was read from.
    pub(super) source: Option<SourceReport>,
    /// True if the content must not be shown.
    pub(super) secret: bool,
}

/// The new content of a target that changes.
struct NewContent {
    to: Content,
    named: PathBuf,
    source: Option<SourceReport>,
}

impl NewContent {
    fn named(named: PathBuf, to: Content) -> Self {
        Self {
            to,
            named,
            source: None,
        }
    }
}

/// Returns the new content of every target, and the first reason why a change is not valid. That
/// reason ends the run only if no instance is refused.
///
/// # Errors
/// Returns `Failed` if a source does not exist or cannot be read, and `Refused` if a target would
/// have to become two contents.
pub(super) fn desired_contents<'a>(
    targets: &'a BTreeMap<PathBuf, SurveyedTarget>,
    readers: &Readers,
    changes: &Changes,
) -> Result<(BTreeMap<&'a Path, DesiredContent>, Option<Abort>), Abort> {
    check_sources(targets, readers, changes)?;
    let read_by = readers.iter().flat_map(|(paths, instances)| {
        let groups = instances.iter().map(|m| &*m.group);
        groups.map(move |group| (paths.as_slice(), group))
    });
    let mut invalid = entries_without_target(read_by, changes);
    let mut groups_of = groups_of(readers);
    let mut desired = BTreeMap::new();
    for (path, target) in targets {
        let groups = groups_of.remove(path.as_path()).unwrap_or_default();
        let new = match desired_content(path, target, &groups, changes) {
            Ok(new) => new,
            Err(abort) if abort.verdict == Verdict::Invalid => {
                invalid.get_or_insert(abort);
                None
            }
            Err(abort) => return Err(abort),
        };
        let NewContent { to, named, source } =
            new.unwrap_or_else(|| NewContent::named(path.clone(), target.content.clone()));
        // A store that lost its data, or an empty file, is more likely a mistake than the wish for
        // an empty config.
        if url_of(path).is_some() && to.bytes.is_empty() {
            invalid.get_or_insert(self::invalid(
                &named,
                "the value of a key must not be empty",
            ));
        }
        let secret = is_secret(target, &groups, &to);
        let content = DesiredContent {
            to,
            named,
            source,
            secret,
        };
        desired.insert(path.as_path(), content);
    }
    check_nesting(targets, &desired)?;
    Ok((desired, invalid))
}

/// Returns the new content of one target that now has the content `disk`, as its groups want it,
/// and true if the new content must not be shown. None if the target stays. `staged` is what the
/// `source` of each group has for it.
///
/// # Errors
/// Returns `Invalid` if the change does not fit the target, and `Refused` if it would have to
/// become two contents.
pub(crate) fn candidate(
    path: &Path,
    disk: &Content,
    secret: bool,
    groups: &BTreeMap<&str, &Group>,
    changes: &Changes,
    staged: BTreeMap<String, StagedSource>,
) -> Result<Option<(Content, bool)>, Abort> {
    let target = SurveyedTarget {
        content: disk.clone(),
        rev: None,
        ctime: 0,
        behind: None,
        secret,
        staged,
    };
    let new = desired_content(path, &target, groups, changes)?;
    Ok(new.map(|new| {
        let secret = is_secret(&target, groups, &new.to);
        (new.to, secret)
    }))
}

/// Tells whether the new content of a target must not be shown.
fn is_secret(target: &SurveyedTarget, groups: &BTreeMap<&str, &Group>, to: &Content) -> bool {
    let group_decides = groups.values().any(|group| group.secret.is_some());
    let is_private = to.tree.as_ref().is_some_and(|tree| !tree.is_public());
    target.secret || (!group_decides && is_private)
}

fn invalid(named: &Path, why: impl Display) -> Abort {
    Abort::new(
        Verdict::Invalid,
        format!("the new config is not valid: `{}`: {why}", shown(named)),
    )
}

/// Returns the groups that read each target, by name.
fn groups_of(readers: &Readers) -> BTreeMap<&Path, BTreeMap<&str, &Group>> {
    let mut groups: BTreeMap<&Path, BTreeMap<&str, &Group>> = BTreeMap::new();
    for (paths, instances) in readers {
        for path in paths {
            groups
                .entry(path)
                .or_default()
                .extend(instances.iter().map(|m| (m.group.name.as_str(), &*m.group)));
        }
    }
    groups
}

/// Returns the new content of one target; none if the target stays.
fn desired_content(
    path: &Path,
    target: &SurveyedTarget,
    groups: &BTreeMap<&str, &Group>,
    changes: &Changes,
) -> Result<Option<NewContent>, Abort> {
    let mut desired: Option<(&str, Option<NewContent>)> = None;
    let digest = |new: &Option<NewContent>| {
        let content = new.as_ref().map_or(&target.content, |new| &new.to);
        content.sha256.clone()
    };
    for (name, group) in groups {
        let new = for_group(path, target, group, changes)?;
        match &desired {
            Some((other, known)) if digest(known) != digest(&new) => {
                return Err(Abort::new(
                    Verdict::Refused,
                    format!(
                        "groups `{other}` and `{name}` read `{}`, and it cannot become both",
                        path.display()
                    ),
                ));
            }
            _ => desired = Some((name, new)),
        }
    }
    Ok(desired.and_then(|(_, new)| new))
}

/// Returns the new content of one target as one of its groups wants it; none if it stays.
fn for_group(
    path: &Path,
    target: &SurveyedTarget,
    group: &Group,
    changes: &Changes,
) -> Result<Option<NewContent>, Abort> {
    let disk = &target.content;
    let replace = |named: PathBuf, new: &Content| match put(disk, new, changes.prune) {
        Ok(to) => Ok(Some(NewContent::named(named, to))),
        Err(why) => Err(invalid(&named, &why)),
    };
    match changes.of(&group.name) {
        Change::Adopt => match target.staged.get(&group.name) {
            Some(StagedSource {
                named,
                content: Some(Ok(new)),
                key,
            }) => Ok(replace(named.clone(), new)?.map(|new| NewContent {
                source: key.clone(),
                ..new
            })),
            Some(StagedSource {
                content: Some(Err((verdict, why))),
                ..
            }) => Err(Abort::new(*verdict, why.clone())),
            _ => Ok(None),
        },
        Change::Put {
            named,
            kind,
            content,
        } if group.config.len() == 1 => {
            fits(disk.kind(), *kind).map_err(|why| invalid(named, &why))?;
            replace(
                named.clone(),
                content.as_ref().map_err(|why| invalid(named, why))?,
            )
        }
        Change::Put { named, content, .. } => {
            let content = content.as_ref().map_err(|why| invalid(named, why))?;
            match entry_for(path, group, named, content)? {
                Some((new, named)) => replace(named, &new),
                None => Ok(None),
            }
        }
        Change::Set(edits) => {
            let (to, named) = set_keys(path, disk, group, edits)?;
            Ok(Some(NewContent::named(named, to)))
        }
    }
}

/// Returns the entry of a directory for one of a group's several targets; none if the target stays.
fn entry_for(
    path: &Path,
    group: &Group,
    named: &Path,
    content: &Content,
) -> Result<Option<(Content, PathBuf)>, Abort> {
    let Some(tree) = &content.tree else {
        let why = format!(
            "group `{}` has several targets, and --config takes a directory with an entry for each",
            group.name
        );
        return Err(invalid(named, &why));
    };
    let name = path.file_name().unwrap_or_default();
    let named = named.join(name);
    match entry(tree, name) {
        Ok(new) => Ok(new.map(|new| (new, named))),
        Err(why) => Err(invalid(&named, &why)),
    }
}

/// Returns a file with the keys of `--set` edited.
fn set_keys(
    path: &Path,
    disk: &Content,
    group: &Group,
    edits: &[(String, String)],
) -> Result<(Content, PathBuf), Abort> {
    if disk.kind() == TargetKind::Directory {
        return Err(set_on(path, "it is a directory, and --set edits one file"));
    }
    if group.config.len() > 1 {
        return Err(set_on(
            path,
            format!(
                "group `{}` has several targets, and --set edits one file",
                group.name
            ),
        ));
    }
    edit(&disk.bytes, edits)
        .map(|bytes| (Content::new(bytes), path.to_owned()))
        .map_err(|why| set_on(path, why))
}

fn set_on(path: &Path, why: impl Display) -> Abort {
    Abort::new(
        Verdict::Invalid,
        format!(
            "the new config is not valid: --set on `{}`: {why}",
            path.display()
        ),
    )
}

/// Checks that a group's `source`, if it is used, exists for one of its targets at least.
fn check_sources(
    targets: &BTreeMap<PathBuf, SurveyedTarget>,
    readers: &Readers,
    changes: &Changes,
) -> Result<(), Abort> {
    if targets.values().all(|target| target.staged.is_empty()) {
        return Ok(());
    }
    let read: BTreeSet<&PathBuf> = readers.keys().flatten().collect();
    // The first source of each group, and whether any of them exists.
    let mut sources: BTreeMap<&str, (&StagedSource, bool)> = BTreeMap::new();
    for (group, source) in targets
        .iter()
        .filter(|(path, _)| read.contains(path))
        .flat_map(|(_, target)| &target.staged)
    {
        sources.entry(group).or_insert((source, false)).1 |= source.content.is_some();
    }
    let is_used = |group: &str| {
        matches!(changes.of(group), Change::Adopt)
            && readers.values().flatten().any(|m| m.group.name == group)
    };
    let missing = sources
        .into_iter()
        .find(|(group, (_, exists))| !exists && is_used(group));
    match missing {
        Some((group, (source, _))) => Err(Abort::new(
            Verdict::Failed,
            format!(
                "cannot read `{}`: nothing is there, and group `{group}` takes its new config \
                 from it",
                shown(&source.named)
            ),
        )),
        None => Ok(()),
    }
}

/// Returns why the directory of a `--config` does not fit a group with several targets: an entry is
/// for none of them, or two targets have the same name. `readers` holds the targets of each
/// instance, and its group.
pub(crate) fn entries_without_target<'a>(
    readers: impl Iterator<Item = (&'a [PathBuf], &'a Group)>,
    changes: &Changes,
) -> Option<Abort> {
    let mut targets: BTreeMap<&str, BTreeSet<&OsStr>> = BTreeMap::new();
    for (paths, group) in readers.filter(|(_, group)| group.config.len() > 1) {
        let Change::Put { named, .. } = changes.of(&group.name) else {
            continue;
        };
        let names: BTreeSet<&OsStr> = paths.iter().filter_map(|p| p.file_name()).collect();
        if names.len() < paths.len() {
            let why = format!(
                "two targets of group `{}` have the same name, so an entry cannot be assigned to \
                 one of them",
                group.name
            );
            return Some(invalid(named, &why));
        }
        targets.entry(&group.name).or_default().extend(names);
    }
    targets
        .into_iter()
        .find_map(|(group, names)| entry_without_target(group, &names, changes))
}

/// Returns why the directory of a `--config` does not fit the targets of these names.
fn entry_without_target(group: &str, names: &BTreeSet<&OsStr>, changes: &Changes) -> Option<Abort> {
    let Change::Put {
        named,
        content: Ok(Content {
            tree: Some(tree), ..
        }),
        ..
    } = changes.of(group)
    else {
        return None;
    };
    if tree.entries.is_empty() {
        return Some(invalid(named, "nothing is in it"));
    }
    let unknown = tree
        .entries
        .keys()
        .find(|entry| !names.contains(entry.as_os_str()))?;
    let names: Vec<String> = names
        .iter()
        .map(|name| format!("`{}`", shown(Path::new(name))))
        .collect();
    Some(invalid(
        &named.join(unknown),
        format!(
            "group `{group}` has no target of that name; it has {}",
            names.join(", ")
        ),
    ))
}

/// Refuses a change of a directory or of a target inside it: an exchange of the directory includes
/// everything in it, and the inner target would have to be changed twice.
fn check_nesting(
    targets: &BTreeMap<PathBuf, SurveyedTarget>,
    desired: &BTreeMap<&Path, DesiredContent>,
) -> Result<(), Abort> {
    let changes = |path: &Path| {
        targets
            .get(path)
            .zip(desired.get(path))
            .is_some_and(|(target, desired)| target.content.sha256 != desired.to.sha256)
    };
    for outer in targets
        .iter()
        .filter(|(_, target)| target.content.kind() == TargetKind::Directory)
        .map(|(path, _)| path)
    {
        let inner = targets.keys().find(|path| {
            *path != outer && path.starts_with(outer) && (changes(path) || changes(outer))
        });
        if let Some(inner) = inner {
            return Err(Abort::new(
                Verdict::Refused,
                format!(
                    "`{}` lies in `{}`, which is a target as well",
                    inner.display(),
                    outer.display()
                ),
            ));
        }
    }
    Ok(())
}
