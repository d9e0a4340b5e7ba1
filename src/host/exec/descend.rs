//! Ends every descendant of this process, including those that left its process group or session.

use std::{
    io,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, kill_process, set_child_subreaper, wait},
};

use crate::kernel::{self, Proc, Stat};

/// The time in which children are killed without a pause. A child that forks again and again lives
/// for less than a millisecond, so a pause would miss it.
const WITHOUT_PAUSE: Duration = Duration::from_millis(100);

/// Makes this process the parent of orphaned descendants (PR_SET_CHILD_SUBREAPER, prctl(2)).
///
/// # Errors
/// Fails if the kernel does not allow it.
pub(super) fn adopt() -> io::Result<()> {
    Ok(set_child_subreaper(Pid::from_raw(1))?)
}

/// Kills all children of this process, and the orphans that it inherits, until none is left.
/// Returns whether that was done within `limit`.
///
/// Only children are signalled, because the kernel does not reuse the pid of a child before it is
/// waited for.
pub(super) fn end_all(limit: Duration) -> bool {
    let began = Instant::now();
    loop {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => break,
                Err(_) => return true,
            }
        }
        for child in children() {
            let _ = kill_process(child, Signal::KILL);
        }
        match began.elapsed() {
            elapsed if elapsed >= limit => return false,
            elapsed if elapsed < WITHOUT_PAUSE => std::thread::yield_now(),
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Returns the pids of the children in the PID namespace of this process.
fn children() -> Vec<Pid> {
    let text = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    let mut pids: Vec<i32> = text
        .split_ascii_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect();
    if text.is_empty() {
        // A kernel without CONFIG_PROC_CHILDREN has no such file (proc(5)).
        let own = Proc::own().and_then(|own| own.stat()).map(|stat| stat.pid);
        pids = kernel::pids()
            .unwrap_or_default()
            .into_iter()
            .filter(|pid| {
                Stat::of(*pid).is_ok_and(|stat| own.as_ref().is_ok_and(|own| stat.parent == *own))
            })
            .collect();
    }
    // `/proc` may belong to an outer PID namespace, in which the pids differ.
    let depth = Proc::own()
        .and_then(nested_pids)
        .map_or(1, |pids| pids.len());
    let inner = |pid: i32| {
        if depth <= 1 {
            Some(pid)
        } else {
            let nested = Proc::open(pid).and_then(nested_pids).ok()?;
            nested.get(depth - 1).copied()
        }
    };
    pids.into_iter()
        .filter_map(inner)
        .filter_map(Pid::from_raw)
        .collect()
}

/// Returns the pids of a process in each nested PID namespace, the outermost first.
fn nested_pids(process: Proc) -> io::Result<Vec<i32>> {
    process.status().map(|(_, _, pids)| pids)
}
