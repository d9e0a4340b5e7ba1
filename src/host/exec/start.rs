//! Starts a program that ended again, as the user that it ran as and without a supervisor.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{
    process::{Child, Command},
    time::timeout,
};

use super::{
    BECOME, limits,
    program::stage,
    request::{Answer, Policy, Request},
    run::{PATH, connected, exchange},
};
use crate::identity::Credentials;

/// The longest time in which this binary becomes the program.
const LIMIT: Duration = Duration::from_secs(30);

/// Starts `argv` with `credentials`, in `cwd` if that user may enter it. The program has no
/// supervisor and outlives `hello`.
///
/// # Errors
/// Fails if the program was not executed; the text has no subject.
pub(crate) async fn start(
    argv: &[String],
    credentials: &Credentials,
    cwd: &Path,
) -> Result<Child, String> {
    let request = Request {
        policy: Policy::Start(credentials.clone(), cwd.as_os_str().to_owned()),
        argv: argv.iter().map(Into::into).collect(),
        files: limits::original(),
        input: Vec::new(),
    };
    let bytes = request.encode().map_err(|e| e.to_string())?;
    let (command, channel) = stage(BECOME, None).map_err(|e| e.to_string())?;
    let mut command = Command::from(command);
    command
        .env_clear()
        .env("PATH", PATH)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut channel = connected(channel).map_err(|e| e.to_string())?;
    let child = command.spawn().map_err(|e| e.to_string())?;
    drop(command);
    match timeout(LIMIT, exchange(&mut channel, &bytes)).await {
        // The socket is close-on-exec, so no answer means that the program was executed.
        Ok(Ok(None)) => Ok(child),
        Ok(Ok(Some(Answer::NotRun(why)))) => Err(why),
        Ok(answer) => Err(format!("was not started: {answer:?}")),
        Err(_) => Err(format!("was not started within {LIMIT:?}")),
    }
}
