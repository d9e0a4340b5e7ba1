//! `hello status`: reads only, and reports what would fail next.

use std::{path::Path, process::Command};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    daemons::{web::nginx, words},
    rogue::{SEEN, rogues},
    support::{CommandResult, Fleet, Killed, get, until},
};

#[test]
fn status_reports_a_bad_file_on_disk() {
    let fleet = Fleet::start(2);
    fleet.status().expect(0);
    fleet.write(
        "web.toml",
        "message = \"later\"\nlisten = \"127.0.0.1:0\"\n",
    );
    let result = fleet.status().expect(7).json.to_string();
    assert!(
        result.contains("does not run the config on its disk"),
        "{result}"
    );
    assert!(!result.contains("next reload would fail"), "{result}");
    fleet.write("web.toml", "message = 1\n");
    let result = fleet.status().expect(7).json.to_string();
    assert!(result.contains("next reload would fail"), "{result}");
    assert_eq!(fleet.attempts(), [1; 2], "no signal was sent");
    // Its own validator runs.
    fleet.write("web.toml", "message = \"one\"\nlisten = \"127.0.0.1:0\"\n");
    let group = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write(
        "fleet.toml",
        &format!("{group}validate = [\"/bin/sh\", \"-c\", \"echo no, never; exit 1\"]\n"),
    );
    let result = fleet.status().expect(7).json.to_string();
    assert!(result.contains("next reload would fail"), "{result}");
    assert!(result.contains("no, never"), "{result}");
    assert_eq!(fleet.attempts(), [1; 2], "no signal was sent");
}

/// Checks the only row and its report about the running config.
#[track_caller]
fn row<'a>(result: &'a CommandResult, known: &str) -> &'a Value {
    let rows = result.json["instances"].as_array().unwrap();
    assert!(rows.len() == 1, "{known}: {:#}", result.json);
    assert!(
        rows[0]["targets"][0]["known"] == known,
        "{known}: {:#}",
        result.json
    );
    &rows[0]
}

/// Returns a line with one blank between its words.
fn squeezed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns a group of copies of `sleep`.
fn sleeps(fleet: &Fleet, keys: &str) {
    fleet.write("fleet.toml", &format!("version = 1\n[[group]]\nname = \"g\"\nmatch = {{ exe = \"{}\" }}\nreloads = \"unchecked\"\nconfirm = []\n{keys}\n", fleet.path("naps").display()), );
}

fn sleep(fleet: &Fleet) -> Killed {
    let exe = fleet.path("naps");
    if !exe.exists() {
        assert!(
            Command::new("cp")
                .arg("/bin/sleep")
                .arg(&exe)
                .status()
                .unwrap()
                .success()
        );
    }
    let sleep = Killed(Command::new(&exe).arg("600").spawn().unwrap());
    let pid = i32::try_from(sleep.0.id()).unwrap();
    until("it executes the copy", || {
        words(pid)
            .first()
            .is_some_and(|word| Path::new(word) == exe)
    });
    sleep
}

#[test]
fn an_instance_that_reports_nothing_is_judged_by_its_last_proof() {
    let fleet = Fleet::start(0);
    let all = rogues(
        &fleet,
        "good",
        "good",
        1,
        &format!("reloads = true\n{SEEN}"),
    );
    let result = fleet.status().expect(0);
    assert_eq!(
        (
            &row(&result, "no")["runs"],
            &result.json["instances"][0]["endpoint"]
        ),
        (&Value::Null, &all[0].url.clone().into())
    );
    fleet.broadcast(&["--set", "message=two"]).expect(0);
    let result = fleet.status().expect(0);
    let row_of = row(&result, "proven");
    assert!(row_of["runs"].is_string(), "{row_of:#}");
    assert!(row_of["runs"] == row_of["disk"], "{row_of:#}");
    assert!(row_of["targets"][0]["runs"] == row_of["runs"], "{row_of:#}");
    // Another state directory has no record of it.
    let other = CommandResult::of(
        fleet
            .read_only("status")
            .args(["-o", "json", "--state"])
            .arg(fleet.path("other")),
    )
    .expect(0);
    row(&other, "no");
    // Equal bytes again: other content in between may have been read.
    let proven = row_of["runs"].clone();
    fleet.write("web.toml", &fleet.text());
    row(&fleet.status().expect(0), "no");
    fleet.write("web.toml", "message = \"three\"\n");
    let result = fleet.status().expect(7);
    assert_eq!(row(&result, "proven")["runs"], proven);
    assert!(
        result.json["instances"][0]["faults"][0]
            .as_str()
            .unwrap()
            .contains("on disk was changed after it was proven"),
        "{:#}",
        result.json
    );
    // The text output names the proof and the fault.
    let output = fleet
        .read_only("status")
        .arg("--state")
        .arg(fleet.path("state"))
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let wanted = format!(
        "FAULT rogue {} proven on sha256:{} {}",
        all[0].pid(),
        &proven.as_str().unwrap()[..12],
        all[0].url,
    );
    let lines: Vec<String> = stdout.lines().map(squeezed).collect();
    assert_eq!(lines[0], "STATUS GROUP PID CONFIG ENDPOINT", "{stdout}");
    assert_eq!(lines[1], wanted, "{stdout}");
    assert!(lines[2].starts_with('`'), "{stdout}");
    assert_eq!(lines.last().unwrap(), "1 instance: 1 FAULT", "{stdout}");
    // The content was proven, and its assertion reads another part.
    fleet.broadcast(&[]).expect(0);
    fleet.broadcast(&["--set", "message=four"]).expect(0);
    let text = fleet.text();
    fleet.write("web.toml", "message = \"by hand\"\n");
    let signals = all[0].signals();
    kill(Pid::from_raw(all[0].pid()), Signal::SIGHUP).unwrap();
    until("it has read that", || {
        all[0].signals() != signals && get(&all[0].url, "/").1 == "by hand"
    });
    fleet.write("web.toml", &text);
    let result = fleet.status().expect(7);
    let faults = result.json["instances"][0]["faults"].to_string();
    assert!(
        faults.contains("reads `by hand`, and wanted is `four`"),
        "{faults}"
    );
    // A restarted instance is another process.
    drop(all);
    let all = rogues(
        &fleet,
        "good",
        "good",
        1,
        &format!("reloads = true\n{SEEN}"),
    );
    row(&fleet.status().expect(0), "no");
    assert_eq!(all[0].signals(), "0");
}

