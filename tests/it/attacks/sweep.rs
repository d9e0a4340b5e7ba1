//! A directory that another user moves to the name of a staged file is not removed.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Stdio,
};

use super::{
    ground::{Ground, race, tries},
    notes::Notes,
};
use crate::support::until;

/// Returns the directories in `conf` that hold a file of root, by inode.
fn kept(conf: &Path) -> Vec<(u64, PathBuf)> {
    let mut kept: Vec<(u64, PathBuf)> = std::fs::read_dir(conf)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            std::fs::read_to_string(path.join("deep/file"))
                .is_ok_and(|text| text == "root's words\n")
        })
        .map(|path| (path.metadata().unwrap().ino(), path))
        .collect();
    kept.sort();
    kept
}

fn staged(conf: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(conf)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    all.filter(|path| {
        path.file_name()
            .unwrap()
            .to_string_lossy()
            .contains(".hello-")
    })
    .collect()
}

#[test]
fn root_s_files_in_a_directory_of_another_user_survive_every_sweep() {
    let Some(mut ground) = Ground::new() else {
        return;
    };
    let conf = ground.folder("conf");
    let config = ground.config("conf/web.toml");
    ground.serve_at_home(&config);
    let names = ["keep1", "keep2", "keep3"].map(|name| conf.join(name));
    for name in &names {
        std::fs::create_dir_all(name.join("deep")).unwrap();
        std::fs::write(name.join("deep/file"), "root's words\n").unwrap();
        // Its owner may write there, and no other user.
        std::fs::set_permissions(name, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let before: Vec<u64> = kept(&conf).into_iter().map(|(ino, _)| ino).collect();
    assert_eq!(before.len(), 3);
    let there = Notes::new();
    let waits = ground.program(
        "waits",
        &format!("#!/bin/bash\n: >{}\nexec sleep 30\n", there.sink()),
    );
    let mark = Path::new(".hello-");
    let hide = ground.attack(
        "hide",
        &[
            &conf,
            mark,
            Path::new("keep1"),
            Path::new("keep2"),
            Path::new("keep3"),
        ],
    );
    let mut hidden = 0;
    race(tries(12), |at| {
        // A run is killed while its staged files exist.
        ground.group(&format!("validate = [\"{waits}\", \"{{candidate}}\"]"));
        let before_it = there.connections();
        let mut run = ground
            .fleet
            .command(&["-q", "--set", &format!("message=k{at}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("it validates", || {
            there.connections() > before_it || run.try_wait().unwrap().is_some()
        });
        run.kill().unwrap();
        run.wait().unwrap();
        // The next run sweeps, and stages its own files.
        ground.group("validate = [\"true\"]");
        let count = hide.count();
        match at % 4 {
            0 => ground.fleet.continue_run("resume", &[]),
            1 => ground.run_json("dry-run", &format!("x{at}")),
            _ => ground.run_json("broadcast", &format!("x{at}")),
        };
        hidden += usize::from(hide.count() > count);
        // A directory renamed during the search is not seen.
        until("everything of root's is there", || {
            kept(&conf)
                .iter()
                .map(|(ino, _)| *ino)
                .eq(before.iter().copied())
        });
        hidden > 0
    });
    println!(
        "something of root's stood at a staged name within {hidden} runs, {} times in all",
        hide.count()
    );
    assert!(hidden > 0, "the race was not run");
    drop(hide);
    // The remains are named, and only an operator removes them.
    let left = staged(&conf);
    let result = ground.run_json("broadcast", "last");
    assert!(
        left.iter()
            .all(|path| !kept(&conf).iter().any(|(_, kept)| kept == path)
                || result.stderr.contains("Left beside")),
        "{}",
        result.stderr
    );
}
