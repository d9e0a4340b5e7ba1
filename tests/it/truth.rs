//! `hello status` reports everything, and JSON output is always one object.

use std::{
    fs::File,
    process::{Child, Command, Stdio},
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{CommandResult, Fleet, run_to_end, until};

/// A run that is killed when the test ends.
struct Run(Child);

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn groups(fleet: &Fleet, keys: &str) {
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write("fleet.toml", &format!("{text}{keys}\n"));
}

fn faults(result: &CommandResult) -> String {
    result.json["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| group["faults"].to_string())
        .collect()
}

/// Returns the text output of stdout and stderr.
fn read(fleet: &Fleet) -> String {
    let output = fleet
        .read_only("status")
        .arg("--state")
        .arg(fleet.path("state"))
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_group_with_the_wrong_instance_count_is_a_fault() {
    for (count, code, says) in [
        ("5", 7, "has 2 instances, not 5"),
        ("\"..1\"", 7, "has 2 instances, not 1"),
        ("\"3..\"", 7, "not 3 or more"),
        ("2", 0, ""),
    ] {
        let fleet = Fleet::start(2);
        groups(&fleet, &format!("count = {count}"));
        let result = fleet.status().expect(code);
        assert!(faults(&result).contains(says), "{count}: {:#}", result.json);
        assert!(read(&fleet).contains(says), "{count}");
    }
}

#[test]
fn an_empty_group_is_a_fault_beside_a_healthy_one() {
    let fleet = Fleet::start(1);
    groups(
        &fleet,
        "[[group]]\nname = \"none\"\nkind = \"hello\"\nmatch = { exe = \"no-such-program\" }",
    );
    let result = fleet.status().expect(7);
    assert_eq!(result.json["groups"][0]["faults"], serde_json::json!([]));
    assert!(
        result.json["groups"][1]["faults"]
            .to_string()
            .contains("has 0 instances"),
        "{:#}",
        result.json
    );
    assert!(
        result.json["reason"]
            .as_str()
            .unwrap()
            .contains("group `none`"),
        "{:#}",
        result.json
    );
}

#[test]
fn an_empty_survey_is_reported() {
    let fleet = Fleet::start(0);
    let result = fleet.status().expect(3);
    assert_eq!(
        (
            result.json["verdict"].as_str(),
            result.json["instances"].as_array().map(Vec::len)
        ),
        (Some("no_match"), Some(0))
    );
    assert!(
        result.json["reason"]
            .as_str()
            .unwrap()
            .contains("nothing was found: group `web` has 0 instances"),
        "{:#}",
        result.json
    );
    assert!(
        read(&fleet).contains("error: nothing was found"),
        "{}",
        read(&fleet)
    );
}

#[test]
fn an_instance_that_ended_since_the_last_run_is_a_fault_until_another_takes_its_place() {
    let mut fleet = Fleet::start(3);
    fleet.broadcast(&["--set", "message=two"]).expect(0);
    fleet.status().expect(0);
    let gone = fleet.pid(1);
    fleet.kill(1);
    let result = fleet.status().expect(7);
    assert!(
        faults(&result).contains(&format!("pid {gone} ended since the last run")),
        "{:#}",
        result.json
    );
    assert_eq!(result.json["groups"][0]["ended"][0]["pid"], gone);
    fleet.serve();
    fleet.status().expect(0);
}

#[test]
fn an_ended_instance_is_no_fault_after_a_successful_run_without_it() {
    let mut fleet = Fleet::start(2);
    fleet.broadcast(&["--set", "message=two"]).expect(0);
    fleet.kill(0);
    fleet.status().expect(7);
    // It has nothing to do, and no journal.
    fleet.broadcast(&["--set", "message=two"]).expect(0);
    fleet.status().expect(0);
}

#[test]
fn every_ended_instance_is_named_even_if_nothing_is_found() {
    let mut fleet = Fleet::start(1);
    fleet.broadcast(&["--set", "message=two"]).expect(0);
    let gone = fleet.pid(0);
    fleet.kill(0);
    assert!(faults(&fleet.status().expect(7)).contains(&format!("pid {gone} ended")));
}

/// Starts a run whose validator waits.
fn validating(fleet: &Fleet) -> Run {
    let there = fleet.path("validates");
    groups(
        fleet,
        &format!(
            "validate = [\"/bin/sh\", \"-c\", \"touch /proc/$PPID/root'{}'; exec sleep 60\"]",
            there.display()
        ),
    );
    let run = fleet
        .command(&["-q", "--set", "message=two"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let run = Run(run);
    until("it validates", || there.exists());
    run
}

#[test]
fn a_run_under_way_is_reported_with_its_owner_before_it_has_a_journal() {
    let fleet = Fleet::start(1);
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    let run = validating(&fleet);
    // `status` would run its validator as well.
    fleet.write("fleet.toml", &text);
    let result = fleet.status().expect(9);
    assert!(
        result.json["running"][0]["owner"]
            .as_str()
            .unwrap()
            .contains(&format!("pid {}", run.0.id())),
        "{:#}",
        result.json
    );
    assert!(result.stderr.contains("Under way"), "{}", result.stderr);
    drop(run);
    fleet.status().expect(0);
}

#[test]
fn a_run_under_way_is_reported_by_id_and_is_a_fault_once_its_owner_died() {
    let fleet = Fleet::start(1);
    fleet.broadcast(&["--set", "message=zero"]).expect(0);
    let open = || std::fs::read_dir(fleet.path("state/open")).unwrap().count();
    groups(&fleet, "[rollout]\nwaves = [1]\nbake = \"60s\"");
    let run = Run(fleet
        .command(&["-q", "--set", "message=two"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap());
    until("it bakes", || open() == 1 && fleet.bodies() == ["two"]);
    let result = fleet.status().expect(9);
    let id = result.json["running"][0]["run"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        (
            result.json["running"].as_array().map(Vec::len),
            result.json["open"].as_array().map(Vec::len)
        ),
        (Some(1), Some(0)),
        "{:#}",
        result.json
    );
    drop(run);
    let result = fleet.status().expect(7);
    assert_eq!(result.json["open"][0]["run"], id.as_str());
    assert!(
        result.json["next"][0]
            .as_str()
            .unwrap()
            .starts_with(&format!("hello history {id}")),
        "{:#}",
        result.json
    );
}

/// Runs the command with `-o json`. Stdout must be one object.
fn object(fleet: &Fleet, args: &[&str]) -> (i32, Value, String) {
    let result = run_to_end(
        Command::new(fleet.exe())
            .args(args)
            .env_remove("HELLO_FLEET")
            .env("HELLO_STATE", fleet.path("state"))
            .current_dir(fleet.dir.path()),
    );
    assert!(result.json.is_object(), "{args:?}: {}", result.stderr);
    (result.code.unwrap(), result.json, result.stderr)
}

#[test]
fn json_output_is_an_object_even_for_a_usage_error() {
    let fleet = Fleet::start(0);
    let cases: [(&[&str], i32, &str); 16] = [
        (&["status", "-o", "json", "--odd"], 2, "instances"),
        (&["status", "-ojson", "--fleet", "/nowhere"], 2, "instances"),
        (&["status", "--output=json", "no-such-group"], 2, "open"),
        (&["-o", "json"], 2, "next"),
        (&["odd", "-o", "json"], 2, "next"),
        (
            &["broadcast", "-o", "json", "--timeout", "odd"],
            2,
            "targets",
        ),
        (&["broadcast", "--now", "-o", "json"], 2, "targets"),
        (
            &["broadcast", "-qojsonl", "--config", "a", "--config", "b"],
            2,
            "instances",
        ),
        (
            &["broadcast", "-o", "json", "--config", "/nowhere"],
            1,
            "targets",
        ),
        (
            &["broadcast", "-o", "json", "--set", "message=x"],
            3,
            "targets",
        ),
        (&["revert", "x", "-o", "json", "--odd"], 2, "targets"),
        (&["resume", "x", "-o", "json"], 3, "targets"),
        (&["doctor", "-o", "json", "0"], 2, "processes"),
        (&["doctor", "-o", "json", "999999999999"], 2, "missing"),
        (&["history", "-o", "json", "-n", "x"], 2, "runs"),
        (&["history", "-o", "json", "x"], 3, "runs"),
    ];
    for (args, code, key) in cases {
        let (exit, json, stderr) = object(&fleet, args);
        assert_eq!(
            (exit, &json["exit"]),
            (code, &code.into()),
            "{args:?}: {json:#}"
        );
        assert!(json.get(key).is_some(), "{args:?} has no {key}: {json:#}");
        assert!(
            json["reason"].as_str().is_some_and(|why| !why.is_empty()),
            "{args:?}: {json:#}"
        );
        assert_eq!(json["dry_run"], false, "{args:?}");
        assert!(json["next"].is_array(), "{args:?}: {json:#}");
        assert!(stderr.contains("error: "), "{args:?}: {stderr}");
        assert!(!stderr.contains("error: error:"), "{args:?}: {stderr}");
    }
    assert_eq!(
        object(&fleet, &["broadcast", "--dry-run", "--odd", "-o", "json"]).1["dry_run"],
        true
    );
}

#[test]
fn a_run_says_whether_it_was_a_dry_run_and_null_for_what_is_absent() {
    let fleet = Fleet::start(1);
    let dry = fleet
        .broadcast(&["--set", "message=two", "--dry-run"])
        .expect(0)
        .json;
    assert_eq!(
        (&dry["dry_run"], &dry["run"], &dry["gates"], &dry["next"]),
        (
            &true.into(),
            &Value::Null,
            &Value::Null,
            &serde_json::json!([])
        )
    );
    let real = fleet.broadcast(&["--set", "message=two"]).expect(0).json;
    assert_eq!(
        (
            &real["dry_run"],
            &real["waves"],
            &real["targets"][0]["diff"]
        ),
        (&false.into(), &Value::Null, &Value::Null)
    );
    assert!(real["run"].is_string());
    assert!(real["instances"][0]["failure"].is_null());
    // A refusal suggests read-only commands.
    fleet.stop(0);
    let refused = fleet.broadcast(&["--set", "message=three"]).expect(5).json;
    assert_eq!(refused["run"], Value::Null);
    assert!(
        refused["next"][0]
            .as_str()
            .unwrap()
            .starts_with("hello doctor --fleet "),
        "{refused:#}"
    );
    fleet.signal(0, Signal::SIGCONT);
}

#[test]
fn a_failed_write_to_stdout_is_an_error() {
    let fleet = Fleet::start(1);
    fleet.broadcast(&["--set", "message=two"]).expect(0);
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::new(fleet.exe());
        command
            .args(args)
            .env("HELLO_FLEET", fleet.path("fleet.toml"))
            .env("HELLO_STATE", fleet.path("state"));
        command.stdout(full()).output().unwrap()
    };
    let cases: [&[&str]; 9] = [
        &["status"],
        &["status", "-o", "json"],
        &["doctor"],
        &["history"],
        &["history", "-o", "jsonl"],
        &["kinds"],
        &["--help"],
        &["broadcast", "--dry-run", "--set", "message=x"],
        &["broadcast", "-o", "json", "--set", "message=three"],
    ];
    for args in cases {
        let output = run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
        assert!(
            stderr.contains("could not be written to stdout"),
            "{args:?}: {stderr}"
        );
        assert!(stderr.contains("No space"), "{args:?}: {stderr}");
    }
    assert_eq!(fleet.bodies(), ["three"], "the run itself was carried out");
    // An error keeps its exit code, and a closed reader is no error.
    assert_eq!(
        run(&["status", "--fleet", "/nowhere"]).status.code(),
        Some(2)
    );
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let gone = fleet
        .read_only("status")
        .arg("--state")
        .arg(fleet.path("state"))
        .stdout(writer)
        .status()
        .unwrap();
    assert_eq!(gone.code(), Some(0));
}
