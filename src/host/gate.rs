//! A command of the operator's that judges a wave.

use std::{io, process::Stdio, time::Duration};

use tokio::{net::unix::pipe, process::Command};

use crate::{
    event::{HALTED, Halts, Instance},
    host::command::{self, NotRun, Piped, ended_by, to_its_end},
};

/// Longest that it may take.
const LIMIT: Duration = Duration::from_secs(60);

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its exit code; none where it could not be run or did not end by itself.
    pub exit: Option<i32>,
    /// Why there is no exit code, and what it printed: 64 KiB at most, stdout and stderr as they came.
    pub output: String,
}

/// Runs it as the operator would: as this user, here, with this environment. It is given the instances of the wave on stdin, one JSON object a line.
pub(super) async fn ask(argv: &[String], run: &str, wave: usize, instances: &[&Instance], halts: &mut Halts) -> Said {
    let input = instances.iter().filter_map(|i| serde_json::to_string(i).ok()).flat_map(|line| (line + "\n").into_bytes()).collect();
    let mut said = command::Said::default();
    let ran = tokio::select! {
        biased;
        Ok(_) = halts.wait_for(|n| *n > 0) => Err(HALTED.to_owned()),
        ran = run_it(argv, run, wave, input, &mut said, LIMIT) => ran.map_err(|e| e.to_string()),
    };
    let printed = String::from_utf8_lossy(&said.stdout);
    match ran {
        Ok(code) => Said { exit: Some(code), output: printed.into_owned() },
        Err(why) if printed.is_empty() => Said { exit: None, output: why },
        Err(why) => Said { exit: None, output: format!("{why}\n{printed}") },
    }
}

async fn run_it(argv: &[String], run: &str, wave: usize, input: Vec<u8>, said: &mut command::Said, limit: Duration) -> Result<i32, NotRun> {
    let (program, args) = argv.split_first().ok_or(NotRun::Empty)?;
    let failed = |e: io::Error| NotRun::Spawn(program.clone(), e);
    // One pipe for both, so that what it prints stays in its order.
    let (write, output) = pipe::pipe().map_err(failed)?;
    let write = write.into_blocking_fd().map_err(failed)?;
    let mut command = Command::new(program);
    command.args(args).env("HELLO_RUN", run).env("HELLO_WAVE", wave.to_string());
    command.stdin(Stdio::piped()).stdout(write.try_clone().map_err(failed)?).stderr(write);
    let status = to_its_end(command, program, Piped { input, output: Some(output) }, said, limit).await?;
    status.code().ok_or_else(|| ended_by(program.clone(), status))
}
