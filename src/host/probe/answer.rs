//! The answer of one source, or why there is none.

use std::io;

use crate::{
    event::{Failure, Outcome},
    host::{
        exec::{Output, RunError, placeholders::NoValue},
        net::{
            credentials::CredentialError,
            error::HttpError,
            http::{Answer, STATUS},
            sockets::SocketsError,
        },
        probe::{
            log::{LogError, LogReading},
            tcp::TcpError,
        },
    },
    kernel::unread_hint,
    refusal::Refusal,
    self_report::NoSelfReport,
};

/// The answer of one source.
#[derive(Debug)]
pub(crate) enum ProbeResult {
    Http(Answer),
    Command(Output),
    Kernel(String),
    /// The first line of a server.
    Line(String),
    Log(LogReading),
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
    #[error(transparent)]
    Tcp(#[from] TcpError),
    #[error(transparent)]
    Log(#[from] LogError),
}

impl From<LogError> for ProbeError {
    fn from(why: LogError) -> Self {
        let hint = why.hint();
        let error = Self::unreached(why);
        Self {
            refusal: Refusal {
                hint,
                ..error.refusal
            },
            ..error
        }
    }
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
    #[error("its children cannot be read: {0}")]
    Children(io::Error),
    /// Its descendants could not be read right before its signal, for this reason.
    #[error("its workers could not be read before its signal: {0}")]
    OldWorkers(String),
    #[error("the processes of this host cannot be listed: {0}")]
    Processes(io::Error),
    #[error("pid {0}: {1}")]
    Process(i32, io::Error),
    #[error("pid {0}: {1}")]
    Sockets(i32, SocketsError),
    #[error(transparent)]
    OwnSockets(#[from] SocketsError),
    #[error("the kernel does not tell which sockets listen: {0}")]
    Listeners(#[from] io::Error),
}

impl KernelError {
    /// Returns the next step for the operator.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Children(e) | Self::Process(_, e) | Self::Processes(e) | Self::Listeners(e) => {
                unread_hint(e)
            }
            Self::Sockets(_, why) | Self::OwnSockets(why) => why.hint(),
            Self::OldWorkers(_) => "try again",
        }
    }

    /// Returns the failure of an instance of which this host cannot tell `what`.
    pub(crate) fn cannot_tell(&self, what: &str) -> Failure {
        Failure {
            kind: Outcome::TimedOut.into(),
            text: format!("cannot tell {what}: {self}; {}", self.hint()),
        }
    }
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
