//! What each target becomes: one answer for everybody who reads it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    path::{Path, PathBuf},
};

use super::readers::Readers;
use crate::{
    change::{Change, Changes, edit, entry, fits, put},
    event::{Abort, TargetKind, Verdict},
    fleet::Group,
    step::{Content, StagedSource, SurveyedTarget},
    tree::shown,
};

/// What one target becomes.
#[derive(Debug)]
pub(super) struct DesiredContent {
    pub(super) to: Content,
    /// Where that comes from, for people; the target itself where nothing else was named.
    pub(super) named: PathBuf,
    /// Whether it must not be shown.
    pub(super) secret: bool,
}

/// What every target becomes, and the first reason why a change is not acceptable: that is the end
/// only where nobody is refused.
///
/// # Errors
/// `Failed` where what was asked for is not there or cannot be read; `Refused` where a target would
/// have to become two things.
pub(super) fn desired_contents<'a>(
    seen: &'a BTreeMap<PathBuf, SurveyedTarget>,
    readers: &Readers,
    changes: &Changes,
) -> Result<(BTreeMap<&'a Path, DesiredContent>, Option<Abort>), Abort> {
    offered(seen, readers, changes)?;
    let mut invalid = strays(readers, changes);
    let (mut all, mut groups_of) = (BTreeMap::new(), groups_of(readers));
    for (path, target) in seen {
        let groups = groups_of.remove(path.as_path()).unwrap_or_default();
        let (to, named) = match desired(path, target, &groups, changes) {
            Ok(new) => new.unwrap_or_else(|| (target.content.clone(), path.clone())),
            Err(stop) if stop.verdict == Verdict::Invalid => {
                invalid.get_or_insert(stop);
                (target.content.clone(), path.clone())
            }
            Err(stop) => return Err(stop),
        };
        let said = groups.values().find_map(|g| g.secret).is_some();
        let secret = target.secret || (!said && to.tree.as_ref().is_some_and(|t| !t.is_public()));
        all.insert(path.as_path(), DesiredContent { to, named, secret });
    }
    nested(seen, &all)?;
    Ok((all, invalid))
}

fn invalid(named: &Path, why: &str) -> Abort {
    Abort::new(
        Verdict::Invalid,
        format!("the new config is not valid: `{}`: {why}", shown(named)),
    )
}

/// The groups that read each target, by name.
fn groups_of(readers: &Readers) -> BTreeMap<&Path, BTreeMap<&str, &Group>> {
    let mut all: BTreeMap<&Path, BTreeMap<&str, &Group>> = BTreeMap::new();
    for (path, members) in readers
        .iter()
        .flat_map(|(paths, members)| paths.iter().map(move |path| (path, members)))
    {
        all.entry(path)
            .or_default()
            .extend(members.iter().map(|m| (m.group.name.as_str(), &*m.group)));
    }
    all
}

/// What one target becomes, and where that comes from; none when it stays.
fn desired(
    path: &Path,
    target: &SurveyedTarget,
    groups: &BTreeMap<&str, &Group>,
    changes: &Changes,
) -> Result<Option<(Content, PathBuf)>, Abort> {
    let mut wanted: Option<(&str, Option<(Content, PathBuf)>)> = None;
    let digest = |new: &Option<(Content, PathBuf)>| {
        new.as_ref()
            .map_or(&target.content, |(to, _)| to)
            .sha256
            .clone()
    };
    for (name, group) in groups {
        let new = for_group(path, target, group, changes)?;
        match &wanted {
            Some((other, known)) if digest(known) != digest(&new) => {
                return Err(Abort::new(
                    Verdict::Refused,
                    format!(
                        "groups `{other}` and `{name}` read `{}`, and it cannot become both",
                        path.display()
                    ),
                ));
            }
            _ => wanted = Some((name, new)),
        }
    }
    Ok(wanted.and_then(|(_, new)| new))
}

fn for_group(
    path: &Path,
    target: &SurveyedTarget,
    group: &Group,
    changes: &Changes,
) -> Result<Option<(Content, PathBuf)>, Abort> {
    let disk = &target.content;
    let put = |named: PathBuf, new: &Content| match put(disk, new, changes.prune) {
        Ok(to) => Ok(Some((to, named))),
        Err(why) => Err(invalid(&named, &why)),
    };
    match changes.of(&group.name) {
        Change::Adopt => match target.staged.get(&group.name) {
            Some(StagedSource {
                path: named,
                content: Some(Ok(new)),
            }) => put(named.clone(), new),
            Some(StagedSource {
                content: Some(Err((verdict, why))),
                ..
            }) => Err(Abort::new(*verdict, why.clone())),
            _ => Ok(None),
        },
        Change::Put {
            named,
            form,
            content,
        } if group.config.len() == 1 => {
            fits(disk.kind(), *form).map_err(|why| invalid(named, &why))?;
            put(
                named.clone(),
                content.as_ref().map_err(|why| invalid(named, why))?,
            )
        }
        Change::Put { named, content, .. } => {
            let Some(all) = &content.as_ref().map_err(|why| invalid(named, why))?.tree else {
                let why = format!(
                    "group `{}` has several targets, and --config takes a directory with an entry \
                     for each",
                    group.name
                );
                return Err(invalid(named, &why));
            };
            let name = path.file_name().unwrap_or_default();
            match entry(all, name) {
                Ok(Some(new)) => put(named.join(name), &new),
                Ok(None) => Ok(None),
                Err(why) => Err(invalid(&named.join(name), &why)),
            }
        }
        Change::Set(edits) => {
            if disk.kind() == TargetKind::Directory {
                return Err(set_on(path, "it is a directory, and --set edits one file"));
            }
            if group.config.len() > 1 {
                return Err(set_on(
                    path,
                    &format!(
                        "group `{}` has several targets, and --set edits one file",
                        group.name
                    ),
                ));
            }
            edit(&disk.bytes, edits)
                .map(|bytes| Some((Content::new(bytes), path.to_owned())))
                .map_err(|why| set_on(path, &why))
        }
    }
}

