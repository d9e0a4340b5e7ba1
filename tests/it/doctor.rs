//! `hello doctor`: every check once passed and once failed, without any signal.

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    daemons::{
        Daemon, listening,
        web::{FILE_ALONE, OTHER_DIRECTORY, OTHER_FILE, nginx, nginx_behind},
        words,
    },
    rogue::{SEEN, rogues},
    support::{CommandResult, Fleet, until},
};

const OTHER_UID: &str = "65534";

/// All checks in order.
const TOPICS: [&str; 17] = [
    "group",
    "role",
    "reloads",
    "signal",
    "permission",
    "state",
    "mounts",
    "network",
    "config",
    "install",
    "endpoint",
    "answers",
    "validator",
    "disk",
    "bad_config",
    "proof",
    "not_read",
];

fn is_root() -> bool {
    crate::support::runs_as_root(
        "only root can start processes of other users, or in other namespaces",
    )
}

/// A process. Killed by its pid when dropped.
struct Kept(Child);

impl Kept {
    /// Starts copies of `sleep`, so that a separate name distinguishes them.
    fn sleep(fleet: &Fleet, name: &str, cwd: &Path) -> Self {
        let exe = fleet.path(name);
        assert!(
            Command::new("cp")
                .arg("/bin/sleep")
                .arg(&exe)
                .status()
                .unwrap()
                .success()
        );
        let kept = Self(
            Command::new(&exe)
                .arg("600")
                .current_dir(cwd)
                .spawn()
                .unwrap(),
        );
        until("it executes the copy", || {
            words(kept.pid())
                .first()
                .is_some_and(|word| Path::new(word) == exe)
        });
        kept
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The findings about one process.
struct Exam(Value);

impl Exam {
    fn of(result: CommandResult, code: i32) -> Self {
        let result = result.expect(code);
        assert_eq!(
            result.json["processes"].as_array().map(Vec::len),
            Some(1),
            "{:#}",
            result.json
        );
        assert_eq!(result.json["processes"][0]["reloadable"], code == 0);
        Self(result.json["processes"][0].clone())
    }

    /// Examines the only match of the fleet, or one process.
    fn fleet(fleet: &Fleet, args: &[&str], code: i32) -> Self {
        Self::of(fleet.doctor(args), code)
    }

    /// Examines without a fleet.toml.
    fn kinds(args: &[&str], code: i32) -> Self {
        Self::of(
            CommandResult::of(without_fleet(args).args(["-o", "json"])),
            code,
        )
    }

    /// Checks the result, text and next step of one check.
    #[track_caller]
    fn says(&self, topic: &str, ok: Option<bool>, text: &str, next: &str) {
        let check = self.0["checks"]
            .as_array()
            .unwrap()
            .iter()
            .find(|c| c["check"] == topic)
            .unwrap_or_else(|| panic!("no {topic}: {:#}", self.0));
        let has =
            |key: &str, wanted: &str| check[key].as_str().unwrap_or_default().contains(wanted);
        assert!(
            check["ok"] == serde_json::json!(ok),
            "{topic}: {text}, {next}: {:#}",
            self.0
        );
        assert!(has("text", text), "{topic}: {text}, {next}: {:#}", self.0);
        let commands = check["commands"].as_array().unwrap();
        let is_command = |command: &Value| command.as_str().is_some_and(|c| c.contains(next));
        assert!(
            has("next", next) || commands.iter().any(is_command),
            "{topic}: {text}, {next}: {:#}",
            self.0
        );
    }

    /// Returns the checks that prevent a reload.
    fn bad(&self) -> Vec<&str> {
        self.0["checks"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|c| c["ok"] == false)
            .map(|c| c["check"].as_str().unwrap())
            .collect()
    }
}

fn without_fleet(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hello"));
    command
        .arg("doctor")
        .args(args)
        .current_dir("/proc/self")
        .env_remove("HELLO_FLEET");
    command
}

/// Adds keys to the fleet's only group.
fn add(fleet: &Fleet, keys: &str) {
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write("fleet.toml", &format!("{text}{keys}\n"));
}

/// Returns a group of a copy of `sleep`, which is never signalled.
fn sleeps(fleet: &Fleet, name: &str, keys: &str) {
    fleet.write(
        "fleet.toml",
        &format!(
            "version = 1\n[[group]]\nname = \"g\"\nmatch = {{ exe = \"{}\" }}\n{keys}\n",
            fleet.path(name).display()
        ),
    );
}

fn names(dir: &Path) -> Vec<std::ffi::OsString> {
    let mut all: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    all.sort();
    all
}

#[test]
fn a_server_that_can_be_reloaded_passes_every_check_and_nothing_is_touched() {
    let fleet = Fleet::start(2);
    let (before, pid) = (names(fleet.dir.path()), fleet.pid(0).to_string());
    let exam = Exam::fleet(&fleet, &[&pid], 0);
    let checks = exam.0["checks"].as_array().unwrap();
    let topics: Vec<&str> = checks
        .iter()
        .map(|c| c["check"].as_str().unwrap())
        .collect();
    assert!(topics == TOPICS, "{:#}", exam.0);
    assert!(checks.iter().all(|c| c["ok"] == true), "{:#}", exam.0);
    assert_eq!(
        (&exam.0["pid"], &exam.0["group"]),
        (&fleet.pid(0).into(), &"web".into())
    );
    exam.says(
        "config",
        Some(true),
        &fleet.path("web.toml").display().to_string(),
        "",
    );
    exam.says("endpoint", Some(true), fleet.url(0), "");
    exam.says("answers", Some(true), "reports that it runs sha256:", "");
    exam.says("validator", Some(true), "hello check", "");
    exam.says("proof", Some(true), "exact", "");
    // Without a pid, all matches of the fleet. The text output has a line for each check.
    assert_eq!(
        fleet.doctor(&[]).expect(0).json["processes"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    let output = fleet.read_only("doctor").output().unwrap();
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .ends_with("\n     Summary 2 processes: 2 can be reloaded, 0 cannot\n")
    );
    let output = fleet.read_only("doctor").arg(&pid).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.len()),
        (Some(0), 0),
        "{stdout}"
    );
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), 2 + TOPICS.len() + 1);
    assert!(
        lines[0].starts_with(&format!("     Process pid {pid} /")),
        "{stdout}"
    );
    assert_eq!(lines[1], "RESULT  CHECK       FINDING");
    let rows = &lines[2..2 + TOPICS.len()];
    assert!(
        rows.iter()
            .all(|row| row.starts_with("ok      ") || row.starts_with("--      ")),
        "{stdout}"
    );
    assert_eq!(
        stdout.lines().last().unwrap(),
        format!("      Result pid {pid} can be reloaded")
    );
    assert_eq!(
        (names(fleet.dir.path()), fleet.attempts()),
        (before, vec![1; 2]),
        "nothing was staged, and no signal was sent"
    );
}

