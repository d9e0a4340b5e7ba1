//! Keys of a new config that another place overrides: the process would load them, and change
//! nothing.
//!
//! The command of the group has one of two outputs. Either it prints a line for each key that is
//! overridden in every file. Or it prints the settings that the instance reads: lines
//! `FILE<TAB>KEY` in the order of their effect, and `FILE<TAB>` for a file without keys. The paths
//! are as the instance names them, along links.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::{
    event::{Abort, Verdict},
    fleet::Speaks,
    host::{
        proc::argument::argument,
        validate::restart::{bytes_of, keys_of, newly_set_keys, output_of, quoted},
    },
    step::{PlannedInstance, TargetChange},
};

/// Compares the keys that get another value in each target of `planned` with the output of its
/// group's command, whose `{config}` is the path of the target. Refuses a file that the instance
/// does not read, too, if the command prints the files.
///
/// # Errors
/// Fails as `Refused` with the keys, or if the command does not print them.
pub(crate) async fn check_keys(
    planned: &PlannedInstance,
    changes: &[TargetChange],
) -> Result<(), Abort> {
    let command = &planned.group.overridden_keys;
    if command.is_empty() {
        return check_arguments(planned, changes);
    }
    for change in changes {
        let is_file = change.to.tree.is_none();
        for (path, keys) in newly_set(change) {
            let output = output_of(command, planned, &path).await.map_err(|why| {
                let text = format!(
                    "pid {}: the overridden keys are not known: {why}",
                    planned.instance.pid
                );
                Abort::new(Verdict::Refused, text)
            })?;
            let reading = Reading::parse(&output);
            if is_file {
                check_is_read(planned, &reading, &path)?;
            }
            check_not_overridden(planned, &reading, &path, keys)?;
        }
    }
    Ok(())
}

/// Checks that the instance reads the file `path`.
fn check_is_read(planned: &PlannedInstance, reading: &Reading, path: &Path) -> Result<(), Abort> {
    let Some(files) = reading.files_without(path) else {
        return Ok(());
    };
    let group = &planned.instance.group;
    let text = format!(
        "pid {} ({group}): it does not read `{}`, but {files}; change one of these, or set \
         `overridden_keys = []` in group `{group}`",
        planned.instance.pid,
        path.display()
    );
    Err(Abort::new(Verdict::Refused, text))
}

/// Checks that none of `keys` in the file `path` gets its value from another place.
fn check_not_overridden(
    planned: &PlannedInstance,
    reading: &Reading,
    path: &Path,
    keys: BTreeSet<String>,
) -> Result<(), Abort> {
    let overridden: BTreeSet<String> = keys
        .into_iter()
        .filter(|key| reading.overrides(path, key))
        .collect();
    if overridden.is_empty() {
        return Ok(());
    }
    let group = &planned.instance.group;
    let text = format!(
        "pid {} ({group}): {} in `{}` would change nothing: another place overrides it; change it \
         there, or set `overridden_keys = []` in group `{group}`",
        planned.instance.pid,
        quoted(&overridden),
        path.display()
    );
    Err(Abort::new(Verdict::Refused, text))
}

/// Checks that `--listen` of a `hello serve` does not override the changed key of that name.
fn check_arguments(planned: &PlannedInstance, changes: &[TargetChange]) -> Result<(), Abort> {
    if planned.group.speaks != Speaks::Hello || argument(&planned.args, "--listen").is_none() {
        return Ok(());
    }
    let overridden = changes
        .iter()
        .flat_map(newly_set)
        .find(|(_, keys)| keys.contains("listen"));
    let Some((path, _)) = overridden else {
        return Ok(());
    };
    let text = format!(
        "pid {} ({}): `listen` in `{}` would change nothing, since its `--listen` overrides that; \
         leave the key as it is",
        planned.instance.pid,
        planned.instance.group,
        path.display()
    );
    Err(Abort::new(Verdict::Refused, text))
}

/// The files and keys that an instance reads, as its group's command prints them.
#[derive(Debug, Default)]
struct Reading {
    /// Keys that are overridden in every file.
    always: BTreeSet<String>,
    /// Each file, resolved, and a key that it sets; an empty key for the file alone.
    settings: Vec<(PathBuf, String)>,
}

