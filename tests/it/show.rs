//! `hello show`: what a run changed, and the bytes of a stored content.

use std::{os::unix::fs::PermissionsExt, process::Command};

use crate::{
    pty::Terminal,
    support::{CommandResult, Fleet},
};

fn show(fleet: &Fleet, args: &[&str]) -> Command {
    let mut command = Command::new(fleet.exe());
    command
        .arg("show")
        .args(args)
        .arg("--state")
        .arg(fleet.path("state"));
    command
}

fn stdout(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    output.stdout
}

fn text(command: &mut Command) -> String {
    String::from_utf8(stdout(command)).unwrap()
}

/// Installs a message. Returns the run, and the digests before and after it.
fn install(fleet: &Fleet, message: &str) -> [String; 3] {
    let set = format!("message={message}");
    let json = fleet
        .broadcast(&["--set", &set, "--reason", "a greeting"])
        .expect(0)
        .json;
    let target = &json["targets"][0];
    [&json["run"], &target["from"], &target["to"]].map(|v| v.as_str().unwrap().to_owned())
}

#[test]
fn a_run_is_shown_with_its_change_and_its_instances() {
    let fleet = Fleet::start(2);
    let [run, from, to] = install(&fleet, "two");
    let shown = text(&mut show(&fleet, &["@"]));
    for wanted in [
        format!("Run {run}"),
        "broadcast of web, by uid ".into(),
        ": a greeting".into(),
        "End converged (2 confirmed): every instance proved the new config".into(),
        format!("web.toml sha256:{} -> sha256:{}", &from[..12], &to[..12]),
        "  | -message = \"one\" # said".into(),
        "  | +message = \"two\" # said".into(),
        "confirmed 2 instances: web pid ".into(),
        format!("Next hello revert {} --state ", &run[..12]),
    ] {
        assert!(shown.contains(&wanted), "{wanted}\n{shown}");
    }
    let json = CommandResult::of(&mut show(&fleet, &["-o", "json", &run[..12]]))
        .expect(0)
        .json;
    assert_eq!(json["run"], *run);
    assert_eq!(json["verdict"], "converged");
    assert_eq!(json["targets"][0]["from"], *from);
    assert_eq!(json["targets"][0]["secret"], false);
    assert!(
        json["targets"][0]["diff"]
            .as_str()
            .unwrap()
            .contains("+message")
    );
    assert_eq!(json["instances"].as_array().unwrap().len(), 2);
    assert_eq!(json["instances"][0]["outcome"], "confirmed");
    assert!(json["took_us"].as_i64().unwrap() > 0);
    assert!(json["next"][0].as_str().unwrap().contains(&run));
}

/// Replaces the host in the files of a run.
fn rename_host(fleet: &Fleet, run: &str, to: [&str; 2]) {
    for name in ["events.jsonl", "plan.json"] {
        let path = fleet.path("state/runs").join(run).join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text
            .replace(",\"host\":\"local\"", to[0])
            .replace("\"host\": \"local\",", to[1]);
        std::fs::write(&path, text).unwrap();
    }
}

#[test]
fn a_run_of_another_host_is_shown_with_its_name() {
    let fleet = Fleet::start(2);
    let [run, ..] = install(&fleet, "two");
    let names = [",\"host\":\"edge-081\"", "\"host\": \"edge-081\","];
    rename_host(&fleet, &run, names);
    let shown = text(&mut show(&fleet, &["@"]));
    for wanted in [
        "Host edge-081\n",
        "confirmed 2 instances: web edge-081 pid ",
        "Target edge-081: /",
    ] {
        assert!(shown.contains(wanted), "{wanted}\n{shown}");
    }
    let json = CommandResult::of(&mut show(&fleet, &["-o", "json", "@"])).json;
    assert_eq!(json["host"], "edge-081");
    for list in ["instances", "targets"] {
        assert_eq!(json[list][0]["host"], "edge-081", "{json:#}");
    }
    let mut history = Command::new(fleet.exe());
    let state = fleet.path("state");
    history.args(["history", "@", "--state"]).arg(&state);
    let replayed = text(&mut history);
    assert!(replayed.contains(" web edge-081 pid "), "{replayed}");
    let mut list = Command::new(fleet.exe());
    let listed = text(list.args(["history", "--state"]).arg(&state));
    assert!(listed.contains("HOST") && listed.contains("edge-081"));
}

#[test]
fn a_run_without_hosts_is_of_this_machine() {
    let fleet = Fleet::start(1);
    let [run, ..] = install(&fleet, "two");
    rename_host(&fleet, &run, ["", ""]);
    let json = CommandResult::of(&mut show(&fleet, &["-o", "json", "@"])).json;
    assert_eq!(json["host"], "local");
    for list in ["instances", "targets"] {
        assert_eq!(json[list][0]["host"], "local", "{json:#}");
    }
    let mut history = Command::new(fleet.exe());
    history.args(["history", "@", "-o", "jsonl", "--state"]);
    let lines = text(history.arg(fleet.path("state")));
    assert!(lines.lines().count() > 5, "{lines}");
    for line in lines.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["host"], "local", "{line}");
    }
    // Its plan is read too.
    fleet.continue_run("revert", &[&run]).expect(0);
}

