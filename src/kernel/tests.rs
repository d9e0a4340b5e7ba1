#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::collections::BTreeSet;

use super::*;
use crate::fleet::Signal;

/// The fields of a stat behind the masks of signals.
const BEHIND_MASKS: &str = "0 0 0 17 1 0 0 0 0 0 400 500 600 700 750 800 900 0";

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
    let memory = (known.arg_start, known.env_end);
    assert_eq!(
        (stat.pid, Some(stat.arguments), Some(stat.environment_end)),
        (known.pid, memory.0, memory.1)
    );
    assert!(stat.lives() && is_alive(pid, stat.started), "{stat:?}");
    assert!(!is_alive(pid, stat.started + 1) && !is_alive(i32::MAX, 0));
    let known = me.status().unwrap();
    assert_eq!(
        (status.leader, status.ruid, status.euid),
        (known.tgid, known.ruid, known.euid)
    );
    assert_eq!(
        (status.blocked, status.ignored, status.caught),
        (known.sigblk, known.sigign, known.sigcgt)
    );
    assert_eq!(status.effective, known.capeff);
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
             0 0 0 0 0 0 1 2 3 {BEHIND_MASKS}"
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
             0 512 2048 2561 {BEHIND_MASKS}"
        );
        Stat::parse(line.as_bytes())
    };
    for name in ["a", "a) R (b", "", ") Z 1", "\u{e4} b"] {
        let wanted = Stat {
            pid: 7,
            comm: name.into(),
            state: 'T',
            parent: 3,
            flags: 4_194_560,
            threads: 9,
            started: 12345,
            blocked: 512,
            ignored: 2048,
            caught: 2561,
            arguments: 700,
            environment_end: 900,
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
                 SigBlk:\t200\nSigIgn:\t0\nSigCgt:\t1\nCapEff:\t2\n";
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

#[test]
fn a_name_that_is_not_utf8_hides_nothing() {
    for name in [&b"\xff"[..], "\u{e4}".repeat(8).as_bytes(), b"a\nUid:\t7"] {
        let name = name.to_vec();
        let read = std::thread::spawn(move || {
            std::fs::write("/proc/thread-self/comm", &name).unwrap();
            let thread = Proc::at("/proc/thread-self").unwrap();
            (thread.stat().unwrap(), thread.status().unwrap())
        });
        let (stat, (status, credentials, _)) = read.join().unwrap();
        assert!(stat.lives());
        assert_eq!(status.leader, i32::try_from(std::process::id()).unwrap());
        assert_eq!(
            credentials.uid(),
            rustix::process::geteuid().as_raw(),
            "{stat:?}"
        );
    }
}

#[test]
fn a_line_of_the_mount_table_is_parsed_with_any_path() {
    let mount = |point: &[u8], options: &str| {
        let line = [
            &b"36 35 98:0 /a\\040b "[..],
            point,
            b" ",
            options.as_bytes(),
        ];
        Mount::parse(&line.concat())
    };
    let rest = "rw,noatime shared:1 master:2 - ext4 /dev/root rw,errors=continue";
    for (field, path) in [
        (&b"/-"[..], &b"/-"[..]),
        (b"/a\\040b\\134", b"/a b\\"),
        (b"/a\\0x", b"/a\\0x"),
        (b"/\xff", b"/\xff"),
    ] {
        let wanted = Mount {
            device: b"98:0".into(),
            root: "/a b".into(),
            point: PathBuf::from(OsStr::from_bytes(path)),
            is_writable: true,
            kind: "ext4".into(),
        };
        assert_eq!(mount(field, rest), Some(wanted));
    }
    for read_only in ["ro - ext4  rw", "rw - squashfs /dev/loop1 ro"] {
        assert!(!mount(b"/x", read_only).unwrap().is_writable);
    }
    assert_eq!(mount(b"/x", "rw shared:1"), None);
    assert_eq!(Mount::parse(b""), None);
}

#[test]
fn the_mounts_are_those_that_procfs_reads() {
    let known: Vec<_> = procfs::process::Process::myself()
        .unwrap()
        .mountinfo()
        .unwrap()
        .into_iter()
        .map(|mount| {
            // It leaves the escapes.
            let point = mounts::unescaped(mount.mount_point.as_os_str().as_bytes());
            (mount.majmin.into_bytes(), point, mount.fs_type)
        })
        .collect();
    let own = Proc::own().unwrap().mounts().unwrap();
    let read: Vec<_> = own
        .into_iter()
        .map(|mount| (mount.device, mount.point, mount.kind))
        .collect();
    assert_eq!(read, known);
}
