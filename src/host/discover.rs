//! Finds the processes of a group and the file that each of them reads. Touches nothing.

use std::{
    collections::{HashMap, HashSet},
    os::unix::ffi::OsStrExt,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use procfs::process::{Process, Status};
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};

use crate::{
    event::Instance,
    fleet::{Group, Match, Place},
    host::{guard::sees_the_same, user::uid_of},
};

/// A process of a group.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// Process number.
    pub(crate) pid: i32,
    /// Start time in clock ticks since boot.
    pub(crate) started: u64,
    /// `/proc/PID/exe`.
    pub(crate) exe: PathBuf,
    /// Its effective user.
    pub(crate) uid: u32,
    /// Its arguments.
    pub(crate) args: Vec<Vec<u8>>,
    /// The endpoint that the fleet gives, for a listed process.
    pub(crate) endpoint: Option<String>,
    /// The config that it reads, once that was looked for.
    pub(crate) config: Option<PathBuf>,
}

impl Found {
    /// As it is reported.
    pub(crate) fn instance(&self, group: &str) -> Instance {
        let endpoint = self.endpoint.clone().unwrap_or_default();
        Instance { exe: self.exe.clone(), endpoint, target: self.config.clone(), ..Instance::new(group, self.pid, self.started) }
    }
}

/// What a look for one group's processes found.
#[derive(Debug, Default)]
pub(crate) struct Finds {
    /// Leaders of the group's user, by pid.
    pub(crate) found: Vec<Found>,
    /// Matches that may not be touched: pid and why.
    pub(crate) left_out: Vec<(i32, String)>,
    /// Listed processes that are gone or something else: pid and why.
    pub(crate) missing: Vec<(i32, String)>,
}

/// Every process of this host with its executable; one look serves all groups.
#[derive(Debug)]
pub(crate) struct Scan(Vec<(i32, PathBuf)>);

impl Scan {
    /// Looks once; a kernel thread has no executable, and this process is never found.
    pub(crate) fn take() -> Self {
        let Ok(mut system) = System::new() else { return Self(Vec::new()) };
        let what = ProcessRefreshKind::nothing().without_tasks().with_exe(UpdateKind::Always);
        system.refresh_processes_specifics(ProcessesToUpdate::All, true, what);
        let me = std::process::id();
        let all = system.processes().iter().filter(|(pid, _)| pid.as_u32() != me);
        Self(all.filter_map(|(pid, process)| Some((i32::try_from(pid.as_u32()).ok()?, process.exe()?.to_owned()))).collect())
    }

    /// Finds the processes of `group`: by its list, else among all.
    pub(crate) fn find(&self, group: &Group) -> Finds {
        let mut finds = Finds::default();
        let user = group.user.as_deref().map(uid_of).transpose();
        let uid = match user {
            Ok(uid) => uid.unwrap_or_else(|| nix::unistd::geteuid().as_raw()),
            // Nobody can be a user that is not there.
            Err(why) => {
                finds.missing.push((0, why));
                return finds;
            }
        };
        for listed in &group.instances {
            match look(listed.pid, group, uid) {
                Ok(Some((mut found, _))) => {
                    found.endpoint.clone_from(&listed.endpoint);
                    finds.found.push(found);
                }
                Ok(None) => finds.missing.push((listed.pid, format!("is no process of group `{}`", group.name))),
                Err(why) => finds.missing.push((listed.pid, why)),
            }
        }
        if !group.instances.is_empty() {
            return finds;
        }
        let mut matched = HashMap::new();
        for (pid, _) in self.0.iter().filter(|(_, exe)| exe_matches(&group.matching, exe)) {
            match look(*pid, group, uid) {
                Ok(Some(one)) => drop(matched.insert(*pid, one)),
                Ok(None) => {}
                Err(why) => finds.left_out.push((*pid, why)),
            }
        }
        let pids: HashSet<i32> = matched.keys().copied().collect();
        // A match whose parent also matches is a worker: its leader decides what it runs.
        finds.found = matched.into_values().filter(|(_, status)| !pids.contains(&status.ppid)).map(|(found, _)| found).collect();
        finds.found.sort_by_key(|f| f.pid);
        finds.left_out.sort();
        finds
    }
}

fn exe_matches(wanted: &Match, exe: &Path) -> bool {
    let Some(pattern) = &wanted.exe else { return true };
    // The kernel marks a replaced executable; the process is the same program all the same.
    let text = exe.to_string_lossy();
    let path = Path::new(text.strip_suffix(" (deleted)").unwrap_or(&text));
    if pattern.as_str().contains('/') {
        return pattern.matches_path(path);
    }
    path.file_name().is_some_and(|name| pattern.matches(&name.to_string_lossy()))
}

/// Whether everything that `wanted` says holds.
fn holds(wanted: &Match, exe: &Path, args: &[Vec<u8>], uid: u32) -> bool {
    let has = |arg: &String| args.iter().skip(1).any(|a| a == arg.as_bytes());
    let user = wanted.user.as_deref().is_none_or(|user| uid_of(user) == Ok(uid));
    user && exe_matches(wanted, exe) && wanted.args.iter().all(has)
}

