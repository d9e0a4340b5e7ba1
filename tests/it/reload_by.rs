//! Instances that a command makes reload, instead of a signal.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    support::{CommandResult, Fleet, until},
    users::{Other, is_root},
};

/// A timeout that no run of a test waits for.
const LONG: &str = "timeout = \"10m\"";

/// The daemons of `reload_by.py`, each with a config of its own. Killed by their pids when dropped.
struct Daemons {
    fleet: Fleet,
    children: Vec<Other>,
}

impl Daemons {
    fn start(count: usize) -> Self {
        let fleet = Fleet::start(0);
        fleet.write("reload_by.py", include_str!("reload_by.py"));
        let mut daemons = Self {
            fleet,
            children: Vec::new(),
        };
        for index in 0..count {
            daemons.add(index);
        }
        daemons
    }

    fn add(&mut self, index: usize) {
        let config = self.config(index);
        std::fs::write(&config, "message = \"one\"\n").unwrap();
        let child = Command::new("python3")
            .arg(self.script())
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.children.push(Other(child, String::new()));
        until("it runs its config", || self.text(index, "runs") == "one");
        until("it listens", || self.path(index, "sock").exists());
    }

    fn script(&self) -> PathBuf {
        self.fleet.path("reload_by.py")
    }

    fn config(&self, index: usize) -> PathBuf {
        self.fleet.path(&format!("d{index}.toml"))
    }

    fn path(&self, index: usize, name: &str) -> PathBuf {
        self.fleet.path(&format!("d{index}.toml.{name}"))
    }

    fn text(&self, index: usize, name: &str) -> String {
        let text = std::fs::read_to_string(self.path(index, name)).unwrap_or_default();
        text.trim().to_owned()
    }

    fn message(&self, index: usize) -> String {
        std::fs::read_to_string(self.config(index)).unwrap()
    }

    fn pid(&self, index: usize) -> u32 {
        self.children[index].0.id()
    }

    fn runs(&mut self, index: usize) -> bool {
        self.children[index].0.try_wait().unwrap().is_none()
    }

    /// How often a client has asked the first daemon.
    fn asked(&self) -> usize {
        let asks = std::fs::read_to_string(self.path(0, "asks")).unwrap_or_default();
        asks.lines().count()
    }

    /// The process that the client has left behind.
    fn child(&self) -> PathBuf {
        Path::new("/proc").join(self.text(0, "child"))
    }

    /// The argv of the client, with further arguments.
    fn client(&self, more: &str) -> String {
        let script = self.script();
        format!(
            "reload_by = [\"python3\", \"{}\", \"ask\", \"{{config}}\"{more}]",
            script.display()
        )
    }

    /// Writes a group of all daemons with these keys. `{dN}` is the path of a daemon's config.
    fn group(&self, keys: &str) {
        let text = format!(
            "version = 1\n[[group]]\nname = \"asked\"\nmatch = {{ script = \"{}\", args = [\"serve\"] }}\nconfig = \"{{arg:3}}\"\n{keys}\n",
            self.script().display()
        );
        self.fleet.write("fleet.toml", &text);
    }

    fn set(&self, message: &str, more: &[&str]) -> CommandResult {
        let set = format!("message={message}");
        self.fleet.broadcast(&[&["--set", &set], more].concat())
    }
}

/// The message of the new config.
const SEEN: &str =
    "[[group.confirm]]\nexec = [\"cat\", \"{config}.runs\"]\nequals = \"{candidate.message}\"\n";

/// A counter that each load moves.
const LOADS: &str = "[[group.confirm]]\nexec = [\"cat\", \"{config}.loads\"]\nincreased = true\n";

/// One daemon, whose client has these further arguments.
fn one(more: &str, facts: &str) -> Daemons {
    let daemons = Daemons::start(1);
    daemons.group(&format!("{}\n{LONG}\n{facts}", daemons.client(more)));
    daemons
}

fn failure(result: &CommandResult) -> String {
    let text = result.json["instances"][0]["failure"]["text"].as_str();
    text.unwrap_or_default().to_owned()
}

