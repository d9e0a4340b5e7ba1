//! Asks an instance over a fresh connection, for as long as its answer may take.

use std::{path::PathBuf, sync::Arc, time::Duration};

use http_body_util::Empty;
use hyper::{
    Request, StatusCode,
    body::Bytes,
    header::{AUTHORIZATION, CONNECTION, HOST, HeaderMap, LOCATION, WWW_AUTHENTICATE},
    http::uri::Authority,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    sync::Semaphore,
    time::timeout,
};

use crate::{
    fact::{HttpRequest, without_passwords},
    host::{
        exec::placeholders::Values,
        net::{
            body::{self, KeepLines, Large, MAX_BODY},
            causes::whole,
            connect::Connection,
            credentials::Credentials,
            metered::Metered,
            tls,
        },
    },
};

/// How long an instance that speaks our protocol may take to tell of itself, and how long one that
/// is asked for the first time may keep a place of the fast lane.
pub(crate) const QUICK: Duration = Duration::from_secs(1);
/// Longest that one answer may take, however long the limit of its instance is: a server that takes
/// connections and never answers would hold up the survey for that long.
const LONGEST: Duration = Duration::from_secs(30);
/// Most bytes that one attempt reads from its socket, whatever they are: a body of [`MAX_BODY`],
/// and a quarter of that for heads, chunks and TLS.
const MAX_READ: usize = MAX_BODY + MAX_BODY / 4;
/// The same of an answer in our protocol, which has no more than a status in it.
const MAX_STATUS: usize = (1 << 20) + (1 << 18);
/// Longest part of a header that is repeated for people, in letters.
const MAX_SHOWN: usize = 120;
/// Where an instance that speaks our protocol tells of itself.
pub(crate) const STATUS: &str = "/-/config";

/// One answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The only status that counts; else every success.
    wanted: Option<u16>,
    headers: HeaderMap,
    pub(crate) body: Bytes,
    /// See [`Credentials::secrets`].
    secrets: Arc<[String]>,
}

/// Which files, limits and parts of the answer a request has.
pub(crate) struct RequestOptions<'a> {
    pub(crate) credentials: &'a Credentials,
    /// How long it may take.
    pub(crate) time: Duration,
    pub(crate) keep: &'a KeepLines,
    pub(crate) large: &'a Large,
}

/// How long one answer of an instance may take that has `left` of its own limit.
pub(crate) fn within(left: Duration) -> Duration {
    left.clamp(QUICK, LONGEST)
}

/// That an attempt ended without an answer, for people.
pub(crate) fn no_answer(limit: Duration) -> String {
    format!(
        "no answer within {:?}",
        Duration::from_millis(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX))
    )
}

/// A request to the instance's own endpoint.
pub(crate) fn own(path: &str) -> HttpRequest {
    HttpRequest {
        url: format!("http://{{listen}}{path}"),
        ..HttpRequest::default()
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// Whether its body counts: an error page is no answer, unless the assertion asks for one.
    pub(crate) fn counts(&self) -> bool {
        self.wanted
            .map_or((200..300).contains(&self.status), |wanted| {
                wanted == self.status
            })
    }

    /// Whether it counts for a header. An error page has those of its server as well; without this
    /// one it is named.
    pub(crate) fn has_header(&self, name: &str) -> bool {
        self.counts()
            || (self.wanted.is_none()
                && ((300..400).contains(&self.status) || self.header(name).is_some()))
    }

    /// `text` without anything secret of the request: a server may repeat it.
    pub(crate) fn masked(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| {
            text.replace(secret.as_str(), "***")
        })
    }

    /// Its status and what goes with that, for people.
    pub(crate) fn status_line(&self) -> String {
        let name = StatusCode::from_u16(self.status)
            .ok()
            .and_then(|status| status.canonical_reason());
        let mut text = format!(
            "answers {}{}",
            self.status,
            name.map_or(String::new(), |name| format!(" {name}"))
        );
        let told = |name| {
            let value = String::from_utf8_lossy(self.headers.get(name)?.as_bytes()).into_owned();
            Some(
                without_passwords(&self.masked(&value))
                    .chars()
                    .take(MAX_SHOWN)
                    .collect::<String>(),
            )
        };
        // A query holds tokens and states of a login.
        let cut = |url: String| {
            url.find(['?', '#'])
                .map(|at| format!("{}***", &url[..=at]))
                .unwrap_or(url)
        };
        let (location, asks) = (told(LOCATION).map(cut), told(WWW_AUTHENTICATE));
        for (name, value) in [("Location", &location), ("WWW-Authenticate", &asks)] {
            text = value
                .as_ref()
                .map_or(text.clone(), |value| format!("{text} ({name}: {value})"));
        }
        text
    }

    /// The same with the next step behind a `; `.
    pub(crate) fn refusal(&self) -> String {
        let next = match (self.status, self.wanted) {
            (status, Some(wanted)) => format!("its assertion asks for {wanted}, not for {status}"),
            (400, _) => {
                "if it speaks TLS there, ask by https://, with `client_cert` where it wants one"
                    .into()
            }
            (401 | 403, _) => {
                "say `auth_file = PATH` or `bearer_file = PATH` beside the assertion".into()
            }
            (404, _) => {
                "if it is served below another path, say that with [[group.confirm]]".into()
            }
            (300..400, _) => "ask where it leads to".into(),
            (status, _) => {
                format!("where that is right, say `status = {status}` beside the assertion")
            }
        };
        format!("{}; {next}", self.status_line())
    }
}

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    socket: Socket,
    tls: bool,
    /// As the URL says it; sent as `Host`, and asked for as the certificate's name, unless the fact
    /// names another.
    authority: String,
    path: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Socket {
    Tcp(String, u16),
    Unix(PathBuf),
}

