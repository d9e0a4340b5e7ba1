//! Commands for this test process itself.
#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::path::PathBuf;

use super::*;
use crate::host::{discover, exec::placeholders::exe};

const LONG: Duration = Duration::from_secs(30);

fn identity(pid: i32) -> Identity {
    let group = crate::fleet::Fleet::of_kind("hello")
        .unwrap()
        .groups
        .remove(0);
    discover::process(pid).unwrap().identity(&group)
}

fn me() -> Identity {
    identity(i32::try_from(std::process::id()).unwrap())
}

fn subject(identity: &Identity) -> Subject<'_> {
    Subject {
        identity,
        renewed: None,
    }
}

async fn sh(script: &str, limit: Duration) -> Result<Output, RunError> {
    judge(
        &["sh".into(), "-c".into(), script.into()],
        subject(&me()),
        limit,
    )
    .await
}

async fn until_ended(pid: i32) {
    let deadline = std::time::Instant::now() + LONG;
    // A zombie has ended; the process that adopted it reaps it.
    let ended = || {
        procfs::process::Process::new(pid)
            .and_then(|p| p.stat())
            .map_or(true, |stat| stat.state == 'Z')
    };
    while !ended() {
        assert!(std::time::Instant::now() < deadline, "pid {pid} lives on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn outputs_are_kept_apart_and_limited() {
    let output = sh("head -c 200000 /dev/zero; echo no >&2; exit 3", LONG)
        .await
        .unwrap();
    assert_eq!(
        (output.code, output.stdout.len(), output.stderr.as_slice()),
        (3, 64 << 10, &b"no\n"[..])
    );
}

#[tokio::test]
async fn a_command_that_cannot_run_reports_the_reason() {
    for (script, expected) in [
        ("exit 127", "could not be run (exit status: 127)"),
        ("kill -9 $$", "ended by signal 9"),
    ] {
        assert!(
            sh(script, LONG)
                .await
                .unwrap_err()
                .to_string()
                .contains(expected),
            "{script}"
        );
    }
    let nowhere = judge(&["/nowhere/x".into()], subject(&me()), LONG)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        nowhere.contains("`/nowhere/x` could not be run: No such file"),
        "{nowhere}"
    );
    assert!(matches!(
        judge(&[], subject(&me()), LONG).await,
        Err(RunError::Empty)
    ));
    let gone = judge(
        &["true".into()],
        subject(&Identity {
            pid: i32::MAX,
            ..me()
        }),
        LONG,
    )
    .await
    .unwrap_err()
    .to_string();
    assert!(gone.contains("cannot be inspected"), "{gone}");
}

#[tokio::test]
async fn no_command_runs_for_a_process_that_changed_since_the_survey() {
    let changed = |change: fn(&mut Identity)| {
        let mut other = me();
        change(&mut other);
        async move {
            judge(&["true".into()], subject(&other), LONG)
                .await
                .unwrap_err()
                .to_string()
        }
    };
    assert!(changed(|i| i.started += 1).await.contains("it ended"));
    assert!(changed(|i| i.exe.1 += 1).await.contains("another program"));
    assert!(
        changed(|i| i.exe = (0, 0))
            .await
            .contains("another program")
    );
    let person = |change: fn(&mut crate::identity::Credentials)| {
        let mut other = me();
        change(std::sync::Arc::make_mut(&mut other.person));
        async move {
            judge(&["true".into()], subject(&other), LONG)
                .await
                .unwrap_err()
                .to_string()
        }
    };
    assert!(person(|p| p.uids[2] += 1).await.contains("it runs as uid"));
    assert!(person(|p| p.gids[2] += 1).await.contains("other groups"));
    assert!(person(|p| p.groups.push(7)).await.contains("other groups"));
    if nix::unistd::geteuid().is_root() {
        assert!(
            person(|p| p.permitted = 0)
                .await
                .contains("more capabilities")
        );
    }
}

#[tokio::test]
async fn a_newer_executable_at_the_same_path_counts_only_if_allowed() {
    let mut newer = me();
    newer.exe.1 += 1;
    let exe = std::env::current_exe().unwrap();
    let run = async |renewed: Option<&Path>| {
        judge(
            &["true".into()],
            Subject {
                identity: &newer,
                renewed,
            },
            LONG,
        )
        .await
        .is_ok()
    };
    assert!(run(Some(&exe)).await && !run(Some(Path::new("/bin/sh"))).await && !run(None).await);
}

#[tokio::test]
async fn a_command_with_a_view_writes_no_compiled_python() {
    let argv = ["sh", "-c", "echo $PYTHONDONTWRITEBYTECODE"].map(String::from);
    assert_eq!(
        judge_in_view(&argv, subject(&me()), &[], LONG)
            .await
            .unwrap()
            .stdout,
        b"1\n"
    );
    assert_eq!(
        judge(&argv, subject(&me()), LONG).await.unwrap().stdout,
        b"\n"
    );
}

#[tokio::test]
async fn a_command_has_its_own_session_and_the_original_limit_and_inherits_nothing() {
    let script = "cut -d' ' -f6 /proc/$$/stat; echo $$; ulimit -n; ls /proc/self/fd | wc -l; grep \
                  SigIgn /proc/self/status; cat";
    // The binary does this at its start; a test would pass on the descriptors that it inherited.
    close_fds::set_fds_cloexec(3, &[]);
    let output = String::from_utf8(sh(script, LONG).await.unwrap().stdout).unwrap();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[0], lines[1], "a command leads its session: {output}");
    // Three, and the descriptor of the directory.
    assert_eq!(lines[3], "4", "{output}");
    // The test runner may ignore the two real-time signals of the C library.
    let ignored = u64::from_str_radix(lines[4].trim_start_matches("SigIgn:\t"), 16).unwrap();
    assert_eq!(ignored & !0x1_8000_0000, 0, "{output}");
    assert_eq!(
        lines[2],
        limits::original()
            .0
            .map_or("unlimited".into(), |files| files.to_string()),
        "{output}"
    );
}