#[test]
fn a_command_makes_an_instance_reload_that_a_signal_would_end() {
    let daemons = one("", SEEN);
    let result = daemons.set("two", &[]).expect(0);
    assert_eq!(daemons.text(0, "runs"), "two");
    assert_eq!(daemons.asked(), 1);
    let instance = &result.json["instances"][0];
    assert_eq!(instance["reloads_by"], "command");
    assert_eq!(instance["proof"], "content");
    daemons.fleet.status().expect(0);
}

#[test]
fn exit_0_of_a_command_proves_nothing() {
    let daemons = one(", \"lies\"", SEEN);
    daemons.group(&format!(
        "{}\ntimeout = \"2s\"\n{}",
        daemons.client(", \"lies\""),
        SEEN
    ));
    let result = daemons.set("two", &[]).expect(7);
    assert_eq!(result.states(), ["revert_failed"]);
    assert_eq!(daemons.message(0), "message = \"one\"\n");
}

#[test]
fn without_an_assertion_a_command_ends_unconfirmed() {
    let daemons = one("", "");
    daemons.group(&format!(
        "{}\ntimeout = \"1s\"\nconfirm = []",
        daemons.client("")
    ));
    let result = daemons.set("two", &[]).expect(12);
    assert_eq!(result.states(), ["unconfirmed"]);
    assert_eq!(daemons.text(0, "runs"), "two");
}

#[test]
fn a_command_that_fails_proves_no_config_where_nothing_is_rolled_back() {
    let daemons = one("", SEEN);
    let result = daemons.set("bad", &["--now", "--reason", "test"]).expect(7);
    assert_eq!(result.states(), ["rejected"]);
}

#[test]
fn another_exit_status_is_refused_at_once_with_its_last_line() {
    let daemons = one("", SEEN);
    let result = daemons.set("bad", &[]).expect(6);
    assert_eq!(result.states(), ["reverted"]);
    let failure = failure(&result);
    assert!(
        failure.ends_with("ended with exit status 1: no: a bad message"),
        "{failure}"
    );
    assert_eq!(result.json["instances"][0]["failure"]["kind"], "rejected");
    assert_eq!(daemons.message(0), "message = \"one\"\n");
}

#[test]
fn the_rollback_runs_the_command_again() {
    let daemons = one("", SEEN);
    daemons.set("bad", &[]).expect(6);
    assert_eq!(daemons.asked(), 2);
    assert_eq!(daemons.text(0, "loads"), "2");
}

#[test]
fn a_command_that_also_refuses_the_old_config_is_named() {
    let daemons = one("", SEEN);
    // The daemon runs `one`, and its file says otherwise by the time of the rollback.
    daemons.group(&format!(
        "reload_by = [\"sh\", \"-c\", \"echo no; exit 9\", \"{{pid}}\"]\n{LONG}\n{}",
        SEEN
    ));
    let result = daemons.set("two", &[]).expect(7);
    assert_eq!(result.states(), ["revert_failed"]);
    let failure = failure(&result);
    assert!(failure.contains("after the rollback"), "{failure}");
    assert_eq!(failure.matches("exit status 9: no").count(), 1, "{failure}");
}

#[test]
fn a_command_that_does_not_end_is_ended_with_its_children() {
    let daemons = hangs("3s");
    let result = daemons.set("two", &[]).expect(6);
    assert_eq!(result.states(), ["reverted"]);
    let failure = failure(&result);
    assert!(failure.contains("did not end within 3s"), "{failure}");
    assert!(!daemons.child().exists());
    assert_eq!(daemons.message(0), "message = \"one\"\n");
}

#[test]
fn an_instance_that_ends_while_it_is_asked_has_died() {
    let mut daemons = one("", SEEN);
    let result = daemons.set("die", &[]).expect(7);
    assert_eq!(result.states(), ["died"]);
    let failure = failure(&result);
    assert!(failure.contains("the daemon has gone"), "{failure}");
    assert!(!daemons.runs(0));
    assert_eq!(daemons.message(0), "message = \"one\"\n");
}

#[test]
fn an_instance_that_its_command_ends_has_died() {
    let daemons = one(", \"kills\", \"{pid}\"", SEEN);
    let result = daemons.set("two", &[]).expect(7);
    assert_eq!(result.states(), ["died"]);
    assert_eq!(daemons.message(0), "message = \"one\"\n");
}

