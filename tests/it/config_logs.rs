//! Logs that the config names, that another program writes, and that a later run reads.

use std::{net::TcpStream, path::PathBuf};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    daemons::{Daemon, command, folder, free_port, need},
    logs::{Logger, PROVEN, failure},
    resume::killed,
    support::{Fleet, Killed, until, write},
};

/// The assertions over the log that the config names.
fn named() -> String {
    PROVEN.replace("{arg:3}", "{config.file}")
}

/// Starts a logger that writes the log of this name, which its config names.
fn start(name: &str) -> (Logger, PathBuf) {
    let mut log = PathBuf::new();
    let logger = Logger::start_with(|fleet| {
        log = fleet.path(name);
        format!("file = \"{}\"", log.display())
    });
    (logger, log)
}

#[test]
fn the_log_that_the_config_names_is_read() {
    let (logger, log) = start("a.log");
    logger.confirms(&named(), "two");
    let result = logger.set(&named(), "bad", &[]).expect(6);
    let why = failure(&result);
    assert!(why.contains("reload failed: bad"), "{why}");
    assert!(why.contains(&log.display().to_string()), "{why}");
}

#[test]
fn a_new_config_that_names_another_log_is_read_in_both() {
    let (logger, old) = start("a.log");
    let (second, third) = (logger.fleet.path("b.log"), logger.fleet.path("c.log"));
    let file = |path: &PathBuf| format!("file={}", path.display());
    let result = logger
        .set(&named(), "two", &["--set", &file(&second)])
        .expect(0);
    assert_eq!(result.json["instances"][0]["proof"], "reloaded");
    // The refusal goes to the log of the config that it keeps.
    let result = logger
        .set(&named(), "bad", &["--set", &file(&third)])
        .expect(6);
    assert_eq!(result.json["instances"][0]["failure"]["kind"], "rejected");
    assert_eq!(logger.runs(), "two");
    let old_text = std::fs::read_to_string(old).unwrap();
    assert!(!old_text.contains("failed"), "{old_text}");
}

#[test]
fn a_failure_names_both_logs() {
    let (logger, old) = start("a.log");
    let new = logger.fleet.path("b.log");
    let never = named().replace("\"reloaded\"", "\"never\"");
    let set = format!("file={}", new.display());
    let result = logger.set(&never, "two", &["--set", &set, "--timeout", "2s"]);
    let why = failure(&result);
    let both = format!("`{}` and `{}`", old.display(), new.display());
    assert!(why.contains(&both), "{why}");
}

#[test]
fn a_new_config_without_a_log_that_can_be_read_is_refused() {
    let (logger, _) = start("a.log");
    logger.group(&named());
    let without = logger.fleet.write("new.toml", "message = \"two\"\n");
    let result = logger
        .fleet
        .broadcast(&["--config", without.to_str().unwrap()])
        .expect(5);
    let says = "`{config.file}`: the new config has no such key";
    assert!(result.stderr.contains(says), "{}", result.stderr);
    let relative = ["--set", "file=x.log"];
    let result = logger.set(&named(), "two", &relative).expect(5);
    assert!(
        result.stderr.contains("is no absolute path"),
        "{}",
        result.stderr
    );
    assert_eq!(logger.runs(), "one");
}

#[test]
fn a_log_that_a_secret_config_names_is_refused() {
    let (logger, _) = start("a.log");
    let facts = format!("secret = true\n{}", named());
    let result = logger.set(&facts, "two", &[]).expect(5);
    assert!(result.stderr.contains("is a secret"), "{}", result.stderr);
}

#[test]
fn a_file_that_rsyslogd_writes_proves_and_refuses() {
    if !need("rsyslogd") {
        return;
    }
    let fleet = Fleet::start(0);
    let (socket, log) = (fleet.path("log.sock"), fleet.path("rsyslog.log"));
    let text = format!(
        "module(load=\"imuxsock\" SysSock.Use=\"off\")\ninput(type=\"imuxsock\" Socket=\"{}\")\n\
         action(type=\"omfile\" file=\"{}\" fileCreateMode=\"0644\")\n",
        socket.display(),
        log.display()
    );
    let config = fleet.write("rsyslog.conf", &text);
    let mut rsyslogd = command("rsyslogd");
    rsyslogd.arg("-n").arg("-f").arg(config);
    rsyslogd.arg("-i").arg(fleet.path("pid"));
    let _rsyslogd = Killed(rsyslogd.spawn().unwrap());
    until("its socket is there", || socket.exists());
    let logger = Logger::start_by(fleet, "", &socket);
    until("the first line is there", || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.contains("reloaded one"))
    });
    let facts = PROVEN.replace("{arg:3}", log.to_str().unwrap());
    logger.confirms(&facts, "two");
    let result = logger.set(&facts, "bad", &[]).expect(6);
    let why = failure(&result);
    let line = format!("logger[{0}]: pid {0}: reload failed: bad", logger.pid());
    assert!(why.contains(&line), "{why}");
    assert_eq!(logger.runs(), "two");
}

