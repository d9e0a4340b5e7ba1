//! What stands at its live path for a validator alone is seen by no other process.

use std::{collections::BTreeSet, path::Path, process::Stdio};

use super::ground::{Ground, as_alice, begun};
use crate::support::until;

/// The mount namespaces in which the path is mounted, and that of a descendant of `run` among them.
fn seeing(path: &Path, run: i32) -> (BTreeSet<String>, Option<String>) {
    let path = format!(" {} ", path.display());
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<i32>().ok());
    let (mut all, mut own) = (BTreeSet::new(), None);
    for pid in pids {
        // A process that ends meanwhile has no namespace.
        let Ok(space) = std::fs::read_link(format!("/proc/{pid}/ns/mnt")) else { continue };
        if std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).is_ok_and(|mounts| mounts.contains(&path)) {
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
fn what_is_mounted_for_a_validator_is_in_the_mounts_of_no_other_process() {
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
    let (there, go) = (ground.notes("there"), ground.alice("go"));
    let text = format!("#!/bin/sh\ncat '{}' >'{}'\nwhile [ ! -e '{}' ]; do sleep 0.02; done\n", config.display(), there.display(), go.display());
    let validator = ground.program("validator", &text);
    ground.group(&format!("validate = [\"{validator}\"]"));
    let mut run = ground.fleet.command(&["-q", "--validate", "--set", "message=two"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let pid = i32::try_from(run.id()).unwrap();
    until("the validator waits", || there.metadata().unwrap().len() > 0 || run.try_wait().unwrap().is_some());
    assert!(std::fs::read_to_string(&there).unwrap().contains("two"), "it sees the candidate at the live path");
    let (seeing, own) = seeing(&config, pid);
    assert!(own.is_some(), "its own mounts have it: {seeing:?}");
    assert!(seeing.iter().all(|space| Some(space) == own.as_ref()), "another namespace has it too: {seeing:?}, not only {own:?}");
    for other in others.iter().map(super::ground::Process::pid).chain([server, reader.pid(), pid]) {
        let text = std::fs::read_to_string(format!("/proc/{other}/root{}", config.display())).unwrap();
        assert!(!text.contains("two"), "pid {other} reads the candidate at the live path");
    }
    std::fs::write(&go, "").unwrap();
    run.wait().unwrap();
    assert!(self::seeing(&config, pid).0.is_empty());
}
