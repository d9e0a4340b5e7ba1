//! The least that a program can do for the same promise: it proves nothing, guards nothing, syncs
//! nothing, and knows where every instance listens.

use std::{collections::HashMap, net::SocketAddr, path::Path, process::ExitCode, time::Duration};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::support::ask;

/// The bench's own executable, run again under this word.
pub(crate) const ROLE: &str = "floor";
/// Between two looks at those that are not new yet.
const AGAIN: Duration = Duration::from_millis(1);
/// One that is not new after so many looks never will be.
const LOOKS: usize = 10_000;

/// `args`: the name, a file of `PID ADDRESS` lines, the new file, the live file, the digest of the
/// new one.
pub(crate) fn role(args: &[String]) -> ExitCode {
    let [name, servers, new, live, digest] = args else {
        return ExitCode::FAILURE;
    };
    let known: HashMap<i32, SocketAddr> = std::fs::read_to_string(servers)
        .unwrap()
        .lines()
        .map(known)
        .collect();
    let all: Vec<(i32, SocketAddr)> = scan(name)
        .into_iter()
        .map(|pid| (pid, known[&pid]))
        .collect();
    assert_eq!(all.len(), known.len());
    ask::each(&all, |(_, address)| {
        assert_ne!(ask::digest(*address).unwrap(), *digest)
    });
    std::fs::rename(new, live).unwrap();
    ask::each(&all, |(pid, _)| signal(*pid));
    ask::each(&all, |(_, address)| {
        for look in 0.. {
            if ask::digest(*address).unwrap() == *digest {
                return;
            }
            assert!(look < LOOKS);
            std::thread::sleep(AGAIN);
        }
    });
    ExitCode::SUCCESS
}

fn known(line: &str) -> (i32, SocketAddr) {
    let (pid, address) = line.split_once(' ').unwrap();
    (pid.parse().unwrap(), address.parse().unwrap())
}

/// The processes that have this name in the kernel.
fn scan(name: &str) -> Vec<i32> {
    let is_it = |pid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|comm| comm.trim_end() == name)
    };
    let all = std::fs::read_dir(Path::new("/proc"))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    all.filter(is_it).collect()
}

fn signal(pid: i32) {
    let pidfd = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    let (stat, status) = (
        std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap(),
        std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap(),
    );
    assert!(stat.len() > 1 && status.contains("SigCgt"));
    pidfd_send_signal(&pidfd, Signal::HUP).unwrap();
}