impl Reading {
    fn parse(output: &str) -> Self {
        let (pairs, keys): (Vec<&str>, Vec<&str>) =
            output.lines().partition(|line| line.contains('\t'));
        let mut resolved: BTreeMap<&str, PathBuf> = BTreeMap::new();
        let mut settings = Vec::with_capacity(pairs.len());
        for (file, key) in pairs.iter().filter_map(|line| line.split_once('\t')) {
            let path = resolved.entry(file).or_insert_with(|| {
                Path::new(file)
                    .canonicalize()
                    .unwrap_or_else(|_| file.into())
            });
            settings.push((path.clone(), key.trim().to_lowercase()));
        }
        Self {
            always: keys_of(&keys.join("\n")),
            settings,
        }
    }

    /// Returns the files that the instance reads, if `path` is none of them.
    fn files_without(&self, path: &Path) -> Option<String> {
        let files: BTreeSet<&Path> = self
            .settings
            .iter()
            .map(|(file, _)| file.as_path())
            .collect();
        if files.is_empty() || files.contains(path) {
            return None;
        }
        let quoted: Vec<String> = files
            .iter()
            .map(|file| format!("`{}`", file.display()))
            .collect();
        Some(quoted.join(", "))
    }

    /// Tells whether `key` in the file `path` gets its value from another place.
    fn overrides(&self, path: &Path, key: &str) -> bool {
        let last =
            |matches: &dyn Fn(&(PathBuf, String)) -> bool| self.settings.iter().rposition(matches);
        // A new key may be anywhere in its file, so that the file's last line counts.
        let own = last(&|(file, name)| file == path && name == key)
            .or_else(|| last(&|(file, _)| file == path));
        let other = last(&|(file, name)| file != path && name == key);
        self.always.contains(key) || own.zip(other).is_some_and(|(own, other)| other > own)
    }
}

/// Returns each file of a target, with the keys that get another value in it.
fn newly_set(change: &TargetChange) -> Vec<(PathBuf, BTreeSet<String>)> {
    let Some(from) = &change.from else {
        return Vec::new();
    };
    let (Some(old), Some(new)) = (&from.tree, &change.to.tree) else {
        let keys = newly_set_keys(&from.bytes, &change.to.bytes);
        // A file without such a key stays: it must be one that the instance reads.
        let is_file = change.to.tree.is_none();
        return if is_file || !keys.is_empty() {
            vec![(change.path.clone(), keys)]
        } else {
            Vec::new()
        };
    };
    let path_of = |below: &Path| {
        if below.as_os_str().is_empty() {
            change.path.clone()
        } else {
            change.path.join(below)
        }
    };
    old.differences(new)
        .iter()
        .map(|d| {
            (
                path_of(&d.path),
                newly_set_keys(bytes_of(d.old), bytes_of(d.new)),
            )
        })
        .filter(|(_, keys)| !keys.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn a_key_is_overridden_by_a_file_that_is_read_later() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap().join("real");
        std::fs::create_dir(&real).unwrap();
        ["main", "late", "other"]
            .iter()
            .for_each(|name| std::fs::write(real.join(name), "").unwrap());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let line = |file: &str, key: &str| format!("{}\t{key}\n", link.join(file).display());
        let output = [
            line("main", ""),
            line("main", "a"),
            line("late", "A"),
            line("main", "b"),
            line("late", "c"),
            "port\n".into(),
        ]
        .concat();
        let reading = Reading::parse(&output);
        for (key, is_overridden) in [
            ("a", true),
            ("b", false),
            ("c", true),
            ("port", true),
            ("new", false),
        ] {
            assert_eq!(
                reading.overrides(&real.join("main"), key),
                is_overridden,
                "{key}"
            );
        }
        assert!(!reading.overrides(&real.join("late"), "a"));
        assert!(
            reading.files_without(&real.join("main")).is_none()
                && reading
                    .files_without(&real.join("other"))
                    .unwrap()
                    .contains("late")
        );
        // A command that prints keys alone does not tell which files are read.
        assert!(
            Reading::parse("a\nb\n")
                .files_without(&real.join("other"))
                .is_none()
                && Reading::parse("a\n").overrides(Path::new("/x"), "a")
        );
    }
}
