//! Whether a process waits for a signal in `sigwait`, which its masks do not show. The kernel shows
//! the system call that each thread is in, with its arguments, to root and to the user of the
//! process.

use std::{fs::File, os::unix::fs::FileExt};

use nix::libc::SYS_rt_sigtimedwait;

use crate::fleet::Signal;
use crate::kernel::{Status, bit, read_proc_file, threads};

/// Tells whether a thread of `pid` waits for `signal` in `sigwait`, and every other thread blocks
/// it. A thread that does not block it would end the process.
#[must_use]
pub(crate) fn waits(pid: i32, signal: Signal) -> bool {
    let Ok(tids) = threads(pid) else {
        return false;
    };
    let mut found = false;
    for tid in tids {
        // While a thread waits, the kernel shows the signal as not blocked (`do_sigtimedwait` in
        // kernel/signal.c).
        if waited_for(pid, tid).is_some_and(|set| set & bit(signal) != 0) {
            found = true;
        } else if !Status::of(tid).is_ok_and(|status| status.blocks(signal)) {
            return false;
        }
    }
    found
}

/// The signals that a thread waits for in `sigwait`; none if it is in another call, or if this user
/// may not see that.
fn waited_for(pid: i32, tid: i32) -> Option<u64> {
    let text = read_proc_file(File::open(format!("/proc/{pid}/task/{tid}/syscall")).ok()?).ok()?;
    let set = address(std::str::from_utf8(&text).ok()?)?;
    let mut bits = [0; 8];
    // All threads share the memory of the process.
    File::open(format!("/proc/{pid}/mem"))
        .ok()?
        .read_exact_at(&mut bits, set)
        .ok()?;
    Some(u64::from_ne_bytes(bits))
}

/// The address of the set of signals, from a line of `/proc/PID/task/TID/syscall`: the number of
/// the call and its arguments.
fn address(line: &str) -> Option<u64> {
    let mut words = line.split_ascii_whitespace();
    let call: i64 = words.next()?.parse().ok()?;
    let set = words.next()?.strip_prefix("0x")?;
    (call == SYS_rt_sigtimedwait).then(|| u64::from_str_radix(set, 16).ok())?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn only_the_call_of_sigwait_has_a_set() {
        let line = format!(
            "{SYS_rt_sigtimedwait} 0x7ffd1000 0x0 0x0 0x8 0x0 0x0 0x7ffd0ff0 0x7f0000001000\n"
        );
        assert_eq!(address(&line), Some(0x7ffd_1000));
        for other in [
            "running\n",
            "0 0x1000 0x0\n",
            "-1 0x7ffd 0x7f00\n",
            "",
            "x y",
        ] {
            assert_eq!(address(other), None, "{other}");
        }
    }
}
