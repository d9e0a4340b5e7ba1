//! A broadcast over hosts against `ssh HOST true`, against the calls that one types today, and
//! against the cost of a process for each host.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench says what it measures, and fails by ending"
)]

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use hello::config::digest;

use self::{
    hosts::Hosts,
    support::{Args, Spread, at_most, digits, fleet::config, machine, program, row, table, whole},
};

mod hosts;
#[path = "../support/mod.rs"]
mod support;

/// The hosts behind sshd, which are loopback addresses.
const OVER_SSH: usize = 15;
const SIZES: &[usize] = &[15, 100];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == whole::ROLE) {
        return whole::role(&words[1..]);
    }
    let args = match Args::of(SIZES, 100) {
        Ok(args) => args,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    machine(
        support::fleet::folder().path(),
        &[("ssh", &["-V"]), ("clush", &["--version"])],
    );
    over_ssh(args.pairs);
    for n in args.sizes {
        without_network(n, args.pairs);
    }
    ExitCode::SUCCESS
}

/// What each side took, in turns.
struct Side {
    name: &'static str,
    /// The most that a broadcast may take of it.
    bar: f64,
    /// The commands of one turn; `NEW` is the file of the new config.
    argvs: Vec<Vec<String>>,
    /// Whether the servers must serve the new config afterwards.
    changes: bool,
    took: Vec<f64>,
}

fn over_ssh(pairs: usize) {
    let has = |name, package| program(name, package).is_some();
    let is_root = nix::unistd::geteuid().is_root();
    if !has("sshd", "openssh-server") || !has("ssh", "openssh-client") || !is_root {
        println!("- over ssh: skipped, it needs sshd, ssh and root");
        return;
    }
    let hosts = Hosts::over_ssh(OVER_SSH);
    let mut sides = vec![Side::new(
        "`ssh HOST true`, all at once",
        1.5,
        vec![hosts.true_everywhere()],
    )];
    if has("clush", "clustershell") {
        sides.push(Side::new(
            "one `clush true`",
            f64::INFINITY,
            vec![hosts.clush(&["true".into()])],
        ));
        sides.push(Side::change(
            "`clush`: copy, check, `mv` and HUP, `curl`",
            0.25,
            hosts.clush_sequence(),
        ));
    }
    if has("ansible-playbook", "ansible-core") {
        sides.push(Side::change(
            "`ansible-playbook`: copy, HUP, `uri`",
            1.0,
            vec![hosts.playbook()],
        ));
    }
    let mut ours = Vec::new();
    for turn in 0..=pairs {
        let took = hosts.change(&hosts.broadcast(), &format!("hello {turn}"));
        if turn > 0 {
            ours.push(took);
        }
        for (index, side) in sides.iter_mut().enumerate() {
            let message = format!("{index} {turn}");
            let took: f64 = if side.changes {
                hosts.change(&side.argvs, &message)
            } else {
                hosts.run(&side.argvs)
            };
            if turn > 0 {
                side.took.push(took);
            }
        }
    }
    report(
        &format!("{OVER_SSH} loopback addresses behind sshd, {pairs} pairs"),
        &ours,
        &sides,
    );
}

impl Side {
    fn new(name: &'static str, bar: f64, argvs: Vec<Vec<String>>) -> Self {
        let took = Vec::new();
        Self {
            name,
            bar,
            argvs,
            changes: false,
            took,
        }
    }

    fn change(name: &'static str, bar: f64, argvs: Vec<Vec<String>>) -> Self {
        Self {
            changes: true,
            ..Self::new(name, bar, argvs)
        }
    }
}

fn report(title: &str, ours: &[f64], sides: &[Side]) {
    table(title, &["side", "wall, ms", "wall of `hello` / its"]);
    let own = Spread::of(ours.iter().copied()).to_string();
    row(&["`hello broadcast`", &own, "1"]);
    for side in sides {
        let wall = Spread::of(side.took.iter().copied()).to_string();
        let ratio = Spread::ratio(ours, &side.took).to_string();
        row(&[side.name, &wall, &ratio]);
    }
    println!();
    for side in sides.iter().filter(|side| side.bar.is_finite()) {
        let what = format!("a broadcast against {}", side.name);
        at_most(&what, side.bar, Spread::ratio(ours, &side.took).median);
    }
}

/// Agents behind a command: what a host costs without a network.
fn without_network(n: usize, pairs: usize) {
    let hosts = Hosts::behind_commands(n);
    let (mut listed, mut changed, mut floor) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..=pairs {
        let list = hosts.run(&[hosts.hello("hosts", &[])]);
        let change = hosts.change(&hosts.broadcast(), &format!("command {turn}"));
        let spawned = spawn_and_ask(n);
        if turn > 0 {
            listed.push(list);
            changed.push(change);
            floor.push(spawned);
        }
    }
    table(
        &format!("{n} hosts behind a command, {pairs} pairs"),
        &["side", "wall, ms", "ms per host", "it / the floor"],
    );
    for (name, took) in [
        ("`hello hosts`", &listed),
        ("`hello broadcast`", &changed),
        ("floor: start `cat`, a line there and back", &floor),
    ] {
        let wall = Spread::of(took.iter().copied());
        let ratio = Spread::ratio(took, &floor);
        row(&[
            name,
            &wall.to_string(),
            &digits(wall.median / n as f64),
            &ratio.to_string(),
        ]);
    }
    println!();
}

/// Starts `cat` for each host, then sends a line to each, reads it back, and waits for the end.
fn spawn_and_ask(n: usize) -> f64 {
    let began = Instant::now();
    let start = |_| {
        Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut all: Vec<_> = (0..n).map(start).collect();
    for child in &mut all {
        child.stdin.as_mut().unwrap().write_all(b"line\n").unwrap();
    }
    for mut child in all {
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success() && line == "line\n");
    }
    began.elapsed().as_secs_f64() * 1e3
}

impl Hosts {
    /// Runs the commands one after the other. Returns their time in ms.
    fn run(&self, argvs: &[Vec<String>]) -> f64 {
        let took = argvs.iter().map(|argv| {
            let words: Vec<&str> = argv.iter().map(String::as_str).collect();
            whole::run(self.folder(), &words).wall_ms
        });
        took.sum()
    }

    /// Runs the commands, which must bring a new config to every server. Returns their time in ms.
    fn change(&self, argvs: &[Vec<String>], message: &str) -> f64 {
        let text = config(message);
        support::fleet::write(&self.new_config(), &text);
        let took = self.run(argvs);
        self.must_serve(&digest(text.as_bytes()).to_string());
        took
    }

    fn broadcast(&self) -> Vec<Vec<String>> {
        let state = self.folder().join("state");
        let new = self.new_config();
        let options = ["--config", text(&new), "--state", text(&state)];
        vec![self.hello("broadcast", &options)]
    }

    fn hello(&self, command: &str, options: &[&str]) -> Vec<String> {
        let fleet = self.folder().join("fleet.toml");
        let words = [
            env!("CARGO_BIN_EXE_hello"),
            command,
            "--fleet",
            text(&fleet),
        ];
        let words = words.iter().chain(options);
        words.map(|word| (*word).to_owned()).collect()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
