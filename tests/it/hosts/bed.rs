//! Hosts on one machine: each is a folder with servers, a fleet file, a state directory, and a
//! command that connects to its agent. A program between them does what a bad network does.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use super::faults::Mounts;
use crate::{
    support::{CommandEnd, Fleet, run_to_end, try_get, until, without_cargo, write},
    world::processes_of,
};

/// The attempts to load a config that a server counts at its start.
pub(super) const AT_START: u64 = 1;

/// The line with the time after which a host is silent.
const SILENCE: &str = "silence = \"2s\"";

/// The lines of `[agent]` of every host.
const AGENT: &str = "lease = \"1s\"\n";

/// The files beside those of a host that `between.py` writes.
const OF_A_CONNECTION: [&str; 4] = ["count", "used", "acts", "down"];

pub(super) struct Bed {
    pub(super) dir: tempfile::TempDir,
    pub(super) hosts: Vec<Fleet>,
    files: Vec<BTreeMap<PathBuf, Vec<u8>>>,
    /// The mount namespaces of the hosts that have one.
    mounts: Vec<Option<Mounts>>,
}

/// Returns a rule of `between.py`.
pub(super) fn rule(act: &str, way: &str, line: &str) -> Value {
    json!({ "act": act, "way": way, "line": line })
}

/// Returns a rule that passes its line on first.
pub(super) fn rule_after(act: &str, way: &str, line: &str) -> Value {
    json!({ "act": act, "way": way, "line": line, "after": true })
}

impl Bed {
    /// Starts hosts `h0`, `h1`, .. with this many servers each.
    pub(super) fn start(servers: &[usize]) -> Self {
        let hosts: Vec<Fleet> = servers.iter().map(|n| Fleet::start(*n)).collect();
        let mounts = servers.iter().map(|_| None).collect();
        Self::of(hosts, mounts)
    }

    /// Starts hosts with one server each. Everything of a host runs in a mount namespace of its own,
    /// in which its state directory is a small filesystem.
    pub(super) fn start_in_namespaces(hosts: usize) -> Self {
        let start = |_| {
            let mut host = Fleet::start(0);
            let mounts = Mounts::of(&host);
            host.serve_command(&mut mounts.serve(&host));
            (host, Some(mounts))
        };
        let (hosts, mounts) = (0..hosts).map(start).unzip();
        Self::of(hosts, mounts)
    }

    fn of(hosts: Vec<Fleet>, mounts: Vec<Option<Mounts>>) -> Self {
        let mut bed = Self {
            dir: tempfile::tempdir().unwrap(),
            hosts,
            files: Vec::new(),
            mounts,
        };
        write(&bed.path("between.py"), include_str!("between.py"));
        for host in 0..bed.hosts.len() {
            let fleet = &bed.hosts[host];
            let own = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
            fleet.write(
                "fleet.toml",
                &format!("{own}[agent]\nname = \"h{host}\"\n{AGENT}"),
            );
            bed.connect_directly(host);
        }
        bed.fleet("");
        bed.files = (0..bed.hosts.len())
            .map(|host| bed.files_of(host))
            .collect();
        bed
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes the coordinator's fleet file, with further lines behind `[hosts]`.
    pub(super) fn fleet(&self, more: &str) {
        let dir = self.dir.path();
        let last = self.hosts.len() - 1;
        let text = format!(
            "version = 1\n[hosts]\nlist = [\"h[0-{last}]\"]\n{SILENCE}\n\
             connect = [\"sh\", \"{}/{{name}}.sh\"]\n{more}",
            dir.display()
        );
        write(&self.path("fleet.toml"), &text);
    }

    /// Sets the time after which a host is silent.
    pub(super) fn silence(&self, silence: &str) {
        let path = self.path("fleet.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let changed = text.replace(SILENCE, &format!("silence = \"{silence}\""));
        write(&path, &changed);
    }

    fn agent(&self, host: usize) -> String {
        let fleet = &self.hosts[host];
        let enter = self.mounts[host].as_ref().map(Mounts::enter);
        format!(
            "{}{} agent --stdio --fleet {} --state {}",
            enter.unwrap_or_default(),
            env!("CARGO_BIN_EXE_hello"),
            fleet.path("fleet.toml").display(),
            fleet.path("state").display(),
        )
    }

