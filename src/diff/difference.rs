//! The targets that differ.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    change::Changes,
    event::{Abort, EntryReport, SourceReport, TargetKind},
    fleet::{Group, Speaks},
    host::local::sources::Sources,
    names::{self, json_word},
    plan::{candidate, entries_without_target},
    runs, screen,
    status::{ReadTarget, Readings},
    step::{Content, ContentDifference, Side, kind_of, short},
    tree::shown,
};

/// The result of a comparison.
#[derive(Debug, Default)]
pub(super) struct Compared {
    pub(super) targets: Vec<TargetDifference>,
    pub(super) unknown: Vec<Unknown>,
}

/// A target whose two contents differ.
#[derive(Debug, Serialize)]
pub(super) struct TargetDifference {
    #[serde(with = "crate::exact")]
    path: PathBuf,
    kind: TargetKind,
    /// The digest that the instances run; against a candidate, the one on the disk.
    from: String,
    /// The digest on the disk; against a candidate, that of the candidate.
    to: String,
    /// The instances that run `from`; against a candidate, those that read the target.
    instances: Vec<InstanceName>,
    secret: bool,
    /// The key of a store that the candidate was read from.
    source: Option<SourceReport>,
    entries: Vec<EntryReport>,
    diff: Option<String>,
    /// Why there is no diff.
    hidden: Option<&'static str>,
}

/// An instance by its group and pid.
#[derive(Debug, Clone, Serialize)]
pub(super) struct InstanceName {
    group: String,
    pid: i32,
}

/// An instance whose content of a target is not known.
#[derive(Debug, Serialize)]
pub(super) struct Unknown {
    #[serde(flatten)]
    instance: InstanceName,
    #[serde(with = "crate::exact")]
    path: Option<PathBuf>,
    why: String,
}

impl Unknown {
    pub(super) fn text(&self) -> String {
        let path = self.path.as_ref();
        let path = path.map_or_else(String::new, |path| format!("{}: ", path.display()));
        format!("{}: {path}{}", self.instance, self.why)
    }
}

impl std::fmt::Display for InstanceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} pid {}", self.group, self.pid)
    }
}

impl TargetDifference {
    /// Returns the lines for the screen: a unified diff, or that the target differs.
    pub(super) fn lines(&self) -> Vec<String> {
        let entries = self.entries.iter().map(|entry| {
            let change = json_word(entry.change);
            format!("{}/{} {change}", shown(&self.path), entry.path)
        });
        let mut lines: Vec<String> = entries.collect();
        if let Some(why) = self.hidden {
            lines.push(format!(
                "{} differs, sha256:{} and sha256:{}: {why}",
                shown(&self.path),
                short(&self.from),
                short(&self.to)
            ));
        }
        let diff = self.diff.as_deref().unwrap_or_default();
        lines.extend(diff.lines().map(str::to_owned));
        lines
    }
}

/// Compares the disk with what the instances run. The bytes that they run come from `state`.
pub(super) fn against_running(
    readings: &Readings,
    groups: &[Group],
    state: Option<&Path>,
) -> Compared {
    let mut compared = Compared::default();
    let mut differing: BTreeMap<(&Path, &str), (&ReadTarget, &Content, Vec<InstanceName>)> =
        BTreeMap::new();
    for instance in &readings.instances {
        let name = InstanceName {
            group: groups[instance.group].name.clone(),
            pid: instance.pid,
        };
        let unknown = |path: Option<&Path>, why: &str| Unknown {
            instance: name.clone(),
            path: path.map(Path::to_owned),
            why: why.to_owned(),
        };
        if instance.targets.is_empty() {
            let why = instance.faults.first();
            compared.unknown.extend(why.map(|why| unknown(None, why)));
        }
        for target in &instance.targets {
            match (&target.disk, &target.runs) {
                (Err(why), _) => {
                    let why = why.to_string();
                    compared.unknown.push(unknown(Some(&target.path), &why));
                }
                (Ok(_), None) => {
                    // Its self-report was read last.
                    let reports = groups[instance.group].speaks == Speaks::Hello;
                    let why = instance.faults.last().filter(|_| reports);
                    let why = why.or(instance.doubt.as_ref());
                    let why = why.map_or(NOT_PROVEN, String::as_str);
                    compared.unknown.push(unknown(Some(&target.path), why));
                }
                (Ok(disk), Some(runs)) if *runs == disk.sha256 => {}
                (Ok(disk), Some(runs)) => differing
                    .entry((&target.path, runs))
                    .or_insert_with(|| (target, disk, Vec::new()))
                    .2
                    .push(name.clone()),
            }
        }
    }
    for ((path, runs), (target, disk, instances)) in differing {
        let stored = state.and_then(|state| {
            let bytes = runs::stored(state, runs)?;
            let content = Content::from_stored(bytes, disk.kind())?;
            let uses = runs::uses(state, runs).unwrap_or_default();
            Some((content, runs::is_secret(&uses) == Some(true)))
        });
        let (old, was_secret) = stored.unzip();
        let notes = [
            format!("runs: {}", names::list(&instances, ", ", names::MOST)),
            "on the disk".to_owned(),
        ];
        compared.targets.push(difference(
            path,
            (runs, old.as_ref()),
            disk,
            notes,
            target.secret || was_secret == Some(true),
            instances,
        ));
    }
    compared
}

