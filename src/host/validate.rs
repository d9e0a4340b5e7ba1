//! Runs a validator: no shell, as the instance's user, a process group of its own, a time limit, and a limited output.

use std::{process::Stdio, time::Duration};

use futures_util::{FutureExt, future::FusedFuture};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    time::timeout,
};

use crate::host::user::Person;

const LIMIT: Duration = Duration::from_secs(30);
const MAX_OUTPUT: u64 = 64 << 10;

/// Why a candidate has not passed its validator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotPassed {
    /// The validator looked at it and says no.
    #[error("{0}")]
    Refused(String),
    /// The validator could not be run, so nothing is known: it has refused nothing.
    #[error("{0}")]
    NotRun(String),
}

/// One validation.
#[derive(Debug)]
pub(super) struct Job {
    /// Filled in already.
    pub(super) argv: Vec<String>,
    /// The instance as whose user, and in whose working directory, it runs.
    pub(super) pid: i32,
    /// Whether what it says is not repeated.
    pub(super) secret: bool,
}

/// Ends the whole process group when it is dropped before the validator has ended.
struct Group(Option<nix::unistd::Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // One that has ended meanwhile needs no signal.
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// Runs it to its end, at most 30 s.
///
/// # Errors
/// What it said, when it refused; or why it could not be run.
pub(super) async fn run(job: &Job) -> Result<(), NotPassed> {
    let not_run = NotPassed::NotRun;
    let program = job.argv.first().ok_or_else(|| not_run("`validate` is empty".into()))?;
    let person = Person::of(job.pid).map_err(not_run)?;
    let argv = if person.is_other() { person.wrap(&job.argv) } else { job.argv.clone() };
    let mut command = Command::new(&argv[0]);
    command
        .args(&argv[1..])
        .current_dir(format!("/proc/{}/cwd", job.pid))
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|e| not_run(format!("the validator `{program}` could not be run: {e}")))?;
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(nix::unistd::Pid::from_raw));
    let Ok((status, said)) = timeout(LIMIT, end(&mut child)).await else {
        return Err(not_run(format!("the validator `{program}` did not end within {LIMIT:?}")));
    };
    let status = status.map_err(|e| not_run(format!("the validator `{program}`: {e}")))?;
    group.0 = None;
    if status.success() {
        return Ok(());
    }
    // What a shell and `env` answer for a program that is not there or may not be executed.
    if matches!(status.code(), Some(126 | 127)) {
        return Err(not_run(format!("the validator `{program}` could not be run ({status})")));
    }
    if job.secret {
        return Err(NotPassed::Refused(format!("the validator `{program}` says no ({status}); its output is not shown, since the config is a secret")));
    }
    Err(NotPassed::Refused(format!("the validator `{program}` says no ({status}): {}", String::from_utf8_lossy(&said).trim())))
}

/// Waits for its end while both its outputs are read, so that a talkative validator never blocks.
async fn end(child: &mut Child) -> (std::io::Result<std::process::ExitStatus>, Vec<u8>) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let status = {
        let reads = async { tokio::join!(read(stdout, &mut out), read(stderr, &mut err)) }.fuse();
        tokio::pin!(reads);
        loop {
            tokio::select! {
                biased;
                status = child.wait() => {
                    if !reads.is_terminated() {
                        // Something it left behind may hold the pipes open: what is said by then is enough.
                        let _ = timeout(Duration::from_millis(200), &mut reads).await;
                    }
                    break status;
                }
                _ = &mut reads, if !reads.is_terminated() => {}
            }
        }
    };
    err.extend(out);
    (status, err)
}

/// What is past the limit is read and dropped.
async fn read(from: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let _ = (&mut from).take(MAX_OUTPUT).read_to_end(into).await;
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
}
