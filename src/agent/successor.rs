//! A coordinator that takes the place of the one of a session, and what a visitor is told.

use std::io::Write as _;

use serde_json::json;

use super::attach::SocketWriter;
use crate::protocol::Answer;

/// A coordinator that waits until a session has ended.
#[derive(Debug)]
pub(super) struct Successor {
    writer: SocketWriter,
    run: String,
}

impl Successor {
    pub(super) fn new(writer: SocketWriter, run: &str) -> Self {
        let run = run.into();
        Self { writer, run }
    }

    /// Says that the session holds nothing any more.
    pub(super) fn answer(self) {
        send(self.writer, &Answer::of([("run", json!(self.run))]));
    }
}

/// Sends one line to a visitor. One that has gone needs no answer.
pub(super) fn send(mut writer: SocketWriter, answer: &Answer) {
    let mut line = serde_json::to_vec(answer).unwrap_or_default();
    line.push(b'\n');
    let _ = writer.write_all(&line);
}