#[test]
fn missing_and_impossible_processes_are_refused() {
    let fleet = Fleet::start(1);
    let mut ended = Command::new("true").spawn().unwrap();
    let zombie = ended.id().to_string();
    until("it has ended", || {
        std::fs::read_to_string(format!("/proc/{zombie}/stat"))
            .unwrap()
            .contains(") Z ")
    });
    let result = fleet.doctor(&[&zombie]).expect(3);
    assert!(
        result.stderr.contains("runs no program"),
        "{:#}",
        result.json
    );
    assert!(
        result.json["missing"][0]["pid"] == zombie.parse::<i32>().unwrap(),
        "{:#}",
        result.json
    );
    ended.wait().unwrap();
    assert!(
        fleet
            .doctor(&[&zombie])
            .expect(3)
            .stderr
            .contains("is gone")
    );
    for (args, says) in [
        (&["0"][..], "is not a pid"),
        (&["99999999999"], "is not a pid"),
        (&["1", "none"], "no group `none`"),
        (&["none"], "no group `none`"),
    ] {
        let result = fleet.doctor(args).expect(2);
        assert!(result.stderr.contains(says), "{args:?}: {}", result.stderr);
    }
    add(&fleet, "count = 2");
    let result = fleet.doctor(&[]).expect(3);
    assert!(
        result.stderr.contains("has 1 instance, not 2"),
        "{}",
        result.stderr
    );
    assert!(
        result.json["processes"][0]["reloadable"] == true,
        "{}",
        result.stderr
    );
    fleet.write("fleet.toml", "version = 2\n");
    fleet.doctor(&[]).expect(2);
    let output = without_fleet(&[]).output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(2),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn doctor_reports_the_signal_disposition_and_its_source() {
    for (mode, group, signal, ok, next) in [
        (
            "default",
            "reloads = true",
            "has no handler for SIGHUP and would die of it",
            Some(false),
            "unchecked",
        ),
        (
            "sigwait",
            "reloads = true",
            "waits for SIGHUP in sigwait",
            Some(true),
            "",
        ),
        (
            "sigwait",
            "reloads = \"unchecked\"",
            "waits for SIGHUP in sigwait",
            Some(true),
            "",
        ),
        (
            "ignore",
            "reloads = true",
            "ignores SIGHUP",
            Some(false),
            "nohup",
        ),
        (
            "block",
            "reloads = true",
            "blocks it at the moment",
            None,
            "",
        ),
        (
            "block",
            "reloads = true\nexecutes_itself = true",
            "blocks SIGHUP in every thread",
            Some(false),
            "",
        ),
        (
            "signalfd",
            "reloads = true",
            "waits for SIGHUP in a signalfd",
            Some(true),
            "",
        ),
        (
            "good",
            "reloads = true",
            "has a handler for SIGHUP",
            Some(true),
            "",
        ),
        ("exit", "", "which proves nothing", None, ""),
    ] {
        let fleet = Fleet::start(0);
        let mut all = rogues(&fleet, mode, mode, 1, &format!("{group}\n{SEEN}"));
        let vouched = !group.is_empty();
        let exam = Exam::fleet(
            &fleet,
            &[],
            if vouched && ok != Some(false) { 0 } else { 5 },
        );
        exam.says("signal", ok, signal, next);
        match vouched {
            true => exam.says(
                "reloads",
                Some(true),
                "group `rogue` declares that it reloads on SIGHUP",
                "",
            ),
            false => exam.says(
                "reloads",
                Some(false),
                "is not declared to reload",
                "set `reloads = true` in group `rogue`",
            ),
        }
        exam.says("proof", Some(true), "content", "");
        if ok == Some(false) || !vouched {
            // A run that is refused for this reason suggests `doctor`.
            let result = fleet.broadcast(&["--set", "message=x"]).expect(5);
            assert!(
                result.stderr.ends_with(&format!(
                    "\n  hello doctor --fleet {}\n",
                    fleet.path("fleet.toml").display()
                )),
                "{}",
                result.stderr
            );
        }
        assert!(all[0].runs(), "{mode}");
        // It was neither ended nor signalled.
        assert_eq!(all[0].signals(), "0", "{mode}");
    }
}

#[test]
fn doctor_distinguishes_unknown_programs_from_look_alikes() {
    let fleet = Fleet::start(0);
    let (mut sleep, mut haproxy) = (
        Kept::sleep(&fleet, "naps", Path::new("/")),
        Kept::sleep(&fleet, "haproxy", Path::new("/")),
    );
    let pid = sleep.pid().to_string();
    let exam = Exam::kinds(&[&pid], 5);
    exam.says(
        "group",
        Some(false),
        &format!(
            "no kind matches it: it executes {}",
            fleet.path("naps").display()
        ),
        "add a group",
    );
    exam.says("signal", Some(false), "would die of it", "");
    assert_eq!(
        (exam.bad(), &exam.0["group"]),
        (vec!["group", "signal"], &Value::Null)
    );
    Exam::kinds(&[&haproxy.pid().to_string()], 5).says(
        "group",
        Some(false),
        "kind `haproxy`: it has no `-W` or `-Ws` among its arguments",
        "start it as the group requires",
    );
    // A group gives the reason for no match, and a kind that would match is named.
    Exam::fleet(&fleet, &[&pid], 5).says(
        "group",
        Some(false),
        "group `web`: it does not execute `hello-",
        "",
    );
    sleeps(
        &fleet,
        "naps",
        "reloads = true\nconfirm = []\nexclude = { args = [\"600\"] }",
    );
    Exam::fleet(&fleet, &[&pid], 5).says(
        "group",
        Some(false),
        "group `g`: it is excluded by its `exclude`",
        "",
    );
    sleeps(
        &fleet,
        "naps",
        &format!(
            "reloads = true\nconfirm = []\ninstances = [ {{ pid = {} }} ]",
            haproxy.pid()
        ),
    );
    Exam::fleet(&fleet, &[&pid], 5).says(
        "group",
        Some(false),
        "group `g`: it is not in the list of its `instances`",
        "",
    );
    let hello = Kept(
        Command::new(env!("CARGO_BIN_EXE_hello"))
            .args(["serve", "--config"])
            .arg(fleet.path("web.toml"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap(),
    );
    until("it listens", || listening(hello.pid()).len() == 1);
    let exam = Exam::fleet(&fleet, &[&hello.pid().to_string()], 5);
    exam.says(
        "group",
        Some(false),
        "but kind `hello` would",
        "hello kinds hello",
    );
    assert_eq!(exam.bad(), ["group"]);
    let exam = Exam::kinds(&[&hello.pid().to_string()], 0);
    exam.says("group", Some(true), "kind `hello` matches it", "");
    assert!(sleep.runs());
    assert!(haproxy.runs());
}

#[test]
fn doctor_reports_stopped_and_unresponsive_processes() {
    let fleet = Fleet::start(1);
    fleet.stop(0);
    let exam = Exam::fleet(&fleet, &[], 5);
    exam.says(
        "state",
        Some(false),
        "is stopped",
        &format!("kill -CONT {}", fleet.pid(0)),
    );
    assert_eq!(exam.bad(), ["state", "answers"]);
    let fleet = Fleet::start(0);
    let _all = rogues(&fleet, "mute", "good", 1, "kind = \"hello\"\nvalidate = []");
    let exam = Exam::fleet(&fleet, &[], 5);
    exam.says("answers", Some(false), "does not speak hello", "");
    assert_eq!(exam.bad(), ["answers"]);
}

#[test]
fn doctor_reports_the_endpoint() {
    let fleet = Fleet::start(0);
    let all = rogues(&fleet, "two", "two", 1, &format!("reloads = true\n{SEEN}"));
    let exam = Exam::fleet(&fleet, &[], 5);
    exam.says(
        "endpoint",
        Some(false),
        &format!(
            "listens on {}",
            all[0].url.get(.."http://127.0.0.1:".len()).unwrap()
        ),
        "say which with `listen = \"tcp:PORT\"`",
    );
    exam.says("answers", None, "its endpoint is not known", "");
    let port = all[0].url.trim_end_matches('/').rsplit(':').next().unwrap();
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write(
        "fleet.toml",
        &text.replace(
            "reloads = true\n",
            &format!("reloads = true\nlisten = \"tcp:{port}\"\n"),
        ),
    );
    let exam = Exam::fleet(&fleet, &[], 0);
    exam.says("endpoint", Some(true), &all[0].url, "");
    exam.says("answers", Some(true), &all[0].url, "");
    // An instance without a probe needs no endpoint. One with a probe does.
    let _sleep = Kept::sleep(&fleet, "naps", Path::new("/"));
    sleeps(&fleet, "naps", "reloads = \"unchecked\"\nconfirm = []");
    let exam = Exam::fleet(&fleet, &[], 0);
    exam.says(
        "endpoint",
        None,
        "listens on no socket, and no probe needs one",
        "",
    );
    exam.says("answers", None, "has no assertion", "");
    exam.says("proof", None, "none", "[[group.confirm]]");
    exam.says("config", None, "only signalled", "");
    sleeps(
        &fleet,
        "naps",
        "reloads = \"unchecked\"\n[[group.confirm]]\nhttp = \"http://{listen}/\"\nchanged = true",
    );
    Exam::fleet(&fleet, &[], 5).says("endpoint", Some(false), "listens on no socket", "");
}

#[test]
fn doctor_reports_the_config_and_whether_it_can_be_replaced() {
    let fleet = Fleet::start(0);
    std::fs::create_dir(fleet.path("conf")).unwrap();
    let config = fleet.write("conf/naps.conf", "one");
    let _sleep = Kept::sleep(&fleet, "naps", &fleet.path("conf"));
    let group = |places: &str| {
        sleeps(
            &fleet,
            "naps",
            &format!("reloads = \"unchecked\"\nconfirm = []\nconfig = {places}"),
        )
    };
    let file = format!("\"{}\"", config.display());
    group(&file);
    let exam = Exam::fleet(&fleet, &[], 0);
    exam.says("config", Some(true), "(file, sha256:", "");
    exam.says("install", Some(true), "in one step", "");
    exam.says("validator", None, "has no validator", "validate");
    exam.says("bad_config", Some(true), "keep its old config", "");
    // A run that is under way.
    let dir = std::fs::File::open(fleet.path("conf")).unwrap();
    rustix::fs::flock(&dir, rustix::fs::FlockOperation::LockExclusive).unwrap();
    Exam::fleet(&fleet, &[], 0).says(
        "install",
        None,
        &format!("pid {}", std::process::id()),
        "--lock-timeout",
    );
    drop(dir);
    std::fs::hard_link(&config, fleet.path("other")).unwrap();
    Exam::fleet(&fleet, &[], 5).says("install", Some(false), "more than one hard link", "");
    std::fs::remove_file(fleet.path("other")).unwrap();
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).unwrap();
    Exam::fleet(&fleet, &[], 0).says("config", Some(true), ", a secret)", "");
    // It would keep the old directory as its working directory.
    group(&format!("\"{}\"", fleet.path("conf").display()));
    let exam = Exam::fleet(&fleet, &[], 5);
    exam.says("config", Some(true), "(directory, sha256:", "");
    exam.says(
        "install",
        Some(false),
        "working directory",
        "start it elsewhere",
    );
    group(&format!("[ {file}, \"/none\" ]"));
    Exam::fleet(&fleet, &[], 0).says("config", Some(true), "naps.conf", "");
    group("[ \"{arg:-c}\", \"/none/here\" ]");
    let exam = Exam::fleet(&fleet, &[], 5);
    exam.says("config", Some(false), "/none/here", "");
    exam.says("install", None, "", "");
    exam.says("disk", None, "its config is not known", "");
    assert_eq!(exam.bad(), ["config"]);
    // Content that it does not read on the signal.
    sleeps(
        &fleet,
        "naps",
        &format!("reloads = \"unchecked\"\nconfirm = []\nconfig = {file}\nneeds_restart = {file}"),
    );
    Exam::fleet(&fleet, &[], 5).says("not_read", Some(false), "only at its start", "restart it");
    let keys = |pending: &str| {
        format!(
            "reloads = \"unchecked\"\nconfirm = []\nconfig = {file}\nrestart_keys = [\"true\"]\nrestart_pending = [{pending}]"
        )
    };
    for (pending, ok, text) in [
        ("\"true\"", Some(true), "names them before"),
        ("\"echo\", \"Max_Naps\"", None, "`max_naps`"),
        ("\"false\"", None, "not known: `false`"),
    ] {
        sleeps(&fleet, "naps", &keys(pending));
        Exam::fleet(&fleet, &[], 0).says("not_read", ok, text, "");
    }
    let other = fleet.write("more.conf", "");
    sleeps(
        &fleet,
        "naps",
        &format!(
            "reloads = \"unchecked\"\nconfirm = []\nconfig = {file}\nneeds_restart = \"{}\"",
            other.display()
        ),
    );
    Exam::fleet(&fleet, &[], 0).says("not_read", None, "more.conf", "");
}

#[test]
fn doctor_reports_the_validator_and_the_effect_of_a_bad_config() {
    let fleet = Fleet::start(0);
    let config = fleet.write("naps.conf", "good");
    let mut sleep = Kept::sleep(&fleet, "naps", fleet.dir.path());
    let group = |keys: &str| {
        sleeps(
            &fleet,
            "naps",
            &format!(
                "reloads = \"unchecked\"\nconfirm = []\nconfig = \"{}\"\n{keys}",
                config.display()
            ),
        )
    };
    let grep = "validate = [\"grep\", \"-q\", \"good\", \"{candidate}\"]";
    group(grep);
    let exam = Exam::fleet(&fleet, &[], 0);
    exam.says("validator", Some(true), "grep -q good {candidate}", "");
    exam.says("disk", Some(true), "is valid as it stands", "");
    fleet.write("naps.conf", "bad");
    let exam = Exam::fleet(&fleet, &[], 5);
    exam.says("validator", Some(true), "grep", "");
    exam.says("disk", Some(false), "refused it (exit status: 1)", "fix it");
    assert_eq!(exam.bad(), ["disk"]);
    fleet.write("naps.conf", "good");
    // An argv without a placeholder for the candidate needs a mount namespace.
    group("validate = [\"grep\", \"-q\", \"good\", \"naps.conf\"]");
    let unshared = |args: &[&str]| {
        Command::new("unshare")
            .args(args)
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    };
    let place = unshared(&["--mount", "true"]) || unshared(&["--user", "--mount", "true"]);
    let result = if place {
        "grep -q good naps.conf"
    } else {
        "mount namespace"
    };
    Exam::fleet(&fleet, &[], 0).says("validator", place.then_some(true), result, "");
    let none = "validate = [\"/none/such\"]";
    group(none);
    let exam = Exam::fleet(&fleet, &[], 0);
    exam.says(
        "validator",
        None,
        "`/none/such` could not be run",
        "unvalidated",
    );
    exam.says("disk", None, "it is not known", "");
    // If a bad config ends the process, no instance is signalled without a validator.
    group(&format!("{none}\non_bad_config = \"dies\""));
    Exam::fleet(&fleet, &[], 5).says(
        "validator",
        Some(false),
        "could not be run",
        "no instance is signalled",
    );
    group("on_bad_config = \"dies\"");
    Exam::fleet(&fleet, &[], 5).says(
        "validator",
        Some(false),
        "has no validator, and a bad config ends the process",
        "validate",
    );
    group(&format!("{grep}\non_bad_config = \"dies\""));
    let by_hand = format!(
        "cd {} && {} 600",
        fleet.dir.path().display(),
        fleet.path("naps").display()
    );
    Exam::fleet(&fleet, &[], 0).says(
        "bad_config",
        None,
        "must be started again by hand",
        &by_hand,
    );
    group(&format!(
        "{grep}\non_bad_config = \"dies\"\nrevive = [\"start\", \"naps\"]"
    ));
    Exam::fleet(&fleet, &[], 0).says(
        "bad_config",
        Some(true),
        "started again on the old config by `start naps`",
        "",
    );
    assert!(sleep.runs());
}

#[test]
fn doctor_reports_processes_of_other_users() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::start(1);
    std::fs::set_permissions(fleet.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let as_other_user = |program: &Path| {
        let mut command = Command::new("setpriv");
        command
            .args([
                "--reuid",
                OTHER_UID,
                "--regid",
                OTHER_UID,
                "--clear-groups",
                "--",
            ])
            .arg(program);
        command
    };
    // An ordinary user examines a server of root.
    let mut command = as_other_user(fleet.exe());
    command
        .args(["doctor", "-o", "json", "--fleet"])
        .arg(fleet.path("fleet.toml"))
        .arg(fleet.pid(0).to_string());
    let exam = Exam::of(CommandResult::of(&mut command), 5);
    exam.says(
        "permission",
        Some(false),
        "may not be signalled by this user",
        "run hello as uid 0 or as root",
    );
    exam.says("mounts", None, "cannot be seen by this user", "");
    assert_eq!(fleet.attempts(), [1]);
    // Root examines a server of another user, in a group without and with its user.
    let theirs = fleet.write(
        "theirs.toml",
        "message = \"theirs\"\nlisten = \"127.0.0.1:0\"\n",
    );
    let other = Kept(
        as_other_user(fleet.exe())
            .args(["serve", "--config"])
            .arg(&theirs)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    until("it listens", || listening(other.pid()).len() == 1);
    let pid = other.pid().to_string();
    let exam = Exam::fleet(&fleet, &[&pid], 5);
    exam.says("group", Some(false), "belongs to uid 65534", "user = ..");
    exam.says("permission", Some(true), "may be signalled", "");
    add(&fleet, "user = \"65534\"");
    let exam = Exam::fleet(&fleet, &[&pid], 5);
    exam.says(
        "config",
        Some(false),
        "is of another user (uid 65534)",
        "`config_under`",
    );
    exam.says("proof", Some(true), "exact", "");
    assert_eq!(exam.bad(), ["config"]);
    add(
        &fleet,
        &format!("config_under = \"{}\"", fleet.dir.path().display()),
    );
    assert!(Exam::fleet(&fleet, &[&pid], 0).bad().is_empty());
}

#[test]
fn doctor_reports_a_process_in_another_network_namespace() {
    let net = Command::new("unshare")
        .args(["--net", "true"])
        .stderr(Stdio::null())
        .status();
    if !net.is_ok_and(|status| status.success()) {
        crate::support::skipped("no network namespace is to be had");
        return;
    }
    let fleet = Fleet::start(0);
    let away = Command::new("unshare")
        .arg("--net")
        .arg(fleet.exe())
        .args(["serve", "--config"])
        .arg(fleet.path("web.toml"))
        .stdout(Stdio::null())
        .spawn();
    let away = Kept(away.unwrap());
    until("it executes hello", || {
        words(away.pid()).get(1).is_some_and(|word| word == "serve")
    });
    let exam = Exam::fleet(&fleet, &[], 5);
    exam.says(
        "network",
        Some(false),
        "another network namespace",
        &format!("nsenter --target {} --net", away.pid()),
    );
    exam.says("endpoint", Some(false), "another network namespace", "");
    assert_eq!(exam.bad(), ["network", "endpoint"]);
}

fn of_nginx(daemon: &Daemon, pid: i32, code: i32) -> Exam {
    let mut command = without_fleet(&[&pid.to_string(), "-o", "json"]);
    assert!(daemon.runs() || code != 0);
    Exam::of(CommandResult::of(&mut command), code)
}

#[test]
fn doctor_reports_an_nginx_and_its_worker() {
    let Some(web) = nginx() else { return };
    let (master, workers) = (web.daemon.pid(), web.daemon.children());
    let exam = of_nginx(&web.daemon, master, 0);
    exam.says("group", Some(true), "kind `nginx` matches it", "");
    exam.says(
        "role",
        Some(true),
        &format!(
            "takes the signal, for its workers too: pid {}, {}",
            workers[0], workers[1]
        ),
        "",
    );
    exam.says("config", Some(true), &web.file().display().to_string(), "");
    exam.says("validator", Some(true), "/nginx -t", "");
    exam.says("answers", Some(true), "its workers", "");
    exam.says("proof", Some(true), "workers", "");
    let exam = of_nginx(&web.daemon, workers[1], 5);
    exam.says(
        "role",
        Some(false),
        &format!("is a worker of pid {master}"),
        &format!("hello doctor {master}"),
    );
    assert_eq!(exam.bad(), ["role"]);
    std::fs::write(web.file(), web.config("two") + "nonsense").unwrap();
    of_nginx(&web.daemon, master, 5).says(
        "disk",
        Some(false),
        "/nginx` refused it (exit status: 1)",
        "fix it",
    );
    assert_eq!(
        (web.word().as_deref(), web.daemon.children()),
        (Some("one"), workers.clone()),
        "no signal was sent"
    );
    // Its workers survive the kill of their master.
    kill(Pid::from_raw(master), Signal::SIGKILL).unwrap();
    until("it is gone", || !web.daemon.runs());
    let orphan = workers[0];
    let parent = || {
        std::fs::read_to_string(format!("/proc/{orphan}/status"))
            .unwrap()
            .contains(&format!("PPid:\t{master}\n"))
    };
    until("it has another parent", || !parent());
    of_nginx(&web.daemon, orphan, 5).says(
        "role",
        Some(false),
        "is a worker whose master is gone",
        "end it",
    );
}

/// A child of a living process. Killed by its pid when dropped.
struct Below(i32);

impl Drop for Below {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0), Signal::SIGKILL);
    }
}

