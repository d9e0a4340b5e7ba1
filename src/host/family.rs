//! Who descends from whom, and who holds which socket: what tells a worker, a successor and a stranger apart.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

use procfs::process::Process;

/// A process that a pid alone does not name.
pub(crate) type Id = (i32, u64);

/// Parents and start times of all processes, by one look at `/proc/*/stat`.
#[derive(Debug, Default)]
pub(crate) struct Family(HashMap<i32, (i32, u64)>);

impl Family {
    /// Looks once; processes that end meanwhile, and zombies, are not in it.
    pub(crate) fn read() -> Self {
        let stats = procfs::process::all_processes().into_iter().flatten().filter_map(|p| p.ok()?.stat().ok());
        Self(stats.filter(|s| !matches!(s.state, 'Z' | 'X')).map(|s| (s.pid, (s.ppid, s.starttime))).collect())
    }

    /// When `pid` started, in clock ticks since boot; none when it is not there.
    pub(crate) fn started(&self, pid: i32) -> Option<u64> {
        self.0.get(&pid).map(|(_, started)| *started)
    }

    /// `pid` and all that descend from it, at most 4,096 of them.
    pub(crate) fn of(&self, pid: i32) -> BTreeSet<i32> {
        let mut all = BTreeSet::from([pid]);
        loop {
            let before = all.len();
            all.extend(self.0.iter().filter(|(_, (parent, _))| all.contains(parent)).map(|(pid, _)| *pid).collect::<Vec<_>>());
            if all.len() == before || all.len() > 4096 {
                return all;
            }
        }
    }

    /// Every process that holds one of the sockets `inodes`, by pid; those that may not be looked at are not in it.
    pub(crate) fn holders(&self, inodes: &BTreeSet<u64>) -> Vec<(i32, u64)> {
        let links: BTreeSet<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
        let mut holders: Vec<(i32, u64)> = Vec::new();
        for pid in self.0.keys() {
            let fds = std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")).into_iter().flatten().flatten();
            for to in fds.filter_map(|fd| std::fs::read_link(fd.path()).ok()) {
                let to = to.to_string_lossy();
                if links.contains(to.as_ref()) {
                    let inode = to.trim_start_matches("socket:[").trim_end_matches(']').parse().unwrap_or_default();
                    holders.push((*pid, inode));
                }
            }
        }
        holders.sort_unstable();
        holders.dedup();
        holders
    }
}

/// Children of `pid` that run now: cheap enough for every poll.
pub(crate) fn children(pid: i32) -> Vec<Id> {
    let tasks = Process::new(pid).and_then(|p| p.tasks()).into_iter().flatten().flatten();
    let pids = tasks.flat_map(|task| task.children().unwrap_or_default());
    let id = |pid: u32| {
        let stat = Process::new(i32::try_from(pid).ok()?).ok()?.stat().ok()?;
        (!matches!(stat.state, 'Z' | 'X')).then_some((stat.pid, stat.starttime))
    };
    pids.filter_map(id).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn a_child_and_its_sockets_are_found() {
        let me = i32::try_from(std::process::id()).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let family = Family::read();
        assert!(family.of(me).contains(&pid) && !family.of(pid).contains(&me));
        assert!(children(me).contains(&(pid, family.started(pid).unwrap())));
        child.kill().unwrap();
        child.wait().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let link = std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&listener))).unwrap();
        let inode: u64 = link.to_string_lossy().trim_start_matches("socket:[").trim_end_matches(']').parse().unwrap();
        assert_eq!(Family::read().holders(&BTreeSet::from([inode])), [(me, inode)]);
    }
}
