//! Real daemons from Debian's packages, each in its own folder. Killed by pid when the test ends.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicU16, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{CommandResult, RUN_LIMIT, write};

mod acts;
mod alertmanager;
mod all;
mod apache2;
mod asked;
mod case;
mod dnsmasq;
mod dovecot;
mod gunicorn;
mod haproxy;
mod icinga2;
mod keepalived;
mod lighttpd;
mod logs;
mod mosquitto;
mod named;
mod nats;
mod nginx;
mod no_signal;
mod php_fpm;
mod postfix;
pub(crate) mod postgres;
mod prometheus;
mod refused;
mod rsyslog;
pub(crate) mod services;
mod squid;
mod sshd;
mod unbound;
mod uwsgi;
pub(crate) mod web;

/// Further directories of programs, which the PATH of the tester may lack.
const MORE: &[&str] = &["/usr/local/sbin", "/usr/sbin", "/sbin"];
/// The longest time for killed processes to disappear. A busy machine needs seconds.
const GONE: Duration = Duration::from_secs(10);

/// A daemon in the foreground. Its command line names a file in `dir`, so only the group of its
/// test matches it.
pub(crate) struct Daemon {
    pub(crate) dir: TempDir,
    child: Child,
    /// True if it has a network namespace of its own, in which every command is run.
    pub(crate) has_own_network: bool,
    /// Every former descendant as pid and start time. It may have left the process group or
    /// outlived its parent.
    below: RefCell<BTreeSet<(i32, u64)>>,
}

