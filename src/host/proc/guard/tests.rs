#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use nix::sys::signal::SigSet;

use super::*;
use crate::fleet::Fleet;

#[tokio::test(start_paused = true)]
async fn a_process_that_blocks_the_signal_gets_the_time_of_a_load() {
    let hup = SigSet::from(nix::sys::signal::Signal::SIGHUP);
    let sleep = || {
        std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap()
    };
    // A child inherits the blocked signals of the thread that starts it.
    hup.thread_block().unwrap();
    let loads = sleep();
    hup.thread_unblock().unwrap();
    let group = Fleet::of_kind("haproxy").unwrap().groups.remove(0);
    for (mut child, least, most) in [
        (loads, LOADING, LOADING + REEXEC),
        (sleep(), Duration::ZERO, REEXEC),
    ] {
        let pid = i32::try_from(child.id()).unwrap();
        let began = Instant::now();
        let result = wait_for_handler(pid, &group, Duration::ZERO).await;
        let grace_period = handler_grace_period(pid, group.timeout);
        child.kill().unwrap();
        child.wait().unwrap();
        let waited = began.elapsed();
        let after_end = wait_for_handler(pid, &group, group.timeout).await;
        assert!(after_end.is_err(), "a process that ended has no handler");
        assert_eq!(
            began.elapsed(),
            waited,
            "nothing waits for an ended process"
        );
        assert!(result.is_err(), "{result:?}");
        assert!(waited >= least && waited <= most, "{waited:?}");
        assert!(
            grace_period > REEXEC && grace_period <= YOUNG,
            "{grace_period:?}"
        );
    }
}

#[test]
fn a_process_that_has_ended_is_not_stopped_and_has_no_pending_signal() {
    assert!(!is_stopped(i32::MAX).unwrap() && !may_be_pending(i32::MAX, Signal::Hup));
}
