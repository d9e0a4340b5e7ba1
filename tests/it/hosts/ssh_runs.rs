//! Runs over hosts behind a real sshd: one on several loopback addresses, an agent on each.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader},
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::ssh::Sshd;
use crate::{
    daemons::need,
    support::{CommandEnd, get, until, write},
};

/// The names of the hosts. The addresses are 127.0.0.2 and on.
const NAMES: [&str; 3] = ["a", "b", "c"];

/// A server of a host. It ends with the test.
struct Server {
    process: Child,
    url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Three hosts behind one sshd, with a server and an agent each.
struct Hosts {
    sshd: Sshd,
    servers: Vec<Server>,
}

fn address(index: usize) -> String {
    format!("127.0.0.{}", index + 2)
}

impl Hosts {
    /// Starts the hosts; `more` are further lines of the config of sshd.
    fn start(more: &str) -> Option<Self> {
        let mut lines = format!("{more}ListenAddress 127.0.0.1\n");
        for index in 0..NAMES.len() {
            writeln!(lines, "ListenAddress {}", address(index)).unwrap();
        }
        let sshd = Sshd::start_with(&lines)?;
        let servers = NAMES.iter().map(|name| server(&sshd, name)).collect();
        let hosts = Self { sshd, servers };
        hosts.know(NAMES.len());
        hosts.fleet(None);
        Some(hosts)
    }

    /// Makes the key of the first hosts known, and of no other.
    fn know(&self, many: usize) {
        let key = std::fs::read_to_string(self.sshd.testbed.path("hostkey.pub")).unwrap();
        let mut known = String::new();
        for index in 0..many {
            write!(known, "[{}]:{} {key}", address(index), self.sshd.port).unwrap();
        }
        write(&self.sshd.testbed.path("known_hosts"), &known);
    }

    /// Makes another key than that of the last host the one that is known of it.
    fn know_another_of_the_last(&self) {
        self.know(NAMES.len() - 1);
        let path = self.sshd.testbed.path("known_hosts");
        let known = std::fs::read_to_string(&path).unwrap();
        let key = std::fs::read_to_string(self.sshd.testbed.path("otherkey.pub")).unwrap();
        let last = address(NAMES.len() - 1);
        write(&path, &format!("{known}[{last}]:{} {key}", self.sshd.port));
    }

    /// Writes the fleet. The last host has another command, if there is one.
    fn fleet(&self, other: Option<&str>) {
        let testbed = &self.sshd.testbed;
        let dir = testbed.dir.path().display();
        let agent = format!(
            "{} agent --stdio --fleet {dir}/{{name}}.toml --state {dir}/state-{{name}}",
            env!("CARGO_BIN_EXE_hello")
        );
        let list = NAMES.iter().enumerate().map(|(index, name)| {
            format!("{{ name = \"{name}\", address = \"{}\" }}", address(index))
        });
        let list: Vec<_> = list.collect();
        let mut text = format!(
            "list = [{}]\nconnect = {}",
            list.join(", "),
            self.sshd.connect("root", &agent)
        );
        if let Some(remote) = other {
            let connect = self.sshd.connect("root", &remote.replace("AGENT", &agent));
            write!(text, "\n[[hosts.via]]\non = \"c\"\nconnect = {connect}").unwrap();
        }
        testbed.fleet(&text);
    }

    fn broadcast(&self, args: &[&str]) -> CommandEnd {
        let state = self.sshd.testbed.text_path("state");
        let words = ["broadcast", "-o", "json", "--state", &state];
        let change = ["--set", "message=new"];
        self.sshd.testbed.run(&[&words, &change[..], args].concat())
    }

    fn messages(&self) -> Vec<String> {
        let servers = self.servers.iter();
        servers.map(|server| get(&server.url, "/").1).collect()
    }

