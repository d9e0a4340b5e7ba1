//! A command of the operator that carries a conversation over its stdin and stdout.

use std::{ffi::OsStr, io, process::Stdio};

use nix::{
    errno::Errno,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use super::trusted;

/// A running command. When it is dropped, its process group is ended: `ssh`, and the proxy that it
/// started.
#[derive(Debug)]
pub(crate) struct Conversation {
    child: Child,
    group: Option<Pid>,
    /// The signal that ends it: an agent finishes what it does.
    end: Signal,
}

/// The ends of the three pipes of a command.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) input: ChildStdin,
    pub(crate) output: ChildStdout,
    pub(crate) errors: ChildStderr,
}

/// Starts `argv` in the operator's environment and in a process group of its own: Ctrl-C on the
/// terminal is for this program, which ends the conversation in order.
///
/// # Errors
/// Fails if the program cannot be started.
pub(crate) fn converse(argv: &[String]) -> io::Result<(Conversation, Pipes)> {
    let (program, args) = argv
        .split_first()
        .ok_or_else(|| io::Error::other("the command is empty"))?;
    let found = trusted::find(OsStr::new(program)).map_err(io::Error::other)?;
    let mut child = Command::new(found)
        .arg0(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(input), Some(output), Some(errors)) = pipes else {
        return Err(io::Error::other("a pipe to the command is missing"));
    };
    let group = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .map(Pid::from_raw);
    let pipes = Pipes {
        input,
        output,
        errors,
    };
    let end = Signal::SIGKILL;
    Ok((Conversation { child, group, end }, pipes))
}

impl Conversation {
    /// Declares that the command has reached an agent. What it carries out must not be cut short,
    /// so the command is terminated and not killed from here on.
    pub(crate) fn has_reached_agent(&mut self) {
        self.end = Signal::SIGTERM;
    }

    /// Leaves the command alone from here on: it may be an agent that carries out its batch, and
    /// waits for another connection.
    pub(crate) fn leave(&mut self) {
        self.group = None;
    }

    /// Ends its process group, unless the command was left alone or has ended.
    pub(crate) fn stop(&mut self) {
        // Until the child is waited for, no other process group can have its number.
        if let Some(group) = self.group.take()
            && matches!(self.child.try_wait(), Ok(None))
        {
            match killpg(group, self.end) {
                Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => {}
                Err(e) => tracing::debug!("the process group {group} could not be ended: {e}"),
            }
        }
    }

    /// Waits for the end of the command. Returns its exit code; none if a signal ended it.
    ///
    /// # Errors
    /// Fails if the command cannot be waited for.
    pub(crate) async fn end(&mut self) -> io::Result<Option<i32>> {
        Ok(self.child.wait().await?.code())
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.stop();
    }
}
