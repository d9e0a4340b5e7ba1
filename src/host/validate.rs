//! Runs a validator: no shell, a process group of its own, a time limit, and a limited output.

use std::{
    io::Read,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const LIMIT: Duration = Duration::from_secs(30);
const MAX_OUTPUT: u64 = 64 << 10;

/// Why a candidate has not passed its validator.
#[derive(Debug, thiserror::Error)]
pub enum NotPassed {
    /// The validator looked at it and says no.
    #[error("{0}")]
    Refused(String),
    /// The validator could not be run, so nothing is known: it has refused nothing.
    #[error("{0}")]
    NotRun(String),
}

/// Runs `argv` to its end. What it says of a config that is not `public` is not repeated.
///
/// # Errors
/// What it said, when it refused; or why it could not be run.
pub fn run(argv: &[String], public: bool) -> Result<(), NotPassed> {
    let not_run = |why: String| NotPassed::NotRun(why);
    let (program, args) = argv.split_first().ok_or_else(|| not_run("`validate` is empty".into()))?;
    let (mut output, input) = std::io::pipe().map_err(|e| not_run(e.to_string()))?;
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .stdout(input.try_clone().map_err(|e| not_run(e.to_string()))?)
        .stderr(input)
        .process_group(0)
        .spawn()
        .map_err(|e| not_run(format!("the validator `{program}` could not be run: {e}")))?;
    // Read aside and to the end, so that a talkative validator never blocks; what is past the limit is dropped.
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut said = Vec::new();
        let _ = output.by_ref().take(MAX_OUTPUT).read_to_end(&mut said);
        let _ = tell.send(said);
        let _ = std::io::copy(&mut output, &mut std::io::sink());
    });
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        match child.try_wait().map_err(|e| not_run(e.to_string()))? {
            Some(status) => break status,
            None if Instant::now() >= deadline => {
                let group = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
                let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
                let _ = child.wait();
                return Err(not_run(format!("the validator `{program}` did not end within {LIMIT:?}")));
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    if status.success() {
        return Ok(());
    }
    // What a shell and `env` answer for a program that is not there or may not be executed.
    if matches!(status.code(), Some(126 | 127)) {
        return Err(not_run(format!("the validator `{program}` could not be run ({status})")));
    }
    if !public {
        return Err(NotPassed::Refused(format!(
            "the validator `{program}` says no ({status}); its output is not shown, since the config is not world-readable"
        )));
    }
    // Something it left behind may hold the pipe open: what was said by then is enough.
    let said = told.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
    Err(NotPassed::Refused(format!("the validator `{program}` says no ({status}): {}", String::from_utf8_lossy(&said).trim())))
}
