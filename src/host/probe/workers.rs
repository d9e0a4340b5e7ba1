//! What the kernel knows of the processes that work for another one: who they are, and which of
//! them hold a listening socket.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use procfs::process::Process;

use crate::{
    fact::{KEPT, worker_name},
    host::{
        net::sockets::{Listeners, sockets_of},
        proc::{
            guard::age,
            tree::{Child, children, lives},
        },
    },
};

/// A worker that has lived this long has not ended at its birth; one that still lives so long after
/// its last listening is not just ending.
pub(crate) const SETTLED: Duration = Duration::from_millis(100);

/// The children of `pid`, one a line: `PID:STARTED`, and ` listens` behind who holds a listening
/// socket. With a reading from `before`, whoever stands in that and still lives has a line, whoever
/// its parent is by now, and a new child has one once it has lived for a moment. `look` asks the
/// kernel who listens.
///
/// # Errors
/// A sentence when this host does not see who listens.
pub(crate) fn workers(
    pid: i32,
    before: Option<&str>,
    look: impl FnOnce() -> Result<Arc<Listeners>, String>,
) -> Result<String, String> {
    let old: Vec<Child> = before
        .unwrap_or_default()
        .lines()
        .filter_map(named)
        .collect();
    let mut held = Vec::new();
    let now = children(pid).map_err(|e| format!("its children: {e}"))?;
    for child in now
        .into_iter()
        .chain(old.iter().map(|(pid, _)| *pid))
        .collect::<BTreeSet<_>>()
    {
        // One that could not be looked at must not count as one that has ended.
        let Some(stat) = lives(child).map_err(|e| format!("pid {child}: {e}"))? else {
            continue;
        };
        let is_old = old.contains(&(child, stat.started));
        // A new one that ends at once has proven nothing.
        let is_new = stat.parent == pid
            && (before.is_none()
                || Process::new(child)
                    .ok()
                    .and_then(|p| age(&p))
                    .is_some_and(|age| age >= SETTLED));
        if !is_old && !is_new {
            continue;
        }
        match sockets_of(child) {
            Ok(sockets) => held.push((format!("{child}:{}", stat.started), sockets)),
            Err(_) if lives(child).is_ok_and(|stat| stat.is_none()) => {}
            Err(why) => return Err(format!("pid {child}: {why}")),
        }
    }
    // Only now: a socket that was opened before its holder was looked at is in the tables.
    let listeners = look()?;
    let line = |(name, sockets): (String, Vec<u64>)| {
        if sockets.iter().any(|s| listeners.listens(*s)) {
            format!("{name} listens")
        } else {
            name
        }
    };
    Ok(held.into_iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// The listening sockets that `pid` itself holds, by inode, one a line.
///
/// # Errors
/// As [`workers`].
pub(crate) fn listener(
    pid: i32,
    look: impl FnOnce() -> Result<Arc<Listeners>, String>,
) -> Result<String, String> {
    let held: BTreeSet<u64> = sockets_of(pid)?.into_iter().collect();
    let listeners = look()?;
    Ok(held
        .into_iter()
        .filter(|socket| listeners.listens(*socket))
        .map(|socket| format!("{socket} listens"))
        .collect::<Vec<_>>()
        .join("\n"))
}

/// Those of `before` that listened and do so no more, though they live: they end once their last
/// connection does.
pub(crate) fn draining(before: &str, now: &str) -> Vec<Child> {
    let listened = |line: &&str| {
        before
            .lines()
            .any(|old| old.strip_suffix(" listens") == Some(line))
    };
    now.lines().filter(listened).filter_map(named).collect()
}

/// The reading `now`, with those marked that stood in the reading `first` already.
pub(crate) fn kept(first: &str, now: &str) -> String {
    let mark = |line: &str| {
        let old = first
            .lines()
            .any(|old| worker_name(old) == worker_name(line));
        if old {
            line.replacen(
                worker_name(line),
                &format!("{}{KEPT}", worker_name(line)),
                1,
            )
        } else {
            line.to_owned()
        }
    };
    now.lines().map(mark).collect::<Vec<_>>().join("\n")
}

/// An old worker that may stay, but listens on a socket that nobody new holds: whoever is led to
/// that is answered by it alone.
pub(crate) fn apart(before: &str, now: &str, listeners: &Listeners) -> Option<i32> {
    let sockets = |line: &str| -> BTreeSet<u64> {
        let held = named(line)
            .and_then(|(pid, _)| sockets_of(pid).ok())
            .unwrap_or_default();
        held.into_iter()
            .filter(|inode| listeners.listens(*inode))
            .collect()
    };
    let old = |line: &&str| {
        before
            .lines()
            .any(|old| worker_name(old) == worker_name(line) && old.contains(KEPT))
    };
    let mut may_stay = now
        .lines()
        .filter(|line| line.ends_with(" listens"))
        .filter(old)
        .peekable();
    may_stay.peek()?;
    let shared: BTreeSet<u64> = now
        .lines()
        .filter(|line| !old(line))
        .flat_map(sockets)
        .collect();
    may_stay
        .find(|line| !sockets(line).is_subset(&shared))
        .and_then(named)
        .map(|(pid, _)| pid)
}

/// Those that still live a moment later: one that was just ending is worth no name.
pub(crate) async fn lasting(draining: Vec<Child>) -> Vec<i32> {
    if !draining.is_empty() {
        tokio::time::sleep(SETTLED).await;
    }
    draining
        .into_iter()
        .filter(|(pid, started)| {
            lives(*pid).is_ok_and(|stat| stat.is_some_and(|stat| stat.started == *started))
        })
        .map(|(pid, _)| pid)
        .collect()
}

fn named(line: &str) -> Option<Child> {
    let (pid, started) = line.split(' ').next()?.split_once(':')?;
    Some((pid.parse().ok()?, started.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn who_listened_and_does_no_more_is_draining() {
        let before = "1:5 listens\n2:6 listens\n3:7";
        assert_eq!(draining(before, "1:5\n3:7\n4:9 listens"), [(1, 5)]);
        assert!(
            draining(before, "1:8\n2:6 listens").is_empty(),
            "a pid that is another process by now is not the old worker"
        );
    }

    #[tokio::test]
    async fn only_who_lives_on_is_named() {
        let me = i32::try_from(std::process::id()).unwrap();
        let started = lives(me).unwrap().unwrap().started;
        assert_eq!(lasting(vec![(me, started), (me, started + 1)]).await, [me]);
    }

    #[test]
    fn who_was_there_from_the_first_is_marked() {
        assert_eq!(
            kept("1:5 listens\n2:6", "1:5 listens\n2:6\n12:5 listens"),
            "1:5 kept listens\n2:6 kept\n12:5 listens"
        );
    }

    #[test]
    fn children_of_every_thread_and_theirs_are_found_and_ended_ones_have_no_line() {
        let me = i32::try_from(std::process::id()).unwrap();
        let spawn = |script: &str| {
            std::process::Command::new("sh")
                .args(["-c", script])
                .stdin(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        };
        let mut child = std::thread::spawn(move || spawn("sleep 60 & read _; kill $!; wait"))
            .join()
            .unwrap();
        let mut ended = spawn("exit 0");
        let (pid, zombie) = (
            i32::try_from(child.id()).unwrap(),
            i32::try_from(ended.id()).unwrap(),
        );
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while lives(zombie).unwrap().is_some() || children(pid).unwrap().len() != 1 {
            assert!(
                std::time::Instant::now() < deadline,
                "its child is there, and the other has ended"
            );
            std::thread::yield_now();
        }
        let all = crate::host::proc::tree::family(me);
        assert!(
            children(me).unwrap().is_superset(&[pid, zombie].into())
                && children(pid)
                    .unwrap()
                    .iter()
                    .all(|grandchild| all.contains(grandchild)),
            "{all:?}"
        );
        let look = || Listeners::read().map(Arc::new).map_err(|e| e.to_string());
        let said = workers(me, None, look).unwrap();
        let of = |pid: i32| {
            said.lines()
                .any(|line| line.starts_with(&format!("{pid}:")))
        };
        assert!(of(pid) && !of(zombie), "{said}");
        drop(child.stdin.take());
        child.wait().unwrap();
        ended.wait().unwrap();
    }
}
