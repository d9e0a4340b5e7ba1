//! The commands of README and tutorial, as they are printed, in a PID namespace of their own: there
//! `hello` finds the processes of the page alone.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use crate::support::{runs_as_root, without_cargo, write};

/// The commands that do not end with 0, each with its exit code.
const EXITS: &[(&str, i32)] = &[
    ("hello broadcast --config bad.json", 4),
    ("hello broadcast --config odd.json", 6),
];

fn page(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The lines below a heading, up to the next one of its level.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let start = page.find(heading).unwrap() + heading.len();
    let rest = &page[start..];
    rest.split("\n## ").next().unwrap()
}

/// The commands: lines with four spaces that are not in a fence.
fn commands(text: &str) -> Vec<&str> {
    let mut is_fenced = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            is_fenced = !is_fenced;
        } else if let (false, Some(command)) = (is_fenced, line.strip_prefix("    ")) {
            found.push(command);
        }
    }
    found
}

/// The contents of every fence of this language.
fn fences<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    text.split(&format!("```{language}\n"))
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}

/// Returns a script that runs the commands and ends at the first with another exit code. After the
/// last background command it waits until `ready` succeeds.
fn script(commands: &[&str], ready: &str) -> String {
    let mut text = "set -u\ntrap 'code=$?; kill $(jobs -p); wait; exit $code' EXIT\n".to_owned();
    let last = commands.iter().rposition(|command| command.ends_with('&'));
    let mut is_waited = false;
    for (index, command) in commands.iter().enumerate() {
        if last.is_some_and(|last| index > last) && !is_waited && command.starts_with("hello ") {
            text.push_str(&format!(
                "n=0; until {ready} >/dev/null 2>&1; do n=$((n + 1)); \
                 [ $n -lt 600 ] || exit 99; sleep 0.1; done\n"
            ));
            is_waited = true;
        }
        text.push_str(&format!("{command}\n"));
        let bare = command.split(" #").next().unwrap().trim_end();
        if !bare.ends_with('&') {
            let exit = EXITS.iter().find(|(known, _)| *known == bare);
            let exit = exit.map_or(0, |(_, exit)| *exit);
            text.push_str(&format!("[ $? = {exit} ] || exit 98\n"));
        }
    }
    text
}

/// Runs a script on a terminal, with the answer `y` to a question.
fn run(dir: &Path, script: &str) {
    let bin = dir.join("target/release");
    std::fs::create_dir_all(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_hello"), bin.join("hello")).unwrap();
    write(&dir.join("page.sh"), script);
    let mut command = Command::new("unshare");
    command
        .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
        .args(["script", "-q", "-e", "-c", "bash -v page.sh", "/dev/null"])
        .current_dir(dir)
        .env("HELLO_STATE", dir.join("state"))
        .env("TMPDIR", dir)
        .env_remove("HELLO_FLEET")
        .env(
            "PATH",
            format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = without_cargo(&mut command).spawn().unwrap();
    // It stays open: at its end `script` would try to read it without a pause.
    let mut keyboard = child.stdin.take().unwrap();
    keyboard.write_all(b"y\n").unwrap();
    let output = child.wait_with_output().unwrap();
    drop(keyboard);
    let shown = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}\n{shown}\n{errors}",
        output.status
    );
}

#[test]
fn the_quick_start_of_the_readme_runs_as_printed() {
    if !runs_as_root("a PID namespace needs root") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let readme = page("README.md");
    let commands = commands(section(&readme, "## Quick start"));
    assert!(commands.len() > 8, "{commands:?}");
    let ready = "eval '[ \"$(hello status web -o json | jq \".instances | length\")\" = 2 ]'";
    run(dir.path(), &script(&commands, ready));
}

#[test]
fn the_tutorial_runs_as_printed() {
    if !runs_as_root("a PID namespace needs root") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let tutorial = page("docs/tutorial.md");
    let [daemon, validator] = fences(&tutorial, "python")[..] else {
        panic!("the page has a daemon and a validator");
    };
    write(&dir.path().join("greeter.py"), daemon);
    write(&dir.path().join("check.py"), validator);
    let own = dir.path().join("check.py");
    let fleet =
        fences(&tutorial, "toml")[0].replace("/srv/greeter/check.py", own.to_str().unwrap());
    write(&dir.path().join("fleet.toml"), &fleet);
    let commands = commands(&tutorial);
    assert!(commands.len() > 10, "{commands:?}");
    run(dir.path(), &script(&commands, "hello doctor greeter"));
}
