//! Runs a command: no shell, as the user of an instance and where that works, a process group of its own, a time limit, and a limited output.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use futures_util::{FutureExt, future::FusedFuture};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::unix::pipe::Receiver,
    process::{Child, Command},
    time::timeout,
};

use crate::host::{placeholders::own_name, user::Person};

const MAX_OUTPUT: u64 = 64 << 10;

/// Where programs are looked for, whatever the operator's own environment says.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a command said and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Output {
    /// Its exit code.
    pub(crate) code: i32,
    /// At most 64 KiB of it; the rest was read and dropped.
    pub(crate) stdout: Vec<u8>,
    /// The same.
    pub(crate) stderr: Vec<u8>,
}

/// Why a command has told nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRun {
    /// There is no process whose user and directory it could have.
    #[error("{0}")]
    NoInstance(String),
    /// No argv.
    #[error("the command is empty")]
    Empty,
    /// The system said no.
    #[error("`{0}` could not be run: {1}")]
    Spawn(String, io::Error),
    /// A shell, `env` or this binary answers so for a program that is not there or may not be executed, or for a place that is not to be had;
    /// with the first line of why.
    #[error("`{0}` could not be run (exit status: {1}){2}")]
    Unrunnable(String, i32, String),
    /// Not by itself.
    #[error("`{0}` was ended by signal {1}")]
    Signal(String, i32),
    /// Its whole process group was ended.
    #[error("`{0}` did not end within {1:?}")]
    Limit(String, Duration),
}

/// As whom a command runs, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunAs {
    /// With these groups.
    pub(crate) person: Person,
    /// Its working directory.
    pub(crate) cwd: PathBuf,
    /// The executable of the instance held open, and the name that it was started by: a program that is this executable is given the same name.
    pub(crate) own: Option<(PathBuf, PathBuf)>,
}

impl RunAs {
    /// As a running process; the directory and the executable are those that it has open, so they end with it.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub(crate) fn of(pid: i32) -> Result<Self, NotRun> {
        let person = Person::of(pid).map_err(NotRun::NoInstance)?;
        let exe = PathBuf::from(format!("/proc/{pid}/exe"));
        Ok(Self { person, cwd: format!("/proc/{pid}/cwd").into(), own: own_name(pid).map(|name| (exe, name)) })
    }
}

/// A staged file or directory and the live path at which the command sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bind {
    /// What is staged.
    pub(crate) from: PathBuf,
    /// Where it is seen; nobody else sees it there.
    pub(crate) to: PathBuf,
}

/// Ends the whole process group when it is dropped before the command has ended.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // One that has ended meanwhile needs no signal.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// Runs `argv` to its end, within `limit`.
///
/// # Errors
/// Why nothing is known of what it would have said.
pub(crate) async fn run(argv: &[String], run_as: &RunAs, limit: Duration) -> Result<Output, NotRun> {
    run_with(argv, run_as, &[], &[], limit).await
}

/// The same for one that only looks: each of `binds` stands at its live path, for this command alone, and it leaves nothing beside what it reads.
///
/// # Errors
/// As [`run`]; with `binds`, also where a mount namespace cannot be had.
pub(crate) async fn look(argv: &[String], run_as: &RunAs, binds: &[Bind], limit: Duration) -> Result<Output, NotRun> {
    // Python would keep what it compiled, and take it for the next candidate of the same second and size.
    run_with(argv, run_as, binds, &[("PYTHONDONTWRITEBYTECODE", "1")], limit).await
}

