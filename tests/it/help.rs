//! `hello help`, the version, and commands that an operator types in another way.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

fn hello(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hello"))
        .args(args)
        .stdin(Stdio::null())
        .env_remove("HELLO_FLEET")
        .env_remove("HELLO_STATE")
        .output()
        .unwrap()
}

fn stdout(args: &[&str]) -> String {
    let output = hello(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a command says that fails with 2.
fn usage_error(args: &[&str]) -> String {
    let output = hello(args);
    assert_eq!(output.status.code(), Some(2), "{args:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_topic_is_the_page_of_docs() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let page = std::fs::read_to_string(docs.join("proof.md")).unwrap();
    assert_eq!(stdout(&["help", "proof"]).trim_end(), page.trim_end());
}

#[test]
fn hello_alone_prints_the_overview_and_is_no_success() {
    assert_eq!(usage_error(&[]), stdout(&["help"]));
}

#[test]
fn help_of_a_command_is_its_long_help() {
    assert_eq!(
        stdout(&["help", "revert"]).trim_end(),
        stdout(&["revert", "--help"]).trim_end()
    );
}

#[test]
fn other_names_of_a_command_are_that_command() {
    for (alias, command) in [
        ("reload", "broadcast"),
        ("apply", "broadcast"),
        ("undo", "revert"),
        ("rollback", "revert"),
        ("ps", "status"),
        ("log", "history"),
    ] {
        let own = stdout(&[command, "-h"]);
        let usage = format!("Usage: hello {command} ");
        assert!(own.contains(&usage), "{own}");
        assert_eq!(stdout(&[alias, "-h"]), own);
    }
}

#[test]
fn an_error_of_an_alias_is_the_object_of_its_command() {
    let output = hello(&["ps", "--odd", "-o", "json"]);
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(object["exit"], 2);
    assert!(object["instances"].is_array(), "{object:#}");
}

#[test]
fn a_typo_suggests_the_right_word() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = dir.path().join("fleet.toml");
    let text = "version = 1\n[[group]]\nname = \"web\"\nkind = \"hello\"\n";
    std::fs::write(&fleet, text).unwrap();
    let bad_key = dir.path().join("key.toml");
    std::fs::write(&bad_key, format!("{text}timeuot = \"1s\"\n")).unwrap();
    let bad_kind = dir.path().join("kind.toml");
    std::fs::write(&bad_kind, text.replace("\"hello\"", "\"ngnix\"")).unwrap();
    let paths = [&fleet, &bad_key, &bad_kind].map(|path| path.to_str().unwrap());
    for (args, word) in [
        (&["brodcast"][..], "broadcast"),
        (&["help", "prooof"], "proof"),
        (&["help", "brodcast"], "broadcast"),
        (&["kinds", "ngnix"], "nginx"),
        (&["broadcast", "--dryrun"], "--dry-run"),
        (&["broadcast", "--on-failure", "revrt"], "revert"),
        (&["status", "wbe", "--fleet", paths[0]], "web"),
        (&["status", "--fleet", paths[1]], "timeout"),
        (&["status", "--fleet", paths[2]], "nginx"),
    ] {
        let error = usage_error(args);
        let quoted = [format!("`{word}`"), format!("'{word}'")];
        assert!(
            quoted.iter().any(|quoted| error.contains(quoted)),
            "{args:?}: {error}"
        );
    }
}

#[test]
fn the_version_names_what_the_program_was_built_from() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(stdout(&["-V"]), format!("hello {version}\n"));
    let text = stdout(&["--version", "--verbose"]);
    for key in ["commit", "date", "target", "features", "fleet.toml"] {
        let line = text
            .lines()
            .find(|line| line.trim_start().starts_with(&format!("{key}: ")));
        assert!(line.is_some(), "{key}: {text}");
    }
}

#[test]
fn colours_follow_the_option_and_the_environment() {
    let has_colours = |args: &[&str], variable: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_hello"))
            .args(args)
            .env_remove("NO_COLOR")
            .env_remove("CLICOLOR_FORCE")
            .env(variable, "1")
            .output()
            .unwrap();
        output.stderr.contains(&0x1b)
    };
    let wrong = ["kinds", "no-such-kind"];
    assert!(!has_colours(&wrong, "UNUSED"), "stderr is a pipe");
    assert!(has_colours(&wrong, "CLICOLOR_FORCE"));
    assert!(!has_colours(&wrong, "NO_COLOR"));
    let always = [&wrong[..], &["--color", "always"]].concat();
    assert!(has_colours(&always, "NO_COLOR"), "the option is stronger");
    let never = [&wrong[..], &["--color=never"]].concat();
    assert!(!has_colours(&never, "CLICOLOR_FORCE"));
}