    /// Sets the lease of every host.
    pub(super) fn lease(&self, lease: &str) {
        for fleet in &self.hosts {
            let own = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
            let changed = own.replace("lease = \"1s\"", &format!("lease = \"{lease}\""));
            fleet.write("fleet.toml", &changed);
        }
    }

    /// Returns a command of the agent of a host, with another mode than `--stdio`.
    pub(super) fn agent_command(&self, host: usize, args: &[&str]) -> Command {
        let fleet = &self.hosts[host];
        let exe = env!("CARGO_BIN_EXE_hello");
        let mut agent = match &self.mounts[host] {
            Some(mounts) => mounts.command(&[exe]),
            None => Command::new(exe),
        };
        without_cargo(&mut agent)
            .arg("agent")
            .args(args)
            .arg("--fleet")
            .arg(fleet.path("fleet.toml"))
            .arg("--state")
            .arg(fleet.path("state"))
            .stdin(Stdio::null());
        agent
    }

    /// Kills every agent that a connection to a host has started.
    pub(super) fn kill_agents(&self, host: usize) {
        let pids = std::fs::read_to_string(self.path(&format!("h{host}.pids"))).unwrap();
        for pid in pids.lines() {
            let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    }

    /// Connects to a host by its agent itself.
    pub(super) fn connect_directly(&self, host: usize) {
        let pids = self.path(&format!("h{host}.pids"));
        let script = format!("echo $$ >> {}\nexec {}\n", pids.display(), self.agent(host));
        write(&self.path(&format!("h{host}.sh")), &script);
    }

    /// Connects to a host by a program that acts by these rules.
    pub(super) fn between(&self, host: usize, rules: &[Value]) {
        let dir = self.dir.path().display();
        let text = serde_json::to_string(rules).unwrap();
        write(&self.path(&format!("h{host}.rules")), &text);
        for name in OF_A_CONNECTION {
            let _ = std::fs::remove_file(self.path(&format!("h{host}.{name}")));
        }
        let agent = self.agent(host);
        let script = format!("exec python3 {dir}/between.py {dir} h{host} {agent}\n");
        write(&self.path(&format!("h{host}.sh")), &script);
    }

    /// Makes the link to a host work again.
    pub(super) fn mend(&self, host: usize) {
        let _ = std::fs::remove_file(self.path(&format!("h{host}.down")));
    }

    /// Returns the rules that were used on the connections to a host.
    pub(super) fn acts(&self, host: usize) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path(&format!("h{host}.acts")));
        let text = text.unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Restarts the servers of a host, as a reboot does: another boot id, other processes.
    pub(super) fn reboot(&mut self, host: usize) {
        let mounts = self.mounts[host].as_ref().unwrap();
        mounts.new_boot_id();
        let mut serve = mounts.serve(&self.hosts[host]);
        self.hosts[host].restart_by(0, &mut serve);
    }

    /// Returns the mount namespace of a host.
    pub(super) fn mounts(&self, host: usize) -> &Mounts {
        self.mounts[host].as_ref().unwrap()
    }

    /// Returns the state directory of a host, as this process sees it.
    pub(super) fn state(&self, host: usize) -> PathBuf {
        let state = self.hosts[host].path("state");
        match &self.mounts[host] {
            Some(mounts) => mounts.seen(&state),
            None => state,
        }
    }

    /// Returns the agents of a host that run: pid, and command line.
    pub(super) fn agents(&self, host: usize) -> Vec<(i32, String)> {
        let processes = processes_of(&self.hosts[host].path("state"));
        let is_agent = |line: &str| line.contains(" agent ") && !line.contains("between.py");
        processes
            .into_iter()
            .filter(|(_, _, line)| is_agent(line))
            .map(|(pid, _, line)| (pid, line))
            .collect()
    }

    /// Makes a host one that cannot be reached.
    pub(super) fn unreachable(&self, host: usize) {
        write(
            &self.path(&format!("h{host}.sh")),
            "echo gone >&2; exit 255\n",
        );
    }

    /// Returns a command of the coordinator.
    pub(super) fn command(&self, args: &[&str]) -> Command {
        self.command_of("state", args)
    }

    /// Returns a command of a coordinator with this state directory.
    pub(super) fn command_of(&self, state: &str, args: &[&str]) -> Command {
        let mut hello = Command::new(env!("CARGO_BIN_EXE_hello"));
        without_cargo(&mut hello)
            .args(args)
            .args(["-o", "json", "--fleet"])
            .arg(self.path("fleet.toml"))
            .arg("--state")
            .arg(self.path(state))
            .env("HOME", self.dir.path())
            .stdin(Stdio::null());
        hello
    }

