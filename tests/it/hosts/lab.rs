//! Hosts in namespaces of their own, each behind a real sshd and a link that can be taken down.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::{Testbed, bed::names, faults::has_namespaces, ssh::keygen};
use crate::{
    daemons::need,
    support::{CommandEnd, Killed, until, without_cargo, write},
    world::processes_of,
};

pub(super) const NAMES: [&str; 3] = ["a", "b", "c"];

/// The host whose link goes down. Its wave is the last one.
pub(super) const FAR: usize = 2;

const OLD: &str = "message = \"old\"\nlisten = \"127.0.0.1:0\"\n";

/// The programs that a lab needs.
const PROGRAMS: [&str; 7] = [
    "sshd",
    "ssh",
    "ssh-keygen",
    "ip",
    "unshare",
    "nsenter",
    "curl",
];

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A process that keeps a network and a mount namespace.
struct Keeper(Killed);

impl Keeper {
    fn start() -> Self {
        let script = "ip link set lo up && echo ready && exec cat";
        let mut unshare = Command::new("unshare");
        unshare
            .args(["--net", "--mount", "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = Killed(unshare.spawn().unwrap());
        let mut line = String::new();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "no network namespace is to be had");
        Self(process)
    }

    /// Returns a command that runs in the namespaces.
    fn inside(&self, program: impl AsRef<Path>) -> Command {
        let pid = self.0.id();
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/proc/{pid}/ns/net"))
            .arg(format!("--mount=/proc/{pid}/ns/mnt"))
            .arg(program.as_ref());
        command
    }

    /// Returns a `hello` that runs in the namespaces, on a clock that began with a boot.
    fn since_boot(&self, boot: u64) -> Command {
        let mut unshare = self.inside("unshare");
        unshare
            .args(["--time", "--boottime", &format!("-{boot}")])
            .arg(env!("CARGO_BIN_EXE_hello"));
        unshare
    }

    fn ip(&self, words: &str) {
        let mut ip = self.inside("ip");
        let status = ip.args(words.split(' ')).status().unwrap();
        assert!(status.success(), "ip {words}");
    }
}

/// A server of a host. It ends with the test.
struct Server {
    process: Killed,
    url: String,
}

pub(super) struct Host {
    keeper: Keeper,
    server: Server,
    _sshd: Killed,
}

/// A coordinator and three hosts.
pub(super) struct Lab {
    testbed: Testbed,
    coordinator: Keeper,
    pub(super) hosts: Vec<Host>,
}

fn address(host: usize) -> String {
    format!("10.77.{host}.2")
}

impl Lab {
    pub(super) fn start() -> Option<Self> {
        if !PROGRAMS.iter().all(|name| need(name)) || !has_namespaces(&["--net", "--mount"]) {
            return None;
        }
        let testbed = Testbed::new("");
        for name in ["hostkey", "key"] {
            keygen(&testbed, name);
        }
        std::fs::create_dir_all("/run/sshd").unwrap();
        let coordinator = Keeper::start();
        let hosts = (0..NAMES.len())
            .map(|host| Host::start(&testbed, &coordinator, host))
            .collect();
        let lab = Self {
            testbed,
            coordinator,
            hosts,
        };
        lab.fleet();
        Some(lab)
    }

    /// Writes the known hosts and the fleet of the coordinator.
    fn fleet(&self) {
        let key = std::fs::read_to_string(self.testbed.path("hostkey.pub")).unwrap();
        let mut known = String::new();
        let mut list = String::new();
        for (host, name) in NAMES.iter().enumerate() {
            let address = address(host);
            write!(known, "{address} {key}").unwrap();
            write!(list, "{{ name = \"{name}\", address = \"{address}\" }}, ").unwrap();
        }
        write(&self.testbed.path("known_hosts"), &known);
        let dir = self.testbed.dir.path().display();
        let connect = format!(
            "ssh -T -F/dev/null -i{dir}/key -oBatchMode=yes -oConnectTimeout=2 \
             -oIdentitiesOnly=yes -oUserKnownHostsFile={dir}/known_hosts -oUser=root -- {{address}} \
             {} agent --stdio --fleet {dir}/{{name}}.toml --state {dir}/state-{{name}}",
            env!("CARGO_BIN_EXE_hello")
        );
        let words: Vec<&str> = connect.split_whitespace().collect();
        self.testbed.fleet(&format!(
            "list = [{list}]\nsilence = \"5s\"\nconnect = {}\n\
             [rollout]\nwaves = [\"2\", \"100%\"]\nbake = \"0s\"",
            serde_json::to_string(&words).unwrap()
        ));
    }

