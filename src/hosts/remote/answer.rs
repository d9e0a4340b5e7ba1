//! The answer to a request: its lines, and what comes before them.

use std::time::Instant;

use serde_json::Value;

use super::{CandidateBytes, RemoteRun, Waiting};
use crate::{
    event::Event,
    hosts::{blobs::blobs, connection::Unanswered},
    protocol::{Need, Progress, Request, RunLine},
};

/// The largest answer of one host, in bytes.
pub(super) const MAX_ANSWER: usize = 16 << 20;

impl RemoteRun {
    /// Waits for the answer to the request that was sent.
    pub(super) async fn answer<C: CandidateBytes>(
        &mut self,
        waiting: &mut Waiting<'_, C>,
    ) -> Result<RunLine, Unanswered> {
        let mut interrupts = waiting.interrupts.clone();
        // An interrupt from before this request counts too.
        let mut told = 0;
        let mut text = String::new();
        let mut asked = Instant::now();
        loop {
            let connection = self.link.connection().ok_or(Unanswered::Ended)?;
            let level = *interrupts.borrow_and_update();
            if level > told {
                told = level;
                let run = self.run.clone();
                connection.send(&Request::Interrupt { run, level }).await?;
            }
            let frame = tokio::select! {
                frame = connection.receive() => frame?,
                Ok(()) = interrupts.changed() => continue,
            };
            if frame.get("ev").is_some() {
                self.show(frame, waiting.emit);
            } else if frame.get("need").is_some() {
                let need: Need = serde_json::from_value(frame).map_err(invalid)?;
                self.supply(&need, waiting.candidates).await?;
            } else if frame.get("idle").is_some() {
                // A sign of life may have crossed the request on its way.
                if asked.elapsed() > self.silence / 2 {
                    return Err(Unanswered::Idle);
                }
                continue;
            } else if frame.get("a").and_then(Value::as_u64) == Some(self.n) {
                let line: RunLine = serde_json::from_value(frame).map_err(invalid)?;
                if let Some(whole) = joined(line, &mut text)? {
                    return Ok(whole);
                }
            }
            asked = Instant::now();
        }
    }

    fn show(&self, frame: Value, emit: &mut dyn FnMut(&Event)) {
        // Progress that this version does not know is not shown. The answer has what counts.
        if let Ok(progress) = serde_json::from_value::<Progress>(frame)
            && progress.ev == self.n
        {
            progress.events.iter().for_each(emit);
        }
    }

    /// Sends the candidates that the host lacks.
    async fn supply(
        &mut self,
        need: &Need,
        candidates: &impl CandidateBytes,
    ) -> Result<(), Unanswered> {
        for sha256 in &need.bytes {
            let bytes = candidates.bytes(sha256).ok_or(Unanswered::Unknown)?;
            let connection = self.link.connection().ok_or(Unanswered::Ended)?;
            for blob in blobs(&self.run, sha256, bytes) {
                connection.send(&blob).await?;
            }
        }
        Ok(())
    }
}

pub(super) fn invalid(why: serde_json::Error) -> Unanswered {
    Unanswered::Frame(why.into())
}

/// Returns an answer once its last line is there. `text` has the pieces so far.
pub(super) fn joined(line: RunLine, text: &mut String) -> Result<Option<RunLine>, Unanswered> {
    if let Some(refused) = line.no {
        return Err(Unanswered::Refused(refused));
    }
    let Some(piece) = &line.piece else {
        return Ok(Some(line));
    };
    if text.len() + piece.len() > MAX_ANSWER {
        return Err(Unanswered::Large);
    }
    // A piece that came twice, or in another order, is of no whole text.
    if line.at != text.len() {
        return Err(Unanswered::Ended);
    }
    text.push_str(piece);
    if line.more {
        return Ok(None);
    }
    let ok = serde_json::from_str(text).map_err(invalid)?;
    Ok(Some(RunLine {
        ok: Some(ok),
        piece: None,
        ..line
    }))
}
