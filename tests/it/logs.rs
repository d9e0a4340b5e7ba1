//! Logs as the source of assertions: what a program writes since its signal, and nothing before.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::support::{CommandResult, Fleet, Killed, run_to_end, runs_as_root, until};

/// The assertions over a log with which a reload is proven or refused.
pub(crate) const PROVEN: &str = r#"[[group.confirm]]
log = "{arg:3}"
contains = "reloaded"
[[group.reject]]
log = "{arg:3}"
matches = "reload(ing)? failed"
"#;

/// `logger.py`, killed by pid when the test ends.
pub(crate) struct Logger {
    pub(crate) fleet: Fleet,
    pub(crate) log: PathBuf,
    child: Killed,
}

pub(crate) fn start(fleet: &Fleet, log: &Path) -> Killed {
    let mut child = Command::new("python3")
        .arg(fleet.path("logger.py"))
        .arg(fleet.path("logger.toml"))
        .arg(log)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    let child = Killed(child);
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

impl Logger {
    pub(crate) fn start(config: &str) -> Self {
        Self::start_in(config, |fleet| fleet.path("x.log"))
    }

    pub(crate) fn start_in(config: &str, log: impl FnOnce(&Fleet) -> PathBuf) -> Self {
        let fleet = Fleet::start(0);
        let log = log(&fleet);
        Self::start_by(fleet, config, &log)
    }

    /// Starts it with a config that depends on its folder.
    pub(crate) fn start_with(config: impl FnOnce(&Fleet) -> String) -> Self {
        let fleet = Fleet::start(0);
        let (config, log) = (config(&fleet), fleet.path("x.log"));
        Self::start_by(fleet, &config, &log)
    }

    pub(crate) fn start_by(fleet: Fleet, config: &str, log: &Path) -> Self {
        fleet.write("logger.py", include_str!("logger.py"));
        fleet.write("logger.toml", &format!("message = \"one\"\n{config}\n"));
        let child = start(&fleet, log);
        Self {
            fleet,
            log: log.to_owned(),
            child,
        }
    }

    pub(crate) fn group(&self, facts: &str) {
        let (script, config) = (self.fleet.path("logger.py"), self.fleet.path("logger.toml"));
        let (script, config) = (script.display(), config.display());
        let text = format!(
            "version = 1\n[[group]]\nname = \"l\"\nmatch = {{ args = [\"{script}\"] }}\n\
             config = \"{config}\"\nreloads = true\ntimeout = \"15s\"\n{facts}"
        );
        self.fleet.write("fleet.toml", &text);
    }

    /// Changes the message.
    pub(crate) fn set(&self, facts: &str, message: &str, args: &[&str]) -> CommandResult {
        self.group(facts);
        let set = format!("message={message}");
        let args: Vec<&str> = ["--set", &set]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        self.fleet.broadcast(&args)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the message that it runs.
    pub(crate) fn runs(&self) -> String {
        let path = self.fleet.path(&format!("logger.toml.{}", self.pid()));
        std::fs::read_to_string(path).unwrap()
    }

    /// Checks that a message of this name is confirmed by what the log says of its reload.
    pub(crate) fn confirms(&self, facts: &str, message: &str) {
        let result = self.set(facts, message, &[]).expect(0);
        let one = &result.json["instances"][0];
        assert_eq!(
            (&one["outcome"], &one["proof"]),
            (&"confirmed".into(), &"reloaded".into()),
            "{:#}",
            result.json
        );
        assert_eq!(self.runs(), message);
    }
}

/// Returns the text of the failure of the only instance.
pub(crate) fn failure(result: &CommandResult) -> &str {
    result.json["instances"][0]["failure"]["text"]
        .as_str()
        .unwrap_or_default()
}

#[test]
fn a_line_since_the_signal_proves_a_reload() {
    let logger = Logger::start("");
    logger.confirms(PROVEN, "two");
    // The lines of the first run are before the second signal.
    logger.confirms(PROVEN, "three");
}

#[test]
fn a_line_from_before_the_signal_proves_nothing() {
    let logger = Logger::start("log = \"silent\"");
    std::fs::write(&logger.log, "reloaded earlier\n").unwrap();
    let result = logger.set(PROVEN, "two", &["--timeout", "2s"]);
    assert!(matches!(result.code, 6 | 7), "{}", result.stderr);
    let why = failure(&result);
    assert!(why.contains("no line since the signal"), "{why}");
}

#[test]
fn a_refusal_in_the_log_ends_the_wait_with_its_line_as_the_reason() {
    let logger = Logger::start("");
    let began = std::time::Instant::now();
    let result = logger.set(PROVEN, "bad-one", &[]).expect(6);
    assert!(began.elapsed().as_secs() < 15, "it was not waited for");
    let one = &result.json["instances"][0];
    assert_eq!(one["failure"]["kind"], "rejected", "{:#}", result.json);
    let why = failure(&result);
    assert!(why.contains("reload failed: bad-one"), "{why}");
    assert_eq!(logger.runs(), "one");
}

#[test]
fn a_refusal_in_the_log_is_seen_where_nothing_can_be_confirmed() {
    let facts = "confirm = []\n[[group.reject]]\nlog = \"{arg:3}\"\ncontains = \"failed\"\n";
    let logger = Logger::start("");
    let result = logger.set(facts, "bad", &["--timeout", "2s"]);
    assert_eq!(
        result.json["instances"][0]["failure"]["kind"], "rejected",
        "{:#}",
        result.json
    );
}

#[test]
fn a_line_is_read_through_every_rotation() {
    for act in ["rename", "late", "cut", "burst"] {
        let logger = Logger::start(&format!("log = \"{act}\""));
        std::fs::write(
            &logger.log,
            "a line from before, which is longer than the new one\n".repeat(3),
        )
        .unwrap();
        logger.confirms(PROVEN, "two");
    }
}

#[test]
fn a_refusal_is_read_through_every_rotation() {
    for act in ["rename", "late", "cut", "burst"] {
        let logger = Logger::start(&format!("log = \"{act}\""));
        let result = logger.set(PROVEN, "bad", &[]).expect(6);
        let why = failure(&result);
        assert!(why.contains("reload failed: bad"), "{act}: {why}");
    }
}

#[test]
fn a_log_that_is_not_there_is_refused_and_nothing_is_touched() {
    let logger = Logger::start("");
    std::fs::remove_file(&logger.log).unwrap();
    let result = logger.set(PROVEN, "two", &[]).expect(5);
    let log = logger.log.display().to_string();
    assert!(
        result.stderr.contains("there is no") && result.stderr.contains(&log),
        "{}",
        result.stderr
    );
    assert_eq!(logger.runs(), "one");
}

#[test]
fn a_log_that_every_user_can_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let logger = Logger::start("");
    std::fs::set_permissions(&logger.log, std::fs::Permissions::from_mode(0o666)).unwrap();
    let result = logger.set(PROVEN, "two", &[]).expect(5);
    assert!(
        result.stderr.contains("is not trusted"),
        "{}",
        result.stderr
    );
}

#[test]
fn a_log_on_a_full_disk_proves_nothing() {
    if !runs_as_root("a disk of its own needs root") {
        return;
    }
    struct Mounted(PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let mut mounted = None;
    let logger = Logger::start_in("", |fleet| {
        let dir = fleet.path("disk");
        std::fs::create_dir(&dir).unwrap();
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", "size=16k,mode=755", "tmpfs"]);
        assert!(mount.arg(&dir).status().unwrap().success());
        mounted = Some(Mounted(dir.clone()));
        dir.join("x.log")
    });
    let dir = logger.log.parent().unwrap();
    let _ = std::fs::write(dir.join("fill"), vec![0; 64 << 10]);
    // The page that the log has is filled up too.
    let room = 4096 - usize::try_from(logger.log.metadata().unwrap().len()).unwrap();
    let mut text = std::fs::read_to_string(&logger.log).unwrap();
    text += &"x".repeat(room - 1);
    std::fs::write(&logger.log, text + "\n").unwrap();
    let result = logger.set(PROVEN, "two", &["--timeout", "2s"]);
    assert_ne!(result.code, 0, "{}", result.stderr);
    let why = failure(&result);
    assert!(why.contains("no line since the signal"), "{why}");
    drop(logger);
    drop(mounted);
}

#[test]
fn two_instances_with_one_log_are_refused_unless_the_line_names_the_pid() {
    let logger = Logger::start("");
    let _second = start(&logger.fleet, &logger.log);
    let result = logger.set(PROVEN, "two", &[]).expect(5);
    assert!(result.stderr.contains("{pid}"), "{}", result.stderr);
    let named = PROVEN
        .replace("\"reloaded\"", "\"pid {pid}: reloaded\"")
        .replace("\"reload(ing)", "\"pid {pid}: reload(ing)");
    let result = logger.set(&named, "two", &[]).expect(0);
    assert_eq!(result.states(), ["confirmed", "confirmed"]);
}

#[test]
fn the_last_lines_of_the_log_stand_under_a_failure() {
    let facts = "log = \"{arg:3}\"\n[[group.confirm]]\nlog = \"{arg:3}\"\ncontains = \"never\"\n";
    let logger = Logger::start("");
    let result = logger.set(facts, "two", &["--timeout", "2s"]);
    let why = failure(&result);
    assert!(why.contains("; its log: `pid "), "{why}");
    assert!(why.contains("reloaded two"), "{why}");
    let lines = &result.json["instances"][0]["log"];
    let line = lines[0].as_str().unwrap();
    assert!(line.ends_with(": reloaded two"), "{lines}");
}

#[test]
fn no_line_of_the_log_of_a_secret_group_is_shown() {
    let facts = format!("secret = true\nlog = \"{{arg:3}}\"\n{PROVEN}");
    let logger = Logger::start("");
    let result = logger.set(&facts, "bad-geheim", &[]).expect(6);
    assert_eq!(result.json["instances"][0]["failure"]["kind"], "rejected");
    let all = format!("{}{:#}", result.stderr, result.json["instances"]);
    assert!(!all.contains("geheim"), "{all}");
    let lines = &result.json["instances"][0]["log"];
    assert_eq!(lines, &serde_json::json!([]));
}

#[test]
fn a_value_of_the_config_is_expected_in_the_line() {
    let facts = "[[group.confirm]]\nlog = \"{arg:3}\"\nmatches = 'reloaded {candidate.message}$'\n";
    let logger = Logger::start("");
    // The plus of the value is no repetition in the expression.
    logger.confirms(facts, "t+o");
    let wrong = facts.replace("{candidate.message}$", "{candidate.message}x$");
    let result = logger.set(&wrong, "three", &["--timeout", "2s"]);
    assert_ne!(result.code, 0);
}

#[test]
fn status_and_doctor_name_the_log_and_claim_nothing_of_its_lines() {
    let logger = Logger::start("");
    logger.confirms(PROVEN, "two");
    let status = logger.fleet.status().expect(0);
    assert_eq!(status.json["instances"][0]["faults"], serde_json::json!([]));
    let doctor = |code: i32| {
        let mut doctor = logger.fleet.read_only("doctor");
        let end = run_to_end(doctor.args(["-o", "json"]).arg(logger.pid().to_string()));
        assert_eq!(end.code, Some(code), "{}\n{:#}", end.stderr, end.json);
        format!("{:#}", end.json)
    };
    let log = logger.log.display().to_string();
    assert!(doctor(0).contains(&log));
    std::fs::rename(&logger.log, logger.log.with_extension("gone")).unwrap();
    assert!(doctor(5).contains(&format!("there is no `{log}`")));
}

#[test]
fn a_rollback_is_proven_by_a_line_after_its_own_signal() {
    // The gate refuses, and the first reload was seen to end.
    let gate = format!("{PROVEN}[group.rollout]\ngate = [\"false\"]\n");
    let logger = Logger::start("");
    let result = logger.set(&gate, "two", &[]).expect(6);
    assert_eq!(result.states(), ["reverted"]);
    assert_eq!(result.json["instances"][0]["proof"], "reloaded");
    until("it runs the old message", || logger.runs() == "one");
}

/// Runs journald and `logger.py` in a mount namespace of their own, and then `hello` with the
/// arguments. All of them end with the script.
const IN_A_JOURNAL: &str = r#"
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal /run/log/journal || exit 77
/lib/systemd/systemd-journald >/dev/null 2>&1 & journald=$!
trap 'kill $daemon $journald 2>/dev/null' EXIT
socket=/run/systemd/journal/dev-log
python3 "$1/logger.py" "$1/logger.toml" $socket >"$1/ready" 2>"$1/socket.error" & daemon=$!
"#;

#[test]
fn the_journal_is_read_from_the_signal_on() {
    if !runs_as_root("a journal of its own needs root") {
        return;
    }
    if !Path::new("/lib/systemd/systemd-journald").exists() {
        crate::support::skipped("`systemd-journald` is missing");
        return;
    }
    for log in ["journal", "syslog:logger"] {
        let fleet = Fleet::start(0);
        fleet.write("logger.py", include_str!("logger.py"));
        fleet.write("logger.toml", "message = \"one\"\n");
        let (script, config) = (fleet.path("logger.py"), fleet.path("logger.toml"));
        let facts = PROVEN.replace("{arg:3}", log);
        let text = format!(
            "version = 1\n[[group]]\nname = \"l\"\nmatch = {{ args = [\"{}\"] }}\n\
             config = \"{}\"\nreloads = true\ntimeout = \"15s\"\n{facts}",
            script.display(),
            config.display()
        );
        fleet.write("fleet.toml", &text);
        // The socket must be there before the daemon starts, and the daemon before the run.
        let wait = "i=0; until [ -S $socket ]; do i=$((i+1)); [ $i -lt 300 ] || exit 78; \
                    sleep 0.1; done\n";
        let started = IN_A_JOURNAL.replace("python3", &format!("{wait}python3"));
        let ready = "i=0; until grep -q ready \"$1/ready\"; do i=$((i+1)); \
                     [ $i -lt 300 ] || exit 79; sleep 0.1; done\nshift\n\"$@\"\n";
        let run = |message: &str| {
            let mut hello = fleet.command(&["-o", "json", "--set"]);
            hello.arg(format!("message={message}"));
            let mut command = Command::new("unshare");
            command
                .args(["-m", "sh", "-c", &format!("{started}{ready}"), "sh"])
                .arg(fleet.dir.path())
                .arg(hello.get_program())
                .args(hello.get_args());
            CommandResult::of(&mut command)
        };
        let result = run("two").expect(0);
        assert_eq!(result.json["instances"][0]["proof"], "reloaded", "{log}");
        let result = run("bad").expect(6);
        let why = failure(&result);
        assert!(why.contains("reload failed: bad"), "{log}: {why}");
        assert!(why.contains("logger["), "{log}: {why}");
    }
}
