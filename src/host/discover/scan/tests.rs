#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use super::*;
use crate::fleet::Fleet;

#[tokio::test]
async fn one_that_ended_after_the_scan_is_no_match_and_no_fault() {
    let mut gone = std::process::Command::new("sleep")
        .arg("60")
        .spawn()
        .unwrap();
    let mut there = std::process::Command::new("sleep")
        .arg("60")
        .spawn()
        .unwrap();
    let scan = Scan::take().unwrap();
    gone.kill().unwrap();
    gone.wait().unwrap();
    let mut group = Fleet::of_kind("hello").unwrap().groups.remove(0);
    group.matching = Match {
        exe: vec![glob::Pattern::new("sleep").unwrap()],
        ..Match::default()
    };
    let finds = scan.find(&group).await;
    let (gone, alive) = (
        i32::try_from(gone.id()).unwrap(),
        i32::try_from(there.id()).unwrap(),
    );
    there.kill().unwrap();
    there.wait().unwrap();
    assert!(
        finds.found.iter().any(|f| f.pid == alive) && finds.missing.is_empty(),
        "{finds:?}"
    );
    assert!(
        !finds.found.iter().any(|f| f.pid == gone)
            && !finds.left_out.iter().any(|(pid, _)| *pid == gone),
        "{finds:?}"
    );
}

#[test]
fn nothing_without_a_program_is_scanned() {
    let mut zombie = std::process::Command::new("true").spawn().unwrap();
    let pid = i32::try_from(zombie.id()).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !matches!(inspect(pid), Err(InspectError::NoProgram)) {
        assert!(std::time::Instant::now() < deadline, "it ends");
        std::thread::yield_now();
    }
    let scan = Scan::take().unwrap();
    let me = i32::try_from(std::process::id()).unwrap();
    assert!(scan.all.len() > 1 && !scan.all.iter().any(|e| e.pid == pid || e.pid == me));
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|t| {
        t.unwrap()
            .file_name()
            .to_str()
            .unwrap()
            .parse::<i32>()
            .unwrap()
    });
    assert!(
        !tasks
            .into_iter()
            .any(|tid| scan.all.iter().any(|e| e.pid == tid))
    );
    zombie.wait().unwrap();
}