async fn run_with(argv: &[String], run_as: &RunAs, binds: &[Bind], env: &[(&str, &str)], limit: Duration) -> Result<Output, NotRun> {
    let program = argv.first().ok_or(NotRun::Empty)?.clone();
    let name = run_as.own.as_ref().filter(|(exe, _)| *exe == Path::new(&program)).map(|(_, name)| name);
    let mut command = if binds.is_empty() && !run_as.person.is_other() {
        let mut command = Command::new(&program);
        command.args(&argv[1..]);
        if let Some(name) = name {
            command.arg0(name);
        }
        command
    } else {
        let wrapped: Vec<OsString> = run_as.person.wrap(argv, binds, name);
        let mut command = Command::new("/proc/self/exe");
        command.args(wrapped);
        command
    };
    command.current_dir(&run_as.cwd).env_clear().env("PATH", PATH).envs(env.iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut said = Said::default();
    let status = to_its_end(command, &program, Piped::default(), &mut said, limit).await?;
    match status.code() {
        Some(code @ (126 | 127)) => Err(NotRun::Unrunnable(program, code, why(&said.stderr))),
        Some(code) => Ok(Output { code, stdout: said.stdout, stderr: said.stderr }),
        None => Err(ended_by(program, status)),
    }
}

/// What a command printed, at most 64 KiB each; the rest was read and dropped.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

/// What a command is given, besides its arguments.
#[derive(Debug, Default)]
pub(super) struct Piped {
    /// Written to its stdin, where that is a pipe.
    pub(super) input: Vec<u8>,
    /// The other end of what it prints to, where it was given one; taken for its stdout.
    pub(super) output: Option<Receiver>,
}

/// Runs `command` in a process group of its own, which is ended when this is dropped or the `limit` has passed. What it printed is in `said` even then.
///
/// # Errors
/// It could not be started, or did not end in time.
pub(super) async fn to_its_end(mut command: Command, program: &str, piped: Piped, said: &mut Said, limit: Duration) -> Result<ExitStatus, NotRun> {
    let failed = |e| NotRun::Spawn(program.to_owned(), e);
    let mut child = command.process_group(0).kill_on_drop(true).spawn().map_err(failed)?;
    // It holds what the command prints to, which would have no end otherwise.
    drop(command);
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
    let Ok(status) = timeout(limit, end(&mut child, piped, said)).await else {
        return Err(NotRun::Limit(program.to_owned(), limit));
    };
    let status = status.map_err(failed)?;
    group.0 = None;
    Ok(status)
}

/// Why a command that did not end by itself has no exit code.
pub(super) fn ended_by(program: String, status: ExitStatus) -> NotRun {
    NotRun::Signal(program, std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or_default())
}

/// What this binary says of itself when it cannot become the command. What the command itself said is not repeated: it may have read a secret.
fn why(stderr: &[u8]) -> String {
    let said = String::from_utf8_lossy(stderr);
    said.lines().next().and_then(|line| line.strip_prefix(SAYS)).map_or_else(String::new, |why| format!(": {why}"))
}

/// How the line begins in which `run-as` says why it could not become the command.
pub(crate) const SAYS: &str = "hello run-as: ";

/// Waits for its end while its outputs are read, so that a talkative command never blocks; nor does one that does not read what it is given.
async fn end(child: &mut Child, piped: Piped, said: &mut Said) -> io::Result<ExitStatus> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let Piped { input, output } = piped;
    let give = async {
        if let Some(mut stdin) = stdin {
            // Whoever closes it does not want to know.
            let _ = stdin.write_all(&input).await;
        }
    };
    let first = async {
        match output {
            Some(output) => read(Some(output), &mut said.stdout).await,
            None => read(stdout, &mut said.stdout).await,
        }
    };
    let pipes = async { tokio::join!(give, first, read(stderr, &mut said.stderr)) }.fuse();
    tokio::pin!(pipes);
    loop {
        tokio::select! {
            biased;
            status = child.wait() => {
                if !pipes.is_terminated() {
                    // Something it left behind may hold the pipes open: what is said by then is enough.
                    let _ = timeout(Duration::from_millis(200), &mut pipes).await;
                }
                return status;
            }
            _ = &mut pipes, if !pipes.is_terminated() => {}
        }
    }
}

