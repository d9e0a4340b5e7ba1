//! Credentials of a request: the paths of their files, and URLs, which must not contain any.

use std::{borrow::Cow, ops::Range, path::PathBuf};

use serde::{Deserialize, Serialize};

/// Files with the credentials of a request. Their content is never stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Contains `USER:PASSWORD`, sent as Basic authentication (RFC 7617).
    pub auth_file: Option<PathBuf>,
    /// Contains a token, sent as Bearer authentication (RFC 6750).
    pub bearer_file: Option<PathBuf>,
    /// Certificates in PEM that the client presents in TLS.
    pub client_cert: Option<PathBuf>,
    /// The private key of the first of them, in PEM.
    pub client_key: Option<PathBuf>,
}

impl From<[Option<PathBuf>; 4]> for Access {
    /// Takes the files in the order of the fields.
    fn from([auth_file, bearer_file, client_cert, client_key]: [Option<PathBuf>; 4]) -> Self {
        Self {
            auth_file,
            bearer_file,
            client_cert,
            client_key,
        }
    }
}

impl Access {
    /// Tells whether no file is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns a sentence about what is wrong with the keys themselves. `https` says whether a
    /// request uses TLS.
    pub(crate) fn fault(&self, https: bool) -> Option<String> {
        let named = [
            ("auth_file", &self.auth_file),
            ("bearer_file", &self.bearer_file),
            ("client_cert", &self.client_cert),
            ("client_key", &self.client_key),
        ];
        let relative = named
            .iter()
            .find_map(|(key, path)| Some((key, path.as_ref().filter(|path| !path.is_absolute())?)));
        match relative {
            Some((key, path)) => Some(format!("{key} = {path:?} is not an absolute path")),
            None => self.conflict(https),
        }
    }

    /// Returns a sentence about keys that do not go together. `https` says whether a request uses
    /// TLS.
    pub(crate) fn conflict(&self, https: bool) -> Option<String> {
        if self.auth_file.is_some() && self.bearer_file.is_some() {
            return Some("set one of auth_file and bearer_file".into());
        }
        match (&self.client_cert, &self.client_key) {
            (Some(_), None) | (None, Some(_)) => {
                Some("client_cert and client_key go together".into())
            }
            (Some(_), Some(_)) if !https => Some("client_cert and client_key are for https".into()),
            _ => None,
        }
    }

    /// Takes from `group` what this assertion does not set itself; a certificate only for `https`.
    pub(crate) fn or(&mut self, group: &Self, https: bool) {
        if self.auth_file.is_none() && self.bearer_file.is_none() {
            self.auth_file.clone_from(&group.auth_file);
            self.bearer_file.clone_from(&group.bearer_file);
        }
        if https && self.client_cert.is_none() {
            self.client_cert.clone_from(&group.client_cert);
            self.client_key.clone_from(&group.client_key);
        }
    }
}

/// Returns the length of the user and the password in a URL, whose `://` is cut off.
///
/// RFC 3986 does not allow a `/` in a password, but operators write it: the text after the colon is
/// then not a port.
fn userinfo(rest: &str) -> Option<usize> {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, _) = rest.split_at(end);
    if let Some(end) = authority.rfind('@') {
        return Some(end);
    }
    let port = authority.rsplit_once(':')?.1;
    let is_port = port.is_empty()
        || port.starts_with('{')
        || port.ends_with('}')
        || port.ends_with(']')
        || port.bytes().all(|b| b.is_ascii_digit());
    if is_port { None } else { rest.find('@') }
}

/// Tells whether a URL, or an address without a scheme, names a user or a password.
pub(crate) fn names_a_user(url: &str) -> bool {
    userinfo(url.split_once("://").map_or(url, |(_, rest)| rest)).is_some()
}

