//! `hello resume` and `hello revert`: the coordinator is killed at chosen moments, and all
//! instances end on one config.

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    broadcast::two_groups,
    support::{Fleet, Killed, until},
};

const TWO: &[&str] = &["--set", "message=two"];

/// Returns a validator that stops this server while a file requests it.
fn stopping(fleet: &Fleet, at: usize) -> PathBuf {
    let stop = fleet.write("stop", "");
    let text = format!(
        "#!/bin/sh\n\"$1\" check \"$2\" || exit 1\n[ ! -e '{}' ] || kill -STOP {}\n",
        stop.display(),
        fleet.pid(at)
    );
    fleet.write("validator", &text)
}

/// Makes the validator stop this server. It is validated and signalled, and does not answer until
/// it is continued.
fn with_a_victim(fleet: &Fleet, at: usize) {
    let script = stopping(fleet, at);
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let group = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write(
        "fleet.toml",
        &format!(
            "{group}validate = [\"{}\", \"{{exe}}\", \"{{candidate}}\"]\n",
            script.display()
        ),
    );
}

/// Returns the servers in the order of their signals.
fn by_pid(fleet: &Fleet) -> Vec<usize> {
    let mut all: Vec<usize> = (0..fleet.len()).collect();
    all.sort_by_key(|at| fleet.pid(*at));
    all
}

/// Kills a run when the `n`th event of that name is read. Returns whether that happened.
fn kill_at(mut run: Child, event: &str, n: usize) -> Vec<String> {
    let mut seen: Vec<String> = Vec::new();
    for line in BufReader::new(run.stdout.take().unwrap()).lines() {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        seen.push(line["event"].as_str().unwrap_or("the end").to_owned());
        if seen.iter().filter(|e| *e == event).count() == n {
            break;
        }
    }
    let _ = run.kill();
    run.wait().unwrap();
    assert_eq!(seen.iter().filter(|e| *e == event).count(), n, "{seen:?}");
    seen
}

