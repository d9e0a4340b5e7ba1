//! How a run is named and undone: short ids, the hint at its end, and a revert without a name.

use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    broadcast::with_a_victim,
    pty::Terminal,
    support::{CommandResult, Fleet, until},
};

/// A command about the runs of a fleet.
fn about(fleet: &Fleet, args: &[&str]) -> Command {
    let mut command = Command::new(fleet.exe());
    command.args(args).arg("--state").arg(fleet.path("state"));
    command
}

fn stdout(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Installs a message, and returns the run's id.
fn install(fleet: &Fleet, message: &str) -> String {
    let set = format!("message={message}");
    let result = fleet.broadcast(&["--set", &set]).expect(0);
    run_of(&result.json)
}

fn run_of(json: &Value) -> String {
    json["run"].as_str().unwrap().to_owned()
}

#[test]
fn a_run_ends_with_its_id_and_the_command_that_undoes_it() {
    let fleet = Fleet::start(1);
    let text = CommandResult::of(&mut fleet.command(&["--set", "message=two"]))
        .expect(0)
        .stderr;
    let json = CommandResult::of(&mut about(&fleet, &["history", "-o", "json", "@"]));
    let id = run_of(&json.json);
    assert!(text.contains(&format!("         Run {id}\n")), "{text}");
    let undo = text.lines().last().unwrap().trim();
    let state = fleet.path("state").display().to_string();
    assert_eq!(undo, format!("hello revert {} --state {state}", &id[..12]));
    // Typed as it is, it undoes the run.
    let words: Vec<&str> = undo.split(' ').skip(1).collect();
    let result = CommandResult::of(Command::new(fleet.exe()).args(words)).expect(0);
    assert_eq!(fleet.bodies(), ["one"]);
    assert!(result.stderr.contains("hello revert "), "{}", result.stderr);
}

#[test]
fn a_run_that_changed_nothing_says_nothing_of_a_revert() {
    let fleet = Fleet::start(1);
    let text = CommandResult::of(&mut fleet.command(&["--set", "message=one"]))
        .expect(0)
        .stderr;
    assert!(!text.contains("revert"), "{text}");
    assert!(!text.contains("Run "), "{text}");
    let quiet = CommandResult::of(&mut fleet.command(&["-q", "--set", "message=two"]))
        .expect(0)
        .stderr;
    assert_eq!(quiet, "");
}

#[test]
fn history_shows_ids_that_can_be_typed_and_json_has_the_whole_id() {
    let fleet = Fleet::start(1);
    let [first, second] = ["two", "three"].map(|message| install(&fleet, message));
    let text = stdout(&mut about(&fleet, &["history"]));
    for (line, id) in text.lines().skip(1).zip([&second, &first]) {
        let short = line.split(' ').next().unwrap();
        assert!(id.starts_with(short), "{line}");
        assert!(short.len() >= 8 && short.len() < 20, "{line}");
        let found = CommandResult::of(&mut about(&fleet, &["history", "-o", "json", short]));
        assert_eq!(run_of(&found.expect(0).json), *id);
    }
    let json = CommandResult::of(&mut about(&fleet, &["history", "-o", "json"])).json;
    assert_eq!(run_of(&json["runs"][0]), second);
}

#[test]
fn every_command_takes_a_place_from_the_end_or_the_first_digits() {
    let fleet = Fleet::start(1);
    let [first, second] = ["two", "three"].map(|message| install(&fleet, message));
    let upper = format!("{}-{}", &first[..8], &first[8..]).to_uppercase();
    for (name, id) in [("@", &second), ("@-1", &first), (&upper, &first)] {
        let found = CommandResult::of(&mut about(&fleet, &["history", "-o", "json", name]));
        assert_eq!(run_of(&found.expect(0).json), *id, "{name}");
    }
    let refused = fleet.continue_run("resume", &["@-1"]).expect(5).json;
    assert!(
        refused["reason"].as_str().unwrap().contains(&first),
        "{refused:#}"
    );
    fleet.continue_run("revert", &["@"]).expect(0);
    assert_eq!(fleet.bodies(), ["two"]);
    let forgotten = CommandResult::of(&mut about(&fleet, &["forget", "@-1"]))
        .expect(0)
        .stderr;
    assert!(forgotten.contains(&second), "{forgotten}");
    assert!(
        forgotten.contains("(broadcast of web, by uid "),
        "{forgotten}"
    );
    // A variable of a script that is not set names no run.
    for (verb, name) in [("revert", ""), ("revert", "@-9"), ("resume", "@x")] {
        fleet.continue_run(verb, &[name]).expect(3);
    }
    assert_eq!(fleet.bodies(), ["two"]);
}

#[test]
fn an_ambiguous_name_touches_nothing_and_names_the_runs() {
    let fleet = Fleet::start(1);
    let ids = ["two", "three"].map(|message| install(&fleet, message));
    let shared = &ids[0][..1];
    let result = fleet.continue_run("revert", &[shared]).expect(2);
    let reason = result.json["reason"].as_str().unwrap();
    for id in &ids {
        assert!(reason.contains(&id[..8]), "{reason}");
    }
    assert_eq!(fleet.bodies(), ["three"]);
}

#[test]
fn a_revert_without_a_name_needs_a_yes() {
    let fleet = Fleet::start(1);
    let id = install(&fleet, "two");
    let result = fleet.continue_run("revert", &[]).expect(2);
    assert_eq!(fleet.bodies(), ["two"]);
    let next = result.json["next"][0].as_str().unwrap();
    let wanted = format!(
        "hello revert {} --state {}",
        &id[..12],
        fleet.path("state").display()
    );
    assert_eq!(next, wanted);
    assert!(result.stderr.contains(&wanted), "{}", result.stderr);
    fleet.continue_run("revert", &["--dry-run"]).expect(0);
    assert_eq!(fleet.bodies(), ["two"]);
    fleet.continue_run("revert", &["--yes"]).expect(0);
    assert_eq!(fleet.bodies(), ["one"]);
    // The revert itself is not the last run: nothing is left to undo.
    let result = fleet.continue_run("revert", &["--yes"]).expect(3);
    assert!(result.json["instances"].is_array(), "{:#}", result.json);
    let next = result.json["next"][0].as_str().unwrap();
    assert!(next.starts_with("hello history --state "), "{next}");
    assert_eq!(fleet.bodies(), ["one"]);
}

#[test]
fn each_revert_without_a_name_goes_one_run_further_back() {
    let fleet = Fleet::start(1);
    install(&fleet, "two");
    install(&fleet, "three");
    for body in ["two", "one"] {
        fleet.continue_run("revert", &["-y"]).expect(0);
        assert_eq!(fleet.bodies(), [body]);
    }
    // The newest revert by name brings the config back that it reverted.
    fleet.continue_run("revert", &["@"]).expect(0);
    assert_eq!(fleet.bodies(), ["two"]);
}

#[test]
fn an_open_run_is_reverted_without_a_question() {
    let fleet = Fleet::start(1);
    install(&fleet, "two");
    with_a_victim(&fleet);
    fleet
        .broadcast(&["--set", "message=three", "--timeout", "1s"])
        .expect(7);
    fleet.signal(0, Signal::SIGCONT);
    fleet.continue_run("revert", &["--validate=off"]).expect(0);
    assert_eq!(fleet.bodies(), ["two"]);
}

#[test]
fn a_run_that_is_under_way_is_not_reverted() {
    let fleet = Fleet::start(1);
    install(&fleet, "two");
    with_a_victim(&fleet);
    let run = fleet
        .command(&["-o", "json", "--set", "message=three", "--timeout", "60s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("it is under way", || {
        let status = fleet.status().json;
        status["running"][0]["run"].is_string()
    });
    fleet.continue_run("revert", &["--yes"]).expect(9);
    fleet.signal(0, Signal::SIGCONT);
    CommandResult::wait_for(run).expect(0);
    assert_eq!(fleet.bodies(), ["three"]);
}

/// Starts a revert without a name on a terminal, up to its question.
fn asked(fleet: &Fleet) -> Option<Terminal> {
    let terminal = Terminal::start(fleet, 200, &about(fleet, &["revert"]))?;
    until("it asks", || terminal.text().contains("Revert it? [y/N] "));
    Some(terminal)
}

#[test]
fn a_terminal_is_shown_the_run_and_asked() {
    let fleet = Fleet::start(2);
    let arguments = ["--set", "message=two", "--reason", "new greeting"];
    let id = run_of(&fleet.broadcast(&arguments).expect(0).json);
    let Some(mut terminal) = asked(&fleet) else {
        return;
    };
    let text = terminal.text();
    for shown in [
        &id[..8],
        "broadcast of web, by uid ",
        "new greeting",
        "2 instances: converged (2 confirmed)",
        "web.toml sha256:",
    ] {
        assert!(text.contains(shown), "{shown}: {text}");
    }
    // What was shown is reverted, also if another run came in between.
    terminal.press("y\n");
    assert_eq!(terminal.end(), Some(0), "{}", terminal.text());
    assert_eq!(fleet.bodies(), ["one", "one"]);
}

#[test]
fn every_other_answer_touches_nothing() {
    let fleet = Fleet::start(1);
    install(&fleet, "two");
    let runs = || std::fs::read_dir(fleet.path("state/runs")).unwrap().count();
    // Ctrl-D, and Ctrl-C.
    for (keys, code) in [
        ("\n", 1),
        ("n\n", 1),
        ("yess\n", 1),
        ("\u{4}", 1),
        ("\u{3}", 130),
    ] {
        let Some(mut terminal) = asked(&fleet) else {
            return;
        };
        terminal.press(keys);
        assert_eq!(terminal.end(), Some(code), "{keys:?} {}", terminal.text());
        assert_eq!(fleet.bodies(), ["two"], "{keys:?}");
        assert_eq!(runs(), 1, "{keys:?}");
    }
}

#[test]
fn a_run_that_came_after_the_question_is_not_reverted() {
    let fleet = Fleet::start(1);
    install(&fleet, "two");
    let Some(mut terminal) = asked(&fleet) else {
        return;
    };
    install(&fleet, "three");
    terminal.press("y\n");
    assert_eq!(terminal.end(), Some(5), "{}", terminal.text());
    assert_eq!(fleet.bodies(), ["three"]);
}