    /// Asserts that the run ends with 11 because of the last host, and touches nothing.
    #[track_caller]
    fn is_unreachable(&self, why: &str) {
        let end = self.broadcast(&[]);
        assert_eq!(end.code, Some(11), "{}", end.stderr);
        let reason = end.json["reason"].as_str().unwrap_or_default();
        assert!(reason.starts_with("c: "), "{reason}");
        assert!(reason.contains(why), "{reason}");
        assert_eq!(self.messages(), ["old"; 3]);
        for name in NAMES {
            assert_eq!(self.config(name), config(), "{name}");
        }
        // The other hosts can take the change, and this one is named again.
        let end = self.broadcast(&["--max-unreachable", "1"]);
        assert_eq!(end.code, Some(8), "{}", end.stderr);
        assert_eq!(self.messages(), ["new", "new", "old"]);
    }

    fn config(&self, name: &str) -> String {
        let path = self.sshd.testbed.path(&format!("{name}/web.toml"));
        std::fs::read_to_string(path).unwrap()
    }
}

fn config() -> &'static str {
    "message = \"old\"\nlisten = \"127.0.0.1:0\"\n"
}

/// Starts the server of a host, and writes the file of its agent.
fn server(sshd: &Sshd, name: &str) -> Server {
    // A folder for each: two runs that replace files in one folder exclude each other.
    std::fs::create_dir(sshd.testbed.path(name)).unwrap();
    let path = sshd.testbed.text_path(&format!("{name}/web.toml"));
    write(path.as_ref(), config());
    write(
        &sshd.testbed.path(&format!("{name}.toml")),
        &format!(
            "version = 1\n[agent]\nname = \"{name}\"\n[[group]]\nname = \"web\"\nkind = \"hello\"\n\
             count = 1\nmatch = {{ exe = \"*\", args = [\"serve\", \"{path}\"] }}\n"
        ),
    );
    let mut process = Command::new(env!("CARGO_BIN_EXE_hello"))
        .args(["serve", "--config", &path])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut url = String::new();
    let output = process.stdout.take().unwrap();
    BufReader::new(output).read_line(&mut url).unwrap();
    let url = url.trim_end().to_owned();
    Server { process, url }
}

#[test]
fn a_broadcast_over_ssh_reaches_every_host() {
    let Some(hosts) = Hosts::start("") else {
        return;
    };
    let end = hosts.broadcast(&[]);
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    assert_eq!(hosts.messages(), ["new"; 3]);
    assert_eq!(end.json["counts"]["confirmed"], 3);
}

#[test]
fn a_revert_over_ssh_restores_every_host() {
    let Some(hosts) = Hosts::start("") else {
        return;
    };
    assert_eq!(hosts.broadcast(&[]).code, Some(0));
    let state = hosts.sshd.testbed.text_path("state");
    let end = hosts
        .sshd
        .testbed
        .run(&["revert", "@", "-o", "json", "--state", &state]);
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    assert_eq!(hosts.messages(), ["old"; 3]);
}

