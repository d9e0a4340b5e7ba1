//! The subjects of a NATS server over which coordinators and agents talk.
//!
//! A conversation has the inbox of its coordinator: the reply subject of each of its messages. A
//! message is one frame, without the end of its line. An empty message is the end of the
//! conversation.

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};

use super::MAX_LINE;
use crate::{fleet::FleetName, inventory::HostName};

/// The first message of a conversation: the agent greets then.
pub(crate) const GREET: &[u8] = b"{\"q\":\"greet\"}";

/// Returns the subject on which the agent of a host listens. A name may have dots, which part the
/// tokens of a subject.
pub(crate) fn subject_of(fleet: &FleetName, host: &HostName) -> String {
    let token = host.as_str().replace('.', "~");
    format!("hello.{}.h.{token}", fleet.as_str())
}

/// Reads the next line into `payload`, without its end. Returns false at the end of the input, and
/// for a line over the limit.
pub(crate) async fn next_payload<R: AsyncBufRead + Unpin>(
    lines: &mut R,
    payload: &mut Vec<u8>,
) -> bool {
    payload.clear();
    let mut limited = lines.take(MAX_LINE as u64);
    if !matches!(limited.read_until(b'\n', payload).await, Ok(1..)) {
        return false;
    }
    if payload.ends_with(b"\n") {
        payload.pop();
        return true;
    }
    payload.len() < MAX_LINE
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn the_name_of_a_host_is_one_token() {
        let host = HostName::new("web-1.example").unwrap();
        let subject = subject_of(&FleetName::default(), &host);
        assert_eq!(subject, "hello.default.h.web-1~example");
    }

    #[tokio::test]
    async fn each_line_is_a_payload_and_one_over_the_limit_ends_the_reading() {
        let long = "x".repeat(MAX_LINE);
        let mut lines: &[u8] = b"one\n\nlast";
        let mut payload = Vec::new();
        for wanted in ["one", "", "last"] {
            assert!(next_payload(&mut lines, &mut payload).await);
            assert_eq!(payload, wanted.as_bytes());
        }
        assert!(!next_payload(&mut lines, &mut payload).await);
        assert!(!next_payload(&mut long.as_bytes(), &mut payload).await);
    }
}
