//! Runs a command under its supervisor: a time limit, and a limited output.

use std::{ffi::OsString, io, os::unix::ffi::OsStrExt, path::Path, process::Stdio, time::Duration};

use futures_util::{FutureExt, future::FusedFuture};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::pipe::{Receiver, pipe},
    },
    process::{Child, Command},
    time::timeout,
};

use super::{
    ENDING, SUPERVISE, environ, limits,
    program::stage,
    request::{Answer, Bind, Instance, Leftovers, Policy, Request, World},
};
use crate::{
    host::exec::placeholders::{held, own_name},
    identity::Identity,
};

/// What is kept of each output, in bytes; the rest is read and dropped.
const MAX_OUTPUT: u64 = 64 << 10;

/// The longest answer of a supervisor, in bytes: a path and a sentence.
const MAX_ANSWER: u64 = 64 << 10;

/// How long a process that a command left behind may hold its output open, once the command has
/// ended.
const HELD_OPEN: Duration = Duration::from_millis(200);

/// Where programs are looked for, whatever the operator's own environment says.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a command said and how it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Output {
    /// Its exit code.
    pub(crate) code: i32,
    /// At most 64 KiB of it.
    pub(crate) stdout: Vec<u8>,
    /// The same.
    pub(crate) stderr: Vec<u8>,
}

/// Why a command has told nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// No argv.
    #[error("the command is empty")]
    Empty,
    /// The system, or a check before the command, said no.
    #[error("`{0}` could not be run: {1}")]
    Spawn(String, String),
    /// A shell or `env` answers so for a program that is not there or may not be executed.
    #[error("`{0}` could not be run (exit status: {1})")]
    Unrunnable(String, i32),
    /// Not by itself.
    #[error("`{0}` was ended by signal {1}")]
    Signal(String, i32),
    /// Everything that it started was ended.
    #[error("`{0}` did not end within {1:?}")]
    Limit(String, Duration),
    /// Processes of it live on.
    #[error("`{0}` left processes behind that could not be ended")]
    Left(String),
    /// What it answered says nothing of its config.
    #[error(
        "`{0}` wrote to more than the 64 MiB that are kept until its end (a file counts whole \
         once it is opened for writing, a log as well), so its answer does not count"
    )]
    Filled(String),
}

/// The process that a command is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) identity: &'a Identity,
    /// The path of its executable, where a newer one at that path counts as the same: a process may
    /// execute itself again.
    pub(crate) renewed: Option<&'a Path>,
}

/// Runs `argv` about an instance to its end, within `limit`.
///
/// # Errors
/// Why nothing is known of what it would have said.
pub(crate) async fn judge(
    argv: &[String],
    subject: Subject<'_>,
    limit: Duration,
) -> Result<Output, RunError> {
    about(argv, subject, World::Files, &[], &[], limit).await
}

/// The same in the environment of its instance. Of the values of that nothing is left in what it
/// says to stderr.
///
/// # Errors
/// As [`judge`].
pub(crate) async fn inform(
    argv: &[String],
    subject: Subject<'_>,
    limit: Duration,
) -> Result<Output, RunError> {
    let environment = environ::of(subject.identity.pid);
    let mut output = about(argv, subject, World::Environment, &[], &[], limit).await?;
    environment
        .iter()
        .for_each(|environment| environment.mask(&mut output.stderr));
    Ok(output)
}

/// The same for a command that is asked for paths: nothing is masked in what it says, and its
/// writes are discarded.
///
/// # Errors
/// As [`look`].
pub(crate) async fn read(
    argv: &[String],
    subject: Subject<'_>,
    limit: Duration,
) -> Result<Output, RunError> {
    about(argv, subject, World::View, &[], &[], limit).await
}

