//! Signals exactly the process that was surveyed, and only while it takes the signal and sees the
//! file that was installed.

use std::time::{Duration, Instant};

use rustix::process::pidfd_send_signal;

use crate::{
    event::{Failure, Outcome},
    fleet::Signal,
    host::{
        discover::renewal,
        proc::{
            guard::{is_ready, not_taking, sees_the_same, wait_for_handler},
            pidfd::{SignalError, SignalledProcess, gone, open, there},
        },
    },
    step::PlannedInstance,
};

/// Opens the pidfd, looks again at who it is and whether it takes the signal, then sends it. A
/// process that was stopped after the survey is signalled all the same: the signal waits for it,
/// and so does the proof. One without the handler may be re-executing itself: it is waited for,
/// never signalled blindly. Before that, `waits` is told.
///
/// # Errors
/// When it is another process by now, or still does not take the signal at the end of `limit`.
pub(crate) async fn send_reload_signal(
    member: &PlannedInstance,
    limit: Duration,
    waits: impl FnOnce(),
) -> Result<SignalledProcess, SignalError> {
    let i = &member.instance;
    let pidfd = open(i)?;
    if !is_ready(i.pid, i.started, &i.exe, member.group.signal) {
        let taken = if not_taking(i.pid, &member.group).is_none() {
            Ok(())
        } else {
            // Another process is not waited for.
            there(i)?;
            waits();
            wait_for_handler(i.pid, &member.group, limit).await
        };
        // Only now: what took the signal just now must be the one that is held, and who ended
        // meanwhile has refused nothing.
        there(i)?;
        taken.map_err(SignalError::Refused)?;
    }
    if let Some(path) = i.targets.iter().find(|path| !sees_the_same(i.pid, path)) {
        // One that has ended sees nothing.
        there(i)?;
        return Err(SignalError::Refused(format!(
            "sees another file at `{}` than this host does",
            path.display()
        )));
    }
    let now = renewal::of(&member.identity, &member.group, &i.exe, &member.args);
    if let Some(why) = renewal::refuses(&now, &member.group) {
        return Err(SignalError::Refused(why));
    }
    if now != member.identity.renewal {
        return Err(SignalError::Refused(
            "would execute another program than the one that has \
                                     validated its config; run hello again"
                .into(),
        ));
    }
    let signal = match member.group.signal {
        Signal::Hup => rustix::process::Signal::HUP,
        Signal::Usr1 => rustix::process::Signal::USR1,
        Signal::Usr2 => rustix::process::Signal::USR2,
    };
    // Taken before it is sent: a quick program has loaded its config before this one goes on.
    let (at, when) = (Instant::now(), jiff::Timestamp::now());
    pidfd_send_signal(&pidfd, signal).map_err(|e| gone(&format!("took no signal: {e}")))?;
    Ok(SignalledProcess {
        pid: i.pid,
        started: i.started,
        pidfd,
        at,
        when,
    })
}

/// Signals the instance once it takes the signal; `waits` is told before it is waited for.
///
/// # Errors
/// The trouble: it died, or does not take the signal.
pub(crate) async fn signal(
    member: &mut PlannedInstance,
    waits: impl FnOnce(),
) -> Result<SignalledProcess, Failure> {
    let hung = send_reload_signal(member, member.timeout, waits)
        .await
        .map_err(|e| match e {
            SignalError::Gone(text) => Failure {
                kind: Outcome::Died.into(),
                text,
            },
            SignalError::Refused(text) => Failure {
                kind: Outcome::Refused.into(),
                text,
            },
        })?;
    member.signalled = Some(hung.when);
    Ok(hung)
}
