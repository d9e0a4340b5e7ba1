//! Checks after a wave (bake, gate), partial rollbacks, and interrupts or a closed terminal between
//! waves.

use std::{
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    rogue::{Rogue, SEEN, mixed},
    rollout::{add_keys, instance, run, server, stops},
    support::{Fleet, Killed, get, until},
};

/// Adds a gate with this script to the only group, and further keys to its `[group.rollout]`.
fn with_a_gate(fleet: &Fleet, rollout: &str, script: &str) -> PathBuf {
    let gate = fleet.write("gate", &format!("#!/bin/sh\n{script}\n"));
    std::fs::set_permissions(&gate, std::fs::Permissions::from_mode(0o755)).unwrap();
    add_keys(
        fleet,
        &format!(
            "[group.rollout]\n{rollout}\ngate = [\"{}\", \"of web\"]\n",
            gate.display()
        ),
    );
    gate
}

/// Returns the outcomes of a run's instances, sorted.
fn states(result: &Value) -> Vec<&str> {
    let mut states: Vec<&str> = result["instances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["outcome"].as_str().unwrap())
        .collect();
    states.sort_unstable();
    states
}

fn of<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|e| e["event"] == name).collect()
}

/// Returns the index of the server of a report entry.
fn which(result: &Value, state: &str) -> i32 {
    let i = result["instances"]
        .as_array()
        .unwrap()
        .iter()
        .find(|i| i["outcome"] == state)
        .unwrap();
    i32::try_from(i["pid"].as_i64().unwrap()).unwrap()
}

#[test]
fn a_gate_gets_its_wave_and_its_output_is_reported() {
    let fleet = Fleet::start(3);
    let heard = fleet.path("heard");
    with_a_gate(
        &fleet,
        "",
        &format!(
            "echo \"$1 $HELLO_RUN $HELLO_WAVE\"; echo aside >&2; cat >>'{}'; exit 0",
            heard.display()
        ),
    );
    let (events, code) = run(fleet.command(&["--set", "message=x"]), |_| {});
    let result = events.last().unwrap();
    assert_eq!(
        (code, fleet.bodies()),
        (0, vec!["x".into(); 3]),
        "{result:#}"
    );
    let id = result["run"].as_str().unwrap();
    for (place, gate) in of(&events, "gate").into_iter().enumerate() {
        let output = format!("of web {id} {}\naside\n", place + 1);
        assert_eq!(
            (&gate["wave"], &gate["exit"], &gate["output"]),
            (&(place + 1).into(), &0.into(), &output.into())
        );
        assert_eq!(gate, &result["gates"][place], "the report has it too");
    }
    assert_eq!(of(&events, "gate").len(), 2);
    // One line for each instance of its wave, with its outcome so far.
    let heard: Vec<Value> = std::fs::read_to_string(heard)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        heard
            .iter()
            .map(|i| i["wave"].as_u64().unwrap())
            .collect::<Vec<_>>(),
        [1, 2, 2]
    );
    assert!(
        heard.iter().all(|i| i["outcome"] == "confirmed"
            && i["group"] == "web"
            && i["endpoint"].as_str().unwrap().starts_with("http://")),
        "{heard:#?}"
    );
    // It is in the journal and in the text output as well.
    let journal = std::fs::read_to_string(
        fleet
            .path("state")
            .join("runs")
            .join(id)
            .join("events.jsonl"),
    )
    .unwrap();
    assert_eq!(journal.matches("\"event\":\"gate\"").count(), 2);
    let screen = String::from_utf8(
        fleet
            .command(&["--set", "message=y"])
            .output()
            .unwrap()
            .stderr,
    )
    .unwrap();
    assert!(screen.contains("gate of wave 2"), "{screen}");
    assert!(
        screen.contains("passed\n             | of web "),
        "{screen}"
    );
    assert!(screen.contains("             | aside\n"), "{screen}");
}