    /// Returns a command on this machine with a state directory, and no other option.
    pub(super) fn plain(&self, state: &Path, args: &[&str]) -> Command {
        let mut hello = Command::new(env!("CARGO_BIN_EXE_hello"));
        without_cargo(&mut hello)
            .args(args)
            .arg("--state")
            .arg(state)
            .env("HOME", self.dir.path())
            .current_dir(self.dir.path().join("empty"))
            .stdin(Stdio::null());
        std::fs::create_dir_all(self.dir.path().join("empty")).unwrap();
        hello
    }

    /// Runs a command that prints text for the operator alone, and waits until no agent is left.
    pub(super) fn tell(&self, state: &str, args: &[&str]) -> CommandEnd {
        let end = run_to_end(&mut self.plain(&self.path(state), args));
        self.wait_for_agents();
        end
    }

    /// Returns the ids of the runs that a host keeps.
    pub(super) fn runs(&self, host: usize) -> Vec<String> {
        names(&self.state(host).join("runs"))
    }

    /// Returns the ids of the runs that this machine keeps.
    pub(super) fn runs_here(&self) -> Vec<String> {
        names(&self.path("state/runs"))
    }

    /// Gives each run a gate behind its first wave: it makes the file `waits`, and ends once the file
    /// `go` is there.
    pub(super) fn gate(&self, waits: &Path, go: &Path) {
        self.fleet(&gated(waits, go));
    }

    /// Begins a run by a coordinator with this state directory, and kills it at its first commit.
    /// The run stays open on its hosts.
    pub(super) fn killed(&self, state: &str, message: &str, args: &[&str]) -> String {
        let host = usize::from(args.contains(&"h1"));
        let kill = rule_after("kill", ">", r#""verb":"commit""#);
        self.between(host, std::slice::from_ref(&kill));
        let set = format!("message={message}");
        let args = [&["broadcast", "--set", &set], args].concat();
        let end = run_to_end(&mut self.command_of(state, &args));
        assert_eq!(end.code, None, "{:#} {}", end.json, end.stderr);
        self.wait_for_agents();
        self.connect_directly(host);
        self.open_runs(host).pop().unwrap()
    }

    /// Runs a command to its end, and waits until no agent is left.
    pub(super) fn run(&self, args: &[&str]) -> CommandEnd {
        let end = run_to_end(&mut self.command(args));
        self.wait_for_agents();
        end
    }

    /// Runs a command that asks no host.
    pub(super) fn run_here(&self, args: &[&str]) -> CommandEnd {
        let args = [args, &["-o", "json"]].concat();
        run_to_end(&mut self.plain(&self.path("state"), &args))
    }

    pub(super) fn broadcast(&self, message: &str, args: &[&str]) -> CommandEnd {
        let set = format!("message={message}");
        self.run(&[&["broadcast", "--set", &set], args].concat())
    }

    /// Waits until every agent that was ever started has ended by itself.
    pub(super) fn wait_for_agents(&self) {
        for host in 0..self.hosts.len() {
            let pids = std::fs::read_to_string(self.path(&format!("h{host}.pids")));
            for pid in pids.unwrap_or_default().lines() {
                let line = || std::fs::read_to_string(format!("/proc/{pid}/stat"));
                let has_ended = || line().map_or(true, |stat| stat.contains(") Z "));
                until(&format!("agent {pid} of h{host} has ended"), has_ended);
            }
            let what = format!("no agent of h{host} runs");
            until(&what, || self.agents(host).is_empty());
        }
    }

    /// Returns what each server of a host serves.
    pub(super) fn served(&self, host: usize) -> Vec<String> {
        let fleet = &self.hosts[host];
        let body = |n| try_get(fleet.url(n), "/").map_or_else(|e| e.to_string(), |(_, body)| body);
        (0..fleet.len()).map(body).collect()
    }

    /// Returns true if every server of every host serves this.
    pub(super) fn all_serve(&self, message: &str) -> bool {
        (0..self.hosts.len()).all(|host| self.serves(host, message))
    }

    pub(super) fn serves(&self, host: usize, message: &str) -> bool {
        self.served(host)
            .iter()
            .all(|body| body.trim_end() == message)
    }

    /// Returns the files of a host outside its state, with their bytes.
    fn files_of(&self, host: usize) -> BTreeMap<PathBuf, Vec<u8>> {
        let dir = self.hosts[host].dir.path();
        let exe = self.hosts[host].exe();
        std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file() && path != exe)
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect()
    }