impl Target {
    fn of(ask: &HttpRequest, known: &Values<'_>) -> Result<Self, String> {
        let fill = |text: &str| known.fill(&[text.to_owned()]).map(|filled| filled.concat());
        let (scheme, rest) = ask.url.split_once("://").unwrap_or(("http", &ask.url));
        let tls = scheme == "https";
        let (address, path) = rest
            .find(['/', '?'])
            .map_or((rest, "/"), |at| rest.split_at(at));
        let (address, path) = (fill(address)?, fill(path)?);
        let path = if path.starts_with('?') {
            format!("/{path}")
        } else {
            path
        };
        if let Some(socket) = address.strip_prefix("unix:") {
            return Ok(Self {
                socket: Socket::Unix(socket.into()),
                tls,
                authority: "localhost".into(),
                path,
            });
        }
        let parsed: Authority = address
            .parse()
            .map_err(|e| format!("`{address}` is no address: {e}"))?;
        let port = parsed.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self {
            socket: Socket::Tcp(without_brackets(parsed.host()).into(), port),
            tls,
            authority: address,
            path,
        })
    }
}

/// IPv6 addresses stand in brackets wherever a port could follow.
fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host)
}

/// Asks once in our own protocol, over a connection of its own.
///
/// # Errors
/// A sentence: no answer within [`QUICK`], or none that could be read.
pub(crate) async fn get(ask: &HttpRequest, known: &Values<'_>) -> Result<Answer, String> {
    let (credentials, large) = (
        Credentials::default(),
        Large::of(Arc::new(Semaphore::new(1))),
    );
    let terms = RequestOptions {
        credentials: &credentials,
        time: QUICK,
        keep: &KeepLines::All,
        large: &large,
    };
    sent(ask, known, &terms, MAX_STATUS).await
}

/// Asks once, over a connection of its own.
///
/// # Errors
/// A sentence: no answer within the time, or none that could be read.
pub(crate) async fn answer(
    ask: &HttpRequest,
    known: &Values<'_>,
    terms: &RequestOptions<'_>,
) -> Result<Answer, String> {
    sent(ask, known, terms, MAX_READ).await
}

async fn sent(
    ask: &HttpRequest,
    known: &Values<'_>,
    terms: &RequestOptions<'_>,
    limit: usize,
) -> Result<Answer, String> {
    let way = Target::of(ask, known)?;
    let said = timeout(terms.time, async {
        match &way.socket {
            Socket::Unix(path) => {
                over(UnixStream::connect(path).await, ask, &way, terms, limit).await
            }
            Socket::Tcp(host, port) => {
                over(Connection::to(host, *port).await, ask, &way, terms, limit).await
            }
        }
    });
    said.await.unwrap_or_else(|_| Err(no_answer(terms.time)))
}

async fn over<S>(
    stream: std::io::Result<S>,
    ask: &HttpRequest,
    way: &Target,
    terms: &RequestOptions<'_>,
    limit: usize,
) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stream = Metered::new(stream.map_err(|e| e.to_string())?, limit);
    let host = ask.host.as_deref().unwrap_or(&way.authority);
    if !way.tls {
        return exchange(stream, ask, host, &way.path, terms).await;
    }
    let named: Authority = host
        .parse()
        .map_err(|e| format!("`{host}` is no name: {e}"))?;
    let stream = tls::connect(
        stream,
        ask,
        terms.credentials,
        without_brackets(named.host()),
    )
    .await?;
    exchange(stream, ask, host, &way.path, terms).await
}

async fn exchange<S>(
    stream: S,
    ask: &HttpRequest,
    host: &str,
    path: &str,
    terms: &RequestOptions<'_>,
) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| whole(&e))?;
    let mut request = Request::get(path)
        .header(HOST, host)
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|e| whole(&e))?;
    if let Some(authorization) = &terms.credentials.authorization {
        request
            .headers_mut()
            .insert(AUTHORIZATION, authorization.clone());
    }
    let exchange = async {
        let (head, body) = sender
            .send_request(request)
            .await
            .map_err(|e| whole(&e))?
            .into_parts();
        let body = body::collect(body, terms.keep, terms.large).await?;
        let secrets = terms.credentials.secrets.clone();
        Ok(Answer {
            status: head.status.as_u16(),
            wanted: ask.status,
            headers: head.headers,
            body,
            secrets,
        })
    };
    tokio::pin!(exchange, connection);
    // The connection moves the bytes; polled here, in the same task, it costs no spawn.
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => {
            ended.map_err(|e| whole(&e))?;
            exchange.await
        }
    }
}

#[cfg(test)]
mod tests;
