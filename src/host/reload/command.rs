//! Runs the command of a group that makes an instance reload.

use std::{path::Path, time::Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    event::{Failure, Outcome},
    host::{
        exec::{
            self, Output, RunError, Subject,
            placeholders::{self, NoValue},
            quoted,
        },
        probe::values::values_of,
        proc::pidfd::{SignalError, SignalledProcess, has_ended, there},
    },
    step::PlannedInstance,
};

/// The most commands that run at once. Each is three processes.
const AT_ONCE: usize = 64;

/// The permits of these.
static PERMITS: Semaphore = Semaphore::const_new(AT_ONCE);

/// The right to run one command now. None after the semaphore was closed, which never happens.
pub(super) type Permit = Option<SemaphorePermit<'static>>;

/// Waits until one more command may run. What is checked right before a command is checked after
/// this wait.
pub(super) async fn permit() -> Permit {
    PERMITS.acquire().await.ok()
}

/// The most bytes of a command's last line that are kept.
const MAX_LINE: usize = 500;

/// What is kept of each output (64 KiB): of a longer one, the last line is not known.
const MAX_OUTPUT: usize = 64 << 10;

/// Returns the command of the group with the values of this instance.
///
/// # Errors
/// Fails if the instance does not have a value.
pub(crate) fn filled(member: &PlannedInstance) -> Result<Vec<String>, NoValue> {
    filled_for(member, &placeholders::exe(&member.identity))
}

/// Returns the command as [`filled`] does, with the path of the executable instead of the one that
/// only leads to this process.
///
/// # Errors
/// Fails if the instance does not have a value.
pub(crate) fn filled_by_path(member: &PlannedInstance) -> Result<Vec<String>, NoValue> {
    filled_for(member, &member.instance.exe)
}

fn filled_for(member: &PlannedInstance, exe: &Path) -> Result<Vec<String>, NoValue> {
    values_of(member, exe).fill(&member.group.reload_by)
}

/// Runs the command of the group of `member`, at most its timeout, as its user. `pidfd` holds the
/// instance, which was checked right before. Returns the instance as asked: nothing is proven by
/// that. `on_wait` is called before the command starts. The output of a command about a `secret` is
/// not shown.
///
/// The command goes on where the instance ends: it may be about to start another process.
///
/// # Errors
/// Fails if the command was not run, did not end within the timeout, or ended with another status
/// than 0.
pub(super) async fn ask(
    member: &mut PlannedInstance,
    pidfd: std::os::fd::OwnedFd,
    secret: bool,
    _permit: Permit,
) -> Result<SignalledProcess, Failure> {
    let argv = filled(member).map_err(|why| failed(Outcome::Refused, why.to_string()))?;
    let signalled = SignalledProcess {
        pid: member.instance.pid,
        started: member.instance.started,
        pidfd,
        at: Instant::now(),
        when: jiff::Timestamp::now(),
    };
    let before = member.signalled.replace(signalled.when);
    let subject = Subject {
        identity: &member.identity,
        // The process may have executed itself again for an earlier config.
        renewed: Some(&member.instance.exe),
    };
    let name = |argv: &[String]| format!("`{}`", quoted(argv));
    match exec::ask(&argv, subject, member.timeout).await {
        Ok(Output { code: 0, .. }) => Ok(signalled),
        Ok(output) => {
            let text = format!(
                "{} ended with exit status {}{}",
                name(&argv),
                output.code,
                last_line(&output, secret)
            );
            Err(if has_ended(&signalled.pidfd) {
                failed(Outcome::Died, format!("the process ended, and {text}"))
            } else {
                failed(Outcome::Rejected, text)
            })
        }
        Err(why @ (RunError::Empty | RunError::Spawn(..))) => {
            member.signalled = before;
            Err(match there(&member.instance) {
                Err(SignalError::Gone(text)) => failed(Outcome::Died, text),
                _ => failed(Outcome::Refused, why.to_string()),
            })
        }
        Err(why) if has_ended(&signalled.pidfd) => Err(failed(
            Outcome::Died,
            format!("the process ended, and {why}"),
        )),
        Err(why) => Err(failed(
            Outcome::TimedOut,
            format!("{why}, and it may have asked for a reload"),
        )),
    }
}

fn failed(outcome: Outcome, text: String) -> Failure {
    Failure {
        kind: outcome.into(),
        text,
    }
}

/// Returns the end of a sentence: the last line of stderr, else of stdout.
fn last_line(output: &Output, secret: bool) -> String {
    if secret {
        return "; its output is not shown, since the config is a secret".into();
    }
    let is_whole = |bytes: &&Vec<u8>| bytes.len() < MAX_OUTPUT;
    let outputs = [&output.stderr, &output.stdout];
    let last = outputs.into_iter().filter(is_whole).find_map(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty());
        line.map(str::to_owned)
    });
    match last {
        Some(line) => {
            let line: String = line
                .chars()
                .map(|c| {
                    if c.is_control() {
                        char::REPLACEMENT_CHARACTER
                    } else {
                        c
                    }
                })
                .collect();
            let end = line.floor_char_boundary(MAX_LINE);
            let more = if end < line.len() { " .." } else { "" };
            format!(": {}{more}", &line[..end])
        }
        None if outputs.iter().all(is_whole) => String::new(),
        None => "; it printed more than 64 KiB, so its last line is not known".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(stdout: &str, stderr: &str) -> String {
        let output = Output {
            code: 1,
            stdout: stdout.into(),
            stderr: stderr.into(),
        };
        last_line(&output, false)
    }

    #[test]
    fn the_reason_is_the_last_line_of_stderr_or_else_of_stdout() {
        assert_eq!(
            shown("out\n", "first\nlast \x1b[1m\n\n"),
            ": last \u{fffd}[1m"
        );
        assert_eq!(shown("first\nlast", " \n"), ": last");
        assert_eq!(shown("", ""), "");
    }

    #[test]
    fn the_last_line_of_an_output_that_is_not_kept_whole_is_not_shown() {
        let long = "x\n".repeat(MAX_OUTPUT / 2);
        assert!(shown(&long, "").contains("not known"));
        assert_eq!(shown(&long, "no\n"), ": no");
        let line = shown(&"\u{e4}".repeat(MAX_LINE), "");
        assert!(
            line.len() <= MAX_LINE + 5 && line.ends_with(" .."),
            "{line}"
        );
    }

    #[test]
    fn the_output_about_a_secret_is_not_shown() {
        let output = Output {
            code: 1,
            stdout: Vec::new(),
            stderr: b"password=hunter2".to_vec(),
        };
        assert!(!last_line(&output, true).contains("hunter2"));
    }
}
