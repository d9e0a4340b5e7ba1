//! `hello status --watch`: in place on a terminal, and by its changes elsewhere.

use std::{
    io::{BufRead, BufReader, Lines},
    process::{ChildStdout, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    pty::Terminal,
    support::{CommandResult, Fleet, Killed, get, until},
};

fn watch(fleet: &Fleet, args: &[&str]) -> Command {
    let mut command = fleet.read_only("status");
    command
        .arg("--watch=0.1")
        .arg("--state")
        .arg(fleet.path("state"))
        .args(args);
    command
}

/// Starts a watch whose output is read through a pipe.
fn piped(fleet: &Fleet, args: &[&str]) -> (Killed, Lines<BufReader<ChildStdout>>) {
    let mut child = watch(fleet, args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (Killed(child), out.lines())
}

/// The requests that the first server got, with this one.
fn requests(fleet: &Fleet) -> u64 {
    let metrics = get(fleet.url(0), "/-/metrics").1;
    let line = metrics
        .lines()
        .find(|line| line.starts_with("hello_http_requests_total "));
    line.unwrap().split(' ').nth(1).unwrap().parse().unwrap()
}

/// Replaces the config in one step: a look never sees a half of it.
fn replace(fleet: &Fleet, text: &str) {
    let new = fleet.write("new.toml", text);
    std::fs::rename(new, fleet.path("web.toml")).unwrap();
}

/// Waits until the watch has looked three times more: each look asks the server.
fn looks_again(fleet: &Fleet) {
    let before = requests(fleet);
    let mut own = 0;
    until("it looks again", || {
        own += 1;
        requests(fleet) >= before + own + 3
    });
}

fn end(child: &mut Killed, signal: Signal) -> Option<i32> {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(pid, signal).unwrap();
    child.wait().unwrap().code()
}

#[test]
fn each_change_is_one_object_and_the_exit_code_is_that_of_the_last() {
    let fleet = Fleet::start(1);
    for (signal, last) in [(Signal::SIGINT, "two"), (Signal::SIGTERM, "three")] {
        let (mut child, mut lines) = piped(&fleet, &["-o", "jsonl"]);
        let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
        let first = next();
        assert_eq!(first["verdict"], "converged", "{first:#}");
        assert!(first["at"].is_string(), "{first:#}");
        looks_again(&fleet);
        let text = fleet.text();
        replace(&fleet, &text.replace("message", "# changed\nmessage"));
        let second = next();
        assert_eq!(second["exit"], 7, "{second:#}");
        // The next change is the next line, however long nothing happened.
        replace(&fleet, &text);
        let third = next();
        assert_eq!(third["exit"], 0, "{third:#}");
        fleet
            .broadcast(&["--set", &format!("message={last}")])
            .expect(0);
        let mut runs = next();
        while runs["verdict"] != "converged"
            || runs["instances"][0]["runs"] == third["instances"][0]["runs"]
        {
            runs = next();
        }
        assert_eq!(end(&mut child, signal), Some(0));
    }
}

#[test]
fn a_pipe_gets_each_change_with_its_time() {
    let fleet = Fleet::start(1);
    let (mut child, mut lines) = piped(&fleet, &[]);
    let mut next = || lines.next().unwrap().unwrap();
    assert!(next().ends_with(" converged (exit 0)"));
    assert_eq!(next(), "1 instance: 1 ok");
    assert!(next().starts_with("STATUS"));
    assert!(next().starts_with("ok "));
    // A look that shows the same is not printed.
    looks_again(&fleet);
    let text = fleet.text();
    replace(&fleet, &text.replace("one", "two"));
    let head = next();
    assert!(head.ends_with(" mixed (exit 7)"), "{head}");
    assert!(head.starts_with("20"), "{head}");
    assert_eq!(next(), "1 instance: 1 FAULT");
    assert!(next().starts_with("STATUS"));
    assert!(next().starts_with("FAULT "));
    assert_eq!(next().trim(), "does not run the config on its disk");
    assert_eq!(end(&mut child, Signal::SIGINT), Some(7));
}

#[test]
fn a_watch_ends_when_its_reader_is_gone() {
    let fleet = Fleet::start(1);
    let (mut child, mut lines) = piped(&fleet, &[]);
    lines.next().unwrap().unwrap();
    drop(lines);
    until("it ends", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_terminal_is_drawn_in_place_and_within_its_size() {
    let fleet = Fleet::start(12);
    let command = watch(&fleet, &[]);
    let Some(mut terminal) = Terminal::start_with(&fleet, 60, 8, &command) else {
        return;
    };
    until("it is drawn twice", || {
        terminal.text().matches("\x1b[H").count() > 2
    });
    let hello = Pid::from_raw(terminal.hello(&fleet));
    kill(hello, Signal::SIGINT).unwrap();
    assert_eq!(terminal.end(), Some(0), "{}", terminal.text());
    let text = terminal.text();
    assert_eq!(text.matches("\x1b[2J").count(), 1, "it is cleared once");
    let frame = text.split("\x1b[H").nth(2).unwrap();
    let frame = frame.split("\x1b[J").next().unwrap();
    let rows: Vec<&str> = frame
        .split("\x1b[K\r\n")
        .filter(|row| !row.is_empty())
        .collect();
    assert_eq!(rows.len(), 7, "{rows:?}");
    assert!(
        rows[0].contains(" converged (exit 0), every 0.1s"),
        "{rows:?}"
    );
    assert_eq!(rows[1], "12 instances: 12 ok", "{rows:?}");
    assert!(rows[2].starts_with("STATUS  GROUP"), "{rows:?}");
    assert!(rows[4].starts_with("ok      web "), "{rows:?}");
    assert!(rows[5].starts_with("  "), "a long line goes on: {rows:?}");
    assert_eq!(rows[6], ".. and 11 more lines", "{rows:?}");
    for row in rows {
        assert!(row.chars().count() < 60, "{row}");
    }
}

#[test]
fn the_interval_and_the_form_are_checked() {
    let fleet = Fleet::start(0);
    for args in [
        &["--watch=0"][..],
        &["--watch=x"],
        &["--watch=2h"],
        &["--watch", "-o", "json"],
    ] {
        CommandResult::of(fleet.read_only("status").args(args)).expect(2);
    }
}
