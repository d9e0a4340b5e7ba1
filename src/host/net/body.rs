//! The body of an answer: all of it within a limit, or only the lines that are asked for.

use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

/// Longest body, in bytes: a page of metrics of a large Prometheus is about 50 MB.
pub(crate) const MAX_BODY: usize = 64 << 20;
/// Longest line of a page of metrics, in bytes, and the most that is kept of such a page.
const MAX_KEPT: usize = 1 << 20;
/// A body above this size, in bytes, is read only by one that has a permit for large ones.
const LARGE: usize = 1 << 20;
/// How many attempts hold large bodies at the same time: 4 times [`MAX_BODY`] of memory.
pub(crate) const LARGE_AT_ONCE: usize = 4;

/// What is kept of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeepLines {
    /// All of it.
    All,
    /// The lines of a page of metrics that begin with one of these names; none where only the head
    /// of the answer is read.
    Samples(Vec<String>),
}

/// The permit of one attempt for bodies that are large.
#[derive(Debug)]
pub(crate) struct Large {
    all: Arc<Semaphore>,
    permit: OnceCell<Option<OwnedSemaphorePermit>>,
}

impl Large {
    pub(crate) fn of(all: Arc<Semaphore>) -> Self {
        Self {
            all,
            permit: OnceCell::new(),
        }
    }

    /// Waits for the permit, once for all bodies of the attempt.
    async fn begin(&self) {
        self.permit
            .get_or_init(|| async { self.all.clone().acquire_owned().await.ok() })
            .await;
    }
}

/// Lines of a body that arrives in pieces.
struct Lines<'a> {
    names: &'a [String],
    /// The part of the last line that has arrived.
    line: Vec<u8>,
    /// Whether the last line is known to be none that is kept.
    skips: bool,
    kept: Vec<u8>,
}

impl Lines<'_> {
    /// Whether a line that begins like this may be kept.
    fn may_begin(&self, line: &[u8]) -> bool {
        let begins = |name: &String| {
            let both = name.len().min(line.len());
            name.as_bytes()[..both] == line[..both]
        };
        self.names.iter().any(begins)
    }

    fn take(&mut self, mut piece: &[u8]) -> Result<(), String> {
        while !piece.is_empty() {
            let end = piece.iter().position(|b| *b == b'\n');
            let (part, rest) = piece.split_at(end.map_or(piece.len(), |end| end + 1));
            piece = rest;
            if !self.skips {
                self.line.extend_from_slice(part);
                self.skips = !self.may_begin(&self.line);
            }
            if self.skips {
                self.line.clear();
            }
            if self.line.len() + self.kept.len() > MAX_KEPT {
                return Err(format!(
                    "the samples that are asked for are longer than {} KiB",
                    MAX_KEPT >> 10
                ));
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
/// A sentence: it broke off, or is too long.
pub(crate) async fn collect(
    mut body: Incoming,
    keep: &KeepLines,
    large: &Large,
) -> Result<Bytes, String> {
    let (mut length, mut all) = (0_usize, Vec::new());
    let names = if let KeepLines::Samples(names) = keep {
        names.as_slice()
    } else {
        &[]
    };
    let mut lines = Lines {
        names,
        line: Vec::new(),
        skips: false,
        kept: Vec::new(),
    };
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| super::causes::whole(&e))?;
        let Some(piece) = frame.data_ref() else {
            continue;
        };
        length += piece.len();
        if length > MAX_BODY {
            return Err(format!("its answer is longer than {} MiB", MAX_BODY >> 20));
        }
        match keep {
            KeepLines::Samples(_) => lines.take(piece)?,
            KeepLines::All => {
                if length > LARGE {
                    large.begin().await;
                }
                all.extend_from_slice(piece);
            }
        }
    }
    if *keep == KeepLines::All {
        return Ok(all.into());
    }
    lines.take(b"\n")?;
    Ok(lines.kept.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn lines_are_kept_by_how_they_begin_however_they_arrive() {
        let page = b"# HELP up\nup 1\nup_total{a=\"b\"} 2\nother 3\nup";
        let names = ["up".to_owned(), "o".to_owned()];
        for size in [1, 2, 3, 7, page.len()] {
            let mut lines = Lines {
                names: &names,
                line: Vec::new(),
                skips: false,
                kept: Vec::new(),
            };
            page.chunks(size)
                .for_each(|piece| lines.take(piece).unwrap());
            lines.take(b"\n").unwrap();
            assert_eq!(
                String::from_utf8_lossy(&lines.kept),
                "up 1\nup_total{a=\"b\"} 2\nother 3\nup\n",
                "{size}"
            );
        }
        let mut lines = Lines {
            names: &names,
            line: Vec::new(),
            skips: false,
            kept: Vec::new(),
        };
        lines.take(&vec![b'x'; 4 * MAX_KEPT]).unwrap();
        assert!(lines.take(b"\no").is_ok() && lines.take(&vec![b'o'; 2 * MAX_KEPT]).is_err());
    }
}