#[test]
fn a_gate_that_fails_or_cannot_run_triggers_the_configured_action() {
    for (on_failure, script, code, wanted, message) in [
        (
            "revert",
            "echo too many errors; exit 1",
            6,
            ["reverted", "untouched", "untouched"],
            "one",
        ),
        (
            "stop",
            "echo too many errors; exit 1",
            8,
            ["confirmed", "untouched", "untouched"],
            "x",
        ),
        (
            "continue",
            "echo too many errors; exit 1",
            8,
            ["confirmed"; 3],
            "x",
        ),
        (
            "revert",
            "kill -9 $$",
            6,
            ["reverted", "untouched", "untouched"],
            "one",
        ),
        (
            "revert",
            "",
            6,
            ["reverted", "untouched", "untouched"],
            "one",
        ),
    ] {
        let fleet = Fleet::start(3);
        let gate = with_a_gate(&fleet, &format!("on_failure = \"{on_failure}\""), script);
        if script.is_empty() {
            std::fs::remove_file(&gate).unwrap();
        }
        let result = fleet.broadcast(&["--set", "message=x"]).expect(code);
        assert_eq!(result.states(), wanted, "{on_failure} {script}");
        assert!(
            result.json["reason"]
                .as_str()
                .unwrap()
                .contains("the gate of wave"),
            "{:#}",
            result.json
        );
        assert!(
            fleet.text().contains(&format!("message = \"{message}\"")),
            "{on_failure} {script}"
        );
        let asked = result.json["gates"].as_array().unwrap();
        assert_eq!(asked.len(), if on_failure == "continue" { 2 } else { 1 });
        let says = match script {
            "" => "could not be run",
            "kill -9 $$" => "ended by signal 9",
            _ => "too many errors",
        };
        assert!(
            asked[0]["output"].as_str().unwrap().contains(says),
            "{:#}\n{}",
            result.json,
            result.stderr
        );
        assert!(
            result.stderr.contains(says),
            "{:#}\n{}",
            result.json,
            result.stderr
        );
        if code == 8 {
            assert!(
                result.stderr.contains(&format!(
                    "\n  hello revert {} --state ",
                    result.json["run"].as_str().unwrap()
                )),
                "{}",
                result.stderr
            );
        }
    }
}

#[test]
fn an_instance_that_serves_the_new_config_only_briefly_is_found_after_the_bake() {
    let forgets = |rollout: &str| {
        let fleet = Fleet::start(0);
        let group =
            format!("reloads = true\n{SEEN}\n[group.rollout]\nbake = \"20ms\"\n{rollout}\n");
        let all = mixed(&fleet, "forgets", &["good", "good", "forgets"], &group);
        let (events, code) = run(fleet.command(&["--set", "message=x"]), |_| {});
        (fleet, all, events, code)
    };
    let (fleet, all, events, code) = forgets("");
    let result = events.last().unwrap();
    assert_eq!(
        (code, fleet.text().contains("\"one\"")),
        (6, true),
        "{result:#}"
    );
    let bad = instance(result, all[2].pid());
    assert!(
        bad["failure"]["text"]
            .as_str()
            .unwrap()
            .starts_with("no longer proven: "),
        "{bad:#}"
    );
    assert_eq!(
        (&bad["failure"]["kind"], &bad["outcome"]),
        (&"timed_out".into(), &"reverted".into())
    );
    assert!(
        all.iter().all(|r| get(&r.url, "/").1 == "one"),
        "all instances are rolled back"
    );
    // Within the budget it is rolled back alone, and the others stay.
    // On a busy machine it may take its signal only after the new file has returned, which is exit
    // 7.
    let mut tries = (0..5).map(|_| forgets("max_failures = 1"));
    let (fleet, all, events, code) = tries
        .find(|(.., code)| *code != 7)
        .expect("it goes back alone");
    let result = events.last().unwrap();
    assert_eq!(
        (code, states(result), fleet.text().contains("\"x\"")),
        (8, vec!["confirmed", "confirmed", "reverted"], true),
        "{result:#}"
    );
    assert_eq!(
        all.iter().map(|r| get(&r.url, "/").1).collect::<Vec<_>>(),
        ["x", "x", "one"]
    );
    let held = of(&events, "baked").last().unwrap()["instances"].clone();
    assert_eq!(
        (held, of(&events, "rolled_back")[0]["pids"].clone()),
        (2.into(), serde_json::json!([all[2].pid()]))
    );
}

