//! The messages between the stages of a command: a request down, an answer up. Closing the socket
//! ends the command.

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

/// The longest part of a request, in bytes; a longer one is an error. The arguments of a command
/// are at most 2 MiB (execve(2)); its input is a JSON line per instance.
const MAX: usize = 64 << 20;

/// A command to run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) policy: Policy,
    /// Program and arguments.
    pub(super) argv: Vec<OsString>,
    /// The limit of open files that `hello` was started with: soft and hard, none for no limit.
    pub(super) files: (Option<u64>, Option<u64>),
    /// The stdin of the command; sent after the request.
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

/// The fate of processes that a command of the operator leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Leftovers {
    Ended,
    Kept,
}

/// The parts of its instance that a command gets besides the identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum World {
    /// Its files, and a clean environment.
    Files,
    /// Its files and its environment.
    Environment,
    /// Both, and the writes are discarded.
    View,
}

/// The process of a command, as the survey saw it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Instance {
    pub(super) pid: i32,
    pub(super) started: u64,
    /// Device and inode of its executable.
    pub(super) exe: (u64, u64),
    /// The path of an executable of which a newer file counts as the same program, because the
    /// process may execute itself again.
    pub(super) renewed: Option<OsString>,
    pub(super) credentials: Credentials,
    /// The name to run the program by, if it is the executable of the instance.
    pub(super) own: Option<OsString>,
    pub(super) world: World,
    pub(super) binds: Vec<Bind>,
    /// True if the PID namespace of the instance, if it is not the caller's, was entered.
    pub(super) entered: bool,
}

/// A staged file or directory, and the live path at which only the command sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bind {
    /// The staged path.
    #[serde(with = "crate::exact")]
    pub(crate) from: PathBuf,
    /// Device and inode of the staged file.
    pub(crate) staged: (u64, u64),
    /// The live path.
    #[serde(with = "crate::exact")]
    pub(crate) to: PathBuf,
    /// Device and inode of the live file.
    pub(crate) live: (u64, u64),
}

/// The end of a command.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// It ended by itself, with this exit code.
    Ended(i32),
    /// A signal ended it.
    Signalled(i32),
    /// It could not be run.
    NotRun(String),
    /// It ended, and some processes that it left behind could not be ended.
    Left,
    /// It wrote more than the layers hold.
    Filled,
}

impl Request {
    /// Returns the bytes to send: the lengths of request and input, then both.
    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        let body = serde_json::to_vec(self)?;
        let mut bytes = Vec::with_capacity(16 + body.len() + self.input.len());
        for length in [body.len(), self.input.len()] {
            bytes.extend(
                u64::try_from(length)
                    .map_err(io::Error::other)?
                    .to_be_bytes(),
            );
        }
        bytes.extend(body);
        bytes.extend(&self.input);
        Ok(bytes)
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
        let mut body = vec![0; length()?];
        let mut input = vec![0; length()?];
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

    /// Reads the answer until the other end is closed; none if there is none.
    pub(super) fn receive(mut from: &UnixStream) -> Option<Self> {
        let mut sent = Vec::new();
        from.read_to_end(&mut sent).ok()?;
        serde_json::from_slice(&sent).ok()
    }
}

/// Sends the filesystem that a command writes to up to the supervisor, before the answer. It is
/// sent with a blank, which JSON ignores.
pub(super) fn send_store(store: &OwnedFd, to: &UnixStream) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let fds = [store.as_fd()];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(
        to,
        &[IoSlice::new(b" ")],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Receives that filesystem; none if the next message is something else.
pub(super) fn receive_store(from: &UnixStream) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut blank = [0];
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

/// Takes the socket from stdin, which becomes /dev/null.
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
        assert!(matches!(
            policy,
            Policy::Start(credentials, cwd)
                if credentials.bounding == u64::MAX && cwd == odd
        ));
        assert_eq!(
            (argv, files, input),
            (vec![odd], (Some(7), None), b"\xff\n{".to_vec())
        );
        drop(ours);
        assert!(Request::receive(&theirs).is_err() && Answer::receive(&theirs).is_none());
    }
}
