//! Runs a command under its supervisor, with a time limit and a limited output.

use std::{ffi::OsString, io, os::unix::ffi::OsStrExt, path::Path, process::Stdio, time::Duration};

use futures_util::{FutureExt, future::FusedFuture};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{UnixStream, unix::pipe::Receiver},
    process::{Child, Command},
    time::timeout,
};

use super::{
    ENDING, SUPERVISE, environ, limits,
    program::stage,
    request::{Answer, Bind, Instance, Policy, Request, World},
    trusted::PATH,
};
use crate::{
    host::exec::placeholders::{held, own_name},
    identity::Identity,
};

/// The most bytes of each output that are kept; the rest is read and dropped. A message needs a few
/// KiB.
pub(super) const MAX_OUTPUT: u64 = 64 << 10;

/// The longest answer of a supervisor, in bytes: room for a path and a sentence.
const MAX_ANSWER: u64 = 64 << 10;

/// The longest wait for the end of the output after a command has ended. A process that it left
/// behind may hold the output open.
const HELD_OPEN: Duration = Duration::from_millis(200);

/// The output and the exit code of a command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Output {
    /// Its exit code.
    pub(crate) code: i32,
    /// At most 64 KiB of its stdout, unless the caller sets another limit.
    pub(crate) stdout: Vec<u8>,
    /// At most 64 KiB of its stderr.
    pub(crate) stderr: Vec<u8>,
}

/// Why a command gave no result.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum RunError {
    /// The argv has no program.
    #[error("the command is empty")]
    Empty,
    /// A system call, or a check before the command, failed.
    #[error("`{0}` could not be run: {1}")]
    Spawn(String, String),
    /// Exit status 126 or 127: a shell or `env` did not find the program, or may not execute it.
    #[error("`{0}` could not be run (exit status: {1})")]
    Unrunnable(String, i32),
    /// A signal ended it.
    #[error("`{0}` was ended by signal {1}")]
    Signal(String, i32),
    /// It was started, and its end is not known.
    #[error("`{0}` was started, and its end is not known: {1}")]
    Lost(String, String),
    /// It exceeded its time limit, and all its processes were ended.
    #[error("`{0}` did not end within {1:?}")]
    Limit(String, Duration),
    /// Some of its processes could not be ended.
    #[error("`{0}` left processes behind that could not be ended")]
    Left(String),
    /// It wrote more than the layers hold, so its result proves nothing about the config.
    #[error(
        "`{0}` wrote to more than the 64 MiB that are kept until its end (a file counts whole \
         once it is opened for writing, a log as well), so its result does not count"
    )]
    Filled(String),
}

impl RunError {
    /// Returns the program of the command, as the error names it.
    pub(crate) fn program_mut(&mut self) -> Option<&mut String> {
        match self {
            Self::Empty => None,
            Self::Spawn(program, _)
            | Self::Unrunnable(program, _)
            | Self::Signal(program, _)
            | Self::Lost(program, _)
            | Self::Limit(program, _)
            | Self::Left(program)
            | Self::Filled(program) => Some(program),
        }
    }
}

/// The process that a command is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) identity: &'a Identity,
    /// The path of its executable, if a newer file at that path counts as the same program, because
    /// the process may execute itself again.
    pub(crate) renewed: Option<&'a Path>,
}

/// Runs `argv` for an instance within `limit`, in a clean environment.
///
/// # Errors
/// Fails if the command gave no result.
pub(crate) async fn judge(
    argv: &[String],
    subject: Subject<'_>,
    limit: Duration,
) -> Result<Output, RunError> {
    run_for_instance(argv, subject, World::Files, &[], &[], limit).await
}

/// Runs the command by which an instance reloads, as [`judge`] does. Any exit code is a result.
///
/// # Errors
/// Fails if the command was not run, or if it has no exit code.
pub(crate) async fn ask(
    argv: &[String],
    subject: Subject<'_>,
    limit: Duration,
) -> Result<Output, RunError> {
    run_to_any_end(argv, subject, World::Files, &[], &[], limit).await
}

/// Runs `argv` in the environment of its instance, and masks the values of that in stderr.
///
/// # Errors
/// Fails as [`judge`] does.
pub(crate) async fn inform(
    argv: &[String],
    subject: Subject<'_>,
    limit: Duration,
) -> Result<Output, RunError> {
    let environment = environ::of(subject.identity.pid);
    let mut output = run_for_instance(argv, subject, World::Environment, &[], &[], limit).await?;
    environment
        .iter()
        .for_each(|environment| environment.mask(&mut output.stderr));
    Ok(output)
}

/// Runs a command that prints paths: its output is not masked, and its writes are discarded.
///
/// # Errors
/// Fails as [`judge_in_view`] does.
pub(crate) async fn read(
    argv: &[String],
    subject: Subject<'_>,
    limit: Duration,
) -> Result<Output, RunError> {
    run_for_instance(argv, subject, World::View, &[], &[], limit).await
}

