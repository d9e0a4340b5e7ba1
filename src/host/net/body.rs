//! The body of an answer: all of it within a limit, or only the lines that are needed.

use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

use super::error::BodyError;

/// The longest body, in bytes: a page of metrics of a large Prometheus is about 50 MB.
pub(crate) const MAX_BODY: usize = 64 << 20;
/// The most bytes that are kept of a page of metrics, the longest line included.
const MAX_KEPT: usize = 1 << 20;
/// The size in bytes above which a body is read only with a permit for large bodies.
const LARGE: usize = 1 << 20;
/// The most attempts that hold large bodies at the same time: 4 times [`MAX_BODY`] of memory.
pub(crate) const LARGE_AT_ONCE: usize = 4;

/// The part of a body that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeepLines {
    /// All of it.
    All,
    /// The lines of a page of metrics that begin with one of these names. Without a name, only the
    /// head of the answer is read.
    Samples(Vec<String>),
}

/// The permit of one attempt for bodies that are large.
#[derive(Debug)]
pub(crate) struct Large {
    semaphore: Arc<Semaphore>,
    permit: OnceCell<Option<OwnedSemaphorePermit>>,
}

impl Large {
    pub(crate) fn of(semaphore: Arc<Semaphore>) -> Self {
        Self {
            semaphore,
            permit: OnceCell::new(),
        }
    }

    /// Waits for the permit, once for all bodies of the attempt.
    async fn acquire(&self) {
        self.permit
            .get_or_init(|| async { self.semaphore.clone().acquire_owned().await.ok() })
            .await;
    }
}

/// The kept lines of a body that arrives in pieces.
struct Lines<'a> {
    names: &'a [String],
    /// The part of the last line that has arrived.
    line: Vec<u8>,
    /// True if the last line is known not to be kept.
    skips: bool,
    kept: Vec<u8>,
}

impl<'a> Lines<'a> {
    fn of(names: &'a [String]) -> Self {
        Self {
            names,
            line: Vec::new(),
            skips: false,
            kept: Vec::new(),
        }
    }

    /// Tells whether a line that begins with `line` may be kept.
    fn may_be_kept(&self, line: &[u8]) -> bool {
        let begins_with = |name: &String| {
            let length = name.len().min(line.len());
            name.as_bytes()[..length] == line[..length]
        };
        self.names.iter().any(begins_with)
    }

    /// Adds a piece of the body.
    ///
    /// # Errors
    /// Fails if the kept lines are too long.
    fn add(&mut self, mut piece: &[u8]) -> Result<(), BodyError> {
        while !piece.is_empty() {
            let end = piece.iter().position(|b| *b == b'\n');
            let (part, rest) = piece.split_at(end.map_or(piece.len(), |end| end + 1));
            piece = rest;
            if !self.skips {
                self.line.extend_from_slice(part);
                self.skips = !self.may_be_kept(&self.line);
            }
            if self.skips {
                self.line.clear();
            }
            if self.line.len() + self.kept.len() > MAX_KEPT {
                return Err(BodyError::SamplesTooLong(MAX_KEPT));
            }
            if end.is_some() {
                self.kept.append(&mut self.line);
                self.skips = false;
            }
        }
        Ok(())
    }
}

/// Reads a body to its end.
///
/// # Errors
/// Fails if the body breaks off, or is too long.
pub(crate) async fn collect(
    mut body: Incoming,
    keep: &KeepLines,
    large: &Large,
) -> Result<Bytes, BodyError> {
    let mut length = 0_usize;
    let mut bytes = Vec::new();
    let names = if let KeepLines::Samples(names) = keep {
        names.as_slice()
    } else {
        &[]
    };
    let mut lines = Lines::of(names);
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        let Some(piece) = frame.data_ref() else {
            continue;
        };
        length += piece.len();
        if length > MAX_BODY {
            return Err(BodyError::TooLong(MAX_BODY));
        }
        match keep {
            KeepLines::Samples(_) => lines.add(piece)?,
            KeepLines::All => {
                if length > LARGE {
                    large.acquire().await;
                }
                bytes.extend_from_slice(piece);
            }
        }
    }
    if *keep == KeepLines::All {
        return Ok(bytes.into());
    }
    lines.add(b"\n")?;
    Ok(lines.kept.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn lines_are_kept_by_their_beginning_however_they_arrive() {
        let page = b"# HELP up\nup 1\nup_total{a=\"b\"} 2\nother 3\nup";
        let names = ["up".to_owned(), "o".to_owned()];
        for size in [1, 2, 3, 7, page.len()] {
            let mut lines = Lines::of(&names);
            page.chunks(size)
                .for_each(|piece| lines.add(piece).unwrap());
            lines.add(b"\n").unwrap();
            assert_eq!(
                String::from_utf8_lossy(&lines.kept),
                "up 1\nup_total{a=\"b\"} 2\nother 3\nup\n",
                "{size}"
            );
        }
        let mut lines = Lines::of(&names);
        lines.add(&vec![b'x'; 4 * MAX_KEPT]).unwrap();
        assert!(lines.add(b"\no").is_ok());
        assert!(lines.add(&vec![b'o'; 2 * MAX_KEPT]).is_err());
    }
}
