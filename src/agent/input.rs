//! The input of the agent: frames, and the signals that end it.

use serde_json::Value;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::spawn_local,
};

use crate::protocol::{FrameError, FrameReader};

/// The frames that wait while a request is carried out. A coordinator sends few: interrupts, and
/// the pieces of a candidate.
const WAITING: usize = 64;

/// Reads frames by a task of its own, so that an interrupt is seen while a request is carried out.
#[derive(Debug)]
pub(super) struct Input {
    frames: mpsc::Receiver<Result<Value, FrameError>>,
    has_ended: bool,
    /// SIGTERM ends the input, as the end of the connection does.
    terminate: Option<Signal>,
    /// SIGHUP has no effect: a terminal or an sshd that goes away sends it.
    _hangup: Option<Signal>,
}

impl Input {
    pub(super) fn read() -> Self {
        let (sender, frames) = mpsc::channel(WAITING);
        spawn_local(async move {
            let mut reader = FrameReader::new(tokio::io::stdin());
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
        Self {
            frames,
            has_ended: false,
            terminate: signal(SignalKind::terminate()).ok(),
            _hangup: signal(SignalKind::hangup()).ok(),
        }
    }

    /// Returns the next frame; none at the end, and ever after.
    pub(super) async fn next(&mut self) -> Option<Result<Value, FrameError>> {
        if self.has_ended {
            return None;
        }
        let terminated = async {
            match &mut self.terminate {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        let frame = tokio::select! {
            biased;
            frame = self.frames.recv() => frame,
            _ = terminated => None,
        };
        self.has_ended = !matches!(frame, Some(Ok(_)));
        frame
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }
}
