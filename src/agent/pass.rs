//! A connection to this host whose coordinator wants the session of another agent: this one passes
//! the frames of both on.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{net::UnixStream, time::timeout};

use super::{
    attach,
    host_agent::Agent,
    input::{Heard, Input},
    output::Sign,
};
use crate::{
    protocol::{Answer, FrameReader, FrameWriter, Refused, RefusedKind, Request, TakeOver},
    runs::{self, RunEnded, RunInfo},
};

/// The longest wait for a session that ends: it finishes what it carries out first.
const ENDING: Duration = Duration::from_secs(600);

impl Agent {
    /// Passes the frames of this connection to the session of a run, and back, until one of them
    /// ends. Returns false if there is no such session, and has said so.
    pub(super) async fn pass(&self, run: &str, key: String, input: &mut Input) -> bool {
        let session = match self.options.state.as_deref() {
            Some(state) => attach::session_of(state, run).await,
            None => None,
        };
        let Some(session) = session else {
            self.output.send(&self.why_ended(run));
            return false;
        };
        let (read, write) = session.into_split();
        let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
        let run = run.to_owned();
        if writer.write(&Request::Attach { run, key }).await.is_err() {
            let text = "the session ended just now";
            self.output.send(&Answer::refused(RefusedKind::Ended, text));
            return false;
        }
        // A sign of life of this agent would tell nothing of the session.
        self.output.give(Sign::None);
        loop {
            tokio::select! {
                heard = input.next(|| None) => match heard {
                    Heard::Frame(frame) if writer.write(&frame).await.is_ok() => {}
                    _ => return true,
                },
                frame = reader.next::<Value>() => match frame {
                    Ok(Some(frame)) => self.output.send(&frame),
                    Ok(None) | Err(_) => return true,
                },
            }
        }
    }

    /// Returns the answer about a run that has no session here.
    fn why_ended(&self, run: &str) -> Answer {
        let Some(state) = self.options.state.as_deref() else {
            return Answer::refused(RefusedKind::Ended, "no session of the run is there");
        };
        let info = RunInfo::of(state, run);
        let with_end = |text: String| match runs::session_end(state, run) {
            Some(end) => format!("{text}; {end}"),
            None => text,
        };
        match &info.end {
            Some(RunEnded::SupersededBy { .. }) => {
                let text = with_end("the run is over there: another one took its place".into());
                Answer::refused(RefusedKind::OtherEnd, text)
            }
            Some(RunEnded::Finished { .. }) => {
                let text = format!("the run is over there: {}", info.verdict());
                Answer::refused(RefusedKind::Finished, text)
            }
            None if attach::was_taken_over(state, run) => {
                let text = with_end("another coordinator has taken the run over there".into());
                Answer::refused(RefusedKind::OtherEnd, text)
            }
            None if info.open => {
                let text = with_end("its agent has ended, and the run is open there".into());
                Answer::refused(RefusedKind::Ended, text)
            }
            // Its mark comes last: without one, nothing is touched.
            None => Answer::refused(RefusedKind::Ended, "the run has not begun there"),
        }
    }

    /// Ends the sessions of other coordinators that are meant, and waits until they hold nothing.
    pub(super) async fn take_over(&self, order: &TakeOver) -> Result<Vec<Answer>, Refused> {
        let Some(state) = self.options.state.as_deref() else {
            return Ok(vec![Answer::of([("ended", json!([]))])]);
        };
        let mut runs = Vec::new();
        for session in attach::sessions(state).await {
            match timeout(ENDING, end(session, order)).await {
                Ok(Some(run)) => runs.push(run),
                Ok(None) => {}
                Err(_) => {
                    let text = format!(
                        "a session has not ended within {}s after it was taken over",
                        ENDING.as_secs()
                    );
                    let kind = RefusedKind::Failed;
                    return Err(Refused { kind, text });
                }
            }
        }
        Ok(vec![Answer::of([("ended", Value::Array(runs))])])
    }
}

/// Asks one session to end. Returns its run once it holds nothing; none if it is not meant.
async fn end(session: UnixStream, order: &TakeOver) -> Option<Value> {
    let (read, write) = session.into_split();
    let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
    writer.write(&Request::TakeOver(order.clone())).await.ok()?;
    loop {
        let frame: Value = reader.next().await.ok()??;
        if frame.get("a").is_none() {
            continue;
        }
        let mut answer: Answer = serde_json::from_value(frame).ok()?;
        return answer.result.remove("run").filter(|_| answer.no.is_none());
    }
}
