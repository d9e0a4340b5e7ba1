//! The config files that a process reads: resolved, seen by the process as the same files, and only
//! where no other user decides which file is overwritten.

mod trusted;

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
};

use rustix::fs::FileType;

use self::trusted::trusted;
use crate::{
    fleet::{Group, PathBase},
    host::{
        discover::{
            built::BuiltIn,
            found::{Config, Found},
            lookup::{Lookup, LookupError, joined, refusal},
            mounts,
            reason::{Absent, Attempts, ConfigReason, ConfigRefusal},
        },
        parallel::par_map::par_map,
        proc::{
            argument::{self, argument},
            guard::View,
        },
    },
    trust::ResolvedPath,
};

/// Returns the config files of a process, resolved; none for a group without a config.
///
/// # Errors
/// Fails if they are not known or must not be replaced.
pub(crate) async fn configs_of(
    found: &Found,
    group: &Group,
    paths: &ConfigPaths,
) -> Result<Vec<Config>, Box<ConfigRefusal>> {
    let mut read = read_by(found, group, paths);
    if matches!(read, Err(LookupError::Ask)) {
        paths.built.ask(found, group).await;
        read = read_by(found, group, paths);
    }
    read.map_err(LookupError::refusal)
}

/// As [`configs_of`] for many processes, in their order.
pub(crate) async fn all_configs(
    all: &[(Arc<Group>, Found)],
    paths: &ConfigPaths,
) -> Vec<Result<Vec<Config>, Box<ConfigRefusal>>> {
    let mut answers = Vec::with_capacity(all.len());
    for (read, (group, found)) in par_map(all, |(group, found)| read_by(found, group, paths))
        .into_iter()
        .zip(all)
    {
        answers.push(match read {
            Err(LookupError::Ask) => configs_of(found, group, paths).await,
            read => read.map_err(LookupError::refusal),
        });
    }
    answers
}

fn read_by(found: &Found, group: &Group, paths: &ConfigPaths) -> Result<Vec<Config>, LookupError> {
    let built = paths.built.of(found, group);
    let lookup = Lookup {
        found,
        group,
        built: built.as_deref(),
    };
    group
        .config
        .iter()
        .map(|bases| config_of(lookup, bases, paths))
        .collect()
}

/// A cache over the processes of a survey: the compiled-in paths of their programs, and the last
/// path that was resolved, with the file that this host sees there. Most instances of a fleet are
/// started with the same path.
#[derive(Debug, Default)]
pub(crate) struct ConfigPaths {
    last: RwLock<Option<Arc<(PathBuf, ResolvedPath, View)>>>,
    built: BuiltIn,
}

impl ConfigPaths {
    fn of(&self, named: &Path) -> io::Result<Arc<(PathBuf, ResolvedPath, View)>> {
        // To resolve a path again is faster than to wait for the lock.
        let last = self.last.try_read().ok().and_then(|last| last.clone());
        if let Some(known) = last.filter(|known| known.0 == named) {
            return Ok(known);
        }
        let resolved = ResolvedPath::of(named)?;
        let view = View::of(&resolved.end, Path::new("/"));
        let new = Arc::new((named.to_owned(), resolved, view));
        if let Ok(mut last) = self.last.try_write() {
            *last = Some(new.clone());
        }
        Ok(new)
    }
}

/// Returns the files of a process that it does not read again on the signal.
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

