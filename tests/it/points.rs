//! One of five instances is killed, stopped, broken or replaced at every point of a run. The run
//! ends in an outcome of the table and never hangs.

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    process::Stdio,
    time::Instant,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Fleet, get, until};

/// The action on the first instance.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    Kill,
    Stop,
    /// Stops it, and continues it when the rollback begins.
    Pause,
    Replace,
    /// Makes its config unreadable.
    Break,
}

/// The moment of the action: before the survey, in the validator, or at the first event of that
/// name.
const POINTS: [&str; 5] = ["before", "validator", "intent", "installed", "instance"];

fn act(fleet: &mut Fleet, act: Act) {
    match act {
        Act::Kill => fleet.kill(0),
        Act::Stop | Act::Pause => fleet.signal(0, Signal::SIGSTOP),
        Act::Replace => {
            fleet.kill(0);
            fleet.serve();
        }
        Act::Break => {
            let before = fleet.text();
            // Another process writes the file in place, as an editor does.
            fleet.write("web.toml", &before.replace("message", "massage"));
        }
    }
}

/// The report of a run, compared with the answers of every living server.
fn agrees(fleet: &Fleet, result: &Value, context: &str) {
    let disk = fleet.text();
    for i in result["instances"].as_array().unwrap() {
        let pid = i32::try_from(i["pid"].as_i64().unwrap()).unwrap();
        let state = i["outcome"].as_str().unwrap();
        let Some(at) = (0..fleet.len()).find(|at| fleet.pid(*at) == pid) else {
            panic!("{context}: pid {pid} belongs to no instance")
        };
        let body = || get(fleet.url(at), "/").1;
        match state {
            // The first may have ended since it was proven.
            "confirmed" | "unchanged" if at != 0 => assert_eq!(body(), "x", "{context}: pid {pid}"),
            "reverted" | "untouched" | "refused" if at != 0 => {
                assert_eq!(body(), "one", "{context}: pid {pid} {state}")
            }
            _ => {}
        }
    }
    for target in result["targets"].as_array().unwrap() {
        assert_eq!(
            target["disk"].as_str().unwrap(),
            sha256(&disk),
            "{context}: what it says of the disk"
        );
    }
}

