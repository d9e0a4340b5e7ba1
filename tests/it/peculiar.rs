//! Daemons with unusual users, namespaces, signal handling, executables or file access.

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    support::{CommandResult, Fleet, get, until},
    users::{Other, group, is_root},
};

/// A process with its fleet. Killed by its pid when dropped.
struct Daemon {
    fleet: Fleet,
    child: Other,
}

impl Daemon {
    /// Starts `peculiar.py` in this mode.
    fn python(mode: &[&str]) -> Self {
        let fleet = Fleet::start(0);
        fleet.write("peculiar.py", include_str!("peculiar.py"));
        let mut command = Command::new("python3");
        command
            .arg(fleet.path("peculiar.py"))
            .arg(mode[0])
            .arg(fleet.path("d.toml"))
            .args(&mode[1..]);
        Self::start(fleet, &mut command)
    }

    /// Starts the daemon with these real, effective and saved users.
    fn with_users(users: [&str; 3]) -> Self {
        let daemon = Self::python(&[&["users"], &users[..]].concat());
        let status = format!("/proc/{}/status", daemon.child.0.id());
        let line = format!("Uid:\t{}\t", users.join("\t"));
        until("it has its users", || {
            std::fs::read_to_string(&status)
                .unwrap_or_default()
                .contains(&line)
        });
        daemon
    }

    fn start(fleet: Fleet, command: &mut Command) -> Self {
        std::fs::set_permissions(fleet.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        fleet.write("d.toml", "message = \"one\"\n");
        let child = Other(
            command.stdout(Stdio::null()).spawn().unwrap(),
            String::new(),
        );
        let daemon = Self { fleet, child };
        until("it runs its config", || daemon.text("runs") == "one");
        daemon
    }

    fn config(&self) -> PathBuf {
        self.fleet.path("d.toml")
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.fleet.path(&format!("d.toml.{name}")))
            .unwrap_or_default()
            .trim()
            .to_owned()
    }

    /// Writes a group of this daemon alone. `more` holds further keys.
    fn group(&self, more: &str) {
        let (config, script) = (self.config(), self.fleet.path("peculiar.py"));
        let matching = if script.exists() {
            format!("script = \"{}\"", script.display())
        } else {
            "exe = \"again-*\"".into()
        };
        let pid = self.child.0.id();
        self.fleet.write(
            "fleet.toml",
            &format!(
                "version = 1\n[[group]]\nname = \"d\"\nmatch = {{ {matching} }}\ninstances = [{{ pid = {pid} }}]\nconfig = \"{}\"\nreloads = true\ntimeout = \"20s\"\n{more}\n",
                config.display()
            ),
        );
    }

    fn fact(&self, name: &str, wants: &str) -> String {
        format!(
            "[[group.confirm]]\nexec = [\"cat\", \"{}.{name}\"]\n{wants}",
            self.config().display()
        )
    }

    /// The message of the new config.
    fn seen(&self) -> String {
        self.fact("runs", "equals = \"{candidate.message}\"")
    }

    fn set(&self, message: &str, more: &[&str]) -> CommandResult {
        let set = format!("message={message}");
        self.fleet.broadcast(&[&["--set", &set], more].concat())
    }
}

#[test]
fn sigwait_is_detected_in_every_thread() {
    for mode in ["sigwait", "thread"] {
        let daemon = Daemon::python(&[mode]);
        daemon.group(&daemon.seen());
        daemon.set("two", &[]).expect(0);
        assert_eq!(daemon.text("runs"), "two", "{mode}");
    }
}

#[test]
fn sigwait_does_not_protect_a_process_with_an_unblocked_thread() {
    let daemon = Daemon::python(&["open"]);
    until("its thread is open", || {
        daemon.fleet.path("d.toml.ready").exists()
    });
    daemon.group(&daemon.seen());
    assert!(
        daemon
            .set("two", &[])
            .expect(5)
            .stderr
            .contains("would die of it")
    );
    assert_eq!(daemon.text("runs"), "one");
}

#[test]
fn a_blocked_signal_with_a_handler_is_pending_unless_the_process_executes_itself() {
    let daemon = Daemon::python(&["blocks"]);
    daemon.group(&daemon.seen());
    daemon.set("two", &[]).expect(0);
    assert_eq!(daemon.text("runs"), "two");
    daemon.group(&format!("executes_itself = true\n{}", daemon.seen()));
    assert!(
        daemon
            .set("three", &[])
            .expect(5)
            .stderr
            .contains("blocks SIGHUP")
    );
    assert_eq!(daemon.text("runs"), "two");
}

