//! The URL of a key.

use std::{fmt, net::IpAddr};

use crate::assertion::names_a_user;

/// The parts of a key's URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A resource of an HTTP server; path and query as they are sent.
    Http(Origin, String),
    /// A key of etcd, in its bytes.
    Etcd(Origin, Vec<u8>),
    /// A key in a bucket of NATS JetStream.
    Nats {
        /// The server.
        origin: Origin,
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
    },
    /// A key that commands read and write: the text behind the scheme.
    Exec(String),
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Whether its name is proven by TLS. Only a server on a loopback address goes without.
    pub tls: bool,
    /// Its name or address; an IPv6 address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl Origin {
    /// Returns the server of `nats://HOST` or `nats://HOST:PORT`. One on another machine must speak
    /// TLS.
    ///
    /// # Errors
    /// Fails if the URL names something else, or a user.
    pub fn of_nats(url: &str) -> Result<Self, AddressError> {
        let rest = url.strip_prefix("nats://").ok_or(AddressError::Nats)?;
        if names_a_user(url) {
            return Err(AddressError::User);
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err(AddressError::Nats);
        }
        nats_origin(authority)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Why a text is not the URL of a key. No text repeats the URL, which may have a password in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It begins with no known scheme.
    #[error(
        "the URL of a key begins with https://, etcd+https://, nats:// or exec://, or on this \
         machine with http:// or etcd+http://"
    )]
    Scheme,
    /// It is not the URL of a NATS server alone.
    #[error("the URL of a NATS server is nats://HOST or nats://HOST:PORT")]
    Nats,
    /// It has a user or a password.
    #[error("the URL of a key names no user and no password")]
    User,
    /// A parameter of its query looks like a credential.
    #[error(
        "`{0}=` in the URL of a key looks like a credential, which would be printed and stored"
    )]
    Credential(String),
    /// It is not encrypted, and the server is on another machine.
    #[error("without TLS a store must be on a loopback address of this machine")]
    Plain,
    /// It has a space, a control character or a fragment.
    #[error("the URL of a key has {0} in it")]
    Text(&'static str),
    /// It has no host, or a port that is no number.
    #[error("the URL of a key names a server: HOST or HOST:PORT")]
    Host,
    /// It names no key.
    #[error("the URL names {0}")]
    Key(&'static str),
}

/// Parameters of a query that are credentials where services use them: signed links, and tokens.
const SECRET_PARAMETERS: [&str; 9] = [
    "access_token",
    "api_key",
    "password",
    "secret",
    "sig",
    "signature",
    "token",
    "x-amz-signature",
    "x-goog-signature",
];

impl Address {
    /// Returns the parts of a URL.
    ///
    /// # Errors
    /// Fails if it names no key of a store.
    pub fn parse(url: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = url.split_once("://").ok_or(AddressError::Scheme)?;
        if names_a_user(url) {
            return Err(AddressError::User);
        }
        if url.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(AddressError::Text("a space or a control character"));
        }
        if !url.is_ascii() {
            return Err(AddressError::Text(
                "a character that is not ASCII; write its bytes as %XX",
            ));
        }
        if url.contains('#') {
            return Err(AddressError::Text("a fragment (`#`)"));
        }
        match scheme {
            "exec" if rest.trim_matches('/').is_empty() => Err(AddressError::Key("no store")),
            "exec" => Ok(Self::Exec(rest.to_owned())),
            "https" => http(rest, true),
            "http" => http(rest, false),
            "etcd+https" => etcd(rest, true),
            "etcd+http" => etcd(rest, false),
            "nats" => nats(rest),
            _ => Err(AddressError::Scheme),
        }
    }
}

/// Returns the text before the first `/` or `?`, and the rest.
fn split(rest: &str) -> (&str, &str) {
    rest.find(['/', '?'])
        .map_or((rest, ""), |end| rest.split_at(end))
}

fn origin(authority: &str, tls: bool, default_port: u16) -> Result<Origin, AddressError> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(AddressError::Host)?;
            host.parse::<std::net::Ipv6Addr>()
                .map_err(|_| AddressError::Host)?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(AddressError::Host),
            }
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    let port = match port {
        Some(port) => port
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .ok_or(AddressError::Host)?,
        None => default_port,
    };
    if host.is_empty() || !host.chars().all(is_name) {
        return Err(AddressError::Host);
    }
    Ok(Origin {
        tls,
        host: host.to_owned(),
        port,
    })
}

/// Tells whether a host is this machine, whatever the name service says. `localhost` is checked
/// again where it is connected to.
fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

fn encrypted_or_here(origin: Origin) -> Result<Origin, AddressError> {
    if origin.tls || is_loopback(&origin.host) {
        Ok(origin)
    } else {
        Err(AddressError::Plain)
    }
}

fn http(rest: &str, tls: bool) -> Result<Address, AddressError> {
    let (authority, path) = split(rest);
    let origin = encrypted_or_here(origin(authority, tls, if tls { 443 } else { 80 })?)?;
    let query = path.split_once('?').map_or("", |(_, query)| query);
    let secret = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, _)| name)
        .find(|name| SECRET_PARAMETERS.contains(&name.to_ascii_lowercase().as_str()));
    match secret {
        Some(name) => Err(AddressError::Credential(name.to_owned())),
        None if path.is_empty() || path == "/" => Err(AddressError::Key("a server and no key")),
        None if path.starts_with('?') => Ok(Address::Http(origin, format!("/{path}"))),
        None => Ok(Address::Http(origin, path.to_owned())),
    }
}