#[test]
fn a_run_that_is_resumed_reads_the_lines_after_its_own_signal() {
    let logger = Logger::start("");
    logger.group(PROVEN);
    let run = killed(&logger.fleet, &["--set", "message=two"], "installed", 1);
    let result = logger.fleet.continue_run("resume", &[&run]).expect(0);
    let one = &result.json["instances"][0];
    assert_eq!(
        (&one["outcome"], &one["proof"]),
        (&"confirmed".into(), &"reloaded".into())
    );
    assert_eq!(logger.runs(), "two");
}

#[test]
fn a_run_that_is_resumed_sees_the_refusal_in_the_log() {
    let logger = Logger::start("");
    logger.group(PROVEN);
    let run = killed(&logger.fleet, &["--set", "message=bad"], "installed", 1);
    let result = logger.fleet.continue_run("resume", &[&run]);
    assert!(
        matches!(result.code, 6 | 7),
        "{} {}",
        result.code,
        result.stderr
    );
    let one = &result.json["instances"][0];
    assert_eq!(one["failure"]["kind"], "rejected", "{one:#}");
    assert_eq!(logger.runs(), "one");
}

/// A process that is ended by its pid.
struct Ended(i32);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0), Signal::SIGKILL);
    }
}

#[test]
fn no_line_is_expected_of_a_successor() {
    let logger = Logger::start("log = \"successor\"");
    let result = logger.set(PROVEN, "two", &[]).expect(0);
    let one = &result.json["instances"][0];
    let pid = i32::try_from(one["pid"].as_i64().unwrap()).unwrap();
    let _successor = Ended(pid);
    assert_eq!(one["outcome"], "confirmed");
    assert_eq!(one["successor_of"], logger.pid(), "{one:#}");
    let log = std::fs::read_to_string(&logger.log).unwrap();
    assert!(!log.contains("two"), "{log}");
    let path = logger.fleet.path(&format!("logger.toml.{pid}"));
    assert_eq!(std::fs::read_to_string(path).unwrap(), "two");
}

#[test]
fn tinyproxy_that_changes_its_log_is_proven_and_refused() {
    if !need("tinyproxy") {
        return;
    }
    let (dir, port) = (folder(), free_port());
    let path = dir.path().to_owned();
    let text = |log: &str, more: &str| {
        format!(
            "Port {port}\nListen 127.0.0.1\nTimeout 600\nMaxClients 10\nAllow 127.0.0.1\n\
             LogFile \"{}/{log}.log\"\n{more}",
            path.display()
        )
    };
    let config = write(&path.join("t.conf"), &text("a", ""));
    let mut tinyproxy = command("tinyproxy");
    let daemon = Daemon::spawn(dir, tinyproxy.arg("-d").arg("-c").arg(&config));
    until("it listens", || {
        assert!(daemon.runs(), "it ended: {}", daemon.log());
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    let group = format!(
        "version = 1\n[[group]]\nname = \"t\"\nmatch = {{ exe = \"tinyproxy\", args = [\"{0}\"] }}\n\
         config = \"{0}\"\nvalidate = \"none\"\nsignal = \"SIGUSR1\"\nreloads = true\ntimeout = \
         \"20s\"\n[[group.confirm]]\nlog = \"{{config.LogFile}}\"\ncontains = \"Reloading config \
         file finished\"\n[[group.reject]]\nlog = \"{{config.LogFile}}\"\ncontains = \"Reloading \
         config file failed\"\n",
        config.display()
    );
    daemon.write("fleet.toml", &group);
    let change = |text: &str| {
        let new = daemon.write("new", text);
        daemon.broadcast(&["--config", new.to_str().unwrap()])
    };
    let result = change(&text("b", "")).expect(0);
    assert_eq!(result.json["instances"][0]["proof"], "reloaded");
    let result = change(&text("c", "Bogus\n")).expect(6);
    assert_eq!(result.json["instances"][0]["failure"]["kind"], "rejected");
    let why = failure(&result);
    let both = format!("`{0}/b.log` and `{0}/c.log`", path.display());
    assert!(why.contains(&both), "{why}");
}
