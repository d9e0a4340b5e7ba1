//! Sends the reload signal to exactly the process that was surveyed, and only while it takes the
//! signal and sees the file that was installed.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::process::pidfd_send_signal;

use crate::{
    event::{Failure, Outcome},
    fleet::{Signal, Trigger, url_of},
    host::{
        discover::renewal,
        probe::log::{LOOK, Logs},
        proc::{
            guard::{is_ready, not_taking, sees_the_same, wait_for_handler},
            pidfd::{SignalError, SignalledProcess, gone, hold, open, there},
        },
        reload::command,
    },
    step::PlannedInstance,
};

/// Opens the pidfd, checks again that it is the surveyed process and that it takes the signal, then
/// sends the signal.
///
/// A process that was stopped after the survey is signalled all the same. The signal and the proof
/// are pending until it goes on. A process without a handler may be executing itself
/// again: its handler is waited for, for at most `limit`, and it is never signalled blindly.
/// `on_wait` is called before that wait.
///
/// # Errors
/// Fails if the pid is another process now, or if the process does not take the signal within
/// `limit`.
pub(crate) async fn send_reload_signal(
    member: &PlannedInstance,
    logs: &Logs,
    limit: Duration,
    on_wait: impl FnOnce(),
) -> Result<SignalledProcess, SignalError> {
    let instance = &member.instance;
    let pidfd = open(instance)?;
    if !is_ready(
        instance.pid,
        instance.started,
        &instance.exe,
        member.group.signal,
    ) {
        let taken = if not_taking(instance.pid, &member.group).is_none() {
            Ok(())
        } else {
            // Another process is not waited for.
            there(instance)?;
            on_wait();
            wait_for_handler(instance.pid, &member.group, limit).await
        };
        // Checked after the handler: the process with the handler must be the one that the pidfd
        // holds. A process that ended meanwhile has not refused the signal.
        there(instance)?;
        taken.map_err(|why| SignalError::Refused(why.to_string()))?;
    }
    // Last of what may wait. What is written from here on counts as written after the signal.
    logs.mark(member, limit.min(LOOK)).await;
    check_files(member)?;
    check_program(member)?;
    // Taken before the signal is sent: a quick program has loaded its config before the call
    // returns.
    let at = Instant::now();
    let when = jiff::Timestamp::now();
    pidfd_send_signal(&pidfd, raw_signal(member.group.signal))
        .map_err(|e| gone(&format!("took no signal: {e}")))?;
    Ok(SignalledProcess {
        pid: instance.pid,
        started: instance.started,
        pidfd,
        at,
        when,
    })
}

/// Fails if the process sees another file at the path of a target than this host does.
fn check_files(member: &PlannedInstance) -> Result<(), SignalError> {
    let instance = &member.instance;
    let Some(path) = instance
        .targets
        .iter()
        .find(|path| url_of(path).is_none() && !sees_the_same(instance.pid, path))
    else {
        return Ok(());
    };
    // A process that has ended sees nothing.
    there(instance)?;
    Err(SignalError::Refused(format!(
        "sees another file at `{}` than this host does",
        path.display()
    )))
}

/// Fails if the signal would make the process execute a program that did not validate its config.
fn check_program(member: &PlannedInstance) -> Result<(), SignalError> {
    let group = &member.group;
    let now = renewal::of(&member.identity, group, &member.instance.exe, &member.args);
    if let Some(why) = renewal::refuses(&now, group) {
        return Err(SignalError::Refused(why.to_string()));
    }
    if now != member.identity.renewal {
        return Err(SignalError::Refused(
            "would execute another program than the one that has validated its config; run hello \
             again"
                .into(),
        ));
    }
    Ok(())
}

fn raw_signal(signal: Signal) -> rustix::process::Signal {
    match signal {
        Signal::Hup => rustix::process::Signal::HUP,
        Signal::Usr1 => rustix::process::Signal::USR1,
        Signal::Usr2 => rustix::process::Signal::USR2,
    }
}

/// Signals the instance as [`send_reload_signal`] does, within its timeout, or runs the command of
/// its group. Records when. The output of a command about a `secret` is not shown.
///
/// # Errors
/// Fails if it died, if it does not take the signal, or if the command fails.
pub(crate) async fn signal(
    member: &mut PlannedInstance,
    (logs, secret): (&Logs, bool),
    on_wait: impl FnOnce(),
) -> Result<SignalledProcess, Failure> {
    if let Trigger::Command(_) = member.group.trigger() {
        on_wait();
        let permit = command::permit().await;
        logs.mark(member, member.timeout.min(LOOK)).await;
        let pidfd = hold_for_command(member).map_err(failure_of)?;
        return Box::pin(command::ask(member, pidfd, secret, permit)).await;
    }
    let signalled = send_reload_signal(member, logs, member.timeout, on_wait)
        .await
        .map_err(failure_of)?;
    member.signalled = Some(signalled.when);
    Ok(signalled)
}

/// Opens the pidfd of an instance that a command makes reload, if it is still the surveyed process
/// and sees the file that was installed.
fn hold_for_command(member: &PlannedInstance) -> Result<OwnedFd, SignalError> {
    let pidfd = hold(&member.instance)?;
    check_files(member)?;
    check_program(member)?;
    Ok(pidfd)
}

fn failure_of(error: SignalError) -> Failure {
    let (outcome, text) = match error {
        SignalError::Gone(text) => (Outcome::Died, text),
        SignalError::Refused(text) => (Outcome::Refused, text),
    };
    Failure {
        kind: outcome.into(),
        text,
    }
}