#[test]
fn an_instance_that_hangs_behind_ssh_rolls_every_host_back() {
    let Some(hosts) = Hosts::start("") else {
        return;
    };
    let last = &hosts.servers[2].process;
    let pid = last.id();
    // It is stopped by its validator, and continued by the first word of the rollback.
    let own = hosts.sshd.testbed.path("c.toml");
    let text = std::fs::read_to_string(&own).unwrap();
    let validator = hosts.sshd.testbed.path("validator");
    let script = format!("#!/bin/sh\nkill -STOP {pid}\n");
    write(&validator, &script);
    std::fs::set_permissions(
        &validator,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let path = validator.display();
    write(
        &own,
        &format!("{text}timeout = \"2s\"\nvalidate = [\"{path}\", \"{{candidate}}\"]\n"),
    );
    let state = hosts.sshd.testbed.text_path("state");
    let mut run = hosts
        .sshd
        .testbed
        .command(&[
            "broadcast",
            "-o",
            "jsonl",
            "--state",
            &state,
            "--set",
            "message=new",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for line in BufReader::new(run.stdout.take().unwrap()).lines() {
        if line.unwrap().contains("\"event\":\"rollback_began\"") {
            kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGCONT).unwrap();
        }
    }
    assert_eq!(run.wait().unwrap().code(), Some(6));
    assert_eq!(hosts.messages(), ["old"; 3]);
}

#[test]
fn a_run_with_an_unknown_host_key_touches_nothing() {
    let Some(hosts) = Hosts::start("") else {
        return;
    };
    hosts.know(NAMES.len() - 1);
    hosts.is_unreachable("Host key verification failed");
}

#[test]
fn a_run_with_a_changed_host_key_touches_nothing() {
    let Some(hosts) = Hosts::start("") else {
        return;
    };
    hosts.know_another_of_the_last();
    hosts.is_unreachable("Host key verification failed");
}

#[test]
fn a_run_with_an_agent_of_another_version_is_refused_and_names_both_versions() {
    let Some(hosts) = Hosts::start("") else {
        return;
    };
    // The agent greets with the dialect and the version of another hello.
    let script = hosts.sshd.testbed.text_path("other_version");
    write(
        script.as_ref(),
        "\"$@\" | sed -u '/^{\"hello\":/s/\"v\":[0-9]*,\"min\":[0-9]*,\"version\":\"[^\"]*\"/\
         \"v\":9,\"min\":9,\"version\":\"99.1.2\"/'\n",
    );
    hosts.fleet(Some(&format!("sh {script} AGENT")));
    let end = hosts.broadcast(&["--max-unreachable", "1"]);
    assert_eq!(end.code, Some(5), "{}", end.stderr);
    let reason = end.json["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("c: "), "{reason}");
    for version in ["99.1.2", env!("CARGO_PKG_VERSION")] {
        assert!(reason.contains(version), "{version}: {reason}");
    }
    assert_eq!(hosts.messages(), ["old"; 3]);
    for name in NAMES {
        assert_eq!(hosts.config(name), config(), "{name}");
    }
    // Without that host the others take the change.
    let end = hosts.broadcast(&["--except", "c"]);
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    assert_eq!(hosts.messages(), ["new", "new", "old"]);
}

#[test]
fn a_run_with_a_host_without_hello_touches_nothing() {
    let Some(hosts) = Hosts::start("") else {
        return;
    };
    hosts.fleet(Some("/no/such/hello agent --stdio"));
    hosts.is_unreachable("/no/such/hello");
}

#[test]
fn a_run_with_a_host_without_a_sudo_rule_touches_nothing() {
    let Some(hosts) = Hosts::start("") else {
        return;
    };
    if !need("sudo") {
        return;
    }
    // Root may become `nobody`, and `nobody` has no rule.
    hosts.fleet(Some(
        "setpriv --reuid=65534 --regid=65534 --clear-groups sudo -n AGENT",
    ));
    hosts.is_unreachable("a password is required");
}

#[test]
fn a_run_reaches_hosts_whose_sshd_drops_connections_at_first() {
    // Three idle connections take all places, so that each host is dropped.
    let Some(hosts) = Hosts::start("MaxStartups 3:100:3\nLoginGraceTime 60\nLogLevel VERBOSE\n")
    else {
        return;
    };
    let log = hosts.sshd.testbed.path("sshd.log");
    let dropped = || {
        let text = std::fs::read_to_string(&log).unwrap();
        text.matches("drop connection").count()
    };
    let port = hosts.sshd.port;
    let mut idle = Vec::new();
    until("every place of sshd is taken", || {
        let before = dropped();
        idle.push(TcpStream::connect(("127.0.0.1", port)).unwrap());
        std::thread::sleep(std::time::Duration::from_millis(20));
        dropped() > before
    });
    let before = dropped();
    let end = std::thread::scope(|scope| {
        let run = scope.spawn(|| hosts.broadcast(&[]));
        until("each host was dropped once", || {
            dropped() >= before + NAMES.len()
        });
        idle.clear();
        run.join().unwrap()
    });
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    assert_eq!(hosts.messages(), ["new"; 3]);
}
