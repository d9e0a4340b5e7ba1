//! The pid and the start time by which a process in its own PID or time namespace reports itself.
//! Both differ from what this host shows.

use crate::{host::proc::guard::tick_ns, kernel::Proc};

/// Tells whether the process of this pid and start time can report itself as `claimed`, a pid and a
/// start time.
#[must_use]
pub(crate) fn is_its_name(pid: i32, started: u64, claimed: (i32, u64)) -> bool {
    if claimed == (pid, started) {
        return true;
    }
    names(pid, started)
        .is_some_and(|(pids, started)| pids.contains(&claimed.0) && started.contains(&claimed.1))
}

/// The pid of a process in each PID namespace that it is in, and its start time here and by its own
/// clock. None if it is another process by now, or in the PID namespace of this program.
fn names(pid: i32, started: u64) -> Option<(Vec<i32>, [u64; 2])> {
    let process = Proc::open(pid).ok()?;
    let (_, _, pids) = process.status().ok()?;
    let stat = process.stat().ok()?;
    if pids.len() < 2 || stat.started != started || !stat.lives() {
        return None;
    }
    let other = process.read("timens_offsets").ok();
    let own = Proc::own().and_then(|own| own.read("timens_offsets")).ok();
    // A kernel without time namespaces has no such file.
    let shift = match (
        other.as_deref().and_then(boottime),
        own.as_deref().and_then(boottime),
    ) {
        (Some(other), Some(own)) => other - own,
        _ => 0,
    };
    let nanos = i128::from(started) * tick_ns() + shift;
    let ticks = u64::try_from(nanos / tick_ns()).unwrap_or(started);
    Some((pids, [started, ticks]))
}

/// The offset of the clock since boot in nanoseconds, from a `timens_offsets`
/// (time_namespaces(7)).
fn boottime(text: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(text).ok()?;
    let mut words = text
        .lines()
        .find_map(|line| line.strip_prefix("boottime"))?
        .split_ascii_whitespace();
    let seconds: i128 = words.next()?.parse().ok()?;
    let nanos: i128 = words.next()?.parse().ok()?;
    Some(seconds * 1_000_000_000 + nanos)
}

/// Parses a pid and a start time as an answer reports them: `pid:ticks`.
#[must_use]
pub(crate) fn parsed(name: &str) -> Option<(i32, u64)> {
    let (pid, started) = name.split_once(':')?;
    Some((pid.parse().ok()?, started.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;
    use crate::kernel::Stat;

    #[test]
    fn in_the_namespace_of_this_host_a_process_has_one_name() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let started = Stat::of(pid).unwrap().started;
        assert!(is_its_name(pid, started, (pid, started)));
        assert!(
            !is_its_name(pid, started, (1, started))
                && !is_its_name(pid, started, (pid, started + 1))
        );
    }

    #[test]
    fn offsets_and_reported_identities_are_parsed() {
        let text = b"monotonic           0         0\nboottime      -86400  500000000\n";
        assert_eq!(boottime(text), Some(-86_399_500_000_000));
        assert_eq!(
            (boottime(b""), parsed("7:12"), parsed("7"), parsed("a:1")),
            (None, Some((7, 12)), None, None)
        );
    }
}
