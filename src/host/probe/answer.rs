//! The answer of one source, or why there is none.

use std::io;

use crate::{
    host::{
        exec::{Output, RunError, placeholders::NoValue},
        net::{
            credentials::CredentialError,
            error::HttpError,
            http::{Answer, STATUS},
            sockets::SocketsError,
        },
    },
    refusal::Refusal,
    self_report::NoSelfReport,
};

/// The answer of one source.
#[derive(Debug)]
pub(crate) enum ProbeResult {
    Http(Answer),
    Command(Output),
    Kernel(String),
}

/// Why a source did not answer, and what helps.
#[derive(Debug)]
pub(crate) struct ProbeError {
    pub(crate) refusal: Refusal<ProbeReason>,
    /// True if the source was reached. A command that cannot be run, or a kernel that does not
    /// tell, shows nothing of the instance.
    pub(crate) reached: bool,
}

/// Why a source did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeReason {
    /// The files of its credentials cannot be used.
    #[error(transparent)]
    Credentials(CredentialError),
    #[error(transparent)]
    Http(HttpError),
    /// The command of an assertion needs a value that the instance does not have.
    #[error(transparent)]
    NoValue(#[from] NoValue),
    #[error(transparent)]
    Command(#[from] RunError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl ProbeError {
    /// Returns the error of a source that was not reached.
    pub(crate) fn unreached(why: impl Into<ProbeReason>) -> Self {
        Self {
            refusal: Refusal::from(why.into()),
            reached: false,
        }
    }
}

impl From<CredentialError> for ProbeError {
    fn from(why: CredentialError) -> Self {
        Self {
            refusal: Refusal {
                hint: why.hint(),
                why: ProbeReason::Credentials(why),
            },
            reached: false,
        }
    }
}

impl From<Refusal<HttpError>> for ProbeError {
    fn from(Refusal { why, hint }: Refusal<HttpError>) -> Self {
        Self {
            refusal: Refusal {
                why: ProbeReason::Http(why),
                hint,
            },
            reached: true,
        }
    }
}

/// Why the kernel does not tell which processes of an instance listen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KernelError {
    #[error("its children: {0}")]
    Children(io::Error),
    #[error("pid {0}: {1}")]
    Process(i32, io::Error),
    #[error("pid {0}: {1}")]
    Sockets(i32, SocketsError),
    #[error(transparent)]
    OwnSockets(#[from] SocketsError),
    #[error("the kernel does not tell which sockets listen: {0}")]
    Listeners(#[from] io::Error),
}

/// Why an instance gave no self-report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoReport {
    #[error("{0}: {1}")]
    NoAnswer(String, Box<HttpError>),
    #[error(
        "{0} answers 403 to GET {STATUS} (it answers only requests from this host to an address \
         or to `localhost`; to allow others, start it with `--proof any`)"
    )]
    Forbidden(String),
    #[error("{endpoint} answers {status} to GET {STATUS}")]
    Status { endpoint: String, status: u16 },
    #[error("{0} does not speak hello: {1}")]
    Protocol(String, NoSelfReport),
}
