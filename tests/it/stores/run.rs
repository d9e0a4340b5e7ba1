//! `source = "URL"`: a run takes its new config from a key, and touches nothing where it cannot.

use std::{
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::http_server::{HttpServer, Mode, answer};
use crate::support::{CommandResult, Fleet, until};

const OLD: &str = "message = \"one\"\nlisten = \"127.0.0.1:0\"\n";
const NEW: &str = "message = \"from the store\"\nlisten = \"127.0.0.1:0\"\n";

/// Servers whose group takes its config from a key.
struct Testbed {
    fleet: Fleet,
    store: HttpServer,
}

impl Testbed {
    fn start(count: usize) -> Self {
        let testbed = Self {
            fleet: Fleet::start(count),
            store: HttpServer::start(),
        };
        testbed.table("timeout = \"2s\"");
        testbed
    }

    /// Writes the fleet anew, with these lines in its `[[store]]`.
    fn table(&self, lines: &str) {
        let path = self.fleet.path("fleet.toml");
        let text = std::fs::read_to_string(path).unwrap();
        let group: Vec<&str> = text
            .lines()
            .take_while(|line| *line != "[[store]]")
            .filter(|line| !line.starts_with("source"))
            .collect();
        let text = format!(
            "{}\nsource = \"{}\"\n[[store]]\nurl = \"{}\"\n{lines}\n",
            group.join("\n"),
            self.url(),
            self.store.url("")
        );
        self.fleet.write("fleet.toml", &text);
    }

    fn url(&self) -> String {
        self.store.url("/web.toml")
    }

    fn read_only(&self, command: &str) -> Command {
        let mut command = self.fleet.read_only(command);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a broadcast that must end with `code` and must touch nothing.
    fn ends_untouched(&self, code: i32, wanted: &str) {
        let (attempts, text) = (self.fleet.attempts(), self.fleet.text());
        let result = self.fleet.broadcast(&[]).expect(code);
        assert!(
            result.stderr.contains(wanted),
            "{wanted}: {}",
            result.stderr
        );
        assert_eq!(self.fleet.attempts(), attempts, "{wanted}");
        assert_eq!(self.fleet.text(), text, "{wanted}");
        let runs = self.fleet.path("state/runs");
        let runs = std::fs::read_dir(runs).map_or(0, Iterator::count);
        assert_eq!(runs, 0, "{wanted}: a run is recorded");
    }
}

fn outcome(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn the_value_of_a_key_becomes_the_config_as_it_is() {
    let testbed = Testbed::start(2);
    let rev = testbed.store.write("/web.toml", NEW.as_bytes());
    let result = testbed.fleet.broadcast(&[]).expect(0);
    assert_eq!(result.states(), ["confirmed", "confirmed"]);
    assert_eq!(testbed.fleet.text(), NEW);
    assert_eq!(testbed.fleet.bodies(), ["from the store", "from the store"]);
    assert_eq!(testbed.store.requests(), 1, "the key is read once");
    let source = json!({ "url": testbed.url(), "rev": rev });
    assert_eq!(result.json["targets"][0]["source"], source);
    let read = format!("Read {} revision {rev} sha256:", testbed.url());
    assert!(result.stderr.contains(&read), "{}", result.stderr);
    // The journal has it too.
    let run = result.json["run"].as_str().unwrap();
    let plan = testbed.fleet.path(&format!("state/runs/{run}/plan.json"));
    let plan: Value = serde_json::from_slice(&std::fs::read(plan).unwrap()).unwrap();
    assert_eq!(plan["targets"][0]["source"], source);
    assert_eq!(plan["targets"][0]["to"], result.json["targets"][0]["to"]);
    let mut show = Command::new(testbed.fleet.exe());
    show.args(["show", run, "--state"])
        .arg(testbed.fleet.path("state"));
    let (_, out, _) = outcome(&mut show);
    let named = format!("from {} revision {rev}", testbed.url());
    assert!(out.contains(&named), "{out}");
    // The same value needs no signal.
    let again = testbed.fleet.broadcast(&[]).expect(0);
    assert_eq!(again.states(), ["unchanged", "unchanged"]);
}

#[test]
fn a_key_counts_only_where_the_operator_names_nothing_else() {
    let testbed = Testbed::start(1);
    testbed.store.write("/web.toml", NEW.as_bytes());
    testbed.fleet.broadcast(&["--set", "message=set"]).expect(0);
    assert_eq!(testbed.fleet.bodies(), ["set"]);
    let named = testbed.fleet.write("named.toml", OLD);
    let named = named.to_str().unwrap();
    testbed.fleet.broadcast(&["--config", named]).expect(0);
    assert_eq!(testbed.fleet.bodies(), ["one"]);
    assert_eq!(testbed.store.requests(), 0, "the store is not read");
}

#[test]
fn a_store_without_a_value_ends_the_run_and_nothing_is_touched() {
    let testbed = Testbed::start(1);
    testbed.ends_untouched(1, "there is no such key");
    for (mode, wanted) in [
        (Mode::Silent, "no whole answer within 2s"),
        (Mode::Drips, "no whole answer within 2s"),
        (Mode::Endless, "larger than 16 MiB"),
        (Mode::Answers(b"\0garbage".to_vec()), "cannot read `http://"),
        (
            Mode::Answers(answer("403 Forbidden", "", b"")),
            "403 Forbidden",
        ),
    ] {
        testbed.store.set(mode);
        testbed.ends_untouched(1, wanted);
    }
    testbed.store.set(Mode::Serves(""));
    testbed.store.write("/web.toml", b"");
    testbed.ends_untouched(4, "its value is empty");
    testbed.store.write("/web.toml", b"mesage = \"x\"\n");
    testbed.ends_untouched(4, &testbed.url());
}

#[test]
fn a_store_that_lost_its_data_replaces_no_config() {
    let testbed = Testbed::start(1);
    testbed.store.write("/web.toml", NEW.as_bytes());
    testbed.fleet.broadcast(&[]).expect(0);
    testbed.store.clear();
    let result = testbed.fleet.broadcast(&[]).expect(1);
    assert!(result.stderr.contains("no such key"), "{}", result.stderr);
    assert_eq!(testbed.fleet.text(), NEW);
    assert_eq!(testbed.fleet.bodies(), ["from the store"]);
}

#[test]
fn a_value_that_an_instance_does_not_take_is_rolled_back() {
    let testbed = Testbed::start(1);
    let text = std::fs::read_to_string(testbed.fleet.path("fleet.toml")).unwrap();
    // An instance cannot prove what a wrong assertion wants.
    let wrong = text.replace(
        "[[store]]",
        "[[group.confirm]]\nhttp = \"http://{listen}/\"\nequals = \"another\"\n[[store]]",
    );
    testbed.fleet.write("fleet.toml", &wrong);
    let old = testbed.fleet.text();
    testbed.store.write("/web.toml", NEW.as_bytes());
    let result = testbed.fleet.broadcast(&[]);
    assert_ne!(result.code, 0);
    assert_eq!(testbed.fleet.text(), old);
    assert_eq!(testbed.fleet.bodies(), ["one"]);
}

#[test]
fn a_run_that_is_reverted_or_resumed_does_not_read_its_store_again() {
    let testbed = Testbed::start(1);
    testbed.store.write("/web.toml", NEW.as_bytes());
    let result = testbed.fleet.broadcast(&[]).expect(0);
    testbed.store.write("/web.toml", b"message = \"later\"\n");
    let requests = testbed.store.requests();
    let run = result.json["run"].as_str().unwrap();
    let reverted = testbed.fleet.continue_run("revert", &[run]).expect(0);
    assert_eq!(testbed.fleet.bodies(), ["one"]);
    let run = reverted.json["run"].as_str().unwrap();
    testbed.fleet.continue_run("revert", &[run]).expect(0);
    assert_eq!(testbed.fleet.bodies(), ["from the store"]);
    assert_eq!(testbed.store.requests(), requests);
}

#[test]
fn an_interrupt_ends_the_wait_for_a_store() {
    let testbed = Testbed::start(1);
    testbed.table("timeout = \"1h\"");
    testbed.store.set(Mode::Silent);
    let mut run = testbed.fleet.command(&["-o", "json"]);
    let run = run
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let run = run.spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(run.id()).unwrap());
    until("the store was asked", || testbed.store.requests() > 0);
    kill(pid, Signal::SIGINT).unwrap();
    let result = CommandResult::wait_for(run).expect(1);
    assert!(
        result.stderr.contains("interrupted by the operator"),
        "{}",
        result.stderr
    );
    assert_eq!(testbed.fleet.bodies(), ["one"]);
}

#[test]
fn a_dry_run_a_diff_and_the_doctor_name_the_key_and_its_revision() {
    let testbed = Testbed::start(1);
    let rev = testbed.store.write("/web.toml", NEW.as_bytes());
    let named = format!("{} revision {rev}", testbed.url());
    let mut dry_run = testbed.fleet.command(&["--dry-run"]);
    let (code, out, _) = outcome(dry_run.stdin(Stdio::null()));
    assert_eq!(code, Some(0));
    assert!(out.contains(&named), "{out}");
    assert!(out.contains("+message = \"from the store\""), "{out}");
    let (code, out, err) = outcome(testbed.read_only("diff").arg("--source"));
    assert_eq!(code, Some(7), "{err}");
    assert!(out.contains(&format!("candidate, {named}")), "{out}");
    assert!(err.contains(&format!("Read {named}")), "{err}");
    let json = CommandResult::of(testbed.read_only("diff").args(["--source", "-o", "json"]));
    let json = json.expect(7).json;
    assert_eq!(json["targets"][0]["source"]["rev"], rev);
    let (code, out, _) = outcome(&mut testbed.read_only("doctor"));
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains(&named), "{out}");
    testbed.store.clear();
    let (code, out, _) = outcome(&mut testbed.read_only("doctor"));
    assert_eq!(code, Some(5), "{out}");
    assert!(out.contains("there is no such key"), "{out}");
    let (code, _, err) = outcome(testbed.read_only("diff").arg("--source"));
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("there is no such key"), "{err}");
    assert_eq!(testbed.fleet.bodies(), ["one"]);
}