impl Daemon {
    /// Starts it in a new process group in `dir`. Its output goes to `log` there.
    pub(crate) fn spawn(dir: TempDir, command: &mut Command) -> Self {
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = command
            .current_dir(dir.path())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Self {
            dir,
            child,
            has_own_network: false,
            below: RefCell::default(),
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Whether it runs. False also for a zombie, whose pid stays reserved until the drop.
    pub(crate) fn runs(&self) -> bool {
        started(self.pid()).is_some()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        write(&self.path(name), text)
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path("log")).unwrap()).into_owned()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    pub(crate) fn stop(&self) {
        stop(self.pid());
    }

    /// Returns the pids of its living children in ascending order.
    pub(crate) fn children(&self) -> Vec<i32> {
        self.remember();
        children(self.pid())
    }

    /// Runs `hello broadcast` with the folder's `fleet.toml`.
    pub(crate) fn broadcast(&self, args: &[&str]) -> CommandResult {
        CommandResult::of(
            self.hello("broadcast")
                .args(["-o", "json", "--state"])
                .arg(self.path("state"))
                .args(args),
        )
    }

    /// Runs `hello status` with the folder's `fleet.toml`.
    pub(crate) fn status(&self) -> CommandResult {
        CommandResult::of(self.hello("status").args(["-o", "json"]))
    }

    /// Does the same as [`Daemon::broadcast`], and calls back with each event.
    pub(crate) fn watch(&self, args: &[&str], mut on_event: impl FnMut(&Value)) -> CommandResult {
        let stderr = self.path("stderr");
        let mut hello = self.hello("broadcast");
        hello
            .args(["-o", "jsonl", "--state"])
            .arg(self.path("state"))
            .args(args)
            .stdout(Stdio::piped());
        let mut child = hello
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        let (pid, stdout) = (
            Pid::from_raw(i32::try_from(child.id()).unwrap()),
            child.stdout.take().unwrap(),
        );
        let (over, ended) = mpsc::channel::<()>();
        // It is reaped only after its output has ended, so its pid stays reserved until then.
        let watch = std::thread::spawn(move || {
            let late = ended.recv_timeout(RUN_LIMIT) == Err(mpsc::RecvTimeoutError::Timeout);
            late.then(|| kill(pid, Signal::SIGKILL))
        });
        let mut json = Value::Null;
        for line in BufReader::new(stdout).lines() {
            json = serde_json::from_str(&line.unwrap()).unwrap();
            if json.get("event").is_some() {
                on_event(&json);
            }
        }
        drop(over);
        assert!(watch.join().unwrap().is_none(), "not within {RUN_LIMIT:?}");
        CommandResult {
            code: child.wait().unwrap().code().unwrap(),
            json,
            stderr: std::fs::read_to_string(stderr).unwrap(),
        }
    }

    pub(crate) fn hello(&self, command: &str) -> Command {
        let exe = env!("CARGO_BIN_EXE_hello");
        let mut hello = if self.has_own_network {
            let mut nsenter = Command::new("nsenter");
            nsenter.args(["--target", &self.pid().to_string(), "--net", exe]);
            nsenter
        } else {
            Command::new(exe)
        };
        hello
            .arg(command)
            .arg("--fleet")
            .arg(self.path("fleet.toml"));
        hello
    }

    fn remember(&self) {
        children(self.pid())
            .into_iter()
            .for_each(|pid| self.remember_below(pid));
    }

    /// Remembers a process, and all below it.
    fn remember_below(&self, pid: i32) {
        let mut next = vec![pid];
        while let Some(pid) = next.pop() {
            let found = started(pid).map(|since| (pid, since));
            self.below.borrow_mut().extend(found);
            next.extend(children(pid));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.remember();
        // A process started by `revive` is no descendant, but names the folder.
        let folder = self.dir.path().display().to_string();
        let all = procfs::process::all_processes()
            .into_iter()
            .flatten()
            .flatten()
            .map(|p| p.pid);
        let named = all.filter(|pid| {
            words(*pid).iter().any(|word| word.contains(&folder)) || environ(*pid).contains(&folder)
        });
        named.for_each(|pid| self.remember_below(pid));
        // Not reaped yet, so no other process has its pid or its group id.
        let _ = killpg(Pid::from_raw(self.pid()), Signal::SIGKILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
        let deadline = Instant::now() + GONE;
        for (pid, since) in self.below.take() {
            while started(pid) == Some(since) && Instant::now() < deadline {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

/// Returns the environment that a process was started with.
fn environ(pid: i32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether the program is on this machine. Under `CI=true` it must be.
pub(crate) fn need(name: &str) -> bool {
    if program(name).is_some() {
        return true;
    }
    crate::support::skipped(&format!("`{name}` is missing"));
    false
}

/// Returns the absolute path of the program.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let postgres = glob::glob("/usr/lib/postgresql/*/bin")
        .unwrap()
        .filter_map(Result::ok);
    let is_program = |path: &PathBuf| {
        path.metadata()
            .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(&path)
        .chain(MORE.iter().map(PathBuf::from))
        .chain(postgres)
        .map(|dir| dir.join(name))
        .find(is_program)
}

/// Returns a command of a program that `need` found.
pub(crate) fn command(name: &str) -> Command {
    Command::new(program(name).unwrap_or_else(|| panic!("no `{name}`")))
}

/// Creates a folder that daemons of other users may read.
pub(crate) fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// Returns a loopback port on which nothing listens, once only. It is below the ephemeral ports, so
/// no client of a parallel test takes it before the daemon starts.
pub(crate) fn free_port() -> u16 {
    const RANGE: std::ops::Range<u16> = 12_000..32_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let many = u32::from(RANGE.end - RANGE.start);
    // Two concurrent test processes start far apart.
    let first = std::process::id() % many * 211;
    for _ in RANGE {
        let port = RANGE.start
            + u16::try_from((first + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % many)
                .unwrap();
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port in {RANGE:?}")
}

/// Returns the pids of the living children of a process in ascending order.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let tasks = glob::glob(&format!("/proc/{pid}/task/*/children"))
        .unwrap()
        .filter_map(Result::ok);
    let lists: Vec<String> = tasks
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .collect();
    let mut all: Vec<i32> = lists
        .iter()
        .flat_map(|list| list.split_whitespace())
        .map(|pid| pid.parse().unwrap())
        .filter(|pid| started(*pid).is_some())
        .collect();
    all.sort_unstable();
    all
}

/// Stops a process and waits until it is stopped.
pub(crate) fn stop(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    let state = || {
        procfs::process::Process::new(pid)
            .and_then(|p| p.stat())
            .unwrap()
            .state
    };
    crate::support::until("it is stopped", || state() == 'T');
}

/// Returns the start time of a process in clock ticks since boot. `None` if it has ended, reaped or
/// not.
pub(crate) fn started(pid: i32) -> Option<u64> {
    let stat = procfs::process::Process::new(pid).ok()?.stat().ok()?;
    (!matches!(stat.state, 'Z' | 'X')).then_some(stat.starttime)
}

/// Returns the inodes of the IPv4 TCP sockets on which this process listens.
pub(crate) fn listening(pid: i32) -> BTreeSet<u64> {
    use procfs::{net::TcpState, process::FDTarget};
    let Ok(fds) = procfs::process::Process::new(pid).and_then(|p| p.fd()) else {
        return BTreeSet::new();
    };
    let held: BTreeSet<u64> = fds
        .flatten()
        .filter_map(|fd| {
            if let FDTarget::Socket(inode) = fd.target {
                Some(inode)
            } else {
                None
            }
        })
        .collect();
    // Read after the descriptors, which also name sockets that are closed in between.
    let all: BTreeSet<u64> = procfs::net::tcp()
        .unwrap()
        .into_iter()
        .filter(|s| s.state == TcpState::Listen)
        .map(|s| s.inode)
        .collect();
    held.intersection(&all).copied().collect()
}

/// Returns the words of a process's command line or title.
pub(crate) fn words(pid: i32) -> Vec<String> {
    let raw = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&raw)
        .split(['\0', ' '])
        .filter(|w| !w.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_dropped_daemon_leaves_nothing_behind() {
    let script = "setsid sleep 600 & sleep 600 & exec sleep 600";
    let daemon = Daemon::spawn(folder(), Command::new("sh").args(["-c", script]));
    crate::support::until("all three run", || {
        daemon
            .children()
            .iter()
            .filter(|pid| words(**pid) == ["sleep", "600"])
            .count()
            == 2
    });
    let all: Vec<(i32, u64)> = daemon
        .children()
        .into_iter()
        .chain([daemon.pid()])
        .map(|pid| (pid, started(pid).unwrap()))
        .collect();
    let dir = daemon.dir.path().to_owned();
    drop(daemon);
    assert!(all.len() == 3, "{all:?}");
    assert!(
        all.iter().all(|(pid, since)| started(*pid) != Some(*since)),
        "{all:?}"
    );
    assert!(!dir.exists());
}
