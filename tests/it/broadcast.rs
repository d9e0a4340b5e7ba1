//! `hello broadcast`: every end of a run that one wave can reach here.

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    process::Stdio,
};

use nix::sys::signal::Signal;

use crate::support::{Fleet, get, until};

const NEW: &str = "message = \"two\"\nlisten = \"127.0.0.1:0\"\n";

#[test]
fn a_good_change_converges_and_a_second_run_sends_no_signal() {
    let fleet = Fleet::start(3);
    let new = fleet.write("new.toml", NEW);
    std::fs::set_permissions(
        fleet.path("web.toml"),
        std::fs::Permissions::from_mode(0o640),
    )
    .unwrap();
    let result = fleet
        .broadcast(&["--validate", "--config", new.to_str().unwrap()])
        .expect(0);
    assert_eq!(result.states(), ["confirmed"; 3]);
    assert_eq!(fleet.bodies(), ["two"; 3]);
    assert_eq!(
        fleet
            .path("web.toml")
            .metadata()
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o640
    );
    let result = fleet
        .broadcast(&["--config", new.to_str().unwrap()])
        .expect(0);
    assert_eq!(result.states(), ["unchanged"; 3]);
    assert!(!result.stderr.contains("No rollback"), "{}", result.stderr);
    assert_eq!(fleet.attempts(), [2; 3], "the second run sent no signal");
    let (head, _) = get(fleet.url(0), "/");
    assert!(head.contains("x-config-generation: 2"), "{head}");
    assert!(
        head.contains(&format!("x-instance: {}:", fleet.pid(0))),
        "{head}"
    );
}

#[test]
fn set_keeps_comments_and_order() {
    let fleet = Fleet::start(1);
    fleet.broadcast(&["--set", "message=5"]).expect(0);
    assert_eq!(
        fleet.text(),
        "# the shared one\nmessage = \"5\" # said\nlisten = \"127.0.0.1:0\"\n"
    );
    assert_eq!(fleet.bodies(), ["5"]);
}

#[test]
fn a_change_that_cannot_apply_touches_nothing() {
    let fleet = Fleet::start(2);
    let before = fleet.text();
    let broken = fleet.write("broken.toml", "message = \"x\"\nlisne = \"127.0.0.1:0\"\n");
    let moved = fleet.write("moved.toml", "message = \"x\"\nlisten = \"127.0.0.1:1\"\n");
    let fifo = fleet.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let arg = |p: &std::path::Path| p.to_str().unwrap().to_owned();
    for (path, code, says) in [
        (arg(&broken), 4, "did you mean `listen`?"),
        (arg(&moved), 10, "needs a restart"),
        (arg(&fifo), 4, "no regular file"),
        (arg(fleet.dir.path()), 4, "no regular file"),
        (arg(&fleet.path("none.toml")), 1, "cannot read"),
    ] {
        let result = fleet
            .broadcast(&["--validate", "--config", &path])
            .expect(code);
        assert!(result.stderr.contains(says), "{}", result.stderr);
    }
    fleet.broadcast(&["--count", "3"]).expect(3);
    // The staged content was recorded.
    std::fs::remove_dir_all(fleet.path("state")).unwrap();
    fleet.write("state", "a file where the state directory should be");
    let result = fleet.broadcast(&["--set", "message=x"]).expect(1);
    assert!(
        result.stderr.contains("state directory"),
        "{}",
        result.stderr
    );
    std::fs::hard_link(fleet.path("web.toml"), fleet.path("second-name")).unwrap();
    fleet.broadcast(&["--set", "message=x"]).expect(5);
    assert_eq!(
        (fleet.text(), fleet.bodies(), fleet.attempts()),
        (before, vec!["one".into(); 2], vec![1; 2])
    );
}

