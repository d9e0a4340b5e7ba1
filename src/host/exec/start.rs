//! Starts a program again that ended: as the user that it ran as, and without a supervisor.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{
    process::{Child, Command},
    time::timeout,
};

use super::{
    BECOME, limits,
    program::stage,
    request::{Answer, Policy, Request},
    run::{PATH, connected, exchanged},
};
use crate::identity::Credentials;

/// Longest that this binary may take to become the program.
const LIMIT: Duration = Duration::from_secs(30);

/// Starts `argv` as `person`, in `cwd` if that user may enter it. It is no child of a supervisor,
/// and lives on.
///
/// # Errors
/// A sentence without its subject.
pub(crate) async fn start(
    argv: &[String],
    person: &Credentials,
    cwd: &Path,
) -> Result<Child, String> {
    let request = Request {
        policy: Policy::Start(person.clone(), cwd.as_os_str().to_owned()),
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
    match timeout(LIMIT, exchanged(&mut channel, &bytes)).await {
        // The socket is closed by the program that was executed.
        Ok(Ok(None)) => Ok(child),
        Ok(Ok(Some(Answer::NotRun(why)))) => Err(why),
        Ok(said) => Err(format!("was not started: {said:?}")),
        Err(_) => Err(format!("was not started within {LIMIT:?}")),
    }
}
