//! A fleet for many runs, observed over HTTP, on the disk and in `/proc`.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::trace::{Traced, traced};
use crate::{
    daemons::started,
    rogue::Rogue,
    support::{CommandEnd, CommandResult, Fleet, get, install_program},
    targets::Daemon,
};

/// Processes that share one file. One more may reject a config that the others accept; it is
/// signalled last.
pub(super) struct Testbed {
    /// Runs `hello serve`, unless the fleet is blind.
    pub(super) fleet: Fleet,
    others: Vec<Other>,
    picky: bool,
    blind: bool,
    /// The resolved folder of everything that a run changes.
    pub(super) dir: PathBuf,
    /// A counter that makes every config differ.
    serial: Cell<usize>,
}

/// The test binary, run again.
enum Other {
    /// Has the interface of `hello serve`, and keeps its config if the new one contains `refuse`.
    Picky(Rogue),
    /// Reports only how often it has loaded its config, and how often it could not.
    Blind(Daemon),
}

impl Other {
    fn pid(&self) -> i32 {
        match self {
            Self::Picky(rogue) => rogue.pid(),
            Self::Blind(daemon) => daemon.pid(),
        }
    }

    fn url(&self) -> &str {
        match self {
            Self::Picky(rogue) => &rogue.url,
            Self::Blind(daemon) => &daemon.url,
        }
    }
}

/// The old and the new config of one try.
pub(super) struct Change {
    pub(super) old: String,
    pub(super) new: String,
}

impl Testbed {
    /// Starts `servers` that accept everything. With `picky`, one more rejects every new config.
    pub(super) fn new(servers: usize, picky: bool, waves: &str) -> Self {
        Self::on(servers, picky, waves, |_| {})
    }

    /// Does the same after `prepare` has changed the folder, in which `etc` and `state` are empty.
    pub(super) fn on(
        servers: usize,
        picky: bool,
        waves: &str,
        prepare: impl FnOnce(&Path),
    ) -> Self {
        let mut testbed = Self::empty(picky, prepare);
        (0..servers).for_each(|_| testbed.fleet.serve_from("etc/web.toml"));
        testbed.pick();
        let (server, exe) = (testbed.fleet.exe().file_name().unwrap(), testbed.exe());
        let group = format!(
            "kind = \"hello\"\nvalidate = []\nmatch = {{ exe = [{server:?}, {exe:?}], args = [[\"serve\", \"rogue::run\"]] }}\n"
        );
        testbed.group(&group, waves);
        testbed
    }

    /// Starts `n` processes that do not report their config; the last is picky. Without a kind, one
    /// is signalled alone first.
    pub(super) fn blind(n: usize, picky: bool, waves: &str) -> Self {
        let mut testbed = Self {
            blind: true,
            ..Self::empty(picky, |_| {})
        };
        for at in 1..=n {
            let mut command = Command::new(testbed.exe());
            command.env(
                "DAEMON_REFUSES",
                if picky && at == n {
                    "refuse"
                } else {
                    "nothing"
                },
            );
            testbed.others.push(Other::Blind(Daemon::start(
                &mut command,
                &[testbed.config()],
            )));
        }
        let group = format!(
            "reloads = true\nsamples = 1\nmatch = {{ exe = {:?} }}\n[[group.confirm]]\nhttp = \"http://{{listen}}/loads\"\nincreased = true\n\
             [[group.reject]]\nhttp = \"http://{{listen}}/refused\"\nincreased = true\n",
            testbed.exe()
        );
        testbed.group(&group, waves);
        testbed
    }

    fn empty(picky: bool, prepare: impl FnOnce(&Path)) -> Self {
        let fleet = Fleet::start(0);
        let dir = fleet.dir.path().canonicalize().unwrap();
        // In a separate folder, so that it contains nothing else.
        ["etc", "state"]
            .iter()
            .for_each(|name| std::fs::create_dir(dir.join(name)).unwrap());
        prepare(&dir);
        fleet.write("etc/web.toml", &fleet.text());
        let testbed = Self {
            fleet,
            others: Vec::new(),
            picky,
            blind: false,
            dir,
            serial: Cell::new(0),
        };
        install_program(&std::env::current_exe().unwrap(), &testbed.exe());
        testbed
    }

    fn group(&self, group: &str, waves: &str) {
        let count = self.pids().len();
        let text = format!(
            "name = \"web\"\ncount = {count}\nconfig = {:?}\ntimeout = \"{}\"\n{group}",
            self.config(),
            self.timeout()
        );
        self.fleet.write(
            "fleet.toml",
            &format!("version = 1\n[[group]]\n{text}[rollout]\nwaves = {waves}\n"),
        );
    }