#[test]
fn a_bad_fleet_file_is_a_usage_error_and_a_held_lock_is_busy() {
    let fleet = Fleet::start(1);
    let dir = std::fs::File::open(fleet.dir.path()).unwrap();
    rustix::fs::flock(&dir, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let result = fleet.broadcast(&["--set", "message=x"]).expect(9);
    assert!(
        result
            .stderr
            .contains(&format!("pid {}", std::process::id())),
        "{}",
        result.stderr
    );
    fleet.write("fleet.toml", "version = 1\n[[group]]\nnmae = \"x\"\n");
    let result = fleet.broadcast(&[]).expect(2);
    assert!(result.stderr.contains("line 3"), "{}", result.stderr);
}

#[test]
fn a_stopped_instance_is_refused_before_anything_is_touched() {
    let fleet = Fleet::start(2);
    let before = fleet.text();
    fleet.stop(1);
    let result = fleet.broadcast(&["--set", "message=x"]).expect(5);
    assert!(result.stderr.contains("is stopped"), "{}", result.stderr);
    fleet.signal(1, Signal::SIGCONT);
    assert_eq!(
        (fleet.text(), fleet.bodies()),
        (before, vec!["one".into(); 2])
    );
}

#[test]
fn a_listed_pid_of_another_program_is_no_match() {
    let fleet = Fleet::start(1);
    let mut sleep = std::process::Command::new("sleep")
        .arg("60")
        .spawn()
        .unwrap();
    let list = |pid: i64| {
        std::fs::read_to_string(fleet.path("fleet.toml")).unwrap()
            + &format!("instances = [ {{ pid = {pid} }} ]\n")
    };
    let (listed, other) = (list(fleet.pid(0).into()), list(sleep.id().into()));
    fleet.write("fleet.toml", &other);
    fleet.broadcast(&["--set", "message=x"]).expect(3);
    assert!(sleep.try_wait().unwrap().is_none(), "it was not signalled");
    sleep.kill().unwrap();
    sleep.wait().unwrap();
    fleet.write("fleet.toml", &listed);
    fleet.broadcast(&["--set", "message=x"]).expect(0);
    let endpoint = format!(
        "instances = [ {{ pid = {}, endpoint = \"{}\" }} ]\n",
        fleet.pid(0),
        fleet.url(0)
    );
    let (head, _) = listed.split_once("instances").unwrap();
    fleet.write("fleet.toml", &(head.to_owned() + &endpoint));
    fleet.broadcast(&["--set", "message=y"]).expect(0);
    assert_eq!(fleet.bodies(), ["y"]);
}

#[test]
fn no_process_at_all_is_no_match() {
    let fleet = Fleet::start(0);
    let before = fleet.text();
    fleet.broadcast(&["--set", "message=x"]).expect(3);
    assert_eq!(fleet.text(), before);
}

#[test]
fn the_output_of_a_validator_about_a_secret_config_is_hidden() {
    let fleet = Fleet::start(1);
    let script = fleet.write(
        "validator",
        "#!/bin/sh\ncat \"$1\"; ! grep -q hunter2 \"$1\"\n",
    );
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let group = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write(
        "fleet.toml",
        &format!(
            "{group}validate = [\"{}\", \"{{candidate}}\"]\n",
            script.display()
        ),
    );
    assert!(
        fleet
            .broadcast(&["--set", "message=hunter2"])
            .expect(4)
            .stderr
            .contains("hunter2")
    );
    std::fs::set_permissions(
        fleet.path("web.toml"),
        std::fs::Permissions::from_mode(0o640),
    )
    .unwrap();
    let result = fleet.broadcast(&["--set", "log=hunter2"]).expect(4);
    assert!(result.stderr.contains("line 4"), "{}", result.stderr);
    assert!(!result.stderr.contains("hunter2"), "{}", result.stderr);
    let result = fleet.broadcast(&["--set", "message=hunter2"]).expect(4);
    assert!(!result.stderr.contains("hunter2"), "{}", result.stderr);
    assert!(
        !result.json.to_string().contains("hunter2"),
        "{}",
        result.stderr
    );
}

#[test]
fn a_validator_that_cannot_run_is_not_a_rejection() {
    let fleet = Fleet::start(1);
    let group = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write(
        "fleet.toml",
        &format!("{group}validate = [\"/nowhere/validator\", \"{{candidate}}\"]\n"),
    );
    fleet
        .broadcast(&["--validate", "--set", "message=x"])
        .expect(5);
    assert_eq!(fleet.attempts(), [1]);
    let result = fleet.broadcast(&["--set", "message=x"]).expect(0);
    assert_eq!(result.json["instances"][0]["validated"], false);
    assert!(result.stderr.contains("Unvalidated"), "{}", result.stderr);
}

#[test]
fn a_slow_or_closed_output_does_not_block_a_run() {
    let fleet = Fleet::start(8);
    let tiny_pipe = || {
        let (read, write) = std::io::pipe().unwrap();
        nix::fcntl::fcntl(&write, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
        (read, write)
    };
    let (unread, write) = tiny_pipe();
    let mut child = fleet
        .command(&["-o", "jsonl", "--set", "message=x"])
        .stdout(write.try_clone().unwrap())
        .stderr(write)
        .spawn()
        .unwrap();
    until("it converges without a reader", || {
        fleet.bodies() == ["x"; 8]
    });
    until("it ends without a reader", || {
        child.try_wait().unwrap().is_some()
    });
    assert_eq!(child.wait().unwrap().code(), Some(0));
    drop(unread);
    let (closed, write) = tiny_pipe();
    drop(closed);
    let status = fleet
        .command(&["-o", "jsonl", "--set", "message=y"])
        .stdout(write.try_clone().unwrap())
        .stderr(write)
        .status()
        .unwrap();
    assert_eq!(
        (status.code(), fleet.bodies()),
        (Some(0), vec!["y".into(); 8])
    );
}

#[test]
fn a_dry_run_shows_the_difference_and_touches_nothing() {
    let fleet = Fleet::start(2);
    let before = fleet.text();
    let output = fleet
        .command(&["--dry-run", "--set", "message=x"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(text.contains("-message = \"one\""), "{text}");
    assert!(text.contains("+message = \"x\""), "{text}");
    assert!(text.contains(fleet.url(1)), "{text}");
    assert_eq!((fleet.text(), fleet.attempts()), (before, vec![1; 2]));
    let left: Vec<_> = std::fs::read_dir(fleet.dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .filter(|n| n.to_string_lossy().starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!fleet.path("state").exists(), "{left:?}");
    std::fs::set_permissions(
        fleet.path("web.toml"),
        std::fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    let output = fleet
        .command(&["--dry-run", "--set", "message=x"])
        .output()
        .unwrap();
    assert!(
        !String::from_utf8(output.stdout)
            .unwrap()
            .contains("message"),
        "a secret config has no diff"
    );
}

/// Writes a group without a kind: its servers count as an unknown program.
fn without_a_kind(fleet: &Fleet, more: &str) {
    let group = std::fs::read_to_string(fleet.path("fleet.toml"))
        .unwrap()
        .replace("kind = \"hello\"\n", "");
    let confirm =
        "[[group.confirm]]\nhttp = \"http://{listen}/\"\nequals = \"{candidate.message}\"\n";
    fleet.write(
        "fleet.toml",
        &format!("{group}config = \"{{arg:--config}}\"\n{more}{confirm}"),
    );
}

#[test]
fn a_program_that_is_not_declared_to_reload_is_refused() {
    let fleet = Fleet::start(1);
    without_a_kind(&fleet, "");
    let result = fleet.broadcast(&["--set", "message=x"]).expect(5);
    assert!(
        result.stderr.contains("reloads = true"),
        "{}",
        result.stderr
    );
    assert_eq!(fleet.attempts(), [1]);
}

#[test]
fn a_program_without_a_kind_is_proven_by_assertions_after_a_canary() {
    let fleet = Fleet::start(3);
    without_a_kind(&fleet, "reloads = true\n");
    let result = fleet.broadcast(&["--set", "message=x"]).expect(0);
    let mut waves: Vec<u64> = result.json["instances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["wave"].as_u64().unwrap())
        .collect();
    waves.sort_unstable();
    assert_eq!(
        (waves, fleet.bodies()),
        (vec![1, 2, 2], vec!["x".into(); 3])
    );
    // It loads and serves, but the assertion does not hold. The first is rolled back, the others
    // are never signalled.
    let before = (fleet.text(), fleet.attempts());
    let result = fleet
        .broadcast(&[
            "--set",
            "message=y",
            "--set",
            "listen=127.0.0.1:1",
            "--timeout",
            "500ms",
        ])
        .expect(7);
    // It always answers the old message, which shows no end of a reload.
    assert_eq!(result.states(), ["revert_failed", "untouched", "untouched"]);
    assert!(
        result
            .stderr
            .contains("nothing shows that its reload of the new one is over"),
        "{}",
        result.stderr
    );
    assert_eq!(
        (fleet.text(), fleet.bodies()),
        (before.0, vec!["x".into(); 3])
    );
    assert_eq!(
        fleet
            .attempts()
            .iter()
            .zip(&before.1)
            .filter(|(now, was)| now != was)
            .count(),
        1
    );
    // An assertion over a key that the new config lacks cannot be proven.
    let other = fleet.write("other.toml", "other = 1\n");
    fleet
        .broadcast(&["--config", other.to_str().unwrap()])
        .expect(4);
}

/// Writes a validator that stops the first server between its validation and its reload.
pub(crate) fn with_a_victim(fleet: &Fleet) {
    let script = fleet.write(
        "validator",
        &format!(
            "#!/bin/sh\n\"$1\" check \"$2\" && kill -STOP {}\n",
            fleet.pid(0)
        ),
    );
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let group = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write(
        "fleet.toml",
        &format!(
            "{group}validate = [\"{}\", \"{{exe}}\", \"{{candidate}}\"]\n",
            script.display()
        ),
    );
}

#[test]
fn an_instance_that_hangs_rolls_the_run_back_to_the_proven_old_config() {
    let fleet = Fleet::start(3);
    with_a_victim(&fleet);
    let before = fleet.text();
    let mut child = fleet
        .command(&[
            "--waves",
            "100%",
            "--validate",
            "-o",
            "jsonl",
            "--set",
            "message=x",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut last = String::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        last = line.unwrap();
        if last.contains("\"rollback_began\"") {
            fleet.signal(0, Signal::SIGCONT);
        }
    }
    assert_eq!(child.wait().unwrap().code(), Some(6), "{last}");
    assert!(last.contains("\"counts\":{\"reverted\":3}"), "{last}");
    assert_eq!(
        (fleet.text(), fleet.bodies()),
        (before, vec!["one".into(); 3])
    );
}

#[test]
fn an_instance_that_stays_stopped_is_named_and_the_file_is_rolled_back() {
    let fleet = Fleet::start(3);
    with_a_victim(&fleet);
    let before = fleet.text();
    let result = fleet
        .broadcast(&["--waves", "100%", "--validate", "--set", "message=x"])
        .expect(7);
    assert_eq!(result.states(), ["revert_failed", "reverted", "reverted"]);
    assert_eq!(fleet.text(), before);
    fleet.signal(0, Signal::SIGCONT);
    until("it answers", || fleet.bodies() == ["one"; 3]);
}

#[test]
fn a_rejected_file_is_reported_and_the_old_config_stays() {
    let fleet = Fleet::start(1);
    fleet.write("web.toml", "message = 1\n");
    fleet.signal(0, Signal::SIGHUP);
    until("it looked", || fleet.attempts() == [2]);
    let (_, told) = get(fleet.url(0), "/-/config");
    assert!(told.contains("\"rejected\""), "{told}");
    assert!(told.contains("line 1"), "{told}");
    assert_eq!(fleet.bodies(), ["one"]);
    // The content on the disk is adopted only if it is valid.
    fleet.broadcast(&[]).expect(4);
}

#[test]
fn a_failed_adoption_rolls_back_to_the_content_of_an_earlier_run() {
    let fleet = Fleet::start(2);
    fleet.broadcast(&["--set", "message=x"]).expect(0);
    let kept = fleet.text();
    // The file is edited by hand, and one instance hangs.
    fleet.write(
        "web.toml",
        "message = \"by hand\"\nlisten = \"127.0.0.1:0\"\n",
    );
    with_a_victim(&fleet);
    let mut child = fleet
        .command(&["--validate", "-o", "jsonl"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut last = String::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        last = line.unwrap();
        if last.contains("\"rollback_began\"") {
            fleet.signal(0, Signal::SIGCONT);
        }
    }
    assert_eq!(child.wait().unwrap().code(), Some(6), "{last}");
    assert_eq!((fleet.text(), fleet.bodies()), (kept, vec!["x".into(); 2]));
}

#[test]
fn missing_rollback_content_is_reported_before_the_run() {
    let fleet = Fleet::start(2);
    let by_hand = "message = \"by hand\"\nlisten = \"127.0.0.1:0\"\n";
    fleet.write("web.toml", by_hand);
    let output = fleet.command(&["--dry-run"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("no rollback"));
    with_a_victim(&fleet);
    let result = fleet
        .broadcast(&["--waves", "100%", "--validate", "--timeout", "500ms"])
        .expect(7);
    assert!(result.stderr.contains("No rollback"), "{}", result.stderr);
    assert!(result.stderr.contains("web.toml"), "{}", result.stderr);
    assert_eq!(
        (result.states(), fleet.text().as_str()),
        (vec!["confirmed", "timed_out"], by_hand)
    );
    fleet.signal(0, Signal::SIGCONT);
    until("it reads the file in the end", || {
        fleet.bodies() == ["by hand"; 2]
    });
    // The run stays open. The next one on this file names it and closes it.
    let run = result.json["run"].as_str().unwrap().to_owned();
    let group = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write("fleet.toml", group.split("validate").next().unwrap());
    let result = fleet.broadcast(&["--set", "message=z"]).expect(0);
    assert!(
        result.stderr.contains(&format!("Superseded run {run}")),
        "{}",
        result.stderr
    );
    let plan: serde_json::Value = serde_json::from_slice(
        &std::fs::read(
            fleet
                .path("state")
                .join("runs")
                .join(&run)
                .join("plan.json"),
        )
        .unwrap(),
    )
    .unwrap();
    assert_eq!(
        (
            &plan["groups"][0]["signal"],
            &plan["groups"][0]["timeout"]["secs"]
        ),
        (&"Hup".into(), &3.into()),
        "the groups are resolved: {plan:#}"
    );
    assert_eq!(
        std::fs::metadata(fleet.path("state").join("runs").join(&run))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o700
    );
    let journal = std::fs::read_to_string(
        fleet
            .path("state")
            .join("runs")
            .join(&run)
            .join("events.jsonl"),
    )
    .unwrap();
    assert!(
        journal.lines().last().unwrap().contains("superseded_by"),
        "{journal}"
    );
    let result = fleet.broadcast(&["--set", "message=zz"]).expect(0);
    assert!(!result.stderr.contains("Superseded"), "{}", result.stderr);
}

/// Writes a second group of the last server alone, which reads its own file.
pub(crate) fn two_groups(fleet: &mut Fleet) -> (String, String) {
    let text = fleet.text();
    fleet.write("web.toml", &text);
    fleet.write("other.toml", &text);
    fleet.serve_from("other.toml");
    let name = fleet
        .exe()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let args = |config: &str| {
        format!(
            "match = {{ exe = \"{name}\", args = [\"serve\", \"{}\"] }}",
            fleet.path(config).display()
        )
    };
    let group = |group: &str, config: &str| {
        format!(
            "[[group]]\nname = \"{group}\"\nkind = \"hello\"\n{}\n",
            args(config)
        )
    };
    fleet.write(
        "fleet.toml",
        &format!(
            "version = 1\n{}{}",
            group("a", "web.toml"),
            group("b", "other.toml")
        ),
    );
    let (new, newer) = (
        fleet.write("new.toml", NEW),
        fleet.write("newer.toml", &NEW.replace("two", "three")),
    );
    (new.display().to_string(), newer.display().to_string())
}

#[test]
fn each_group_has_its_own_change_and_a_group_without_one_is_skipped() {
    let mut fleet = Fleet::start(1);
    let (new, newer) = two_groups(&mut fleet);
    fleet.broadcast(&["--set", "message=x"]).expect(2);
    fleet.broadcast(&["--all", "--config", &new]).expect(2);
    fleet
        .broadcast(&[
            "--config",
            &format!("a={new}"),
            "--config",
            &format!("b={newer}"),
        ])
        .expect(0);
    assert_eq!(fleet.bodies(), ["two", "three"]);
    let result = fleet
        .broadcast(&["--config", &format!("b={new}")])
        .expect(0);
    assert_eq!(
        (result.states(), fleet.bodies()),
        (vec!["confirmed"], vec!["two".into(), "two".into()])
    );
    fleet.broadcast(&["a", "--set", "message=only a"]).expect(0);
    fleet
        .broadcast(&["--all", "--set", "message=both"])
        .expect(0);
    assert_eq!(fleet.bodies(), ["both"; 2]);
}

#[test]
fn one_config_for_several_files_needs_equal_files() {
    let mut fleet = Fleet::start(1);
    let (new, newer) = two_groups(&mut fleet);
    let name = fleet
        .exe()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    fleet.write("fleet.toml", &format!("version = 1\n[[group]]\nname = \"all\"\nkind = \"hello\"\nmatch = {{ exe = \"{name}\", args = [\"serve\"] }}\n"));
    fleet.broadcast(&["--config", &new]).expect(0);
    assert_eq!(fleet.bodies(), ["two"; 2]);
    fleet.write("other.toml", &NEW.replace("two", "else"));
    fleet.signal(1, Signal::SIGHUP);
    until("it reloaded", || fleet.bodies() == ["two", "else"]);
    let result = fleet.broadcast(&["--config", &newer]).expect(5);
    assert!(result.stderr.contains("web.toml"), "{}", result.stderr);
    assert!(result.stderr.contains("other.toml"), "{}", result.stderr);
    assert!(result.stderr.contains("--overwrite"), "{}", result.stderr);
    fleet
        .broadcast(&["--overwrite", "--config", &newer])
        .expect(0);
    assert_eq!(fleet.bodies(), ["three"; 2]);
}

#[test]
fn a_group_without_a_config_is_only_signalled_and_confirmed() {
    let fleet = Fleet::start(2);
    let name = fleet.exe().file_name().unwrap().to_str().unwrap();
    let confirm = "[[group.confirm]]\nhttp = \"http://{listen}/-/metrics\"\nread = 'metric:hello_config_reloads_total{result=\"unchanged\"}'\nincreased = true\n";
    fleet.write("fleet.toml", &format!("version = 1\n[[group]]\nname = \"web\"\nreloads = true\nmatch = {{ exe = \"{name}\", args = [\"serve\"] }}\n{confirm}"));
    fleet.broadcast(&["--set", "message=x"]).expect(2);
    let result = fleet.broadcast(&[]).expect(0);
    assert_eq!(
        (result.states(), fleet.attempts()),
        (vec!["confirmed"; 2], vec![2; 2])
    );
}

#[test]
fn a_validator_gets_no_descriptors_and_no_environment_of_the_caller() {
    let fleet = Fleet::start(1);
    let script = fleet.write("validator", "#!/bin/sh\nls /proc/self/fd | tr '\\n' ' '; env | sed 's/=.*//' | sort | tr '\\n' ' '; exit 1\n");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let group = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write(
        "fleet.toml",
        &format!("{group}validate = [\"{}\"]\n", script.display()),
    );
    let command = fleet.command(&["--validate", "--set", "message=x"]);
    let mut shell = std::process::Command::new("sh");
    shell
        .args(["-c", "exec 9</dev/null; exec \"$0\" \"$@\""])
        .arg(command.get_program())
        .args(command.get_args())
        .env("SECRET", "x");
    let output = shell.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    // It also rejects the running config.
    assert_eq!(output.status.code(), Some(5), "{stderr}");
    // `ls` itself holds the folder that it lists.
    assert!(
        stderr.contains("refused it (exit status: 1): 0 1 2 3 "),
        "{stderr}"
    );
    assert!(!stderr.contains("SECRET"), "{stderr}");
    assert!(!stderr.contains(" 9 "), "{stderr}");
}
