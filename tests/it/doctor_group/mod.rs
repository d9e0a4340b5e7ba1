//! `hello doctor PID --group`: the group of a program that no kind knows, written from what this
//! host shows of it.

use std::{
    fs::OpenOptions,
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    daemons::{Daemon, folder},
    support::{CommandEnd, until, write},
};

mod debian;
mod refused;
mod selected;

/// A file that is appended to as a shell does, and the end of the command.
struct Written {
    code: i32,
    stderr: String,
    /// The whole content of the file.
    text: String,
}

/// Appends the group of a process to a file, which is the fleet file as well.
fn append(pid: i32, file: &Path) -> Written {
    append_by(env!("CARGO_BIN_EXE_hello"), pid, file, &[])
}

fn append_by(hello: &str, pid: i32, file: &Path, args: &[&str]) -> Written {
    let stdout = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .open(file)
        .unwrap();
    let output = Command::new(hello)
        .args(["doctor", &pid.to_string(), "--group", "--fleet"])
        .arg(file)
        .args(args)
        .stdin(Stdio::null())
        .stdout(stdout)
        .output()
        .unwrap();
    Written {
        code: output.status.code().unwrap(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        text: std::fs::read_to_string(file).unwrap(),
    }
}

impl Written {
    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.stderr, self.text);
        self
    }

    /// Returns the value of a key that counts, with its comment.
    fn key(&self, key: &str) -> Option<&str> {
        let begin = format!("{key} = ");
        self.text.lines().find_map(|line| line.strip_prefix(&begin))
    }

    /// Checks a key that counts, and the beginning of its comment.
    #[track_caller]
    fn has(&self, key: &str, value: &str, comment: &str) {
        let line = self.key(key).unwrap_or_default();
        let wanted = format!("{value}  # {comment}");
        assert!(line.starts_with(&wanted), "{key}: {wanted}:\n{}", self.text);
    }
}

/// A program in Python whose handler of SIGHUP counts in a file. It runs until it is killed.
const COUNTER: &str = "\
import os, signal, sys, time
def count(*_):
    with open(os.path.join(os.path.dirname(sys.argv[0]), 'signals'), 'a') as file:
        file.write('x')
signal.signal(signal.SIGHUP, count)
open(os.path.join(os.path.dirname(sys.argv[0]), 'ready-%d' % os.getpid()), 'w').close()
while True:
    time.sleep(600)
";

/// Starts the program in a folder of its own, as `python3 FOLDER/counter.py ARGS`.
fn counter(args: &[&str]) -> Daemon {
    let dir = folder();
    write(&dir.path().join("counter.py"), COUNTER);
    counter_in(dir, args, None)
}

fn counter_in(dir: tempfile::TempDir, args: &[&str], uid: Option<u32>) -> Daemon {
    let script = dir.path().join("counter.py");
    let mut command = Command::new("python3");
    command.arg(script).args(args);
    if let Some(uid) = uid {
        command.uid(uid).gid(uid);
    }
    let daemon = Daemon::spawn(dir, &mut command);
    let ready = daemon.path(&format!("ready-{}", daemon.pid()));
    until("it has its handler", || ready.exists() || !daemon.runs());
    daemon
}

/// Starts one more of the same program, with a folder that only holds its log.
fn another(first: &Daemon, args: &[&str]) -> Daemon {
    let mut command = Command::new("python3");
    command.arg(first.path("counter.py")).args(args);
    let daemon = Daemon::spawn(folder(), &mut command);
    let ready = first.path(&format!("ready-{}", daemon.pid()));
    until("it has its handler", || ready.exists() || !daemon.runs());
    daemon
}

/// Returns the exit code, stdout and stderr of a command.
fn outcome(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// Returns the pids that the groups of a fleet file match.
fn matched(file: &Path) -> Vec<i64> {
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_hello"));
    doctor.args(["doctor", "-o", "json", "--fleet"]).arg(file);
    let CommandEnd { json, stderr, .. } = crate::support::run_to_end(&mut doctor);
    let list = json["processes"].as_array();
    let list = list.unwrap_or_else(|| panic!("{stderr}"));
    let mut pids: Vec<i64> = list
        .iter()
        .map(|process| process["pid"].as_i64().unwrap())
        .collect();
    pids.sort_unstable();
    pids
}