/// Lets the gate of the first wave act on its instance. Returns the report.
fn between_the_waves(
    rollout: &str,
    act: &str,
    on: impl Fn(&Fleet, usize, &Value),
) -> (Fleet, usize, Vec<Value>, i32) {
    let fleet = Fleet::start(3);
    with_a_gate(
        &fleet,
        rollout,
        &format!(
            "[ $HELLO_WAVE = 1 ] || exit 0\npid=$(sed 's/.*\"pid\":\\([0-9]*\\),.*/\\1/')\n{act}"
        ),
    );
    let canary = (0..3).min_by_key(|at| fleet.pid(*at)).unwrap();
    let (events, code) = run(
        fleet.command(&["--timeout", "1s", "--set", "message=x"]),
        |event| on(&fleet, canary, event),
    );
    (fleet, canary, events, code)
}

#[test]
fn an_instance_that_died_after_its_wave_is_found_after_the_next_bake_or_at_the_end() {
    for (rollout, code, wanted) in [
        ("bake = \"20ms\"", 7, ["died", "reverted", "reverted"]),
        ("", 7, ["died", "reverted", "reverted"]),
        (
            "on_failure = \"stop\"",
            7,
            ["confirmed", "confirmed", "died"],
        ),
        ("max_failures = 1", 7, ["confirmed", "confirmed", "died"]),
    ] {
        let (fleet, canary, events, ended) =
            between_the_waves(rollout, "kill -9 $pid", |_, _, _| {});
        let result = events.last().unwrap();
        assert_eq!(
            (ended, states(result)),
            (code, wanted.to_vec()),
            "{rollout} {result:#}"
        );
        let dead = instance(result, fleet.pid(canary));
        assert!(
            dead["failure"]["text"]
                .as_str()
                .unwrap()
                .starts_with("no longer proven: "),
            "{dead:#}"
        );
        assert!(!dead["start"].is_null(), "{dead:#}");
    }
}

#[test]
fn an_instance_that_hangs_after_its_wave_is_rolled_back_once_it_continues() {
    for (rollout, code, wanted, message) in [
        ("bake = \"20ms\"", 6, ["reverted"; 3], "one"),
        ("", 6, ["reverted"; 3], "one"),
        (
            "max_failures = 1",
            8,
            ["confirmed", "confirmed", "reverted"],
            "x",
        ),
    ] {
        let goes_on = |fleet: &Fleet, canary: usize, event: &Value| {
            if event["event"] == "rolled_back" || event["event"] == "rollback_began" {
                fleet.signal(canary, Signal::SIGCONT);
            }
        };
        let (fleet, canary, events, ended) = between_the_waves(rollout, "kill -STOP $pid", goes_on);
        let result = events.last().unwrap();
        assert_eq!(
            (ended, states(result)),
            (code, wanted.to_vec()),
            "{rollout} {result:#}"
        );
        let mut bodies = vec![message; 3];
        bodies[canary] = "one";
        assert_eq!(fleet.bodies(), bodies, "{rollout}");
        assert!(
            fleet.text().contains(&format!("message = \"{message}\"")),
            "{rollout}"
        );
    }
}

#[test]
fn a_file_edited_during_the_run_is_left_alone_and_proves_nothing() {
    let (fleet, _, events, code) = between_the_waves(
        "",
        "printf 'message = \"by hand\"\\nlisten = \"127.0.0.1:0\"\\n' >\"$(dirname \"$0\")/web.toml\"",
        |_, _, _| {},
    );
    let result = events.last().unwrap();
    // Neither an install nor a rollback is allowed there any more.
    assert_eq!(
        (code, states(result)),
        (7, vec!["revert_failed", "untouched", "untouched"]),
        "{result:#}"
    );
    assert!(fleet.text().contains("by hand"), "{result:#}");
    assert!(
        result["instances"]
            .to_string()
            .contains("could not be rolled back"),
        "{result:#}"
    );
    // After the last gate every instance and its file are checked again.
    let after = "printf 'message = \"by hand\"\\nlisten = \"127.0.0.1:0\"\\n' >\"$(dirname \"$0\")/web.toml\"";
    let (_, _, events, code) = between_the_waves("waves = [\"100%\"]", after, |_, _, _| {});
    let result = events.last().unwrap();
    assert_eq!(
        (code, states(result)),
        (7, vec!["revert_failed"; 3]),
        "{result:#}"
    );
    assert!(
        result["reason"]
            .as_str()
            .unwrap()
            .contains("was changed by another program since"),
        "{result:#}"
    );
}

