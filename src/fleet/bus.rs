//! The NATS server over which the hosts of a fleet are reached.

use super::{Origin, StoreAccess};

/// The name of a fleet on its server, unless its file has another.
const DEFAULT_NAME: &str = "default";

/// The longest name of a fleet, in bytes.
const MAX_NAME: usize = 64;

/// A NATS server, and the name that a fleet has there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bus {
    /// The server.
    pub origin: Origin,
    /// The files with its certificates and the credentials.
    pub access: StoreAccess,
    /// The fleet: one token of a subject.
    pub fleet: FleetName,
}

/// The name of a fleet on a NATS server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetName(String);

/// A text that is no name of a fleet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name of a fleet: it has 1 to 64 letters, digits, `_` and `-`")]
pub struct FleetNameError(String);

impl FleetName {
    /// Checks a name.
    ///
    /// # Errors
    /// Fails if the text has another character, or another length.
    pub fn new(text: &str) -> Result<Self, FleetNameError> {
        let is_inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        if (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(is_inner) {
            Ok(Self(text.to_owned()))
        } else {
            Err(FleetNameError(text.chars().take(MAX_NAME).collect()))
        }
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for FleetName {
    fn default() -> Self {
        Self(DEFAULT_NAME.to_owned())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn a_server_on_another_machine_speaks_tls() {
        for (url, host, port, tls) in [
            ("nats://127.0.0.1", "127.0.0.1", 4222, false),
            ("nats://localhost:5000/", "localhost", 5000, false),
            ("nats://[::1]:4222", "::1", 4222, false),
            ("nats://nats.example", "nats.example", 4222, true),
        ] {
            let origin = Origin::of_nats(url).unwrap();
            assert_eq!(
                origin,
                Origin {
                    tls,
                    host: host.into(),
                    port
                }
            );
        }
    }

    #[test]
    fn a_url_with_more_than_a_server_is_refused() {
        for url in [
            "nats://",
            "nats://a/b",
            "nats://a/b/c",
            "nats://user:x@a",
            "tls://a",
            "a:4222",
            "nats://a?b",
            "nats://a#b",
            "nats://a:0",
        ] {
            assert!(Origin::of_nats(url).is_err(), "{url}");
        }
    }

    #[test]
    fn the_name_of_a_fleet_is_one_token() {
        assert!(FleetName::new("edge_1-a").is_ok());
        for name in ["", "a.b", "a b", "*", ">", &"x".repeat(65)] {
            assert!(FleetName::new(name).is_err(), "{name}");
        }
    }
}
