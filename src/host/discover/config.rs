//! What a process reads of its config: resolved, seen by it as the same files, and where nobody
//! else decides what is overwritten.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
};

use rustix::fs::FileType;

use crate::{
    fleet::{Group, PathBase},
    host::{
        discover::{
            built::BuiltIn,
            found::{Config, Found},
            lookup::{Lookup, LookupError, joined, list},
            mounts,
        },
        parallel::par_map::par_map,
        proc::{argument::argument, guard::View},
    },
    trust::ResolvedPath,
};

/// What a process reads of its config, resolved, and seen by it as the same files; nothing for a
/// group without one.
///
/// # Errors
/// A sentence that says why it cannot be told or must not be replaced.
pub(crate) async fn configs_of(
    found: &Found,
    group: &Group,
    ways: &ConfigPaths,
) -> Result<Vec<Config>, String> {
    let mut read = read_by(found, group, ways);
    if matches!(read, Err(LookupError::Ask)) {
        ways.built.ask(found, group).await;
        read = read_by(found, group, ways);
    }
    read.map_err(|why| why.to_string())
}

/// The same of many, in their order.
pub(crate) async fn all_configs(
    all: &[(Arc<Group>, Found)],
    ways: &ConfigPaths,
) -> Vec<Result<Vec<Config>, String>> {
    let mut answers = Vec::with_capacity(all.len());
    for (read, (group, found)) in par_map(all, |(group, found)| read_by(found, group, ways))
        .into_iter()
        .zip(all)
    {
        answers.push(match read {
            Err(LookupError::Ask) => configs_of(found, group, ways).await,
            read => read.map_err(|why| why.to_string()),
        });
    }
    answers
}

fn read_by(found: &Found, group: &Group, ways: &ConfigPaths) -> Result<Vec<Config>, LookupError> {
    let built = ways.built.of(found, group);
    let lookup = Lookup {
        found,
        group,
        built: built.as_deref(),
    };
    group
        .config
        .iter()
        .map(|places| config_of(lookup, places, ways))
        .collect()
}

/// What is known from one process to the next: what their programs say of themselves, and the last
/// path that was resolved, with what this host sees at its end. Most instances of a fleet are
/// started with the same.
#[derive(Debug, Default)]
pub(crate) struct ConfigPaths {
    last: RwLock<Option<Arc<(PathBuf, ResolvedPath, View)>>>,
    built: BuiltIn,
}

impl ConfigPaths {
    fn of(&self, named: &Path) -> io::Result<Arc<(PathBuf, ResolvedPath, View)>> {
        // Nobody waits for what is quickly resolved anew.
        let last = self.last.try_read().ok().and_then(|last| last.clone());
        if let Some(known) = last.filter(|known| known.0 == named) {
            return Ok(known);
        }
        let way = ResolvedPath::of(named)?;
        let view = View::of(&way.end, Path::new("/"));
        let new = Arc::new((named.to_owned(), way, view));
        if let Ok(mut last) = self.last.try_write() {
            *last = Some(new.clone());
        }
        Ok(new)
    }
}

/// What of its files the signal does not make it read.
pub(crate) fn fixed_of(found: &Found, group: &Group) -> Vec<PathBuf> {
    let lookup = Lookup {
        found,
        group,
        built: None,
    };
    let named = |place: &PathBase| match place {
        PathBase::Arg(option, below) => {
            let values = lookup.values(&[option]).unwrap_or_default();
            values
                .iter()
                .filter_map(|value| Some(joined(lookup.absolute(value).ok()?, below)))
                .collect()
        }
        place => place_of(found.pid, &found.args, place)
            .ok()
            .flatten()
            .into_iter()
            .collect::<Vec<_>>(),
    };
    group
        .needs_restart
        .iter()
        .flat_map(named)
        .filter_map(|path| path.canonicalize().ok())
        .collect()
}