    /// Returns a command of the coordinator.
    fn command(&self, args: &[&str]) -> Command {
        let mut hello = self.coordinator.inside(env!("CARGO_BIN_EXE_hello"));
        without_cargo(&mut hello)
            .args(args)
            .args(["-o", "json", "--fleet"])
            .arg(self.testbed.path("fleet.toml"))
            .arg("--state")
            .arg(self.testbed.path("state"))
            .env("HOME", self.testbed.dir.path())
            .stdin(Stdio::null());
        hello
    }

    pub(super) fn run(&self, args: &[&str]) -> CommandEnd {
        crate::support::run_to_end(&mut self.command(args))
    }

    pub(super) fn link(&self, state: &str) {
        self.coordinator.ip(&format!("link set veth{FAR} {state}"));
    }

    /// Sets the lease of every host.
    pub(super) fn lease(&self, lease: &str) {
        for name in NAMES {
            let path = self.testbed.path(&format!("{name}.toml"));
            let text = std::fs::read_to_string(&path).unwrap();
            let changed = text.replace("[agent]\n", &format!("[agent]\nlease = \"{lease}\"\n"));
            write(&path, &changed);
        }
    }

    /// Returns what each server serves.
    pub(super) fn messages(&self) -> Vec<String> {
        self.hosts.iter().map(Host::message).collect()
    }

    /// Stops the far server once its host has validated, so that its commit lasts.
    fn slow_commit(&self) {
        let validator = self.testbed.path("validator");
        let pid = self.hosts[FAR].server.process.id();
        write(&validator, &format!("#!/bin/sh\nkill -STOP {pid}\n"));
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&validator, mode).unwrap();
        let own = self.testbed.path(&format!("{}.toml", NAMES[FAR]));
        let text = std::fs::read_to_string(&own).unwrap();
        write(
            &own,
            &format!(
                "{text}timeout = \"20s\"\nvalidate = [\"{}\", \"{{candidate}}\"]\n",
                validator.display()
            ),
        );
    }