fn set_on(path: &Path, why: &str) -> Abort {
    Abort::new(
        Verdict::Invalid,
        format!(
            "the new config is not valid: --set on `{}`: {why}",
            path.display()
        ),
    )
}

/// Where a group's `source` is asked, something must be there for one of its targets at least.
fn offered(
    seen: &BTreeMap<PathBuf, SurveyedTarget>,
    readers: &Readers,
    changes: &Changes,
) -> Result<(), Abort> {
    let mut looked: BTreeMap<&str, (&StagedSource, bool)> = BTreeMap::new();
    // What nobody in the run reads is offered to nobody.
    let all: BTreeSet<&PathBuf> = if seen.values().all(|t| t.staged.is_empty()) {
        BTreeSet::new()
    } else {
        readers.keys().flatten().collect()
    };
    let read = |path: &PathBuf| all.contains(path);
    for (group, offered) in seen
        .iter()
        .filter(|(path, _)| read(path))
        .flat_map(|(_, t)| &t.staged)
    {
        looked.entry(group).or_insert((offered, false)).1 |= offered.content.is_some();
    }
    let asked = |name: &str| {
        matches!(changes.of(name), Change::Adopt)
            && readers.values().flatten().any(|m| m.group.name == name)
    };
    match looked
        .into_iter()
        .find(|(name, (_, there))| !there && asked(name))
    {
        Some((name, (StagedSource { path, .. }, _))) => Err(Abort::new(
            Verdict::Failed,
            format!(
                "cannot read `{}`: nothing is there, and group `{name}` takes its new config from \
                 it",
                shown(path)
            ),
        )),
        None => Ok(()),
    }
}

/// An entry that is for no target of the group would be left out in silence; two targets of one
/// name could not be told apart.
fn strays(readers: &Readers, changes: &Changes) -> Option<Abort> {
    let mut targets: BTreeMap<&str, BTreeSet<&OsStr>> = BTreeMap::new();
    for (paths, members) in readers {
        for group in members
            .iter()
            .map(|m| &m.group)
            .filter(|g| g.config.len() > 1)
        {
            let Change::Put { named, .. } = changes.of(&group.name) else {
                continue;
            };
            let names: BTreeSet<&OsStr> = paths.iter().filter_map(|p| p.file_name()).collect();
            if names.len() < paths.len() {
                return Some(invalid(
                    named,
                    &format!(
                        "two targets of group `{}` have the same name, so it cannot be told which \
                         entry is whose",
                        group.name
                    ),
                ));
            }
            targets.entry(&group.name).or_default().extend(names);
        }
    }
    for (name, names) in targets {
        let Change::Put {
            named,
            content: Ok(Content {
                tree: Some(all), ..
            }),
            ..
        } = changes.of(name)
        else {
            continue;
        };
        if all.entries.is_empty() {
            return Some(invalid(named, "nothing is in it"));
        }
        if let Some(stray) = all
            .entries
            .keys()
            .find(|entry| !names.contains(entry.as_os_str()))
        {
            let names: Vec<String> = names
                .iter()
                .map(|n| format!("`{}`", shown(Path::new(n))))
                .collect();
            return Some(invalid(
                &named.join(stray),
                &format!(
                    "group `{name}` has no target of that name; it has {}",
                    names.join(", ")
                ),
            ));
        }
    }
    None
}

/// A directory that is exchanged takes along what is in it: another target in it would have to be
/// changed twice.
fn nested(
    seen: &BTreeMap<PathBuf, SurveyedTarget>,
    all: &BTreeMap<&Path, DesiredContent>,
) -> Result<(), Abort> {
    let changes = |path: &Path| {
        seen.get(path)
            .zip(all.get(path))
            .is_some_and(|(target, becomes)| target.content.sha256 != becomes.to.sha256)
    };
    for outer in seen
        .iter()
        .filter(|(_, t)| t.content.kind() == TargetKind::Directory)
        .map(|(path, _)| path)
    {
        let inner = seen.keys().find(|path| {
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
