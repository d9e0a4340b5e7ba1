//! The answer to one request, and the messages about it.

use std::sync::Arc;

use hyper::{
    StatusCode,
    body::Bytes,
    header::{HeaderMap, HeaderName, LOCATION, WWW_AUTHENTICATE},
};

use crate::{assertion::without_passwords, refusal::Refusal};

/// The longest part of a header that a message repeats, in characters.
const MAX_SHOWN: usize = 120;

/// One answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The only status that counts; `None` for every success.
    pub(super) wanted: Option<u16>,
    pub(super) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The secrets of the request, from its credentials.
    pub(super) secrets: Arc<[String]>,
}

impl Answer {
    /// Returns an answer of which every success counts. No message about it repeats `secrets`.
    pub(crate) fn new(
        status: u16,
        headers: HeaderMap,
        body: Bytes,
        secrets: Arc<[String]>,
    ) -> Self {
        Self {
            status,
            wanted: None,
            headers,
            body,
            secrets,
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// Tells whether the body counts. An error page does not, unless the assertion expects its
    /// status.
    pub(crate) fn counts(&self) -> bool {
        self.wanted
            .map_or((200..300).contains(&self.status), |wanted| {
                wanted == self.status
            })
    }

    /// Tells whether the answer counts for a header. An error page has the headers of its server as
    /// well. An error page without this header is reported as such.
    pub(crate) fn has_header(&self, name: &str) -> bool {
        self.counts()
            || (self.wanted.is_none()
                && ((300..400).contains(&self.status) || self.header(name).is_some()))
    }

    /// Returns `text` without the secrets of the request: a server may repeat them.
    pub(crate) fn masked(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| {
            text.replace(secret.as_str(), "***")
        })
    }

    /// Returns the status and the headers that explain it, for the operator.
    pub(crate) fn status_line(&self) -> String {
        let mut text = format!("answers {}", self.status);
        if let Some(reason) = StatusCode::from_u16(self.status)
            .ok()
            .and_then(|status| status.canonical_reason())
        {
            text = format!("{text} {reason}");
        }
        if let Some(url) = self.shown(LOCATION).map(without_query) {
            text = format!("{text} (Location: {url})");
        }
        if let Some(challenge) = self.shown(WWW_AUTHENTICATE) {
            text = format!("{text} (WWW-Authenticate: {challenge})");
        }
        text
    }

    /// Returns the value of a header as a message may show it.
    fn shown(&self, name: HeaderName) -> Option<String> {
        let value = String::from_utf8_lossy(self.headers.get(name)?.as_bytes()).into_owned();
        Some(
            without_passwords(&self.masked(&value))
                .chars()
                .take(MAX_SHOWN)
                .collect(),
        )
    }

    /// Returns the refusal of an answer that does not count: its status, and what helps.
    pub(crate) fn refusal(&self) -> Refusal {
        let next = match (self.status, self.wanted) {
            (status, Some(wanted)) => format!("its assertion expects {wanted}, not {status}"),
            (400, _) => {
                "if it speaks TLS there, use https:// in its URL, and set `client_cert` if \
                         it wants one"
                    .into()
            }
            (401 | 403, _) => {
                "set `auth_file = PATH` or `bearer_file = PATH` in the assertion".into()
            }
            (404, _) => {
                "if it is served below another path, set its URL in [[group.confirm]]".into()
            }
            (300..400, _) => "probe the URL that it redirects to".into(),
            (status, _) => {
                format!("if that is right, set `status = {status}` in the assertion")
            }
        };
        Refusal::from(self.status_line()).with_hint(next)
    }
}

/// Cuts off the query of a URL: it holds tokens and states of a login.
fn without_query(url: String) -> String {
    url.find(['?', '#'])
        .map(|end| format!("{}***", &url[..=end]))
        .unwrap_or(url)
}