#[test]
fn one_value_for_files_that_differ_needs_overwrite() {
    let mut testbed = Testbed::start(1);
    let other = OLD.replace("one", "other");
    testbed.fleet.write("other.toml", &other);
    testbed.fleet.serve_from("other.toml");
    testbed.store.write("/web.toml", NEW.as_bytes());
    let result = testbed.fleet.broadcast(&[]).expect(5);
    assert!(result.stderr.contains("--overwrite"), "{}", result.stderr);
    assert_eq!(testbed.fleet.bodies(), ["one", "other"]);
    testbed.fleet.broadcast(&["--overwrite"]).expect(0);
    assert_eq!(testbed.fleet.bodies(), ["from the store", "from the store"]);
}

#[test]
fn a_password_in_the_url_of_a_key_is_refused_with_its_line() {
    let testbed = Testbed::start(1);
    let text = std::fs::read_to_string(testbed.fleet.path("fleet.toml")).unwrap();
    for url in [
        "https://u:geheim@h.example/x",
        "etcd+https://geheim@h.example/x",
    ] {
        let text = text.replace(&testbed.url(), url);
        testbed.fleet.write("fleet.toml", &text);
        let result = testbed.fleet.broadcast(&[]).expect(2);
        assert!(
            result.stderr.contains("fleet.toml") && result.stderr.contains("line"),
            "{url}: {}",
            result.stderr
        );
        assert!(!result.stderr.contains("geheim"), "{}", result.stderr);
    }
    assert_eq!(testbed.store.requests(), 0);
}