/// One process, read from `/proc` itself: none when it is not of the group.
fn look(pid: i32, group: &Group, uid: u32) -> Result<Option<(Found, Status)>, String> {
    let process = match Process::new(pid) {
        Ok(process) => process,
        // It ended while it was looked at.
        Err(procfs::ProcError::NotFound(_)) if group.instances.is_empty() => return Ok(None),
        Err(procfs::ProcError::NotFound(_)) => return Err("is gone".into()),
        Err(e) => return Err(format!("cannot be looked at: {e}")),
    };
    let seen = || -> procfs::ProcResult<_> {
        let raw = std::fs::read(format!("/proc/{pid}/cmdline"))?;
        Ok((process.status()?, process.exe()?, process.stat()?, raw))
    };
    let (status, exe, stat, raw) = match seen() {
        Ok(seen) => seen,
        Err(procfs::ProcError::NotFound(_)) if group.instances.is_empty() => return Ok(None),
        Err(e) => return Err(format!("cannot be looked at: {e}")),
    };
    let args: Vec<Vec<u8>> = raw.split(|b| *b == 0).map(<[u8]>::to_vec).collect();
    // A thread's number can be opened like a pid, and held by no pidfd.
    let dead = matches!(stat.state, 'Z' | 'X') || status.tgid != pid;
    if dead || !holds(&group.matching, &exe, &args, status.euid) || group.exclude.as_ref().is_some_and(|e| holds(e, &exe, &args, status.euid)) {
        return Ok(None);
    }
    if (status.euid, status.ruid) != (uid, uid) {
        let whose = if group.user.is_some() { "its `user`'s processes" } else { "its caller's own processes, unless it names a `user`" };
        return Err(format!("belongs to uid {}, and group `{}` matches only {whose}", status.euid, group.name));
    }
    let found = Found { pid, started: stat.starttime, exe, uid, args, endpoint: None, config: None };
    Ok(Some((found, status)))
}

/// The config file of a process, resolved, and seen by it as the same file; none for a group without one.
///
/// # Errors
/// A sentence that says why it cannot be told or must not be replaced.
pub(crate) fn config_of(found: &Found, group: &Group) -> Result<Option<PathBuf>, String> {
    if group.config.is_empty() {
        return Ok(None);
    }
    let cwd = std::fs::read_link(format!("/proc/{}/cwd", found.pid)).map_err(|e| format!("working directory: {e}"))?;
    let mut last = String::new();
    for place in &group.config {
        let (named, chosen) = match place {
            Place::Path(path) => (path.clone(), true),
            Place::Arg(option) => match option_value(&found.args, option) {
                Some(value) => (cwd.join(value), false),
                None => {
                    last = format!("has no {option} on its command line");
                    continue;
                }
            },
        };
        let resolved = match named.canonicalize() {
            Ok(resolved) => resolved,
            Err(e) => {
                last = format!("config `{}`: {e}", named.display());
                continue;
            }
        };
        trusted(found, group, &resolved, chosen)?;
        if !sees_the_same(found.pid, &resolved) {
            return Err(format!("sees another file at `{}` than this host does (its own mount)", resolved.display()));
        }
        return Ok(Some(resolved));
    }
    Err(last)
}

/// As root, nothing that another user can write decides what is overwritten.
fn trusted(found: &Found, group: &Group, path: &Path, chosen: bool) -> Result<(), String> {
    let me = nix::unistd::geteuid().as_raw();
    if found.uid == me {
        return Ok(());
    }
    let under = |roots: &[PathBuf]| roots.iter().any(|root| root.canonicalize().is_ok_and(|root| path.starts_with(root)));
    if !chosen && !under(&group.config_under) {
        let why = "its command line alone does not decide that: write `config` as a path, or `config_under`, into its group";
        return Err(format!("is of another user (uid {}) and names `{}`; {why}", found.uid, path.display()));
    }
    for dir in path.ancestors().skip(1) {
        let meta = dir.metadata().map_err(|e| format!("`{}`: {e}", dir.display()))?;
        let others = meta.mode() & 0o022 != 0 && (meta.mode() & 0o1000 == 0 || dir == path.parent().unwrap_or(dir));
        if others || ![0, me].contains(&meta.uid()) {
            return Err(format!("reads `{}`, and others than root and you can write `{}`", path.display(), dir.display()));
        }
    }
    Ok(())
}

/// `--option VALUE` or `--option=VALUE`.
fn option_value(args: &[Vec<u8>], option: &str) -> Option<PathBuf> {
    let path = |bytes: &[u8]| PathBuf::from(std::ffi::OsStr::from_bytes(bytes));
    args.iter().enumerate().find_map(|(at, arg)| match arg.strip_prefix(option.as_bytes())? {
        [] => args.get(at + 1).map(|v| path(v)),
        [b'=', value @ ..] => Some(path(value)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_found_in_both_spellings() {
        let args = |s: &str| s.split(' ').map(|a| a.as_bytes().to_vec()).collect::<Vec<_>>();
        assert_eq!(option_value(&args("x serve --config a.toml"), "--config"), Some("a.toml".into()));
        assert_eq!(option_value(&args("x serve --config=a.toml"), "--config"), Some("a.toml".into()));
        assert_eq!(option_value(&args("x serve --configs=a.toml --config"), "--config"), None);
    }
}