/// Why it is not known which content an instance runs, where nothing else is the reason.
const NOT_PROVEN: &str = "it does not report what it runs, and no run has proven it";

/// Compares the disk with the candidate.
///
/// # Errors
/// Fails if the candidate does not fit a target.
pub(super) fn against_candidate(
    readings: &Readings,
    groups: &[Group],
    changes: &Changes,
    sources: &Sources,
) -> Result<Compared, Abort> {
    let paths: Vec<(Vec<PathBuf>, &Group)> = readings
        .instances
        .iter()
        .map(|instance| {
            let paths = instance.targets.iter().map(|target| target.path.clone());
            (paths.collect(), &groups[instance.group])
        })
        .collect();
    let readers = paths
        .iter()
        .map(|(paths, group)| (paths.as_slice(), *group));
    if let Some(abort) = entries_without_target(readers, changes) {
        return Err(abort);
    }
    let mut compared = Compared::default();
    let targets = readers_of(readings, groups, &mut compared.unknown);
    for (path, readers) in targets {
        let Readers {
            target,
            groups,
            instances,
        } = readers;
        let disk = match &target.disk {
            Ok(disk) => disk,
            Err(why) => {
                let why = why.to_string();
                compared.unknown.extend(unknown_at(path, &instances, &why));
                continue;
            }
        };
        let staged = sources.staged(groups.values().copied(), path);
        let missing = staged.values().find(|staged| staged.content.is_none());
        if let Some(missing) = missing {
            let why = format!("nothing is at `{}`", shown(&missing.named));
            compared.unknown.extend(unknown_at(path, &instances, &why));
        }
        let source = staged.values().find_map(|staged| staged.key.clone());
        let new = candidate(path, disk, target.secret, &groups, changes, staged)?;
        let Some((new, secret)) = new.filter(|(new, _)| new.sha256 != disk.sha256) else {
            continue;
        };
        let of_candidate = source.as_ref().map_or_else(
            || "candidate".to_owned(),
            |source| format!("candidate, {source}"),
        );
        let notes = ["on the disk".to_owned(), of_candidate];
        let old = (disk.sha256.as_str(), Some(disk));
        compared.targets.push(TargetDifference {
            source,
            ..difference(path, old, &new, notes, secret, instances)
        });
    }
    Ok(compared)
}

/// Names each instance whose content of a target is not known.
fn unknown_at(path: &Path, instances: &[InstanceName], why: &str) -> impl Iterator<Item = Unknown> {
    instances.iter().map(move |instance| Unknown {
        instance: instance.clone(),
        path: Some(path.into()),
        why: why.to_owned(),
    })
}

/// Returns every target with its readers, and adds the faults of these to `unknown`.
fn readers_of<'a>(
    readings: &'a Readings,
    groups: &'a [Group],
    unknown: &mut Vec<Unknown>,
) -> BTreeMap<&'a Path, Readers<'a>> {
    let mut targets: BTreeMap<&Path, Readers<'a>> = BTreeMap::new();
    for instance in &readings.instances {
        let group = &groups[instance.group];
        let name = InstanceName {
            group: group.name.clone(),
            pid: instance.pid,
        };
        for why in &instance.faults {
            unknown.push(Unknown {
                instance: name.clone(),
                path: None,
                why: why.to_string(),
            });
        }
        for target in &instance.targets {
            let readers = targets.entry(&target.path).or_insert_with(|| Readers {
                target,
                groups: BTreeMap::new(),
                instances: Vec::new(),
            });
            readers.groups.insert(&group.name, group);
            readers.instances.push(name.clone());
        }
    }
    targets
}

/// A target with its readers.
struct Readers<'a> {
    target: &'a ReadTarget,
    groups: BTreeMap<&'a str, &'a Group>,
    instances: Vec<InstanceName>,
}

/// Returns the difference of one target. `old` is a digest, and its content if that is known.
fn difference(
    path: &Path,
    (from, old): (&str, Option<&Content>),
    new: &Content,
    notes: [String; 2],
    secret: bool,
    instances: Vec<InstanceName>,
) -> TargetDifference {
    let name = shown(path);
    let notes = [
        format!("sha256:{} {}", short(from), notes[0]),
        format!("sha256:{} {}", short(&new.sha256), notes[1]),
    ];
    let notes = notes.map(|note| screen::line(&note).into_owned());
    let sides = [&notes[0], &notes[1]].map(|note| Side { name: &name, note });
    let found = old.map(|old| ContentDifference::of(old, new, sides));
    let hidden = match &found {
        None => Some("the bytes that run are not kept in the state directory"),
        Some(_) if secret => Some("it is a secret, and not shown"),
        Some(found) if found.diff.is_none() && found.entries.is_empty() => {
            Some("it is no text, and not shown")
        }
        Some(_) => None,
    };
    let found = found.unwrap_or_default();
    TargetDifference {
        path: path.into(),
        kind: kind_of(path, new),
        from: from.into(),
        to: new.sha256.clone(),
        instances,
        secret,
        source: None,
        entries: found.entries,
        diff: found.diff.filter(|_| !secret),
        hidden,
    }
}
