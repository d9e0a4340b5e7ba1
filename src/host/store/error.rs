//! Why a store gave no answer that counts.

use std::time::Duration;

use crate::{
    fleet::AddressError,
    host::{
        exec::RunError,
        net::{credentials::CredentialError, error::HttpError},
    },
    refusal::Refusal,
};

/// Why a request to a store has no result, and what the operator can do about it.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct StoreError(#[from] Refusal<Fault>);

impl StoreError {
    /// Tells whether the request was certainly refused or never sent. After any other error a write
    /// may take effect, even later.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        match &self.0.why {
            Fault::Address(_)
            | Fault::Credentials(_)
            | Fault::NoCredentials(_)
            | Fault::NotHere(_)
            | Fault::Http(HttpError::Connect(_) | HttpError::Tls(_))
            | Fault::ReadOnly(_) => true,
            // An error of the server itself may be that of a gateway that gave up waiting.
            Fault::Status { status, .. } => (400..500).contains(status),
            _ => false,
        }
    }
}

/// The result of a request.
pub(super) type Outcome<T> = Result<T, Refusal<Fault>>;

/// Why a request to a store has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    #[error("`{0}` is a systemd credential, and $CREDENTIALS_DIRECTORY is not set")]
    NoCredentials(String),
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The name of this machine leads to another one.
    #[error("`{0}` is not on this machine, and without TLS it must be")]
    NotHere(String),
    #[error("no whole answer within {0:?}")]
    Late(Duration),
    /// The answer to a request, with its status and what the store says about it.
    #[error("it {text}")]
    Status { status: u16, text: String },
    #[error("it answers that nothing has changed, which was not the question")]
    NotRequested,
    #[error("its answer is larger than {} MiB, the limit of a value", .0 >> 20)]
    TooLarge(usize),
    #[error(
        "its answer has neither a length nor a mark of its end: a broken connection would look \
         like the end"
    )]
    Unbounded,
    #[error("its answer is encoded as `{0}`, and not the value itself")]
    Encoded(String),
    #[error("its answer is none of {store}: {why}")]
    Json {
        store: &'static str,
        why: serde_json::Error,
    },
    #[error("its answer is none of {store}: {why}")]
    Answer {
        store: &'static str,
        why: &'static str,
    },
    /// The store cannot compare revisions, so a write could undo another one.
    #[error("the key can only be read: {0}")]
    ReadOnly(&'static str),
    #[error("it has stored the value, and its revision is not known: another write came after")]
    Unknown,
    #[error(transparent)]
    Command(#[from] RunError),
    #[error("`{program}` exited with {code}{}", after(.stderr))]
    Exit {
        program: String,
        code: i32,
        stderr: String,
    },
    #[error("`{program}` printed no revision: its first line must be one, of at most 256 bytes")]
    NoRevision { program: String },
    /// What NATS or its client says.
    #[cfg(feature = "nats")]
    #[error("{0}")]
    Nats(String),
    #[cfg(not(feature = "nats"))]
    #[error("this build of `hello` does not speak NATS")]
    NoNats,
}

fn after(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(": {text}")
    }
}

/// Returns the refusal of a file with credentials, with the command that makes it usable.
pub(super) fn unusable(why: CredentialError) -> Refusal<Fault> {
    Refusal {
        hint: why.hint(),
        why: why.into(),
    }
}
