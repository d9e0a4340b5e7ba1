//! Starts a program that ended again, as the user that it ran as and without a supervisor.

use std::{io, path::Path, process::Stdio, time::Duration};

use tokio::{
    process::{Child, Command},
    time::timeout,
};

use super::{
    BECOME, limits,
    program::stage,
    request::{Answer, Policy, Request},
    run::{connected, exchange},
    trusted::PATH,
};
use crate::identity::Credentials;

/// The longest time in which this binary becomes the program.
const LIMIT: Duration = Duration::from_secs(30);

/// Why a program was not started. The text has no subject.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The stage that becomes the program could not, as it says.
    #[error("{0}")]
    NotRun(String),
    #[error("was not started: the stage that becomes it sent another answer")]
    Unexpected,
    #[error("was not started within {0:?}")]
    Late(Duration),
}

/// Starts `argv` with `credentials`, in `cwd` if that user may enter it. The program has no
/// supervisor and outlives `hello`.
///
/// # Errors
/// Fails if the program was not executed.
pub(crate) async fn start(
    argv: &[String],
    credentials: &Credentials,
    cwd: &Path,
) -> Result<Child, StartError> {
    let request = Request {
        policy: Policy::Start(credentials.clone(), cwd.as_os_str().to_owned()),
        argv: argv.iter().map(Into::into).collect(),
        files: limits::original(),
        input: Vec::new(),
    };
    let bytes = request.encode()?;
    let (command, channel) = stage(BECOME, None)?;
    let mut command = Command::from(command);
    command
        .env_clear()
        .env("PATH", PATH)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut channel = connected(channel)?;
    let child = command.spawn()?;
    drop(command);
    match timeout(LIMIT, exchange(&mut channel, &bytes)).await {
        // The socket is close-on-exec, so no answer means that the program was executed.
        Ok(Ok(None)) => Ok(child),
        Ok(Ok(Some(Answer::NotRun(why)))) => Err(StartError::NotRun(why)),
        Ok(Ok(Some(_))) => Err(StartError::Unexpected),
        Ok(Err(e)) => Err(e.into()),
        Err(_) => Err(StartError::Late(LIMIT)),
    }
}
