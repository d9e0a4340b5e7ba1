//! Frames as lines: their limits, and what is read before the first frame.

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};

use super::greeting::{GREETING_START, Greeting};

/// The longest line, in bytes with its end. A host plan of 10,000 instances comes in several lines.
pub(crate) const MAX_LINE: usize = 1 << 20;

/// The largest candidate that travels, in bytes.
pub(crate) const MAX_BLOB: usize = 16 << 20;

/// The deepest nesting of a frame. The deepest one of this version has 6 levels.
const MAX_DEPTH: usize = 64;

/// The output before the greeting that is kept, in bytes, to show it if no greeting comes.
const MAX_NOISE: usize = 64 << 10;

/// Why no frame was read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    #[error("the output ended inside a line")]
    Cut,
    #[error("a line has more than {MAX_LINE} bytes")]
    Long,
    #[error("a line is nested deeper than {MAX_DEPTH} levels")]
    Deep,
    #[error("a line is no frame: {0}")]
    Form(#[from] serde_json::Error),
}

/// Reads frames.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    input: BufReader<R>,
    line: Vec<u8>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            input: BufReader::new(input),
            line: Vec::new(),
        }
    }

    /// Reads the next frame; none at the end of the input. It may be dropped while it waits: what
    /// it has read of a line is kept.
    ///
    /// # Errors
    /// Fails if the connection broke, a line is over a limit, or it is no such frame.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        if !self.fill().await? {
            return Ok(None);
        }
        let line = std::mem::take(&mut self.line);
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        check_depth(text)?;
        Ok(Some(serde_json::from_slice(text)?))
    }

    /// Reads up to the greeting of an agent. Adds the lines before it to `noise`: the message of
    /// the day, the lecture of sudo.
    ///
    /// # Errors
    /// Fails if the greeting is no greeting. Returns none if the input ends without one.
    pub(crate) async fn greeting(
        &mut self,
        noise: &mut Vec<u8>,
    ) -> Result<Option<Greeting>, FrameError> {
        loop {
            match self.fill().await {
                Ok(true) if self.line.starts_with(GREETING_START) => return self.next().await,
                Ok(true) | Err(FrameError::Long) => self.take_noise(noise),
                Ok(false) => return Ok(None),
                Err(FrameError::Cut) => {
                    self.take_noise(noise);
                    return Ok(None);
                }
                Err(why) => return Err(why),
            }
        }
    }

    fn take_noise(&mut self, noise: &mut Vec<u8>) {
        let room = MAX_NOISE.saturating_sub(noise.len());
        noise.extend(self.line.iter().take(room));
        self.line.clear();
    }

    /// Reads the rest of a line into `line`. Returns false at the end of the input.
    async fn fill(&mut self) -> Result<bool, FrameError> {
        while !self.line.ends_with(b"\n") {
            let read = self.input.fill_buf().await?;
            if read.is_empty() {
                return if self.line.is_empty() {
                    Ok(false)
                } else {
                    Err(FrameError::Cut)
                };
            }
            let end = read.iter().position(|b| *b == b'\n').map(|at| at + 1);
            let taken = end.unwrap_or(read.len()).min(MAX_LINE - self.line.len());
            self.line.extend_from_slice(&read[..taken]);
            self.input.consume(taken);
            if self.line.len() >= MAX_LINE && !self.line.ends_with(b"\n") {
                return Err(FrameError::Long);
            }
        }
        Ok(true)
    }
}

/// Checks the nesting of a line before it is parsed. Brackets inside strings do not count.
fn check_depth(line: &[u8]) -> Result<(), FrameError> {
    let mut depth = 0_usize;
    let mut is_text = false;
    let mut is_escaped = false;
    for byte in line {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            b'{' | b'[' if !is_text => depth += 1,
            b'}' | b']' if !is_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(FrameError::Deep);
        }
    }
    Ok(())
}

/// Writes frames.
#[derive(Debug)]
pub(crate) struct FrameWriter<W> {
    output: W,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub(crate) fn new(output: W) -> Self {
        Self { output }
    }

    /// Writes one frame and its end of line.
    ///
    /// # Errors
    /// Fails if the connection broke, or if the line would be over its limit.
    pub(crate) async fn write<T: Serialize>(&mut self, frame: &T) -> Result<(), FrameError> {
        let mut line = serde_json::to_vec(frame)?;
        line.push(b'\n');
        if line.len() > MAX_LINE {
            return Err(FrameError::Long);
        }
        self.output.write_all(&line).await?;
        Ok(self.output.flush().await?)
    }
}
