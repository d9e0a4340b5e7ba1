//! The output of the agent: a thread that writes frames, and a sign of life where none is due.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use serde::Serialize;

use crate::{
    protocol::{Answer, MAX_LINE, Progress, RefusedKind},
    screen,
};

/// The time between two signs of life while a request is carried out. A coordinator counts a host
/// as silent after 20 seconds.
const BUSY: Duration = Duration::from_secs(2);

/// The time between two signs of life between requests.
const IDLE: Duration = Duration::from_secs(5);

/// The frames that wait for a slow reader. The thread that carries out requests waits after that.
const WAITING: usize = 1024;

/// Writes frames on a thread of its own. It does nothing else, so that a slow disk does not delay a
/// sign of life.
#[derive(Debug)]
pub(super) struct Output {
    frames: Option<SyncSender<Vec<u8>>>,
    is_working: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Output {
    pub(super) fn start() -> io::Result<Self> {
        let (frames, receiver) = sync_channel::<Vec<u8>>(WAITING);
        let is_working = Arc::new(AtomicBool::new(false));
        let working = is_working.clone();
        let thread = std::thread::Builder::new()
            .name("output".into())
            .spawn(move || {
                let mut stdout = screen::frames();
                loop {
                    let is_working = working.load(Ordering::Relaxed);
                    let limit = if is_working { BUSY } else { IDLE };
                    let line = match receiver.recv_timeout(limit) {
                        Ok(line) => line,
                        Err(RecvTimeoutError::Timeout) if is_working => b"{\"busy\":0}\n".to_vec(),
                        Err(RecvTimeoutError::Timeout) => b"{\"idle\":0}\n".to_vec(),
                        Err(RecvTimeoutError::Disconnected) => return,
                    };
                    // A coordinator that has gone ends the input as well, which ends the agent.
                    if stdout
                        .write_all(&line)
                        .and_then(|()| stdout.flush())
                        .is_err()
                    {
                        return;
                    }
                }
            })?;
        Ok(Self {
            frames: Some(frames),
            is_working,
            thread: Some(thread),
        })
    }

    /// Says whether a request is being carried out.
    pub(super) fn work(&self, is_working: bool) {
        self.is_working.store(is_working, Ordering::Relaxed);
    }

    /// Sends a frame. A frame that is no line is replaced by a refusal, so that the coordinator is
    /// not left without an answer.
    pub(super) fn send<T: Serialize>(&self, frame: &T) {
        let mut line = serde_json::to_vec(frame).unwrap_or_default();
        line.push(b'\n');
        if line.len() > MAX_LINE || line.len() == 1 {
            let why = "an answer is over the limit of a line";
            let refused = Answer::refused(RefusedKind::Failed, why);
            line = serde_json::to_vec(&refused).unwrap_or_default();
            line.push(b'\n');
        }
        if let Some(frames) = &self.frames {
            // The thread has ended if the reader has gone.
            let _ = frames.send(line);
        }
    }

    /// Sends progress, unless the reader is behind: no signal and no proof waits for it.
    pub(super) fn progress(&self, progress: &Progress) {
        let Ok(mut line) = serde_json::to_vec(progress) else {
            return;
        };
        line.push(b'\n');
        if let Some(frames) = self.frames.as_ref().filter(|_| line.len() <= MAX_LINE) {
            let _ = frames.try_send(line);
        }
    }

    /// Sends a line that is a frame already.
    pub(super) fn line(&self, line: String) {
        if let Some(frames) = &self.frames {
            let _ = frames.send((line + "\n").into_bytes());
        }
    }

    /// Waits until every frame is written.
    pub(super) fn finish(&mut self) {
        self.frames = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
