//! A disk that fills at any moment of a run: a small tmpfs under the config or the state, with
//! growing space and inodes.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use nix::sys::statvfs::statvfs;

use super::{failed::judge, testbed::Testbed};
use crate::support::run_to_end;

/// The limit of the free pages and inodes that are tried. With one less, a run no longer notices it.
const MOST: u64 = 16;
const PAGE: u64 = 4096;

#[test]
fn a_disk_that_fills_at_any_moment_leaves_no_instance_between_two_configs() {
    let mut command = Command::new("unshare");
    command
        .arg("--mount")
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "crash::full::inside",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ]);
    let output = command
        .env("CRASH_INSIDE", "yes")
        .stdin(Stdio::null())
        .output();
    let output = output.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    if stderr.contains("unshare failed") {
        crate::support::skipped("no mount namespace is to be had");
        return;
    }
    print!("{stdout}");
    assert!(output.status.success(), "{stdout}{stderr}");
    assert!(stdout.contains("full disks:"), "{stdout}{stderr}");
}

#[test]
#[ignore = "not a test: the one above runs it where it may mount"]
fn inside() {
    if std::env::var("CRASH_INSIDE").is_err() {
        return;
    }
    for (small, limit) in [
        ("state", "names"),
        ("state", "pages"),
        ("etc", "names"),
        ("etc", "pages"),
    ] {
        let testbed = Testbed::on(2, true, r#"["1", "100%"]"#, |dir| {
            mount(
                &[
                    "-t",
                    "tmpfs",
                    "-o",
                    "size=4m,nr_inodes=1000,mode=755",
                    "none",
                ],
                &dir.join(small),
            )
        });
        let dir = testbed.dir.join(small);
        let (first, mut codes) = (testbed.ids(), Vec::new());
        for left in 0..MOST {
            let (change, before) = (testbed.change(), testbed.attempts());
            let stat = statvfs(&dir).unwrap();
            match limit {
                "names" => mount(
                    &[
                        "-o",
                        &format!(
                            "remount,nr_inodes={}",
                            stat.files() - stat.files_free() + left
                        ),
                    ],
                    &dir,
                ),
                _ => std::fs::write(
                    dir.join("fill"),
                    vec![0; usize::try_from((stat.blocks_available() - left) * PAGE).unwrap()],
                )
                .unwrap(),
            }
            let run = run_to_end(&mut testbed.broadcast());
            match limit {
                "names" => mount(&["-o", "remount,nr_inodes=1000"], &dir),
                _ => std::fs::remove_file(dir.join("fill")).unwrap(),
            }
            let context = format!(
                "full disks: {small} has {left} {limit} left: {}",
                run.stderr
            );
            // A run that cannot begin touches nothing.
            let before = (run.code == Some(1)).then_some(before);
            codes.push(judge(
                &testbed,
                &change,
                &run,
                6,
                before,
                ["resume", "revert"][usize::try_from(left % 2).unwrap()],
                &context,
            ));
            assert_eq!(
                (testbed.ids(), testbed.staged()),
                (first.clone(), Vec::new()),
                "{context}"
            );
        }
        println!(
            "full disks: {small} with 0 to {} {limit} left: exit codes {codes:?}",
            MOST - 1
        );
        // No run can begin on a full disk, and with enough space all works. In between, every run
        // ends consistently: the rollback content was written first.
        assert_eq!(
            (codes.first(), codes.last()),
            (Some(&1), Some(&6)),
            "{small} {limit}"
        );
        assert!(
            codes.iter().all(|code| matches!(code, 1 | 6)),
            "{small} {limit}: {codes:?}"
        );
    }
}

fn mount(args: &[&str], dir: &Path) {
    let output = Command::new("mount").args(args).arg(dir).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
