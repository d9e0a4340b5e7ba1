//! Commands with the identity of the caller: of the operator, and of the system.

use std::{io, process::Stdio, time::Duration};

use tokio::net::unix::pipe::pipe;

use super::{
    request::{Leftovers, Policy, Request},
    run::{MAX_OUTPUT, Output, Run, RunError, request, supervisor},
};

/// Runs a command of the operator in the operator's environment with `env`, and `input` on stdin.
/// `output` gets stdout and stderr in their order, also if there is no exit code.
///
/// # Errors
/// Fails if the command has no exit code.
pub(crate) async fn operators(
    argv: &[String],
    env: &[(&str, &str)],
    input: Vec<u8>,
    output: &mut Output,
    limit: Duration,
) -> Result<i32, RunError> {
    let program = argv.first().ok_or(RunError::Empty)?;
    let failed = |e: io::Error| RunError::Spawn(program.clone(), e.to_string());
    // Stdout and stderr share one pipe, which keeps their order.
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
        max_stdout: MAX_OUTPUT,
    }
    .run_to_end(command, program, output, limit)
    .await
}

/// Runs a command of the operator in the operator's environment, with `input` on stdin. The output
/// has at most `max` bytes of stdout, and one more if there were more.
///
/// # Errors
/// Fails if the command has no exit code.
pub(crate) async fn fetch(
    argv: &[String],
    input: Vec<u8>,
    max: usize,
    limit: Duration,
) -> Result<Output, RunError> {
    let program = argv.first().ok_or(RunError::Empty)?;
    let (mut command, channel) = supervisor(program)?;
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = Run {
        channel,
        request: Request {
            input,
            ..request(Policy::Own(Leftovers::Ended), argv)
        },
        shared: None,
        max_stdout: u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1),
    };
    let mut output = Output::default();
    match run.run_to_end(command, program, &mut output, limit).await? {
        code @ (126 | 127) => Err(RunError::Unrunnable(program.clone(), code)),
        code => Ok(Output { code, ..output }),
    }
}

/// Runs a system program as the caller, in a clean environment. Returns its stdout if it exited
/// with 0 within `limit`.
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
        max_stdout: MAX_OUTPUT,
    };
    let code = run
        .run_to_end(command, program, &mut output, limit)
        .await
        .ok()?;
    (code == 0).then_some(output.stdout)
}
