//! Asks an instance over a fresh connection, at most a second and a megabyte.

use std::{path::PathBuf, time::Duration};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, body::Bytes, header::HeaderMap};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    sync::Semaphore,
    time::timeout,
};

use crate::told::Told;

/// Longest that one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(1);
const MAX_BODY: usize = 1 << 20;
/// Where an instance that speaks our protocol tells of itself.
pub(super) const STATUS: &str = "/-/config";

/// Bounds the connections that are open at once. Whoever was silent once waits in the slow lane,
/// so that stopped instances cannot starve healthy ones.
#[derive(Debug)]
pub(crate) struct Lanes {
    pub(super) fast: Semaphore,
    pub(super) slow: Semaphore,
}

impl Default for Lanes {
    fn default() -> Self {
        Self { fast: Semaphore::new(64), slow: Semaphore::new(64) }
    }
}

/// One answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What the instance at `endpoint` tells of itself.
///
/// # Errors
/// A sentence: silent, or not one that speaks this protocol.
pub(crate) async fn told(endpoint: &str, lanes: &Lanes) -> Result<Told, String> {
    let _permit = lanes.fast.acquire().await;
    let answer = get(endpoint, STATUS).await.map_err(|why| format!("{endpoint}: {why}"))?;
    if answer.status != 200 {
        return Err(format!("{endpoint} answers {} to GET {STATUS} (not on loopback? start it with `--proof any`)", answer.status));
    }
    serde_json::from_slice(&answer.body).map_err(|e| format!("{endpoint} does not speak hello: {e}"))
}

/// Endpoint and path of a source; `{listen}` is the instance's own endpoint.
pub(super) fn address<'a>(source: &'a str, endpoint: &'a str) -> (&'a str, &'a str) {
    let rest = source.strip_prefix("http://").unwrap_or(source);
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    if host == "{listen}" { (endpoint, path) } else { (host, path) }
}

pub(super) fn bare(endpoint: &str) -> &str {
    endpoint.trim_start_matches("http://").trim_end_matches('/')
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }
}

pub(super) async fn get(endpoint: &str, path: &str) -> Result<Answer, String> {
    let said = timeout(ATTEMPT, async {
        match endpoint.strip_prefix("unix:") {
            Some(socket) => ask(UnixStream::connect(PathBuf::from(socket)).await, "localhost", path).await,
            None => {
                let address = bare(endpoint);
                ask(TcpStream::connect(address).await, address, path).await
            }
        }
    });
    match said.await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {ATTEMPT:?}")),
    }
}

async fn ask<S>(stream: std::io::Result<S>, host: &str, path: &str) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let io = TokioIo::new(stream.map_err(|e| e.to_string())?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(|e| e.to_string())?;
    let request = Request::get(path)
        .header(hyper::header::HOST, host)
        .header(hyper::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|e| e.to_string())?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await.map_err(|e| e.to_string())?.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(|e| e.to_string())?.to_bytes();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    };
    tokio::pin!(exchange, connection);
    // The connection moves the bytes; polled here, in the same task, it costs no spawn.
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => {
            ended.map_err(|e| e.to_string())?;
            exchange.await
        }
    }
}