#[test]
fn a_child_that_holds_the_output_of_a_command_open_is_ended() {
    let daemons = one(", \"leaves\"", SEEN);
    daemons.set("two", &[]).expect(0);
    assert!(!daemons.child().exists());
}

#[test]
fn a_command_may_print_more_than_is_kept() {
    let daemons = one(", \"prints\"", SEEN);
    daemons.set("two", &[]).expect(0);
    let result = daemons.set("bad", &[]).expect(6);
    let failure = failure(&result);
    assert!(failure.contains("more than 64 KiB"), "{failure}");
}

#[test]
fn the_output_about_a_secret_is_not_shown() {
    let daemons = one("", SEEN);
    daemons.group(&format!(
        "{}\n{LONG}\nsecret = true\n{}",
        daemons.client(""),
        SEEN
    ));
    let result = daemons.set("bad", &[]).expect(6);
    let failure = failure(&result);
    assert!(failure.contains("is a secret"), "{failure}");
    assert!(!format!("{}{}", result.json, result.stderr).contains("a bad message"));
}

#[test]
fn a_command_gets_the_new_content_at_the_live_path() {
    let daemons = one(", \"notes\", \"{candidate}\"", SEEN);
    daemons.set("two", &[]).expect(0);
    assert_eq!(daemons.text(0, "noted"), "message = \"two\"");
}

#[test]
fn instances_that_a_command_does_not_tell_apart_are_refused_by_pid() {
    let daemons = Daemons::start(2);
    daemons.group(&format!(
        "reload_by = [\"touch\", \"{}\"]\n{LONG}\n{}",
        daemons.fleet.path("asked").display(),
        SEEN
    ));
    let result = daemons.set("two", &[]).expect(2);
    for index in 0..2 {
        let pid = daemons.pid(index).to_string();
        assert!(result.stderr.contains(&pid), "{}", result.stderr);
        assert_eq!(daemons.message(index), "message = \"one\"\n");
    }
    assert!(!daemons.fleet.path("asked").exists());
    let doctor = daemons.fleet.doctor(&[]).expect(5);
    let text = doctor.json.to_string();
    assert!(
        text.contains("is the same command for its 2 instances"),
        "{text}"
    );
}

#[test]
fn a_placeholder_tells_instances_apart() {
    let daemons = Daemons::start(2);
    daemons.group(&format!("{}\n{LONG}\n{}", daemons.client(""), SEEN));
    daemons.set("two", &[]).expect(0);
    assert_eq!(
        [daemons.text(0, "runs"), daemons.text(1, "runs")],
        ["two", "two"]
    );
    assert_eq!(daemons.asked(), 1);
}

#[test]
fn a_command_without_a_program_is_refused_before_anything_is_touched() {
    let daemons = Daemons::start(1);
    daemons.group(&format!(
        "reload_by = [\"no-such-program\", \"{{pid}}\"]\n{LONG}\n{}",
        SEEN
    ));
    let result = daemons.set("two", &[]).expect(5);
    let why = "there is no program `no-such-program`";
    assert!(result.stderr.contains(why), "{}", result.stderr);
    assert_eq!(daemons.message(0), "message = \"one\"\n");
    let doctor = daemons.fleet.doctor(&[]).expect(5);
    let checks = doctor.json["processes"][0]["checks"].to_string();
    assert!(checks.contains(why), "{checks}");
}

#[test]
fn root_runs_no_command_that_another_user_can_change() {
    if !is_root() {
        return;
    }
    let daemons = Daemons::start(1);
    let program = crate::users::script(&daemons.fleet, "asks", "#!/bin/sh\n");
    crate::users::give(Path::new(&program), 0, 0o777);
    daemons.group(&format!(
        "reload_by = [\"{program}\", \"{{pid}}\"]\n{LONG}\n{}",
        SEEN
    ));
    let result = daemons.set("two", &[]).expect(5);
    assert!(
        result.stderr.contains("root does not run it"),
        "{}",
        result.stderr
    );
    assert_eq!(daemons.message(0), "message = \"one\"\n");
}

