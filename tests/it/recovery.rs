//! Every open run can be closed, and every wait has an end.

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{Flock, FlockArg},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::support::{Fleet, until};

/// Writes a validator that fails while the file `no` exists.
fn with_a_validator(fleet: &Fleet, keys: &str) {
    let script = fleet.write(
        "validator",
        &format!("#!/bin/sh\n[ ! -e '{}' ]\n", fleet.path("no").display()),
    );
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write(
        "fleet.toml",
        &format!(
            "{text}validate = [\"{}\", \"{{candidate}}\"]\n{keys}\n",
            script.display()
        ),
    );
}

fn open(fleet: &Fleet) -> Vec<String> {
    let all = std::fs::read_dir(fleet.path("state/open"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    all.filter(|name| !name.starts_with('.')).collect()
}

/// Kills a broadcast of `message=two` after its first instance is proven. The others were not
/// signalled. Returns the run.
fn killed(fleet: &Fleet) -> String {
    let mut run = fleet
        .command(&["--set", "message=two", "-o", "jsonl", "--waves", "1,100%"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for line in BufReader::new(run.stdout.take().unwrap()).lines() {
        if line.unwrap().contains("\"event\":\"instance\"") {
            run.kill().unwrap();
            break;
        }
    }
    run.wait().unwrap();
    let open = open(fleet);
    assert_eq!(open.len(), 1, "{open:?}");
    open[0].clone()
}

#[test]
fn a_revert_skips_validation_even_if_a_bad_config_ends_the_process() {
    for is_open in [false, true] {
        let fleet = Fleet::start(2);
        // The pause after its first wave keeps the run waiting.
        with_a_validator(
            &fleet,
            "on_bad_config = \"dies\"\n[rollout]\nwaves = [1]\nbake = \"300ms\"",
        );
        let run = if is_open {
            killed(&fleet)
        } else {
            fleet.broadcast(&["--set", "message=two"]).expect(0).json["run"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        fleet.write("no", "");
        // A validator that rejects the running config cannot judge the old config.
        let result = fleet.continue_run("revert", &[&run]).expect(5);
        assert!(
            result
                .stderr
                .contains(&format!("hello revert {run} --validate=off")),
            "{}",
            result.stderr
        );
        fleet
            .continue_run("revert", &[&run, "--validate=off"])
            .expect(0);
        assert_eq!(
            (fleet.bodies(), open(&fleet)),
            (vec!["one".to_owned(); 2], Vec::new()),
            "open: {is_open}"
        );
    }
}

#[test]
fn the_current_group_replaces_a_wrong_one_in_the_journal() {
    // A validator that fails now, an instance count that cannot be met, and a missing validator.
    for wrong in ["no", "count = 2", "dies"] {
        let mut fleet = Fleet::start(2);
        let right = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
        with_a_validator(
            &fleet,
            &format!(
                "{}\n[rollout]\nwaves = [1]\nbake = \"300ms\"",
                if wrong == "count = 2" { wrong } else { "" }
            ),
        );
        let run = killed(&fleet);
        let code = match wrong {
            "no" => {
                fleet.write("no", "");
                4
            }
            "count = 2" => {
                fleet.kill(1);
                3
            }
            _ => {
                // As if the run had been started with it.
                let plan = fleet.path("state/runs").join(&run).join("plan.json");
                let mut kept: serde_json::Value =
                    serde_json::from_slice(&std::fs::read(&plan).unwrap()).unwrap();
                let group = kept["groups"][0].as_object_mut().unwrap();
                group.insert("on_bad_config".into(), "dies".into());
                group.insert("validate".into(), serde_json::json!([]));
                std::fs::write(&plan, kept.to_string()).unwrap();
                5
            }
        };
        fleet.continue_run("resume", &[&run]).expect(code);
        let today = fleet.write("today.toml", &right);
        let today = today.to_str().unwrap();
        fleet
            .continue_run("resume", &[&run, "--fleet", today])
            .expect(0);
        assert_eq!(open(&fleet), Vec::<String>::new(), "{wrong}");
        assert!(fleet.text().contains("\"two\""), "{wrong}");
    }
}

#[test]
fn a_fleet_without_any_group_of_the_run_is_a_usage_error() {
    let fleet = Fleet::start(1);
    let run = fleet.broadcast(&["--set", "message=two"]).expect(0).json["run"]
        .as_str()
        .unwrap()
        .to_owned();
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    let other = fleet.write("other.toml", &text.replace("\"web\"", "\"api\""));
    let result = fleet
        .continue_run("revert", &[&run, "--fleet", other.to_str().unwrap()])
        .expect(2);
    assert!(
        result.stderr.contains("no group of run"),
        "{}",
        result.stderr
    );
    assert!(result.stderr.contains("`web`"), "{}", result.stderr);
    assert_eq!(fleet.bodies(), ["two"]);
}

#[test]
fn a_later_run_that_proves_the_same_targets_closes_an_open_run() {
    for config in [false, true] {
        let fleet = Fleet::start(2);
        with_a_validator(&fleet, "[rollout]\nwaves = [1]\nbake = \"300ms\"");
        let run = killed(&fleet);
        for at in 0..2 {
            fleet.signal(at, Signal::SIGHUP);
        }
        until("both run what is on the disk", || {
            fleet.bodies() == ["two"; 2]
        });
        let new = fleet.write("new.toml", &fleet.text());
        let before = fleet.attempts();
        let args: &[&str] = if config {
            &["--config", new.to_str().unwrap()]
        } else {
            &[]
        };
        let result = fleet.broadcast(args).expect(0);
        assert!(
            result.stderr.contains(&format!("Superseded run {run}")),
            "{}",
            result.stderr
        );
        assert_eq!(
            (open(&fleet), fleet.attempts()),
            (Vec::new(), before),
            "nothing was signalled"
        );
        fleet.status().expect(0);
    }
}

#[test]
fn an_open_run_can_be_abandoned() {
    let fleet = Fleet::start(2);
    with_a_validator(&fleet, "[rollout]\nwaves = [1]\nbake = \"300ms\"");
    let run = killed(&fleet);
    // Neither direction is possible any more.
    let by_hand = fleet.text().replace("two", "by hand");
    fleet.write("web.toml", &by_hand);
    fleet.continue_run("resume", &[]).expect(5);
    fleet.continue_run("revert", &[]).expect(5);
    let forget = |args: &[&str]| {
        Command::new(fleet.exe())
            .args(["forget", &run])
            .args(args)
            .arg("--state")
            .arg(fleet.path("state"))
            .output()
            .unwrap()
    };
    let refused = forget(&[]);
    let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(5), "{stderr}");
    assert!(
        stderr.contains(&format!("hello forget {run} --abandon")),
        "{stderr}"
    );
    assert_eq!(forget(&["--abandon"]).status.code(), Some(0));
    assert_eq!((open(&fleet), fleet.text()), (Vec::new(), by_hand));
}

#[test]
fn a_run_under_way_cannot_be_abandoned() {
    let fleet = Fleet::start(1);
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write(
        "fleet.toml",
        &format!("{text}[rollout]\nwaves = [1]\nbake = \"60s\"\n"),
    );
    let mut run = fleet
        .command(&["-q", "--set", "message=two"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("it bakes", || {
        fleet.path("state/open").exists() && fleet.bodies() == ["two"]
    });
    let id = open(&fleet).remove(0);
    let result = Command::new(fleet.exe())
        .args(["forget", &id, "--abandon", "--state"])
        .arg(fleet.path("state"))
        .output()
        .unwrap();
    assert_eq!(result.status.code(), Some(5), "{result:?}");
    assert_eq!(open(&fleet), [id]);
    run.kill().unwrap();
    run.wait().unwrap();
}

#[test]
fn the_wait_for_all_locks_has_one_deadline() {
    let mut fleet = Fleet::start(0);
    let mut locks = Vec::new();
    for at in 0..10 {
        std::fs::create_dir(fleet.path(&format!("d{at}"))).unwrap();
        let config = format!("d{at}/web.toml");
        fleet.write(&config, &fleet.text());
        fleet.serve_from(&config);
        let dir = std::fs::File::open(fleet.path(&format!("d{at}"))).unwrap();
        locks.push(Flock::lock(dir, FlockArg::LockExclusive).unwrap());
    }
    let began = Instant::now();
    let result = fleet
        .broadcast(&["--set", "message=two", "--lock-timeout", "1500ms"])
        .expect(9);
    // One wait for each would be 15 s.
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    assert!(
        began.elapsed() >= Duration::from_millis(1500),
        "{:?}",
        began.elapsed()
    );
    assert!(
        result.stderr.contains("another run holds the lock"),
        "{}",
        result.stderr
    );
}

#[test]
fn an_interrupt_while_another_command_uses_the_store_touches_nothing() {
    let fleet = Fleet::start(1);
    fleet.broadcast(&["--set", "message=first"]).expect(0);
    let runs = || std::fs::read_dir(fleet.path("state/runs")).unwrap().count();
    let (before, store) = (runs(), fleet.path("state/store.lock"));
    let mut holder = Command::new("flock")
        .arg(&store)
        .args(["-c", "echo held; read end"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    let mut run = fleet
        .command(&["-q", "--set", "message=two"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let descriptors = Path::new("/proc").join(run.id().to_string()).join("fd");
    until("it waits for the store", || {
        let entries = std::fs::read_dir(&descriptors).into_iter().flatten();
        entries
            .flatten()
            .any(|fd| std::fs::read_link(fd.path()).is_ok_and(|link| link.ends_with("store.lock")))
    });
    kill(
        Pid::from_raw(i32::try_from(run.id()).unwrap()),
        Signal::SIGINT,
    )
    .unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(1));
    // The lock is still held: a run that waited to the end would have begun without it.
    assert_eq!(runs(), before);
    assert_eq!(fleet.bodies(), ["first"]);
    drop(holder.stdin.take());
    holder.wait().unwrap();
}

#[test]
fn an_interrupt_while_waiting_for_a_lock_aborts_the_run() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let fleet = Fleet::start(1);
        let dir = std::fs::File::open(fleet.dir.path()).unwrap();
        let lock = Flock::lock(dir, FlockArg::LockExclusive).unwrap();
        let run = fleet
            .command(&[
                "--set",
                "message=two",
                "--lock-timeout",
                "10m",
                "-o",
                "json",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(i32::try_from(run.id()).unwrap());
        // The bit of a signal in `SigCgt`.
        let catches = || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let mask = status
                .lines()
                .find_map(|line| line.strip_prefix("SigCgt:"))
                .unwrap()
                .trim()
                .to_owned();
            u64::from_str_radix(&mask, 16).unwrap() >> (signal as i32 - 1) & 1 == 1
        };
        until("it catches the signal", catches);
        kill(pid, signal).unwrap();
        let output = run.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("interrupted by the operator"),
            "{output:?}"
        );
        assert_eq!(fleet.bodies(), ["one"]);
        drop(lock);
    }
}
