//! What the stages of a command tell each other, over a socket: a request down, an answer up.
//! Closing it ends the command.

use std::{
    ffi::OsString,
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
};

use rustix::{
    fs::{Mode, OFlags},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recv, recvmsg, sendmsg,
    },
};
use serde::{Deserialize, Serialize};

use crate::identity::Credentials;

/// The longest request; a longer one is a fault. The arguments of a command are at most 2 MiB.
const MAX: usize = 64 << 20;

/// What is started.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) policy: Policy,
    /// Program and arguments.
    pub(super) argv: Vec<OsString>,
    /// The limit of open files that `hello` was started with: soft and hard, none for no limit.
    pub(super) files: (Option<u64>, Option<u64>),
    /// What the command reads from its stdin, behind the request.
    #[serde(skip)]
    pub(super) input: Vec<u8>,
}

/// The identity of a command.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Policy {
    Judge(Box<Instance>),
    Start(Credentials, OsString),
    Own(Leftovers),
}

/// What becomes of the processes that a command of the operator's leaves behind when it ends by
/// itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Leftovers {
    Ended,
    Kept,
}

/// What a command has of the world of its instance, besides its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum World {
    /// The files alone, and a clean environment.
    Files,
    /// The environment as well.
    Environment,
    /// Both, and what it writes is discarded.
    View,
}

/// The process that a command is about, as the survey saw it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Instance {
    pub(super) pid: i32,
    pub(super) started: u64,
    /// Device and inode of its executable.
    pub(super) exe: (u64, u64),
    /// The path of an executable that counts as the same: a process that executes itself again may
    /// run a newer one.
    pub(super) renewed: Option<OsString>,
    pub(super) person: Credentials,
    /// Whether the program is the executable of the instance, and the name that it is given then.
    pub(super) own: Option<OsString>,
    pub(super) world: World,
    pub(super) binds: Vec<Bind>,
    /// Whether its PID namespace, which is not the caller's, was entered.
    pub(super) entered: bool,
}

/// A staged file or directory and the live path at which the command, and no other process, sees
/// it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bind {
    /// Where it is staged.
    #[serde(with = "crate::exact")]
    pub(crate) from: PathBuf,
    /// Device and inode of what stands there.
    pub(crate) staged: (u64, u64),
    /// Where it is seen.
    #[serde(with = "crate::exact")]
    pub(crate) to: PathBuf,
    /// Device and inode of what stands there.
    pub(crate) live: (u64, u64),
}

/// How it went.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// It ended by itself, with this exit code.
    Ended(i32),
    /// A signal ended it.
    Signalled(i32),
    /// It could not be run.
    NotRun(String),
    /// It ended, and processes that it left behind could not be ended.
    Left,
    /// It wrote more than can be kept for it.
    Filled,
}

impl Request {
    /// As it is sent: the length of the request and that of the input, then both.
    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        let body = serde_json::to_vec(self)?;
        let mut all = Vec::with_capacity(16 + body.len() + self.input.len());
        for length in [body.len(), self.input.len()] {
            all.extend(
                u64::try_from(length)
                    .map_err(io::Error::other)?
                    .to_be_bytes(),
            );
        }
        all.extend(body);
        all.extend(&self.input);
        Ok(all)
    }

    pub(super) fn receive(mut from: &UnixStream) -> io::Result<Self> {
        let mut length = || -> io::Result<usize> {
            let mut bytes = [0; 8];
            from.read_exact(&mut bytes)?;
            usize::try_from(u64::from_be_bytes(bytes))
                .ok()
                .filter(|length| *length <= MAX)
                .ok_or_else(|| io::ErrorKind::InvalidData.into())
        };
        let (mut body, mut input) = (vec![0; length()?], vec![0; length()?]);
        from.read_exact(&mut body)?;
        from.read_exact(&mut input)?;
        Ok(Self {
            input,
            ..serde_json::from_slice(&body)?
        })
    }
}

impl Answer {
    pub(super) fn send(&self, mut to: &UnixStream) -> io::Result<()> {
        to.write_all(&serde_json::to_vec(self)?)
    }

    /// What was sent until the other end was closed; none where that was nothing.
    pub(super) fn receive(mut from: &UnixStream) -> Option<Self> {
        let mut sent = Vec::new();
        from.read_to_end(&mut sent).ok()?;
        serde_json::from_slice(&sent).ok()
    }
}

/// Hands the filesystem that a command writes to upwards, before anything else is sent: with a
/// blank, which no answer minds.
pub(super) fn hand_on(store: &OwnedFd, to: &UnixStream) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let (mut ancillary, fds) = (SendAncillaryBuffer::new(&mut space), [store.as_fd()]);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(
        to,
        &[IoSlice::new(b" ")],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Takes what was handed on; none where the first that is sent is something else.
pub(super) fn take(from: &UnixStream) -> Option<OwnedFd> {
    let (mut space, mut blank) = (
        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))],
        [0],
    );
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let peeked = recv(from, &mut blank, RecvFlags::PEEK | RecvFlags::DONTWAIT).ok()?;
    if peeked.1 == 0 || blank != *b" " {
        return None;
    }
    recvmsg(
        from,
        &mut [IoSliceMut::new(&mut blank)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    )
    .ok()?;
    ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })
}

/// Takes the socket from stdin, which is empty from then on.
pub(super) fn channel() -> io::Result<UnixStream> {
    let taken = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(taken.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn any_bytes_arrive_as_they_were_sent() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let odd = OsString::from_vec(vec![b'a', 0xff, b'\n']);
        let sent = Request {
            policy: Policy::Start(
                Credentials {
                    bounding: u64::MAX,
                    ..Credentials::default()
                },
                odd.clone(),
            ),
            argv: vec![odd.clone()],
            files: (Some(7), None),
            input: b"\xff\n{".to_vec(),
        };
        (&ours).write_all(&sent.encode().unwrap()).unwrap();
        let Request {
            policy,
            argv,
            files,
            input,
        } = Request::receive(&theirs).unwrap();
        assert!(
            matches!(policy, Policy::Start(who, cwd) if who.bounding == u64::MAX && cwd == odd)
        );
        assert_eq!(
            (argv, files, input),
            (vec![odd], (Some(7), None), b"\xff\n{".to_vec())
        );
        drop(ours);
        assert!(Request::receive(&theirs).is_err() && Answer::receive(&theirs).is_none());
    }
}
