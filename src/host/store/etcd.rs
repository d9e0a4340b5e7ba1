//! A key of etcd, over the JSON gateway of its API version 3. The revision of a key is its
//! `mod_revision`.

use std::ops::ControlFlow;

use base64::{Engine, prelude::BASE64_STANDARD};
use hyper::{
    Method,
    body::Bytes,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue},
};
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::{
    client::{Client, MAX_VALUE, Message},
    error::{Fault, Outcome},
    value::{PutResult, Revision, Value},
};
use crate::{
    fleet::{Key, Origin},
    host::net::http::Answer,
    refusal::Refusal,
};

/// The longest answer, in bytes: the largest value in base64, its key, and 64 KiB of JSON.
const MAX_ANSWER: usize = MAX_VALUE / 3 * 4 + (64 << 10);
/// The longest text of an error that is repeated, in characters.
const MAX_TEXT: usize = 200;

/// The revision of everything in etcd, when an answer was made.
#[derive(Debug, Default, Deserialize)]
struct Header {
    #[serde(default)]
    revision: String,
}

#[derive(Debug, Deserialize)]
struct Range {
    header: Header,
    #[serde(default)]
    kvs: Vec<Pair>,
}

/// A key. An empty value is absent (proto3 JSON has no defaults).
#[derive(Debug, Deserialize)]
struct Pair {
    mod_revision: String,
    #[serde(default)]
    value: String,
}

#[derive(Debug, Deserialize)]
struct Txn {
    header: Header,
    #[serde(default)]
    succeeded: bool,
}

#[derive(Debug, Deserialize)]
struct Token {
    token: String,
}

#[derive(Debug, Deserialize)]
struct ErrorText {
    error: String,
}

/// One line of a watch.
#[derive(Debug, Deserialize)]
struct WatchLine {
    result: Option<WatchResult>,
}

#[derive(Debug, Deserialize)]
struct WatchResult {
    #[serde(default)]
    canceled: bool,
    #[serde(default)]
    events: Vec<serde::de::IgnoredAny>,
}

/// Reads a key. Returns also the revision of everything in etcd.
pub(super) async fn read(key: &Key, origin: &Origin, name: &[u8]) -> Outcome<(Option<Value>, u64)> {
    let session = Session::open(key, origin).await?;
    let request = json!({ "key": BASE64_STANDARD.encode(name) });
    let range: Range = session.call("/v3/kv/range", &request).await?;
    let revision = number(&range.header.revision)?;
    let Some(pair) = range.kvs.into_iter().next() else {
        return Ok((None, revision));
    };
    number(&pair.mod_revision)?;
    let bytes = BASE64_STANDARD
        .decode(&pair.value)
        .map_err(|_| garbage("a value is not base64"))?;
    if bytes.len() > MAX_VALUE {
        return Err(Fault::TooLarge(MAX_VALUE).into());
    }
    let rev = Revision(pair.mod_revision);
    Ok((Some(Value { bytes, rev }), revision))
}

/// Writes a key whose revision is `expected`, or that does not exist.
pub(super) async fn put(
    key: &Key,
    origin: &Origin,
    name: &[u8],
    bytes: &[u8],
    expected: Option<&Revision>,
) -> Outcome<PutResult> {
    let session = Session::open(key, origin).await?;
    let name = BASE64_STANDARD.encode(name);
    let request = json!({
        "compare": [{
            "key": name,
            "target": "MOD",
            "result": "EQUAL",
            // A key that does not exist has the revision 0.
            "mod_revision": expected.map_or("0", Revision::as_str),
        }],
        "success": [{ "request_put": { "key": name, "value": BASE64_STANDARD.encode(bytes) } }],
    });
    let txn: Txn = session.call("/v3/kv/txn", &request).await?;
    if !txn.succeeded {
        return Ok(PutResult::Conflict);
    }
    number(&txn.header.revision)?;
    Ok(PutResult::Stored(Revision(txn.header.revision)))
}

