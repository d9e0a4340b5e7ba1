//! Only a process with write access to a target blocks a run on its directory.

use std::{
    fs::File,
    os::{
        fd::AsRawFd,
        unix::{fs::PermissionsExt, process::CommandExt},
    },
    path::Path,
    process::{Command, Stdio},
};

use nix::fcntl::{Flock, FlockArg};

use crate::{
    support::{CommandResult, Fleet, until},
    trust::{Alice, alice, tries},
    users::{as_other_user, is_root},
};

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn is_locked(dir: &Path) -> bool {
    Flock::lock(File::open(dir).unwrap(), FlockArg::LockExclusiveNonblock).is_err()
}

/// A process whose parent has ended. Killed by its pid when dropped.
struct Orphan(i32);

impl Drop for Orphan {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.0),
            nix::sys::signal::Signal::SIGKILL,
        );
    }
}

/// Makes another user hold the lock of this directory until the result is dropped.
fn held(dir: &Path) -> Alice {
    let alice = alice(&format!(
        "exec 9<'{}'; flock 9; exec sleep 1000",
        dir.display()
    ));
    until("it is locked", || is_locked(dir));
    alice
}

#[test]
fn a_lock_holder_without_write_access_is_named_and_ignored() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::start(1);
    mode(fleet.dir.path(), 0o755);
    let alice = held(fleet.dir.path());
    let result = fleet.broadcast(&["--set", "message=two"]).expect(0);
    let pid = format!("pid {} of uid 65534", alice.0.id());
    assert!(result.stderr.contains("Foreign lock"), "{}", result.stderr);
    assert!(result.stderr.contains(&pid), "{}", result.stderr);
    assert!(
        result.json["notes"][0]["event"] == "foreign_lock",
        "{:#}",
        result.json
    );
    assert!(
        result.json["notes"][0]["holder"]
            .as_str()
            .unwrap()
            .contains(&pid),
        "{:#}",
        result.json
    );
    let run = result.json["run"].as_str().unwrap();
    assert!(
        std::fs::read_to_string(fleet.path("state/runs").join(run).join("events.jsonl"))
            .unwrap()
            .contains("foreign_lock")
    );
    // It does not block a revert either, and `doctor` does not report it.
    fleet.continue_run("revert", &[run]).expect(0);
    assert_eq!(fleet.bodies(), ["one"]);
    assert!(
        !fleet
            .doctor(&[])
            .expect(0)
            .json
            .to_string()
            .contains("holds the lock")
    );
    for _ in 0..tries() / 20 {
        fleet.broadcast(&["--set", "message=x"]).expect(0);
        fleet.broadcast(&["--set", "message=y"]).expect(0);
    }
}

#[test]
fn a_lock_holder_without_write_access_is_ignored_by_any_name() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::start(1);
    mode(fleet.dir.path(), 0o755);
    let dir = fleet.dir.path();
    let alice = alice(&format!(
        "exec 9<'{}'; flock 9; printf '\\377' >/proc/$$/comm; while :; do sleep 1 9<&-; done",
        dir.display()
    ));
    let comm = format!("/proc/{}/comm", alice.0.id());
    until("it has its name", || {
        std::fs::read(&comm).unwrap() == b"\xff\n"
    });
    assert!(is_locked(dir));
    let result = fleet.broadcast(&["--set", "message=two"]).expect(0);
    assert!(result.stderr.contains("Foreign lock"), "{}", result.stderr);
}