/// Returns the config at the first of `bases` that exists. It is never another one than the command
/// line may name.
fn config_of(
    lookup: Lookup<'_>,
    bases: &[PathBase],
    paths: &ConfigPaths,
) -> Result<Config, LookupError> {
    let mut attempts = Attempts::default();
    if let [PathBase::Key(key)] = bases {
        return Ok(Config {
            path: key.target(),
            named: key.target(),
            assumed: false,
        });
    }
    for (index, base) in bases.iter().enumerate() {
        if is_spelled_before(bases, index) {
            continue;
        }
        let Some((named, is_guess)) = named_by(lookup, bases, base)? else {
            match base {
                PathBase::Arg(option, _) => attempts.add(Absent::Option(option.clone())),
                PathBase::Env(name, _) => attempts.add(Absent::Variable(name.clone())),
                PathBase::Title(pattern, _) => attempts.add(Absent::Title(pattern.clone())),
                _ => {}
            }
            continue;
        };
        check_named(lookup, &bases[..index], base, &named)?;
        let resolved = match paths.of(&named) {
            Ok(resolved) => resolved,
            // The process reads the file that its command line names: another base would be another
            // config.
            Err(e)
                if matches!(
                    base,
                    PathBase::Arg(..)
                        | PathBase::Built(..)
                        | PathBase::Env(..)
                        | PathBase::Title(..)
                ) =>
            {
                return Err(unresolved(lookup, named, e));
            }
            Err(e) => {
                attempts.add(Absent::Path(named, e));
                continue;
            }
        };
        let (_, path, view) = &*resolved;
        check_resolved(lookup, base, &named, path, view)?;
        // A path that is the only base is declared by the operator.
        let assumed = match base {
            PathBase::Built(..) | PathBase::Base(_) => true,
            PathBase::Path(_) | PathBase::Cwd(_) => bases.len() > 1,
            PathBase::Arg(..) | PathBase::Env(..) | PathBase::Title(..) | PathBase::Key(_) => {
                is_guess
            }
        };
        return Ok(Config {
            path: path.end.clone(),
            named,
            assumed,
        });
    }
    Err(lookup.refuse(ConfigReason::Nowhere(attempts), None))
}

/// Refuses a path that the command line contradicts, or that is a stream. `before` are the bases
/// that named none.
fn check_named(
    lookup: Lookup<'_>,
    before: &[PathBase],
    base: &PathBase,
    named: &Path,
) -> Result<(), LookupError> {
    let reading = &lookup.group.reading;
    if !matches!(
        base,
        PathBase::Arg(..) | PathBase::Env(..) | PathBase::Title(..)
    ) && let Some(word) = lookup
        .found
        .args
        .iter()
        .find(|arg| reading.no_default.contains(arg))
    {
        let why = ConfigReason::NotDefault {
            word: word.clone(),
            path: named.into(),
        };
        return Err(lookup.refuse(why, None));
    }
    if is_own_stream(named) {
        return Err(lookup.refuse(ConfigReason::OwnStream(named.into()), None));
    }
    if !matches!(base, PathBase::Arg(..))
        && before.iter().any(|base| matches!(base, PathBase::Arg(..)))
        && let Some(word) = lookup.unexplained(named)
    {
        let options = options_of(before);
        return Err(lookup.refuse_options(ConfigReason::Unexplained { options, word }));
    }
    Ok(())
}

/// The error of a named path that this host cannot resolve.
fn unresolved(lookup: Lookup<'_>, named: PathBuf, e: io::Error) -> LookupError {
    match mounts::here(lookup.found.pid, &named) {
        Some(here) => lookup.refuse(ConfigReason::InOwnMounts(named), Some(&here)),
        None => refusal(ConfigReason::Unresolved(named, e)).into(),
    }
}

/// Refuses a resolved path that a run could not replace, that others can lead elsewhere, or that
/// the process sees as another file.
fn check_resolved(
    lookup: Lookup<'_>,
    base: &PathBase,
    named: &Path,
    path: &ResolvedPath,
    view: &View,
) -> Result<(), LookupError> {
    let Lookup { found, group, .. } = lookup;
    let file_type = FileType::from_raw_mode(path.stat().st_mode);
    if path.is_of_a_process() || !matches!(file_type, FileType::RegularFile | FileType::Directory) {
        return Err(lookup.refuse(ConfigReason::Stream(named.into()), None));
    }
    trusted(found, group, path, matches!(base, PathBase::Path(_))).map_err(Box::new)?;
    if !view.is_seen_by(found.pid, &path.end) {
        let why = ConfigRefusal::from(ConfigReason::OtherFile(path.end.clone())).with_hint(
            "change it where it runs, or mount its directory there and not the file alone",
        );
        return Err(Box::new(why).into());
    }
    Ok(())
}