/// Finds URLs with a password in a text: the ranges from the user to before the `@`.
fn passwords(text: &str) -> impl Iterator<Item = Range<usize>> {
    text.match_indices("://").filter_map(|(at, mark)| {
        let begin = at + mark.len();
        let rest = text.get(begin..)?;
        let end = rest
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`'))
            .unwrap_or(rest.len());
        let user = userinfo(&rest[..end])?;
        // TOML may have the colon as an escape.
        rest[..user]
            .contains([':', '\\'])
            .then_some(begin..begin + user)
    })
}

/// Finds the first URL with a password in a TOML text, outside of comment lines.
pub(crate) fn password_in(text: &str) -> Option<Range<usize>> {
    passwords(text).find(|found| {
        let line = text[..found.start].rfind('\n').map_or(0, |at| at + 1);
        !text[line..].trim_start().starts_with('#')
    })
}

/// Finds URLs with a user that may be a token in a text: of HTTP, or without a scheme. Text after
/// the `@` that is not a host belongs to it.
fn tokens(text: &str) -> impl Iterator<Item = Range<usize>> {
    text.match_indices("//").filter_map(|(at, mark)| {
        let before = text[..at].to_ascii_lowercase();
        let is_bare = !before.ends_with(|c: char| c.is_alphanumeric() || ":/\\.-_".contains(c));
        if !is_bare && !before.ends_with("http:") && !before.ends_with("https:") {
            return None;
        }
        let begin = at + mark.len();
        let rest = text.get(begin..)?;
        let end = rest
            .find(|c: char| c.is_whitespace() || "\"'`<>,/?#".contains(c))
            .unwrap_or(rest.len());
        let authority = &rest[..end];
        let user = authority.rfind('@')?;
        let host = &authority[user + 1..];
        let is_host = host.rsplit_once(':').is_none_or(|(_, port)| {
            port.bytes().all(|b| b.is_ascii_digit()) || port.ends_with(['}', ']'])
        });
        Some(begin..begin + if is_host { user } else { end })
    })
}

/// Finds quoted texts without a `://` that may have a user and a password before an `@`: misspelled
/// URLs.
fn misspelled(text: &str) -> impl Iterator<Item = Range<usize>> {
    let quotes = text.match_indices(['"', '\'']).map(|(at, _)| at + 1);
    quotes.filter_map(|begin| {
        let rest = text.get(begin..)?;
        let end = rest.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`'))?;
        let user = rest[..end].rfind('@')?;
        let head = &rest[..user];
        let looks_like_one =
            head.contains(':') && !head.contains("://") && !head.starts_with(['@', '/', '.']);
        looks_like_one.then_some(begin..begin + user)
    })
}

/// Returns the text with every user and password of a URL replaced by as many stars as bytes.
pub(crate) fn without_passwords(text: &str) -> Cow<'_, str> {
    let mut masked = Cow::Borrowed(text);
    let mut found: Vec<Range<usize>> = passwords(text)
        .chain(tokens(text))
        .chain(misspelled(text))
        .collect();
    found.sort_by_key(|range| (range.start, range.end));
    for range in found {
        let stars = "*".repeat(range.len());
        masked.to_mut().replace_range(range, &stars);
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_in_a_url_is_found() {
        for url in [
            "http://a:b@{listen}/",
            "https://a@x/",
            "http://a:b/c@x/",
            "a:b@x",
            "http://a:@x/?q",
            "http://[::1]:b@x/",
            "http://a:p{x@h/",
        ] {
            assert!(names_a_user(url), "{url}");
        }
        for url in [
            "http://{listen}/@x",
            "http://x:80/a@b",
            "http://x/?u=a:b@c",
            "unix:/a@b",
            "http://[::1]/a@b",
            "http://h:{listen.port}/@",
            "http://h/",
        ] {
            assert!(!names_a_user(url), "{url}");
        }
    }

    #[test]
    fn a_password_is_masked_and_every_byte_stays_in_its_place() {
        let text = "# http://a:b@x\nexec = [\"curl\", 'postgresql://ü:geheim@h/d', \
                    \"git://u@h\"]\nu = \"http://a:b/c@h/\"\n";
        let masked = without_passwords(text);
        assert_eq!(masked.len(), text.len());
        assert!(
            !masked.contains("geheim") && !masked.contains("a:b") && masked.contains("git://u@h"),
            "{masked}"
        );
        assert_eq!(
            password_in(text)
                .map(|found| text[found].to_owned())
                .as_deref(),
            Some("ü:geheim")
        );
        assert!(!without_passwords(r#"u = "http://a\u003ageheim@h/""#).contains("geheim"));
        for url in [
            "http://geheim@h/",
            "HTTPS://geheim@{listen}/x",
            "//u:geheim@h/",
            "//geheim@h",
            "http://{listen}@u:geheim/",
        ] {
            let masked = without_passwords(url);
            assert!(
                !masked.contains("geheim") && masked.len() == url.len(),
                "{url}: {masked}"
            );
        }
        for url in [
            "\"http:u:geheim@h/\"",
            "'u:geheim@{listen}/v'",
            "\"http:/u:geheim@h\"",
            "\"http//u:geheim@h\"",
        ] {
            let masked = without_passwords(url);
            assert!(
                !masked.contains("geheim") && masked.len() == url.len(),
                "{url}: {masked}"
            );
        }
        for text in ["http://h/a@b", "a // b@c", "see //h/x", "http://[::1]:80/@"] {
            assert_eq!(without_passwords(text), text);
        }
        assert_eq!(
            password_in("# http://a:b@x\n  # more http://a:b@x\nu = \"http://x:80/\"\n"),
            None
        );
    }
}
