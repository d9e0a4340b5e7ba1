//! A resource of an HTTP server as a key: its `ETag` is the revision (RFC 9110, section 13.1).

use hyper::{
    Method,
    body::Bytes,
    header::{AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH},
};

use super::{
    client::{Client, MAX_VALUE, Message},
    error::{Fault, Outcome},
    value::{MAX_REVISION, PutResult, Reading, Revision, Value},
};
use crate::{
    config,
    fleet::{Key, Origin},
    host::net::http::Answer,
    refusal::Refusal,
};

/// Reads a key. A server may answer that `known` is still its revision.
pub(super) async fn read(
    key: &Key,
    origin: &Origin,
    path: &str,
    known: Option<&Revision>,
) -> Outcome<Reading> {
    let client = Client::of(&key.access, origin)?;
    let known = known.filter(|known| is_tag(&known.0));
    let condition = known.and_then(|known| HeaderValue::from_str(&known.0).ok());
    let headers = condition.map(|tag| (IF_NONE_MATCH, tag)).into_iter();
    let answer = send(&client, Method::GET, path, headers, Bytes::new()).await?;
    match answer.status {
        200 => {
            let rev = revision(&answer).unwrap_or_else(|| Revision(config::digest(&answer.body)));
            let bytes = answer.body.to_vec();
            Ok(Reading::Value(Some(Value { bytes, rev })))
        }
        304 if known.is_some() => Ok(Reading::Unchanged),
        404 | 410 => Ok(Reading::Value(None)),
        _ => Err(unexpected(&answer)),
    }
}

/// Writes a key whose revision is `expected`, or that does not exist.
pub(super) async fn put(
    key: &Key,
    origin: &Origin,
    path: &str,
    bytes: &[u8],
    expected: Option<&Revision>,
) -> Outcome<PutResult> {
    let condition = match expected {
        None => (IF_NONE_MATCH, HeaderValue::from_static("*")),
        Some(rev) => (IF_MATCH, condition(rev)?),
    };
    let client = Client::of(&key.access, origin)?;
    let octets = HeaderValue::from_static("application/octet-stream");
    let headers = [condition, (CONTENT_TYPE, octets)].into_iter();
    let body = Bytes::copy_from_slice(bytes);
    let answer = send(&client, Method::PUT, path, headers, body).await?;
    match answer.status {
        200 | 201 | 204 => {}
        409 | 412 => return Ok(PutResult::Conflict),
        404 | 410 if expected.is_some() => return Ok(PutResult::Conflict),
        _ => return Err(unexpected(&answer)),
    }
    if let Some(rev) = revision(&answer) {
        return Ok(PutResult::Stored(rev));
    }
    // A server that changes what it stores must not name a tag (RFC 9110, section 9.3.4).
    match read(key, origin, path, None).await? {
        Reading::Value(Some(value)) if value.bytes == bytes => Ok(PutResult::Stored(value.rev)),
        _ => Err(Fault::Unknown.into()),
    }
}

/// Returns the value of `If-Match` for a revision.
fn condition(rev: &Revision) -> Result<HeaderValue, Fault> {
    HeaderValue::from_str(&rev.0)
        .ok()
        .filter(|_| is_strong(&rev.0))
        .ok_or(Fault::ReadOnly("its server gives no strong ETag"))
}

/// Checks that a write can depend on this revision.
pub(super) fn check_writable(rev: &Revision) -> Result<(), Fault> {
    condition(rev).map(drop)
}

async fn send(
    client: &Client<'_>,
    method: Method,
    path: &str,
    headers: impl Iterator<Item = (HeaderName, HeaderValue)>,
    body: Bytes,
) -> Outcome<Answer> {
    let authorization = client.credentials.authorization.clone();
    let authorization = authorization.map(|value| (AUTHORIZATION, value));
    let message = Message {
        method,
        path,
        headers: headers.chain(authorization).collect(),
        body,
    };
    client.answer(message, MAX_VALUE).await
}

/// Returns the revision that an answer names, if it is an entity tag.
fn revision(answer: &Answer) -> Option<Revision> {
    let tag = answer.header(ETAG.as_str())?;
    is_tag(tag).then(|| Revision(tag.to_owned()))
}

/// Tells whether a text is an entity tag, strong or weak.
fn is_tag(text: &str) -> bool {
    is_strong(text.strip_prefix("W/").unwrap_or(text))
}

/// Tells whether a text is a strong entity tag.
fn is_strong(text: &str) -> bool {
    let inner = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    text.len() <= MAX_REVISION
        && inner.is_some_and(|inner| inner.bytes().all(|b| b.is_ascii_graphic() && b != b'"'))
}

/// Returns the refusal of an answer that is neither a value nor its absence.
fn unexpected(answer: &Answer) -> Refusal<Fault> {
    let refusal = Refusal::from(Fault::Status {
        status: answer.status,
        text: answer.status_line(),
    });
    match answer.status {
        300..=399 => refusal
            .with_hint("a redirect is not followed: if you trust where it leads, name that URL"),
        401 | 403 => {
            refusal.with_hint("set `auth_file = PATH` or `bearer_file = PATH` in its [[store]]")
        }
        _ => refusal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_quoted_text_is_a_strong_tag() {
        for (text, tag, strong) in [
            ("\"a\"", true, true),
            ("\"\"", true, true),
            ("W/\"a\"", true, false),
            ("a", false, false),
            ("\"a", false, false),
            ("\"a\"b\"", false, false),
            ("\"a b\"", false, false),
            ("w/\"a\"", false, false),
        ] {
            assert_eq!((is_tag(text), is_strong(text)), (tag, strong), "{text}");
        }
        assert!(!is_tag(&format!("\"{}\"", "a".repeat(MAX_REVISION))));
    }
}
