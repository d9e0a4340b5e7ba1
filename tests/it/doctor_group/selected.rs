//! What a written group matches, and what else of it is seen or guessed.

use std::{fs, os::unix::process::CommandExt, process::Command};

use serde_json::Value;

use super::{another, append, counter, counter_in, matched, outcome};
use crate::{
    daemons::{Daemon, folder},
    support::{until, write},
};

#[test]
fn a_group_is_written_to_a_new_file_and_matches_the_process() {
    let daemon = counter(&[]);
    let file = daemon.path("fleet.toml");
    let written = append(daemon.pid(), &file).expect(0);
    assert!(
        written.text.starts_with("version = 1\n"),
        "{}",
        written.text
    );
    assert_eq!(written.stderr, "");
    written.has("name", "\"counter.py\"", "guessed");
    assert_eq!(matched(&file), [i64::from(daemon.pid())]);
    assert!(!daemon.path("signals").exists(), "no signal was sent");
}

#[test]
fn a_further_group_is_appended_under_a_free_name() {
    let first = counter(&["--one"]);
    let second = another(&first, &["--two"]);
    let file = first.path("fleet.toml");
    append(first.pid(), &file).expect(0);
    let written = append(second.pid(), &file).expect(0);
    assert_eq!(written.text.matches("version = 1").count(), 1);
    assert!(
        written.text.contains("name = \"counter.py-2\""),
        "{}",
        written.text
    );
    let mut pids = [i64::from(first.pid()), i64::from(second.pid())];
    pids.sort_unstable();
    assert_eq!(matched(&file), pids);
}

#[test]
fn a_pipe_gets_no_version_while_a_fleet_file_is_in_use() {
    let daemon = counter(&[]);
    let pid = daemon.pid().to_string();
    let other = "version = 1\n[[group]]\nname = \"x\"\nmatch = { exe = \"/none\" }\nconfirm = []\n";
    let file = daemon.write("fleet.toml", other);
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_hello"));
    doctor
        .args(["doctor", &pid, "--group", "--fleet"])
        .arg(&file);
    let (code, out, _) = outcome(&mut doctor);
    assert_eq!(code, Some(0));
    assert!(out.starts_with("\n[[group]]\n"), "{out}");
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_hello"));
    doctor
        .args(["doctor", &pid, "--group"])
        .env_remove("HELLO_FLEET")
        .current_dir("/proc/self");
    let (_, out, _) = outcome(&mut doctor);
    assert!(out.starts_with("version = 1\n\n[[group]]\n"), "{out}");
}

#[test]
fn processes_with_the_same_command_line_are_one_group() {
    let first = counter(&["--one"]);
    let sibling = another(&first, &["--one"]);
    let other = another(&first, &["--two"]);
    let file = first.path("fleet.toml");
    let written = append(first.pid(), &file).expect(0);
    assert!(
        written.text.contains("args = [\"--one\"]"),
        "{}",
        written.text
    );
    let mut pids = [i64::from(first.pid()), i64::from(sibling.pid())];
    pids.sort_unstable();
    assert_eq!(matched(&file), pids);
    assert!(other.runs());
}

#[test]
fn other_services_that_nothing_distinguishes_are_named_in_the_group() {
    let first = counter(&[]);
    let other = another(&first, &["--two"]);
    let written = append(first.pid(), &first.path("fleet.toml")).expect(0);
    let note = format!(
        "# this matches other services of the same program too (pid {})",
        other.pid()
    );
    assert!(written.text.contains(&note), "{}", written.text);
}

#[test]
fn a_handler_alone_does_not_declare_that_it_reloads() {
    let daemon = counter(&[]);
    let written = append(daemon.pid(), &daemon.path("fleet.toml")).expect(0);
    assert_eq!(written.key("reloads"), None);
    assert!(
        written
            .text
            .contains("# reloads = true  # guessed: it takes SIGHUP"),
        "{}",
        written.text
    );
}

#[test]
fn the_checks_then_say_what_is_missing() {
    let daemon = counter(&[]);
    let file = daemon.path("fleet.toml");
    append(daemon.pid(), &file).expect(0);
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_hello"));
    doctor.args(["doctor", &daemon.pid().to_string(), "--fleet"]);
    let (code, out, _) = outcome(doctor.arg(&file));
    assert_eq!(code, Some(5), "{out}");
    assert!(out.contains("set `reloads = true` in group"), "{out}");
    assert!(
        out.contains("set what can be seen with [[group.confirm]]"),
        "{out}"
    );
}

#[test]
fn the_config_of_its_command_line_is_named_by_the_option() {
    let dir = folder();
    write(&dir.path().join("counter.py"), super::COUNTER);
    let config = write(&dir.path().join("x.conf"), "a\n");
    let pid_file = write(&dir.path().join("x.pid"), "1\n");
    let args = [
        "-c",
        config.to_str().unwrap(),
        "--pid-file",
        pid_file.to_str().unwrap(),
    ];
    let daemon = counter_in(dir, &args, None);
    let file = daemon.path("fleet.toml");
    let written = append(daemon.pid(), &file).expect(0);
    written.has("config", "\"{arg:-c}\"", "seen");
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_hello"));
    doctor.args(["doctor", &daemon.pid().to_string(), "--fleet"]);
    let (_, out, _) = outcome(doctor.arg(&file));
    let reads = format!("reads `{}`", config.canonicalize().unwrap().display());
    assert!(out.contains(&reads), "{out}");
}