#[test]
fn doctor_names_the_command() {
    let daemons = one("", SEEN);
    let doctor = daemons.fleet.doctor(&[]).expect(0);
    let checks = doctor.json["processes"][0]["checks"].as_array().unwrap();
    let of = |topic: &str| checks.iter().find(|check| check["check"] == topic);
    let text = of("reloads").unwrap()["text"].as_str().unwrap();
    assert!(text.starts_with("by `python3 "), "{text}");
    assert!(of("signal").is_none());
}

#[test]
fn a_dry_run_says_that_the_command_would_be_run() {
    let daemons = one("", SEEN);
    let mut command = daemons
        .fleet
        .command(&["--set", "message=two", "--dry-run"]);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("would reload by its command"), "{text}");
    assert_eq!(daemons.asked(), 0);
}

/// One daemon whose client hangs. A rollback waits about as long as the timeout for a second load,
/// since a reload that was asked for may come late.
fn hangs(timeout: &str) -> Daemons {
    let daemons = Daemons::start(1);
    let client = daemons.client(", \"hangs\"");
    daemons.group(&format!("{client}\ntimeout = \"{timeout}\"\n{LOADS}"));
    daemons
}

/// Starts a run whose command hangs, and returns it once the command runs.
fn hanging(daemons: &Daemons) -> std::process::Child {
    let run = daemons
        .fleet
        .command(&["-o", "json", "--set", "message=two"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("its command hangs", || daemons.path(0, "child").exists());
    run
}

#[test]
fn an_interrupt_ends_the_command_and_rolls_back() {
    let daemons = hangs("10s");
    let run = hanging(&daemons);
    kill(
        Pid::from_raw(i32::try_from(run.id()).unwrap()),
        Signal::SIGINT,
    )
    .unwrap();
    let result = CommandResult::wait_for(run).expect(6);
    assert_eq!(result.states(), ["reverted"]);
    assert!(!daemons.child().exists());
    assert_eq!(daemons.message(0), "message = \"one\"\n");
    assert_eq!(daemons.text(0, "runs"), "one");
}

#[test]
fn a_run_that_was_killed_while_it_asked_can_be_reverted() {
    let daemons = hangs("10s");
    let mut run = hanging(&daemons);
    run.kill().unwrap();
    run.wait().unwrap();
    until("its command is ended", || !daemons.child().exists());
    assert_eq!(daemons.message(0), "message = \"two\"\n");
    let status = daemons.fleet.status();
    assert!(
        status.json.to_string().contains("may have signalled it"),
        "{:#}",
        status.json
    );
    let result = daemons.fleet.continue_run("revert", &["--yes"]).expect(0);
    assert_eq!(result.states(), ["confirmed"]);
    assert_eq!(daemons.message(0), "message = \"one\"\n");
    assert!(daemons.asked() > 1);
}

#[test]
fn a_run_over_a_command_can_be_reverted() {
    let daemons = one("", SEEN);
    daemons.set("two", &[]).expect(0);
    daemons.fleet.continue_run("revert", &["--yes"]).expect(0);
    assert_eq!(daemons.text(0, "runs"), "one");
    assert_eq!(daemons.asked(), 2);
}

#[test]
fn a_journal_has_the_intent_before_the_command_runs() {
    let daemons = one(", \"notes\", \"{config}.journal\"", SEEN);
    // The client copies what the journal holds while it runs.
    let journal = daemons.path(0, "journal");
    let state = daemons.fleet.path("state/runs");
    daemons.group(&format!(
        "reload_by = [\"sh\", \"-c\", \"cat {}/*/events.jsonl > {}; exec python3 {} ask $0\", \"{{config}}\"]\n{LONG}\n{}",
        state.display(),
        journal.display(),
        daemons.script().display(),
        SEEN
    ));
    daemons.set("two", &[]).expect(0);
    let text = std::fs::read_to_string(journal).unwrap();
    let pid = format!("[{},", daemons.pid(0));
    let has_intent = |line: &str| line.contains("\"event\":\"intent\"") && line.contains(&pid);
    assert!(text.lines().any(has_intent), "{text}");
}
