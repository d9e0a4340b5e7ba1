#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test says so by failing, and why it is skipped"
)]
use std::process::{Command, Stdio};

use super::*;

#[test]
fn a_process_that_ends_while_it_is_read_is_gone() {
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let process = Proc::open(pid).unwrap();
    assert!(inspect(pid).unwrap().exe.unwrap().ends_with("sleep"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(matches!(read(pid, process), Err(InspectError::Gone)));
    assert!(matches!(inspect(pid), Err(InspectError::Gone)));
}

#[test]
fn a_replaced_executable_is_the_same_program() {
    let dir = tempfile::tempdir().unwrap();
    let exe = dir.path().canonicalize().unwrap().join("program");
    assert!(
        Command::new("cp")
            .arg("/bin/sleep")
            .arg(&exe)
            .status()
            .unwrap()
            .success()
    );
    let mut child = Command::new(&exe).arg("60").spawn().unwrap();
    std::fs::remove_file(&exe).unwrap();
    let one = inspect(i32::try_from(child.id()).unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
    let one = one.unwrap();
    assert!(
        one.exe.as_ref() != Some(&exe) && one.program() == Some(exe),
        "{:?}",
        one.exe
    );
}

#[test]
fn zombies_and_threads_run_no_program() {
    let mut child = Command::new("true").stdout(Stdio::null()).spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !matches!(inspect(pid), Err(InspectError::NoProgram)) {
        assert!(
            std::time::Instant::now() < deadline,
            "it has ended and was not awaited"
        );
        std::thread::yield_now();
    }
    child.wait().unwrap();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || wait.recv());
    let me = i32::try_from(std::process::id()).unwrap();
    let tids = std::fs::read_dir("/proc/self/task").unwrap().map(|t| {
        t.unwrap()
            .file_name()
            .to_str()
            .unwrap()
            .parse::<i32>()
            .unwrap()
    });
    let tid = tids.into_iter().find(|t| *t != me).unwrap();
    assert!(
        matches!(inspect(tid), Err(InspectError::Thread(of)) if of == me)
            || inspect(tid).is_err_and(|e| matches!(e, InspectError::Gone))
    );
    drop(go);
    let _ = thread.join().unwrap();
}

#[test]
fn a_thread_of_the_kernel_runs_no_program() {
    let kernel = procfs::process::all_processes()
        .unwrap()
        .flatten()
        .find(|p| p.stat().is_ok_and(|s| s.flags & KERNEL_THREAD != 0));
    match kernel {
        Some(one) => assert!(matches!(inspect(one.pid()), Err(InspectError::NoProgram))),
        None => eprintln!("skipped: no thread of the kernel is to be seen here"),
    }
}
