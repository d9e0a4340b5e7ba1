//! One HTTP request to a store: every part of it is limited, and no redirect is followed.

use std::ops::ControlFlow;

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Uri,
    body::{Body, Bytes},
    header::{CONNECTION, CONTENT_ENCODING, HOST, HeaderMap, HeaderName, HeaderValue},
    http::response::Parts,
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    error::{Fault, Outcome, unusable},
    files,
};
use crate::{
    assertion::HttpRequest,
    config::MAX_TARGET,
    fleet::{Origin, StoreAccess},
    host::net::{
        connect::Connection, credentials::Credentials, error::HttpError, http::Answer,
        metered::Metered, tls,
    },
};

/// The largest value, in bytes: that of any target.
pub(super) const MAX_VALUE: usize = MAX_TARGET as usize;

/// The bytes of one answer besides its body: heads, marks of chunks, and TLS. A quarter of the body
/// comes on top.
const MAX_BESIDE: usize = 256 << 10;

/// A request.
pub(super) struct Message<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Bytes,
}

/// The credentials for requests to one store.
pub(super) struct Client<'a> {
    origin: &'a Origin,
    request: HttpRequest,
    pub(super) credentials: Credentials,
}

impl<'a> Client<'a> {
    /// Reads the files of a store. They may be rotated, so each verb reads them.
    pub(super) fn of(access: &StoreAccess, origin: &'a Origin) -> Outcome<Self> {
        let request = files::request(access, origin)?;
        let credentials = Credentials::of(&request).map_err(unusable)?;
        Ok(Self {
            origin,
            request,
            credentials,
        })
    }

    /// Sends a request, and reads the whole answer, whose body has at most `max` bytes.
    pub(super) async fn answer(&self, message: Message<'_>, max: usize) -> Outcome<Answer> {
        let mut body = Vec::new();
        let mut keep = |piece: &[u8]| {
            if body.len() + piece.len() > max {
                return Err(Fault::TooLarge(MAX_VALUE));
            }
            body.extend_from_slice(piece);
            Ok(ControlFlow::Continue(()))
        };
        let head = self.stream(message, max, &mut keep).await?;
        Ok(self.answered(head.status.as_u16(), head.headers, body))
    }

    /// Returns an answer whose messages repeat no credential.
    pub(super) fn answered(&self, status: u16, headers: HeaderMap, body: Vec<u8>) -> Answer {
        let secrets = self.credentials.secrets.clone();
        Answer::new(status, headers, body.into(), secrets)
    }

    /// Sends a request, and hands each piece of the answer to `on_piece` until that has enough.
    pub(super) async fn stream(
        &self,
        message: Message<'_>,
        max: usize,
        on_piece: &mut impl FnMut(&[u8]) -> Result<ControlFlow<()>, Fault>,
    ) -> Outcome<Parts> {
        let origin = self.origin;
        let message = written(origin, message)
            .map_err(HttpError::from)
            .map_err(Fault::from)?;
        let stream = Connection::to(&origin.host, origin.port)
            .await
            .map_err(HttpError::Connect)
            .map_err(Fault::from)?;
        if !origin.tls && !stream.is_loopback() {
            return Err(Fault::NotHere(origin.host.clone()).into());
        }
        let stream = Metered::new(stream, max + max / 4 + MAX_BESIDE);
        if !origin.tls {
            return Ok(exchange(stream, message, on_piece).await?);
        }
        let stream = tls::connect(stream, &self.request, &self.credentials, &origin.host)
            .await
            .map_err(HttpError::from)
            .map_err(refused)?;
        Ok(exchange(stream, message, on_piece).await?)
    }
}

/// Returns an error of the transport with its next step.
fn refused(why: HttpError) -> crate::refusal::Refusal<Fault> {
    let refusal = why.refusal();
    crate::refusal::Refusal {
        why: refusal.why.into(),
        hint: refusal.hint,
    }
}

fn written(origin: &Origin, message: Message<'_>) -> hyper::http::Result<Request<Full<Bytes>>> {
    let uri: Uri = message.path.parse()?;
    let is_default = origin.port == if origin.tls { 443 } else { 80 };
    let host = match origin.to_string() {
        host if is_default => host[..host.rfind(':').unwrap_or(host.len())].to_owned(),
        host => host,
    };
    let mut request = Request::builder()
        .method(message.method)
        .uri(uri)
        .header(HOST, host)
        .header(CONNECTION, "close")
        .body(Full::new(message.body))?;
    request.headers_mut().extend(message.headers);
    Ok(request)
}

async fn exchange<S>(
    stream: S,
    message: Request<Full<Bytes>>,
    on_piece: &mut impl FnMut(&[u8]) -> Result<ControlFlow<()>, Fault>,
) -> Result<Parts, Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(HttpError::from)?;
    let exchange = async {
        let answer = sender.send_request(message).await;
        let (head, mut body) = answer.map_err(HttpError::from)?.into_parts();
        // The status of an error page says more than what is wrong with its body.
        if head.status.is_success() {
            let has_length = body.size_hint().exact().is_some() || body.is_end_stream();
            check_body(&head.headers, has_length)?;
        }
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(HttpError::from)?;
            if let Some(piece) = frame.data_ref()
                && on_piece(piece)?.is_break()
            {
                break;
            }
        }
        Ok(head)
    };
    tokio::pin!(exchange, connection);
    // The connection moves the bytes. It is polled in the same task, which costs no spawn.
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => {
            ended.map_err(HttpError::from)?;
            exchange.await
        }
    }
}

/// Checks that a body is the value itself, and that its end can be told from a broken connection.
fn check_body(headers: &HeaderMap, has_length: bool) -> Result<(), Fault> {
    let is_chunked = headers.contains_key(hyper::header::TRANSFER_ENCODING);
    if !has_length && !is_chunked {
        return Err(Fault::Unbounded);
    }
    match headers.get(CONTENT_ENCODING) {
        Some(coding) if coding != "identity" => {
            let coding = String::from_utf8_lossy(coding.as_bytes());
            Err(Fault::Encoded(coding.chars().take(40).collect()))
        }
        _ => Ok(()),
    }
}