fn jsonl(mut command: Command) -> Child {
    command
        .args(["-o", "jsonl"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Returns the ids of the runs in a state folder, oldest first.
fn ids(fleet: &Fleet, folder: &str) -> Vec<String> {
    let names = std::fs::read_dir(fleet.path("state").join(folder))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut ids: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    ids.sort();
    ids
}

/// Runs a broadcast and kills it at an event. Returns the id of the open run.
pub(crate) fn killed(fleet: &Fleet, args: &[&str], event: &str, n: usize) -> String {
    let mut command = fleet.command(&[]);
    command.args(args);
    kill_at(jsonl(command), event, n);
    let open = ids(fleet, "open");
    assert_eq!(open.len(), 1, "{open:?}");
    open[0].clone()
}

fn go_on(fleet: &Fleet, at: usize) {
    let _ = std::fs::remove_file(fleet.path("stop"));
    fleet.signal(at, Signal::SIGCONT);
    let stopped = || {
        std::fs::read_to_string(format!("/proc/{}/status", fleet.pid(at)))
            .unwrap()
            .contains("State:\tT")
    };
    until("it goes on", || !stopped());
}

/// Checks that no run is open and nothing staged remains.
fn at_an_end(fleet: &Fleet, context: &str) {
    assert_eq!(
        ids(fleet, "open"),
        Vec::<String>::new(),
        "{context}: no run is open"
    );
    let names = std::fs::read_dir(fleet.dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap());
    assert_eq!(
        names
            .filter(|name| name.starts_with('.'))
            .collect::<Vec<_>>(),
        Vec::<String>::new(),
        "{context}: nothing staged is left"
    );
}

/// Checks that all instances and the disk have the config of this message.
fn all_on(fleet: &Fleet, message: &str, context: &str) {
    assert_eq!(fleet.bodies(), vec![message; fleet.len()], "{context}");
    assert!(
        fleet.text().contains(&format!("message = \"{message}\"")),
        "{context}: {}",
        fleet.text()
    );
    at_an_end(fleet, context);
}

fn plan(fleet: &Fleet, run: &str) -> Value {
    serde_json::from_slice(
        &std::fs::read(fleet.path("state/runs").join(run).join("plan.json")).unwrap(),
    )
    .unwrap()
}

#[test]
fn a_run_killed_at_any_event_is_resumed_or_reverted() {
    // The victim is chosen by the order of signals, and keeps the run waiting.
    for (victim, limit, event, n) in [
        (0, "20s", "intent", 1),
        (0, "20s", "installed", 1),
        (2, "20s", "instance", 1),
        (2, "20s", "instance", 2),
        (2, "500ms", "rollback_began", 1),
    ] {
        for (verb, message) in [("resume", "two"), ("revert", "one")] {
            let context = format!("{verb} after {event} {n}");
            let fleet = Fleet::start(3);
            let victim = by_pid(&fleet)[victim];
            with_a_victim(&fleet, victim);
            let run = killed(&fleet, &[TWO, &["--timeout", limit]].concat(), event, n);
            go_on(&fleet, victim);
            let result = fleet.continue_run(verb, &["--reason", "it was left"]);
            assert_eq!(
                result.code, 0,
                "{context}: {}\n{:#}",
                result.stderr, result.json
            );
            assert!(
                result.stderr.contains(&format!("Superseded run {run}")),
                "{context}: {}",
                result.stderr
            );
            all_on(&fleet, message, &context);
            let kept = plan(&fleet, result.json["run"].as_str().unwrap());
            assert_eq!(
                (&kept["verb"], &kept["of"], &kept["reason"]),
                (&verb.into(), &run.into(), &"it was left".into()),
                "{context}"
            );
        }
    }
}

/// Starts three servers: two are proven on the new config one after the other, the third is
/// stopped. Returns it and the run.
fn left_in_the_second_wave(fleet: &Fleet) -> (usize, String) {
    let last = by_pid(fleet)[2];
    with_a_victim(fleet, last);
    let run = killed(fleet, &[TWO, &["--timeout", "20s"]].concat(), "instance", 2);
    go_on(fleet, last);
    (last, run)
}

#[test]
fn a_concurrent_edit_is_never_overwritten() {
    let fleet = Fleet::start(3);
    let (last, run) = left_in_the_second_wave(&fleet);
    // Its signal was pending while it was stopped.
    until("it has taken its signal", || fleet.attempts()[last] > 1);
    let by_hand = fleet.text().replace("two", "by hand");
    fleet.write("web.toml", &by_hand);
    let before = fleet.attempts();
    for verb in ["resume", "revert"] {
        let result = fleet.continue_run(verb, &[]).expect(5);
        assert!(
            [
                "web.toml",
                "neither",
                &run,
                "another program has changed it"
            ]
            .iter()
            .all(|word| result.stderr.contains(word)),
            "{}",
            result.stderr
        );
    }
    assert_eq!(
        (fleet.text(), fleet.attempts(), ids(&fleet, "open")),
        (by_hand, before, vec![run])
    );
}

#[test]
fn an_instance_that_runs_another_config_is_named_and_nothing_is_touched() {
    let fleet = Fleet::start(3);
    let (last, run) = left_in_the_second_wave(&fleet);
    let (now, pid) = (fleet.text(), fleet.pid(last).to_string());
    fleet.write("web.toml", &now.replace("two", "by hand"));
    fleet.signal(last, Signal::SIGHUP);
    until("it loaded that", || fleet.bodies()[last] == "by hand");
    fleet.write("web.toml", &now);
    let before = fleet.attempts();
    for verb in ["resume", "revert"] {
        let result = fleet.continue_run(verb, &[]).expect(5);
        assert!(
            ["runs", &pid, &run, "neither of them"]
                .iter()
                .all(|word| result.stderr.contains(word)),
            "{}",
            result.stderr
        );
    }
    assert_eq!((fleet.text(), fleet.attempts()), (now, before));
}

#[test]
fn an_instance_that_was_restarted_is_reported_and_included() {
    for (verb, message) in [("resume", "two"), ("revert", "one")] {
        let mut fleet = Fleet::start(3);
        let (last, run) = left_in_the_second_wave(&fleet);
        let (gone, order) = (fleet.pid(last).to_string(), by_pid(&fleet));
        fleet.kill(last);
        fleet.serve();
        let result = fleet.continue_run(verb, &["-v"]).expect(0);
        let told = format!("pid {gone} ended since run {run}; replaced by other processes");
        assert!(result.stderr.contains(&told), "{}", result.stderr);
        let pids: Vec<i64> = result.json["instances"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["pid"].as_i64().unwrap())
            .collect();
        assert!(pids.len() == 3, "{pids:?}");
        assert!(pids.contains(&fleet.pid(3).into()), "{pids:?}");
        for at in [order[0], order[1], 3] {
            assert_eq!(crate::support::get(fleet.url(at), "/").1, message, "{verb}");
        }
        at_an_end(&fleet, verb);
    }
}

#[test]
fn an_ended_instance_without_a_successor_is_reported() {
    for (count, verb, code) in [
        ("2..", "resume", 0),
        ("2..", "revert", 0),
        ("3", "resume", 3),
        ("3", "revert", 7),
    ] {
        let context = format!("count = {count}, {verb}");
        let mut fleet = Fleet::start(3);
        let group = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
        fleet.write("fleet.toml", &format!("{group}count = \"{count}\"\n"));
        let (last, run) = left_in_the_second_wave(&fleet);
        let (gone, others) = (
            fleet.pid(last).to_string(),
            [by_pid(&fleet)[0], by_pid(&fleet)[1]],
        );
        fleet.kill(last);
        let before = fleet.text();
        let result = fleet.continue_run(verb, &[]);
        assert_eq!(
            result.code, code,
            "{context}: {}\n{:#}",
            result.stderr, result.json
        );
        assert!(
            result
                .stderr
                .contains(&format!("pid {gone} ended since run {run}; not replaced")),
            "{context}: {}",
            result.stderr
        );
        let bodies = || others.map(|at| crate::support::get(fleet.url(at), "/").1);
        match code {
            // Also in the one line with the reason of the verdict.
            0 => assert!(
                result.json["reason"].as_str().unwrap().contains(&gone),
                "{context}: {:#}",
                result.json
            ),
            3 => {
                assert!(
                    result
                        .stderr
                        .contains(&format!("ended since run {run}: pid {gone}")),
                    "{context}: {}",
                    result.stderr
                );
                assert_eq!(
                    (fleet.text(), ids(&fleet, "open")),
                    (before, vec![run]),
                    "{context}: nothing was touched"
                );
                continue;
            }
            _ => {
                assert_eq!(
                    result.states(),
                    ["confirmed", "confirmed", "died"],
                    "{context}"
                );
                assert!(
                    result.json["reason"]
                        .as_str()
                        .unwrap()
                        .contains(&format!("pid {gone}: ended since run")),
                    "{context}: {:#}",
                    result.json
                );
            }
        }
        assert_eq!(
            bodies(),
            if verb == "resume" {
                ["two"; 2]
            } else {
                ["one"; 2]
            },
            "{context}"
        );
        assert_eq!(fleet.text().contains("two"), verb == "resume", "{context}");
    }
}

#[test]
fn revert_restores_the_old_config_even_without_instances() {
    let mut fleet = Fleet::start(1);
    with_a_victim(&fleet, 0);
    let before = fleet.text();
    killed(
        &fleet,
        &[TWO, &["--timeout", "20s"]].concat(),
        "installed",
        1,
    );
    fleet.kill(0);
    std::fs::remove_file(fleet.path("stop")).unwrap();
    fleet.continue_run("resume", &[]).expect(3);
    let result = fleet.continue_run("revert", &[]).expect(7);
    assert_eq!((result.states(), fleet.text()), (vec!["died"], before));
    // Restarted on that config, it is found again.
    fleet.serve();
    fleet.continue_run("revert", &[]).expect(0);
    at_an_end(&fleet, "it was started again");
}

#[test]
fn revert_rolls_back_a_successful_run_that_is_named() {
    let fleet = Fleet::start(3);
    let run = fleet.broadcast(TWO).expect(0).json["run"]
        .as_str()
        .unwrap()
        .to_owned();
    let before = fleet.attempts();
    for (args, code, says) in [
        (&["revert"][..], 2, "hello revert"),
        (&["resume"], 3, "no run is open"),
        (&["resume", &run], 5, "hello revert"),
        (&["revert", "x"], 3, "no run `x`"),
    ] {
        let result = fleet.continue_run(args[0], &args[1..]).expect(code);
        assert!(result.stderr.contains(says), "{args:?}: {}", result.stderr);
    }
    assert_eq!(fleet.attempts(), before);
    let dry = fleet
        .continue_run("revert", &[&run[..20], "--dry-run"])
        .expect(0);
    assert_eq!(
        (dry.json["targets"][0]["disk"].as_str(), fleet.attempts()),
        (dry.json["targets"][0]["from"].as_str(), before)
    );
    // By the prefix of its id, in one wave.
    let result = fleet.continue_run("revert", &[&run[..20]]).expect(0);
    assert_eq!(result.states(), ["confirmed"; 3]);
    assert!(
        result.json["instances"]
            .as_array()
            .unwrap()
            .iter()
            .all(|i| i["wave"] == 1)
    );
    assert!(
        result.json["reason"]
            .as_str()
            .unwrap()
            .contains("old config")
    );
    all_on(&fleet, "one", "rolled back");
    // Another resume has nothing to do and sends no signal.
    let (before, undo) = (
        fleet.attempts(),
        result.json["run"].as_str().unwrap().to_owned(),
    );
    assert_eq!(
        (
            fleet.continue_run("revert", &[&run]).expect(0).states(),
            fleet.attempts()
        ),
        (vec!["unchanged"; 3], before)
    );
    // The revert is reverted as well.
    fleet.continue_run("revert", &[&undo]).expect(0);
    all_on(&fleet, "two", "rolled back twice");
    // Later content belongs to another writer.
    let later = fleet.broadcast(&["--set", "message=three"]).expect(0).json["run"]
        .as_str()
        .unwrap()
        .to_owned();
    let result = fleet.continue_run("revert", &[&run]).expect(5);
    assert!(
        result
            .stderr
            .contains(&format!("run {later} came after it")),
        "{}",
        result.stderr
    );
    all_on(&fleet, "three", "left alone");
}

#[test]
fn revert_does_not_signal_an_instance_that_never_left_the_old_config() {
    let fleet = Fleet::start(3);
    let first = by_pid(&fleet)[0];
    with_a_victim(&fleet, first);
    killed(
        &fleet,
        &[TWO, &["--timeout", "20s"]].concat(),
        "installed",
        1,
    );
    go_on(&fleet, first);
    let result = fleet.continue_run("revert", &[]).expect(0);
    assert_eq!(result.states(), ["confirmed", "unchanged", "unchanged"]);
    let attempts = fleet.attempts();
    assert_eq!(
        by_pid(&fleet)[1..]
            .iter()
            .map(|at| attempts[*at])
            .collect::<Vec<_>>(),
        [1, 1]
    );
    all_on(&fleet, "one", "rolled back");
}

#[test]
fn a_killed_resume_can_be_resumed() {
    for first in ["revert", "resume"] {
        for (then, named) in [
            ("revert", false),
            ("revert", true),
            ("resume", false),
            ("resume", true),
        ] {
            let context = format!(
                "{first}, then {then}{}",
                if named { " by name" } else { "" }
            );
            let fleet = Fleet::start(3);
            let order = by_pid(&fleet);
            with_a_victim(&fleet, order[0]);
            let run = killed(
                &fleet,
                &[TWO, &["--timeout", "20s"]].concat(),
                "installed",
                1,
            );
            go_on(&fleet, order[0]);
            // The next command reaches its signals.
            let last = order[if first == "revert" { 0 } else { 2 }];
            stopping(&fleet, last);
            let mut command = Command::new(fleet.exe());
            command
                .args([first, "--timeout", "20s", "--state"])
                .arg(fleet.path("state"));
            kill_at(
                jsonl(command),
                "intent",
                if first == "revert" { 1 } else { 2 },
            );
            go_on(&fleet, last);
            let open = ids(&fleet, "open");
            assert_eq!(
                open[0], run,
                "{context}: the open run stays open until an operator acts"
            );
            let result = fleet.continue_run(then, &[&run]).expect(5);
            assert!(
                result
                    .stderr
                    .contains(&format!("run {} came after run {run}", open[1])),
                "{context}: {}",
                result.stderr
            );
            let name = [open[1].as_str()];
            let result = fleet.continue_run(then, if named { &name } else { &[] });
            assert_eq!(
                result.code, 0,
                "{context}: {}\n{:#}",
                result.stderr, result.json
            );
            all_on(
                &fleet,
                if [first, then].contains(&"revert") {
                    "one"
                } else {
                    "two"
                },
                &context,
            );
        }
    }
}

#[test]
fn after_a_restart_of_the_machine_no_pid_means_anything() {
    for (verb, message) in [("resume", "two"), ("revert", "one")] {
        let fleet = Fleet::start(3);
        let (_, run) = left_in_the_second_wave(&fleet);
        let path = fleet.path("state/runs").join(&run).join("plan.json");
        let mut kept = plan(&fleet, &run);
        kept["boot_id"] = "another".into();
        std::fs::write(&path, kept.to_string()).unwrap();
        let result = fleet.continue_run(verb, &[]).expect(0);
        assert!(
            result.stderr.contains(&format!(
                "of run {run}, which was before the reboot; replaced by other processes"
            )),
            "{}",
            result.stderr
        );
        all_on(&fleet, message, verb);
    }
}

#[test]
fn a_validator_that_refuses_the_old_config_is_asked_unless_it_must_be_there() {
    let fleet = Fleet::start(2);
    let script = fleet.write("validator", "#!/bin/sh\n! grep -q '\"one\"' \"$1\"\n");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let group = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write(
        "fleet.toml",
        &format!(
            "{group}validate = [\"{}\", \"{{candidate}}\"]\n",
            script.display()
        ),
    );
    let run = fleet.broadcast(TWO).expect(0).json["run"]
        .as_str()
        .unwrap()
        .to_owned();
    let result = fleet.continue_run("revert", &[&run]).expect(4);
    assert!(
        result.stderr.contains("--validate=off"),
        "{}",
        result.stderr
    );
    all_on(&fleet, "two", "refused");
    fleet
        .continue_run("revert", &[&run, "--validate=off"])
        .expect(0);
    all_on(&fleet, "one", "not asked");
}

#[test]
fn two_targets_of_two_groups_move_in_the_same_direction() {
    for (verb, messages) in [("resume", ["two", "three"]), ("revert", ["one"; 2])] {
        let mut fleet = Fleet::start(2);
        let (new, newer) = two_groups(&mut fleet);
        let other = fleet.len() - 1;
        let changes = [format!("a={new}"), format!("b={newer}")];
        let args = [
            "--config",
            &changes[0],
            "--config",
            &changes[1],
            "--timeout",
            "20s",
        ];
        with_a_victim(&fleet, other);
        killed(&fleet, &args, "installed", 2);
        go_on(&fleet, other);
        fleet.continue_run(verb, &[]).expect(0);
        assert_eq!(
            fleet.bodies(),
            [messages[0], messages[0], messages[1]],
            "{verb}"
        );
        assert_eq!(
            std::fs::read_to_string(fleet.path("other.toml"))
                .unwrap()
                .contains("three"),
            verb == "resume"
        );
        at_an_end(&fleet, verb);
    }
}

#[test]
fn a_run_without_a_target_is_resumed_and_cannot_be_reverted() {
    let fleet = Fleet::start(3);
    let name = fleet.exe().file_name().unwrap().to_str().unwrap();
    let fact = "http = \"http://{listen}/-/metrics\"\nread = 'metric:hello_config_reloads_total{result=\"unchanged\"}'\nincreased = true";
    let group = format!(
        "[[group]]\nname = \"web\"\nreloads = true\nmatch = {{ exe = \"{name}\", args = [\"serve\"] }}\n[[group.confirm]]\n{fact}\n"
    );
    // Its gate blocks the run after the first wave.
    let stop = fleet.write("stop", "");
    let gate = format!(
        "[group.rollout]\ngate = [\"sh\", \"-c\", \"while [ -e '{}' ]; do sleep 0.05; done\"]\n",
        stop.display()
    );
    fleet.write("fleet.toml", &format!("version = 1\n{group}{gate}"));
    let mut broadcast = jsonl(fleet.command(&[]));
    let journal = |run: &String| {
        std::fs::read_to_string(fleet.path("state/runs").join(run).join("events.jsonl"))
            .unwrap_or_default()
    };
    until("its first is proven", || {
        fleet.path("state/open").exists()
            && ids(&fleet, "open")
                .iter()
                .any(|run| journal(run).contains("\"confirmed\""))
    });
    broadcast.kill().unwrap();
    broadcast.wait().unwrap();
    let run = ids(&fleet, "open").remove(0);
    std::fs::remove_file(stop).unwrap();
    let result = fleet.continue_run("revert", &[]).expect(5);
    assert!(
        result
            .stderr
            .contains(&format!("run {run} changed no config")),
        "{}",
        result.stderr
    );
    // A proven instance is not probed again.
    assert_eq!(
        fleet.continue_run("resume", &[]).expect(0).states(),
        ["confirmed", "confirmed", "unchanged"]
    );
    at_an_end(&fleet, "nothing was installed");
}

/// Starts two servers that report nothing about themselves. `config` is their file, `facts` the
/// assertions.
fn unknown(files: &[&str], config: &str, facts: &str) -> Fleet {
    let mut fleet = Fleet::start(0);
    for file in files {
        let path = fleet.path(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "message = \"one\"\nlisten = \"127.0.0.1:0\"\n").unwrap();
    }
    let name = fleet
        .exe()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let config = config.replace("DIR", fleet.dir.path().to_str().unwrap());
    fleet.write("fleet.toml", &format!("version = 1\n[[group]]\nname = \"web\"\nmatch = {{ exe = \"{name}\", args = [\"serve\"] }}\nreloads = true\ntimeout = \"3s\"\nconfig = {config}\n\
             [[group.confirm]]\nhttp = \"http://{{listen}}/\"\n{facts}\n"), );
    (0..2).for_each(|_| fleet.serve_from(files[0]));
    fleet
}

/// Writes a folder with the new content of each target.
fn news(fleet: &Fleet, files: &[&str]) -> String {
    let new = fleet.path("new");
    for file in files {
        let path = new.join(Path::new(file).file_name().unwrap());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "message = \"two\"\nlisten = \"127.0.0.1:0\"\n").unwrap();
    }
    new.display().to_string()
}

#[test]
fn an_instance_that_reports_nothing_is_confirmed_by_assertions() {
    let (equals, changed) = ("equals = \"{candidate.message}\"", "changed = true");
    for (files, config, facts, one) in [
        (&["web.toml"][..], "\"DIR/web.toml\"", equals, true),
        (&["web.toml"], "\"DIR/web.toml\"", changed, true),
        (&["conf.d/web.toml"], "\"DIR/conf.d\"", changed, false),
        (
            &["web.toml", "other.toml"],
            "[[\"DIR/web.toml\"], [\"DIR/other.toml\"]]",
            equals,
            false,
        ),
    ] {
        for (event, n) in [
            ("intent", 1),
            ("installed", 1),
            ("instance", 1),
            ("instance", 2),
            ("finished", 1),
        ] {
            for (verb, message) in [("resume", "two"), ("revert", "one")] {
                let context = format!("{config} {facts} {event} {n} {verb}");
                let fleet = unknown(files, config, facts);
                let new = news(&fleet, files);
                let new = if one { format!("{new}/web.toml") } else { new };
                let mut command = fleet.command(&["--config", &new]);
                command.stdin(Stdio::null());
                kill_at(jsonl(command), event, n);
                let named = ids(&fleet, "runs").remove(0);
                // It may have ended before the kill.
                let open = !ids(&fleet, "open").is_empty();
                if !open && verb == "resume" {
                    fleet.continue_run(verb, &[&named]).expect(5);
                } else {
                    let result = fleet.continue_run(verb, &[&named]);
                    // Nothing may show whether an instance was signalled and has finished that
                    // reload.
                    assert!(
                        matches!(result.code, 0 | 12),
                        "{context}: {}\n{:#}",
                        result.stderr,
                        result.json
                    );
                }
                assert_eq!(fleet.bodies(), [message; 2], "{context}");
                for file in files {
                    assert!(
                        std::fs::read_to_string(fleet.path(file))
                            .unwrap()
                            .contains(&format!("\"{message}\"")),
                        "{context}: {file}"
                    );
                }
                // A command that had reported its end may not have removed its staged files.
                if open {
                    at_an_end(&fleet, &context);
                }
            }
        }
    }
}

/// Serves a message. On SIGHUP it loads the new one, and serves it only when the test allows.
const SLOW: &str = r#"
import http.server, os, signal, sys, threading, time
CONFIG = sys.argv[1]
def read():
    return open(CONFIG).read().split('"')[1]
message, hung, loads = read(), threading.Event(), 0
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(message)))
        self.end_headers()
        self.wfile.write(message.encode())
    def log_message(self, *_):
        pass
