//! Finished runs: the content that is kept, the reports about them, and their removal.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixDatagram,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    broadcast::{two_groups, with_a_victim},
    support::{CommandResult, Fleet, until},
};

/// Runs `history`, `forget` and similar commands.
fn ask(fleet: &Fleet, args: &[&str]) -> Command {
    let mut command = Command::new(fleet.exe());
    command.args(args).arg("--state").arg(fleet.path("state"));
    command
}

fn history(fleet: &Fleet, args: &[&str]) -> CommandResult {
    CommandResult::of(ask(fleet, &["history", "-o", "json"]).args(args))
}

fn screen(fleet: &Fleet, args: &[&str]) -> String {
    let output = ask(fleet, &[&["history"], args].concat()).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn runs(fleet: &Fleet) -> Vec<String> {
    names(&fleet.path("state/runs"))
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o777
}

/// Everything below a directory.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut all = vec![dir.to_owned()];
    for entry in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        if entry.is_dir() {
            all.extend(below(&entry))
        } else {
            all.push(entry)
        }
    }
    all
}

/// Starts a run and kills its owner while it waits for an instance that hangs. Returns the run's
/// id.
fn killed(fleet: &Fleet, args: &[&str]) -> String {
    let known = if fleet.path("state/runs").exists() {
        runs(fleet)
    } else {
        Vec::new()
    };
    let mut child = fleet
        .command(&["-o", "jsonl", "--timeout", "60s"])
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        if line.unwrap().contains("\"intent\"") {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    let new: Vec<String> = runs(fleet)
        .into_iter()
        .filter(|id| !known.contains(id))
        .collect();
    assert_eq!(new.len(), 1);
    new.into_iter().next().unwrap()
}

/// Lets every server load the content on the disk, however far the killed run came.
fn settle(fleet: &Fleet, files: &[&str]) {
    let wanted: Vec<String> = files
        .iter()
        .map(|file| {
            std::fs::read_to_string(fleet.path(file))
                .unwrap()
                .split('"')
                .nth(1)
                .unwrap()
                .to_owned()
        })
        .collect();
    for at in 0..fleet.len() {
        fleet.signal(at, Signal::SIGCONT);
        fleet.signal(at, Signal::SIGHUP);
    }
    until("all read their files", || fleet.bodies() == wanted);
}

/// Starts servers with a group whose run does not end before its owner is killed.
fn hanging(n: usize) -> Fleet {
    let fleet = Fleet::start(n);
    with_a_victim(&fleet);
    fleet
}

#[test]
fn each_content_is_stored_once_and_private() {
    let fleet = Fleet::start(1);
    let state = fleet.path("state");
    // Existing entries get the same tight modes. A directory that the operator chose does not.
    std::fs::create_dir_all(state.join("runs")).unwrap();
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(state.join("runs"), std::fs::Permissions::from_mode(0o777)).unwrap();
    let command = fleet.command(&["-o", "json", "--set", "message=two"]);
    let mut shell = Command::new("sh");
    let result = CommandResult::of(
        shell
            .args(["-c", "umask 0; exec \"$0\" \"$@\""])
            .arg(command.get_program())
            .args(command.get_args()),
    );
    let first = result.expect(0).json["run"].as_str().unwrap().to_owned();
    let inode = |sha256: &str| state.join("bytes").join(sha256).metadata().unwrap().ino();
    let known: Vec<(String, u64)> = names(&state.join("bytes"))
        .into_iter()
        .map(|sha256| (sha256.clone(), inode(&sha256)))
        .collect();
    assert_eq!(known.len(), 2);
    for message in ["one", "two", "one"] {
        fleet
            .broadcast(&["--set", &format!("message={message}")])
            .expect(0);
    }
    for (sha256, was) in &known {
        assert_eq!(
            (
                inode(sha256),
                state.join("bytes").join(sha256).metadata().unwrap().nlink()
            ),
            (*was, 5),
            "one file, and a link of each of four runs"
        );
        assert_eq!(
            state
                .join("runs")
                .join(&first)
                .join(sha256)
                .metadata()
                .unwrap()
                .ino(),
            *was
        );
    }
    assert_eq!(names(&state.join("bytes")).len(), 2);
    let all = below(&state);
    assert!(all.len() > 20, "{all:?}");
    for path in all.iter().filter(|p| **p != state) {
        assert_eq!(
            mode(path),
            if path.is_dir() { 0o700 } else { 0o600 },
            "{}",
            path.display()
        );
    }
    assert_eq!(mode(&state), 0o755);
    // Content that does not match its name is not trusted and is written again.
    let (sha256, _) = &known[0];
    let text = std::fs::read(state.join("bytes").join(sha256)).unwrap();
    std::fs::write(state.join("bytes").join(sha256), vec![b'#'; text.len()]).unwrap();
    fleet.broadcast(&["--set", "message=two"]).expect(0);
    assert_eq!(
        std::fs::read(state.join("bytes").join(sha256)).unwrap(),
        text
    );
}

#[test]
fn a_state_directory_that_others_can_write_is_refused() {
    let fleet = Fleet::start(1);
    let (before, state) = (fleet.text(), fleet.path("state"));
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o775)).unwrap();
    let result = fleet.broadcast(&["--set", "message=x"]).expect(1);
    let mend = format!("chmod go-w {}", state.display());
    assert!(result.stderr.contains("can write"), "{}", result.stderr);
    assert!(result.stderr.contains(&mend), "{}", result.stderr);
    assert_eq!(
        (fleet.text(), fleet.attempts(), names(&state)),
        (before, vec![1], vec![])
    );
    assert!(
        Command::new("sh")
            .args(["-c", &mend])
            .status()
            .unwrap()
            .success()
    );
    fleet.broadcast(&["--set", "message=x"]).expect(0);
    if crate::support::runs_as_root("in part: only root can give a directory to another user") {
        std::os::unix::fs::chown(&state, Some(65534), None).unwrap();
        let result = fleet.broadcast(&["--set", "message=y"]).expect(1);
        assert!(result.stderr.contains("can write"), "{}", result.stderr);
        assert!(result.stderr.contains("chown 0"), "{}", result.stderr);
    }
}