/// Waits for a change of a key after `revision`, or until `until`. Returns whether it has changed.
/// A watch that ends or breaks off is no error: the caller reads the key again.
pub(super) async fn watch(
    key: &Key,
    origin: &Origin,
    name: &[u8],
    revision: u64,
    until: Instant,
) -> Outcome<bool> {
    let watched = async {
        let session = Session::open(key, origin).await?;
        let request = json!({ "create_request": {
            "key": BASE64_STANDARD.encode(name),
            "start_revision": (revision + 1).to_string(),
        } });
        let mut line = Vec::new();
        let mut has_changed = false;
        let mut on_piece = |piece: &[u8]| {
            for byte in piece {
                if *byte != b'\n' {
                    line.push(*byte);
                    continue;
                }
                if let Some(changed) = event(&line)? {
                    has_changed = changed;
                    return Ok(ControlFlow::Break(()));
                }
                line.clear();
            }
            Ok(ControlFlow::Continue(()))
        };
        let message = session.message("/v3/watch", &request)?;
        let client = &session.client;
        let head = match client.stream(message, MAX_ANSWER, &mut on_piece).await {
            Ok(head) => head,
            Err(Refusal {
                why: Fault::Http(_),
                ..
            }) => return Ok(false),
            Err(why) => return Err(why),
        };
        match head.status.as_u16() {
            200 => Ok(has_changed),
            status => Err(refused(&client.answered(status, head.headers, line))),
        }
    };
    timeout_at(until, watched).await.unwrap_or(Ok(false))
}

/// Returns true for a line of a watch that says that the key has changed, false for one that ends
/// the watch, and none for any other.
fn event(line: &[u8]) -> Result<Option<bool>, Fault> {
    let line: WatchLine = parsed(line)?;
    Ok(match line.result {
        Some(result) if !result.canceled => (!result.events.is_empty()).then_some(true),
        _ => Some(false),
    })
}

/// Requests with the credentials of a store. The gateway knows no user by the certificate of a
/// client, so a user logs in by name and password for each verb.
struct Session<'a> {
    client: Client<'a>,
    token: Option<HeaderValue>,
}

impl<'a> Session<'a> {
    async fn open(key: &Key, origin: &'a Origin) -> Outcome<Self> {
        let client = Client::of(&key.access, origin)?;
        let mut session = Self {
            token: client.credentials.token(),
            client,
        };
        if let Some((name, password)) = session.client.credentials.user() {
            let request = json!({ "name": name, "password": password });
            let token: Token = session.call("/v3/auth/authenticate", &request).await?;
            let mut value = HeaderValue::from_str(&token.token)
                .map_err(|_| garbage("its token has a control character"))?;
            value.set_sensitive(true);
            session.token = Some(value);
        }
        Ok(session)
    }

    fn message(&self, path: &'static str, request: &serde_json::Value) -> Outcome<Message<'_>> {
        let body = serde_json::to_vec(request).map_err(json_fault)?;
        let json: (HeaderName, _) = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let token = self.token.clone().map(|token| (AUTHORIZATION, token));
        Ok(Message {
            method: Method::POST,
            path,
            headers: [json].into_iter().chain(token).collect(),
            body: Bytes::from(body),
        })
    }

    async fn call<T: for<'de> Deserialize<'de>>(
        &self,
        path: &'static str,
        request: &serde_json::Value,
    ) -> Outcome<T> {
        let message = self.message(path, request)?;
        let answer = self.client.answer(message, MAX_ANSWER).await?;
        if answer.status == 200 {
            return Ok(parsed(&answer.body)?);
        }
        Err(refused(&answer))
    }
}

/// Returns the refusal of an answer that is an error, with the text of etcd.
fn refused(answer: &Answer) -> Refusal<Fault> {
    let text = match serde_json::from_slice::<ErrorText>(&answer.body) {
        Ok(error) => {
            let text: String = error.error.chars().take(MAX_TEXT).collect();
            format!(": {}", answer.masked(&text))
        }
        Err(_) => String::new(),
    };
    let refusal = Refusal::from(Fault::Status {
        status: answer.status,
        text: format!("{}{text}", answer.status_line()),
    });
    match answer.status {
        400 | 401 | 403 => {
            refusal.with_hint("check `auth_file = PATH` (USER:PASSWORD) in its [[store]]")
        }
        _ => refusal,
    }
}

fn parsed<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(bytes).map_err(json_fault)
}

fn json_fault(why: serde_json::Error) -> Fault {
    Fault::Json { store: "etcd", why }
}

fn garbage(why: &'static str) -> Fault {
    Fault::Answer { store: "etcd", why }
}

fn number(text: &str) -> Result<u64, Fault> {
    text.parse()
        .map_err(|_| garbage("a revision is not a number"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn a_line_of_a_watch_is_a_change_or_its_end_or_neither() {
        for (line, expected) in [
            (r#"{"result":{"header":{},"created":true}}"#, None),
            (r#"{"result":{"header":{}}}"#, None),
            (
                r#"{"result":{"events":[{"kv":{"key":"YQ=="}}]}}"#,
                Some(true),
            ),
            (
                r#"{"result":{"created":true,"canceled":true}}"#,
                Some(false),
            ),
            (r#"{"error":{"message":"x"}}"#, Some(false)),
        ] {
            assert_eq!(event(line.as_bytes()).unwrap(), expected, "{line}");
        }
        assert!(event(b"<html>").is_err());
    }
}
