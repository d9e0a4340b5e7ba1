//! The workers of an instance, as the kernel knows them: which processes they are, and which of
//! them hold a listening socket.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use crate::{
    assertion::{KEPT, LISTENS, is_kept, listens, worker_name},
    host::{
        net::sockets::{Listeners, sockets_of},
        probe::answer::KernelError,
        proc::{
            guard::age,
            tree::{Child, children, lives},
        },
    },
};

/// The age from which a new worker counts: a younger one may be about to end. A worker that still
/// lives this long after its last listening is not just ending.
pub(crate) const SETTLED: Duration = Duration::from_millis(100);

/// Returns the children of `pid`, one a line: `PID:STARTED`, and ` listens` behind a child that
/// holds a listening socket. With a reading from `before`, each process of that reading which still
/// lives has a line, even if its parent is another process now. A new child then has a line once it
/// is as old as [`SETTLED`]. `read_listeners` reads the socket tables.
///
/// # Errors
/// Fails if the kernel does not tell which sockets the children hold.
pub(crate) fn workers(
    pid: i32,
    before: Option<&str>,
    read_listeners: impl FnOnce() -> Result<Arc<Listeners>, KernelError>,
) -> Result<String, KernelError> {
    let old: Vec<Child> = before
        .unwrap_or_default()
        .lines()
        .filter_map(parsed)
        .collect();
    let mut held = Vec::new();
    let now = children(pid).map_err(KernelError::Children)?;
    for child in now
        .into_iter()
        .chain(old.iter().map(|(pid, _)| *pid))
        .collect::<BTreeSet<_>>()
    {
        // A process that cannot be read must not count as one that has ended.
        let Some(stat) = lives(child).map_err(|e| KernelError::Process(child, e))? else {
            continue;
        };
        let is_old = old.contains(&(child, stat.started));
        // A new child that ends at once proves nothing.
        let is_new = stat.parent == pid && (before.is_none() || is_settled(child));
        if !is_old && !is_new {
            continue;
        }
        match sockets_of(child) {
            Ok(sockets) => held.push((format!("{child}:{}", stat.started), sockets)),
            Err(_) if lives(child).is_ok_and(|stat| stat.is_none()) => {}
            Err(why) => return Err(KernelError::Sockets(child, why)),
        }
    }
    // Read last, so that the tables have every socket which was found at a child.
    let listeners = read_listeners()?;
    let line = |(name, sockets): (String, Vec<u64>)| {
        if sockets.iter().any(|socket| listeners.listens(*socket)) {
            format!("{name}{LISTENS}")
        } else {
            name
        }
    };
    Ok(held.into_iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// Tells whether a process is old enough to count as a worker.
pub(super) fn is_settled(pid: i32) -> bool {
    age(pid).is_some_and(|age| age >= SETTLED)
}

/// Returns the listening sockets that `pid` itself holds, by inode, one a line. A process that has
/// none, such as the master of squid, has those of its children.
///
/// # Errors
/// Fails as [`workers`] does.
pub(crate) fn listener(
    pid: i32,
    read_listeners: impl FnOnce() -> Result<Arc<Listeners>, KernelError>,
) -> Result<String, KernelError> {
    let own: BTreeSet<u64> = sockets_of(pid)?.into_iter().collect();
    let of_children = sockets_of_children(pid);
    let listeners = read_listeners()?;
    let lines = |held: BTreeSet<u64>| {
        held.into_iter()
            .filter(|socket| listeners.listens(*socket))
            .map(|socket| format!("{socket}{LISTENS}"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let own = lines(own);
    if own.is_empty() {
        of_children.map(lines)
    } else {
        Ok(own)
    }
}

/// Returns the sockets that the children of `pid` hold.
fn sockets_of_children(pid: i32) -> Result<BTreeSet<u64>, KernelError> {
    let mut held = BTreeSet::new();
    for child in children(pid).map_err(KernelError::Children)? {
        match sockets_of(child) {
            Ok(sockets) => held.extend(sockets),
            Err(_) if lives(child).is_ok_and(|stat| stat.is_none()) => {}
            Err(why) => return Err(KernelError::Sockets(child, why)),
        }
    }
    Ok(held)
}

/// Returns the draining workers: those that listened in the reading `before` and live without
/// listening in the reading `now`. They end once their last connection does.
pub(crate) fn draining(before: &str, now: &str) -> Vec<Child> {
    let listened = |line: &&str| {
        before
            .lines()
            .any(|old| old.strip_suffix(LISTENS) == Some(line))
    };
    now.lines().filter(listened).filter_map(parsed).collect()
}

/// Returns the reading `now` with a mark at each worker of the reading `first`: it may stay.
pub(crate) fn kept(first: &str, now: &str) -> String {
    let mark = |line: &str| {
        let name = worker_name(line);
        if first.lines().any(|old| worker_name(old) == name) {
            line.replacen(name, &format!("{name}{KEPT}"), 1)
        } else {
            line.to_owned()
        }
    };
    now.lines().map(mark).collect::<Vec<_>>().join("\n")
}

/// Returns an old worker that may stay, but listens on a socket that no new worker holds. Every
/// connection to that socket is answered by the old worker alone.
///
/// # Errors
/// Fails if the sockets of a worker cannot be read. One that has ended has none.
pub(crate) fn apart(
    before: &str,
    now: &str,
    listeners: &Listeners,
) -> Result<Option<i32>, KernelError> {
    let sockets = |line: &str| -> Result<BTreeSet<u64>, KernelError> {
        let Some((pid, _)) = parsed(line) else {
            return Ok(BTreeSet::new());
        };
        match sockets_of(pid) {
            Ok(held) => Ok(held
                .into_iter()
                .filter(|inode| listeners.listens(*inode))
                .collect()),
            Err(_) if lives(pid).is_ok_and(|stat| stat.is_none()) => Ok(BTreeSet::new()),
            Err(why) => Err(KernelError::Sockets(pid, why)),
        }
    };
    let may_stay = |line: &&str| is_kept(before, line);
    let mut staying = now
        .lines()
        .filter(|line| listens(line))
        .filter(may_stay)
        .peekable();
    if staying.peek().is_none() {
        return Ok(None);
    }
    let mut shared = BTreeSet::new();
    for line in now.lines().filter(|line| !may_stay(line)) {
        shared.extend(sockets(line)?);
    }
    for line in staying {
        if !sockets(line)?.is_subset(&shared) {
            return Ok(parsed(line).map(|(pid, _)| pid));
        }
    }
    Ok(None)
}

/// Returns the draining workers that still live after [`SETTLED`], or cannot be read. One that was
/// just ending is not worth naming.
pub(crate) async fn lasting(draining: Vec<Child>) -> Vec<i32> {
    if !draining.is_empty() {
        tokio::time::sleep(SETTLED).await;
    }
    draining
        .into_iter()
        .filter(|(pid, started)| {
            lives(*pid).map_or(true, |stat| {
                stat.is_some_and(|stat| stat.started == *started)
            })
        })
        .map(|(pid, _)| pid)
        .collect()
}

/// Returns the process that a line of a reading names.
pub(super) fn parsed(line: &str) -> Option<Child> {
    let (pid, started) = line.split(' ').next()?.split_once(':')?;
    Some((pid.parse().ok()?, started.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;
    use crate::tests::unprivileged::{HIDDEN, unprivileged};

    #[test]
    fn a_worker_that_no_longer_listens_is_draining() {
        let before = "1:5 listens\n2:6 listens\n3:7";
        assert_eq!(draining(before, "1:5\n3:7\n4:9 listens"), [(1, 5)]);
        assert!(
            draining(before, "1:8\n2:6 listens").is_empty(),
            "a pid that is another process by now is not the old worker"
        );
    }

    #[test]
    fn an_old_worker_whose_sockets_cannot_be_read_may_listen_apart() {
        let listeners = Listeners::default();
        let line = format!("{HIDDEN}:5 kept listens");
        let read = unprivileged(|| apart(&line, &line, &listeners));
        assert!(
            matches!(read, Err(KernelError::Sockets(HIDDEN, _))),
            "{read:?}"
        );
        let ended = format!("{}:5 kept listens", i32::MAX);
        assert_eq!(apart(&ended, &ended, &listeners).unwrap(), None);
    }

    #[tokio::test]
    async fn only_a_worker_that_lives_on_is_named() {
        let me = i32::try_from(std::process::id()).unwrap();
        let started = lives(me).unwrap().unwrap().started;
        assert_eq!(lasting(vec![(me, started), (me, started + 1)]).await, [me]);
    }

    #[test]
    fn a_worker_of_the_first_reading_is_marked() {
        assert_eq!(
            kept("1:5 listens\n2:6", "1:5 listens\n2:6\n12:5 listens"),
            "1:5 kept listens\n2:6 kept\n12:5 listens"
        );
    }

    #[test]
    fn children_of_every_thread_are_found_and_ended_ones_have_no_line() {
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
        let pid = i32::try_from(child.id()).unwrap();
        let zombie = i32::try_from(ended.id()).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while lives(zombie).unwrap().is_some() || children(pid).unwrap().len() != 1 {
            assert!(
                std::time::Instant::now() < deadline,
                "its child is there, and the other has ended"
            );
            std::thread::yield_now();
        }
        let family = crate::host::proc::tree::family(me).unwrap();
        assert!(
            children(me).unwrap().is_superset(&[pid, zombie].into())
                && children(pid)
                    .unwrap()
                    .iter()
                    .all(|grandchild| family.contains(grandchild)),
            "{family:?}"
        );
        let read = || Listeners::read().map(Arc::new).map_err(KernelError::from);
        let reading = workers(me, None, read).unwrap();
        let has_line = |pid: i32| {
            reading
                .lines()
                .any(|line| line.starts_with(&format!("{pid}:")))
        };
        assert!(has_line(pid) && !has_line(zombie), "{reading}");
        drop(child.stdin.take());
        child.wait().unwrap();
        ended.wait().unwrap();
    }
}
