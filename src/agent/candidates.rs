//! The candidates that a coordinator sends, by digest.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::{
    change::{Change, Changes},
    config,
    protocol::{ChangeOrder, MAX_BLOB, SurveyOrder},
    step::Content,
};

/// The most bytes of all candidates of a run.
const MAX_OF_RUN: usize = 64 << 20;

/// Bytes that have come so far. Nothing is used before the digest of the whole is right.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    pieces: BTreeMap<String, Vec<u8>>,
}

/// Why bytes are no candidate.
#[derive(Debug, thiserror::Error)]
pub(super) enum CandidateError {
    #[error("a piece of a candidate is no base64")]
    Base64,
    #[error("the candidates have more than {} MiB", MAX_OF_RUN >> 20)]
    TooLarge,
    #[error("the bytes of candidate {0} have another digest")]
    Digest(String),
    #[error("candidate {0} is no content of its form")]
    Form(String),
    #[error("candidate {0} has not come")]
    Missing(String),
}

impl Candidates {
    /// Adds bytes of a candidate.
    pub(super) fn add(&mut self, sha256: &str, at: usize, b64: &str) -> Result<(), CandidateError> {
        let bytes = BASE64_STANDARD
            .decode(b64)
            .map_err(|_| CandidateError::Base64)?;
        let all: usize = self.pieces.values().map(Vec::len).sum();
        let so_far = self.pieces.get(sha256).map_or(0, Vec::len);
        // A piece that came already, or one whose predecessor was lost: the coordinator sends all
        // of them again when it repeats the survey.
        if so_far != at {
            return Ok(());
        }
        if so_far + bytes.len() > MAX_BLOB || all + bytes.len() > MAX_OF_RUN {
            return Err(CandidateError::TooLarge);
        }
        let piece = self.pieces.entry(sha256.into()).or_default();
        piece.extend_from_slice(&bytes);
        Ok(())
    }

    /// Returns the digests that an order names and whose bytes are not here.
    pub(super) fn missing(&self, order: &SurveyOrder) -> Vec<String> {
        let is_whole =
            |sha256: &str, len: usize| self.pieces.get(sha256).is_some_and(|b| b.len() == len);
        let mut missing: Vec<String> = order
            .candidates()
            .filter(|(sha256, len)| !is_whole(sha256, *len))
            .map(|(sha256, _)| sha256.to_owned())
            .collect();
        missing.sort();
        missing.dedup();
        missing
    }

    /// Returns the changes of an order, with the bytes that have come.
    pub(super) fn changes(&self, order: &SurveyOrder) -> Result<Changes, CandidateError> {
        let named = order.named.iter();
        let named = named.map(|(group, change)| Ok((group.clone(), self.change(change)?)));
        Ok(Changes::new(
            named.collect::<Result<_, _>>()?,
            self.change(&order.others)?,
            order.prune,
        ))
    }

    fn change(&self, order: &ChangeOrder) -> Result<Change, CandidateError> {
        match order {
            ChangeOrder::Adopt => Ok(Change::Adopt),
            ChangeOrder::Set(edits) => Ok(Change::Set(edits.clone())),
            ChangeOrder::Put {
                named,
                form,
                sha256,
                ..
            } => {
                let bytes = self.pieces.get(sha256);
                let bytes = bytes.ok_or_else(|| CandidateError::Missing(sha256.clone()))?;
                if config::digest(bytes) != *sha256 {
                    return Err(CandidateError::Digest(sha256.clone()));
                }
                let content = Content::from_stored(bytes.clone(), *form)
                    .ok_or_else(|| CandidateError::Form(sha256.clone()))?;
                Ok(Change::Put {
                    named: named.into(),
                    kind: *form,
                    content: Ok(content),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests;