/// Runs a command that sees each of `binds` at its live path, and discards its writes. The values
/// of the environment of its instance are masked in its output.
///
/// # Errors
/// Fails as [`judge`] does; also if no such view of the files can be built, or the command wrote
/// more than the layers hold.
pub(crate) async fn judge_in_view(
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
    // Python caches compiled files by the time in seconds and the size of the source, so it would
    // use the cache of one candidate for the next.
    let mut output = run_for_instance(
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

async fn run_for_instance(
    argv: &[String],
    subject: Subject<'_>,
    world: World,
    binds: &[Bind],
    env: &[(&str, &str)],
    limit: Duration,
) -> Result<Output, RunError> {
    let output = run_to_any_end(argv, subject, world, binds, env, limit).await?;
    match (output.code, argv.first()) {
        (code @ (126 | 127), Some(program)) => Err(RunError::Unrunnable(program.clone(), code)),
        _ => Ok(output),
    }
}

async fn run_to_any_end(
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
        credentials: (*identity.person).clone(),
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
        max_stdout: MAX_OUTPUT,
    };
    let code = run.run_to_end(command, program, &mut output, limit).await?;
    Ok(Output { code, ..output })
}

/// Returns a request without input.
pub(super) fn request(policy: Policy, argv: &[String]) -> Request {
    Request {
        policy,
        argv: argv.iter().map(OsString::from).collect(),
        files: limits::original(),
        input: Vec::new(),
    }
}

/// Returns the supervisor of a command before it starts, and the socket to it.
pub(super) fn supervisor(
    program: &str,
) -> Result<(Command, std::os::unix::net::UnixStream), RunError> {
    let (command, channel) =
        stage(SUPERVISE, None).map_err(|e| RunError::Spawn(program.to_owned(), e.to_string()))?;
    Ok((command.into(), channel))
}

/// A command before it runs.
pub(super) struct Run {
    pub(super) channel: std::os::unix::net::UnixStream,
    pub(super) request: Request,
    /// The read end of the pipe for stdout and stderr, if they share one.
    pub(super) shared: Option<Receiver>,
    /// The most bytes of stdout that are kept; the rest is read and dropped.
    pub(super) max_stdout: u64,
}

impl Run {
    /// Runs the supervisor `command` until the command ends. If the future is dropped, the
    /// supervisor ends all processes.
    ///
    /// # Errors
    /// Fails if the command could not be run or has no exit code.
    pub(super) async fn run_to_end(
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
            max_stdout,
        } = self;
        let failed = |e: io::Error| RunError::Spawn(program.to_owned(), e.to_string());
        let bytes = request.encode().map_err(failed)?;
        let mut channel = connected(channel).map_err(failed)?;
        let mut child = command.spawn().map_err(failed)?;
        // It holds the write ends of the pipes and the other end of the socket. The readers would
        // never see their end otherwise.
        drop(command);
        let Ok(answer) = timeout(
            limit,
            answer_and_output(
                &mut child,
                &mut channel,
                &bytes,
                (shared, max_stdout),
                output,
            ),
        )
        .await
        else {
            drop(channel);
            // The supervisor gets time to end all processes.
            let _ = timeout(ENDING * 2, child.wait()).await;
            return Err(RunError::Limit(program.to_owned(), limit));
        };
        let _ = timeout(ENDING, child.wait()).await;
        let lost = |e: io::Error| RunError::Lost(program.to_owned(), e.to_string());
        match answer.map_err(lost)? {
            Answer::Ended(code) => Ok(code),
            Answer::Signalled(signal) => Err(RunError::Signal(program.to_owned(), signal)),
            Answer::NotRun(why) => Err(RunError::Spawn(program.to_owned(), why)),
            Answer::Left => Err(RunError::Left(program.to_owned())),
            Answer::Filled => Err(RunError::Filled(program.to_owned())),
        }
    }
}

/// Returns this process's end of the socket for tokio.
pub(super) fn connected(channel: std::os::unix::net::UnixStream) -> io::Result<UnixStream> {
    channel.set_nonblocking(true)?;
    UnixStream::from_std(channel)
}

/// Sends a request and reads the answer until the socket is closed; none if no answer came.
pub(super) async fn exchange(
    channel: &mut UnixStream,
    request: &[u8],
) -> io::Result<Option<Answer>> {
    // A stage that cannot read the request answers so, or ends.
    let _ = channel.write_all(request).await;
    let mut answer = Vec::new();
    // The socket is reset if the stage ended before it read everything (unix(7)).
    let _ = channel.take(MAX_ANSWER).read_to_end(&mut answer).await;
    if answer.is_empty() {
        Ok(None)
    } else {
        Ok(Some(serde_json::from_slice(&answer)?))
    }
}

/// Waits for the answer and reads the outputs meanwhile, so that the command never blocks on a full
/// pipe.
async fn answer_and_output(
    child: &mut Child,
    channel: &mut UnixStream,
    request: &[u8],
    (shared, max_stdout): (Option<Receiver>, u64),
    output: &mut Output,
) -> io::Result<Answer> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let first = async {
        match shared {
            Some(shared) => drain(Some(shared), max_stdout, &mut output.stdout).await,
            None => drain(stdout, max_stdout, &mut output.stdout).await,
        }
    };
    let pipes = async { tokio::join!(first, drain(stderr, MAX_OUTPUT, &mut output.stderr)) }.fuse();
    let answer = exchange(channel, request);
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

/// Reads an output to its end, and keeps the first `max` bytes.
async fn drain(from: Option<impl AsyncRead + Unpin>, max: u64, into: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let _ = (&mut from).take(max).read_to_end(into).await;
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
}

#[cfg(test)]
mod tests;