#[test]
fn a_lock_holder_with_write_access_blocks_a_run() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::start(1);
    mode(fleet.dir.path(), 0o755);
    let config = fleet.path("web.toml");
    let alice = held(fleet.dir.path());
    let pid = format!("pid {} of uid 65534", alice.0.id());
    let busy = |what: &str| {
        let result = fleet.broadcast(&["--set", "message=two"]).expect(9);
        assert!(result.stderr.contains(&pid), "{what}: {}", result.stderr);
        assert!(
            fleet
                .doctor(&[])
                .json
                .to_string()
                .contains("holds the lock"),
            "{what}"
        );
    };
    nix::unistd::chown(&config, Some(65534.into()), None).unwrap();
    busy("its owner");
    nix::unistd::chown(&config, Some(0.into()), Some(65534.into())).unwrap();
    mode(&config, 0o664);
    busy("its group");
    mode(&config, 0o644);
    nix::unistd::chown(&config, Some(0.into()), Some(0.into())).unwrap();
    if Command::new("setfacl")
        .args(["-m", "u:65534:rw"])
        .arg(&config)
        .status()
        .is_ok_and(|status| status.success())
    {
        busy("its list");
        assert!(
            Command::new("setfacl")
                .arg("-b")
                .arg(&config)
                .status()
                .unwrap()
                .success()
        );
    }
    fleet.broadcast(&["--set", "message=two"]).expect(0);
    // The run waits for a lock as long as the operator sets.
    mode(&config, 0o666);
    let mut wait = fleet
        .command(&["-q", "--lock-timeout", "60s", "--set", "message=three"])
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(wait.try_wait().unwrap().is_none());
    drop(alice);
    assert_eq!(wait.wait().unwrap().code(), Some(0));
}

#[test]
fn the_lock_holder_is_the_process_that_has_the_descriptor() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::start(1);
    mode(fleet.dir.path(), 0o755);
    // The shell takes the lock, its child inherits it, and the shell ends.
    let pid_file = tempfile::tempdir().unwrap();
    mode(pid_file.path(), 0o777);
    let place = pid_file.path().join("pid");
    let held = |command: &mut Command| {
        let text = format!(
            "exec 9<'{}'; flock 9; sleep 1000 & echo $! > '{}'",
            fleet.dir.path().display(),
            place.display()
        );
        let command = command
            .args(["-c", &text])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        assert!(command.status().unwrap().success());
        let pid = std::fs::read_to_string(&place)
            .unwrap()
            .trim()
            .parse::<i32>()
            .unwrap();
        let orphan = Orphan(pid);
        assert!(is_locked(fleet.dir.path()));
        std::fs::remove_file(&place).unwrap();
        orphan
    };
    let end = |orphan: Orphan| {
        drop(orphan);
        until("it is free", || !is_locked(fleet.dir.path()));
    };
    let child = held(&mut as_other_user(Path::new("/bin/sh")));
    let result = fleet.broadcast(&["--set", "message=two"]).expect(0);
    assert!(
        result
            .stderr
            .contains(&format!("pid {} of uid 65534", child.0)),
        "{}",
        result.stderr
    );
    end(child);
    let child = held(&mut Command::new("/bin/sh"));
    let result = fleet.broadcast(&["--set", "message=three"]).expect(9);
    assert!(
        result.stderr.contains(&format!("pid {} of uid 0", child.0)),
        "{}",
        result.stderr
    );
    end(child);
}

