#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use nix::sys::signal::SigSet;

use super::*;
use crate::fleet::Fleet;

#[tokio::test(start_paused = true)]
async fn one_that_blocks_the_signal_has_the_time_of_a_load_and_a_young_one_that_of_a_start() {
    let hup = SigSet::from(nix::sys::signal::Signal::SIGHUP);
    let sleep = || {
        std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap()
    };
    // A child inherits what its parent's thread blocks.
    hup.thread_block().unwrap();
    let loads = sleep();
    hup.thread_unblock().unwrap();
    let group = Fleet::of_kind("haproxy").unwrap().groups.remove(0);
    for (mut child, least, most) in [
        (loads, LOADING, LOADING + REEXEC),
        (sleep(), Duration::ZERO, REEXEC),
    ] {
        let (pid, began) = (i32::try_from(child.id()).unwrap(), Instant::now());
        let said = wait_for_handler(pid, &group, Duration::ZERO).await;
        let patience = handler_grace_period(pid, group.timeout);
        child.kill().unwrap();
        child.wait().unwrap();
        let (late, ended) = (
            began.elapsed(),
            wait_for_handler(pid, &group, group.timeout).await,
        );
        assert!(
            ended.is_err() && began.elapsed() == late,
            "nobody waits for one that ended"
        );
        assert!(
            said.is_err() && late >= least && late <= most,
            "{said:?} after {late:?}"
        );
        assert!(patience > REEXEC && patience <= YOUNG, "{patience:?}");
    }
}

#[test]
fn mount_points_are_read_whatever_signs_are_in_them() {
    let point = |field: &str| {
        mount_point(
            format!("36 35 98:0 /mnt1 {field} rw,noatime master:1 - ext3 /dev/root rw").as_bytes(),
        )
    };
    for (field, path) in [
        ("/a", "/a"),
        ("/a\\040b\\134", "/a b\\"),
        ("/a\\", "/a\\"),
        ("/a\\04", "/a\\04"),
    ] {
        assert_eq!(point(field), Some(path.into()));
    }
    assert_eq!(mount_point(b""), None);
}