#[test]
fn a_file_edited_after_the_proof_is_found_by_the_next_check() {
    for (rollout, other) in [("", "reverted"), ("max_failures = 1", "confirmed")] {
        let mut fleet = Fleet::start(0);
        for name in ["a.toml", "b.toml"] {
            fleet.write(name, &fleet.text());
            fleet.serve_from(name);
        }
        let write = "file=$(sed 's/.*\"targets\":\\[\"\\([^\"]*\\)\".*/\\1/'); echo '# by hand' >>\"$file\"";
        with_a_gate(
            &fleet,
            rollout,
            &format!("[ $HELLO_WAVE = 1 ] || exit 0\n{write}"),
        );
        let (events, code) = run(fleet.command(&["--set", "message=x"]), |_| {});
        let result = events.last().unwrap();
        let mut wanted = vec![other, "revert_failed"];
        wanted.sort_unstable();
        assert_eq!((code, states(result)), (7, wanted), "{rollout} {result:#}");
        let bad = instance(result, which(result, "revert_failed"));
        assert!(
            bad["failure"]["text"]
                .as_str()
                .unwrap()
                .contains("was changed by another program since"),
            "{bad:#}"
        );
        let text = std::fs::read_to_string(bad["targets"][0].as_str().unwrap()).unwrap();
        assert!(text.ends_with("# by hand\n"), "it is left alone: {text}");
        assert!(text.contains("\"x\""), "it is left alone: {text}");
    }
}

/// Starts rogues that share a file, and runs a broadcast over them.
fn shared(modes: &[&str], rollout: &str) -> (Fleet, Vec<Rogue>, Value, i32) {
    let fleet = Fleet::start(0);
    // It counts its signals, which shows the end of a reload without a change.
    let counts = "[[group.confirm]]\nhttp = \"http://{listen}/signals\"\nincreased = true";
    let all = mixed(
        &fleet,
        "shared",
        modes,
        &format!("reloads = true\n{SEEN}\n{counts}\n[group.rollout]\n{rollout}\n"),
    );
    let (events, code) = run(fleet.command(&["--set", "message=x"]), |_| {});
    (fleet, all, events.last().unwrap().clone(), code)
}

#[test]
fn within_the_budget_one_instance_is_rolled_back_alone_and_the_shared_file_returns() {
    let (fleet, all, result, code) =
        shared(&["good", "old", "good", "good"], "max_failures = \"25%\"");
    assert_eq!(
        (code, states(&result)),
        (8, vec!["confirmed", "confirmed", "confirmed", "reverted"]),
        "{result:#}"
    );
    assert!(fleet.text().contains("\"x\""), "the file is the new one");
    assert_eq!(
        all.iter().map(|r| get(&r.url, "/").1).collect::<Vec<_>>(),
        ["x", "one", "x", "x"]
    );
    assert_eq!(
        (which(&result, "reverted"), all[1].signals().as_str()),
        (all[1].pid(), "2"),
        "it was signalled back, and proven"
    );
    assert!(
        [0, 2, 3].into_iter().all(|at| all[at].signals() == "1"),
        "no other instance was"
    );
    assert_eq!(result["targets"][0]["disk"], result["targets"][0]["to"]);
}