    pub(super) fn is_blind(&self) -> bool {
        self.blind
    }

    fn timeout(&self) -> &str {
        // Until then, a rejection by a blind process may belong to an earlier run, so it is waited
        // for.
        if self.blind { "5s" } else { "20s" }
    }

    fn exe(&self) -> PathBuf {
        self.dir.join("other")
    }

    fn config(&self) -> PathBuf {
        self.dir.join("etc/web.toml")
    }

    /// Starts the picky process (again), so that it is the last.
    fn pick(&mut self) {
        self.others.clear();
        if self.picky {
            self.others.push(Other::Picky(Rogue::start(
                &self.exe(),
                "picky",
                &self.config(),
            )));
        }
    }

    /// Starts a server again.
    pub(super) fn restart(&mut self, at: usize) {
        self.fleet.restart(at, "etc/web.toml");
        self.pick();
    }

    pub(super) fn text(&self) -> String {
        std::fs::read_to_string(self.config()).unwrap()
    }

    fn pids(&self) -> Vec<i32> {
        (0..self.fleet.len())
            .map(|at| self.fleet.pid(at))
            .chain(self.others.iter().map(Other::pid))
            .collect()
    }

    /// Returns pid and start time of each process; none may have ended.
    pub(super) fn ids(&self) -> Vec<(i32, u64)> {
        self.pids()
            .into_iter()
            .map(|pid| {
                (
                    pid,
                    started(pid).unwrap_or_else(|| panic!("pid {pid} has ended")),
                )
            })
            .collect()
    }

    pub(super) fn urls(&self) -> Vec<&str> {
        (0..self.fleet.len())
            .map(|at| self.fleet.url(at))
            .chain(self.others.iter().map(Other::url))
            .collect()
    }

    /// Writes a new config to `new.toml`, and the current one to `old.toml`.
    pub(super) fn change(&self) -> Change {
        self.serial.set(self.serial.get() + 1);
        let old = self.text();
        // The picky process rejects a config with this word.
        let word = if self.picky { "refuse" } else { "take" };
        let new = format!(
            "message = \"{word} {}\"\nlisten = \"127.0.0.1:0\"\n",
            self.serial.get()
        );
        self.fleet.write("old.toml", &old);
        self.fleet.write("new.toml", &new);
        Change { old, new }
    }

    /// Runs a broadcast of the new config.
    pub(super) fn broadcast(&self) -> Command {
        self.fleet.command(&[
            "-q",
            "-o",
            "json",
            "--config",
            self.dir.join("new.toml").to_str().unwrap(),
        ])
    }

    /// Kills a run that has staged another config and waits for its validator. It has not begun.
    pub(super) fn leave_behind(&self) {
        crate::support::kill_while_validating(&self.fleet);
    }

    /// Runs a broadcast without any interference.
    pub(super) fn whole(&self) -> Traced {
        patiently(
            || traced(&self.broadcast(), &self.dir, None),
            |run| is_late(run.end.code, &run.end.stderr),
        )
    }

    /// Runs an adoption of the content on the disk.
    pub(super) fn adopt(&self) -> CommandResult {
        patiently(
            || self.fleet.broadcast(&[]),
            |result| is_late(Some(result.code), &result.stderr),
        )
    }

    /// `hello resume` or `hello revert`.
    pub(super) fn go_on(&self, how: &str) -> CommandResult {
        patiently(
            || self.fleet.continue_run(how, &[]),
            |result| is_late(Some(result.code), &result.stderr),
        )
    }

    /// Checks that every instance serves the content of the file. Returns whether that is the new
    /// config.
    pub(super) fn is_new(&self, change: &Change, context: &str) -> bool {
        self.are_new(change, &self.urls(), context)
    }

    /// Does the same for some of them.
    pub(super) fn are_new(&self, change: &Change, urls: &[&str], context: &str) -> bool {
        let disk = self.text();
        assert!(
            disk == change.old || disk == change.new,
            "{context}: the file is neither old nor new: {disk}"
        );
        let (message, digest) = (disk.split('"').nth(1).unwrap(), sha256(disk.as_bytes()));
        for url in urls {
            let (head, body) = get(url, "/");
            if self.blind {
                assert!(
                    body.contains(&format!("{message:?}")),
                    "{context}: {url} serves another config than the one on the disk: {body}"
                );
            } else {
                assert_eq!(
                    body, message,
                    "{context}: {url} serves another config than the one on the disk"
                );
                assert!(
                    head.contains(&format!("x-config-sha256: {digest}")),
                    "{context}: {url} was proven on other bytes: {head}"
                );
            }
        }
        disk == change.new
    }

