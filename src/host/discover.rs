//! Finds the processes of a group and what each of them reads and listens on. Touches nothing.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    os::unix::ffi::OsStrExt,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use procfs::process::{FDTarget, Process, Status};
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};

use crate::fleet::{Group, Place};

/// The bit of SIGHUP in the masks of `/proc/PID/status`.
const HUP: u64 = 1;

/// A process of a group.
#[derive(Debug, Clone)]
pub struct Found {
    /// Process number.
    pub pid: i32,
    /// Start time in clock ticks since boot.
    pub started: u64,
    /// `/proc/PID/exe`.
    pub exe: PathBuf,
    /// Its arguments.
    pub args: Vec<Vec<u8>>,
    /// The endpoint that the fleet gives, for a listed process.
    pub endpoint: Option<String>,
}

/// A process that was passed over, and why.
#[derive(Debug, Clone)]
pub struct LeftOut {
    /// Process number.
    pub pid: i32,
    /// For people; one line.
    pub why: String,
}

/// What a look for one group's processes found.
#[derive(Debug, Default)]
pub struct Seen {
    /// Leaders of the caller's own user, by pid.
    pub found: Vec<Found>,
    /// Matches that may not be touched, and listed processes that are none.
    pub left_out: Vec<LeftOut>,
    /// Listed processes that are gone or something else.
    pub not_there: Vec<LeftOut>,
}

/// Finds the processes of `group`: by its list, else by a scan.
#[must_use]
pub fn find(group: &Group) -> Seen {
    let mut seen = Seen::default();
    if !group.instances.is_empty() {
        for listed in &group.instances {
            match look(listed.pid, group) {
                Ok(Some((mut found, _))) => {
                    found.endpoint.clone_from(&listed.endpoint);
                    seen.found.push(found);
                }
                Ok(None) => seen.not_there.push(LeftOut { pid: listed.pid, why: format!("is no process of group `{}`", group.name) }),
                Err(why) => seen.not_there.push(LeftOut { pid: listed.pid, why }),
            }
        }
        return seen;
    }
    let mut matched = HashMap::new();
    for pid in scan(group) {
        match look(pid, group) {
            Ok(Some((found, status))) => drop(matched.insert(pid, (found, status))),
            Ok(None) => {}
            Err(why) => seen.left_out.push(LeftOut { pid, why }),
        }
    }
    let pids: HashSet<i32> = matched.keys().copied().collect();
    // A match whose parent also matches is a worker: its leader decides what it runs.
    seen.found = matched.into_values().filter(|(_, status)| !pids.contains(&status.ppid)).map(|(found, _)| found).collect();
    seen.found.sort_by_key(|f| f.pid);
    seen.left_out.sort_by_key(|l| l.pid);
    seen
}

/// Processes whose executable may match; a cheap first pass over all of them.
fn scan(group: &Group) -> Vec<i32> {
    let Ok(mut system) = System::new() else { return Vec::new() };
    let what = ProcessRefreshKind::nothing().without_tasks().with_exe(UpdateKind::Always);
    system.refresh_processes_specifics(ProcessesToUpdate::All, true, what);
    let me = std::process::id();
    system
        .processes()
        .iter()
        .filter(|(pid, process)| pid.as_u32() != me && process.exe().is_some_and(|exe| exe_matches(group, exe)))
        .filter_map(|(pid, _)| i32::try_from(pid.as_u32()).ok())
        .collect()
}

fn exe_matches(group: &Group, exe: &Path) -> bool {
    // The kernel marks a replaced executable; the process is the same program all the same.
    let text = exe.to_string_lossy();
    let path = Path::new(text.strip_suffix(" (deleted)").unwrap_or(&text));
    if group.exe.as_str().contains('/') {
        return group.exe.matches_path(path);
    }
    path.file_name().is_some_and(|name| group.exe.matches(&name.to_string_lossy()))
}

/// One process, read from `/proc` itself: `None` when it is not of the group.
fn look(pid: i32, group: &Group) -> Result<Option<(Found, Status)>, String> {
    let gone = |e: procfs::ProcError| format!("cannot be looked at: {e}");
    let process = Process::new(pid).map_err(gone)?;
    let status = process.status().map_err(gone)?;
    let me = nix::unistd::geteuid().as_raw();
    let exe = process.exe().map_err(gone)?;
    let raw = std::fs::read(format!("/proc/{pid}/cmdline")).map_err(|e| e.to_string())?;
    let args: Vec<Vec<u8>> = raw.split(|b| *b == 0).map(<[u8]>::to_vec).collect();
    let wanted = |arg: &String| args.iter().skip(1).any(|a| a == arg.as_bytes());
    if status.state.starts_with('Z') || !exe_matches(group, &exe) || !group.args.iter().all(wanted) {
        return Ok(None);
    }
    if status.euid != me {
        return Err(format!("belongs to uid {}, and a group matches only its caller's own processes", status.euid));
    }
    let started = process.stat().map_err(gone)?.starttime;
    Ok(Some((Found { pid, started, exe, args, endpoint: None }, status)))
}

