#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::{
    process::{Child, Command},
    time::{Duration, Instant},
};

use super::*;
use crate::fleet::{Fleet, Match};
use crate::host::discover::inspect::inspect;

fn sleep() -> (Child, i32) {
    let child = Command::new("sleep").arg("60").spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    // It has the new executable a moment before it has its arguments.
    let deadline = Instant::now() + Duration::from_secs(30);
    while !inspect(pid).is_ok_and(|process| process.line.args == ["60"]) {
        assert!(Instant::now() < deadline, "it has its arguments");
        std::thread::yield_now();
    }
    (child, pid)
}

fn end(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn a_process_that_ended_after_the_scan_is_no_match_and_no_failure() {
    let (mut ended, gone) = sleep();
    let (mut living, alive) = sleep();
    let scan = Scan::take().unwrap();
    end(&mut ended);
    let mut group = Fleet::of_kind("hello").unwrap().groups.remove(0);
    group.matching = Match {
        exe: vec![glob::Pattern::new("sleep").unwrap()],
        ..Match::default()
    };
    let finds = scan.find(&group).await;
    end(&mut living);
    let found: Vec<i32> = finds.found.iter().map(|found| found.pid).collect();
    assert!(found.contains(&alive), "{finds:?}");
    assert!(!found.contains(&gone), "{finds:?}");
    assert!(finds.missing.is_empty(), "{finds:?}");
    assert!(
        !finds.skipped.iter().any(|(pid, _)| *pid == gone),
        "{finds:?}"
    );
}

#[test]
fn only_processes_that_run_a_program_are_in_the_scan() {
    let mut zombie = Command::new("true").spawn().unwrap();
    let pid = i32::try_from(zombie.id()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !matches!(inspect(pid), Err(InspectError::NoProgram)) {
        assert!(Instant::now() < deadline, "it ends");
        std::thread::yield_now();
    }
    let scan = Scan::take().unwrap();
    let own = i32::try_from(std::process::id()).unwrap();
    let pids: Vec<i32> = scan.entries.iter().map(|entry| entry.pid).collect();
    assert!(pids.len() > 1 && pids.is_sorted(), "{pids:?}");
    assert!(!pids.contains(&pid), "a zombie runs no program");
    assert!(!pids.contains(&own), "this process is not found");
    let threads = crate::kernel::threads(own).unwrap();
    assert!(!threads.iter().any(|tid| pids.contains(tid)));
    zombie.wait().unwrap();
}

#[test]
fn a_process_without_a_row_is_read_exactly() {
    let (mut child, pid) = sleep();
    let own = i32::try_from(std::process::id()).unwrap();
    let entries = super::entries::entries_of(&[pid, i32::MAX], Vec::new());
    end(&mut child);
    let [entry] = entries.as_slice() else {
        panic!("one of these processes exists: {entries:?}");
    };
    assert_eq!((entry.pid, entry.parent), (pid, Some(own)));
    assert!(entry.exe.is_some());
}

/// Returns a group of processes `sleep` with this argument.
fn sleepers(arg: &str) -> Group {
    let mut group = Fleet::of_kind("hello").unwrap().groups.remove(0);
    group.matching = Match {
        exe: vec![glob::Pattern::new("sleep").unwrap()],
        args: vec![vec![glob::Pattern::new(arg).unwrap()]],
        ..Match::default()
    };
    group
}

#[tokio::test]
async fn a_process_with_other_arguments_is_no_match_and_is_named_as_one_of_the_same_program() {
    let (mut child, pid) = sleep();
    let scan = Scan::of(&[pid]);
    let (same, other) = (
        scan.find(&sleepers("60")).await,
        scan.find(&sleepers("61")).await,
    );
    end(&mut child);
    let found: Vec<i32> = same.found.iter().map(|found| found.pid).collect();
    assert_eq!(found, [pid], "{same:?}");
    assert!(other.found.is_empty(), "{other:?}");
    let skipped: Vec<(i32, String)> = other
        .skipped
        .iter()
        .map(|(pid, why)| (*pid, why.to_string()))
        .collect();
    assert_eq!(skipped.len(), 1, "{skipped:?}");
    assert!(skipped[0].1.contains("`61`"), "{skipped:?}");
}

#[test]
fn a_process_may_match_by_its_own_arguments_alone() {
    let (mut child, pid) = sleep();
    let scan = Scan::of(&[pid]);
    let (same, other) = (
        scan.may_match(&sleepers("60"), pid),
        scan.may_match(&sleepers("61"), pid),
    );
    let mut named = sleepers("61");
    named.matching.pid_file = Some("/run/x.pid".into());
    let named = scan.may_match(&named, pid);
    end(&mut child);
    assert!(same);
    assert!(!other);
    assert!(named, "a pid file may name it a moment later");
    assert!(!scan.may_match(&sleepers("60"), pid), "it has ended");
}