#[test]
fn a_run_without_an_owner_is_named_until_another_supersedes_it() {
    let fleet = hanging(2);
    let run = killed(
        &fleet,
        &[
            "--validate",
            "--set",
            "message=x",
            "--reason",
            "a first\u{1b} try",
        ],
    );
    let state = fleet.path("state").display().to_string();
    let commands = ["resume", "revert"].map(|verb| format!("hello {verb} {run} --state {state}"));
    let result = history(&fleet, &[]).expect(0);
    let told = &result.json["runs"][0];
    assert_eq!(
        (&told["run"], &told["verdict"], &told["open"], &told["next"]),
        (&json!(run), &json!("open"), &json!(true), &json!(commands))
    );
    assert_eq!(
        (&told["began"]["verb"], &told["began"]["reason"]),
        (&json!("broadcast"), &json!("a first\u{1b} try"))
    );
    let text = screen(&fleet, &[]);
    let is_row =
        |line: &str| line.contains("  broadcast of web  open  ") && line.contains("  uid ");
    assert!(text.lines().any(is_row), "{text}");
    assert!(text.contains("reason: a first\\x1b try\n"), "{text}");
    let is_line = |text: &str, wanted: &str| text.lines().any(|line| line.trim() == wanted);
    assert!(commands.iter().all(|c| is_line(&text, c)), "{text}");
    assert!(text.ends_with("\n1 run, 1 open\n"), "{text}");
    // `status` of the fleet shows it too.
    let result = fleet.status();
    assert_eq!(
        (
            &result.json["open"][0]["run"],
            &result.json["open"][0]["next"]
        ),
        (&json!(run), &json!(commands))
    );
    let stderr = &result.stderr;
    assert!(
        stderr.contains(&format!("    Open run {run}\n")),
        "{stderr}"
    );
    assert!(commands.iter().all(|c| is_line(stderr, c)), "{stderr}");
    // It is needed, and so are its bytes.
    let result = CommandResult::of(&mut ask(&fleet, &["forget", &run])).expect(5);
    assert!(
        commands.iter().all(|c| result.stderr.contains(c)),
        "{}",
        result.stderr
    );
    let sha256 = names(&fleet.path("state/bytes"))[0].clone();
    let result = CommandResult::of(&mut ask(&fleet, &["forget", &sha256[..8]])).expect(5);
    assert!(result.stderr.contains(&run), "{}", result.stderr);
    assert_eq!(names(&fleet.path("state/bytes")).len(), 2);
    // Its last line is incomplete.
    let journal = fleet.path("state/runs").join(&run).join("events.jsonl");
    std::fs::OpenOptions::new()
        .append(true)
        .open(&journal)
        .unwrap()
        .write_all(b"{\"event\":\"insta")
        .unwrap();
    assert_eq!(history(&fleet, &[]).json["runs"][0]["verdict"], "open");
    settle(&fleet, &["web.toml"; 2]);
    let group = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write("fleet.toml", group.split("validate").next().unwrap());
    let result = fleet.broadcast(&["--set", "message=z"]).expect(0);
    let other = result.json["run"].as_str().unwrap().to_owned();
    assert!(
        result.stderr.contains(&format!("Superseded run {run}")),
        "{}",
        result.stderr
    );
    let result = history(&fleet, &[]).expect(0);
    let verdicts: Vec<&Value> = result.json["runs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| &r["verdict"])
        .collect();
    assert_eq!(verdicts, ["converged", "superseded"]);
    let text = std::fs::read_to_string(&journal).unwrap();
    let parsed: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    assert_eq!(
        (parsed.len(), parsed.last().unwrap()["run"].as_str()),
        (text.lines().count() - 1, Some(other.as_str())),
        "{text}"
    );
    assert!(
        parsed.iter().all(|e| e["v"] == 2 && e["at"].is_string()),
        "{text}"
    );
    let text = screen(&fleet, &[&run]);
    let (_, later) = text.rsplit_once("End superseded by run ").unwrap();
    assert!(other.starts_with(later.trim()), "{text}");
    assert_eq!(
        (fleet.status().json["open"].clone(), fleet.status().stderr),
        (json!([]), String::new())
    );
    // No run needs it any more.
    let result = CommandResult::of(&mut ask(&fleet, &["forget", &run])).expect(0);
    for said in [
        format!("run {run} (broadcast of web, "),
        ", and 1 content".into(),
    ] {
        assert!(result.stderr.contains(&said), "{said}: {}", result.stderr);
    }
    assert_eq!(runs(&fleet), [other]);
    CommandResult::of(&mut ask(&fleet, &["forget", &run])).expect(3);
}

#[test]
fn a_run_over_some_targets_leaves_the_others_open() {
    let mut fleet = Fleet::start(1);
    let (new, newer) = two_groups(&mut fleet);
    // Both hang before they read.
    let script = fleet.write(
        "validator",
        &format!("#!/bin/sh\nkill -STOP {} {}\n", fleet.pid(0), fleet.pid(1)),
    );
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let groups = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    let hangs = groups.replace(
        "kind = \"hello\"\n",
        &format!("kind = \"hello\"\nvalidate = [\"{}\"]\n", script.display()),
    );
    fleet.write("fleet.toml", &hangs);
    let run = killed(
        &fleet,
        &[
            "--config",
            &format!("a={new}"),
            "--config",
            &format!("b={new}"),
        ],
    );
    settle(&fleet, &["web.toml", "other.toml"]);
    fleet.write("fleet.toml", &groups);
    let targets = || {
        serde_json::from_slice::<Value>(
            &std::fs::read(fleet.path("state/open").join(&run)).unwrap(),
        )
        .unwrap()["targets"]
            .clone()
    };
    assert_eq!(targets().as_array().unwrap().len(), 2);
    let result = fleet
        .broadcast(&["--config", &format!("a={newer}")])
        .expect(0);
    assert!(!result.stderr.contains("Superseded"), "{}", result.stderr);
    assert_eq!(
        (targets(), &history(&fleet, &[]).json["runs"][1]["verdict"]),
        (json!([fleet.path("other.toml")]), &json!("open"))
    );
    let result = fleet
        .broadcast(&["--config", &format!("b={newer}")])
        .expect(0);
    assert!(
        result.stderr.contains(&format!("Superseded run {run}")),
        "{}",
        result.stderr
    );
    assert_eq!(names(&fleet.path("state/open")), [""; 0]);
}

#[test]
fn history_shows_the_events_of_a_run_without_secrets() {
    let mut fleet = Fleet::start(2);
    std::fs::set_permissions(
        fleet.path("web.toml"),
        std::fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    fleet
        .broadcast(&["--set", "message=hunter2", "--reason", "it was time"])
        .expect(0);
    fleet.kill(0);
    let result = fleet.broadcast(&["--set=message=hunter3"]).expect(0);
    let (run, to) = (
        result.json["run"].as_str().unwrap().to_owned(),
        result.json["targets"][0]["to"].as_str().unwrap()[..12].to_owned(),
    );
    let from = result.json["targets"][0]["from"].as_str().unwrap()[..12].to_owned();
    let text = screen(&fleet, &[&run]);
    for wanted in [
        "Began broadcast of web, by uid ".to_owned(),
        format!(
            "{} sha256:{from} -> sha256:{to}",
            fleet.path("web.toml").display()
        ),
        format!("Installed {} sha256:{to}", fleet.path("web.toml").display()),
        format!("(1/1) web pid {} {}", fleet.pid(1), fleet.url(1)),
        "End converged (1 confirmed): every instance proved the new config".into(),
    ] {
        assert!(text.contains(&wanted), "{wanted}\n{text}");
    }
    let result = history(&fleet, &[&run[..30]]);
    assert_eq!(result.json["events"][0]["event"], "began");
    assert_eq!(
        (
            &result.json["events"].as_array().unwrap().last().unwrap()["verdict"],
            result.code
        ),
        (&json!("converged"), 0)
    );
    let first = runs(&fleet)[0].clone();
    let all = [
        text,
        result.json.to_string(),
        screen(&fleet, &[]),
        screen(&fleet, &[&first]),
        history(&fleet, &[&first]).json.to_string(),
    ]
    .concat();
    assert!(all.contains("it was time"), "{all}");
    assert!(all.contains("--set=message=.."), "{all}");
    assert!(!all.contains("hunter"), "{all}");
    assert_eq!(
        history(&fleet, &["-n", "1"]).json["runs"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    // Ids begin with the time, so both share the first digits.
    let result = history(&fleet, &[&run[..4]]).expect(2);
    let (_, named) = result.stderr.trim().rsplit_once(": ").unwrap();
    let [newer, older] = named.split(", ").collect::<Vec<_>>()[..] else {
        panic!("{named}")
    };
    assert!(run.starts_with(newer), "{named}");
    assert!(first.starts_with(older), "{named}");
    history(&fleet, &["ffff"]).expect(3);
}

#[test]
fn a_forgotten_content_is_no_rollback_content() {
    let fleet = Fleet::start(2);
    let result = fleet.broadcast(&["--set", "message=x"]).expect(0);
    let sha256 = result.json["targets"][0]["to"].as_str().unwrap().to_owned();
    CommandResult::of(&mut ask(&fleet, &["forget", &sha256[..7]])).expect(2);
    let by_hand = "message = \"by hand\"\nlisten = \"127.0.0.1:0\"\n";
    fleet.write("web.toml", by_hand);
    let rehearsal =
        || String::from_utf8(fleet.command(&["--dry-run"]).output().unwrap().stdout).unwrap();
    assert!(!rehearsal().contains("no rollback"));
    let result =
        CommandResult::of(&mut ask(&fleet, &["forget", &sha256[..8].to_uppercase()])).expect(0);
    assert!(
        result
            .stderr
            .contains("of 1 run: `hello` cannot roll back to it"),
        "{}",
        result.stderr
    );
    assert!(
        !below(&fleet.path("state"))
            .iter()
            .any(|p| p.ends_with(&sha256))
    );
    assert!(rehearsal().contains("no rollback"));
    CommandResult::of(&mut ask(&fleet, &["forget", &sha256])).expect(3);
}

/// Writes a finished run, as it would exist `days` after its end.
fn old_run(fleet: &Fleet, days: i64, n: i64, content: &str) -> String {
    let ms = jiff::Timestamp::now().as_millisecond() - days * 86_400_000 + n;
    let id = format!("{ms:012x}70008000000000000000");
    let dir = fleet.path("state/runs").join(&id);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::create_dir_all(fleet.path("state/bytes")).unwrap();
    let began = json!({
        "event": "began",
        "verb": "broadcast",
        "of": null,
        "operator": {"uid": 0, "login_uid": null, "sudo_user": null, "ci_job": null},
        "boot_id": "",
        "command": ["hello"],
        "reason": null,
        "groups": ["web"],
        "instances": 1,
        "targets": 1,
        "waves": 1,
        "v": 2,
        "at": "2026-01-01T00:00:00Z",
    });
    let finished = json!({
        "event": "finished",
        "verdict": "converged",
        "reason": "",
        "counts": {"confirmed": 1},
        "v": 2,
        "at": "2026-01-01T00:00:01Z",
    });
    std::fs::write(dir.join("events.jsonl"), format!("{began}\n{finished}\n")).unwrap();
    std::fs::write(fleet.path("state/bytes").join(content), content).unwrap();
    std::fs::hard_link(fleet.path("state/bytes").join(content), dir.join(content)).unwrap();
    id
}

fn private(fleet: &Fleet) {
    std::fs::create_dir_all(fleet.path("state/open")).unwrap();
    std::fs::set_permissions(fleet.path("state"), std::fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn forgetting_old_runs_removes_the_content_only_they_had() {
    let fleet = Fleet::start(1);
    private(&fleet);
    let has = |name: &str| fleet.path("state/bytes").join(name).exists();
    let (older, old) = (
        old_run(&fleet, 40, 0, "older"),
        old_run(&fleet, 29, 0, "old"),
    );
    let (open, needed) = (
        old_run(&fleet, 50, 0, "open"),
        old_run(&fleet, 60, 0, "needed"),
    );
    // The content that the open run needs to resume.
    let first = old_run(&fleet, 55, 0, "first");
    let journal = fleet.path("state/runs").join(&open).join("events.jsonl");
    let began = std::fs::read_to_string(&journal)
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .replace("\"of\":null", &format!("\"of\":\"{first}\""));
    std::fs::write(&journal, began).unwrap();
    std::fs::write(
        fleet.path("state/open").join(&open),
        "{\"targets\":[\"/elsewhere\"]}",
    )
    .unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    // A proof is kept as long as its process lives.
    let started = &fleet.status().json["instances"][0]["started"];
    let living = format!("{}:{started}", fleet.pid(0));
    let proven = json!({
        "boot_id": boot.trim(),
        "instances": {living: {"/elsewhere": {"sha256": "needed", "ctime": 1}}},
    });
    std::fs::write(fleet.path("state/proven.json"), proven.to_string()).unwrap();
    std::fs::write(fleet.path("state/bytes/orphan"), "unused").unwrap();
    std::fs::create_dir(fleet.path("state/runs/.half.gone")).unwrap();
    let result = fleet.broadcast(&["--set", "message=x"]).expect(0);
    let new = result.json["run"].as_str().unwrap().to_owned();
    assert_eq!(
        runs(&fleet),
        [&first, &open, &old, &new].map(String::as_str),
        "{older} and {needed} are older than 30 days"
    );
    assert_eq!(
        ["older", "old", "open", "first", "needed", "orphan"].map(has),
        [false, true, true, true, true, false]
    );
    let result = CommandResult::of(&mut ask(&fleet, &["forget", &first])).expect(5);
    assert!(
        result
            .stderr
            .contains(&format!("run {open} is open and needs it")),
        "{}",
        result.stderr
    );
    // The number alone does not count the open run.
    let result = fleet
        .broadcast(&["--set", "message=y", "--keep", "2"])
        .expect(0);
    let newer = result.json["run"].as_str().unwrap().to_owned();
    assert_eq!(
        runs(&fleet),
        [&first, &open, &new, &newer].map(String::as_str)
    );
    assert_eq!(
        (has("old"), names(&fleet.path("state/bytes")).len()),
        (false, 6),
        "first, open, needed, and three of the two runs"
    );
    fleet
        .broadcast(&["--set", "message=z", "--keep", "1"])
        .expect(0);
    assert_eq!(
        (runs(&fleet).len(), names(&fleet.path("state/bytes")).len()),
        (3, 5)
    );
    fleet
        .broadcast(&["--set", "message=z", "--keep", "0"])
        .expect(2);
    fleet
        .broadcast(&["--set", "message=z", "--keep", "3,4"])
        .expect(2);
}

#[test]
fn forget_removes_nothing_while_a_run_begins_and_does_not_wait_forever() {
    let fleet = Fleet::start(1);
    private(&fleet);
    old_run(&fleet, 40, 0, "old");
    let lock = |name: &str| {
        std::fs::File::options()
            .create(true)
            .append(true)
            .open(fleet.path("state").join(name))
            .unwrap()
    };
    // Imitates a run that has found bytes in the store and not yet linked them.
    let begins = lock("store.lock");
    begins.lock_shared().unwrap();
    fleet.broadcast(&["--set", "message=x"]).expect(0);
    assert_eq!(runs(&fleet).len(), 2, "it was in use");
    drop(begins);
    // Imitates runs that were stopped while they held every lock.
    let held = ["store.lock", "proven.lock", "open.lock"].map(lock);
    held.iter().for_each(|lock| lock.lock().unwrap());
    let result = fleet.broadcast(&["--set", "message=y"]).expect(0);
    assert_eq!(
        (result.states(), fleet.bodies(), runs(&fleet).len()),
        (vec!["confirmed"], vec!["y".into()], 3)
    );
    drop(held);
    fleet.broadcast(&["--set", "message=z"]).expect(0);
    assert_eq!(runs(&fleet).len(), 3, "the old one went");
}

#[test]
fn the_files_read_by_a_run_do_not_grow_with_old_runs() {
    let fleet = Fleet::start(1);
    private(&fleet);
    for n in 0..1000 {
        let dir = fleet
            .path("state/runs")
            .join(old_run(&fleet, 1, n, &format!("content-{n}")));
        // Opening it would block forever. Reading the whole journal would take nearly as long: it
        // is 4 GB long.
        nix::unistd::mkfifo(&dir.join("plan.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut journal = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(dir.join("events.jsonl"))
            .unwrap();
        let text = std::fs::read_to_string(dir.join("events.jsonl")).unwrap();
        let (_, finished) = text.split_once('\n').unwrap();
        std::io::Seek::seek(&mut journal, std::io::SeekFrom::Start(4 << 30)).unwrap();
        journal
            .write_all(format!("\n{finished}").as_bytes())
            .unwrap();
    }
    let log = fleet.path("log");
    let traced = |mut command: Command| -> (CommandResult, Vec<String>) {
        let mut strace = Command::new("strace");
        strace
            .args([
                "-f",
                "-e",
                "trace=?open,openat,?openat2,read,pread64",
                "-s",
                "400",
                "-o",
            ])
            .arg(&log)
            .arg(command.get_program())
            .args(command.get_args());
        if !Command::new("strace")
            .arg("-V")
            .output()
            .is_ok_and(|o| o.status.success())
        {
            crate::support::skipped("in part: there is no strace");
            return (CommandResult::of(&mut command), Vec::new());
        }
        let result = CommandResult::of(&mut strace);
        (
            result,
            std::fs::read_to_string(&log)
                .unwrap()
                .lines()
                .map(str::to_owned)
                .collect(),
        )
    };
    let mut look = ask(&fleet, &["history", "-o", "json"]);
    look.args(["-n", "20"]);
    let (result, calls) = traced(look);
    let told = result.expect(0).json;
    assert_eq!(
        told["runs"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|r| r["verdict"] == "converged" && r["began"]["instances"] == 1)
            .count(),
        20
    );
    let opened = |calls: &[String], name: &str| {
        calls
            .iter()
            .filter(|c| c.contains("open") && c.contains(name))
            .count()
    };
    let read = |calls: &[String]| -> u64 {
        calls
            .iter()
            .filter(|c| c.contains("read"))
            .filter_map(|c| c.rsplit("= ").next()?.parse::<u64>().ok())
            .sum()
    };
    if !calls.is_empty() {
        assert_eq!(
            (opened(&calls, "events.jsonl"), opened(&calls, "plan.json")),
            (20, 0)
        );
        assert!(read(&calls) < 4 << 20, "{} bytes", read(&calls));
    }
    let mut look = fleet.read_only("status");
    look.args(["-o", "json", "--state"])
        .arg(fleet.path("state"));
    let (result, calls) = traced(look);
    result.expect(0);
    assert_eq!(
        (
            opened(&calls, "events.jsonl"),
            opened(&calls, "plan.json"),
            opened(&calls, "state/runs")
        ),
        (0, 0, 0)
    );
}

#[test]
fn every_run_leaves_a_line_in_syslog() {
    let fleet = Fleet::start(2);
    let (log, dev) = (fleet.path("log"), fleet.path("dev"));
    let socket = UnixDatagram::bind(&log).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    std::fs::create_dir(&dev).unwrap();
    // A private /dev, whose log is the one above.
    let script = "set -e; for f in null zero urandom; do touch \"$0/$f\"; mount --bind /dev/$f \"$0/$f\"; done; mount --rbind \"$0\" /dev; ln -sf \"$1\" /dev/log; shift; exec \"$@\"";
    let in_ns = |args: &[&str]| {
        let command = fleet.command(&[&["-o", "json"], args].concat());
        let mut unshare = Command::new("unshare");
        unshare
            .args(["-m", "sh", "-c", script])
            .arg(&dev)
            .arg(&log)
            .arg(command.get_program())
            .args(command.get_args())
            .env("SUDO_USER", "alice");
        unshare
    };
    if !Command::new("unshare")
        .args(["-m", "true"])
        .output()
        .is_ok_and(|o| o.status.success())
    {
        crate::support::skipped("no mount namespace is to be had");
        return;
    }
    let heard = || {
        let mut message = [0; 4096];
        let n = socket.recv(&mut message).unwrap();
        String::from_utf8(message[..n].to_vec()).unwrap()
    };
    let result = CommandResult::of(&mut in_ns(&[
        "--set",
        "message=x",
        "--reason",
        "two\nlines",
    ]))
    .expect(0);
    let (run, line) = (result.json["run"].as_str().unwrap(), heard());
    let digest = |which: &str| result.json["targets"][0][which].as_str().unwrap()[..12].to_owned();
    for wanted in [
        format!("verdict=converged run={run} host=local verb=broadcast uid=0"),
        " sudo_user=alice ".into(),
        " reason=\"two\\nlines\" groups=web confirmed=2 ".into(),
        format!(
            " {}:{}->{}",
            fleet.path("web.toml").display(),
            digest("from"),
            digest("to")
        ),
    ] {
        assert!(line.contains(&wanted), "{wanted}\n{line}");
    }
    // "<30>Jan  2 03:04:05 hello[17]: "
    let (head, _) = line.split_once(": ").unwrap();
    assert!(head.starts_with("<30>"), "{head}");
    assert!(head.as_bytes()[7] == b' ', "{head}");
    assert!(head.contains(" hello["), "{head}");
    // Longer than the limit of a message.
    let why = "why ".repeat(2000);
    CommandResult::of(&mut in_ns(&["--set", "message=y", "--reason", &why])).expect(0);
    let line = heard();
    assert!(line.len() <= 1024, "{line}");
    assert!(line.contains("verdict=converged"), "{line}");
    assert!(line.contains("web.toml:"), "{line}");
    // A run that did not begin logs nothing, and a full log does not block a run.
    let result = CommandResult::of(&mut in_ns(&["--set", "message=y"])).expect(0);
    assert_eq!(result.states(), ["unchanged"; 2]);
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 16]).is_err());
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"x", &log).is_ok() {}
    CommandResult::of(&mut in_ns(&["--set", "message=z"])).expect(0);
    until("it serves", || fleet.bodies() == ["z"; 2]);
}
