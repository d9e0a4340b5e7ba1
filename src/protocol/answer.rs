//! Frames from an agent to a coordinator, after the greeting.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::framing::{FrameError, MAX_LINE};

/// The bytes of rows in one line. The rest of an answer needs less than the other half.
const MAX_ROWS: usize = MAX_LINE / 2;

/// The answer to a request; one answer may have several lines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// The number of the request; 0 for a query.
    pub(crate) a: u64,
    /// The rows, as the command prints them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) rows: Vec<Value>,
    /// The rest of the object that the command prints. Only the last line has it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub(crate) result: Map<String, Value>,
    /// Why there is no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) no: Option<Refused>,
    /// True if the answer goes on in the next line.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) more: bool,
}

/// A refusal of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refused {
    pub(crate) kind: RefusedKind,
    /// One sentence.
    pub(crate) text: String,
}

/// The kind of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RefusedKind {
    /// There is no such group on the host.
    NoGroup,
    /// The host's policy, or the order of the frames, forbids it.
    NotAllowed,
    /// There is no common dialect.
    Skewed,
    /// The host knows nothing of the earlier run.
    NoRun,
    /// The host has surveyed the earlier run, and never begun it: nothing was touched there.
    NeverBegan,
    /// The run ended there, and not as its coordinator wants it: another run has taken its place.
    OtherEnd,
    /// The number of a request is below the last one.
    Old,
    /// The number of a request leaves one out.
    Gap,
    /// Another fencing token holds.
    Stale,
    /// The session is over, or there is none. The run has not come to its end.
    Ended,
    /// The run has recorded its end there.
    Finished,
    /// The bytes are not the candidate.
    BadDigest,
    /// A frame that the agent does not know.
    UnknownFrame,
    /// The host could not do it.
    Failed,
    /// A kind of a later version.
    #[serde(other)]
    Unknown,
}

impl Answer {
    /// Returns the answer to a query that has no rows.
    pub(crate) fn of<const N: usize>(result: [(&str, Value); N]) -> Self {
        Self {
            result: result
                .map(|(key, value)| (key.to_owned(), value))
                .into_iter()
                .collect(),
            more: false,
            ..Self::part(Vec::new())
        }
    }

    /// Returns a refusal of the query.
    pub(crate) fn refused(kind: RefusedKind, text: impl Into<String>) -> Self {
        Self {
            a: 0,
            rows: Vec::new(),
            result: Map::new(),
            no: Some(Refused {
                kind,
                text: text.into(),
            }),
            more: false,
        }
    }

    /// Parts the answer to a query into lines that keep their limit.
    ///
    /// # Errors
    /// Fails if one row is over the limit of a line.
    pub(crate) fn lines(
        rows: Vec<Value>,
        result: Map<String, Value>,
    ) -> Result<Vec<Self>, FrameError> {
        let mut lines = Vec::new();
        let mut part = Vec::new();
        let mut bytes = 0;
        for row in rows {
            let size = serde_json::to_vec(&row)?.len() + 1;
            if size > MAX_ROWS {
                return Err(FrameError::Long);
            }
            if bytes + size > MAX_ROWS {
                lines.push(Self::part(std::mem::take(&mut part)));
                bytes = 0;
            }
            bytes += size;
            part.push(row);
        }
        lines.push(Self {
            result,
            more: false,
            ..Self::part(part)
        });
        Ok(lines)
    }

    fn part(rows: Vec<Value>) -> Self {
        Self {
            a: 0,
            rows,
            result: Map::new(),
            no: None,
            more: true,
        }
    }
}