#[test]
fn a_run_that_failed_is_shown_with_its_failures() {
    let fleet = Fleet::start(1);
    crate::broadcast::with_a_victim(&fleet);
    fleet
        .broadcast(&["--set", "message=two", "--timeout", "1s"])
        .expect(7);
    let shown = text(&mut show(&fleet, &["@"]));
    fleet.signal(0, nix::sys::signal::Signal::SIGCONT);
    assert!(
        shown.contains("revert failed 1 instance: web pid "),
        "{shown}"
    );
    assert!(shown.contains("     Failure web pid "), "{shown}");
    assert!(shown.contains("Next hello resume "), "{shown}");
}

#[test]
fn a_content_is_printed_exactly() {
    let fleet = Fleet::start(1);
    let before = std::fs::read(fleet.path("web.toml")).unwrap();
    let [_, from, to] = install(&fleet, "\u{1b}[2Jtwo");
    let after = std::fs::read(fleet.path("web.toml")).unwrap();
    let upper = to[..14].to_uppercase();
    let by_screen = format!("sha256:{}", &to[..12]);
    for (name, bytes) in [
        (from.as_str(), &before),
        (to.as_str(), &after),
        (&upper, &after),
        (&by_screen, &after),
    ] {
        assert_eq!(stdout(&mut show(&fleet, &[name])), *bytes, "{name}");
    }
    let json = CommandResult::of(&mut show(&fleet, &["-o", "json", &to]))
        .expect(0)
        .json;
    assert_eq!(json["sha256"], *to);
    assert_eq!(json["content"].as_str().unwrap().as_bytes(), after);
    assert_eq!(json["uses"][0]["as"], "to");
    CommandResult::of(&mut show(&fleet, &["0123456789"])).expect(3);
    CommandResult::of(&mut show(&fleet, &["sha256:"])).expect(3);
}

#[test]
fn a_terminal_is_not_controlled_by_a_content() {
    let fleet = Fleet::start(1);
    // TOML writes the escape as text, so the bytes come from a file.
    let config = fleet.path("new.toml");
    std::fs::write(
        &config,
        "message = \"two\" # \u{202e}\u{9b}31m\nlisten = \"127.0.0.1:0\"\n",
    )
    .unwrap();
    let json = fleet
        .broadcast(&["--config", config.to_str().unwrap()])
        .expect(0)
        .json;
    let to = json["targets"][0]["to"].as_str().unwrap();
    let Some(mut terminal) = Terminal::start(&fleet, 200, &show(&fleet, &[to])) else {
        return;
    };
    assert_eq!(terminal.end(), Some(0), "{}", terminal.text());
    let shown = terminal.text();
    assert!(
        shown.contains("message = \"two\" # \\u{202e}\\u{9b}31m"),
        "{shown}"
    );
    assert!(!shown.contains(['\u{202e}', '\u{9b}']), "{shown:?}");
}

#[test]
fn a_secret_is_shown_only_if_it_is_revealed() {
    let fleet = Fleet::start(1);
    std::fs::set_permissions(
        fleet.path("web.toml"),
        std::fs::Permissions::from_mode(0o640),
    )
    .unwrap();
    let [run, _, to] = install(&fleet, "hidden");
    let refused = CommandResult::of(&mut show(&fleet, &[&to])).expect(5);
    assert!(refused.stderr.contains("is a secret"), "{}", refused.stderr);
    assert!(
        refused.stderr.contains(" --reveal --state "),
        "{}",
        refused.stderr
    );
    let json = CommandResult::of(&mut show(&fleet, &["-o", "json", &to]))
        .expect(5)
        .json;
    assert!(!json.to_string().contains("hidden"), "{json:#}");
    for args in [&[run.as_str()][..], &["-o", "json", &run]] {
        let shown = text(&mut show(&fleet, args));
        assert!(!shown.contains("hidden"), "{shown}");
    }
    // It stays one when every user may read the file by now.
    std::fs::set_permissions(
        fleet.path("web.toml"),
        std::fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    CommandResult::of(&mut show(&fleet, &[&to])).expect(5);
    let shown = text(&mut show(&fleet, &["--reveal", &to]));
    assert!(shown.contains("hidden"), "{shown}");
    let shown = text(&mut show(&fleet, &["--reveal", &run]));
    assert!(shown.contains("  | +message = \"hidden\""), "{shown}");
}

#[test]
fn a_content_of_unknown_runs_counts_as_a_secret() {
    let fleet = Fleet::start(1);
    let [run, _, to] = install(&fleet, "two");
    let plan = fleet.path(&format!("state/runs/{run}/plan.json"));
    let text = std::fs::read_to_string(&plan).unwrap();
    let changed = text.replace("\"secret\": false", "\"secret\": null");
    assert_ne!(text, changed);
    std::fs::write(&plan, changed).unwrap();
    CommandResult::of(&mut show(&fleet, &[&to])).expect(5);
    assert!(!stdout(&mut show(&fleet, &["--reveal", &to])).is_empty());
}
