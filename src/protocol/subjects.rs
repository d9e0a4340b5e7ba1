//! The subjects of a NATS server over which coordinators and agents talk.
//!
//! A conversation has the inbox of its coordinator: the reply subject of each of its messages. A
//! message is one frame, without the end of its line. An empty message is the end of the
//! conversation.

use crate::{fleet::FleetName, inventory::HostName};

/// The first message of a conversation: the agent greets then.
pub(crate) const GREET: &[u8] = b"{\"q\":\"greet\"}";

/// Returns the subject on which the agent of a host listens. A name may have dots, which part the
/// tokens of a subject.
pub(crate) fn subject_of(fleet: &FleetName, host: &HostName) -> String {
    let token = host.as_str().replace('.', "~");
    format!("hello.{}.h.{token}", fleet.as_str())
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
}
