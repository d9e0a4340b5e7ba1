//! A run on another machine: numbered requests over a connection to its agent.

use serde_json::Value;

use super::{
    blobs::blobs,
    connection::{Connection, Unanswered},
};
use crate::{
    event::{Event, Interrupts},
    inventory::HostName,
    protocol::{Need, Progress, Refused, Request, RunAnswer, RunFrame, RunLine, RunVerb},
};

/// The largest answer of one host, in bytes.
const MAX_ANSWER: usize = 16 << 20;

/// A run on one host.
#[derive(Debug)]
pub(crate) struct RemoteRun {
    pub(super) name: HostName,
    connection: Connection,
    run: String,
    /// The number of the last request.
    n: u64,
    /// The fencing token of the host; none before its survey.
    epoch: Option<u64>,
    /// Events of the coordinator since the last request.
    notes: Vec<Event>,
    pub(super) is_journaled: bool,
}

/// Why a request of a run has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The connection broke, or the host is silent; with the last line that the command wrote on
    /// stderr.
    #[error("{why}{}", after(last_line.as_deref()))]
    Lost {
        why: Unanswered,
        last_line: Option<String>,
        /// False if not all of the request was written.
        is_sent: bool,
    },
    /// The agent refuses.
    #[error("{}", .0.text)]
    Refused(Refused),
}

fn after(line: Option<&str>) -> String {
    line.map_or(String::new(), |line| format!(": {line}"))
}

/// Bytes of candidates, by digest.
pub(crate) trait CandidateBytes {
    /// Returns the bytes of a candidate of the run.
    fn bytes(&self, sha256: &str) -> Option<&[u8]>;
}

impl RemoteRun {
    /// Begins a run over a connection. Nothing is sent yet.
    pub(crate) fn new(name: HostName, connection: Connection, run: &str) -> Self {
        Self {
            name,
            connection,
            run: run.into(),
            n: 0,
            epoch: None,
            notes: Vec::new(),
            is_journaled: true,
        }
    }

    /// Keeps an event of the coordinator for the host's journal: the next request carries it.
    pub(super) fn keep_note(&mut self, event: &Event) {
        self.notes.push(event.clone());
    }

    /// Sends the next request, and waits for its answer. Sends the bytes that the host lacks, and
    /// passes on each interrupt meanwhile.
    ///
    /// # Errors
    /// Fails if the host is lost, or if its agent refuses.
    pub(crate) async fn call(
        &mut self,
        verb: RunVerb,
        candidates: &impl CandidateBytes,
        interrupts: &Interrupts,
        emit: &mut dyn FnMut(&Event),
    ) -> Result<RunAnswer, CallError> {
        self.n += 1;
        let frame = RunFrame {
            run: self.run.clone(),
            n: self.n,
            epoch: self.epoch,
            notes: std::mem::take(&mut self.notes),
            verb,
        };
        // An agent reads whole lines: without its end, this one is no request.
        if let Err(why) = self.connection.send(&frame).await {
            return Err(self.lost(why, false));
        }
        let answer = self.answer(candidates, interrupts, emit).await;
        match answer {
            Ok(line) => {
                self.epoch = Some(line.epoch);
                line.ok.ok_or_else(|| self.lost(Unanswered::Ended, true))
            }
            Err(Unanswered::Refused(refused)) => Err(CallError::Refused(refused)),
            Err(why) => Err(self.lost(why, true)),
        }
    }

    /// Reads what has come since the last answer.
    ///
    /// # Errors
    /// Fails if the host is lost.
    pub(super) async fn hear_signs(&mut self) -> Result<(), CallError> {
        let heard = self.connection.hear().await;
        heard.map_err(|why| self.lost(why, false))
    }

    fn lost(&self, why: Unanswered, is_sent: bool) -> CallError {
        CallError::Lost {
            why,
            last_line: self.connection.last_line(),
            is_sent,
        }
    }

    /// Waits for the answer to the request that was sent.
    async fn answer(
        &mut self,
        candidates: &impl CandidateBytes,
        interrupts: &Interrupts,
        emit: &mut dyn FnMut(&Event),
    ) -> Result<RunLine, Unanswered> {
        let mut interrupts = interrupts.clone();
        // An interrupt from before this request counts too.
        let mut told = 0;
        let mut text = String::new();
        loop {
            let level = *interrupts.borrow_and_update();
            if level > told {
                told = level;
                let run = self.run.clone();
                self.connection
                    .send(&Request::Interrupt { run, level })
                    .await?;
            }
            let frame = tokio::select! {
                frame = self.connection.receive() => frame?,
                Ok(()) = interrupts.changed() => continue,
            };
            if frame.get("ev").is_some() {
                self.show(frame, emit);
            } else if frame.get("need").is_some() {
                let need: Need = serde_json::from_value(frame).map_err(invalid)?;
                self.supply(&need, candidates).await?;
            } else if frame.get("a").and_then(Value::as_u64) == Some(self.n) {
                let line: RunLine = serde_json::from_value(frame).map_err(invalid)?;
                if let Some(whole) = joined(line, &mut text)? {
                    return Ok(whole);
                }
            }
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
            for blob in blobs(&self.run, sha256, bytes) {
                self.connection.send(&blob).await?;
            }
        }
        Ok(())
    }

    /// Ends the conversation. A run that has touched nothing ends on its host.
    pub(crate) async fn bye(self) {
        self.connection.bye().await;
    }
}

/// Ends the conversation with each host, and so the run where it has touched nothing.
pub(crate) async fn dismiss(runs: impl IntoIterator<Item = RemoteRun>) {
    futures_util::future::join_all(runs.into_iter().map(RemoteRun::bye)).await;
}

fn invalid(why: serde_json::Error) -> Unanswered {
    Unanswered::Frame(why.into())
}

/// Returns an answer once its last line is there. `text` has the pieces so far.
fn joined(line: RunLine, text: &mut String) -> Result<Option<RunLine>, Unanswered> {
    if let Some(refused) = line.no {
        return Err(Unanswered::Refused(refused));
    }
    let Some(piece) = &line.piece else {
        return Ok(Some(line));
    };
    if text.len() + piece.len() > MAX_ANSWER {
        return Err(Unanswered::Large);
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

#[cfg(test)]
mod tests;