#[test]
fn each_of_several_targets_is_judged_by_itself() {
    let fleet = Fleet::start(0);
    std::fs::create_dir(fleet.path("conf.d")).unwrap();
    fleet.write("conf.d/a", "a");
    let seen = "[[group.confirm]]\nhttp = \"http://{listen}/\"\nequals = \"two\"";
    let all = rogues(
        &fleet,
        "good",
        "good",
        1,
        &format!("reloads = true\n{seen}"),
    );
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    let (file, dir) = (fleet.path("web.toml"), fleet.path("conf.d"));
    let config = format!(
        "config = [[\"{}\"], [\"{}\"]]\n",
        file.display(),
        dir.display()
    );
    let text = text
        .lines()
        .filter(|line| !line.starts_with("config = "))
        .collect::<Vec<_>>()
        .join("\n");
    fleet.write(
        "fleet.toml",
        &text.replace(
            "timeout = \"800ms\"",
            &format!("timeout = \"800ms\"\n{config}"),
        ),
    );
    std::fs::create_dir_all(fleet.path("new/conf.d")).unwrap();
    fleet.write("new/web.toml", "message = \"two\"\n");
    fleet.write("new/conf.d/a", "b");
    fleet
        .broadcast(&["--config", fleet.path("new").to_str().unwrap()])
        .expect(0);
    let result = fleet.status().expect(0);
    let known = |result: &CommandResult| -> Vec<String> {
        let targets = result.json["instances"][0]["targets"].as_array().unwrap();
        targets
            .iter()
            .map(|t| {
                format!(
                    "{} {} {}",
                    t["path"].as_str().unwrap(),
                    t["known"].as_str().unwrap(),
                    t["runs"] == t["disk"]
                )
            })
            .collect()
    };
    assert_eq!(
        known(&result),
        [
            format!("{} proven true", file.display()),
            format!("{} proven true", dir.display())
        ]
    );
    fleet.write("conf.d/b", "b");
    let result = fleet.status().expect(7);
    assert_eq!(
        known(&result),
        [
            format!("{} proven true", file.display()),
            format!("{} proven false", dir.display())
        ]
    );
    let output = fleet
        .read_only("status")
        .arg("--state")
        .arg(fleet.path("state"))
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(
        stdout.contains(&format!("{}: proven on sha256:", dir.display())),
        "{stdout}"
    );
    assert!(
        stdout.contains(&format!("`{}` on disk was changed", dir.display())),
        "{stdout}"
    );
    assert_eq!(all[0].signals(), "1");
}

#[test]
fn an_instance_older_than_its_startup_files_must_be_restarted() {
    let fleet = Fleet::start(0);
    let _sleep = sleep(&fleet);
    // As old as the sources.
    let old = format!("\"{}/Cargo.toml\"", env!("CARGO_MANIFEST_DIR"));
    sleeps(&fleet, &format!("config = {old}\nneeds_restart = {old}"));
    let result = fleet.status().expect(0);
    let row_of = row(&result, "started");
    assert_eq!(row_of["runs"], row_of["disk"]);
    let new = fleet.write("naps.conf", "");
    for keys in [
        format!("config = \"{0}\"\nneeds_restart = \"{0}\"", new.display()),
        format!("config = {old}\nneeds_restart = \"{}\"", new.display()),
    ] {
        sleeps(&fleet, &keys);
        let told = || {
            // Until the kernel's coarse clocks separate the two moments.
            fleet.write("naps.conf", "new");
            let result = fleet.status();
            result.code == 7
                && result.json["instances"][0]["targets"][0]["known"] == "no"
                && result.json["instances"][0]["faults"][0]
                    .as_str()
                    .is_some_and(|f| {
                        f.contains("naps.conf") && f.contains("older config than its disk")
                    })
        };
        until("the pending restart is reported", told);
    }
}