fn sha256(text: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(text)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

fn run_point(point: &str, what: Act) {
    let context = format!("{what:?} at {point}");
    let mut fleet = Fleet::start(5);
    let before = fleet.text();
    let pid = fleet.pid(0);
    // The validator is the point between survey and install: it waits until the test has acted.
    let (there, go) = (fleet.path("there"), fleet.path("go"));
    let script = fleet.write(
        "validator",
        &format!(
            "#!/bin/sh\ntouch /proc/$PPID/root'{}'\nfor _ in $(seq 1000); do [ -e /proc/$PPID/root'{}' ] && break; sleep 0.02; done\n\"$1\" check \"$2\"\n",
            there.display(),
            go.display()
        ),
    );
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let group = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    let exe = fleet.exe().display().to_string();
    fleet.write(
        "fleet.toml",
        &format!(
            "{group}validate = [\"{}\", \"{exe}\", \"{{candidate}}\"]\n",
            script.display()
        ),
    );
    if point == "before" {
        act(&mut fleet, what);
    }
    let began = Instant::now();
    let args = [
        "--waves",
        "100%",
        "--count",
        "5",
        "--timeout",
        "1s",
        "-o",
        "jsonl",
        "--set",
        "message=x",
    ];
    let mut child = fleet
        .command(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    if point == "validator" {
        until("the validator runs", || there.exists());
        act(&mut fleet, what);
    }
    std::fs::write(&go, "").unwrap();
    let (mut last, mut done) = (String::new(), false);
    for line in output.lines() {
        last = line.unwrap();
        if !done && last.contains(&format!("\"event\":\"{point}\"")) {
            done = true;
            act(&mut fleet, what);
        }
        if what == Act::Pause && last.contains("\"event\":\"rollback_began\"") {
            fleet.signal(0, Signal::SIGCONT);
        }
    }
    let code = child.wait().unwrap().code().unwrap();
    assert!(began.elapsed().as_secs() < 60, "{context}: it has an end");
    let result: Value = serde_json::from_str(&last).unwrap();
    assert_eq!(result["exit"], code, "{context}");
    let context = format!("{context}: exit {code}\n{result:#}");
    let early = matches!(point, "before" | "validator");
    let allowed: &[i32] = match (point, what) {
        ("before", Act::Kill) => &[3],
        ("before", Act::Stop | Act::Pause) => &[5],
        // The successor is an instance like the others.
        ("before", Act::Replace) => &[0],
        ("before", Act::Break) => &[4, 5],
        ("validator", Act::Kill | Act::Replace) => &[7],
        ("validator", Act::Stop) => &[7],
        ("validator", Act::Pause) => &[6],
        // The surveyed process has ended, so it is left alone.
        ("validator", Act::Break) => &[5],
        // After the install the run and the action race. The report must be true in either order.
        (_, Act::Pause) => &[0, 6],
        (_, Act::Break) => &[0, 5, 6, 7],
        _ => &[0, 7],
    };
    assert!(allowed.contains(&code), "{context}");
    if matches!(what, Act::Stop | Act::Pause) {
        fleet.signal(0, Signal::SIGCONT);
        until("it goes on", || !get(fleet.url(0), "/").1.is_empty());
    }
    if what == Act::Break {
        return;
    }
    if !(point == "before" && what == Act::Replace) {
        if code == 0 {
            assert_ne!(fleet.text(), before, "{context}");
        } else {
            assert_eq!(fleet.text(), before, "{context}");
        }
        agrees(&fleet, &result, &context);
    }
    if code == 7 {
        let mine = result["instances"]
            .as_array()
            .unwrap()
            .iter()
            .find(|i| i["pid"] == pid)
            .unwrap();
        assert!(
            matches!(mine["outcome"].as_str().unwrap(), "died" | "revert_failed"),
            "{context}"
        );
        // The successor reads the same file, so it is checked too.
        let reverted = result["counts"]["reverted"].as_u64().unwrap();
        assert!(
            reverted == 4 || (what == Act::Replace && reverted == 5),
            "{context}"
        );
    }
    if early && code == 6 {
        assert_eq!(result["counts"]["reverted"], 5, "{context}");
    }
}

fn everywhere(what: Act) {
    POINTS.into_iter().for_each(|point| run_point(point, what));
}

#[test]
fn killed_at_every_point() {
    everywhere(Act::Kill);
}

#[test]
fn stopped_at_every_point() {
    everywhere(Act::Stop);
}

#[test]
fn stopped_at_every_point_and_continued_when_the_rollback_begins() {
    everywhere(Act::Pause);
}

#[test]
fn replaced_at_every_point() {
    everywhere(Act::Replace);
}

#[test]
fn broken_at_every_point() {
    everywhere(Act::Break);
}

/// A run that waits for a stopped instance, interrupted by its operator.
fn halted(interrupts: usize, continued: bool) -> (Fleet, Value) {
    let fleet = Fleet::start(3);
    let script = fleet.write(
        "validator",
        &format!("#!/bin/sh\nkill -STOP {}\n", fleet.pid(0)),
    );
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let group = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write(
        "fleet.toml",
        &format!("{group}validate = [\"{}\"]\n", script.display()),
    );
    let mut child = fleet
        .command(&[
            "--waves",
            "100%",
            "--timeout",
            "60s",
            "-o",
            "jsonl",
            "--set",
            "message=x",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (mut last, mut confirmed) = (String::new(), 0);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        last = line.unwrap();
        confirmed += usize::from(last.contains("\"outcome\":\"confirmed\""));
        if confirmed == 2 {
            confirmed += 1;
            // A closed terminal changes nothing.
            nix::sys::signal::kill(pid, Signal::SIGHUP).unwrap();
            nix::sys::signal::kill(pid, Signal::SIGINT).unwrap();
        }
        if last.contains("\"event\":\"rollback_began\"") {
            if continued {
                fleet.signal(0, Signal::SIGCONT);
            }
            for _ in 1..interrupts {
                nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
            }
        }
    }
    child.wait().unwrap();
    (fleet, serde_json::from_str(&last).unwrap())
}

#[test]
fn the_first_interrupt_rolls_back_and_proves_it() {
    let (fleet, result) = halted(1, true);
    assert_eq!(
        (&result["exit"], &result["counts"]["reverted"]),
        (&6.into(), &3.into()),
        "{result:#}"
    );
    assert_eq!(fleet.bodies(), ["one"; 3]);
}

#[test]
fn the_second_interrupt_exits_at_once_and_reports_the_situation() {
    let (fleet, result) = halted(2, false);
    assert_eq!(result["exit"], 7, "{result:#}");
    assert_eq!(
        result["targets"][0]["disk"].as_str().unwrap(),
        sha256(&fleet.text())
    );
    fleet.signal(0, Signal::SIGCONT);
}

#[test]
fn an_interrupt_before_the_install_touches_nothing() {
    let fleet = Fleet::start(1);
    let before = fleet.text();
    let there = fleet.path("there");
    let script = fleet.write(
        "validator",
        &format!(
            "#!/bin/sh\ntouch /proc/$PPID/root'{}'\nsleep 60\n",
            there.display()
        ),
    );
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let group = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write(
        "fleet.toml",
        &format!("{group}validate = [\"{}\"]\n", script.display()),
    );
    let mut child = fleet
        .command(&["-q", "--set", "message=x"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("the validator runs", || there.exists());
    let began = Instant::now();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap()),
        Signal::SIGINT,
    )
    .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(
        began.elapsed().as_secs() < 25,
        "the validator was not waited for"
    );
    assert_eq!((fleet.text(), fleet.attempts()), (before, vec![1]));
}
