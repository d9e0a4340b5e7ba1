//! `hello diff`: the disk against what runs, and against a candidate.

use std::{
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use crate::support::{CommandResult, Fleet};

fn diff(fleet: &Fleet, args: &[&str]) -> Command {
    let mut command = fleet.read_only("diff");
    command
        .arg("--state")
        .arg(fleet.path("state"))
        .args(args)
        .stdin(Stdio::null());
    command
}

/// Returns the exit code, stdout and stderr.
fn outcome(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Puts a text into the file of the servers, without a reload.
fn edit(fleet: &Fleet, message: &str) {
    fleet.write(
        "web.toml",
        &format!("message = \"{message}\"\nlisten = \"127.0.0.1:0\"\n"),
    );
}

#[test]
fn a_fleet_that_runs_its_disk_has_no_difference() {
    let fleet = Fleet::start(2);
    fleet.broadcast(&["--set", "message=two"]).expect(0);
    let none = (Some(0), String::new(), String::new());
    assert_eq!(outcome(&mut diff(&fleet, &[])), none);
    let json = CommandResult::of(&mut diff(&fleet, &["-o", "json"]))
        .expect(0)
        .json;
    assert_eq!(json["verdict"], "converged");
    assert_eq!(json["targets"], serde_json::json!([]));
}

#[test]
fn the_disk_is_compared_with_what_runs() {
    let fleet = Fleet::start(2);
    fleet.broadcast(&["--set", "message=two"]).expect(0);
    edit(&fleet, "three");
    let attempts = fleet.attempts();
    let (code, out, err) = outcome(&mut diff(&fleet, &[]));
    assert_eq!((code, err.as_str()), (Some(7), ""), "{out}");
    let lines: Vec<&str> = out.lines().collect();
    let path = fleet.path("web.toml").canonicalize().unwrap();
    let head = |sign: &str| format!("{sign} {}\tsha256:", path.display());
    assert!(lines[0].starts_with(&head("---")), "{out}");
    assert!(lines[0].contains("runs: web pid "), "{out}");
    assert!(lines[1].starts_with(&head("+++")), "{out}");
    assert!(lines[1].ends_with(" on the disk"), "{out}");
    assert!(lines.contains(&"-message = \"two\" # said"), "{out}");
    assert!(lines.contains(&"+message = \"three\""), "{out}");
    let json = CommandResult::of(&mut diff(&fleet, &["-o", "json"]))
        .expect(7)
        .json;
    assert_eq!(json["targets"][0]["instances"].as_array().unwrap().len(), 2);
    assert!(json["targets"][0]["diff"].is_string(), "{json:#}");
    assert_eq!(fleet.attempts(), attempts, "no instance was touched");
}

#[test]
fn a_difference_whose_bytes_are_not_kept_is_named() {
    let fleet = Fleet::start(1);
    edit(&fleet, "three");
    let (code, out, _) = outcome(&mut diff(&fleet, &[]));
    assert_eq!(code, Some(7), "{out}");
    assert!(out.contains("web.toml differs, sha256:"), "{out}");
    assert!(out.contains("not kept in the state directory"), "{out}");
}

#[test]
fn an_instance_that_does_not_report_its_config_is_named_as_not_known() {
    let fleet = Fleet::start(1);
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    let plain = text.replace(
        "kind = \"hello\"",
        "config = [\"{arg:--config}\"]\nreloads = true\nconfirm = []",
    );
    fleet.write("fleet.toml", &plain);
    let (code, out, err) = outcome(&mut diff(&fleet, &[]));
    assert_eq!((code, out.as_str()), (Some(0), ""), "{err}");
    assert!(err.contains("   Not known web pid "), "{err}");
    assert!(err.contains("no run has proven it"), "{err}");
}

#[test]
fn the_disk_is_compared_with_a_candidate() {
    let fleet = Fleet::start(1);
    let before = fleet.text();
    // A stopped instance would be refused by a run.
    fleet.stop(0);
    let (code, out, err) = outcome(&mut diff(&fleet, &["--set", "message=two"]));
    assert_eq!((code, err.as_str()), (Some(7), ""), "{out}");
    assert!(
        out.contains("\n-message = \"one\" # said\n+message = \"two\" # said\n"),
        "{out}"
    );
    let same = fleet.path("web.toml");
    let same = outcome(&mut diff(&fleet, &["--config", same.to_str().unwrap()]));
    assert_eq!(same, (Some(0), String::new(), String::new()));
    let (code, _, err) = outcome(&mut diff(&fleet, &["--set", "message.x=two"]));
    assert_eq!(code, Some(4), "{err}");
    let (code, _, err) = outcome(&mut diff(&fleet, &["--config", "/nowhere"]));
    assert_eq!(code, Some(1), "{err}");
    assert_eq!(fleet.text(), before);
    assert!(!fleet.path("state").exists(), "it reads only");
}

#[test]
fn a_secret_differs_and_is_not_shown() {
    let fleet = Fleet::start(1);
    std::fs::set_permissions(
        fleet.path("web.toml"),
        std::fs::Permissions::from_mode(0o640),
    )
    .unwrap();
    for args in [
        &["--set", "message=unseen"][..],
        &["-o", "json", "--set", "message=unseen"],
    ] {
        let (code, out, _) = outcome(&mut diff(&fleet, args));
        assert_eq!(code, Some(7), "{out}");
        assert!(out.contains("secret"), "{out}");
        assert!(!out.contains("unseen"), "{out}");
    }
}

#[test]
fn nothing_to_compare_is_no_match() {
    let mut fleet = Fleet::start(1);
    fleet.kill(0);
    let json = CommandResult::of(&mut diff(&fleet, &["-o", "json"]))
        .expect(3)
        .json;
    assert_eq!(json["unknown"], serde_json::json!([]));
}

#[test]
fn a_reader_that_ends_early_is_no_error() {
    let fleet = Fleet::start(1);
    let command = diff(&fleet, &["--set", "message=two"]);
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let pipe = format!("set -o pipefail; {} | head -n 1", words.join(" "));
    let output = Command::new("bash").args(["-c", &pipe]).output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(output.stderr, b"");
    assert!(output.stdout.starts_with(b"--- "));
}

#[test]
fn the_disk_is_compared_with_what_another_tool_staged() {
    let fleet = Fleet::start(1);
    let (code, _, err) = outcome(&mut diff(&fleet, &["--source"]));
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("no group has one"), "{err}");
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write(
        "fleet.toml",
        &format!("{text}source = \"{{config}}.new\"\n"),
    );
    let (code, out, err) = outcome(&mut diff(&fleet, &["--source"]));
    assert_eq!((code, out.as_str()), (Some(0), ""), "{err}");
    assert!(err.contains("nothing is at `"), "{err}");
    fleet.write(
        "web.toml.new",
        "message = \"staged\"\nlisten = \"127.0.0.1:0\"\n",
    );
    let attempts = fleet.attempts();
    let (code, out, err) = outcome(&mut diff(&fleet, &["--source"]));
    assert_eq!((code, err.as_str()), (Some(7), ""), "{out}");
    assert!(out.contains("+message = \"staged\""), "{out}");
    assert_eq!(fleet.attempts(), attempts, "no instance was touched");
}