/// The first of `places` that exists. Never another one where its command line may say which one it
/// reads.
fn config_of(
    lookup: Lookup<'_>,
    places: &[PathBase],
    ways: &ConfigPaths,
) -> Result<Config, LookupError> {
    let Lookup { found, group, .. } = lookup;
    let mut last = String::new();
    for (at, place) in places.iter().enumerate() {
        if is_spelled_before(places, at) {
            continue;
        }
        let Some((named, is_guess)) = named_by(lookup, places, place)? else {
            match place {
                PathBase::Arg(option, _) => {
                    last = format!("has no {{arg:{option}}} on its command line")
                }
                PathBase::Env(name, _) => {
                    last = format!(
                        "{last}{}no {name} in its environment",
                        if last.is_empty() { "has " } else { ", and " }
                    )
                }
                _ => {}
            }
            continue;
        };
        if !matches!(place, PathBase::Arg(..) | PathBase::Env(..))
            && let Some(word) = found
                .args
                .iter()
                .find(|arg| group.reading.no_default.contains(arg))
        {
            let why = format!(
                "says by `{word}` that it does not read `{}`",
                named.display()
            );
            return Err(lookup.refuse(&why, None));
        }
        if let Some(stream) = stream_of(&named) {
            return Err(lookup.refuse(
                &format!(
                    "reads its config from {stream}, which is no file that a run could replace"
                ),
                None,
            ));
        }
        if !matches!(place, PathBase::Arg(..))
            && places[..at]
                .iter()
                .any(|place| matches!(place, PathBase::Arg(..)))
            && let Some(word) = lookup.unexplained(&named)
        {
            let why = format!(
                "names no config by {}, and may do so by `{word}` of its command line",
                options_of(&places[..at])
            );
            return Err(lookup.refuse_options(&why));
        }
        let resolved = match ways.of(&named) {
            Ok(resolved) => resolved,
            // What its command line says is what it reads: another place would be another config.
            Err(e)
                if matches!(
                    place,
                    PathBase::Arg(..) | PathBase::Built(..) | PathBase::Env(..)
                ) =>
            {
                return Err(match mounts::here(found.pid, &named) {
                    Some(here) => lookup.refuse(
                        &format!(
                            "reads `{}` in a mount namespace of its own",
                            named.display()
                        ),
                        Some(&here),
                    ),
                    None => LookupError::Because(format!(
                        "reads its config from `{}`: {e}",
                        named.display()
                    )),
                });
            }
            Err(e) => {
                last = format!("config `{}`: {e}", named.display());
                continue;
            }
        };
        let (_, way, view) = &*resolved;
        if way.is_of_a_process()
            || !matches!(
                FileType::from_raw_mode(way.stat().st_mode),
                FileType::RegularFile | FileType::Directory
            )
        {
            let why = format!(
                "reads its config from `{}`, which is a stream or a device, and no file that a \
                 run could replace",
                named.display()
            );
            return Err(lookup.refuse(&why, None));
        }
        trusted(found, group, way, matches!(place, PathBase::Path(_)))
            .map_err(LookupError::Because)?;
        if !view.is_seen_by(found.pid, &way.end) {
            let mend =
                "change it where it runs, or mount its directory there and not the file alone";
            return Err(LookupError::Because(format!(
                "sees another file at `{}` than this host does (its own mount or root directory); \
                 {mend}",
                way.end.display()
            )));
        }
        // A path that stands alone is the operator's word.
        let assumed = match place {
            PathBase::Built(..) | PathBase::Base(_) => true,
            PathBase::Path(_) | PathBase::Cwd(_) => places.len() > 1,
            PathBase::Arg(..) | PathBase::Env(..) => is_guess,
        };
        return Ok(Config {
            path: way.end.clone(),
            assumed,
        });
    }
    Err(lookup.refuse(&last, None))
}

/// The options of these places, for people.
fn options_of(places: &[PathBase]) -> String {
    let mut options = Vec::new();
    for place in places {
        if let PathBase::Arg(option, _) = place {
            options.push(option.as_str());
        }
    }
    options.join(" or ")
}

/// Whether the option of this place is only another spelling of one before it.
fn is_spelled_before(places: &[PathBase], at: usize) -> bool {
    let PathBase::Arg(_, below) = &places[at] else {
        return false;
    };
    places[..at]
        .iter()
        .any(|place| matches!(place, PathBase::Arg(_, other) if other == below))
}

/// The path of a place for this process, and whether a relative value makes it a guess; none where
/// its command line or its program names none.
fn named_by(
    lookup: Lookup<'_>,
    places: &[PathBase],
    place: &PathBase,
) -> Result<Option<(PathBuf, bool)>, LookupError> {
    let below_value = |value: Option<OsString>, below: &Path| {
        let path = |value: OsString| {
            Ok((
                joined(lookup.absolute(&value)?, below),
                lookup.is_guess(&value),
            ))
        };
        value.map(path).transpose()
    };
    match place {
        PathBase::Path(path) => Ok(Some((path.clone(), false))),
        PathBase::Cwd(below) => Ok(Some((joined(lookup.cwd()?, below), false))),
        PathBase::Base(below) => Ok(Some((joined(lookup.base()?, below), false))),
        PathBase::Built(text, below) => below_value(lookup.built(text)?.map(Into::into), below),
        PathBase::Env(name, below) => below_value(lookup.variable(name)?, below),
        PathBase::Arg(_, below) => {
            let spelled = places.iter().filter_map(|place| match place {
                PathBase::Arg(option, other) if other == below => Some(option.as_str()),
                _ => None,
            });
            let values = lookup.values(&spelled.collect::<Vec<_>>())?;
            match values.as_slice() {
                [] => Ok(None),
                [one] => Ok(Some((
                    named_by_value(lookup, one, below)?,
                    lookup.is_guess(one),
                ))),
                all => {
                    let all: Vec<String> = all
                        .iter()
                        .map(|value| value.to_string_lossy().into_owned())
                        .collect();
                    Err(lookup.refuse(
                        &format!(
                            "reads {}, and which of them the change is for is not said",
                            list(&all)
                        ),
                        None,
                    ))
                }
            }
        }
    }
}

