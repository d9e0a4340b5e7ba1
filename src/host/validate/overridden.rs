//! Keys of a new config that another place overrides: they would be loaded and change nothing.
//!
//! The command of the group prints a line for each key that is overridden wherever the file sets
//! it. Or it prints what the instance reads: `FILE<TAB>KEY` in the order in which that counts, and
//! `FILE<TAB>` for a file without keys. Such paths are as the instance names them, along links.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::{
    event::{Abort, Verdict},
    fleet::Speaks,
    host::{
        proc::argument::argument,
        validate::restart::{ask_of, keys_of, quoted, set_anew},
    },
    step::{PlannedInstance, TargetChange},
    tree::Node,
};

/// Holds the keys that get another value in each target of `member` against what its group's
/// command prints; `{config}` of that is the path of the target. A file that the instance does not
/// read is refused as well, where the command tells that.
///
/// # Errors
/// `Refused` with the keys, and where the command does not tell them.
pub(crate) async fn keys(member: &PlannedInstance, shifts: &[TargetChange]) -> Result<(), Abort> {
    let (group, i) = (&member.group, &member.instance);
    if group.overridden_keys.is_empty() {
        return by_its_arguments(member, shifts);
    }
    for shift in shifts {
        for (path, keys) in set(shift) {
            let refused = |why: String| {
                Abort::new(
                    Verdict::Refused,
                    format!(
                        "pid {}: which keys are overridden is not told: {why}",
                        i.pid
                    ),
                )
            };
            let told = ask_of(&group.overridden_keys, member, &path)
                .await
                .map_err(refused)?;
            let read = Read::of(&told);
            let (group, is_file) = (&i.group, shift.to.tree.is_none());
            if is_file && let Some(files) = read.without(&path) {
                let why = format!(
                    "pid {} ({group}): it does not read `{}`, but {files}",
                    i.pid,
                    path.display()
                );
                return Err(Abort::new(
                    Verdict::Refused,
                    format!(
                        "{why}; change one of these, or say `overridden_keys = []` in group \
                         `{group}`"
                    ),
                ));
            }
            let in_vain: BTreeSet<String> = keys
                .into_iter()
                .filter(|key| read.overrides(&path, key))
                .collect();
            if !in_vain.is_empty() {
                let (them, name) = (quoted(&in_vain), &i.group);
                let why = format!(
                    "pid {} ({name}): {them} in `{}` would change nothing: another place \
                     overrides it",
                    i.pid,
                    path.display()
                );
                return Err(Abort::new(
                    Verdict::Refused,
                    format!(
                        "{why}; change it there, or say `overridden_keys = []` in group `{name}`"
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// The same of a `hello serve`, whose `--listen` overrides the key of that name.
fn by_its_arguments(member: &PlannedInstance, shifts: &[TargetChange]) -> Result<(), Abort> {
    if member.group.speaks != Speaks::Hello || argument(&member.args, "--listen").is_none() {
        return Ok(());
    }
    let in_vain = shifts
        .iter()
        .flat_map(set)
        .find(|(_, keys)| keys.contains("listen"));
    in_vain.map_or(Ok(()), |(path, _)| {
        let why = format!(
            "`listen` in `{}` would change nothing, since its `--listen` overrides that",
            path.display()
        );
        Err(Abort::new(
            Verdict::Refused,
            format!(
                "pid {} ({}): {why}; leave the key as it is",
                member.instance.pid, member.instance.group
            ),
        ))
    })
}

/// What an instance reads.
#[derive(Debug, Default)]
struct Read {
    /// Overridden, whatever a file sets.
    always: BTreeSet<String>,
    /// Each file, resolved, and a key that it sets; an empty one for the file alone.
    all: Vec<(PathBuf, String)>,
}

impl Read {
    fn of(told: &str) -> Self {
        let (pairs, keys): (Vec<&str>, Vec<&str>) =
            told.lines().partition(|line| line.contains('\t'));
        let mut known: BTreeMap<&str, PathBuf> = BTreeMap::new();
        let pair = |line: &str| {
            line.split_once('\t')
                .map(|(file, key)| (file.to_owned(), key.trim().to_lowercase()))
        };
        let mut all = Vec::with_capacity(pairs.len());
        for (line, (file, key)) in pairs.iter().filter_map(|line| Some((line, pair(line)?))) {
            let name = line.split('\t').next().unwrap_or_default();
            let path = known.entry(name).or_insert_with(|| {
                Path::new(&file)
                    .canonicalize()
                    .unwrap_or_else(|_| file.clone().into())
            });
            all.push((path.clone(), key));
        }
        Self {
            always: keys_of(&keys.join("\n")),
            all,
        }
    }

    /// The files that it reads, where `path` is none of them.
    fn without(&self, path: &Path) -> Option<String> {
        let files: BTreeSet<&Path> = self.all.iter().map(|(file, _)| file.as_path()).collect();
        let named = || {
            files
                .iter()
                .map(|file| format!("`{}`", file.display()))
                .collect::<Vec<_>>()
                .join(", ")
        };
        (!files.is_empty() && !files.contains(path)).then(named)
    }

    /// Whether `key` in the file `path` gets its value from another place.
    fn overrides(&self, path: &Path, key: &str) -> bool {
        let last = |of: &dyn Fn(&(PathBuf, String)) -> bool| self.all.iter().rposition(of);
        // A new key may stand anywhere in its file.
        let own = last(&|(file, name)| file == path && name == key)
            .or_else(|| last(&|(file, _)| file == path));
        let others = last(&|(file, name)| file != path && name == key);
        self.always.contains(key) || own.zip(others).is_some_and(|(own, other)| other > own)
    }
}

/// Each file of a target with the keys that get another value in it.
fn set(shift: &TargetChange) -> Vec<(std::path::PathBuf, BTreeSet<String>)> {
    let Some(from) = &shift.from else {
        return Vec::new();
    };
    let all = match (&from.tree, &shift.to.tree) {
        (Some(old), Some(new)) => {
            let bytes = |node: Option<&Node>| {
                if let Some(Node::File(_, bytes)) = node {
                    bytes.to_vec()
                } else {
                    Vec::new()
                }
            };
            let below = |path: &Path| {
                if path.as_os_str().is_empty() {
                    shift.path.clone()
                } else {
                    shift.path.join(path)
                }
            };
            old.differences(new)
                .iter()
                .map(|d| (below(&d.path), set_anew(&bytes(d.old), &bytes(d.new))))
                .collect()
        }
        _ => vec![(shift.path.clone(), set_anew(&from.bytes, &shift.to.bytes))],
    };
    let is_file = shift.to.tree.is_none();
    all.into_iter()
        .filter(|(_, keys): &(_, BTreeSet<String>)| is_file || !keys.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn a_key_is_overridden_by_what_is_read_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap().join("real");
        std::fs::create_dir(&real).unwrap();
        ["main", "late", "other"]
            .iter()
            .for_each(|name| std::fs::write(real.join(name), "").unwrap());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let line = |file: &str, key: &str| format!("{}\t{key}\n", link.join(file).display());
        let told = [
            line("main", ""),
            line("main", "a"),
            line("late", "A"),
            line("main", "b"),
            line("late", "c"),
            "port\n".into(),
        ]
        .concat();
        let read = Read::of(&told);
        for (key, is_overridden) in [
            ("a", true),
            ("b", false),
            ("c", true),
            ("port", true),
            ("new", false),
        ] {
            assert_eq!(
                read.overrides(&real.join("main"), key),
                is_overridden,
                "{key}"
            );
        }
        assert!(!read.overrides(&real.join("late"), "a"));
        assert!(
            read.without(&real.join("main")).is_none()
                && read.without(&real.join("other")).unwrap().contains("late")
        );
        // A command that prints keys alone says nothing of files.
        assert!(
            Read::of("a\nb\n").without(&real.join("other")).is_none()
                && Read::of("a\n").overrides(Path::new("/x"), "a")
        );
    }
}