signal.signal(signal.SIGHUP, lambda *_: hung.set())
server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("listens", flush=True)
end = time.monotonic() + 120
while time.monotonic() < end:
    if not hung.wait(0.02):
        continue
    hung.clear()
    new = read()
    open(CONFIG + ".loading", "w").close()
    while not os.path.exists(CONFIG + ".go") and time.monotonic() < end:
        time.sleep(0.01)
    message, loads = new, loads + 1
    with open(CONFIG + ".new", "w") as file:
        file.write(str(loads))
    os.rename(CONFIG + ".new", CONFIG + ".loads")
"#;

#[test]
fn an_instance_that_still_loads_the_new_config_has_not_proven_the_old_one() {
    let fleet = Fleet::start(0);
    let (script, config) = (
        fleet.write("slow.py", SLOW),
        fleet.write("slow.toml", "message = \"one\"\n"),
    );
    let mut slow = Killed(
        Command::new("/usr/bin/python3")
            .arg(&script)
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut line = String::new();
    BufReader::new(slow.0.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    fleet.write("fleet.toml", &format!("version = 1\n[[group]]\nname = \"slow\"\nmatch = {{ args = [\"{}\"] }}\nconfig = \"{}\"\nreloads = true\ntimeout = \"40s\"\n\
             [[group.confirm]]\nhttp = \"http://{{listen}}/\"\nequals = \"{{candidate.message}}\"\n", script.display(), config.display()), );
    let mut command = fleet.command(TWO);
    let mut run = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("it loads the new config", || {
        fleet.path("slow.toml.loading").exists()
    });
    run.kill().unwrap();
    run.wait().unwrap();
    let mut command = Command::new(fleet.exe());
    command
        .args(["revert", "--timeout", "8s", "--state"])
        .arg(fleet.path("state"));
    let mut revert = jsonl(command);
    let mut lines = BufReader::new(revert.stdout.take().unwrap())
        .lines()
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    assert!(lines.any(|line| line["event"] == "installed"));
    // It shows the wanted answer all this time, and would switch to the new config later.
    std::thread::sleep(Duration::from_secs(1));
    std::fs::write(fleet.path("slow.toml.go"), "").unwrap();
    let last = lines.last().unwrap();
    let loads = std::fs::read_to_string(fleet.path("slow.toml.loads")).unwrap_or_default();
    // The new content may have existed too briefly to be seen.
    let code = revert.wait().unwrap().code();
    let is_honest = (code == Some(0) && last["counts"]["confirmed"] == 1)
        || (code == Some(12) && last["counts"]["unconfirmed"] == 1);
    assert!(is_honest, "{code:?} after {loads:?} reloads: {last:#}");
    assert!(
        code == Some(12) || loads == "2",
        "{code:?} after {loads:?} reloads: {last:#}"
    );
}