/// Whether `pid` is still the process that was found.
#[must_use]
pub fn is_same(pid: i32, started: u64, exe: &Path) -> bool {
    Process::new(pid).is_ok_and(|p| p.stat().is_ok_and(|s| s.starttime == started) && p.exe().is_ok_and(|e| e == exe))
}

/// Why SIGHUP must not be sent to `pid`; `None` when it takes the signal.
#[must_use]
pub fn not_taking_the_signal(pid: i32) -> Option<String> {
    let status = match Process::new(pid).and_then(|p| p.status()) {
        Ok(status) => status,
        Err(e) => return Some(format!("cannot be looked at: {e}")),
    };
    if status.sigign & HUP != 0 {
        return Some("ignores SIGHUP (started under nohup?)".into());
    }
    if status.sigcgt & HUP == 0 {
        return Some("has no handler for SIGHUP and would die of it".into());
    }
    if status.sigblk & HUP != 0 {
        return Some("blocks SIGHUP".into());
    }
    None
}

/// Whether `pid` is stopped, by a signal or a tracer: it would take the signal only once it goes on.
#[must_use]
pub fn is_stopped(pid: i32) -> bool {
    Process::new(pid).and_then(|p| p.status()).is_ok_and(|s| s.state.starts_with(['T', 't']))
}

/// The config file of a process, resolved, and seen by it as the same file.
///
/// # Errors
/// A sentence that says why it cannot be told or must not be replaced.
pub fn config_of(found: &Found, place: &Place) -> Result<PathBuf, String> {
    let path = match place {
        Place::Path(path) => path.clone(),
        Place::Arg(option) => option_value(&found.args, option).ok_or_else(|| format!("has no {option} on its command line"))?,
    };
    let cwd = std::fs::read_link(format!("/proc/{}/cwd", found.pid)).map_err(|e| format!("working directory: {e}"))?;
    let named = cwd.join(path);
    let resolved = named.canonicalize().map_err(|e| format!("config `{}`: {e}", named.display()))?;
    let through = PathBuf::from(format!("/proc/{}/root", found.pid)).join(resolved.strip_prefix("/").unwrap_or(&resolved));
    let inode = |p: &Path| p.metadata().map(|m| (m.dev(), m.ino())).ok();
    if inode(&through).is_none() || inode(&through) != inode(&resolved) {
        return Err(format!("sees another file at `{}` than this host does (its own mount)", resolved.display()));
    }
    Ok(resolved)
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

/// Listening sockets of this network namespace, by inode: one reading serves the whole fleet.
#[derive(Debug, Default)]
pub struct Listeners(HashMap<u64, String>);

impl Listeners {
    /// Reads the kernel's tables.
    #[must_use]
    pub fn read() -> Self {
        let mut map = HashMap::new();
        for entry in procfs::net::tcp().into_iter().chain(procfs::net::tcp6()).flatten() {
            if entry.state == procfs::net::TcpState::Listen {
                map.insert(entry.inode, format!("http://{}/", reachable(entry.local_address)));
            }
        }
        // A listener's own entry is unconnected; the connections it accepted are not.
        for entry in procfs::net::unix().into_iter().flatten().filter(|e| e.state == procfs::net::UnixState::UNCONNECTED) {
            if let Some(path) = entry.path.filter(|p| p.is_absolute()) {
                map.insert(entry.inode, format!("unix:{}", path.display()));
            }
        }
        Self(map)
    }

    /// The one endpoint of a process.
    ///
    /// # Errors
    /// A sentence when it listens on none, or on several.
    pub fn of(&self, pid: i32) -> Result<String, String> {
        let fds = Process::new(pid).and_then(|p| p.fd()).map_err(|e| format!("sockets: {e}"))?;
        let mut mine: Vec<&String> = fds
            .flatten()
            .filter_map(|fd| match fd.target {
                FDTarget::Socket(inode) => self.0.get(&inode),
                _ => None,
            })
            .collect();
        mine.sort();
        mine.dedup();
        match mine.as_slice() {
            [one] => Ok((*one).clone()),
            [] => Err("listens on no socket".into()),
            many => Err(format!("listens on {many:?}; say which in `instances` with `endpoint`")),
        }
    }
}

/// A wildcard listener is asked on loopback.
fn reachable(mut addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() {
        addr.set_ip(if addr.is_ipv4() { std::net::Ipv4Addr::LOCALHOST.into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    addr
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
