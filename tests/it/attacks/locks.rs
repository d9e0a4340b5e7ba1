//! A lock of a user without write access never blocks a run, even if it is handed on.

use std::{os::unix::fs::PermissionsExt, path::Path};

use super::ground::{Ground, race, tries};
use crate::{locks::sees_all, support::until};

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_lock_passed_from_process_to_process_does_not_block_a_run() {
    let Some(mut ground) = Ground::new() else {
        return;
    };
    // A process that cannot be inspected may hold the lock, so it blocks the run with a reason.
    let is_whole = sees_all();
    let conf = ground.fleet.path("conf");
    std::fs::create_dir(&conf).unwrap();
    ground.fleet.write(
        "conf/web.toml",
        "message = \"one\"\nlisten = \"127.0.0.1:0\"\n",
    );
    ground.fleet.serve_from("conf/web.toml");
    let lock = ground.attack("lock", &[&conf]);
    until("it is handed on", || lock.count() > 100);
    let (mut handed, mut foreign, mut last) = (0, 0, String::new());
    race(tries(30), |at| {
        let before = lock.count();
        let result = match at % 3 {
            2 if !last.is_empty() => ground.fleet.continue_run("revert", &[&last]),
            _ => ground.broadcast(&["--set", &format!("message=x{at}")]),
        };
        let is_unknown = !is_whole
            && result.code == 9
            && result.stderr.contains("no visible process has it open");
        assert!(
            result.code == 0 || is_unknown,
            "try {at}: {} {}",
            result.code,
            result.stderr
        );
        if result.code == 0 {
            result.json["run"]
                .as_str()
                .unwrap_or_default()
                .clone_into(&mut last);
        }
        handed += lock.count() - before;
        foreign += usize::from(result.stderr.contains("Foreign lock"));
        assert!(
            !is_whole
                || !ground
                    .fleet
                    .doctor(&[])
                    .json
                    .to_string()
                    .contains("holds the lock"),
            "try {at}"
        );
        handed > 0 && foreign > 0
    });
    println!("handed on {handed} times within the runs; named by {foreign} of them");
    assert!(handed > 0, "the race was not run");
    assert!(foreign > 0, "the race was not run");
}

#[test]
fn a_lock_beside_the_target_does_not_block_a_run() {
    let Some(mut ground) = Ground::new() else {
        return;
    };
    let conf = ground.fleet.path("conf");
    std::fs::create_dir(&conf).unwrap();
    ground.fleet.write(
        "conf/web.toml",
        "message = \"one\"\nlisten = \"127.0.0.1:0\"\n",
    );
    ground.fleet.serve_from("conf/web.toml");
    // Other users may read the state directory, as far as its own mode allows.
    ground.broadcast(&["--set", "message=zero"]).expect(0);
    mode(&ground.fleet.path("state"), 0o755);
    // The directory of the locks cannot be entered. Its parent can be locked.
    let (run, all) = (Path::new("/run/hello"), ground.fleet.dir.path());
    assert_eq!(
        run.join("lock").metadata().unwrap().permissions().mode() & 0o777,
        0o700
    );
    let flocks = [
        ground.attack("flocks", &[run, all]),
        ground.attack("flocks", &[all, run]),
        ground.attack("flocks", &[&conf]),
    ];
    until("each has locked something", || {
        flocks.iter().all(|attacker| attacker.count() > 0)
    });
    let (mut locked, mut last) = (0, String::new());
    race(tries(15), |at| {
        let before: u64 = flocks.iter().map(super::ground::Attacker::count).sum();
        let result = match at % 3 {
            2 => ground.fleet.continue_run("revert", &[&last]),
            _ => ground.broadcast(&["--set", &format!("message=x{at}")]),
        };
        assert_eq!(result.code, 0, "try {at}: {}", result.stderr);
        last = result.json["run"].as_str().unwrap_or_default().to_owned();
        locked += flocks
            .iter()
            .map(super::ground::Attacker::count)
            .sum::<u64>()
            - before;
        locked > 0
    });
    println!("{locked} locks were taken within the runs");
    assert!(locked > 0, "the race was not run");
}
