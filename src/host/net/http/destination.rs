//! The destination of a request, by its URL.

use std::path::PathBuf;

use hyper::http::uri::Authority;

use crate::{
    assertion::HttpRequest,
    host::{exec::placeholders::Values, net::error::HttpError},
};

/// The destination of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) socket: Socket,
    pub(super) tls: bool,
    /// The authority in the URL. It is sent as `Host` and is the expected name of the certificate,
    /// unless the assertion names another host.
    pub(super) authority: String,
    pub(super) path: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Socket {
    Tcp(String, u16),
    Unix(PathBuf),
}

impl Destination {
    /// Returns the destination of a request, with the values of its placeholders.
    ///
    /// # Errors
    /// Fails if a value is not known, or if the URL has no valid address.
    pub(super) fn of(request: &HttpRequest, values: &Values<'_>) -> Result<Self, HttpError> {
        let fill = |text: &str| {
            values
                .fill(&[text.to_owned()])
                .map(|filled| filled.concat())
        };
        let (scheme, rest) = request
            .url
            .split_once("://")
            .unwrap_or(("http", &request.url));
        let tls = scheme == "https";
        let (address, path) = rest
            .find(['/', '?'])
            .map_or((rest, "/"), |end| rest.split_at(end));
        let address = fill(address)?;
        let path = fill(path)?;
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
            .map_err(|e| HttpError::Address(address.clone(), e))?;
        let port = parsed.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self {
            socket: Socket::Tcp(without_brackets(parsed.host()).into(), port),
            tls,
            authority: address,
            path,
        })
    }
}

/// Returns a host without the brackets that an IPv6 address has before a port.
pub(super) fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}
