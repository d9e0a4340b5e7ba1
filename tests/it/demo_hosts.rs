//! `demo/hosts`, with namespaces and without.

use std::{path::Path, process::Command};

use crate::{
    daemons::need,
    support::{runs_as_root, until, without_cargo},
};

/// Runs the demo in a temporary folder of its own. Returns what it prints.
fn demo(args: &[&str]) -> String {
    let temporary = tempfile::tempdir().unwrap();
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut demo = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/hosts"));
    without_cargo(&mut demo)
        .args(args)
        .env("HELLO", env!("CARGO_BIN_EXE_hello"))
        .env("TMPDIR", temporary.path())
        .stdin(std::process::Stdio::null());
    // The file is written from two places, and each must add to its end.
    let file = || {
        let mut options = std::fs::OpenOptions::new();
        options.append(true).open(log.path()).unwrap()
    };
    let status = demo.stdout(file()).stderr(file()).status().unwrap();
    let text = std::fs::read_to_string(log.path()).unwrap();
    assert!(status.success(), "{text}");
    assert!(text.contains("\n26 passed, 0 failed\n"), "{text}");
    let left: Vec<_> = std::fs::read_dir(temporary.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    let folder = temporary.path().to_str().unwrap();
    until("no process of the demo is left", || {
        std::fs::read_dir("/proc").unwrap().all(|process| {
            let line = std::fs::read(process.unwrap().path().join("cmdline"));
            !String::from_utf8_lossy(&line.unwrap_or_default()).contains(folder)
        })
    });
    text
}

#[test]
fn the_demo_of_hosts_passes_behind_a_local_command() {
    if !need("curl") {
        return;
    }
    let text = demo(&["--local"]);
    assert!(text.contains("behind a local command"), "{text}");
}

#[test]
fn the_demo_of_hosts_passes_behind_sshd_in_namespaces() {
    let programs = [
        "curl",
        "sshd",
        "ssh",
        "ssh-keygen",
        "sudo",
        "ip",
        "unshare",
        "nsenter",
        "pgrep",
    ];
    if !programs.iter().all(|name| need(name)) || !runs_as_root("namespaces need root") {
        return;
    }
    let text = demo(&[]);
    assert!(text.contains("on a bridge, each with a sshd"), "{text}");
}
