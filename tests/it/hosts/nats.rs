//! Hosts that are reached over a real nats-server.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use nix::sys::signal::{Signal, kill};

use super::bed::{Bed, expect, gated, outcomes, rule};
use crate::{
    daemons::{command, free_port, need},
    support::{CommandEnd, Killed, run_to_end, until, write},
};

/// Hosts whose agents listen on a server.
struct Net {
    bed: Bed,
    port: u16,
    server: Option<Killed>,
    agents: Vec<Option<Killed>>,
}

impl Net {
    /// Starts a server, and hosts with this many servers of `hello` each.
    fn start(servers: &[usize]) -> Option<Self> {
        if !need("nats-server") {
            return None;
        }
        let bed = Bed::start(servers);
        let mut net = Self {
            agents: servers.iter().map(|_| None).collect(),
            port: free_port(),
            server: None,
            bed,
        };
        net.serve();
        net.fleet("");
        for host in 0..servers.len() {
            net.listen(host);
        }
        Some(net)
    }

    fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Starts the server.
    fn serve(&mut self) {
        let server = command("nats-server")
            .args(["-a", "127.0.0.1", "-p", &self.port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.server = Some(Killed(server));
        let is_there = || std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok();
        until("nats-server listens", is_there);
    }

    /// Writes the coordinator's fleet file, with further lines behind `[hosts]`.
    fn fleet(&self, more: &str) {
        let last = self.bed.hosts.len() - 1;
        let text = format!(
            "version = 1\n[hosts]\nlist = [\"h[0-{last}]\"]\nsilence = \"2s\"\n\
             nats = \"{}\"\n{more}",
            self.url()
        );
        write(&self.bed.path("fleet.toml"), &text);
    }

    fn log(&self, host: usize) -> String {
        std::fs::read_to_string(self.bed.path(&format!("h{host}.log"))).unwrap_or_default()
    }

    /// Starts the agent of a host, and waits until it listens.
    fn listen(&mut self, host: usize) {
        let log = std::fs::File::create(self.bed.path(&format!("h{host}.log"))).unwrap();
        let mut agent: Command = self.bed.agent_command(host, &["--nats", &self.url()]);
        let agent = agent.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.agents[host] = Some(Killed(agent));
        until("the agent listens", || self.log(host).contains("Listening"));
    }

    fn signal(&self, host: usize, signal: Signal) {
        let agent = self.agents[host].as_ref().unwrap();
        let pid = i32::try_from(agent.0.id()).unwrap();
        kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
    }

    fn run(&self, args: &[&str]) -> CommandEnd {
        let end = run_to_end(&mut self.bed.command(args));
        self.wait_for_talks();
        end
    }

    /// Waits until no conversation of a host goes on.
    fn wait_for_talks(&self) {
        for host in 0..self.bed.hosts.len() {
            let is_talk = |(_, line): &(i32, String)| line.contains("--stdio");
            until("no conversation goes on", || {
                !self.bed.agents(host).iter().any(is_talk)
            });
        }
    }

    fn broadcast(&self, message: &str, args: &[&str]) -> CommandEnd {
        let set = format!("message={message}");
        self.run(&[&["broadcast", "--set", &set], args].concat())
    }

    /// Begins a broadcast, and waits until it stands in the gate behind its first wave. Returns it,
    /// and the file that lets it go on.
    fn broadcast_to_gate(&self) -> (Child, PathBuf) {
        let (waits, go) = (self.bed.path("waits"), self.bed.path("go"));
        self.fleet(&gated(&waits, &go));
        let mut run = self.bed.command(&["broadcast", "--set", "message=two"]);
        let run = run.stdout(Stdio::piped()).stderr(Stdio::piped());
        let run = run.spawn().unwrap();
        until("the gate waits", || waits.exists());
        (run, go)
    }
}

/// Lets a broadcast go on, and returns its end.
fn end_of((run, go): (Child, PathBuf)) -> CommandEnd {
    std::fs::write(go, "").unwrap();
    CommandEnd::of(&run.wait_with_output().unwrap())
}

#[test]
fn every_command_reaches_the_hosts_over_a_server() {
    let Some(net) = Net::start(&[1, 2, 1]) else {
        return;
    };
    let hosts = net.run(&["hosts"]);
    expect(&hosts, 0);
    expect(&net.broadcast("two", &[]), 0);
    assert!(net.bed.all_serve("two"));
    expect(&net.run(&["status"]), 0);
    let listed = net.run(&["history", "--gather"]);
    expect(&listed, 0);
    assert_eq!(listed.json["runs"].as_array().unwrap().len(), 4);
    expect(&net.run(&["revert", "@", "--yes"]), 0);
    assert!(net.bed.all_serve("one"));
}

#[test]
fn a_validator_that_refuses_on_one_host_leaves_every_host_untouched() {
    let Some(net) = Net::start(&[1, 1]) else {
        return;
    };
    let own = std::fs::read_to_string(net.bed.hosts[1].path("fleet.toml")).unwrap();
    let no = "[[group]]\nvalidate = [\"sh\", \"-c\", \"! grep -q two $0\", \"{candidate}\"]";
    net.bed.hosts[1].write("fleet.toml", &own.replacen("[[group]]", no, 1));
    expect(&net.broadcast("two", &[]), 4);
    assert!(net.bed.all_serve("one"));
}

#[test]
fn a_host_without_an_agent_is_unreachable_at_once_and_named() {
    let Some(mut net) = Net::start(&[1, 1]) else {
        return;
    };
    net.agents[1] = None;
    let hosts = net.run(&["hosts"]);
    expect(&hosts, 11);
    let repair = hosts.json["hosts"][1]["repair"].as_str().unwrap();
    assert!(repair.contains("systemctl start hello-agent"), "{repair}");
    let end = net.broadcast("two", &[]);
    expect(&end, 11);
    let reason = end.json["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("h1: no agent of this host listens on the NATS server"),
        "{reason}"
    );
    assert!(net.bed.all_serve("one"));
    expect(&net.broadcast("two", &["--max-unreachable", "1"]), 8);
    assert!(net.bed.serves(0, "two") && net.bed.serves(1, "one"));
}

#[test]
fn a_server_that_is_down_is_named_and_nothing_is_touched() {
    let Some(mut net) = Net::start(&[1]) else {
        return;
    };
    net.server = None;
    let end = net.broadcast("two", &[]);
    expect(&end, 11);
    assert!(end.stderr.contains(&net.url()), "{}", end.stderr);
    assert!(net.bed.all_serve("one"));
}

#[test]
fn agents_come_back_after_a_restart_of_the_server() {
    let Some(mut net) = Net::start(&[1, 1]) else {
        return;
    };
    net.server = None;
    let is_away = |host: usize| net.log(host).contains("Disconnected");
    until("the agents notice it", || is_away(0) && is_away(1));
    net.serve();
    let is_back = |host: usize| net.log(host).matches("Connected").count() > 1;
    until("the agents are back", || is_back(0) && is_back(1));
    expect(&net.broadcast("two", &[]), 0);
    assert!(net.bed.all_serve("two"));
}

#[test]
fn a_run_goes_on_after_a_restart_of_the_server_between_two_waves() {
    let Some(mut net) = Net::start(&[1, 1]) else {
        return;
    };
    net.bed.lease("30s");
    let run = net.broadcast_to_gate();
    net.server = None;
    net.serve();
    let end = end_of(run);
    net.wait_for_talks();
    expect(&end, 0);
    assert!(net.bed.all_serve("two"));
}

#[test]
fn an_agent_that_ends_leaves_its_session_to_the_next_one() {
    let Some(mut net) = Net::start(&[1, 1]) else {
        return;
    };
    net.bed.lease("30s");
    let run = net.broadcast_to_gate();
    net.signal(1, Signal::SIGTERM);
    net.agents[1].as_mut().unwrap().0.wait().unwrap();
    net.listen(1);
    let end = end_of(run);
    net.wait_for_talks();
    expect(&end, 0);
    assert!(net.bed.all_serve("two"));
}

#[test]
fn a_coordinator_that_is_killed_is_resumed_over_the_server() {
    let Some(net) = Net::start(&[1, 1]) else {
        return;
    };
    let (mut run, go) = net.broadcast_to_gate();
    run.kill().unwrap();
    assert_eq!(end_of((run, go)).code, None);
    expect(&net.run(&["resume"]), 0);
    assert!(net.bed.all_serve("two"));
}

#[test]
fn a_bad_file_of_a_host_is_named_at_sighup_and_refuses_its_coordinators() {
    let Some(net) = Net::start(&[1, 1]) else {
        return;
    };
    let own = std::fs::read_to_string(net.bed.hosts[1].path("fleet.toml")).unwrap();
    net.bed.hosts[1].write("fleet.toml", "version = 1\nnonsense = 1\n");
    net.signal(1, Signal::SIGHUP);
    until("the fault is named", || net.log(1).contains("nonsense"));
    expect(&net.broadcast("two", &[]), 5);
    assert!(net.bed.all_serve("one"));
    net.bed.hosts[1].write("fleet.toml", &own);
    net.signal(1, Signal::SIGHUP);
    until("the file is good again", || net.log(1).contains("Reloaded"));
    expect(&net.broadcast("two", &[]), 0);
}

#[test]
fn a_gate_that_fails_rolls_every_host_back() {
    let Some(net) = Net::start(&[1, 1]) else {
        return;
    };
    net.fleet("[rollout]\nwaves = [\"100%\"]\nbake = \"0s\"\ngate = [\"false\"]\n");
    let end = net.broadcast("two", &[]);
    expect(&end, 6);
    for host in ["h0", "h1"] {
        assert_eq!(outcomes(&end.json, host), ["reverted"], "{:#}", end.json);
    }
    assert!(net.bed.all_serve("one"));
}

#[test]
fn a_host_with_a_command_of_its_own_is_reached_by_that() {
    let Some(mut net) = Net::start(&[1, 1]) else {
        return;
    };
    net.agents[1] = None;
    net.bed
        .between(1, &[rule("double", ">", r#""q":"survey""#)]);
    net.fleet(&format!(
        "[[hosts.via]]\non = \"h1\"\nconnect = [\"sh\", \"{}/{{name}}.sh\"]\n",
        net.bed.path("").display()
    ));
    expect(&net.broadcast("two", &[]), 0);
    assert!(net.bed.all_serve("two"));
}

#[test]
fn an_agent_refuses_a_url_that_names_no_server() {
    let bed = Bed::start(&[1]);
    let end = run_to_end(&mut bed.agent_command(0, &["--nats", "http://x"]));
    assert_eq!(end.code, Some(2), "{}", end.stderr);
    let named = "--nats: the URL of a NATS server is nats://HOST or nats://HOST:PORT";
    assert!(end.stderr.contains(named), "{}", end.stderr);
}
