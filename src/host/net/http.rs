//! Requests to an instance, each over a connection of its own and within a time limit.

use std::{sync::Arc, time::Duration};

use http_body_util::Empty;
use hyper::{
    Request,
    body::Bytes,
    header::{AUTHORIZATION, CONNECTION, HOST},
    http::uri::Authority,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    sync::Semaphore,
    time::timeout,
};

pub(crate) use self::answer::Answer;
use self::destination::{Destination, Socket, without_brackets};
use crate::{
    assertion::HttpRequest,
    host::{
        exec::placeholders::Values,
        net::{
            body::{self, KeepLines, Large, MAX_BODY},
            connect::Connection,
            credentials::Credentials,
            error::HttpError,
            metered::Metered,
            tls,
        },
    },
    refusal::Refusal,
};

mod answer;
mod destination;

/// The timeout of a self-report, and the time for which the first probe of an instance may keep a
/// permit for responsive instances.
pub(crate) const QUICK: Duration = Duration::from_secs(1);
/// The longest timeout of one answer, however long the timeout of its instance is. A server that
/// accepts connections and never answers would delay the survey by that.
const LONGEST: Duration = Duration::from_secs(30);
/// The most bytes that one attempt reads from its socket: a body of [`MAX_BODY`], and a quarter of
/// that for heads, chunks and TLS.
const MAX_READ: usize = MAX_BODY + MAX_BODY / 4;
/// The most bytes that one attempt reads of an answer in our protocol: 1 MiB, and a quarter of that
/// for the head and the chunks. The body is no more than a self-report.
const MAX_STATUS: usize = (1 << 20) + (1 << 18);
/// The path of the self-report of an instance that speaks our protocol.
pub(crate) const STATUS: &str = "/-/config";

/// The credentials and limits of a request, and the parts of its answer that are kept.
pub(crate) struct RequestOptions<'a> {
    pub(crate) credentials: &'a Credentials,
    /// The timeout.
    pub(crate) time: Duration,
    pub(crate) keep: &'a KeepLines,
    pub(crate) large: &'a Large,
}

/// Returns the timeout of one answer of an instance that has `left` of its own timeout.
pub(crate) fn within(left: Duration) -> Duration {
    left.clamp(QUICK, LONGEST)
}

/// Returns a request to the instance's own endpoint.
pub(crate) fn own(path: &str) -> HttpRequest {
    HttpRequest {
        url: format!("http://{{listen}}{path}"),
        ..HttpRequest::default()
    }
}

/// Sends a request in our own protocol.
///
/// # Errors
/// Fails if there is no answer within [`QUICK`], or none that can be read.
pub(crate) async fn get(request: &HttpRequest, values: &Values<'_>) -> Result<Answer, HttpError> {
    let options = RequestOptions {
        credentials: &Credentials::default(),
        time: QUICK,
        keep: &KeepLines::All,
        large: &Large::of(Arc::new(Semaphore::new(1))),
    };
    send(request, values, &options, MAX_STATUS).await
}

/// Sends a request.
///
/// # Errors
/// Fails if there is no answer within its timeout, or none that can be read.
pub(crate) async fn answer(
    request: &HttpRequest,
    values: &Values<'_>,
    options: &RequestOptions<'_>,
) -> Result<Answer, Refusal<HttpError>> {
    send(request, values, options, MAX_READ)
        .await
        .map_err(HttpError::refusal)
}

async fn send(
    request: &HttpRequest,
    values: &Values<'_>,
    options: &RequestOptions<'_>,
    max_read: usize,
) -> Result<Answer, HttpError> {
    let destination = Destination::of(request, values)?;
    let exchange = async {
        match &destination.socket {
            Socket::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                send_over(stream, request, &destination, options, max_read).await
            }
            Socket::Tcp(host, port) => {
                let stream = Connection::to(host, *port).await;
                send_over(stream, request, &destination, options, max_read).await
            }
        }
    };
    timeout(options.time, exchange)
        .await
        .unwrap_or(Err(HttpError::NoAnswer(options.time)))
}

/// Sends a request over `stream`, with TLS if its URL says so.
async fn send_over<S>(
    stream: std::io::Result<S>,
    request: &HttpRequest,
    destination: &Destination,
    options: &RequestOptions<'_>,
    max_read: usize,
) -> Result<Answer, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stream = Metered::new(stream.map_err(HttpError::Connect)?, max_read);
    let host = request.host.as_deref().unwrap_or(&destination.authority);
    if !destination.tls {
        return exchange(stream, request, host, &destination.path, options).await;
    }
    let authority: Authority = host.parse().map_err(|e| HttpError::Name(host.into(), e))?;
    let name = without_brackets(authority.host());
    let stream = tls::connect(stream, request, options.credentials, name).await?;
    exchange(stream, request, host, &destination.path, options).await
}

/// Sends a request over `stream` and reads its answer.
async fn exchange<S>(
    stream: S,
    request: &HttpRequest,
    host: &str,
    path: &str,
    options: &RequestOptions<'_>,
) -> Result<Answer, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut message = Request::get(path)
        .header(HOST, host)
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    if let Some(authorization) = &options.credentials.authorization {
        message
            .headers_mut()
            .insert(AUTHORIZATION, authorization.clone());
    }
    let exchange = async {
        let (head, body) = sender.send_request(message).await?.into_parts();
        let body = body::collect(body, options.keep, options.large).await?;
        Ok(Answer {
            status: head.status.as_u16(),
            wanted: request.status,
            headers: head.headers,
            body,
            secrets: options.credentials.secrets.clone(),
        })
    };
    tokio::pin!(exchange, connection);
    // The connection moves the bytes. It is polled in the same task, which costs no spawn.
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => {
            ended?;
            exchange.await
        }
    }
}

#[cfg(test)]
mod tests;
