#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::collections::BTreeSet;

use super::*;
use crate::fleet::Signal;

#[test]
fn stat_and_status_are_what_procfs_reads() {
    let pid = i32::try_from(std::process::id()).unwrap();
    let (stat, status) = (Stat::of(pid).unwrap(), Status::of(pid).unwrap());
    let me = procfs::process::Process::myself().unwrap();
    let known = me.stat().unwrap();
    let same = (known.comm, known.ppid, known.flags, known.starttime);
    assert_eq!(
        (stat.comm.clone(), stat.parent, stat.flags, stat.started),
        same
    );
    assert_eq!(
        (stat.blocked, stat.ignored, stat.caught),
        (known.blocked, known.sigignore, known.sigcatch)
    );
    assert!(stat.lives(), "{stat:?}");
    let known = me.status().unwrap();
    assert_eq!(
        (status.leader, status.ruid, status.euid),
        (known.tgid, known.ruid, known.euid)
    );
    assert_eq!(
        (status.blocked, status.ignored, status.caught),
        (known.sigblk, known.sigign, known.sigcgt)
    );
    assert!(!status.is_stopped() && Stat::of(i32::MAX).is_err() && Status::of(i32::MAX).is_err());
    assert!(
        descriptors(pid, |_, to| assert!(to.is_ok_and(|to| !to.is_empty()))).is_ok()
            && descriptors(i32::MAX, |_, _| {}).is_err()
    );
    assert_eq!(
        (
            socket(b"socket:[17]"),
            socket(b"socket:[17"),
            socket(b"/socket:[17]")
        ),
        (Some(17), None, None)
    );
}

#[test]
fn a_process_whose_first_thread_has_ended_lives_as_long_as_another_does() {
    let stat = |state: char, threads: u32| {
        let line = format!(
            "7 (a) b) {state} 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 {threads} 0 99 0 0 0 0 \
             0 0 0 0 0 0 1 2 3"
        );
        Stat::parse(line.as_bytes()).unwrap()
    };
    assert!(stat('Z', 2).lives() && stat('S', 1).lives());
    assert!(!stat('Z', 1).lives() && !stat('Z', 0).lives());
    assert_eq!(stat('Z', 2).started, 99);
}

#[test]
fn every_descriptor_is_shown_once_however_many_numbers_are_free() {
    let (read, _write) = std::os::unix::net::UnixStream::pair().unwrap();
    for least in [3, 20, 400] {
        let held = rustix::io::fcntl_dupfd_cloexec(&read, least).unwrap();
        rustix::io::fcntl_setfd(&held, rustix::io::FdFlags::empty()).unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&held).to_string();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        drop(held);
        let pid = i32::try_from(child.id()).unwrap();
        // Once the program sleeps, it opens nothing more.
        let began = std::time::Instant::now();
        while !std::fs::read_to_string(format!("/proc/{pid}/wchan"))
            .unwrap()
            .contains("nanosleep")
            && began.elapsed().as_secs() < 5
        {
            std::thread::yield_now();
        }
        let mut found = Vec::new();
        let shown = descriptors(pid, |number, to| {
            found.push((number.to_str().unwrap().to_owned(), to.unwrap().to_vec()))
        });
        let expected: BTreeSet<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .map(|fd| fd.unwrap().file_name().into_string().unwrap())
            .collect();
        child.kill().unwrap();
        child.wait().unwrap();
        shown.unwrap();
        let numbers: BTreeSet<String> = found.iter().map(|(number, _)| number.clone()).collect();
        assert_eq!((found.len(), &numbers), (expected.len(), &expected));
        assert!(
            found
                .iter()
                .any(|(name, link)| *name == number && socket(link).is_some()),
            "{found:?}"
        );
    }
}

#[test]
fn stat_is_parsed_with_any_name() {
    let stat = |name: &str| {
        let line = format!(
            "7 ({name}) T 3 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 9 0 12345 1 2 3 4 5 6 7 8 \
             0 512 2048 2561 0"
        );
        Stat::parse(line.as_bytes())
    };
    for name in ["a", "a) R (b", "", ") Z 1", "\u{e4} b"] {
        let wanted = Stat {
            comm: name.into(),
            state: 'T',
            parent: 3,
            flags: 4_194_560,
            threads: 9,
            started: 12345,
            blocked: 512,
            ignored: 2048,
            caught: 2561,
        };
        // It catches all three signals, blocks one and ignores another.
        assert!(
            wanted.takes(Signal::Hup) && !wanted.takes(Signal::Usr1) && !wanted.takes(Signal::Usr2)
        );
        assert_eq!(stat(name), Some(wanted));
    }
    assert_eq!(Stat::parse(b"7 (a) T 3"), None);
}

#[test]
fn a_status_without_a_mask_is_refused() {
    let whole = "Name:\ta\nState:\tt (tracing \
                 stop)\nTgid:\t7\nUid:\t1\t2\t3\t4\nSigPnd:\t0\nShdPnd:\t1\n\
                 SigBlk:\t200\nSigIgn:\t0\nSigCgt:\t1\n";
    let status = Status::parse(whole.as_bytes()).unwrap();
    assert!(
        status.is_stopped()
            && status.is_pending(Signal::Hup)
            && status.catches(Signal::Hup)
            && status.blocks(Signal::Usr1)
    );
    assert!(
        !status.ignores(Signal::Hup)
            && !status.blocks(Signal::Hup)
            && (status.leader, status.ruid, status.euid) == (7, 1, 2)
    );
    assert_eq!(
        Status::parse(whole.replace("SigIgn", "Sig").as_bytes()),
        None
    );
}