    /// Checks the report against the instances and the disk. Each instance that is neither on the
    /// new config nor on the old one must have a failure.
    pub(super) fn is_true(&self, change: &Change, end: &CommandEnd, context: &str) {
        let (targets, instances) = (
            end.json["targets"].as_array(),
            end.json["instances"].as_array(),
        );
        for target in targets
            .into_iter()
            .flatten()
            .filter(|t| !t["disk"].is_null())
        {
            assert_eq!(
                target["disk"],
                sha256(self.text().as_bytes()).as_str(),
                "{context}: {:#}",
                end.json
            );
        }
        let at: BTreeMap<i64, &str> = self
            .pids()
            .into_iter()
            .zip(self.urls())
            .filter(|(pid, _)| started(*pid).is_some())
            .map(|(pid, url)| (pid.into(), url))
            .collect();
        for instance in instances.into_iter().flatten() {
            let wanted = match instance["outcome"].as_str().unwrap() {
                "confirmed" | "unchanged" => &change.new,
                "reverted" | "untouched" | "refused" | "rejected" => &change.old,
                _ => continue,
            };
            // An instance that has ended since proves nothing any more.
            let Some(url) = at.get(&instance["pid"].as_i64().unwrap()) else {
                continue;
            };
            let (head, _) = get(url, "/");
            let says = format!("x-config-sha256: {}", sha256(wanted.as_bytes()));
            assert!(
                head.contains(&says),
                "{context}: {url} differs from its report: {instance:#}\n{head}"
            );
        }
    }

    /// Returns the number of reload attempts of each.
    pub(super) fn attempts(&self) -> Vec<Value> {
        self.urls().iter().map(|url| serde_json::from_str::<Value>(&get(url, "/-/config").1).unwrap()["last_attempt"]["seq"].clone()).collect()
    }

    /// Returns the files that a run has staged beside the target.
    pub(super) fn staged(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.dir.join("etc"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "web.toml").collect()
    }

    /// Checks that the lock is free and no run is open.
    pub(super) fn is_over(&self, context: &str) {
        let dir = File::open(self.dir.join("etc")).unwrap();
        assert!(
            Flock::lock(dir, FlockArg::LockExclusiveNonblock).is_ok(),
            "{context}: the lock is held"
        );
        assert_eq!(
            self.open(),
            Vec::<String>::new(),
            "{context}: a run is open"
        );
    }

    /// Returns the runs with a mark whose journal has no final end. An incomplete mark has a dot
    /// before its name.
    pub(super) fn open(&self) -> Vec<String> {
        let marks = std::fs::read_dir(self.dir.join("state/open"))
            .into_iter()
            .flatten()
            .map(|e| e.unwrap().file_name().into_string().unwrap());
        let ended = |id: &String| {
            let events =
                std::fs::read_to_string(self.dir.join("state/runs").join(id).join("events.jsonl"))
                    .unwrap();
            let mut events = events
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok());
            events.any(|e| {
                e["event"] == "superseded_by"
                    || (e["event"] == "finished" && e["verdict"] != "mixed")
            })
        };
        marks
            .filter(|id| !id.starts_with('.') && !ended(id))
            .collect()
    }

    /// Whether a run keeps the bytes of this config.
    pub(super) fn keeps(&self, config: &str) -> bool {
        kept(
            &self.dir.join("state"),
            &sha256(config.as_bytes()),
            config.as_bytes(),
        )
    }
}

/// Whether a run aborted because a busy machine delayed an answer, or delayed a reload until the
/// next run had read it twice.
pub(super) fn is_late(code: Option<i32>, stderr: &str) -> bool {
    code == Some(5)
        && [
            "no answer within",
            "no second answer",
            "changes from one second to the next",
        ]
        .iter()
        .any(|why| stderr.contains(why))
}

fn patiently<T>(run: impl Fn() -> T, is_late: impl Fn(&T) -> bool) -> T {
    (1..10)
        .map(|_| run())
        .find(|result| !is_late(result))
        .unwrap_or_else(run)
}

fn kept(dir: &Path, name: &str, bytes: &[u8]) -> bool {
    std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .map(|e| e.unwrap().path())
        .any(|path| {
            if path.is_dir() {
                kept(&path, name, bytes)
            } else {
                path.file_name().is_some_and(|n| n == name)
                    && std::fs::read(&path).unwrap() == bytes
            }
        })
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}
