//! Finds the processes of a group and the file that each of them reads. Touches nothing.

use std::{
    collections::{HashMap, HashSet},
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
    /// Its arguments without its own name; a command line that was rewritten into one string by its words.
    pub(crate) args: Vec<String>,
    /// The endpoint that the fleet gives, for a listed process.
    pub(crate) endpoint: Option<String>,
    /// The targets that it reads, once they were looked for.
    pub(crate) configs: Vec<PathBuf>,
}

impl Found {
    /// As it is reported.
    pub(crate) fn instance(&self, group: &str) -> Instance {
        let endpoint = self.endpoint.clone().unwrap_or_default();
        Instance { exe: self.exe.clone(), endpoint, targets: self.configs.clone(), ..Instance::new(group, self.pid, self.started) }
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
        let uids = match uids_of(group) {
            Ok(uids) => uids,
            // Nobody can be a user that is not there.
            Err(why) => {
                finds.missing.push((0, why));
                return finds;
            }
        };
        for listed in &group.instances {
            match look(listed.pid, group, &uids) {
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
        for (pid, _) in self.0.iter().filter(|(_, exe)| group.matching.has_exe(exe)) {
            match look(*pid, group, &uids) {
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

/// Whose processes a group means; names that are not on this host are nobody's, unless none is left.
fn uids_of(group: &Group) -> Result<Vec<u32>, String> {
    let me = nix::unistd::geteuid().as_raw();
    if group.users.is_empty() {
        return Ok(vec![me]);
    }
    let uids: Vec<Result<u32, String>> = group.users.iter().map(|user| if user == "{self}" { Ok(me) } else { uid_of(user) }).collect();
    if uids.iter().all(Result::is_err) { uids.into_iter().collect() } else { Ok(uids.into_iter().flatten().collect()) }
}

/// Whether everything that `wanted` says holds.
fn holds(wanted: &Match, exe: &Path, args: &[String], uid: u32) -> bool {
    let user = wanted.user.as_deref().is_none_or(|user| uid_of(user) == Ok(uid));
    user && wanted.has_exe(exe) && wanted.has_args(args)
}

/// Arguments of a process without its own name, from `/proc/PID/cmdline`.
fn arguments(raw: &[u8]) -> Vec<String> {
    let args: Vec<String> = raw.split(|b| *b == 0).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect();
    match args.split_first() {
        // A daemon that tells its state in its title has one string there: its words are all that is left of the arguments.
        Some((title, rest)) if title.contains(' ') && rest.iter().all(String::is_empty) => title.split_whitespace().skip(1).map(str::to_owned).collect(),
        Some((_, rest)) => rest.strip_suffix(&[String::new()]).unwrap_or(rest).to_vec(),
        None => Vec::new(),
    }
}

/// One process, read from `/proc` itself: none when it is not of the group.
fn look(pid: i32, group: &Group, uids: &[u32]) -> Result<Option<(Found, Status)>, String> {
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
    let args = arguments(&raw);
    // A thread's number can be opened like a pid, and held by no pidfd.
    let dead = matches!(stat.state, 'Z' | 'X') || status.tgid != pid;
    if dead || !holds(&group.matching, &exe, &args, status.euid) || group.exclude.as_ref().is_some_and(|e| holds(e, &exe, &args, status.euid)) {
        return Ok(None);
    }
    if status.euid != status.ruid || !uids.contains(&status.euid) {
        let whose = if !group.users.is_empty() { "its `user`'s processes" } else { "its caller's own processes, unless it names a `user`" };
        return Err(format!("belongs to uid {}, and group `{}` matches only {whose}", status.euid, group.name));
    }
    let found = Found { pid, started: stat.starttime, exe, uid: status.euid, args, endpoint: None, configs: Vec::new() };
    Ok(Some((found, status)))
}

/// What a process reads of its config, resolved, and seen by it as the same files; nothing for a group without one.
///
/// # Errors
/// A sentence that says why it cannot be told or must not be replaced.
pub(crate) fn configs_of(found: &Found, group: &Group) -> Result<Vec<PathBuf>, String> {
    group.config.iter().map(|places| config_of(found, group, places)).collect()
}

/// What of its files the signal does not make it read.
pub(crate) fn fixed_of(found: &Found, group: &Group) -> Vec<PathBuf> {
    group.needs_restart.iter().filter_map(|place| config_of(found, group, std::slice::from_ref(place)).ok()).collect()
}

/// The first of `places` that exists.
fn config_of(found: &Found, group: &Group, places: &[Place]) -> Result<PathBuf, String> {
    let mut last = String::new();
    for place in places {
        let (named, chosen) = match place {
            Place::Path(path) => (path.clone(), true),
            Place::Cwd(below) => (cwd(found.pid)?.join(below), false),
            Place::Arg(option, below) => match option_value(&found.args, option) {
                Some(value) if below.as_os_str().is_empty() => (cwd(found.pid)?.join(value), false),
                Some(value) => (cwd(found.pid)?.join(value).join(below), false),
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
        return Ok(resolved);
    }
    Err(last)
}

fn cwd(pid: i32) -> Result<PathBuf, String> {
    std::fs::read_link(format!("/proc/{pid}/cwd")).map_err(|e| format!("working directory: {e}"))
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

/// `--option VALUE`, `--option=VALUE`, or `-o/VALUE` for a path behind a short option.
pub(crate) fn option_value<'a>(args: &'a [String], option: &str) -> Option<&'a str> {
    args.iter().enumerate().find_map(|(at, arg)| match arg.strip_prefix(option)? {
        "" => args.get(at + 1).map(String::as_str),
        rest if rest.starts_with('/') && option.len() == 2 => Some(rest),
        rest => rest.strip_prefix('='),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_found_in_every_spelling() {
        let value = |line: &str, option: &str| option_value(&arguments(line.replace(' ', "\0").as_bytes()), option).map(str::to_owned);
        assert_eq!(value("x serve --config a.toml ", "--config").as_deref(), Some("a.toml"));
        assert_eq!(value("x serve --config=a.toml", "--config").as_deref(), Some("a.toml"));
        assert_eq!(value("x -f/etc/a", "-f").as_deref(), Some("/etc/a"));
        assert_eq!(value("x -c config_file=/etc/a", "config_file").as_deref(), Some("/etc/a"));
        assert_eq!(value("x -config a", "-c"), None);
        assert_eq!(value("x serve --configs=a.toml --config", "--config"), None);
    }

    #[test]
    fn a_rewritten_command_line_counts_by_its_words() {
        assert_eq!(arguments(b"nginx: master process nginx -c /a\0\0\0\0"), ["master", "process", "nginx", "-c", "/a"]);
        assert_eq!(arguments(b"/usr/bin/x\0a b\0"), ["a b"]);
        assert_eq!(arguments(b"/a b/x\0-c\0"), ["-c"]);
        assert!(arguments(b"").is_empty());
    }
}