/// The same for a command that only looks: it sees each of `binds` at its live path, and what it
/// writes is discarded. Of the values of the environment nothing is left in what it says.
///
/// # Errors
/// As [`judge`]; also where such a view of the files cannot be had, or it wrote more than can be
/// kept.
pub(crate) async fn look(
    argv: &[String],
    subject: Subject<'_>,
    binds: &[Bind],
    limit: Duration,
) -> Result<Output, RunError> {
    let shown = argv
        .iter()
        .map(String::as_bytes)
        .chain(binds.iter().map(|bind| bind.to.as_os_str().as_bytes()));
    let environment =
        environ::of(subject.identity.pid).map(|environment| environment.without(shown));
    // Python would keep what it compiled, and take it for the next candidate of the same second and
    // size.
    let mut output = about(
        argv,
        subject,
        World::View,
        binds,
        &[("PYTHONDONTWRITEBYTECODE", "1")],
        limit,
    )
    .await?;
    for text in [&mut output.stdout, &mut output.stderr] {
        environment
            .iter()
            .for_each(|environment| environment.mask(text));
    }
    Ok(output)
}

async fn about(
    argv: &[String],
    subject: Subject<'_>,
    world: World,
    binds: &[Bind],
    env: &[(&str, &str)],
    limit: Duration,
) -> Result<Output, RunError> {
    let program = argv.first().ok_or(RunError::Empty)?;
    let Subject { identity, renewed } = subject;
    let is_own = Path::new(program) == held(identity);
    let instance = Instance {
        pid: identity.pid,
        started: identity.started,
        exe: identity.exe,
        renewed: renewed.map(|path| path.as_os_str().to_owned()),
        person: (*identity.person).clone(),
        own: is_own.then(|| own_name(identity.pid).map_or_else(|| program.into(), OsString::from)),
        world,
        binds: binds.to_vec(),
        entered: false,
    };
    let (mut command, channel) = supervisor(program)?;
    command
        .env_clear()
        .env("PATH", PATH)
        .envs(env.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut output = Output::default();
    let run = Run {
        channel,
        request: request(Policy::Judge(Box::new(instance)), argv),
        shared: None,
    };
    let code = run.run_out(command, program, &mut output, limit).await?;
    match code {
        126 | 127 => Err(RunError::Unrunnable(program.clone(), code)),
        code => Ok(Output { code, ..output }),
    }
}

/// Runs a command of the operator's, with its environment and `env`; it reads `input`. What it
/// prints is in `output`, stdout and stderr as they came, also where it has no exit code.
///
/// # Errors
/// Why it has none.
pub(crate) async fn operators(
    argv: &[String],
    env: &[(&str, &str)],
    input: Vec<u8>,
    output: &mut Output,
    limit: Duration,
) -> Result<i32, RunError> {
    let program = argv.first().ok_or(RunError::Empty)?;
    let failed = |e: io::Error| RunError::Spawn(program.clone(), e.to_string());
    // One pipe for both, so that what it prints stays in its order.
    let (write, shared) = pipe().map_err(failed)?;
    let write = write.into_blocking_fd().map_err(failed)?;
    let (mut command, channel) = supervisor(program)?;
    command
        .envs(env.iter().copied())
        .stdout(write.try_clone().map_err(failed)?)
        .stderr(write);
    let request = Request {
        input,
        ..request(Policy::Own(Leftovers::Kept), argv)
    };
    Run {
        channel,
        request,
        shared: Some(shared),
    }
    .run_out(command, program, output, limit)
    .await
}

/// Asks a program of the system as the caller, in a clean environment; what it printed, if it ended
/// well and in time.
pub(crate) async fn query(argv: &[String], limit: Duration) -> Option<Vec<u8>> {
    let program = argv.first()?;
    let (mut command, channel) = supervisor(program).ok()?;
    command
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut output = Output::default();
    let run = Run {
        channel,
        request: request(Policy::Own(Leftovers::Ended), argv),
        shared: None,
    };
    let code = run
        .run_out(command, program, &mut output, limit)
        .await
        .ok()?;
    (code == 0).then_some(output.stdout)
}

fn request(policy: Policy, argv: &[String]) -> Request {
    Request {
        policy,
        argv: argv.iter().map(OsString::from).collect(),
        files: limits::original(),
        input: Vec::new(),
    }
}

fn supervisor(program: &str) -> Result<(Command, std::os::unix::net::UnixStream), RunError> {
    let (command, channel) =
        stage(SUPERVISE, None).map_err(|e| RunError::Spawn(program.to_owned(), e.to_string()))?;
    Ok((command.into(), channel))
}

/// A command that is about to run.
struct Run {
    channel: std::os::unix::net::UnixStream,
    request: Request,
    /// The other end of what it prints to, where that is one pipe; taken for its stdout.
    shared: Option<Receiver>,
}

impl Run {
    /// Runs `command`, which is its supervisor. When this is dropped, the supervisor ends
    /// everything.
    ///
    /// # Errors
    /// It could not be run, or has no exit code.
    async fn run_out(
        self,
        mut command: Command,
        program: &str,
        output: &mut Output,
        limit: Duration,
    ) -> Result<i32, RunError> {
        let Self {
            channel,
            request,
            shared,
        } = self;
        let failed = |e: io::Error| RunError::Spawn(program.to_owned(), e.to_string());
        let bytes = request.encode().map_err(failed)?;
        let mut channel = connected(channel).map_err(failed)?;
        let mut child = command.spawn().map_err(failed)?;
        // It holds what the command prints to, and the other end of the socket, which would have no
        // end otherwise.
        drop(command);
        let Ok(answer) = timeout(
            limit,
            ended(&mut child, &mut channel, &bytes, shared, output),
        )
        .await
        else {
            drop(channel);
            // It takes what it needs to end everything, and is left alone after that.
            let _ = timeout(ENDING * 2, child.wait()).await;
            return Err(RunError::Limit(program.to_owned(), limit));
        };
        let _ = timeout(ENDING, child.wait()).await;
        match answer.map_err(failed)? {
            Answer::Ended(code) => Ok(code),
            Answer::Signalled(signal) => Err(RunError::Signal(program.to_owned(), signal)),
            Answer::NotRun(why) => Err(RunError::Spawn(program.to_owned(), why)),
            Answer::Left => Err(RunError::Left(program.to_owned())),
            Answer::Filled => Err(RunError::Filled(program.to_owned())),
        }
    }
}

/// The end of the socket that this process keeps.
pub(super) fn connected(channel: std::os::unix::net::UnixStream) -> io::Result<UnixStream> {
    channel.set_nonblocking(true)?;
    UnixStream::from_std(channel)
}

/// Sends a request, and reads what comes back until the socket is closed; none where that is
/// nothing.
pub(super) async fn exchanged(
    channel: &mut UnixStream,
    request: &[u8],
) -> io::Result<Option<Answer>> {
    // A stage that could not even read it says so, or ends.
    let _ = channel.write_all(request).await;
    let mut sent = Vec::new();
    // One that ended without reading all resets the socket.
    let _ = channel.take(MAX_ANSWER).read_to_end(&mut sent).await;
    if sent.is_empty() {
        Ok(None)
    } else {
        Ok(Some(serde_json::from_slice(&sent)?))
    }
}

/// Waits for the answer while the outputs are read, so that a talkative command never blocks.
async fn ended(
    child: &mut Child,
    channel: &mut UnixStream,
    request: &[u8],
    shared: Option<Receiver>,
    output: &mut Output,
) -> io::Result<Answer> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let first = async {
        match shared {
            Some(shared) => drain(Some(shared), &mut output.stdout).await,
            None => drain(stdout, &mut output.stdout).await,
        }
    };
    let pipes = async { tokio::join!(first, drain(stderr, &mut output.stderr)) }.fuse();
    let answer = exchanged(channel, request);
    tokio::pin!(pipes, answer);
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => {
                if !pipes.is_terminated() {
                    let _ = timeout(HELD_OPEN, &mut pipes).await;
                }
                return answer?.ok_or_else(|| io::Error::other("its supervisor ended"));
            }
            _ = &mut pipes, if !pipes.is_terminated() => {}
        }
    }
}

/// What is past the limit is read and dropped.
async fn drain(from: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let _ = (&mut from).take(MAX_OUTPUT).read_to_end(into).await;
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
}

#[cfg(test)]
mod tests;