#[test]
fn two_runs_of_root_exclude_each_other_despite_locks_of_other_users() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::start(1);
    mode(fleet.dir.path(), 0o755);
    let _alice = held(fleet.dir.path());
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    let (there, go) = (fleet.path("there"), fleet.path("go"));
    let validator = crate::users::script(
        &fleet,
        "validator",
        &format!(
            "#!/bin/sh\ntouch /proc/$PPID/root'{}'\nwhile [ ! -e /proc/$PPID/root'{}' ]; do sleep 0.02; done\n",
            there.display(),
            go.display()
        ),
    );
    fleet.write(
        "fleet.toml",
        &format!("{text}validate = [\"{validator}\", \"{{candidate}}\"]\n"),
    );
    let mut first = fleet
        .command(&["-q", "--set", "message=first"])
        .spawn()
        .unwrap();
    until("the first is at work", || there.exists());
    let mut second = Command::new(fleet.exe());
    second
        .args([
            "broadcast",
            "-o",
            "json",
            "--set",
            "message=second",
            "--fleet",
        ])
        .arg(fleet.path("fleet.toml"))
        .arg("--state")
        .arg(fleet.path("other"));
    let result = CommandResult::of(&mut second).expect(9);
    assert!(
        result
            .stderr
            .contains(&format!("pid {} of uid 0", first.id())),
        "{}",
        result.stderr
    );
    std::fs::write(&go, "").unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(0));
    let lock = Path::new("/run/hello/lock");
    assert_eq!(lock.metadata().unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn another_user_that_only_adopts_leaves_the_directory_unlocked() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::start(0);
    mode(fleet.dir.path(), 0o755);
    let runtime = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(runtime.path(), Some(65534), Some(65534)).unwrap();
    mode(runtime.path(), 0o700);
    let _theirs = crate::users::serve(&fleet, "web.toml");
    // A run of root holds the lock. A run that writes nothing need not wait for it.
    let dir = Flock::lock(
        File::open(fleet.dir.path()).unwrap(),
        FlockArg::LockExclusiveNonblock,
    )
    .map_err(|(_, e)| e)
    .unwrap();
    assert!(dir.as_raw_fd() > 0);
    let run = |args: &[&str]| {
        let mut command = as_other_user(fleet.exe());
        command
            .args(["broadcast", "-o", "json"])
            .args(args)
            .arg("--fleet")
            .arg(fleet.path("fleet.toml"))
            .arg("--state")
            .arg(runtime.path().join("state"));
        CommandResult::of(command.env("XDG_RUNTIME_DIR", runtime.path()))
    };
    run(&[]).expect(0);
    run(&["--set", "message=x"]).expect(9);
    assert!(runtime.path().join("hello/lock").is_dir());
}

/// Whether root sees every process of the machine. Otherwise a hidden lock holder could be a run.
pub(crate) fn sees_all() -> bool {
    let first = std::fs::metadata("/proc/self/ns/pid")
        .is_ok_and(|meta| std::os::unix::fs::MetadataExt::ino(&meta) == 0xEFFF_FFFC);
    let all = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_str().unwrap().parse::<i32>().is_ok());
    let hides = |dir: std::fs::DirEntry| {
        std::fs::read_dir(dir.path().join("fdinfo"))
            .is_err_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied)
    };
    first && !all.into_iter().any(hides)
}

#[test]
fn a_lock_in_a_socket_queue_does_not_block_a_run() {
    if !is_root() {
        return;
    }
    let mut python = Command::new("python3");
    if !python
        .args(["-c", ""])
        .status()
        .is_ok_and(|status| status.success())
    {
        crate::support::skipped("there is no python3");
        return;
    }
    // A process that cannot be inspected may hold the lock, so it blocks the run with a reason.
    let is_whole = sees_all();
    let fleet = Fleet::start(1);
    mode(fleet.dir.path(), 0o755);
    let text = format!(
        "import array, fcntl, os, socket, time\nd = os.open({:?}, os.O_RDONLY)\nfcntl.flock(d, fcntl.LOCK_EX)\na, b = socket.socketpair()\n\
         a.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [d]))])\nos.close(d)\ntime.sleep(1000)\n",
        fleet.dir.path()
    );
    let mut command = Command::new("python3");
    let _alice = Alice(
        command
            .args(["-c", &text])
            .uid(65534)
            .gid(65534)
            .spawn()
            .unwrap(),
    );
    until("it is locked", || is_locked(fleet.dir.path()));
    until("it lies in the socket", || {
        let pid = _alice.0.id();
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        !fds.flatten().any(|fd| {
            std::fs::read_link(fd.path())
                .is_ok_and(|to| to == fleet.dir.path().canonicalize().unwrap())
        })
    });
    let result = fleet.broadcast(&["--set", "message=two"]);
    let is_unknown =
        !is_whole && result.code == 9 && result.stderr.contains("no visible process has it open");
    assert!(
        is_unknown || (result.code == 0 && result.stderr.contains("Foreign lock")),
        "{}: {}",
        result.code,
        result.stderr
    );
}
