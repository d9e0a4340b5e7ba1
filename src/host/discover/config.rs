//! What a process reads of its config: resolved, seen by it as the same files, and where nobody else decides what is overwritten.

use std::{
    ffi::OsString,
    io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
};

use crate::{
    fleet::{Group, Place},
    host::{
        discover::{
            Found,
            cmdline::{option_bytes, option_value},
        },
        guard::View,
    },
    trust::Way,
};

/// What a process reads of its config, resolved, and seen by it as the same files; nothing for a group without one.
///
/// # Errors
/// A sentence that says why it cannot be told or must not be replaced.
pub(crate) fn configs_of(found: &Found, group: &Group, ways: &Ways) -> Result<Vec<PathBuf>, String> {
    group.config.iter().map(|places| config_of(found, group, places, ways)).collect()
}

/// The last path that was resolved, with what this host sees at its end: most instances of a fleet are started with the same.
#[derive(Debug, Default)]
pub(crate) struct Ways(RwLock<Option<Arc<(PathBuf, Way, View)>>>);

impl Ways {
    fn of(&self, named: &Path) -> io::Result<Arc<(PathBuf, Way, View)>> {
        // Nobody waits for what is quickly resolved anew.
        let last = self.0.try_read().ok().and_then(|last| last.clone());
        if let Some(known) = last.filter(|known| known.0 == named) {
            return Ok(known);
        }
        let way = Way::of(named)?;
        let view = View::of(&way.end, Path::new("/"));
        let new = Arc::new((named.to_owned(), way, view));
        if let Ok(mut last) = self.0.try_write() {
            *last = Some(new.clone());
        }
        Ok(new)
    }
}

/// What of its files the signal does not make it read.
pub(crate) fn fixed_of(found: &Found, group: &Group) -> Vec<PathBuf> {
    let resolved = |place| place_of(found.pid, &found.args, place).ok().flatten()?.canonicalize().ok();
    group.needs_restart.iter().filter_map(resolved).collect()
}

/// The first of `places` that exists.
fn config_of(found: &Found, group: &Group, places: &[Place], ways: &Ways) -> Result<PathBuf, String> {
    let mut last = String::new();
    for place in places {
        let Some(named) = place_of(found.pid, &found.args, place)? else {
            if let Place::Arg(option, _) = place {
                last = format!("has no {option} on its command line");
            }
            continue;
        };
        let resolved = match ways.of(&named) {
            Ok(resolved) => resolved,
            // What its command line says is what it reads: another place would be another config.
            Err(e) if matches!(place, Place::Arg(..)) => return Err(format!("reads its config from `{}`: {e}", named.display())),
            Err(e) => {
                last = format!("config `{}`: {e}", named.display());
                continue;
            }
        };
        let (_, way, view) = &*resolved;
        trusted(found, group, way, matches!(place, Place::Path(_)))?;
        if !view.is_seen_by(found.pid, &way.end) {
            let mend = "change it where it runs, or mount its directory there and not the file alone";
            return Err(format!("sees another file at `{}` than this host does (its own mount); {mend}", way.end.display()));
        }
        return Ok(way.end.clone());
    }
    Err(last)
}

/// Where a place is for a process with these arguments, resolved or there or not; none when its command line does not say.
///
/// # Errors
/// A sentence without its subject.
pub(crate) fn place_of(pid: i32, args: &[String], place: &Place) -> Result<Option<PathBuf>, String> {
    let exact;
    let (below, value) = match place {
        Place::Path(path) => return Ok(Some(path.clone())),
        Place::Cwd(below) => (below, Path::new("")),
        Place::Arg(option, below) => match option_value(args, option) {
            // The mark that stands for what is no UTF-8.
            Some(value) if value.contains(char::REPLACEMENT_CHARACTER) => {
                let missing = || format!("names a config by {option} that cannot be told from `{value}`");
                exact = PathBuf::from(OsString::from_vec(option_bytes(pid, args, option).ok_or_else(missing)?));
                (below, exact.as_path())
            }
            Some(value) => (below, Path::new(value)),
            None => return Ok(None),
        },
    };
    let cwd =
        if value.is_absolute() { PathBuf::new() } else { std::fs::read_link(format!("/proc/{pid}/cwd")).map_err(|e| format!("working directory: {e}"))? };
    // An empty part would leave a slash at the end, which only a directory has.
    Ok(Some([value, below].into_iter().filter(|part| !part.as_os_str().is_empty()).fold(cwd, |path, part| path.join(part))))
}

/// As root, nothing that another user can write decides what is overwritten, but what the process's own user could overwrite itself.
fn trusted(found: &Found, group: &Group, way: &Way, chosen: bool) -> Result<(), String> {
    if found.uid == nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    let path = way.end.display();
    if !chosen {
        under(found.uid, &way.end, &group.config_under).map_err(|why| format!("is of another user (uid {}) and names `{path}`; {why}", found.uid))?;
    }
    way.is_guarded(found.uid).map_err(|why| format!("reads `{path}`, and {why}"))
}

/// Whether `path` lies under one of `roots`, none of which the process's user may lead elsewhere.
fn under(uid: u32, path: &Path, roots: &[PathBuf]) -> Result<(), String> {
    let mut last = "its command line alone does not decide that: write `config` as a path, or `config_under`, into its group".to_owned();
    for root in roots {
        let Ok(way) = Way::of(root) else { continue };
        if !path.starts_with(&way.end) {
            continue;
        }
        match way.is_straight() {
            Ok(()) => return Ok(()),
            Err(_) => last = format!("uid {uid} or others can lead `config_under` (`{}`) elsewhere by a link", root.display()),
        }
    }
    Err(last)
}