/// What is past the limit is read and dropped.
async fn read(from: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let _ = (&mut from).take(MAX_OUTPUT).read_to_end(into).await;
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;
    use crate::host::placeholders::exe;

    const LONG: Duration = Duration::from_secs(30);

    fn me() -> i32 {
        i32::try_from(std::process::id()).unwrap()
    }

    async fn sh(script: &str, limit: Duration) -> Result<Output, NotRun> {
        run(&["sh".into(), "-c".into(), script.into()], &RunAs::of(me()).unwrap(), limit).await
    }

    #[tokio::test]
    async fn both_outputs_are_kept_apart_and_cut() {
        let said = sh("head -c 200000 /dev/zero; echo no >&2; exit 3", LONG).await.unwrap();
        assert_eq!((said.code, said.stdout.len(), said.stderr.as_slice()), (3, 64 << 10, &b"no\n"[..]));
    }

    #[tokio::test]
    async fn what_could_not_be_run_says_why() {
        for (script, says) in [("exit 127", "could not be run (exit status: 127)"), ("kill -9 $$", "ended by signal 9")] {
            assert!(sh(script, LONG).await.unwrap_err().to_string().contains(says), "{script}");
        }
        let run_as = RunAs::of(me()).unwrap();
        assert!(run(&["/nowhere/x".into()], &run_as, LONG).await.unwrap_err().to_string().contains("`/nowhere/x` could not be run: No such file"));
        assert!(matches!(run(&[], &run_as, LONG).await, Err(NotRun::Empty)));
        assert!(matches!(RunAs::of(i32::MAX), Err(NotRun::NoInstance(_))));
    }

    #[tokio::test]
    async fn who_only_looks_leaves_nothing_compiled() {
        let argv = ["sh", "-c", "echo $PYTHONDONTWRITEBYTECODE"].map(String::from);
        assert_eq!(look(&argv, &RunAs::of(me()).unwrap(), &[], LONG).await.unwrap().stdout, b"1\n");
        assert_eq!(run(&argv, &RunAs::of(me()).unwrap(), LONG).await.unwrap().stdout, b"\n");
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
        let child = std::process::Command::new(&name).args(["-c", "read wait"]).stdin(Stdio::piped()).spawn().unwrap();
        let child = Virtual(child);
        let pid = i32::try_from(child.0.id()).unwrap();
        let held = PathBuf::from(format!("/proc/{pid}/exe"));
        // It may be seen between its exec and its arguments.
        let deadline = std::time::Instant::now() + LONG;
        while std::fs::read(format!("/proc/{pid}/cmdline")).unwrap().is_empty() {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        assert_eq!(exe(pid), held);
        let argv = [held.to_string_lossy().as_ref(), "-c", "echo $0"].map(String::from);
        let said = run(&argv, &RunAs::of(pid).unwrap(), LONG).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), name.to_string_lossy());
        // Where it finds its modules by that name, the name is it.
        std::fs::write(dir.path().join("pyvenv.cfg"), "").unwrap();
        assert_eq!(exe(pid), name);
        std::fs::remove_file(&name).unwrap();
        std::os::unix::fs::symlink("/bin/true", &name).unwrap();
        assert_eq!(exe(pid), held, "another file stands there by now");
    }

    #[tokio::test]
    async fn past_its_limit_the_whole_group_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("pid");
        let mut limit = Duration::from_millis(200);
        // A busy machine may not have come to the child by then.
        let pid: i32 = loop {
            let ran = sh(&format!("sleep 600 & echo $! >'{}'; wait", there.display()), limit).await;
            assert!(matches!(ran, Err(NotRun::Limit(..))), "{ran:?}");
            match std::fs::read_to_string(&there).unwrap_or_default().trim().parse() {
                Ok(pid) => break pid,
                Err(_) => limit *= 2,
            }
            assert!(limit < LONG);
        };
        let deadline = std::time::Instant::now() + LONG;
        // Whoever adopts it takes in its end.
        let ended = || procfs::process::Process::new(pid).and_then(|p| p.stat()).map_or(true, |stat| stat.state == 'Z');
        while !ended() {
            assert!(std::time::Instant::now() < deadline, "pid {pid} lives on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
