//! Instances that are unresponsive before the run: skipped, refused or included. Also `--now`.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Stdio,
};

use nix::sys::signal::Signal;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::Value;

use crate::{
    rogue::{Rogue, SEEN, rogues},
    support::{CommandResult, Fleet, get, until},
};

/// Sets the limit of open files of a process. A process above its limit accepts no connection, and
/// still handles signals.
fn descriptors(pid: i32, current: Option<u64>) {
    prlimit(
        Pid::from_raw(pid),
        Resource::Nofile,
        Rlimit {
            current: current.or(getrlimit(Resource::Nofile).current),
            maximum: getrlimit(Resource::Nofile).maximum,
        },
    )
    .unwrap();
}

/// Makes a server unresponsive: it listens and answers no request.
pub(crate) fn make_unresponsive(fleet: &Fleet, at: usize) {
    descriptors(fleet.pid(at), Some(1));
}

fn make_responsive(fleet: &Fleet, at: usize) {
    descriptors(fleet.pid(at), None);
}

/// Adds keys to the group of a fleet, before its assertions.
fn with(fleet: &Fleet, more: &str) {
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write(
        "fleet.toml",
        &text.replacen("[[group]]\n", &format!("[[group]]\n{more}\n"), 1),
    );
}

fn rollout(fleet: &Fleet, says: &str) {
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write(
        "fleet.toml",
        &text.replacen(
            "version = 1\n",
            &format!("version = 1\n[rollout]\n{says}\n"),
            1,
        ),
    );
}

