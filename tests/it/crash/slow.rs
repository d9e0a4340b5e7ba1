//! The disk is slow, and the operator interrupts the run while it waits for it.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::trace::{can_trace, log};
use crate::support::{Fleet, Killed, until};

/// A run under strace, which delays some of its calls.
struct SlowRun {
    pid: Pid,
    /// The report of the run.
    report: PathBuf,
    _strace: Killed,
}

impl Drop for SlowRun {
    fn drop(&mut self) {
        // It would go on without strace.
        let _ = kill(self.pid, Signal::SIGKILL);
    }
}

impl SlowRun {
    fn start(fleet: &Fleet, log: &Path, options: &[&str]) -> Self {
        let report = fleet.path("report.json");
        let command = fleet.command(&["-q", "-o", "json", "--set", "message=two"]);
        let strace = Command::new("strace")
            .args(["-f", "-y", "-o"])
            .arg(log)
            .args(options)
            .arg(command.get_program())
            .args(command.get_args())
            .stdout(File::create(&report).unwrap())
            .stderr(Stdio::null())
            .spawn();
        let strace = Killed(strace.unwrap());
        let children = format!("/proc/{0}/task/{0}/children", strace.id());
        let mut pid: Option<i32> = None;
        // strace also has children of its own, to learn what the kernel can do.
        let exe = fleet.exe().canonicalize().unwrap();
        let runs =
            |pid: &i32| std::fs::read_link(format!("/proc/{pid}/exe")).ok().as_ref() == Some(&exe);
        until("it is started", || {
            let text = std::fs::read_to_string(&children).unwrap();
            pid = text.split_whitespace().flat_map(str::parse).find(runs);
            pid.is_some()
        });
        Self {
            pid: Pid::from_raw(pid.unwrap()),
            report,
            _strace: strace,
        }
    }

    /// Interrupts the run, and checks that it ends as one that has touched nothing.
    fn interrupt(&self, fleet: &Fleet) {
        let before = fleet.text();
        kill(self.pid, Signal::SIGINT).unwrap();
        let mut report = Value::Null;
        until("it has reported", || {
            report =
                serde_json::from_slice(&std::fs::read(&self.report).unwrap()).unwrap_or_default();
            !report.is_null()
        });
        assert_eq!(report["exit"], 1, "{report:#}");
        assert_eq!(report["reason"], "interrupted by the operator");
        assert_eq!(fleet.text(), before);
        assert_eq!(fleet.attempts(), [1], "no signal was sent");
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn an_interrupt_is_seen_before_the_next_sync_of_a_run_that_begins() {
    if !can_trace() {
        return;
    }
    let fleet = Fleet::start(1);
    let runs = fleet.path("state/runs");
    let log = log(fleet.dir.path());
    let delays = "inject=fsync,fdatasync:delay_enter=1000000";
    let run = SlowRun::start(&fleet, &log, &["-e", "trace=fsync,fdatasync", "-e", delays]);
    until("the files of the run are to be synced", || {
        names(&runs)
            .iter()
            .any(|run| runs.join(run).join("events.jsonl").exists())
    });
    run.interrupt(&fleet);
    assert!(names(&runs).is_empty(), "the run has not begun");
    assert!(names(&fleet.path("state/open")).is_empty());
    // A run that goes on syncs more files and folders there.
    let log = std::fs::read_to_string(log).unwrap();
    let synced = log
        .lines()
        .filter(|line| line.contains("sync(") && line.contains("/state/runs/"));
    assert!(synced.count() <= 3, "{log}");
}

#[test]
fn an_interrupt_ends_the_survey_while_a_filesystem_does_not_answer() {
    if !can_trace() {
        return;
    }
    let fleet = Fleet::start(1);
    let target = fleet.path("web.toml").canonicalize().unwrap();
    let log = log(fleet.dir.path());
    let delays = "inject=read:delay_enter=600000000";
    let path = target.to_str().unwrap();
    let run = SlowRun::start(
        &fleet,
        &log,
        &["-P", path, "-e", "trace=read", "-e", delays],
    );
    let descriptors = Path::new("/proc").join(run.pid.to_string()).join("fd");
    until("it reads the target", || {
        let mut links = names(&descriptors)
            .into_iter()
            .map(|fd| descriptors.join(fd));
        links.any(|fd| std::fs::read_link(fd).is_ok_and(|link| link == target))
    });
    run.interrupt(&fleet);
}