#[test]
fn a_group_that_names_the_users_matches_masters_with_several_users() {
    if !is_root() {
        return;
    }
    // The users of squid, then those of proftpd.
    for users in [["65534", "0", "0"], ["0", "65534", "0"]] {
        let daemon = Daemon::with_users(users);
        daemon.group(&daemon.seen());
        let result = daemon.set("two", &[]).expect(3);
        assert!(
            result.stderr.contains("real and effective user differ"),
            "{}",
            result.stderr
        );
        assert!(result.stderr.contains("user = ["), "{}", result.stderr);
        assert_eq!(daemon.text("runs"), "one");
    }
    let daemon = Daemon::with_users(["65534", "0", "0"]);
    // As the user of the instance.
    let validator = "validate = [\"python3\", \"-c\", \"import os; os._exit(os.getresuid()[:2] != (65534, 0))\", \"{candidate}\"]";
    daemon.group(&format!(
        "user = [\"{{self}}\", \"65534\"]\n{validator}\n{}",
        daemon.seen()
    ));
    let result = daemon.set("two", &[]).expect(0);
    assert_eq!(
        (
            daemon.text("runs"),
            result.json["instances"][0]["validated"].as_bool()
        ),
        ("two".to_owned(), Some(true))
    );
}

/// A server that reports another pid than this host does.
fn in_a_namespace(fleet: &Fleet, more: &[&str]) -> Option<Other> {
    let mut command = Command::new("unshare");
    command
        .args(["--pid", "--fork", "--kill-child"])
        .args(more)
        .arg(fleet.exe())
        .args(["serve", "--config"])
        .arg(fleet.path("web.toml"));
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut url = String::new();
    let stdout = child.stdout.take().unwrap();
    let mut other = Other(child, String::new());
    BufReader::new(stdout).read_line(&mut url).unwrap();
    other.1 = url.trim().to_owned();
    other.1.starts_with("http://").then_some(other)
}

#[test]
fn a_server_in_a_pid_namespace_reports_another_pid() {
    if !is_root() {
        return;
    }
    // With a private `/proc`, with the `/proc` of this host, and with another clock.
    for (more, needed) in [
        (&["--mount-proc"][..], true),
        (&[], true),
        (&["--mount-proc", "--time", "--boottime", "5000"], false),
    ] {
        let fleet = Fleet::start(0);
        group(&fleet, "");
        let Some(server) = in_a_namespace(&fleet, more) else {
            assert!(!needed, "it starts: {more:?}");
            crate::support::skipped(crate::support::NO_TIME_NAMESPACE);
            continue;
        };
        let result = fleet.broadcast(&["--set", "message=two"]).expect(0);
        assert_eq!(
            (result.states(), get(&server.1, "/").1),
            (vec!["confirmed"], "two".to_owned()),
            "{more:?}"
        );
        fleet.status().expect(0);
        fleet.write("bad.toml", "message = \"x\"\nlisten = \"127.0.0.1:1\"\n");
        fleet
            .broadcast(&["--config", fleet.path("bad.toml").to_str().unwrap()])
            .expect(10);
    }
}

/// A shell that re-executes itself on the signal, by the path in its second argument.
const AGAIN: &str = r#"
trap 'again=1' HUP
sed -n 's/^message = "\(.*\)"$/\1/p' "$1" > "$1.runs.new" && mv "$1.runs.new" "$1.runs"
while :; do
    sleep 0.05
    [ -z "$again" ] || exec "$2" "$0" "$1" "$2"
done
"#;

fn again() -> (Daemon, PathBuf) {
    let fleet = Fleet::start(0);
    let exe = fleet.path(&format!(
        "again-{}",
        fleet.exe().file_name().unwrap().to_str().unwrap()
    ));
    copy("/bin/bash", &exe);
    let script = fleet.write("again.sh", AGAIN);
    let mut command = Command::new(&exe);
    command.arg(script).arg(fleet.path("d.toml")).arg(&exe);
    (Daemon::start(fleet, &mut command), exe)
}

/// Installs another program at the path, as an upgrade does.
fn copy(program: &str, to: &Path) {
    let new = to.with_extension("new");
    assert!(
        Command::new("cp")
            .arg(program)
            .arg(&new)
            .status()
            .unwrap()
            .success()
    );
    std::fs::rename(&new, to).unwrap();
}

