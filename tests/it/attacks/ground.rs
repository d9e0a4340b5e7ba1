//! The second user: its directory, its instances, and processes that attack continuously.

use std::{
    io::{BufRead, BufReader},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use super::notes::Notes;
use crate::{
    support::{CommandResult, Fleet, write},
    users::{give, is_root},
};

/// Returns the second user of the calling test. No account and no other test has its number: its
/// attackers reach for each process of their user.
pub(super) fn uid() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(64_100);
    thread_local!(static OWN: u32 = NEXT.fetch_add(1, Ordering::Relaxed));
    OWN.with(|uid| *uid)
}

/// Returns the number of attempts of a race: `sample`, or more at full length.
pub(super) fn tries(sample: usize) -> usize {
    if std::env::var_os("HELLO_TEST_FULL").is_some() {
        300
    } else {
        sample
    }
}

/// The longest time by which a race is extended until it occurs. A busy machine may have delayed
/// the attacker.
const LATE: Duration = Duration::from_secs(60);

/// Makes at least this many attempts of a race, and continues until one of them returns true. The
/// caller asserts that the race occurred.
pub(super) fn race(least: usize, mut attempt: impl FnMut(usize) -> bool) {
    let mut deadline = None;
    for at in 0.. {
        let has_met = attempt(at);
        if at + 1 >= least
            && (has_met || Instant::now() > *deadline.get_or_insert_with(|| Instant::now() + LATE))
        {
            return;
        }
    }
}

/// A process group leader. The whole group is killed when dropped.
pub(super) struct Process(pub(super) Child);

impl Process {
    pub(super) fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.pid()), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

/// Returns a command of the second user without any right of root.
pub(super) fn as_alice(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .uid(uid())
        .gid(uid())
        .process_group(0)
        .stdin(Stdio::null());
    command
}