#[test]
fn keys_that_wait_for_a_restart_are_named() {
    let fleet = Fleet::start(0);
    let _sleep = sleep(&fleet);
    let config = fleet.write("naps.conf", "");
    for (pending, code, says) in [
        ("\"true\"", 0, ""),
        (
            "\"echo\", \"Max_Naps\"",
            7,
            "a restart is needed for `max_naps`",
        ),
        ("\"false\"", 7, "`false` ended with 1"),
    ] {
        sleeps(
            &fleet,
            &format!(
                "config = \"{}\"\nrestart_pending = [{pending}]",
                config.display()
            ),
        );
        let result = fleet.status().expect(code);
        assert!(
            row(&result, "no")["faults"].to_string().contains(says),
            "{:#}",
            result.json
        );
    }
}

#[test]
fn a_rejected_reload_is_reported_until_it_is_fixed() {
    let fleet = Fleet::start(0);
    let failed = |when: &str| {
        format!(
            "reloads = true\n{SEEN}\n[[group.reject]]\nhttp = \"http://{{listen}}/signals\"\nequals = \"{when}\""
        )
    };
    let all = rogues(&fleet, "good", "good", 1, &failed("0"));
    let result = fleet.status().expect(7);
    assert!(
        result.json["instances"][0]["faults"][0]
            .as_str()
            .unwrap()
            .contains("shows that its last reload was refused"),
        "{:#}",
        result.json
    );
    fleet.write(
        "fleet.toml",
        &std::fs::read_to_string(fleet.path("fleet.toml"))
            .unwrap()
            .replace("equals = \"0\"", "equals = \"1\""),
    );
    fleet.status().expect(0);
    // An instance that cannot be probed would not be reloaded either.
    kill(Pid::from_raw(all[0].pid()), Signal::SIGSTOP).unwrap();
    let result = fleet.status().expect(7);
    let faults = result.json["instances"][0]["faults"].to_string();
    assert!(faults.contains("is stopped"), "{faults}");
    assert!(faults.contains("no answer"), "{faults}");
}

#[test]
fn each_instance_is_reported_once_and_none_is_exit_3() {
    let fleet = Fleet::start(0);
    sleeps(&fleet, "");
    fleet.status().expect(3);
    let _sleep = sleep(&fleet);
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write(
        "fleet.toml",
        &format!(
            "{text}{}",
            text.trim_start_matches("version = 1\n")
                .replace("\"g\"", "\"h\"")
        ),
    );
    // The second group has no instance, which is a fault.
    let result = fleet.status().expect(7);
    assert_eq!(
        (
            result.json["instances"].as_array().map(Vec::len),
            &result.json["instances"][0]["group"]
        ),
        (Some(1), &"g".into())
    );
    assert!(
        result.json["groups"][1]["faults"]
            .to_string()
            .contains("has 0 instances"),
        "{:#}",
        result.json
    );
}

#[test]
fn an_nginx_is_one_row_and_workers_without_a_master_are_a_fault() {
    let Some(web) = nginx() else { return };
    let group = format!(
        "name = \"web\"\nkind = \"nginx\"\nmatch = {{ exe = \"nginx\", args = [\"{}\"] }}\n",
        web.file().display()
    );
    web.daemon
        .write("fleet.toml", &format!("version = 1\n[[group]]\n{group}"));
    let status = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hello"));
        CommandResult::of(
            command
                .args(["status", "-o", "json", "--fleet"])
                .arg(web.daemon.path("fleet.toml"))
                .arg("--state")
                .arg(web.daemon.path("state")),
        )
    };
    let result = status().expect(0);
    assert_eq!(
        (
            &row(&result, "no")["pid"],
            &result.json["instances"][0]["path"]
        ),
        (
            &web.daemon.pid().into(),
            &web.file().display().to_string().into()
        )
    );
    let new = web.daemon.write("new", &web.config("two"));
    web.daemon
        .broadcast(&["--config", new.to_str().unwrap()])
        .expect(0);
    let result = status().expect(0);
    assert_eq!(
        row(&result, "proven")["disk"],
        result.json["instances"][0]["runs"]
    );
    std::fs::write(web.file(), "nonsense").unwrap();
    let faults = status().expect(7).json["instances"][0]["faults"].to_string();
    assert!(faults.contains("next reload would fail"), "{faults}");
    assert!(faults.contains("changed after it was proven"), "{faults}");
    // A worker's title names no file, so every worker is listed. Their configs are not judged.
    web.daemon.write(
        "fleet.toml",
        "version = 1\n[[group]]\nname = \"web\"\nkind = \"nginx\"\nvalidate = []\n",
    );
    let worker = web.daemon.children()[0];
    web.daemon.signal(Signal::SIGKILL);
    until("it is gone", || !web.daemon.runs());
    until("its worker is an orphan", || {
        let result = status();
        let rows = result.json["instances"].as_array().unwrap();
        rows.iter().any(|row| {
            row["pid"] == worker && row["faults"].to_string().contains("whose master is gone")
        })
    });
}