/// Lists the options of these bases for a message.
fn options_of(places: &[PathBase]) -> String {
    let mut options = Vec::new();
    for place in places {
        if let PathBase::Arg(option, _) = place {
            options.push(option.as_str());
        }
    }
    options.join(" or ")
}

/// Tells whether the option of this base is only another spelling of one before it.
fn is_spelled_before(places: &[PathBase], at: usize) -> bool {
    places[..at]
        .iter()
        .any(|place| are_spellings(place, &places[at]))
}

/// Tells whether two bases are the value of one option. An argument at a position is none.
fn are_spellings(first: &PathBase, second: &PathBase) -> bool {
    let is_option = |name: &str| argument::place(name).is_none();
    matches!((first, second), (PathBase::Arg(one, below), PathBase::Arg(other, same))
        if below == same && (one == other || is_option(one) && is_option(other)))
}

/// Returns the path of a base for this process, and whether a relative value makes it a guess; none
/// if its command line or its program names none.
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
        PathBase::Key(key) => Ok(Some((key.target(), false))),
        PathBase::Cwd(below) => Ok(Some((joined(lookup.cwd()?, below), false))),
        PathBase::Base(below) => Ok(Some((joined(lookup.base()?, below), false))),
        PathBase::Built(text, below) => below_value(lookup.built(text)?.map(Into::into), below),
        PathBase::Env(name, below) => below_value(lookup.variable(name)?, below),
        PathBase::Title(pattern, below) => below_value(lookup.titled(pattern)?, below),
        PathBase::Arg(_, below) => {
            let spelled = places.iter().filter_map(|other| match other {
                PathBase::Arg(option, _) if are_spellings(place, other) => Some(option.as_str()),
                _ => None,
            });
            let values = lookup.values(&spelled.collect::<Vec<_>>())?;
            match values.as_slice() {
                [] => Ok(None),
                [value] => Ok(Some((
                    named_by_value(lookup, value, below)?,
                    lookup.is_guess(value),
                ))),
                values => {
                    let values: Vec<String> = values
                        .iter()
                        .map(|value| value.to_string_lossy().into_owned())
                        .collect();
                    Err(lookup.refuse(ConfigReason::Several(values), None))
                }
            }
        }
    }
}

/// Returns the path that the value of an option names.
fn named_by_value(
    lookup: Lookup<'_>,
    value: &std::ffi::OsStr,
    below: &Path,
) -> Result<PathBuf, LookupError> {
    if value == "-" {
        return Err(lookup.refuse(ConfigReason::StandardInput, None));
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
    Err(lookup.refuse(ConfigReason::NoPath(text.into_owned()), None))
}

/// Tells whether a path leads every process to its own stream.
fn is_own_stream(path: &Path) -> bool {
    let is_device = path == Path::new("/dev/stdin") || path.starts_with("/dev/fd");
    is_device || path.starts_with("/proc/self") || path.starts_with("/proc/thread-self")
}

/// Returns the path of a base that is no config for a process with these arguments. It is not
/// resolved, and need not exist. None if the command line does not name it.
///
/// # Errors
/// Fails if the working directory cannot be read.
pub(crate) fn place_of(pid: i32, args: &[String], place: &PathBase) -> io::Result<Option<PathBuf>> {
    let (below, value) = match place {
        PathBase::Path(path) => return Ok(Some(path.clone())),
        PathBase::Built(..) | PathBase::Env(..) | PathBase::Title(..) | PathBase::Key(_) => {
            return Ok(None);
        }
        PathBase::Cwd(below) | PathBase::Base(below) => (below, Path::new("")),
        PathBase::Arg(option, below) => match argument(args, option) {
            Some(value) => (below, Path::new(value)),
            None => return Ok(None),
        },
    };
    let cwd = if value.is_absolute() {
        PathBuf::new()
    } else {
        std::fs::read_link(format!("/proc/{pid}/cwd"))?
    };
    // An empty part would leave a slash at the end, which only a directory has.
    Ok(Some(
        [value, below]
            .into_iter()
            .filter(|part| !part.as_os_str().is_empty())
            .fold(cwd, |path, part| path.join(part)),
    ))
}