#[test]
fn a_systemd_credential_is_found_where_its_service_has_it() {
    let testbed = Testbed::start(1);
    testbed.store.write("/web.toml", NEW.as_bytes());
    testbed.table("bearer_file = \"{credentials}/store\"");
    let result = CommandResult::of(
        testbed
            .fleet
            .command(&["-o", "json"])
            .env_remove("CREDENTIALS_DIRECTORY"),
    );
    let result = result.expect(1);
    assert!(
        result.stderr.contains("$CREDENTIALS_DIRECTORY is not set"),
        "{}",
        result.stderr
    );
    let dir = testbed.fleet.path("credentials");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("store"), "geheim-1").unwrap();
    std::fs::set_permissions(dir.join("store"), std::fs::Permissions::from_mode(0o400)).unwrap();
    CommandResult::of(
        testbed
            .fleet
            .command(&["-o", "json"])
            .env("CREDENTIALS_DIRECTORY", &dir),
    )
    .expect(0);
    let sent = testbed.store.heads().pop().unwrap();
    assert!(sent.contains("authorization: bearer geheim-1"), "{sent}");
}

#[test]
fn a_command_is_a_store() {
    let testbed = Testbed::start(1);
    let script = testbed.fleet.path("get");
    std::fs::write(
        &script,
        "#!/bin/sh\ncase $1 in gone) exit 3 ;; bad) echo why >&2; exit 9 ;; big) exec head -c 17000000 \
         /dev/zero ;; slow) exec sleep 600 ;; esac\necho 7\nexec cat \"$1\"\n",
    )
    .unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let value = testbed.fleet.write("value", NEW);
    let base = std::fs::read_to_string(testbed.fleet.path("fleet.toml")).unwrap();
    let with = |key: &str, rev: &str| {
        let text = base.replace(&testbed.url(), &format!("exec://files/{key}"));
        let text = text.replace(
            &format!("url = \"{}\"", testbed.store.url("")),
            &format!(
                "url = \"exec://files\"\nget = [\"sh\", {script:?}, \"{{key}}\"]\nrev = \"{rev}\"",
            ),
        );
        testbed.fleet.write("fleet.toml", &text);
    };
    for (key, code, wanted) in [
        ("gone", 1, "there is no such key"),
        ("bad", 1, "`sh` exited with 9: why"),
        ("big", 1, "larger than 16 MiB"),
        ("slow", 1, "within 2s"),
    ] {
        with(key, "digest");
        testbed.ends_untouched(code, wanted);
    }
    with(value.to_str().unwrap(), "first_line");
    let result = testbed.fleet.broadcast(&[]).expect(0);
    assert_eq!(testbed.fleet.bodies(), ["from the store"]);
    assert_eq!(result.json["targets"][0]["source"]["rev"], "7");
}