    /// Checks that a host is as it was at the start: nothing staged, no open run.
    pub(super) fn assert_untouched(&self, host: usize) {
        assert_eq!(self.files_of(host), self.files[host], "h{host}");
        assert_eq!(
            self.hosts[host].attempts().iter().max(),
            Some(&AT_START),
            "h{host}"
        );
        assert!(self.open_runs(host).is_empty(), "h{host}: a run is open");
    }

    /// Checks that a host has no file but those of its start.
    pub(super) fn assert_nothing_staged(&self, host: usize) {
        let names = |files: &BTreeMap<PathBuf, Vec<u8>>| -> Vec<PathBuf> {
            files.keys().cloned().collect()
        };
        assert_eq!(
            names(&self.files_of(host)),
            names(&self.files[host]),
            "h{host}"
        );
    }

    /// Checks that a run has ended on a host: nothing staged, no open run.
    pub(super) fn assert_clean(&self, host: usize) {
        self.assert_nothing_staged(host);
        assert!(self.open_runs(host).is_empty(), "h{host}: a run is open");
    }

    /// Returns the marks of the runs that are open on a host.
    pub(super) fn open_runs(&self, host: usize) -> Vec<String> {
        open_marks(&self.state(host))
    }

    /// Returns the marks of the coordinator's open runs.
    pub(super) fn open_here(&self) -> Vec<String> {
        names(&self.path("state/open"))
    }

    /// Returns what crossed the wire of a host, each line behind its way.
    pub(super) fn wire(&self, host: usize) -> String {
        std::fs::read_to_string(self.path(&format!("h{host}.wire"))).unwrap_or_default()
    }

    /// Returns the verdict of the last run in a host's journal.
    pub(super) fn last_verdict(&self, host: usize) -> String {
        let runs = self.state(host).join("runs");
        let run = names(&runs).pop().unwrap_or_default();
        let text = std::fs::read_to_string(runs.join(run).join("events.jsonl"));
        let text = text.unwrap_or_default();
        let last = text.lines().last().unwrap_or("{}");
        let last: Value = serde_json::from_str(last).unwrap();
        last["verdict"].as_str().unwrap_or("open").to_owned()
    }
}

/// Checks the exit code of a command.
#[track_caller]
pub(super) fn expect(end: &CommandEnd, code: i32) {
    assert_eq!(end.code, Some(code), "{:#} {}", end.json, end.stderr);
}

/// Returns the rollout of a gate behind the first wave: it makes the file `waits`, and ends once
/// the file `go` is there.
pub(super) fn gated(waits: &Path, go: &Path) -> String {
    let script = format!(
        "touch {}; while [ ! -e {} ]; do sleep 0.05; done",
        waits.display(),
        go.display()
    );
    format!(
        "[rollout]\nwaves = [\"1\", \"100%\"]\nbake = \"0s\"\n\
         gate = [\"sh\", \"-c\", \"{script}\"]\n"
    )
}

/// Returns the marks of open runs in a state directory. A run that has recorded its end has its
/// mark until its proofs are kept, and one that ended mixed is open.
pub(super) fn open_marks(state: &Path) -> Vec<String> {
    let has_ended = |run: &String| {
        let journal = state.join("runs").join(run).join("events.jsonl");
        let text = std::fs::read_to_string(journal).unwrap_or_default();
        let mut lines = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let ends = |line: &Value| {
            line["event"] == "superseded_by"
                || line["event"] == "finished" && line["verdict"] != "mixed"
        };
        lines.next_back().is_some_and(|line| ends(&line))
    };
    let mut marks = names(&state.join("open"));
    marks.retain(|run| !has_ended(run));
    marks
}

pub(super) fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

/// Returns the outcomes of one host in a report.
pub(super) fn outcomes(json: &Value, host: &str) -> Vec<String> {
    let rows = json["instances"].as_array().cloned().unwrap_or_default();
    rows.iter()
        .filter(|row| row["host"] == host)
        .map(|row| row["outcome"].as_str().unwrap().to_owned())
        .collect()
}
