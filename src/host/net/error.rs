//! Why a request got no answer.

use std::{io, time::Duration};

use hyper::http::uri::InvalidUri;
use rustls::{
    CertificateError, Error, pki_types::InvalidDnsNameError, server::VerifierBuilderError,
};

use super::causes::with_causes;
use crate::{host::exec::placeholders::NoValue, refusal::Refusal};

/// Why a request got no answer that counts.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    /// A placeholder of the URL has no value.
    #[error(transparent)]
    NoValue(#[from] NoValue),
    #[error("`{0}` is no address: {1}")]
    Address(String, InvalidUri),
    #[error("`{0}` is no name: {1}")]
    Name(String, InvalidUri),
    /// No connection.
    #[error(transparent)]
    Connect(io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The request cannot be written as a message.
    #[error("{}", with_causes(.0))]
    Request(#[from] hyper::http::Error),
    /// The peer does not speak HTTP, or the connection broke off.
    #[error("{}", with_causes(.0))]
    Protocol(#[from] hyper::Error),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("no answer within {:?}", whole_milliseconds(.0))]
    NoAnswer(Duration),
}

fn whole_milliseconds(limit: &Duration) -> Duration {
    Duration::from_millis(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX))
}

/// Why the body of an answer was not read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("its answer is longer than {} MiB", .0 >> 20)]
    TooLong(usize),
    #[error("the samples that the assertions read are longer than {} KiB", .0 >> 10)]
    SamplesTooLong(usize),
    #[error("{}", with_causes(.0))]
    Broken(#[from] hyper::Error),
}

/// Why a peer is not trusted, or cannot be asked to prove its name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("`{0}`: {1}")]
    Name(String, InvalidDnsNameError),
    #[error(transparent)]
    Versions(Error),
    #[error("this host has no trusted certificates (package `ca-certificates`)")]
    NoRoots,
    #[error("ca: {0}")]
    Ca(Error),
    #[error("ca: {0}")]
    Verifier(#[from] VerifierBuilderError),
    #[error("client_cert and client_key do not belong together, or are of an unsupported type")]
    Client,
    /// The handshake failed. `ca` and `host` tell whether the assertion sets these keys.
    #[error("{why}")]
    Handshake {
        why: io::Error,
        ca: bool,
        host: bool,
    },
}

impl TlsError {
    /// Returns the key of the assertion that helps.
    fn hint(&self) -> Option<&'static str> {
        let Self::Handshake { why, ca, host } = self else {
            return matches!(self, Self::NoRoots).then_some("set some with `ca`");
        };
        match why.get_ref().and_then(|why| why.downcast_ref()) {
            Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) if !ca => {
                Some("set the certificate that has signed it with `ca`")
            }
            Some(Error::InvalidCertificate(CertificateError::NotValidForNameContext {
                ..
            })) if !host => Some("set the name of its certificate with `host`"),
            _ => None,
        }
    }
}

impl HttpError {
    /// Returns the error with the next step.
    pub(crate) fn refusal(self) -> Refusal<Self> {
        let hint = match &self {
            Self::Tls(e) => e.hint(),
            _ => None,
        };
        Refusal {
            hint: hint.map(Into::into),
            why: self,
        }
    }
}
