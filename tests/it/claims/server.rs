//! The rogues of `tests/faults` as servers of a test, and the table of claims for them.

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    rogues,
    support::{CommandResult, Fleet, get, try_get, until},
    world::{digest, lives, processes_of, started_at},
};

/// The command line holds the role of a server, where `rogues::run` reads it.
#[test]
#[ignore = "not a test: the server that the others start"]
fn run() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().position(|a| a == THIEF) {
        Some(at) => rogues::thief(&arguments[at..]).unwrap(),
        None if arguments.iter().any(|a| a == "--mode") => rogues::run(&arguments).unwrap(),
        None => {}
    }
}

const THIEF: &str = "thief";

/// A foreign listener on the port of a server, which answers `one`. Killed by its pid when dropped.
pub(crate) struct Foreign(Child);

impl Foreign {
    pub(crate) fn start(fleet: &Fleet, server: &Server) -> Self {
        let mut command = command(fleet);
        let mut child = command
            .args([THIEF, server.port(), "one"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let foreign = Self(child);
        assert!(
            BufReader::new(stdout)
                .lines()
                .map_while(Result::ok)
                .any(|line| line.ends_with("there")),
            "it listens"
        );
        foreign
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns this program under the name of the fleet's servers. Its role follows on the command
/// line.
fn command(fleet: &Fleet) -> Command {
    let exe = fleet.path("rogue");
    if !exe.exists() {
        let own = std::env::current_exe().unwrap();
        // Another process copies it: a file that is open for writing here could not be executed.
        assert!(
            std::fs::hard_link(&own, &exe).is_ok()
                || Command::new("cp")
                    .arg(own)
                    .arg(&exe)
                    .status()
                    .unwrap()
                    .success()
        );
    }
    let mut command = Command::new(exe);
    command.args([
        "--exact",
        "claims::server::run",
        "--ignored",
        "--nocapture",
        "--",
    ]);
    command
}

/// The time limit from a signal to its proof, in every group of these tests.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(800);

/// The time limit for instances that prove at once. Long, since a machine may be busy.
pub(crate) const PATIENT: &[&str] = &["--timeout", "10s"];

pub(crate) const EQUALS: &str =
    "[[group.confirm]]\nhttp = \"http://{listen}/\"\nequals = \"{candidate.message}\"\n";
pub(crate) const CONTAINS: &str =
    "[[group.confirm]]\nhttp = \"http://{listen}/\"\ncontains = \"{candidate.message}\"\n";
pub(crate) const CHANGED: &str = "[[group.confirm]]\nhttp = \"http://{listen}/\"\nchanged = true\n";
pub(crate) const INCREASED: &str =
    "[[group.confirm]]\nhttp = \"http://{listen}/count\"\nincreased = true\n";
pub(crate) const STAMPED: &str =
    "[[group.confirm]]\nhttp = \"http://{listen}/stamp\"\nafter_signal = true\n";
pub(crate) const WORKERS: &str = "[[group.confirm]]\nworkers = true\nreplaced = true\n";

/// A process of the fleet. Killed by its pid with all its descendants when dropped.
pub(crate) struct Server {
    child: Child,
    /// Its output, open while it is alive: a process that re-executes itself writes to it.
    stdout: BufReader<ChildStdout>,
    started: u64,
    pub(crate) url: String,
    dir: PathBuf,
}

impl Server {
    pub(crate) fn start(fleet: &Fleet, mode: &str, slow: u64, config: &str) -> Self {
        Self::with(fleet, mode, slow, config, &[])
    }

    /// Starts a rogue of this mode, whose reload takes `slow` milliseconds.
    pub(crate) fn with(fleet: &Fleet, mode: &str, slow: u64, config: &str, more: &[&str]) -> Self {
        let mut child = command(fleet)
            .arg("--config")
            .arg(fleet.path(config))
            .args(["--mode", mode, "--slow", &slow.to_string(), "--log"])
            .arg(fleet.path("rogues.log"))
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let started = started_at(i32::try_from(child.id()).unwrap()).unwrap();
        // Kept first, so that it is ended even if its first line is wrong.
        let mut server = Self {
            child,
            stdout: BufReader::new(stdout),
            started,
            url: String::new(),
            dir: fleet.dir.path().into(),
        };
        let mut lines = server.stdout.by_ref().lines().map_while(Result::ok);
        server.url = lines
            .find_map(|line| line.find("http://").map(|at| line[at..].to_owned()))
            .expect("it says where it listens");
        server
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub(crate) fn lives(&self) -> bool {
        lives(self.pid(), self.started)
    }

    pub(crate) fn port(&self) -> &str {
        self.url.trim_end_matches('/').rsplit(':').next().unwrap()
    }

    /// Returns the digest that the answering process serves, and whether a signal is pending.
    pub(crate) fn truth(url: &str) -> Option<(String, bool)> {
        let body = try_get(url, "/truth").ok()?.1;
        let words: Vec<&str> = body.split(' ').collect();
        Some((words[0].to_owned(), words[2] == "1"))
    }

    /// Waits until no signal is pending. Between two signals it is idle for less than that.
    pub(crate) fn settles(&self) {
        let mut idle = Instant::now();
        until("its signals are worked off", || {
            if Self::truth(&self.url).is_none_or(|(_, busy)| busy) {
                idle = Instant::now();
            }
            idle.elapsed() > Duration::from_millis(200)
        });
    }

    /// Returns the distinct answers of many probes, each over its own connection.
    pub(crate) fn serves(&self) -> Vec<String> {
        let mut all: Vec<String> = (0..24)
            .filter_map(|_| Self::truth(&self.url))
            .map(|(sha256, _)| sha256)
            .collect();
        all.sort();
        all.dedup();
        all
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mine = |line: &str| line.contains(self.dir.join("rogue").to_str().unwrap());
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Workers and successors have the same command line.
        for (pid, started, _) in processes_of(&self.dir)
            .into_iter()
            .filter(|(.., line)| mine(line))
        {
            if lives(pid, started) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

/// Returns the head of a group of servers that read `config`, their seventh argument. After `--` no
/// argument is an option. `more` holds the other keys.
pub(crate) fn group(fleet: &Fleet, name: &str, config: &str, more: &str) -> String {
    let (exe, config) = (fleet.path("rogue"), fleet.path(config));
    format!(
        "[[group]]\nname = \"{name}\"\nmatch = {{ exe = \"{}\", args = [\"{}\"] }}\nconfig = \"{{arg:7}}\"\nreloads = true\ntimeout = \"{}ms\"\n{more}\n",
        exe.display(),
        config.display(),
        TIMEOUT.as_millis()
    )
}

/// Writes a `fleet.toml` with these groups.
pub(crate) fn groups(fleet: &Fleet, all: &[String]) {
    fleet.write("fleet.toml", &format!("version = 1\n{}", all.join("")));
}

/// Starts a fleet of one group of servers that read `web.toml`. Each has a mode and a reload time.
pub(crate) fn fleet(servers: &[(&str, u64)], more: &str) -> (Fleet, Vec<Server>) {
    let fleet = Fleet::start(0);
    let all = servers
        .iter()
        .map(|(mode, slow)| Server::start(&fleet, mode, *slow, "web.toml"))
        .collect();
    groups(&fleet, &[group(&fleet, "g", "web.toml", more)]);
    (fleet, all)
}

/// Tests all cases concurrently, since they mostly wait.
pub(crate) fn each<T: Sync>(cases: &[T], test: impl Fn(&T) + Sync) {
    thread::scope(|scope| {
        let all: Vec<_> = cases
            .iter()
            .map(|case| scope.spawn(|| test(case)))
            .collect();
        all.into_iter()
            .for_each(|one| one.join().unwrap_or_else(|e| std::panic::resume_unwind(e)));
    });
}

/// Returns the report entry of one server.
pub(crate) fn outcome<'a>(result: &'a CommandResult, server: &Server) -> &'a Value {
    let all = result.json["instances"]
        .as_array()
        .unwrap_or_else(|| panic!("{}\n{:#}", result.stderr, result.json));
    all.iter()
        .find(|i| i["pid"] == server.pid())
        .unwrap_or_else(|| panic!("pid {} is not named: {:#}", server.pid(), result.json))
}

pub(crate) fn state<'a>(result: &'a CommandResult, server: &Server) -> &'a str {
    outcome(result, server)["outcome"].as_str().unwrap()
}

/// Checks one outcome: `confirmed` serves the installed config, `reverted` the earlier one, and an
/// instance reported alive is alive.
fn holds_now(result: &CommandResult, server: &Server) {
    let outcome = outcome(result, server);
    let named = || format!("exit {}: {outcome:#}\n{}", result.code, result.stderr);
    let key = match outcome["outcome"].as_str().unwrap() {
        "confirmed" | "unchanged" => "to",
        "reverted" => "from",
        "unconfirmed" | "rejected" => {
            return assert!(server.lives(), "it is reported alive: {}", named());
        }
        "died" => return assert!(!server.lives(), "it is reported dead: {}", named()),
        _ => return,
    };
    assert!(server.lives(), "it is reported alive: {}", named());
    let target = result.json["targets"]
        .as_array()
        .unwrap()
        .iter()
        .find(|t| t["path"] == outcome["targets"][0])
        .unwrap();
    assert_eq!(
        server.serves(),
        [target[key].as_str().unwrap()],
        "every answer is of `{key}`: {}",
        named()
    );
}

/// Checks every outcome against its process, at once and after all signals are handled, and the
/// report against the disk.
pub(crate) fn holds(result: &CommandResult, servers: &[Server]) {
    servers.iter().for_each(|server| holds_now(result, server));
    for server in servers.iter().filter(|server| server.lives()) {
        server.settles();
        holds_now(result, server);
    }
    for target in result.json["targets"].as_array().unwrap() {
        let bytes = std::fs::read(target["path"].as_str().unwrap()).unwrap();
        assert_eq!(
            target["disk"],
            digest(&bytes),
            "it says what stands on the disk: {target:#}"
        );
        assert!(
            result.code != 0 || target["disk"] == target["to"],
            "exit 0 says that it holds the new bytes: {target:#}"
        );
    }
}

/// Sets the message of every group.
pub(crate) fn set(fleet: &Fleet, message: &str, more: &[&str]) -> CommandResult {
    let message = format!("message={message}");
    fleet.broadcast(&[&["--set", message.as_str()], more].concat())
}

/// Writes a script for a run, and returns its path.
pub(crate) fn script(fleet: &Fleet, name: &str, text: &str) -> String {
    crate::users::script(fleet, name, &format!("#!/bin/sh\n{text}\n"))
}

/// Returns the path of a file as text.
pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}

pub(crate) fn message(server: &Server) -> String {
    get(&server.url, "/").1
}
