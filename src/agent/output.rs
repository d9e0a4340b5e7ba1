//! The output of the agent: a thread that writes frames, and a sign of life where none is due.

use std::{
    cell::RefCell,
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{
    protocol::{Answer, MAX_LINE, Progress, RefusedKind},
    screen,
};

/// The longest time between two signs of life while a request is carried out. A coordinator counts
/// a host as silent after 20 seconds, unless its file says it.
const BUSY: Duration = Duration::from_secs(2);

/// The longest time between two signs of life between requests.
const IDLE: Duration = Duration::from_secs(5);

/// The signs of life in the time after which the coordinator counts the host as silent.
const SIGNS: u32 = 3;

/// The frames that wait for a slow reader before progress is dropped.
const WAITING: usize = 1024;

/// The longest wait at the end for a reader that takes what is left.
const ENDING: Duration = Duration::from_secs(2);

/// The time between two looks whether all is written.
const LOOK: Duration = Duration::from_millis(5);

/// The sign of life that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// Between two requests.
    Idle,
    /// While a request is carried out.
    Busy,
    /// None: the other end of this connection gives them.
    None,
}

/// When a sign of life is due, for the thread that writes.
#[derive(Debug)]
struct Signs {
    sign: AtomicU8,
    /// The longest time between two of them, in milliseconds.
    most_ms: AtomicU64,
}

impl Signs {
    fn sign(&self) -> Sign {
        match self.sign.load(Ordering::Relaxed) {
            0 => Sign::Idle,
            1 => Sign::Busy,
            _ => Sign::None,
        }
    }

    /// Returns the time until the next one.
    fn wait(&self) -> Duration {
        let usual = match self.sign() {
            Sign::Idle | Sign::None => IDLE,
            Sign::Busy => BUSY,
        };
        usual.min(Duration::from_millis(self.most_ms.load(Ordering::Relaxed)))
    }
}

/// A thread that writes to one connection.
#[derive(Debug)]
struct Writer {
    frames: Sender<Vec<u8>>,
    /// The frames that wait. Each answer is one more, and there is one answer to a request.
    waiting: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Hands a line over. The reader may never take it, so nothing waits for that.
    fn write(&self, line: Vec<u8>) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // The thread has ended if the reader has gone.
        let _ = self.frames.send(line);
    }
}

/// Writes frames on a thread of its own. It does nothing else, so that a slow disk does not delay a
/// sign of life.
#[derive(Debug)]
pub(super) struct Output {
    writer: RefCell<Option<Writer>>,
    signs: Arc<Signs>,
}

impl Output {
    /// Writes to stdout.
    ///
    /// # Errors
    /// Fails if the system cannot start a thread.
    pub(super) fn start() -> io::Result<Self> {
        let output = Self {
            writer: RefCell::new(None),
            signs: Arc::new(Signs {
                sign: AtomicU8::new(Sign::Idle as u8),
                most_ms: AtomicU64::new(u64::MAX),
            }),
        };
        output.replace(screen::frames())?;
        Ok(output)
    }

    /// Writes to another connection from here on. What the one before has not taken is dropped: its
    /// reader may never read again, so nothing waits for it.
    ///
    /// # Errors
    /// Fails if the system cannot start a thread.
    pub(super) fn replace(&self, mut to: impl Write + Send + 'static) -> io::Result<()> {
        let (frames, receiver) = channel::<Vec<u8>>();
        let signs = self.signs.clone();
        let waiting = Arc::new(AtomicUsize::new(0));
        let written = waiting.clone();
        let thread = std::thread::Builder::new()
            .name("output".into())
            .spawn(move || {
                loop {
                    let line = match receiver.recv_timeout(signs.wait()) {
                        Ok(line) => {
                            written.fetch_sub(1, Ordering::Relaxed);
                            line
                        }
                        Err(RecvTimeoutError::Timeout) => match signs.sign() {
                            Sign::Idle => b"{\"idle\":0}\n".to_vec(),
                            Sign::Busy => b"{\"busy\":0}\n".to_vec(),
                            Sign::None => continue,
                        },
                        Err(RecvTimeoutError::Disconnected) => return,
                    };
                    // A coordinator that has gone ends the input as well.
                    if to.write_all(&line).and_then(|()| to.flush()).is_err() {
                        return;
                    }
                }
            })?;
        self.writer.replace(Some(Writer {
            frames,
            waiting,
            thread,
        }));
        Ok(())
    }

    /// Says which sign of life is due.
    pub(super) fn give(&self, sign: Sign) {
        self.signs.sign.store(sign as u8, Ordering::Relaxed);
    }

    /// Gives signs of life often enough for a coordinator that counts the host as silent after this
    /// time.
    pub(super) fn hear_within(&self, silence: Duration) {
        let most = u64::try_from((silence / SIGNS).as_millis()).unwrap_or(u64::MAX);
        self.signs.most_ms.store(most.max(1), Ordering::Relaxed);
    }

    /// Sends a frame. A frame that is no line is replaced by a refusal, so that the coordinator is
    /// not left without an answer.
    pub(super) fn send<T: Serialize>(&self, frame: &T) {
        let mut line = serde_json::to_vec(frame).unwrap_or_default();
        if line.len() >= MAX_LINE || line.is_empty() {
            let why = "an answer is over the limit of a line";
            let refused = Answer::refused(RefusedKind::Failed, why);
            line = serde_json::to_vec(&refused).unwrap_or_default();
        }
        line.push(b'\n');
        self.write(line);
    }

    /// Sends progress, unless the reader is behind: no signal and no proof waits for it.
    pub(super) fn progress(&self, progress: &Progress) {
        let Ok(mut line) = serde_json::to_vec(progress) else {
            return;
        };
        line.push(b'\n');
        let writer = self.writer.borrow();
        let has_room = |writer: &&Writer| writer.waiting.load(Ordering::Relaxed) < WAITING;
        if line.len() <= MAX_LINE
            && let Some(writer) = writer.as_ref().filter(has_room)
        {
            writer.write(line);
        }
    }

    /// Sends a line that is a frame already.
    pub(super) fn line(&self, line: String) {
        self.write((line + "\n").into_bytes());
    }

    fn write(&self, line: Vec<u8>) {
        if let Some(writer) = self.writer.borrow().as_ref() {
            writer.write(line);
        }
    }

    /// Waits until every frame is written, or until the reader takes too long.
    pub(super) fn finish(&self) {
        let Some(Writer { frames, thread, .. }) = self.writer.take() else {
            return;
        };
        drop(frames);
        let end = Instant::now() + ENDING;
        while !thread.is_finished() && Instant::now() < end {
            std::thread::sleep(LOOK);
        }
    }
}