#[test]
fn doctor_reports_two_masters_of_one_service_as_an_upgrade() {
    let fleet = Fleet::start(0);
    let (sh, sleep) = (fleet.path("up-sh"), fleet.path("up-sleep"));
    for (from, to) in [("/bin/bash", &sh), ("/bin/sleep", &sleep)] {
        assert!(
            Command::new("cp")
                .arg(from)
                .arg(to)
                .status()
                .unwrap()
                .success()
        );
    }
    let mut old = Kept(
        Command::new(&sh)
            .args(["-c", "\"$0\" 600 & echo $!; wait"])
            .arg(&sleep)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut line = String::new();
    BufReader::new(old.0.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let new = Below(line.trim().parse().unwrap());
    until("the new master is there", || {
        words(new.0)
            .first()
            .is_some_and(|word| Path::new(word) == sleep)
    });
    let any = format!("{{ exe = \"{}/up-*\" }}", fleet.dir.path().display());
    fleet.write("fleet.toml", &format!("version = 1\n[[group]]\nname = \"up\"\nmatch = {any}\nleader = {any}\nreloads = true\nconfirm = []\n"));
    let exam = Exam::fleet(&fleet, &[&old.pid().to_string()], 5);
    exam.says(
        "role",
        Some(false),
        &format!("pid {} and pid {} are both masters", new.0, old.pid()),
        "finish or abort the upgrade",
    );
    Exam::fleet(&fleet, &[&new.0.to_string()], 5).says(
        "role",
        Some(false),
        "is being upgraded",
        "finish or abort the upgrade",
    );
    assert_eq!(
        fleet.doctor(&[]).expect(5).json["processes"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
}

#[test]
fn an_nginx_behind_its_own_mounts_cannot_be_reloaded_from_here() {
    for (mounts, topic) in [
        (OTHER_DIRECTORY, "config"),
        (OTHER_FILE, "config"),
        (FILE_ALONE, "config"),
    ] {
        let Some(web) = nginx_behind(mounts) else {
            return;
        };
        let exam = of_nginx(&web.daemon, web.daemon.pid(), 5);
        exam.says("mounts", None, "a mount namespace of its own", "");
        exam.says(topic, Some(false), "its own mount", "mount its directory");
    }
}