#[test]
fn the_config_of_another_user_is_limited_to_its_directory() {
    if !crate::support::runs_as_root("only root can start processes of other users") {
        return;
    }
    const NOBODY: u32 = 65534;
    let dir = folder();
    std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    write(&dir.path().join("counter.py"), super::COUNTER);
    let config = write(&dir.path().join("x.conf"), "a\n");
    let daemon = counter_in(dir, &["-c", config.to_str().unwrap()], Some(NOBODY));
    let file = folder();
    let file = file.path().join("fleet.toml");
    let written = append(daemon.pid(), &file).expect(0);
    written.has("user", "\"nobody\"", "seen");
    let under = format!("\"{}\"", daemon.dir.path().display());
    written.has("config_under", &under, "guessed");
    assert_eq!(matched(&file), [i64::from(daemon.pid())]);
}

#[test]
fn a_hostile_command_line_stays_text() {
    let hostile = "a\n[[group]]\nname = \"x\" # \u{1b}[2J\u{202e}\\{arg:-c}*[";
    let first = counter(&[hostile]);
    let other = another(&first, &["--two"]);
    let file = first.path("fleet.toml");
    let written = append(first.pid(), &file).expect(0);
    assert_eq!(written.text.matches("\n[[group]]").count(), 1);
    assert!(
        !written.text.contains(['\u{1b}', '\u{202e}']),
        "{:?}",
        written.text
    );
    assert_eq!(matched(&file), [i64::from(first.pid())]);
    assert!(other.runs());
}

#[test]
fn the_facts_are_marked_and_the_command_that_writes_the_group_comes_last() {
    let daemon = counter(&[]);
    let pid = daemon.pid().to_string();
    let doctor = || {
        let mut doctor = Command::new(env!("CARGO_BIN_EXE_hello"));
        doctor
            .args(["doctor", &pid])
            .env_remove("HELLO_FLEET")
            .current_dir("/proc/self");
        doctor
    };
    let (code, out, err) = outcome(&mut doctor());
    assert_eq!(code, Some(5), "{out}");
    let has_row = |words: &[&str]| {
        let is_row = |line: &str| {
            let line: Vec<&str> = line.split_whitespace().collect();
            line.starts_with(words)
        };
        out.lines().any(is_row)
    };
    assert!(
        has_row(&["seen", "Signals", "SIGHUP:", "a", "handler"]),
        "{out}"
    );
    assert!(has_row(&["guessed", "Validator", "none"]), "{out}");
    let command = format!("hello doctor {pid} --group >> fleet.toml");
    assert_eq!(err, format!("hint: to write its group:\n  {command}\n"));
    let (_, out, _) = outcome(doctor().args(["-o", "json"]));
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["next"][0], command.as_str());
    let draft = &json["processes"][0]["draft"];
    assert!(draft["toml"].as_str().unwrap().starts_with("[[group]]\n"));
    let facts = draft["facts"].as_array().unwrap();
    let is_signal = |fact: &&Value| fact["about"] == "signals" && fact["seen"] == true;
    assert_eq!(facts.iter().filter(is_signal).count(), 3, "{draft:#}");
}

#[test]
fn a_removed_executable_is_named_by_its_old_path() {
    let dir = folder();
    let exe = dir.path().join("naps");
    let copied = Command::new("cp").arg("/bin/sleep").arg(&exe).status();
    assert!(copied.unwrap().success());
    let daemon = Daemon::spawn(dir, Command::new(&exe).arg("600"));
    until("it executes the copy", || {
        fs::read_link(format!("/proc/{}/exe", daemon.pid())).is_ok_and(|path| path == exe)
    });
    fs::remove_file(&exe).unwrap();
    let written = append(daemon.pid(), &daemon.path("fleet.toml")).expect(0);
    let table = format!("{{ exe = \"{}\" }}", exe.display());
    written.has("match", &table, "seen");
    assert!(
        written.text.contains("no signal reloads it"),
        "{}",
        written.text
    );
}

#[test]
fn a_rewritten_command_line_is_a_title_and_no_option_is_taken_from_it() {
    let dir = folder();
    let config = write(&dir.path().join("x.conf"), "a\n");
    let exe = dir.path().join("naps");
    let copied = Command::new("cp").arg("/bin/sleep").arg(&exe).status();
    assert!(copied.unwrap().success());
    let mut command = Command::new(&exe);
    // One string with blanks is how a title looks.
    command.arg0(format!("naps: master -c {}", config.display()));
    let daemon = Daemon::spawn(dir, command.arg("600"));
    until("it executes the copy", || {
        fs::read_link(format!("/proc/{}/exe", daemon.pid())).is_ok_and(|path| path == exe)
    });
    let written = append(daemon.pid(), &daemon.path("fleet.toml")).expect(0);
    assert!(!written.text.contains("{arg:-c}"), "{}", written.text);
}

#[test]
fn files_of_a_process_with_its_own_mounts_are_not_looked_for_on_this_host() {
    if !crate::support::runs_as_root("only root can make a mount namespace") {
        return;
    }
    let dir = folder();
    let script = write(&dir.path().join("counter.py"), super::COUNTER);
    let config = write(&dir.path().join("x.conf"), "a\n");
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "python3"]);
    let daemon = Daemon::spawn(dir, unshare.arg(script).arg("-c").arg(config));
    let ready = daemon.path(&format!("ready-{}", daemon.pid()));
    until("it has its handler", || ready.exists() || !daemon.runs());
    let written = append(daemon.pid(), &daemon.path("fleet.toml")).expect(0);
    assert_eq!(written.key("config"), None);
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_hello"));
    doctor.args(["doctor", &daemon.pid().to_string()]);
    let (_, out, _) = outcome(doctor.env_remove("HELLO_FLEET").current_dir("/proc/self"));
    assert!(
        out.contains("has a mount namespace of its own: no file"),
        "{out}"
    );
}
