//! What stands at its live path for a validator alone is seen by no other process.

use std::{collections::BTreeSet, io::Read, net::TcpListener, path::Path, process::Stdio};

use super::ground::{Ground, as_alice, begun};
use crate::support::until;

/// The mount namespaces in which the candidate stands at the path, and that of a descendant of `run` among them.
fn seeing(path: &Path, run: i32) -> (BTreeSet<String>, Option<String>) {
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<i32>().ok());
    let (mut all, mut own) = (BTreeSet::new(), None);
    for pid in pids {
        // A process that ends meanwhile has no namespace.
        let Ok(space) = std::fs::read_link(format!("/proc/{pid}/ns/mnt")) else { continue };
        if std::fs::read_to_string(format!("/proc/{pid}/root{}", path.display())).is_ok_and(|text| text.contains("two")) {
            let space = space.display().to_string();
            if descends(pid, run) {
                own = Some(space.clone());
            }
            all.insert(space);
        }
    }
    (all, own)
}

fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()
}

fn descends(mut pid: i32, from: i32) -> bool {
    loop {
        match parent(pid) {
            Some(parent) if parent == from => return true,
            Some(parent) if parent > 0 => pid = parent,
            _ => return false,
        }
    }
}

#[test]
fn what_stands_at_its_live_path_for_a_validator_is_in_the_files_of_no_other_process() {
    let Some((ground, server)) = Ground::serving() else { return };
    let config = ground.alice("web.toml");
    // Other namespaces that are told of each mount of this one, as long as that is shared.
    let mut others = Vec::new();
    for sharing in ["shared", "slave"] {
        let mut unshare = std::process::Command::new("unshare");
        std::os::unix::process::CommandExt::process_group(&mut unshare, 0);
        unshare.args(["--mount", "--propagation", sharing, "sh", "-c", "echo begun; exec sleep 600"]).stdin(Stdio::null());
        others.push(begun(&mut unshare).0);
    }
    let (reader, _) = begun(as_alice("sh").args(["-c", "echo begun; exec sleep 600"]));
    // It tells what it reads, and waits until the connection is closed.
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = format!("/dev/tcp/127.0.0.1/{}", listener.local_addr().unwrap().port());
    let text = format!("#!/bin/bash\nexec 3<>{address}\ncat '{}' >&3\nread -r <&3\nexit 0\n", config.display());
    let validator = ground.program("validator", &text);
    ground.group(&format!("validate = [\"{validator}\"]"));
    let mut run = ground.fleet.command(&["-q", "--dry-run", "--set", "message=two"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let pid = i32::try_from(run.id()).unwrap();
    let (mut waits, mut there) = (None, String::new());
    until("the validator waits", || {
        waits = listener.accept().ok();
        waits.is_some() || run.try_wait().unwrap().is_some()
    });
    let (mut validator, _) = waits.expect("it ended before it validated");
    validator.set_nonblocking(false).unwrap();
    validator.set_read_timeout(Some(crate::support::RUN_LIMIT)).unwrap();
    while !there.contains("listen") {
        let mut piece = [0; 256];
        let length = validator.read(&mut piece).unwrap();
        assert!(length > 0, "it has read only {there:?}");
        there.push_str(std::str::from_utf8(&piece[..length]).unwrap());
    }
    assert!(there.contains("two"), "it sees the candidate at the live path: {there}");
    let (seeing, own) = seeing(&config, pid);
    assert!(own.is_some(), "it is there for itself: {seeing:?}");
    assert!(seeing.iter().all(|space| Some(space) == own.as_ref()), "another namespace has it too: {seeing:?}, not only {own:?}");
    for other in others.iter().map(super::ground::Process::pid).chain([server, reader.pid(), pid]) {
        let text = std::fs::read_to_string(format!("/proc/{other}/root{}", config.display())).unwrap();
        assert!(!text.contains("two"), "pid {other} reads the candidate at the live path");
    }
    drop(validator);
    run.wait().unwrap();
    assert!(self::seeing(&config, pid).0.is_empty());
}
