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
    fact::{Fact, Read},
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
    /// For one that speaks our protocol: what it must say of itself.
    pub says: Option<Says>,
    /// Must all hold; filled in already.
    pub facts: Vec<Fact>,
    /// The facts' readings from before the signal, in the same order.
    pub baseline: Vec<Option<String>>,
    /// How often in a row.
    pub samples: u32,
}

/// What an instance that speaks our protocol must say.
#[derive(Debug, Clone)]
pub struct Says {
    /// Digest that must be told on the serving path.
    pub sha256: String,
    /// Whether a refusal of `sha256` ends the wait.
    pub refusable: bool,
    /// The last attempt must be later than the one before the signal and have read `sha256`:
    /// an answer that could be from before the signal proves nothing.
    pub anew: bool,
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
        let (mut pause, mut silent, mut held) = (Duration::from_millis(1), false, 0);
        loop {
            // An attempt that began before the deadline may end past it; only then is the wait over.
            let late = hung.at.elapsed() >= limit;
            let lane = if silent { &lanes.slow } else { &lanes.fast };
            let said = {
                let _permit = lane.acquire().await;
                attempt(hung, endpoint, wanted).await
            };
            let why = match said {
                Ok(()) => {
                    held += 1;
                    if held >= wanted.samples {
                        return Ok(hung.at.elapsed());
                    }
                    continue;
                }
                Err(Said::Refused(why)) => return Err(trouble(State::Rejected, why)),
                Err(Said::NotYet(why)) => why,
                Err(Said::Silent(why)) => {
                    silent = true;
                    why
                }
            };
            held = 0;
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
    let mut not_yet = None;
    let mut asked: Vec<(&str, Answer)> = Vec::new();
    // Facts of one source are read from one answer.
    let sources = wanted.facts.iter().map(|f| f.http.as_str()).chain(wanted.facts.is_empty().then_some("http://{listen}/"));
    for source in sources {
        if asked.iter().all(|(s, _)| *s != source) {
            let (at, path) = address(source, endpoint);
            asked.push((source, get(at, path).await.map_err(Said::Silent)?));
        }
    }
    for (at, fact) in wanted.facts.iter().enumerate() {
        let reading = asked.iter().find(|(s, _)| *s == fact.http).and_then(|(_, answer)| answer.read(&fact.read));
        let before = wanted.baseline.get(at).and_then(|b| b.as_deref());
        if !reading.as_deref().is_some_and(|now| fact.holds(now, before)) {
            not_yet.get_or_insert_with(|| format!("{} does not say what it should", fact.http.replace("{listen}", bare(endpoint))));
        }
    }
    let Some(says) = &wanted.says else { return not_yet.map_or(Ok(()), |why| Err(Said::NotYet(why))) };
    let me = format!("{}:{}", hung.pid, hung.started);
    for (_, answer) in asked.iter().filter(|(source, _)| source.contains("{listen}")) {
        if answer.header(X_INSTANCE) != Some(&me) {
            return Err(Said::NotYet(format!("{endpoint} is answered by {}", answer.header(X_INSTANCE).unwrap_or("somebody who does not say"))));
        }
        if answer.header(X_CONFIG_SHA256) != Some(&says.sha256) {
            not_yet.get_or_insert_with(|| "serves another config".into());
        }
    }
    if not_yet.is_none() && !says.anew {
        return Ok(());
    }
    let answer = get(endpoint, STATUS).await.map_err(Said::Silent)?;
    let told: Told = serde_json::from_slice(&answer.body).map_err(|e| Said::NotYet(format!("{endpoint}{STATUS}: {e}")))?;
    if (told.instance.pid, told.instance.started) != (hung.pid, hung.started) {
        return Err(Said::NotYet(format!("{endpoint} is answered by pid {}", told.instance.pid)));
    }
    let last = told.last_attempt;
    let looked = last.seq > hung.seq && last.sha256.as_deref() == Some(&says.sha256);
    if not_yet.is_none() && looked {
        return Ok(());
    }
    let kept = matches!(last.result, AttemptResult::Rejected | AttemptResult::RestartRequired | AttemptResult::IoError);
    if says.refusable && last.seq > hung.seq && kept && (looked || last.sha256.is_none()) {
        return Err(Said::Refused(last.error.unwrap_or_else(|| "it says that it kept the old config".into())));
    }
    Err(Said::NotYet(format!("still at generation {}, attempt {}", told.effective.generation, last.seq)))
}

/// What each fact reads now; none where the answer has no such thing.
///
/// # Errors
/// A sentence when the endpoint does not answer.
pub async fn readings(endpoint: &str, facts: &[Fact], lanes: &Lanes) -> Result<Vec<Option<String>>, String> {
    let _permit = lanes.fast.acquire().await;
    let mut readings = Vec::new();
    for fact in facts {
        let (at, path) = address(&fact.http, endpoint);
        readings.push(get(at, path).await?.read(&fact.read));
    }
    Ok(readings)
}

/// Endpoint and path of a source; `{listen}` is the instance's own endpoint.
fn address<'a>(source: &'a str, endpoint: &'a str) -> (&'a str, &'a str) {
    let rest = source.strip_prefix("http://").unwrap_or(source);
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    if host == "{listen}" { (endpoint, path) } else { (host, path) }
}

fn bare(endpoint: &str) -> &str {
    endpoint.trim_start_matches("http://").trim_end_matches('/')
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    fn read(&self, what: &Read) -> Option<String> {
        match what {
            Read::Body => Some(String::from_utf8_lossy(&self.body).into_owned()),
            Read::Status => Some(self.status.to_string()),
            Read::Header(name) => self.header(name).map(str::to_owned),
            Read::Json(pointer) => {
                let value: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
                let value = value.pointer(pointer)?;
                Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            }
        }
    }
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
                let address = bare(endpoint);
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
