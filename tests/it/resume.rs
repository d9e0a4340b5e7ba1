//! `hello resume` and `hello revert`: the coordinator is killed at chosen moments, and everybody ends on one config all the same.

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    process::Stdio,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Fleet, until};

/// A validator of the new config stops this server: it is validated, signalled, and does not answer.
fn with_a_victim(fleet: &Fleet, at: usize) {
    let script = fleet.write("validator", &format!("#!/bin/sh\n\"$1\" check \"$2\" && {{ grep -q '\"one\"' \"$2\" || kill -STOP {}; }}\n", fleet.pid(at)));
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let group = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write("fleet.toml", &format!("{group}validate = [\"{}\", \"{{exe}}\", \"{{candidate}}\"]\n", script.display()));
}

/// The servers in the order in which they are signalled.
fn by_pid(fleet: &Fleet) -> Vec<usize> {
    let mut all: Vec<usize> = (0..fleet.len()).collect();
    all.sort_by_key(|at| fleet.pid(*at));
    all
}

/// Runs a broadcast of the message `two`, and kills it when the `n`th event of that name is read. Answers the run's id.
fn killed(fleet: &Fleet, args: &[&str], event: &str, n: usize) -> String {
    let mut command = fleet.command(&["-o", "jsonl", "--set", "message=two"]);
    let mut child = command.args(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut seen = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        seen.push(line["event"].as_str().unwrap_or("the end").to_owned());
        if seen.iter().filter(|e| *e == event).count() == n {
            child.kill().unwrap();
            break;
        }
    }
    child.wait().unwrap();
    assert_eq!(seen.iter().filter(|e| *e == event).count(), n, "{seen:?}");
    let open: Vec<String> = std::fs::read_dir(fleet.path("state/open")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(open.len(), 1, "{open:?}");
    open[0].clone()
}

fn go_on(fleet: &Fleet, at: usize) {
    fleet.signal(at, Signal::SIGCONT);
    let stopped = || std::fs::read_to_string(format!("/proc/{}/status", fleet.pid(at))).unwrap().contains("State:\tT");
    until("it goes on", || !stopped());
}

/// Everybody and the disk are on the config of this message, no run is open, and nothing staged is left.
fn all_on(fleet: &Fleet, message: &str, context: &str) {
    assert_eq!(fleet.bodies(), vec![message; fleet.len()], "{context}");
    assert!(fleet.text().contains(&format!("message = \"{message}\"")), "{context}: {}", fleet.text());
    assert_eq!(std::fs::read_dir(fleet.path("state/open")).unwrap().count(), 0, "{context}: no run is open");
    let names = std::fs::read_dir(fleet.dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.starts_with('.')).collect::<Vec<_>>(), Vec::<String>::new(), "{context}: nothing staged is left");
}

#[test]
fn wherever_its_owner_died_a_run_is_gone_on_with_or_undone() {
    // The victim by its place in the order of signals: it keeps the run where it is.
    for (victim, args, event, n) in [
        (0, &["--timeout", "20s"][..], "intent", 1),
        (0, &["--timeout", "20s"], "installed", 1),
        (2, &["--timeout", "20s"], "instance", 1),
        (2, &["--timeout", "20s"], "instance", 2),
        (2, &["--timeout", "500ms"], "undo_began", 1),
    ] {
        for (verb, message) in [("resume", "two"), ("revert", "one")] {
            let context = format!("{verb} after {event} {n}");
            let fleet = Fleet::start(3);
            let victim = by_pid(&fleet)[victim];
            with_a_victim(&fleet, victim);
            let run = killed(&fleet, args, event, n);
            go_on(&fleet, victim);
            let said = fleet.again(verb, &["--validate=off"]);
            assert_eq!(said.code, 0, "{context}: {}\n{:#}", said.stderr, said.json);
            assert!(said.stderr.contains(&format!("Superseded run {run}")), "{context}: {}", said.stderr);
            all_on(&fleet, message, &context);
        }
    }
}