#[test]
fn past_the_budget_the_group_decides_the_action() {
    // The budget covers the whole run: one failure in each of two waves.
    let modes = ["good", "old", "good", "old"];
    let (fleet, all, result, code) = shared(&modes, "waves = [\"50%\"]\nmax_failures = 1");
    assert!(code == 6, "{result:#}");
    assert!(
        states(&result)
            .iter()
            .all(|s| ["reverted", "untouched"].contains(s)),
        "{result:#}"
    );
    assert!(fleet.text().contains("\"one\""));
    assert!(all.iter().all(|r| get(&r.url, "/").1 == "one"));
    for (on_failure, max, wanted) in [("stop", 0, 2), ("continue", 0, 0), ("stop", 1, 0)] {
        let (fleet, all, result, code) = shared(
            &modes,
            &format!("waves = [\"50%\"]\nmax_failures = {max}\non_failure = \"{on_failure}\""),
        );
        let untouched = states(&result)
            .iter()
            .filter(|s| **s == "untouched")
            .count();
        let context = format!("{on_failure} {max} {result:#}");
        // Whichever is the canary, the old config is back and the good instances of the waves are
        // not on it.
        assert!(code == 8 || code == 6, "{context}");
        assert!(
            states(&result)
                .iter()
                .all(|s| ["confirmed", "reverted", "untouched"].contains(s)),
            "{context}"
        );
        assert!(untouched >= wanted, "{context}");
        let serves = |pid: i32| get(&all.iter().find(|r| r.pid() == pid).unwrap().url, "/").1;
        for i in result["instances"].as_array().unwrap() {
            let pid = i32::try_from(i["pid"].as_i64().unwrap()).unwrap();
            assert_eq!(
                serves(pid),
                if i["outcome"] == "confirmed" {
                    "x"
                } else {
                    "one"
                },
                "{context}"
            );
        }
        let new = states(&result).contains(&"confirmed");
        assert_eq!(
            (code, fleet.text().contains("\"x\"")),
            (if new { 8 } else { 6 }, new),
            "{context}"
        );
    }
}

#[test]
fn an_instance_with_its_own_file_is_rolled_back_alone() {
    let mut fleet = Fleet::start(0);
    for name in ["a.toml", "b.toml", "c.toml"] {
        fleet.write(name, &fleet.text());
        fleet.serve_from(name);
    }
    add_keys(
        &fleet,
        &format!(
            "{}[group.rollout]\nwaves = [\"100%\"]\nmax_failures = 1\n",
            stops(&fleet, fleet.pid(1))
        ),
    );
    let (events, code) = run(
        fleet.command(&["--timeout", "1s", "--set", "message=x"]),
        |event| {
            if event["event"] == "rolled_back" {
                fleet.signal(1, Signal::SIGCONT);
            }
        },
    );
    let result = events.last().unwrap();
    assert_eq!(
        (code, states(result), fleet.bodies()),
        (
            8,
            vec!["confirmed", "confirmed", "reverted"],
            vec!["x".into(), "one".into(), "x".into()]
        ),
        "{result:#}"
    );
    for (name, message) in [("a.toml", "x"), ("b.toml", "one"), ("c.toml", "x")] {
        assert!(
            std::fs::read_to_string(fleet.path(name))
                .unwrap()
                .contains(&format!("message = \"{message}\"")),
            "{name}"
        );
    }
    let installed: Vec<&str> = of(&events, "installed")
        .iter()
        .map(|e| e["path"].as_str().unwrap())
        .collect();
    assert_eq!(
        installed.len(),
        4,
        "three forth, and one back: {installed:?}"
    );
    assert_eq!(server(&fleet, which(result, "reverted")), 1);
}

#[test]
fn an_interrupt_during_bake_or_gate_rolls_back_or_stops() {
    for (on_failure, code, wanted) in [
        ("revert", 6, ["reverted", "untouched", "untouched"]),
        ("stop", 8, ["confirmed", "untouched", "untouched"]),
    ] {
        for (phase, rollout, gate) in [
            ("baking", "bake = \"600s\"", "exit 0"),
            ("gate", "", "touch \"$0.asked\"; exec sleep 600"),
        ] {
            let fleet = Fleet::start(3);
            with_a_gate(
                &fleet,
                &format!("on_failure = \"{on_failure}\"\n{rollout}"),
                gate,
            );
            let mut command = fleet.command(&["-o", "json", "--set", "message=x"]);
            let child = command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
            let began = || match phase {
                "baking" => journal(&fleet).contains("\"event\":\"baking\""),
                _ => fleet.path("gate.asked").exists(),
            };
            until(phase, began);
            kill(pid, Signal::SIGINT).unwrap();
            let output = child.wait_with_output().unwrap();
            let result: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(
                (output.status.code(), states(&result)),
                (Some(code), wanted.to_vec()),
                "{on_failure} while {phase}: {result:#}"
            );
            assert!(
                result["reason"]
                    .as_str()
                    .unwrap()
                    .contains("interrupted by the operator"),
                "{result:#}"
            );
            assert_eq!(fleet.text().contains("\"x\""), on_failure == "stop");
        }
    }
}

