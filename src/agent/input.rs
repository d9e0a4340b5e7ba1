//! The input of the agent: frames, connections that attach, and the signals that end it.

use std::time::Duration;

use serde_json::Value;
use tokio::{
    io::AsyncRead,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::{JoinHandle, spawn_local},
    time::sleep,
};

use super::attach::{Listener, Visitor};
use crate::protocol::{FrameError, FrameReader};

/// The frames that wait while a request is carried out. A coordinator sends few: signs of life,
/// interrupts, and the pieces of a candidate.
const WAITING: usize = 64;

/// The longest sleep before the clock since boot is read again: it goes on while the host is
/// suspended, and a sleep does not.
const LOOK: Duration = Duration::from_secs(1);

/// Something that the agent must act on.
#[derive(Debug)]
pub(super) enum Heard {
    Frame(Value),
    /// The connection ended, or cannot be used any more.
    Closed(Option<FrameError>),
    /// Another connection has come.
    Visitor(Visitor),
    /// The time is over.
    Late,
    /// SIGTERM.
    Terminated,
}

/// Frames of one connection, by a task of its own, so that an interrupt is seen while a request is
/// carried out.
#[derive(Debug)]
struct Frames {
    frames: mpsc::Receiver<Result<Value, FrameError>>,
    task: JoinHandle<()>,
}

impl Frames {
    fn read<R: AsyncRead + Unpin + 'static>(mut reader: FrameReader<R>) -> Self {
        let (sender, frames) = mpsc::channel(WAITING);
        let task = spawn_local(async move {
            loop {
                let frame = match reader.next::<Value>().await {
                    Ok(None) => return,
                    Ok(Some(frame)) => Ok(frame),
                    Err(why) => Err(why),
                };
                let is_last = frame.is_err();
                if sender.send(frame).await.is_err() || is_last {
                    return;
                }
            }
        });
        Self { frames, task }
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The connection, the socket and the signals that the agent waits for.
#[derive(Debug)]
pub(super) struct Input {
    /// None once the connection has ended.
    frames: Option<Frames>,
    /// The socket of the session; none until it has begun.
    pub(super) listener: Option<Listener>,
    /// Ends the session, as the end of its lease does.
    terminate: Option<Signal>,
    /// SIGHUP has no effect: a terminal or an sshd that goes away sends it.
    _hangup: Option<Signal>,
}

impl Input {
    /// Reads stdin.
    pub(super) fn read() -> Self {
        Self {
            frames: Some(Frames::read(FrameReader::new(tokio::io::stdin()))),
            listener: None,
            terminate: signal(SignalKind::terminate()).ok(),
            _hangup: signal(SignalKind::hangup()).ok(),
        }
    }

    /// Reads another connection from here on.
    pub(super) fn replace<R: AsyncRead + Unpin + 'static>(&mut self, reader: FrameReader<R>) {
        self.frames = Some(Frames::read(reader));
    }

    /// Closes the connection.
    pub(super) fn close(&mut self) {
        self.frames = None;
    }

    /// Tells whether a connection is there.
    pub(super) fn is_connected(&self) -> bool {
        self.frames.is_some()
    }

    /// Waits for the next thing to act on. `left` returns the time that is left for it, by the
    /// clock since boot; none without a limit. It may be dropped while it waits.
    pub(super) async fn next(&mut self, left: impl Fn() -> Option<Duration>) -> Heard {
        loop {
            let left = left();
            if left.is_some_and(|left| left.is_zero()) {
                return Heard::Late;
            }
            let frame = async {
                match &mut self.frames {
                    Some(frames) => frames.frames.recv().await,
                    None => std::future::pending().await,
                }
            };
            let visitor = async {
                match &mut self.listener {
                    Some(listener) => listener.next().await,
                    None => std::future::pending().await,
                }
            };
            let terminated = async {
                match &mut self.terminate {
                    Some(signal) => signal.recv().await,
                    None => std::future::pending().await,
                }
            };
            let heard = tokio::select! {
                biased;
                visitor = visitor => Heard::Visitor(visitor),
                frame = frame => match frame {
                    Some(Ok(frame)) => Heard::Frame(frame),
                    Some(Err(why)) => Heard::Closed(Some(why)),
                    None => Heard::Closed(None),
                },
                _ = terminated => Heard::Terminated,
                () = wait(left) => continue,
            };
            if matches!(heard, Heard::Closed(_)) {
                self.frames = None;
            }
            return heard;
        }
    }
}

/// Waits until the clock since boot is to be read again; for ever without a limit.
async fn wait(left: Option<Duration>) {
    match left {
        Some(left) => sleep(left.min(LOOK)).await,
        None => std::future::pending().await,
    }
}