/// Makes a script the validator of the group. It runs between the survey and the first signal.
fn validator(fleet: &Fleet, script: &str) {
    let path = fleet.write("validator", &format!("#!/bin/sh\n{script}\n"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    with(
        fleet,
        &format!(
            "validate = [\"{}\", \"{{exe}}\", \"{{candidate}}\"]",
            path.display()
        ),
    );
}

fn instance(result: &CommandResult, pid: i32) -> Value {
    result.json["instances"]
        .as_array()
        .unwrap()
        .iter()
        .find(|i| i["pid"] == pid)
        .unwrap()
        .clone()
}

fn journal(fleet: &Fleet, result: &CommandResult, file: &str) -> String {
    std::fs::read_to_string(
        fleet
            .path("state")
            .join("runs")
            .join(result.json["run"].as_str().unwrap())
            .join(file),
    )
    .unwrap()
}

/// Starts rogues of these modes under one name, in the order of their pids.
fn mixed(fleet: &Fleet, modes: &[&str], group: &str) -> Vec<Rogue> {
    drop(rogues(fleet, "mixed", "good", 0, group));
    let mut all: Vec<Rogue> = modes
        .iter()
        .map(|mode| Rogue::start(&fleet.path("mixed"), mode, &fleet.path("web.toml")))
        .collect();
    all.sort_by_key(Rogue::pid);
    all
}

fn serves(rogues: &[Rogue], result: &CommandResult) -> Vec<String> {
    rogues
        .iter()
        .map(|r| get(instance(result, r.pid())["endpoint"].as_str().unwrap(), "/").1)
        .collect()
}

#[test]
fn an_unresponsive_instance_is_skipped() {
    let fleet = Fleet::start(3);
    let before = fleet.text();
    make_unresponsive(&fleet, 1);
    let result = fleet.broadcast(&["--set", "message=x"]).expect(5);
    assert_eq!((result.states(), fleet.text()), (vec!["refused"], before));
    for says in [
        &format!("pid {} ", fleet.pid(1)),
        "no answer within",
        "1 of 3 of group `web`",
        "`max_unresponsive` is 0",
        "--include-unresponsive",
    ] {
        assert!(result.stderr.contains(says), "{says}: {}", result.stderr);
    }
    // A share of the instances is rounded down. The key of the group overrides that of the fleet.
    rollout(&fleet, "max_unresponsive = \"33%\"");
    fleet.broadcast(&["--set", "message=x"]).expect(5);
    rollout_of_group(&fleet, "max_unresponsive = \"34%\"");
    let output = fleet
        .command(&["--dry-run", "--set", "message=x"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains(&format!("skipped: web pid {}", fleet.pid(1))),
        "{text}"
    );
    assert!(text.contains("would start on the new one"), "{text}");
    let result = fleet.broadcast(&["--set", "message=x"]).expect(8);
    assert_eq!(
        (result.states(), &result.json["verdict"]),
        (
            vec!["confirmed", "confirmed", "untouched"],
            &"partial".into()
        )
    );
    let unresponsive = instance(&result, fleet.pid(1));
    let text = unresponsive["failure"]["text"].as_str().unwrap();
    assert_eq!(
        (&unresponsive["failure"]["kind"], &unresponsive["wave"]),
        (&"unresponsive".into(), &0.into()),
        "{unresponsive:#}"
    );
    assert!(text.contains("no answer within"), "{text}");
    assert!(
        text.contains(&format!(
            "`{}` holds the new config",
            fleet.path("web.toml").display()
        )),
        "{text}"
    );
    let named = format!("Unresponsive web pid {} is skipped: ", fleet.pid(1));
    let reason = result.json["reason"].as_str().unwrap();
    assert!(result.stderr.contains(&named), "{}", result.stderr);
    assert!(
        reason.contains(&format!("skipped: pid {}", fleet.pid(1))),
        "{}",
        result.stderr
    );
    assert!(journal(&fleet, &result, "plan.json").contains("\"unresponsive\""));
    // An instance that was not signalled has not read the file. The next run signals it and not the
    // others.
    make_responsive(&fleet, 1);
    assert_eq!(
        (fleet.attempts(), fleet.bodies()),
        (vec![2, 1, 2], ["x", "one", "x"].map(String::from).to_vec())
    );
    make_unresponsive(&fleet, 1);
    let result = fleet.broadcast(&[]).expect(8);
    assert_eq!(
        (result.states(), result.json["run"].as_str()),
        (vec!["unchanged", "unchanged", "untouched"], None)
    );
    assert!(
        result.json["reason"]
            .as_str()
            .unwrap()
            .contains("skipped: pid"),
        "{:#}",
        result.json
    );
    make_responsive(&fleet, 1);
    assert_eq!(
        fleet.broadcast(&[]).expect(0).states(),
        ["confirmed", "unchanged", "unchanged"]
    );
}

fn rollout_of_group(fleet: &Fleet, says: &str) {
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write("fleet.toml", &format!("{text}[group.rollout]\n{says}\n"));
}

#[test]
fn an_unresponsive_instance_counts_as_found_and_at_least_one_must_answer() {
    let fleet = Fleet::start(2);
    let before = fleet.text();
    rollout(&fleet, "max_unresponsive = \"100%\"");
    make_unresponsive(&fleet, 0);
    fleet
        .broadcast(&["--count", "1", "--set", "message=x"])
        .expect(3);
    fleet
        .broadcast(&["--count", "3", "--set", "message=x"])
        .expect(3);
    make_unresponsive(&fleet, 1);
    let result = fleet
        .broadcast(&["--count", "2", "--set", "message=x"])
        .expect(5);
    assert!(
        result
            .stderr
            .contains("no instance of group `web` responds"),
        "{}",
        result.stderr
    );
    assert!(
        result.stderr.contains("--include-unresponsive"),
        "{}",
        result.stderr
    );
    make_responsive(&fleet, 1);
    assert_eq!(
        (result.states(), fleet.text()),
        (vec!["refused"; 2], before)
    );
    fleet
        .broadcast(&["--count", "2", "--set", "message=x"])
        .expect(8);
}

#[test]
fn an_instance_that_another_check_refuses_is_not_unresponsive() {
    let fleet = Fleet::start(2);
    let before = fleet.text();
    rollout(&fleet, "max_unresponsive = \"100%\"");
    fleet.stop(1);
    for more in [
        &["--set", "message=x"][..],
        &["--include-unresponsive", "--set", "message=x"],
        &["--now", "--reason", "r", "--set", "message=x"],
    ] {
        let result = fleet.broadcast(more).expect(5);
        assert!(result.stderr.contains("is stopped"), "{}", result.stderr);
        assert!(fleet.text() == before, "{}", result.stderr);
    }
    fleet.signal(1, Signal::SIGCONT);
    // It runs another config than the one on its disk.
    fleet.write("web.toml", &before.replace("\"one\"", "\"by hand\""));
    let result = fleet
        .broadcast(&["--include-unresponsive", "--set", "message=x"])
        .expect(5);
    assert!(
        result.stderr.contains("neither the old nor the new"),
        "{}",
        result.stderr
    );
    let all = mixed(
        &fleet,
        &["good", "ignore"],
        &format!("reloads = true\n{SEEN}"),
    );
    rollout(&fleet, "max_unresponsive = 1");
    let result = fleet.broadcast(&["--set", "message=x"]).expect(5);
    assert!(
        result.stderr.contains("ignores SIGHUP"),
        "{}",
        result.stderr
    );
    assert!(all.len() == 2, "{}", result.stderr);
    drop(all);
    // A command that cannot run says nothing about an instance.
    let all = mixed(
        &fleet,
        &["good"],
        "reloads = true\n[[group.confirm]]\nexec = [\"/nowhere/x\"]\nequals = \"x\"",
    );
    rollout(&fleet, "max_unresponsive = 1");
    for more in [
        &["--set", "message=x"][..],
        &["--include-unresponsive", "--set", "message=x"],
    ] {
        assert!(
            fleet
                .broadcast(more)
                .expect(5)
                .stderr
                .contains("could not be run")
        );
    }
    assert_eq!(all[0].signals(), "0");
}

#[test]
fn a_closed_port_and_a_wrong_endpoint_are_unresponsive() {
    let fleet = Fleet::start(0);
    let all = mixed(
        &fleet,
        &["good", "closed", "mute"],
        &format!("reloads = true\n{SEEN}"),
    );
    rollout(&fleet, "max_unresponsive = 2");
    let result = fleet.broadcast(&["--set", "message=x"]).expect(8);
    let mut why: Vec<String> = result.json["instances"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|i| Some(i["failure"]["text"].as_str()?.to_owned()))
        .collect();
    why.sort();
    assert!(why.len() == 2, "{why:?}");
    assert!(why[0].contains("no answer within"), "{why:?}");
    assert!(why[1].contains("listens on no socket"), "{why:?}");
    drop(all);
    let fleet = Fleet::start(2);
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (first, second) = (fleet.pid(0), fleet.pid(1));
    with(
        &fleet,
        &format!(
            "instances = [{{ pid = {first} }}, {{ pid = {second}, endpoint = \"http://{closed}/\" }}]"
        ),
    );
    rollout(&fleet, "max_unresponsive = 1");
    let result = fleet.broadcast(&["--set", "message=x"]).expect(8);
    let unresponsive = instance(&result, second);
    assert!(unresponsive["outcome"] == "untouched", "{unresponsive:#}");
    assert!(
        unresponsive["failure"]["text"]
            .as_str()
            .unwrap()
            .contains("onnection refused"),
        "{unresponsive:#}"
    );
    assert_eq!(fleet.attempts(), [2, 1]);
}

#[test]
fn included_unresponsive_instances_go_last_and_need_the_new_config_as_proof() {
    let fleet = Fleet::start(0);
    let all = mixed(
        &fleet,
        &["closed", "mute", "good"],
        &format!("reloads = true\n{SEEN}"),
    );
    let result = fleet
        .broadcast(&[
            "--include-unresponsive",
            "--timeout",
            "10s",
            "--set",
            "message=x",
        ])
        .expect(0);
    assert_eq!(
        (result.states(), serves(&all, &result)),
        (vec!["confirmed"; 3], vec!["x".to_owned(); 3])
    );
    for i in result.json["instances"].as_array().unwrap() {
        // The canary is an instance that answers.
        assert_eq!(i["wave"] == 1, i["failure"].is_null(), "{i:#}");
        assert!(i["proof"] == "content", "{i:#}");
        assert!(i["moved_from"].is_null(), "{i:#}");
        assert!(
            i["endpoint"].as_str().unwrap().starts_with("http://"),
            "{i:#}"
        );
    }
    assert!(
        result.stderr.matches("is included: ").count() == 2,
        "{}",
        result.stderr
    );
}

#[test]
fn included_unresponsive_instances_are_rolled_back_with_the_others() {
    let fleet = Fleet::start(0);
    let before = fleet.text();
    // One of them becomes responsive and serves the old message.
    let all = mixed(
        &fleet,
        &["good", "closed", "mute", "dumb"],
        &format!("reloads = true\n{SEEN}"),
    );
    let result = fleet
        .broadcast(&[
            "--include-unresponsive",
            "--timeout",
            "3s",
            "--set",
            "message=x",
        ])
        .expect(7);
    // An instance that always serves the old message shows no end of its reload.
    assert_eq!(
        (result.states(), fleet.text()),
        (
            vec!["revert_failed", "reverted", "reverted", "reverted"],
            before
        )
    );
    assert_eq!(serves(&all, &result), vec!["one".to_owned(); 4]);
    let text = result.json["instances"].to_string();
    assert!(
        text.contains("and wanted is `x` after 3s (unresponsive before the run: "),
        "{text}"
    );
}

#[test]
fn a_comparison_with_the_baseline_proves_nothing_without_a_baseline() {
    let fleet = Fleet::start(0);
    let before = fleet.text();
    let changed = "[[group.confirm]]\nhttp = \"http://{listen}/\"\nchanged = true\n";
    let all = mixed(
        &fleet,
        &["good", "mute"],
        &format!("reloads = true\n{changed}"),
    );
    let result = fleet
        .broadcast(&[
            "--include-unresponsive",
            "--timeout",
            "3s",
            "--set",
            "message=x",
        ])
        .expect(6);
    assert_eq!(
        (result.states(), fleet.text()),
        (vec!["reverted"; 2], before.clone())
    );
    let why = result.json["reason"].as_str().unwrap();
    assert!(
        why.contains("compare with an answer from before the signal"),
        "{why}"
    );
    assert!(why.contains("unresponsive before the run"), "{why}");
    assert_eq!(serves(&all, &result), ["one", "one"]);
    drop(all);
    // If another assertion is the proof, the source of this one must only answer again.
    let status =
        "[[group.confirm]]\nhttp = \"http://{listen}/\"\nread = \"status\"\nequals = \"200\"\n";
    let increased = "[[group.confirm]]\nhttp = \"http://{listen}/signals\"\nincreased = true\n";
    let all = mixed(
        &fleet,
        &["good", "mute"],
        &format!("reloads = true\n{changed}{increased}{status}"),
    );
    let result = fleet
        .broadcast(&[
            "--include-unresponsive",
            "--timeout",
            "3s",
            "--set",
            "message=x",
        ])
        .expect(12);
    let unresponsive = result.json["instances"]
        .as_array()
        .unwrap()
        .iter()
        .find(|i| !i["failure"].is_null())
        .unwrap();
    assert_eq!(
        (unresponsive["proof"].as_str(), serves(&all, &result)),
        (Some("none"), vec!["x".to_owned(); 2]),
        "{unresponsive:#}"
    );
    assert_eq!(unresponsive["outcome"], "unconfirmed", "{unresponsive:#}");
    assert!(
        result
            .stderr
            .contains("its config is not proven: unresponsive before the run: "),
        "{}",
        result.stderr
    );
}

/// Starts three servers. The first hangs until its config is validated; the validator then does
/// `more`.
fn start_with_a_waking_server(more: impl Fn(&Fleet) -> String) -> Fleet {
    let fleet = Fleet::start(3);
    make_unresponsive(&fleet, 0);
    // Its last attempt failed for lack of a descriptor. That report is no answer to this run.
    fleet.signal(0, Signal::SIGHUP);
    let limit = getrlimit(Resource::Nofile).current.unwrap();
    validator(
        &fleet,
        &format!(
            "\"$1\" check \"$2\" && prlimit --pid {} --nofile={limit}: && {}",
            fleet.pid(0),
            more(&fleet)
        ),
    );
    fleet
}

#[test]
fn an_unresponsive_server_is_proven_by_its_report_of_a_later_reload() {
    let fleet = start_with_a_waking_server(|_| "true".into());
    let result = fleet
        .broadcast(&["--validate", "--include-unresponsive", "--set", "message=x"])
        .expect(0);
    assert_eq!(
        (result.states(), fleet.bodies()),
        (vec!["confirmed"; 3], vec!["x".to_owned(); 3])
    );
    let woken = instance(&result, fleet.pid(0));
    assert!(woken["proof"] == "exact", "{woken:#}");
    assert!(woken["before"].is_null(), "{woken:#}");
    assert!(woken["failure"]["kind"] == "unresponsive", "{woken:#}");
    assert!(woken["wave"] == 2, "{woken:#}");
    for (mode, kind) in [("past", "timed_out"), ("past-io", "timed_out")] {
        let fleet = Fleet::start(0);
        let before = fleet.text();
        let all = mixed(&fleet, &[mode], "kind = \"hello\"\nvalidate = []");
        let result = fleet
            .broadcast(&["--include-unresponsive", "--set", "message=x"])
            .expect(7);
        let i = instance(&result, all[0].pid());
        assert_eq!(
            (&i["failure"]["kind"], &i["outcome"], fleet.text()),
            (&kind.into(), &"revert_failed".into(), before),
            "{mode}: {i:#}"
        );
    }
}

#[test]
fn an_unresponsive_server_is_rolled_back_like_the_others() {
    let fleet = start_with_a_waking_server(|fleet| format!("kill -STOP {}", fleet.pid(2)));
    rollout(&fleet, "waves = [\"100%\"]");
    let mut child = fleet
        .command(&[
            "--validate",
            "--include-unresponsive",
            "-o",
            "jsonl",
            "--set",
            "message=x",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut last, mut confirmed) = (String::new(), false);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        last = line.unwrap();
        confirmed |= last.contains(&format!("\"pid\":{},", fleet.pid(0)))
            && last.contains("\"outcome\":\"confirmed\"");
        if last.contains("\"rollback_began\"") {
            fleet.signal(2, Signal::SIGCONT);
        }
    }
    assert_eq!(
        (child.wait().unwrap().code(), confirmed),
        (Some(6), true),
        "{last}"
    );
    assert!(last.contains("\"counts\":{\"reverted\":3}"), "{last}");
    assert_eq!(fleet.bodies(), ["one"; 3]);
}

#[test]
fn a_server_that_stays_unresponsive_is_named_and_the_others_are_rolled_back() {
    let fleet = Fleet::start(2);
    let before = fleet.text();
    make_unresponsive(&fleet, 0);
    let result = fleet
        .broadcast(&["--include-unresponsive", "--set", "message=x"])
        .expect(7);
    assert_eq!(
        (result.states(), fleet.text()),
        (vec!["revert_failed", "reverted"], before)
    );
    let unresponsive = instance(&result, fleet.pid(0));
    let text = unresponsive["failure"]["text"].as_str().unwrap();
    assert!(unresponsive["failure"]["kind"] == "timed_out", "{text}");
    assert!(text.contains("unresponsive before the run"), "{text}");
    assert!(unresponsive["outcome"] == "revert_failed", "{text}");
    make_responsive(&fleet, 0);
    assert_eq!(fleet.bodies(), ["one"; 2]);
}

/// Runs a broadcast with `--now` and a reason.
fn now(fleet: &Fleet, more: &[&str]) -> CommandResult {
    fleet.broadcast(&[&["--now", "--reason", "an incident"], more].concat())
}

#[test]
fn now_needs_a_reason() {
    let fleet = Fleet::start(1);
    let before = fleet.text();
    for more in [
        &["--now", "--set", "message=x"][..],
        &["--now", "--reason", " ", "--set", "message=x"],
    ] {
        let result = fleet.broadcast(more).expect(2);
        assert!(
            result.stderr.contains("needs a reason"),
            "{}",
            result.stderr
        );
        assert!(result.stderr.contains("hint: "), "{}", result.stderr);
        assert!(result.stderr.contains("--reason WHY"), "{}", result.stderr);
    }
    // The action on failure cannot be chosen.
    let result = now(&fleet, &["--on-failure", "revert", "--set", "message=x"]).expect(2);
    assert!(result.stderr.contains("--on-failure"), "{}", result.stderr);
    assert_eq!((fleet.text(), fleet.attempts()), (before, vec![1]));
    let result = now(&fleet, &["--set", "message=x"]).expect(0);
    let plan: Value = serde_json::from_str(&journal(&fleet, &result, "plan.json")).unwrap();
    assert_eq!(plan["reason"], "an incident");
    assert!(
        plan["command"]
            .as_array()
            .unwrap()
            .contains(&"--now".into()),
        "{plan:#}"
    );
}

#[test]
fn now_skips_bake_and_gate_and_includes_unresponsive_instances() {
    let fleet = Fleet::start(0);
    let all = mixed(
        &fleet,
        &["good", "good", "closed"],
        &format!("reloads = true\n{SEEN}"),
    );
    let asked = fleet.path("asked");
    rollout(
        &fleet,
        &format!(
            "bake = \"30m\"\ngate = [\"touch\", \"{}\"]",
            asked.display()
        ),
    );
    let result = now(&fleet, &["--timeout", "10s", "--set", "message=x"]).expect(0);
    assert_eq!(
        (result.states(), serves(&all, &result)),
        (vec!["confirmed"; 3], vec!["x".to_owned(); 3])
    );
    assert!(!asked.exists(), "{}", result.stderr);
    assert!(!result.stderr.contains("Baking"), "{}", result.stderr);
    assert!(!result.stderr.contains("gate"), "{}", result.stderr);
    let mut waves: Vec<u64> = result.json["instances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["wave"].as_u64().unwrap())
        .collect();
    waves.sort_unstable();
    assert_eq!(waves, [1, 2, 2], "waves stay");
    let result = now(
        &fleet,
        &["--timeout", "10s", "--waves", "1,2", "--set", "message=y"],
    )
    .expect(0);
    assert!(
        result.json["instances"]
            .as_array()
            .unwrap()
            .iter()
            .any(|i| i["wave"] == 3),
        "{:#}",
        result.json
    );
}

#[test]
fn now_never_rolls_back() {
    let back = |fleet: &Fleet, result: &CommandResult| {
        let events = journal(fleet, result, "events.jsonl");
        assert!(!events.contains("rollback_began"), "{events}");
        assert!(!events.contains("rolled_back"), "{events}");
        assert!(!events.contains("\"undo\":true"), "{events}");
        assert!(events.contains("\"stopped\""), "{events}");
        assert!(fleet.text().contains("\"x\""), "{}", fleet.text());
    };
    // The first rejects it by its own report. No other is signalled, and the file stays.
    let fleet = Fleet::start(0);
    let reject = "[[group.reject]]\nhttp = \"http://{listen}/signals\"\nincreased = true";
    let all = mixed(
        &fleet,
        &["old", "old"],
        &format!("reloads = true\n{SEEN}\n{reject}"),
    );
    let result = now(&fleet, &["--set", "message=x"]).expect(8);
    assert_eq!(result.states(), ["rejected", "untouched"]);
    let mut signals: Vec<String> = all.iter().map(Rogue::signals).collect();
    signals.sort();
    assert_eq!(signals, ["0", "1"]);
    back(&fleet, &result);
    drop(all);
    // An instance on the new config stays on it, and an unproven one is named.
    let fleet = Fleet::start(2);
    make_unresponsive(&fleet, 0);
    let result = now(&fleet, &["--set", "message=x"]).expect(7);
    assert_eq!(
        (result.states(), get(fleet.url(1), "/").1.as_str()),
        (vec!["confirmed", "timed_out"], "x")
    );
    back(&fleet, &result);
    make_responsive(&fleet, 0);
    // Within the budget the run continues, and still rolls nothing back.
    let fleet = Fleet::start(3);
    rollout(&fleet, "max_failures = 1\nwaves = [1, 2]");
    validator(
        &fleet,
        &format!("\"$1\" check \"$2\" && kill -STOP {}", fleet.pid(0)),
    );
    let result = now(&fleet, &["--set", "message=x"]).expect(7);
    assert_eq!(result.states(), ["confirmed", "confirmed", "timed_out"]);
    let events = journal(&fleet, &result, "events.jsonl");
    assert!(!events.contains("rolled_back"), "{events}");
    assert!(!events.contains("\"undo\":true"), "{events}");
    fleet.signal(0, Signal::SIGCONT);
    until("it loads what stayed there", || fleet.bodies() == ["x"; 3]);
}

#[test]
fn now_keeps_validation_locks_and_guards() {
    let fleet = Fleet::start(2);
    let before = fleet.text();
    now(&fleet, &["--set", "log=loud"]).expect(4);
    now(&fleet, &["--set", "listen=127.0.0.1:1"]).expect(10);
    now(&fleet, &["--count", "3", "--set", "message=x"]).expect(3);
    let lock = |dir: &Path| {
        let dir = std::fs::File::open(dir).unwrap();
        rustix::fs::flock(&dir, rustix::fs::FlockOperation::LockExclusive).unwrap();
        dir
    };
    let held = lock(fleet.dir.path());
    now(&fleet, &["--set", "message=x"]).expect(9);
    drop(held);
    // Without a journal no instance is signalled.
    std::fs::remove_dir_all(fleet.path("state")).unwrap();
    fleet.write("state", "");
    now(&fleet, &["--set", "message=x"]).expect(1);
    std::fs::remove_file(fleet.path("state")).unwrap();
    validator(&fleet, "exec grep -q '\"one\"' \"$2\"");
    now(&fleet, &["--set", "message=x"]).expect(4);
    assert_eq!((fleet.text(), fleet.attempts()), (before, vec![1; 2]));
}

#[test]
fn an_instance_that_may_have_been_signalled_is_not_skipped() {
    let fleet = Fleet::start(2);
    rollout(&fleet, "max_unresponsive = 1");
    validator(&fleet, "exec \"$1\" check \"$2\"");
    make_unresponsive(&fleet, 0);
    now(&fleet, &["--set", "message=x"]).expect(7);
    let result = fleet.continue_run("resume", &[]).expect(5);
    assert!(
        result
            .stderr
            .contains("1 of group `web` may have been signalled already"),
        "{}",
        result.stderr
    );
    assert!(
        result.stderr.contains("--include-unresponsive"),
        "{}",
        result.stderr
    );
    // The other instance is on the old config, though this one is unresponsive.
    let result = fleet.continue_run("revert", &[]).expect(7);
    assert_eq!(
        (result.states(), get(fleet.url(1), "/").1.as_str()),
        (vec!["confirmed", "timed_out"], "one"),
        "{:#}",
        result.json
    );
    assert!(fleet.text().contains("\"one\""));
    assert!(
        instance(&result, fleet.pid(0))["failure"]["text"]
            .as_str()
            .unwrap()
            .contains("unresponsive before the run")
    );
    make_responsive(&fleet, 0);
    fleet.continue_run("revert", &[]).expect(0);
    assert_eq!(fleet.bodies(), ["one"; 2]);
    // Resume includes it on request. Here its validator makes it responsive again.
    make_unresponsive(&fleet, 0);
    now(&fleet, &["--set", "message=y"]).expect(7);
    let limit = getrlimit(Resource::Nofile).current.unwrap();
    fleet.write(
        "validator",
        &format!(
            "#!/bin/sh\n\"$1\" check \"$2\" && prlimit --pid {} --nofile={limit}:\n",
            fleet.pid(0)
        ),
    );
    std::fs::set_permissions(
        fleet.path("validator"),
        std::fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    let result = fleet
        .continue_run("resume", &["--include-unresponsive", "--validate"])
        .expect(0);
    assert_eq!(
        (
            instance(&result, fleet.pid(0))["outcome"].as_str(),
            fleet.bodies()
        ),
        (Some("confirmed"), vec!["y".to_owned(); 2])
    );
}

#[test]
fn an_instance_that_was_skipped_is_skipped_again_by_resume() {
    let fleet = Fleet::start(3);
    rollout(&fleet, "max_unresponsive = 1");
    make_unresponsive(&fleet, 1);
    let mut child = fleet
        .command(&["-o", "jsonl", "--set", "message=x"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("\"installed\"")));
    child.kill().unwrap();
    child.wait().unwrap();
    let result = fleet.continue_run("resume", &[]).expect(8);
    let unresponsive = instance(&result, fleet.pid(1));
    assert!(unresponsive["outcome"] == "untouched", "{unresponsive:#}");
    assert!(
        unresponsive["failure"]["kind"] == "unresponsive",
        "{unresponsive:#}"
    );
    make_responsive(&fleet, 1);
    assert_eq!(
        (fleet.attempts()[1], fleet.bodies()),
        (1, ["x", "one", "x"].map(String::from).to_vec())
    );
}