/// Returns all records of the newest run.
fn journal(fleet: &Fleet) -> String {
    let runs = std::fs::read_dir(fleet.path("state/runs"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .max();
    runs.and_then(|run| std::fs::read_to_string(run.join("events.jsonl")).ok())
        .unwrap_or_default()
}

#[test]
fn an_interrupt_between_two_waves_leaves_no_instance_on_the_new_config() {
    let fleet = Fleet::start(3);
    // The gate itself interrupts the run, and passes.
    with_a_gate(
        &fleet,
        "",
        "kill -INT $(cut -d' ' -f4 /proc/$PPID/stat); exit 0",
    );
    let result = fleet.broadcast(&["--set", "message=x"]).expect(6);
    assert!(
        result.json["reason"]
            .as_str()
            .unwrap()
            .contains("interrupted"),
        "{:#}",
        result.json
    );
    assert!(fleet.bodies() == ["one"; 3], "{:#}", result.json);
    assert!(fleet.text().contains("\"one\""), "{:#}", result.json);
}

#[test]
fn a_terminal_that_closes_during_a_run_changes_nothing() {
    let mut fleet = Fleet::start(3);
    fleet.write("other.toml", &fleet.text());
    with_a_gate(
        &fleet,
        "bake = \"20ms\"",
        "touch \"$0.asked\"; until [ -e \"$0.go\" ]; do sleep 0.05; done; exit 0",
    );
    let command = fleet.command(&["-v", "--set", "message=x"]);
    let line: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    // `script` provides the terminal, which closes with it.
    let mut terminal = Command::new("script");
    terminal
        .args([
            "-q",
            "-e",
            "-c",
            &format!("exec {}", line.join(" ")),
            "/dev/null",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let Ok(child) = terminal.spawn() else {
        crate::support::skipped("there is no `script`");
        return;
    };
    let mut terminal = Killed(child);
    until("the first wave is proven and judged", || {
        fleet.path("gate.asked").exists()
    });
    let hello = children(i32::try_from(terminal.0.id()).unwrap());
    let has_terminal = |pid: i32| {
        procfs::process::Process::new(pid)
            .and_then(|p| p.stat())
            .is_ok_and(|stat| stat.tty_nr != 0)
    };
    assert!(hello.len() == 1, "{hello:?}");
    assert!(has_terminal(hello[0]), "{hello:?}");
    terminal.0.kill().unwrap();
    terminal.0.wait().unwrap();
    until("its terminal is gone", || !has_terminal(hello[0]));
    fleet.write("gate.go", "");
    until("the run is over", || {
        journal(&fleet).contains("\"event\":\"finished\"")
    });
    assert!(
        journal(&fleet).contains("\"verdict\":\"converged\""),
        "{}",
        journal(&fleet)
    );
    assert_eq!(
        (fleet.bodies(), fleet.attempts()),
        (vec!["x".into(); 3], vec![2; 3])
    );
    until("no process is left", || {
        procfs::process::Process::new(hello[0]).is_err()
    });
    fleet.kill(0);
}

fn children(pid: i32) -> Vec<i32> {
    let all = procfs::process::all_processes()
        .unwrap()
        .flatten()
        .filter_map(|p| p.stat().ok());
    all.filter(|stat| stat.ppid == pid)
        .map(|stat| stat.pid)
        .collect()
}

#[test]
fn a_full_or_closed_pipe_does_not_block_a_wave() {
    let fleet = Fleet::start(4);
    with_a_gate(
        &fleet,
        "waves = [1, 2, 3]\nbake = \"1ms\"",
        "head -c 20000 /dev/zero | tr '\\0' x; exit 0",
    );
    let (unread, write) = std::io::pipe().unwrap();
    nix::fcntl::fcntl(&write, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let command = fleet.command(&["-o", "jsonl", "--set", "message=x"]);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "exec \"$0\" \"$@\" 2>&-"])
        .arg(command.get_program())
        .args(command.get_args())
        .stdout(write);
    let mut child = Killed(shell.spawn().unwrap());
    until("it converges without a reader", || {
        fleet.bodies() == ["x"; 4]
    });
    until("it ends without a reader", || {
        child.0.try_wait().unwrap().is_some()
    });
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
    assert_eq!(journal(&fleet).matches("\"event\":\"gate\"").count(), 4);
    drop(unread);
}
