//! The children of an instance by their name.

use std::collections::BTreeSet;

use crate::{
    host::{
        probe::{
            answer::KernelError,
            workers::{is_settled, parsed},
        },
        proc::tree::{Child, children, lives},
    },
    kernel::Proc,
};

/// The longest name that the kernel keeps of a program, in bytes (proc_pid_comm(5)).
const MAX_COMM: usize = 15;

/// Returns the children of `pid` with this name, one a line: `PID:STARTED`. With a reading from
/// `before`, each process of that reading which still lives has a line, and a new child has one
/// once it has lived for a moment.
///
/// # Errors
/// Fails if the kernel does not tell.
pub(super) fn children_named(
    pid: i32,
    name: &str,
    before: Option<&str>,
) -> Result<String, KernelError> {
    let old: Vec<Child> = before
        .unwrap_or_default()
        .lines()
        .filter_map(parsed)
        .collect();
    let now = children(pid).map_err(KernelError::Children)?;
    let old_pids = old.iter().map(|(pid, _)| *pid);
    let mut lines = Vec::new();
    for child in now.into_iter().chain(old_pids).collect::<BTreeSet<_>>() {
        // A process that cannot be read must not count as one that has ended.
        let Some(stat) = lives(child).map_err(|e| KernelError::Process(child, e))? else {
            continue;
        };
        let is_old = old.contains(&(child, stat.started));
        let is_new = || stat.parent == pid && (before.is_none() || is_settled(child));
        if is_old || (is_new() && is_called(child, name)) {
            lines.push(format!("{child}:{}", stat.started));
        }
    }
    Ok(lines.join("\n"))
}

/// Tells whether a process has this name: that of its program as the kernel keeps it, or that of
/// its executable.
pub(super) fn is_called(pid: i32, name: &str) -> bool {
    let Ok(process) = Proc::open(pid) else {
        return false;
    };
    let comm = process.read("comm").unwrap_or_default();
    let comm = comm.strip_suffix(b"\n").unwrap_or(&comm);
    let cut = name.as_bytes().get(..MAX_COMM).unwrap_or(name.as_bytes());
    let exe = || {
        let exe = process.link("exe").ok()?;
        Some(crate::kernel::strip_deleted(&exe).file_name()?.to_owned())
    };
    comm == cut || exe().is_some_and(|exe| exe.as_encoded_bytes() == name.as_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn only_children_of_the_name_are_read_and_an_ended_one_has_no_line() {
        let me = i32::try_from(std::process::id()).unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let line = || {
            let reading = children_named(me, "sleep", None).unwrap();
            let found = reading
                .lines()
                .find(|line| line.starts_with(&format!("{pid}:")));
            found.map(str::to_owned)
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while line().is_none() {
            assert!(Instant::now() < deadline, "it executes its program");
            std::thread::yield_now();
        }
        let before = line().unwrap();
        let others = children_named(me, "no-such-program", None).unwrap();
        assert_eq!(others, "");
        child.kill().unwrap();
        child.wait().unwrap();
        let now = children_named(me, "sleep", Some(&before)).unwrap();
        assert!(!now.contains(&before), "{now}");
    }
}
