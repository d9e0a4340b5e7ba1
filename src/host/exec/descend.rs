//! Ends every process that descends from this one, also those that left its process group or
//! session.

use std::time::{Duration, Instant};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, kill_process, set_child_subreaper, wait},
};

use crate::host::proc::kernel::Proc;

/// How long children that fork again and again are chased without a pause: each of them lives for
/// less than a millisecond.
const CHASE: Duration = Duration::from_millis(100);

/// Makes this process the parent of whatever its descendants leave behind.
///
/// # Errors
/// The system's.
pub(super) fn adopt() -> std::io::Result<()> {
    Ok(set_child_subreaper(Pid::from_raw(1))?)
}

/// Kills all children of this process, and those that it inherits from them, until none is left;
/// whether that was done within `limit`. Only children are signalled: the number of a child is not
/// given to another process before it is waited for.
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
            late if late >= limit => return false,
            soon if soon < CHASE => std::thread::yield_now(),
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// The children of this process, by their numbers in its own PID namespace.
fn children() -> Vec<Pid> {
    let text = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    let mut seen: Vec<i32> = text
        .split_ascii_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect();
    if text.is_empty() {
        // A kernel without such a list.
        let me = std::fs::read_link("/proc/self")
            .ok()
            .and_then(|pid| pid.to_str()?.parse::<i32>().ok());
        seen = crate::host::proc::kernel::pids()
            .unwrap_or_default()
            .into_iter()
            .filter(|pid| {
                crate::host::proc::kernel::Stat::of(*pid).is_ok_and(|stat| Some(stat.parent) == me)
            })
            .collect();
    }
    // `/proc` may be that of another PID namespace than this process is in, and then its numbers
    // are others.
    let depth = numbers("self").map_or(1, |numbers| numbers.len());
    let own = |pid: i32| {
        if depth <= 1 {
            Some(pid)
        } else {
            numbers(&pid.to_string())?.get(depth - 1).copied()
        }
    };
    seen.into_iter()
        .filter_map(own)
        .filter_map(Pid::from_raw)
        .collect()
}

fn numbers(pid: &str) -> Option<Vec<i32>> {
    let pid = if pid == "self" {
        std::fs::read_link("/proc/self")
            .ok()?
            .to_str()?
            .parse()
            .ok()?
    } else {
        pid.parse().ok()?
    };
    Proc::open(pid)
        .ok()?
        .status()
        .ok()
        .map(|(_, _, numbers)| numbers)
}