/// The path that the value of an option names.
fn named_by_value(
    lookup: Lookup<'_>,
    value: &std::ffi::OsStr,
    below: &Path,
) -> Result<PathBuf, LookupError> {
    if value == "-" {
        return Err(lookup.refuse(
            "reads its config from its standard input, which is no file that a run could replace",
            None,
        ));
    }
    let text = value.to_string_lossy();
    let scheme = text
        .split_once(':')
        .filter(|(scheme, _)| scheme.len() > 1 && scheme.bytes().all(|b| b.is_ascii_lowercase()));
    let Some((scheme, rest)) = scheme else {
        return Ok(joined(lookup.absolute(value)?, below));
    };
    let literal = lookup.absolute(value).map(|path| joined(path, below));
    if literal
        .as_ref()
        .is_ok_and(|path| path.symlink_metadata().is_ok())
    {
        return literal;
    }
    if scheme == "file" {
        return Ok(joined(
            lookup.absolute(rest.strip_prefix("//").unwrap_or(rest).as_ref())?,
            below,
        ));
    }
    Err(lookup.refuse(
        &format!("reads its config from `{text}`, which is no path of a file"),
        None,
    ))
}

/// The stream that a path leads each process to as its own, whatever it is for this one.
fn stream_of(path: &Path) -> Option<String> {
    let is_own = path == Path::new("/dev/stdin") || path.starts_with("/dev/fd");
    let is_own = is_own || path.starts_with("/proc/self") || path.starts_with("/proc/thread-self");
    is_own.then(|| format!("`{}`, which each process has for itself", path.display()))
}

/// Where a place of no config is for a process with these arguments, resolved or there or not; none
/// when its command line does not say.
///
/// # Errors
/// A sentence without its subject.
pub(crate) fn place_of(
    pid: i32,
    args: &[String],
    place: &PathBase,
) -> Result<Option<PathBuf>, String> {
    let (below, value) = match place {
        PathBase::Path(path) => return Ok(Some(path.clone())),
        PathBase::Built(..) | PathBase::Env(..) => return Ok(None),
        PathBase::Cwd(below) | PathBase::Base(below) => (below, Path::new("")),
        PathBase::Arg(option, below) => match argument(args, option) {
            Some(value) => (below, Path::new(value)),
            None => return Ok(None),
        },
    };
    let cwd = if value.is_absolute() {
        PathBuf::new()
    } else {
        std::fs::read_link(format!("/proc/{pid}/cwd"))
            .map_err(|e| format!("working directory: {e}"))?
    };
    // An empty part would leave a slash at the end, which only a directory has.
    Ok(Some(
        [value, below]
            .into_iter()
            .filter(|part| !part.as_os_str().is_empty())
            .fold(cwd, |path, part| path.join(part)),
    ))
}

/// As root, nothing that another user can write decides what is overwritten, but what the process's
/// own user could overwrite itself.
fn trusted(found: &Found, group: &Group, way: &ResolvedPath, chosen: bool) -> Result<(), String> {
    if found.uid == nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    let path = way.end.display();
    if !chosen {
        under(found.uid, &way.end, &group.config_under).map_err(|why| {
            format!(
                "is of another user (uid {}) and names `{path}`; {why}",
                found.uid
            )
        })?;
    }
    way.changeable_only_by(found.uid)
        .map_err(|why| format!("reads `{path}`, and {why}"))
}

/// Whether `path` lies under one of `roots`, none of which the process's user may lead elsewhere.
fn under(uid: u32, path: &Path, roots: &[PathBuf]) -> Result<(), String> {
    let mut last = "its command line alone does not decide that: write `config` as a path, or \
                    `config_under`, into its group"
        .to_owned();
    for root in roots {
        let Ok(way) = ResolvedPath::of(root) else {
            continue;
        };
        if !path.starts_with(&way.end) {
            continue;
        }
        match way.links_trusted() {
            Ok(()) => return Ok(()),
            Err(_) => {
                last = format!(
                    "uid {uid} or others can lead `config_under` (`{}`) elsewhere by a link",
                    root.display()
                )
            }
        }
    }
    Err(last)
}
