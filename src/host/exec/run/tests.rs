//! Commands about this very process.
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
    // The process that adopts it takes in its end.
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
async fn both_outputs_are_kept_apart_and_cut() {
    let said = sh("head -c 200000 /dev/zero; echo no >&2; exit 3", LONG)
        .await
        .unwrap();
    assert_eq!(
        (said.code, said.stdout.len(), said.stderr.as_slice()),
        (3, 64 << 10, &b"no\n"[..])
    );
}

#[tokio::test]
async fn what_could_not_be_run_says_why() {
    for (script, says) in [
        ("exit 127", "could not be run (exit status: 127)"),
        ("kill -9 $$", "ended by signal 9"),
    ] {
        assert!(
            sh(script, LONG)
                .await
                .unwrap_err()
                .to_string()
                .contains(says),
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
    assert!(gone.contains("cannot be looked at"), "{gone}");
}

#[tokio::test]
async fn nothing_is_run_about_a_process_that_is_another_one_by_now() {
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
async fn a_newer_executable_at_the_same_path_counts_only_where_that_is_said() {
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
async fn a_command_that_only_looks_leaves_nothing_compiled() {
    let argv = ["sh", "-c", "echo $PYTHONDONTWRITEBYTECODE"].map(String::from);
    assert_eq!(
        look(&argv, subject(&me()), &[], LONG).await.unwrap().stdout,
        b"1\n"
    );
    assert_eq!(
        judge(&argv, subject(&me()), LONG).await.unwrap().stdout,
        b"\n"
    );
}

#[tokio::test]
async fn it_has_a_session_and_a_limit_of_its_own_and_no_descriptor_and_no_ignored_signal() {
    let script = "cut -d' ' -f6 /proc/$$/stat; echo $$; ulimit -n; ls /proc/self/fd | wc -l; grep \
                  SigIgn /proc/self/status; cat";
    // As the binary does at its start: a test hands on whatever it was handed.
    close_fds::set_fds_cloexec(3, &[]);
    let said = String::from_utf8(sh(script, LONG).await.unwrap().stdout).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], lines[1], "it leads its session: {said}");
    // Three, and that of the directory.
    assert_eq!(lines[3], "4", "{said}");
    // The C library's own two may be ignored by the program that runs the tests.
    let ignored = u64::from_str_radix(lines[4].trim_start_matches("SigIgn:\t"), 16).unwrap();
    assert_eq!(ignored & !0x1_8000_0000, 0, "{said}");
    assert_eq!(
        lines[2],
        limits::original()
            .0
            .map_or("unlimited".into(), |files| files.to_string()),
        "{said}"
    );
}

/// A process that was started by a path in a virtual environment, and waits.
struct Virtual(std::process::Child);

impl Drop for Virtual {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn an_executable_is_run_by_the_name_that_it_was_started_by() {
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
    // It may be seen between its exec and its arguments.
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
    let said = judge(&argv, subject(&identity), LONG).await.unwrap();
    assert_eq!(
        String::from_utf8_lossy(&said.stdout).trim(),
        name.to_string_lossy()
    );
    // Where it finds its modules by that name, the name is it.
    std::fs::write(dir.path().join("pyvenv.cfg"), "").unwrap();
    assert_eq!(exe(&identity), name);
    std::fs::remove_file(&name).unwrap();
    std::os::unix::fs::symlink("/bin/true", &name).unwrap();
    assert_eq!(exe(&identity), own, "another file stands there by now");
}

#[tokio::test]
async fn whatever_it_started_ends_with_it_and_at_its_limit_however_far_it_went() {
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
        // A busy machine may not have come to the child by then.
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
