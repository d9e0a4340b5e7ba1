//! Asks an instance over a fresh connection what it serves, until the wanted config is proven or the deadline passed.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, body::Bytes, header::HeaderMap};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, unix::AsyncFd},
    net::{TcpStream, UnixStream},
    sync::Semaphore,
    time::timeout,
};

use crate::{
    event::{State, Trouble},
    host::hangup::Hung,
    told::{AttemptResult, Told, X_CONFIG_SHA256, X_INSTANCE},
};

/// Longest that one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(1);
const MAX_BODY: usize = 1 << 20;
const STATUS: &str = "/-/config";

/// Bounds the connections that are open at once. Whoever was silent once waits in the slow lane,
/// so that stopped instances cannot starve healthy ones.
#[derive(Debug)]
pub struct Lanes {
    fast: Semaphore,
    slow: Semaphore,
}

impl Default for Lanes {
    fn default() -> Self {
        Self { fast: Semaphore::new(64), slow: Semaphore::new(64) }
    }
}

/// One answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

/// What an instance must prove.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Digest that must be told on the serving path.
    pub sha256: String,
    /// The exact body of `GET /`.
    pub message: Option<String>,
    /// Digest whose refusal ends the wait.
    pub refusable: bool,
    /// When set, the last attempt must have a higher `seq` than this and have read `sha256`:
    /// an answer that could be from before the signal proves nothing.
    pub newer_than: Option<u64>,
}

/// What the instance at `endpoint` tells of itself.
///
/// # Errors
/// A sentence: silent, or not one that speaks this protocol.
pub async fn told(endpoint: &str, lanes: &Lanes) -> Result<Told, String> {
    let _permit = lanes.fast.acquire().await;
    let answer = get(endpoint, STATUS).await?;
    if answer.status != 200 {
        return Err(format!("{endpoint} answers {} to GET {STATUS} (not on loopback? start it with `--proof any`)", answer.status));
    }
    serde_json::from_slice(&answer.body).map_err(|e| format!("{endpoint} does not speak hello: {e}"))
}

/// Polls until `wanted` is proven: at once, then after 1, 2, 4 .. 100 ms.
///
/// # Errors
/// The trouble: it died, it refused, or the deadline passed.
pub async fn confirm(hung: &Hung, endpoint: &str, wanted: &Wanted, limit: Duration, lanes: &Lanes) -> Result<Duration, Trouble> {
    let trouble = |kind, text: String| Trouble { kind, text };
    let died = async {
        #[expect(deprecated, reason = "an OwnedFd keeps its descriptor open, and the replacement is unsafe to call")]
        match hung.pidfd.try_clone().map(AsyncFd::new) {
            Ok(Ok(fd)) => drop(fd.readable().await),
            // Out of descriptors: the polls still see a silent process.
            _ => std::future::pending().await,
        }
    };
    let polls = async {
        let (mut pause, mut silent) = (Duration::from_millis(1), false);
        loop {
            // An attempt that began before the deadline may end past it; only then is the wait over.
            let late = hung.at.elapsed() >= limit;
            let lane = if silent { &lanes.slow } else { &lanes.fast };
            let said = {
                let _permit = lane.acquire().await;
                attempt(hung, endpoint, wanted).await
            };
            let why = match said {
                Ok(()) => return Ok(hung.at.elapsed()),
                Err(Said::Refused(why)) => return Err(trouble(State::Rejected, why)),
                Err(Said::NotYet(why)) => why,
                Err(Said::Silent(why)) => {
                    silent = true;
                    why
                }
            };
            if late {
                return Err(trouble(State::TimedOut, format!("{why} after {limit:?}")));
            }
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    };
    tokio::select! {
        biased;
        () = died => Err(trouble(State::Died, "the process ended".into())),
        said = polls => said,
    }
}

enum Said {
    NotYet(String),
    Silent(String),
    Refused(String),
}

async fn attempt(hung: &Hung, endpoint: &str, wanted: &Wanted) -> Result<(), Said> {
    let answer = get(endpoint, "/").await.map_err(Said::Silent)?;
    let header = |name: &str| answer.headers.get(name).and_then(|v| v.to_str().ok());
    let me = format!("{}:{}", hung.pid, hung.started);
    if header(X_INSTANCE) != Some(&me) {
        return Err(Said::NotYet(format!("{endpoint} is answered by {}", header(X_INSTANCE).unwrap_or("somebody who does not say"))));
    }
    let serves = header(X_CONFIG_SHA256) == Some(&wanted.sha256) && answer.status == 200 && wanted.message.as_ref().is_none_or(|m| m.as_bytes() == answer.body);
    if serves && wanted.newer_than.is_none() {
        return Ok(());
    }
    let answer = get(endpoint, STATUS).await.map_err(Said::Silent)?;
    let told: Told = serde_json::from_slice(&answer.body).map_err(|e| Said::NotYet(format!("{endpoint}{STATUS}: {e}")))?;
    if (told.instance.pid, told.instance.started) != (hung.pid, hung.started) {
        return Err(Said::NotYet(format!("{endpoint} is answered by pid {}", told.instance.pid)));
    }
    let last = told.last_attempt;
    let looked = last.seq > hung.seq && last.sha256.as_deref() == Some(&wanted.sha256);
    if serves && looked {
        return Ok(());
    }
    let kept = matches!(last.result, AttemptResult::Rejected | AttemptResult::RestartRequired | AttemptResult::IoError);
    if wanted.refusable && last.seq > hung.seq && kept && (looked || last.sha256.is_none()) {
        return Err(Said::Refused(last.error.unwrap_or_else(|| "it says that it kept the old config".into())));
    }
    Err(Said::NotYet(format!("still at generation {}, attempt {}", told.effective.generation, last.seq)))
}

/// Spreads the polls of many instances: between half the pause and all of it.
fn jittered(pause: Duration) -> Duration {
    let noise = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), Instant::now());
    pause / 2 + pause.mul_f64((noise % 1024) as f64 / 2048.0)
}

async fn get(endpoint: &str, path: &str) -> Result<Answer, String> {
    let said = timeout(ATTEMPT, async {
        match endpoint.strip_prefix("unix:") {
            Some(socket) => ask(UnixStream::connect(PathBuf::from(socket)).await, "localhost", path).await,
            None => {
                let address = endpoint.strip_prefix("http://").unwrap_or(endpoint).trim_end_matches('/');
                ask(TcpStream::connect(address).await, address, path).await
            }
        }
    });
    match said.await {
        Ok(answer) => answer.map_err(|why| format!("{endpoint}: {why}")),
        Err(_) => Err(format!("{endpoint} does not answer within {ATTEMPT:?}")),
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
