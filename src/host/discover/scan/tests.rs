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