fn etcd(rest: &str, tls: bool) -> Result<Address, AddressError> {
    let (authority, path) = split(rest);
    let origin = encrypted_or_here(origin(authority, tls, 2379)?)?;
    if path.contains('?') {
        return Err(AddressError::Text("a query; write `?` in a key as %3F"));
    }
    let key = decoded(path.strip_prefix('/').unwrap_or_default())?;
    if key.is_empty() {
        return Err(AddressError::Key("a server and no key"));
    }
    Ok(Address::Etcd(origin, key))
}

/// Returns a text with each `%XX` replaced by its byte.
fn decoded(text: &str) -> Result<Vec<u8>, AddressError> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let byte = part
            .get(..2)
            .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
            .ok_or(AddressError::Text("a `%` without two digits behind it"))?;
        bytes.push(byte);
        bytes.extend(&part.as_bytes()[2..]);
    }
    Ok(bytes)
}

fn nats_origin(authority: &str) -> Result<Origin, AddressError> {
    let origin = origin(authority, true, 4222)?;
    Ok(Origin {
        tls: !is_loopback(&origin.host),
        ..origin
    })
}

fn nats(rest: &str) -> Result<Address, AddressError> {
    let (authority, path) = split(rest);
    let origin = nats_origin(authority)?;
    let is_bucket = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let is_key = |c: char| c.is_ascii_alphanumeric() || "-_/=.".contains(c);
    match path.strip_prefix('/').and_then(|path| path.split_once('/')) {
        Some((bucket, key))
            if !bucket.is_empty()
                && bucket.chars().all(is_bucket)
                && !key.is_empty()
                && key.chars().all(is_key)
                && !key.starts_with('.')
                && !key.ends_with('.') =>
        {
            Ok(Address::Nats {
                origin,
                bucket: bucket.to_owned(),
                key: key.to_owned(),
            })
        }
        Some(_) => Err(AddressError::Key(
            "a bucket or a key with characters that NATS has not",
        )),
        None => Err(AddressError::Key(
            "no bucket and key: nats://HOST/BUCKET/KEY",
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    fn at(tls: bool, host: &str, port: u16) -> Origin {
        Origin {
            tls,
            host: host.into(),
            port,
        }
    }

    #[test]
    fn a_url_names_a_server_and_a_key() {
        for (url, address) in [
            (
                "https://kv.example/a/b?x=1",
                Address::Http(at(true, "kv.example", 443), "/a/b?x=1".into()),
            ),
            (
                "http://127.0.0.1:81/a",
                Address::Http(at(false, "127.0.0.1", 81), "/a".into()),
            ),
            (
                "etcd+https://[::1]:1/edge/nginx%2econf",
                Address::Etcd(at(true, "::1", 1), b"edge/nginx.conf".to_vec()),
            ),
            (
                "etcd+http://localhost//a%00",
                Address::Etcd(at(false, "localhost", 2379), b"/a\0".to_vec()),
            ),
            (
                "nats://nats.example/edge/nginx.conf",
                Address::Nats {
                    origin: at(true, "nats.example", 4222),
                    bucket: "edge".into(),
                    key: "nginx.conf".into(),
                },
            ),
            (
                "exec://consul/edge/x",
                Address::Exec("consul/edge/x".into()),
            ),
        ] {
            assert_eq!(Address::parse(url), Ok(address), "{url}");
        }
        assert_eq!(at(true, "::1", 1).to_string(), "[::1]:1");
    }

    #[test]
    fn a_url_that_names_no_key_or_too_much_is_refused() {
        for (url, wanted) in [
            ("/etc/x", "begins with https://"),
            ("ftp://h/x", "begins with https://"),
            ("https://u:p@h/x", "no password"),
            ("etcd+https://u@h/x", "no user"),
            ("https://h/x?a=b&Token=c", "`Token=`"),
            ("http://h.example/x", "without TLS"),
            ("http://127.0.0.1.example/x", "without TLS"),
            ("etcd+http://10.0.0.1/x", "without TLS"),
            ("https://h/a b", "a space"),
            ("https://h/a#b", "fragment"),
            ("https://h/ä", "%XX"),
            ("https:///x", "HOST"),
            ("https://h:x1/x", "HOST"),
            ("https://h:0/x", "HOST"),
            ("https://[h]/x", "HOST"),
            ("https://h", "no key"),
            ("https://h/", "no key"),
            ("etcd+https://h/", "no key"),
            ("etcd+https://h/a?b", "%3F"),
            ("etcd+https://h/a%2", "two digits"),
            ("etcd+https://h/a%+f", "two digits"),
            ("nats://h/bucket", "BUCKET/KEY"),
            ("nats://h/a.b/c", "NATS"),
            ("nats://h/a/b*", "NATS"),
            ("exec://", "no store"),
        ] {
            let error = Address::parse(url).unwrap_err().to_string();
            assert!(error.contains(wanted), "{url}: {error}");
        }
    }
}