/// Starts a command and waits for its first line.
pub(super) fn start(command: &mut Command) -> (Process, String) {
    let mut process = Process(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(process.0.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(!line.is_empty(), "it has ended: {command:?}");
    (process, line.trim().to_owned())
}

/// A process of the second user that attacks until dropped.
pub(super) struct Attacker {
    _process: Process,
    count: PathBuf,
}

impl Attacker {
    /// Returns how often its attack was in place so far.
    pub(super) fn count(&self) -> u64 {
        self.number(0)
    }

    /// Returns how often it succeeded, if the attack reports that.
    pub(super) fn got(&self) -> u64 {
        self.number(8)
    }

    fn number(&self, at: usize) -> u64 {
        u64::from_le_bytes(
            std::fs::read(&self.count).unwrap()[at..at + 8]
                .try_into()
                .unwrap(),
        )
    }
}

/// A fleet of root with a group of the second user's instances.
pub(super) struct Ground {
    pub(super) fleet: Fleet,
    /// The directory of the second user, who may change everything in it.
    pub(super) alice: PathBuf,
    /// A directory of root that no other user can enter.
    pub(super) roots: PathBuf,
    servers: Vec<Process>,
}

impl Ground {
    /// Returns `None` without root or Python, after the skip is reported.
    pub(super) fn new() -> Option<Self> {
        if !is_root() {
            return None;
        }
        if !Command::new("python3")
            .args(["-c", ""])
            .status()
            .is_ok_and(|status| status.success())
        {
            crate::support::skipped("the attacker is a program for python3");
            return None;
        }
        let fleet = Fleet::start(0);
        std::fs::set_permissions(fleet.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let (alice, roots) = (fleet.path("alice"), fleet.path("roots"));
        std::fs::create_dir(&alice).unwrap();
        give(&alice, uid(), 0o755);
        std::fs::create_dir(&roots).unwrap();
        std::fs::set_permissions(&roots, std::fs::Permissions::from_mode(0o700)).unwrap();
        Some(Self {
            fleet,
            alice,
            roots,
            servers: Vec::new(),
        })
    }

    /// Does the same with one instance in the second user's directory. Returns its pid.
    pub(super) fn serving() -> Option<(Self, i32)> {
        let mut ground = Self::new()?;
        let config = ground.config("web.toml");
        let server = ground.serve_at_home(&config);
        Some((ground, server))
    }

    pub(super) fn alice(&self, name: &str) -> PathBuf {
        self.alice.join(name)
    }

    /// Creates a directory of the second user.
    pub(super) fn folder(&self, name: &str) -> PathBuf {
        let path = self.alice(name);
        std::fs::create_dir(&path).unwrap();
        give(&path, uid(), 0o755);
        path
    }

    /// Writes a file of the second user.
    pub(super) fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.alice(name);
        std::fs::write(&path, text).unwrap();
        give(&path, uid(), mode);
        path
    }

    /// Writes a config of a server, owned by the second user.
    pub(super) fn config(&self, name: &str) -> PathBuf {
        self.file(name, "message = \"one\"\nlisten = \"127.0.0.1:0\"\n", 0o644)
    }

    /// Writes a program of root that every user may run.
    pub(super) fn program(&self, name: &str, text: &str) -> String {
        crate::users::script(&self.fleet, name, text)
    }

    /// Creates a file for notes of the second user's programs, readable by root.
    pub(super) fn notebook(&self, name: &str) -> PathBuf {
        self.file(name, "", 0o644)
    }

    /// Starts an instance of the second user in its directory.
    pub(super) fn serve_at_home(&mut self, config: &Path) -> i32 {
        let home = self.alice.clone();
        self.serve(config, &home)
    }

    /// Starts an instance of the second user in `cwd`.
    pub(super) fn serve(&mut self, config: &Path, cwd: &Path) -> i32 {
        let (server, url) = start(
            as_alice(self.fleet.exe())
                .args(["serve", "--config"])
                .arg(config)
                .current_dir(cwd)
                .stderr(Stdio::null()),
        );
        assert!(url.starts_with("http://"), "{url}");
        self.servers.push(server);
        self.servers.last().unwrap().pid()
    }

    /// Writes `fleet.toml` with the group of these instances and `more`.
    pub(super) fn group(&self, more: &str) {
        let (exe, alice, uid) = (
            self.fleet.exe().file_name().unwrap().to_str().unwrap(),
            self.alice.display(),
            uid(),
        );
        let group = format!(
            "version = 1\n[[group]]\nname = \"web\"\nkind = \"hello\"\ntimeout = \"400ms\"\nuser = \"{uid}\"\nconfig_under = \"{alice}\"\n"
        );
        self.fleet.write(
            "fleet.toml",
            &format!("{group}match = {{ exe = \"{exe}\", args = [\"serve\"] }}\n{more}\n"),
        );
    }

    /// Starts an attack; see `attacker.py`.
    pub(super) fn attack(&self, verb: &str, args: &[&Path]) -> Attacker {
        let script = write(&self.fleet.path("attacker.py"), include_str!("attacker.py"));
        let mut number = 0;
        let count = loop {
            let path = self.alice(&format!("count-{verb}-{number}"));
            if !path.exists() {
                break path;
            }
            number += 1;
        };
        let (process, _) = start(
            as_alice("python3")
                .arg(script)
                .arg(&count)
                .arg(verb)
                .args(args),
        );
        Attacker {
            _process: process,
            count,
        }
    }

    /// Runs `broadcast` with `args`.
    pub(super) fn broadcast(&self, args: &[&str]) -> CommandResult {
        self.fleet.broadcast(args)
    }
}

/// A snapshot of files of root that shows every change.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Untouched(Vec<(PathBuf, [i64; 6], Vec<u8>)>);

impl Untouched {
    /// Takes the snapshot of everything below a path.
    pub(super) fn of(path: &Path) -> Self {
        let mut all = Vec::new();
        add(path, &mut all);
        Self(all)
    }
}

fn add(path: &Path, all: &mut Vec<(PathBuf, [i64; 6], Vec<u8>)>) {
    let meta = path.symlink_metadata().unwrap();
    let number = |n: u64| i64::try_from(n).unwrap();
    let told = [
        number(meta.ino()),
        meta.uid().into(),
        meta.mode().into(),
        number(meta.nlink()),
        meta.ctime(),
        meta.ctime_nsec(),
    ];
    if meta.is_dir() {
        all.push((path.to_owned(), told, Vec::new()));
        let mut inner: Vec<PathBuf> = std::fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        inner.sort();
        inner.iter().for_each(|path| add(path, all));
    } else {
        all.push((
            path.to_owned(),
            told,
            std::fs::read(path).unwrap_or_default(),
        ));
    }
}

impl Ground {
    /// Returns the arguments of a named command. `message` is the value that a broadcast sets.
    pub(super) fn verb(&self, verb: &str, message: &str) -> Vec<String> {
        let set = format!("message={message}");
        let args: &[&str] = match verb {
            "dry-run" => &["broadcast", "--dry-run", "--set", &set],
            "broadcast" => &["broadcast", "--set", &set],
            verb => &[verb],
        };
        let mut all = vec![self.fleet.exe().display().to_string()];
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        all.extend([
            "--fleet".into(),
            self.fleet.path("fleet.toml").display().to_string(),
        ]);
        if verb != "doctor" {
            all.extend([
                "--state".into(),
                self.fleet.path("state").display().to_string(),
            ]);
        }
        all
    }

    /// Runs the named command with JSON output.
    pub(super) fn run_json(&self, verb: &str, message: &str) -> CommandResult {
        let argv = self.verb(verb, message);
        CommandResult::of(Command::new(&argv[0]).args(&argv[1..]).args(["-o", "json"]))
    }
}

/// A terminal session of root; see `session.py`.
pub(super) struct Session<'a> {
    ground: &'a Ground,
    /// The notes of `intruder.py`.
    pub(super) notes: Notes,
}

impl<'a> Session<'a> {
    pub(super) fn new(ground: &'a Ground) -> Self {
        Self {
            ground,
            notes: Notes::new(),
        }
    }

    /// Returns the path of the file that describes the session.
    pub(super) fn facts_file(&self) -> String {
        self.ground.fleet.path("told").display().to_string()
    }

    /// Returns the argv of `intruder.py` for `fleet.toml`.
    pub(super) fn intruder(&self) -> String {
        let script = self
            .ground
            .program("intruder.py", include_str!("intruder.py"));
        format!(
            "[\"python3\", \"{script}\", \"{}\", \"{}\"]",
            self.facts_file(),
            self.notes.port()
        )
    }

    /// Runs a command there, and returns the output of the terminal.
    pub(super) fn run(&self, argv: &[String]) -> String {
        let script = self
            .ground
            .program("session.py", include_str!("session.py"));
        let output = Command::new("python3")
            .arg(script)
            .arg(self.facts_file())
            .args(argv)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(super) fn notes(&self) -> Vec<serde_json::Value> {
        self.notes
            .text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}