/// A waiting process that was started by a path in a virtual environment.
struct Virtual(std::process::Child);

impl Drop for Virtual {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_command_runs_by_the_name_that_its_process_was_started_by() {
    let dir = tempfile::tempdir().unwrap();
    let name = dir.path().join("bin/python");
    std::fs::create_dir(dir.path().join("bin")).unwrap();
    std::os::unix::fs::symlink("/bin/sh", &name).unwrap();
    let child = std::process::Command::new(&name)
        .args(["-c", "read wait"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let child = Virtual(child);
    let pid = i32::try_from(child.0.id()).unwrap();
    let own = PathBuf::from(format!("/proc/{pid}/exe"));
    // The arguments appear a little after the exec.
    let deadline = std::time::Instant::now() + LONG;
    while std::fs::read(format!("/proc/{pid}/cmdline"))
        .unwrap()
        .is_empty()
    {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
    let identity = identity(pid);
    assert_eq!(exe(&identity), own);
    let argv = [own.to_string_lossy().as_ref(), "-c", "echo $0"].map(String::from);
    let output = judge(&argv, subject(&identity), LONG).await.unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        name.to_string_lossy()
    );
    // In a virtual environment the name is the executable, because it locates the modules.
    std::fs::write(dir.path().join("pyvenv.cfg"), "").unwrap();
    assert_eq!(exe(&identity), name);
    std::fs::remove_file(&name).unwrap();
    std::os::unix::fs::symlink("/bin/true", &name).unwrap();
    assert_eq!(exe(&identity), own, "another file is at the path now");
}

#[tokio::test]
async fn every_descendant_ends_with_the_command_or_at_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let there = dir.path().join("pid");
    let pid = || {
        std::fs::read_to_string(&there)
            .unwrap_or_default()
            .trim()
            .parse::<i32>()
            .ok()
    };
    for leaves in [
        "sleep 600 &",
        "setsid sleep 600 &",
        "(setsid sh -c 'echo $$ >\"$0\"; exec sleep 600' \"$0\" &)",
    ] {
        let script = format!("set -- '{}'; {leaves}", there.display())
            .replace("\"$0\" &)", &format!("'{}' &)", there.display()));
        let script = if leaves.starts_with('(') {
            script
        } else {
            format!("{script} echo $! >'{}'", there.display())
        };
        let wait = format!("while [ ! -s '{0}' ]; do sleep 0.01; done", there.display());
        sh(&format!("{script}\n{wait}"), LONG).await.unwrap();
        until_ended(pid().unwrap()).await;
        std::fs::remove_file(&there).unwrap();
        let mut limit = Duration::from_millis(400);
        // On a busy machine the child may not have started by then.
        while pid().is_none() {
            let ran = sh(&format!("{script}\n{wait}; sleep 600"), limit).await;
            assert!(matches!(ran, Err(RunError::Limit(..))), "{ran:?}");
            limit *= 2;
            assert!(limit < LONG);
        }
        until_ended(pid().unwrap()).await;
        std::fs::remove_file(&there).unwrap();
    }
}