    /// Continues the far server, for good.
    fn go_on(&self) {
        let validator = self.testbed.path("validator");
        std::fs::write(validator, "#!/bin/sh\n").unwrap();
        let pid = i32::try_from(self.hosts[FAR].server.process.id()).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGCONT).unwrap();
    }

    /// Returns the events in the first journal of the far host.
    pub(super) fn events(&self) -> Vec<Value> {
        self.events_in(&format!("state-{}", NAMES[FAR]))
    }

    /// Returns the events in the first journal of a state directory.
    fn events_in(&self, state: &str) -> Vec<Value> {
        let runs = self.testbed.path(state).join("runs");
        let run = names(&runs).into_iter().next().unwrap_or_default();
        let text = std::fs::read_to_string(runs.join(run).join("events.jsonl"));
        let text = text.unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    pub(super) fn has(&self, event: &str) -> bool {
        self.events().iter().any(|line| line["event"] == event)
    }

    /// Waits until the coordinator hears nothing of the far host.
    pub(super) fn wait_for_silence(&self) {
        until("the far host is silent", || {
            let events = self.events_in("state");
            let is_silent = |event: &Value| event["event"] == "host" && event["state"] == "silent";
            events.iter().any(is_silent)
        });
    }

    /// Returns the pids of the agents of the far host.
    fn agents(&self) -> Vec<Pid> {
        let state = self.testbed.path(&format!("state-{}", NAMES[FAR]));
        let processes = processes_of(&state).into_iter();
        // The ssh of the coordinator has the same words behind others.
        let agent = format!("{} agent ", env!("CARGO_BIN_EXE_hello"));
        let agents = processes.filter(|(_, _, line)| line.starts_with(&agent));
        agents.map(|(pid, _, _)| Pid::from_raw(pid)).collect()
    }

    pub(super) fn wait_for_agents(&self) {
        until("no agent of the far host runs", || self.agents().is_empty());
    }

    /// Resets the far host: its processes end, it has another boot id, and its server starts again.
    /// Returns the time of the boot, in seconds on the clock of this machine.
    pub(super) fn reboot(&mut self) -> u64 {
        for agent in self.agents() {
            let _ = kill(agent, Signal::SIGKILL);
        }
        self.wait_for_agents();
        let boot_id = self.testbed.path("boot_id");
        write(&boot_id, "00000000-0000-4000-8000-000000000001\n");
        let far = &mut self.hosts[FAR];
        let mut mount = far.keeper.inside("mount");
        let status = mount.arg("--bind").arg(&boot_id).arg(BOOT_ID).status();
        assert!(status.unwrap().success(), "the boot id cannot be replaced");
        let text = std::fs::read_to_string("/proc/uptime").unwrap();
        let seconds = text.split('.').next().unwrap();
        let boot = seconds.parse().unwrap();
        let serve = far.keeper.since_boot(boot);
        far.server = server_by(serve, &self.testbed, NAMES[FAR]);
        boot
    }

    /// Runs what a unit starts at boot on the far host, on a clock that began with the boot.
    pub(super) fn resume_armed(&self, boot: u64) -> CommandEnd {
        let mut agent = self.hosts[FAR].keeper.since_boot(boot);
        let name = NAMES[FAR];
        agent
            .args(["agent", "--resume-armed", "--fleet"])
            .arg(self.testbed.path(&format!("{name}.toml")))
            .arg("--state")
            .arg(self.testbed.path(&format!("state-{name}")))
            .stdin(Stdio::null());
        crate::support::run_to_end(&mut agent)
    }

    /// Starts a run, and takes the link down once the far host has begun its commit. The server
    /// there takes its signal afterwards.
    pub(super) fn lose_the_link_in_a_commit(&self, args: &[&str]) -> Child {
        self.slow_commit();
        let args = [&["broadcast", "--set", "message=new"], args].concat();
        let run = self
            .command(&args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        until("the far host has installed", || self.has("installed"));
        self.link("down");
        self.go_on();
        run
    }
}

impl Host {
    fn start(testbed: &Testbed, coordinator: &Keeper, host: usize) -> Self {
        let keeper = Keeper::start();
        let pid = keeper.0.id();
        coordinator.ip(&format!(
            "link add veth{host} type veth peer name eth0 netns {pid}"
        ));
        coordinator.ip(&format!("address add 10.77.{host}.1/24 dev veth{host}"));
        coordinator.ip(&format!("link set veth{host} up"));
        keeper.ip(&format!("address add {}/24 dev eth0", address(host)));
        keeper.ip("link set eth0 up");
        let server = server(testbed, &keeper, NAMES[host]);
        let sshd = sshd(testbed, &keeper, host);
        Self {
            keeper,
            server,
            _sshd: sshd,
        }
    }

    /// Asks the server, in its network.
    pub(super) fn message(&self) -> String {
        let mut curl = self.keeper.inside("curl");
        let curl = curl.args(["-s", "-m", "20", &self.server.url]);
        let output = curl.output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

fn server(testbed: &Testbed, keeper: &Keeper, name: &str) -> Server {
    std::fs::create_dir(testbed.path(name)).unwrap();
    let path = testbed.text_path(&format!("{name}/web.toml"));
    write(path.as_ref(), OLD);
    write(
        &testbed.path(&format!("{name}.toml")),
        &format!(
            "version = 1\n[agent]\nname = \"{name}\"\n[[group]]\nname = \"web\"\nkind = \"hello\"\n\
             count = 1\nmatch = {{ exe = \"*\", args = [\"serve\", \"{path}\"] }}\n"
        ),
    );
    let serve = keeper.inside(env!("CARGO_BIN_EXE_hello"));
    server_by(serve, testbed, name)
}

/// Starts the server of a host by a command that lacks its arguments.
fn server_by(mut serve: Command, testbed: &Testbed, name: &str) -> Server {
    let path = testbed.path(&format!("{name}/web.toml"));
    serve
        .args(["serve", "--config"])
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut process = Killed(serve.spawn().unwrap());
    let mut url = String::new();
    let output = process.stdout.take().unwrap();
    BufReader::new(output).read_line(&mut url).unwrap();
    let url = url.trim_end().to_owned();
    Server { process, url }
}

fn sshd(testbed: &Testbed, keeper: &Keeper, host: usize) -> Killed {
    let dir = testbed.dir.path().display();
    let config = testbed.path(&format!("sshd{host}"));
    write(
        &config,
        &format!(
            "Port 22\nListenAddress {}\nHostKey {dir}/hostkey\nPidFile none\n\
             AuthorizedKeysFile {dir}/key.pub\nStrictModes no\nPermitRootLogin yes\n\
             UsePAM no\nPasswordAuthentication no\n",
            address(host)
        ),
    );
    let log = testbed.path(&format!("sshd{host}.log"));
    let sshd = ["/usr/sbin/sshd", "/usr/local/sbin/sshd"];
    let program = sshd.iter().find(|path| Path::new(path).exists()).unwrap();
    let mut server = keeper.inside(program);
    server
        .args(["-D", "-e", "-f"])
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap());
    let server = Killed(server.spawn().unwrap());
    until("sshd listens", || {
        std::fs::read_to_string(&log)
            .unwrap()
            .contains("Server listening")
    });
    server
}
