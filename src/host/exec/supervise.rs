//! The stage between `hello` and a command. It keeps the caller's identity and ends every process
//! that the command leaves behind.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::ExitStatusExt},
    },
    process::{Child, ExitStatus},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags, fstatvfs},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::{
    BECOME, ENDING, SUPERVISE, descend,
    error::StageError,
    held::HeldProcess,
    program::{isolate, sealed, stage},
    request::{Answer, Leftovers, Policy, Request, channel, receive_store},
};

/// The interval at which the memory for the writes of a command is checked.
const CHECK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

/// Runs the command of the request on stdin, and answers how it ended. If the other end of the
/// socket is closed, all processes of the command are ended.
pub(crate) fn supervise() -> u8 {
    let Ok(channel) = channel() else { return 1 };
    if let Some(answer) = isolate()
        .and_then(|()| attempt(&channel))
        .unwrap_or_else(|why| Some(Answer::NotRun(why.to_string())))
    {
        // An error means that `hello` ended and needs no answer.
        let _ = answer.send(&channel);
    }
    0
}

/// The next stage.
struct Next {
    child: Child,
    channel: UnixStream,
    is_supervisor: bool,
}

/// Runs the command to its end; none if `hello` closed the socket.
fn attempt(channel: &UnixStream) -> Result<Option<Answer>, StageError> {
    let failed = |e: io::Error| StageError::Step("its supervisor cannot work", e);
    let mut request = Request::receive(channel).map_err(failed)?;
    descend::adopt().map_err(failed)?;
    let mut next = begin(&mut request)?;
    // This process must not keep the output pipes open after the command has ended.
    silence().map_err(failed)?;
    // If the stage has ended already, its exit status shows it.
    let _ = request
        .encode()
        .and_then(|bytes| io::Write::write_all(&mut &next.channel, &bytes));
    let watched = watch(&next, channel).map_err(failed)?;
    if watched == Watched::Unwanted {
        end(next);
        return Ok(None);
    }
    let status = next.child.wait().map_err(failed)?;
    let answer = Answer::receive(&next.channel);
    let kept = matches!(request.policy, Policy::Own(Leftovers::Kept));
    if !kept && !descend::end_all(ENDING) {
        return Ok(Some(Answer::Left));
    }
    if watched == Watched::Filled {
        return Ok(Some(Answer::Filled));
    }
    Ok(Some(answer.unwrap_or_else(|| answer_of(status))))
}

/// Starts the next stage: another supervisor if the instance has a PID namespace of its own, else
/// the command.
fn begin(request: &mut Request) -> Result<Next, StageError> {
    let mut name = BECOME;
    let mut image = None;
    if let Policy::Judge(instance) = &mut request.policy {
        let held = HeldProcess::open(instance)?;
        // A supervisor that was entered runs from a sealed copy already, and starts the same.
        if !instance.entered && (held.spaces.pid().is_some() || held.spaces.has_own_files()) {
            let copy = sealed();
            image = Some(copy.map_err(|e| StageError::Step("this program cannot be copied", e))?);
        }
        if let Some(space) = held.spaces.pid() {
            let entered =
                move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::ProcessID));
            entered.map_err(|e| StageError::Namespace("pid", e.into()))?;
            name = SUPERVISE;
            instance.entered = true;
        }
    }
    let failed = |e: io::Error| StageError::Step("its next stage cannot be started", e);
    let (mut command, channel) = stage(name, image.as_ref()).map_err(failed)?;
    let child = command.spawn().map_err(failed)?;
    Ok(Next {
        child,
        channel,
        is_supervisor: name == SUPERVISE,
    })
}

/// Sends the stdout and stderr of this process to /dev/null.
fn silence() -> io::Result<()> {
    let null = rustix::fs::open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(rustix::stdio::dup2_stderr(&null)?)
}

#[derive(Debug, PartialEq, Eq)]
enum Watched {
    /// The stage ended.
    Ended,
    /// The stage ended, and the memory for its writes was full.
    Filled,
    /// `hello` closed the socket.
    Unwanted,
}

/// Waits until the next stage ends, or `hello` closes the socket.
fn watch(next: &Next, channel: &UnixStream) -> io::Result<Watched> {
    let pidfd = pidfd_open(pid(&next.child)?, PidfdFlags::empty())?;
    let mut store: Option<OwnedFd> = None;
    let mut ended = Watched::Ended;
    loop {
        let mut fds = vec![
            PollFd::new(channel, PollFlags::IN),
            PollFd::new(&pidfd, PollFlags::IN),
        ];
        // A command with a view sends the filesystem of its writes first.
        if store.is_none() && !next.is_supervisor && ended == Watched::Ended {
            fds.push(PollFd::new(&next.channel, PollFlags::IN));
        }
        let polled = poll(&mut fds, store.is_some().then_some(&CHECK));
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if store.as_ref().is_some_and(is_full) {
            ended = Watched::Filled;
        }
        match polled {
            Ok(_) if ready[0] => return Ok(Watched::Unwanted),
            Ok(_) if ready[1] => {
                let late = store
                    .is_none()
                    .then(|| receive_store(&next.channel))
                    .flatten();
                return Ok(if late.as_ref().is_some_and(is_full) {
                    Watched::Filled
                } else {
                    ended
                });
            }
            Ok(_) if ready.get(2) == Some(&true) => match receive_store(&next.channel) {
                Some(received) => store = Some(received),
                // The stage sent its answer or closed the socket, so its end follows.
                None => return wait_for_end(&pidfd, channel),
            },
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Waits until the stage ends or `hello` closes the socket; no filesystem is sent any more.
fn wait_for_end(pidfd: &OwnedFd, channel: &UnixStream) -> io::Result<Watched> {
    loop {
        let mut fds = [
            PollFd::new(channel, PollFlags::IN),
            PollFd::new(pidfd, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) if !fds[0].revents().is_empty() => return Ok(Watched::Unwanted),
            Ok(_) if !fds[1].revents().is_empty() => return Ok(Watched::Ended),
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Tells whether a filesystem has no free block or no free inode.
fn is_full(store: &OwnedFd) -> bool {
    fstatvfs(store).is_ok_and(|stat| stat.f_bfree == 0 || stat.f_ffree == 0)
}

/// Ends all processes. A supervisor below goes first, because the processes inside its PID
/// namespace are its children only.
fn end(next: Next) {
    let Next {
        child,
        channel,
        is_supervisor,
    } = next;
    drop(channel);
    if is_supervisor
        && let Ok(pidfd) = pid(&child).and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?))
    {
        let limit = Timespec {
            tv_sec: i64::try_from(ENDING.as_secs()).unwrap_or_default(),
            tv_nsec: 0,
        };
        let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit));
    }
    descend::end_all(ENDING);
}

fn pid(child: &Child) -> io::Result<Pid> {
    i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn answer_of(status: ExitStatus) -> Answer {
    match (status.code(), status.signal()) {
        (Some(code), _) => Answer::Ended(code),
        (None, signal) => Answer::Signalled(signal.unwrap_or_default()),
    }
}
