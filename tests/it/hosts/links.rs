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

const NAMES: [&str; 3] = ["a", "b", "c"];

/// The host whose link goes down. Its wave is the last one.
const FAR: usize = 2;

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

struct Host {
    keeper: Keeper,
    server: Server,
    _sshd: Killed,
}

/// A coordinator and three hosts.
struct Lab {
    testbed: Testbed,
    coordinator: Keeper,
    hosts: Vec<Host>,
}

fn address(host: usize) -> String {
    format!("10.77.{host}.2")
}

impl Lab {
    fn start() -> Option<Self> {
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

    fn run(&self, args: &[&str]) -> CommandEnd {
        crate::support::run_to_end(&mut self.command(args))
    }

    fn link(&self, state: &str) {
        self.coordinator.ip(&format!("link set veth{FAR} {state}"));
    }

    /// Returns what each server serves.
    fn messages(&self) -> Vec<String> {
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

    /// Returns the events in the newest journal of the far host.
    fn events(&self) -> Vec<Value> {
        let runs = self.testbed.path(&format!("state-{}/runs", NAMES[FAR]));
        let run = names(&runs).pop().unwrap_or_default();
        let text = std::fs::read_to_string(runs.join(run).join("events.jsonl"));
        let text = text.unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    fn has(&self, event: &str) -> bool {
        self.events().iter().any(|line| line["event"] == event)
    }

    fn wait_for_agents(&self) {
        let state = self.testbed.path(&format!("state-{}", NAMES[FAR]));
        until("no agent of the far host runs", || {
            let mut processes = processes_of(&state).into_iter();
            !processes.any(|(_, _, line)| line.contains(" agent "))
        });
    }

    /// Starts a run, and takes the link down once the far host has begun its commit. The server
    /// there takes its signal afterwards.
    fn lose_the_link_in_a_commit(&self, args: &[&str]) -> Child {
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
    fn message(&self) -> String {
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
    let mut serve = keeper.inside(env!("CARGO_BIN_EXE_hello"));
    serve
        .args(["serve", "--config", &path])
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

fn expect(end: &CommandEnd, code: i32) {
    assert_eq!(end.code, Some(code), "{:#} {}", end.json, end.stderr);
}

fn end_of(run: Child) -> CommandEnd {
    let output = run.wait_with_output().unwrap();
    CommandEnd {
        code: output.status.code(),
        json: serde_json::from_slice(&output.stdout).unwrap_or_default(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn a_run_reaches_hosts_behind_links() {
    let Some(lab) = Lab::start() else { return };
    expect(&lab.run(&["broadcast", "--set", "message=new"]), 0);
    assert_eq!(lab.messages(), ["new"; 3]);
}

#[test]
fn a_host_whose_link_stays_down_is_named_and_a_resume_finishes_it_when_the_link_is_back() {
    let Some(lab) = Lab::start() else { return };
    let run = lab.lose_the_link_in_a_commit(&[]);
    let end = end_of(run);
    expect(&end, 7);
    let names = end.json["hosts"][0]["name"].as_str();
    assert_eq!(names, Some(NAMES[FAR]), "{:#}", end.json);
    // The host has finished its commit without the coordinator.
    until("the far server has the new config", || {
        lab.hosts[FAR].message() == "new"
    });
    lab.link("up");
    lab.wait_for_agents();
    expect(&lab.run(&["resume"]), 0);
    assert_eq!(lab.messages(), ["new"; 3]);
}