#[test]
fn the_program_that_a_daemon_re_executes_validates_its_config() {
    let (daemon, exe) = again();
    // Succeeds in any shell but bash.
    let validate =
        "validate = [\"{exe}\", \"-c\", \"test -z \\\"$BASH_VERSION\\\"\", \"x\", \"{candidate}\"]";
    daemon.group(&format!(
        "executes_itself = true\n{validate}\n{}",
        daemon.seen()
    ));
    daemon.set("two", &[]).expect(4);
    copy("/bin/dash", &exe);
    let result = daemon.set("two", &[]).expect(0);
    assert!(
        result
            .stderr
            .contains("the program at its path, which its reload executes"),
        "{}",
        result.stderr
    );
    assert_eq!(daemon.text("runs"), "two");
    std::fs::remove_file(&exe).unwrap();
    let result = daemon.set("three", &[]).expect(5);
    assert!(
        result.stderr.contains("again on SIGHUP"),
        "{}",
        result.stderr
    );
    assert!(
        result.stderr.contains(exe.to_str().unwrap()),
        "{}",
        result.stderr
    );
    assert_eq!(
        (
            daemon.text("runs"),
            std::fs::read_to_string(daemon.config()).unwrap()
        ),
        ("two".into(), "message = \"two\"\n".into())
    );
}

#[test]
fn the_running_executable_validates_even_if_its_path_holds_another() {
    let daemon = Daemon::python(&["sigwait"]);
    daemon.group(&format!(
        "validate = [\"{{exe}}\", \"-c\", \"pass\", \"{{candidate}}\"]\n{}",
        daemon.seen()
    ));
    let result = daemon.set("two", &[]).expect(0);
    assert_eq!(result.json["instances"][0]["validated"], true);
}

#[test]
fn two_reloads_within_one_second_have_two_stamps_of_whole_seconds() {
    let daemon = Daemon::python(&["plain"]);
    daemon.group(&format!(
        "samples = 1\n{}",
        daemon.fact("stamp", "after_signal = true")
    ));
    for message in ["two", "three"] {
        daemon.set(message, &[]).expect(0);
        assert_eq!(daemon.text("runs"), message);
    }
}

#[test]
fn a_daemon_that_watches_its_file_has_changed_since_the_survey() {
    let daemon = Daemon::python(&["watches"]);
    // The delay lets the daemon read its file before the signal.
    let slow = format!(
        "exec = [\"sh\", \"-c\", \"sleep 0.5; cat {}.runs\"]",
        daemon.config().display()
    );
    daemon.group(&format!(
        "samples = 1\n[[group.confirm]]\n{slow}\nchanged = true"
    ));
    let result = daemon.set("two", &[]).expect(0);
    assert_eq!(
        (
            result.json["instances"][0]["proof"].as_str(),
            daemon.text("runs")
        ),
        (Some("content"), "two".into())
    );
}

#[test]
fn an_assertion_that_failed_and_holds_again_proves_the_rollback() {
    let daemon = Daemon::python(&["plain"]);
    for (read, wants) in [
        ("health", "equals = \"ok\""),
        ("health", "contains = \"k\""),
    ] {
        daemon.group(&daemon.fact(read, wants));
        let text = std::fs::read_to_string(daemon.fleet.path("fleet.toml")).unwrap();
        daemon
            .fleet
            .write("fleet.toml", &text.replace("\"20s\"", "\"2s\""));
        daemon.set("bad", &[]).expect(6);
        assert_eq!(daemon.text("runs"), "one", "{wants}");
    }
}

#[test]
fn a_wrong_assertion_about_the_running_config_is_refused_before_the_run() {
    let daemon = Daemon::python(&["plain"]);
    daemon.group(&daemon.fact("health", "equals = \"{candidate.message}\""));
    let result = daemon.set("two", &[]).expect(5);
    assert!(result.stderr.contains("reads `ok`"), "{}", result.stderr);
    assert!(
        result.stderr.contains("{candidate.message}"),
        "{}",
        result.stderr
    );
    assert_eq!(
        (
            daemon.text("runs"),
            std::fs::read_to_string(daemon.config()).unwrap()
        ),
        ("one".into(), "message = \"one\"\n".into())
    );
    // A literal is the value that the new config must show.
    daemon.group(&daemon.fact("runs", "equals = \"two\""));
    daemon.set("two", &[]).expect(0);
    // It runs another config than its file.
    daemon.group(&daemon.seen());
    std::fs::write(daemon.config(), "message = \"other\"\n").unwrap();
    daemon.set("three", &[]).expect(5);
    daemon.set("three", &["--include-unresponsive"]).expect(0);
    assert_eq!(daemon.text("runs"), "three");
}
