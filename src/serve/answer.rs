//! What is answered to whom.

use std::{convert::Infallible, net::IpAddr, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Extension, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::{Request, body::Incoming, service::Service};
use hyper_util::service::TowerToHyperService;

use super::{
    listener::Peer,
    metrics,
    proof::Proof,
    state::{Server, Snapshot},
};
use crate::self_report::{X_CONFIG_GENERATION, X_CONFIG_SHA256, X_INSTANCE};

/// Answers everybody.
pub(super) struct Answers {
    server: Arc<Server>,
    pages: TowerToHyperService<Router>,
}

impl Answers {
    pub(super) fn new(server: Arc<Server>) -> Self {
        let pages = Router::new()
            .route("/", get(page))
            .route("/-/config", get(told))
            .route("/-/healthy", get(healthy))
            .route("/-/metrics", get(metrics))
            .with_state(server.clone());
        Self {
            server,
            pages: TowerToHyperService::new(pages),
        }
    }

    /// One snapshot per request: its headers and its body cannot disagree, and it is that of every
    /// signal that came before, until it drains.
    pub(super) async fn answer(
        &self,
        mut request: Request<Incoming>,
        peer: Peer,
    ) -> Result<Response, Infallible> {
        let server = &self.server;
        server.catch_up();
        server.metrics.request();
        let snapshot = server.now.load_full();
        let refused = if server.proof == Proof::Any {
            None
        } else {
            peer.refused(&request)
        };
        let path = request.uri().path();
        let mut response = if let (true, Some(why)) = (path.starts_with("/-/"), refused) {
            (StatusCode::FORBIDDEN, why).into_response()
        } else {
            let mut response = if path == "/" && request.method() == Method::GET {
                // What a server is for, and all that most requests ask: to route it would take
                // longer than to answer it.
                message(&snapshot)
            } else {
                request.extensions_mut().insert(snapshot.clone());
                Box::pin(self.pages.call(request.map(Body::new))).await?
            };
            if refused.is_none() {
                let headers = response.headers_mut();
                headers.insert(
                    HeaderName::from_static(X_CONFIG_SHA256),
                    snapshot.sha256.clone(),
                );
                headers.insert(
                    HeaderName::from_static(X_CONFIG_GENERATION),
                    snapshot.told.effective.generation.into(),
                );
                headers.insert(HeaderName::from_static(X_INSTANCE), server.instance.clone());
            }
            response
        };
        if server.draining() {
            // Told in the answer, a client does not send the next request into a connection that is
            // about to close.
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}

impl Peer {
    /// Why it is no business of this peer which config is served; none for a direct peer on this
    /// machine. A page that a browser on this machine was sent can ask as well, under the name that
    /// it came from (DNS rebinding), so a request must name this machine.
    fn refused(self, request: &Request<Incoming>) -> Option<&'static str> {
        let own = match self {
            Self::Remote => return Some("only for direct loopback peers; see --proof\n"),
            Self::Local(own) => own,
        };
        let headers = request.headers();
        if headers.contains_key(header::FORWARDED) || headers.contains_key("x-forwarded-for") {
            return Some("only for direct loopback peers; see --proof\n");
        }
        let own = own?;
        let hosts = headers
            .get_all(header::HOST)
            .iter()
            .map(HeaderValue::as_bytes);
        let foreign = hosts
            .chain(request.uri().authority().map(|a| a.as_str().as_bytes()))
            .any(|host| !is_of_this_machine(host, own));
        foreign.then_some(
            "only for a Host of loopback, `localhost`, or the address that is \
                           listened on; see --proof\n",
        )
    }
}

/// Whether `host` (a name or an address, perhaps with a port) is `own`, an address of loopback,
/// `localhost`, or a name without a dot, which no foreign domain is.
fn is_of_this_machine(host: &[u8], own: IpAddr) -> bool {
    let Ok(host) = std::str::from_utf8(host) else {
        return false;
    };
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, rest)) => (name, rest.strip_prefix(':').unwrap_or(rest)),
        None => host.rsplit_once(':').unwrap_or((host, "")),
    };
    if !port.bytes().all(|b| b.is_ascii_digit()) {
        return false;
    }
    match name.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback() || address.to_canonical() == own,
        // The last dot of a name that is written out in full means nothing.
        Err(_) => !name.strip_suffix('.').unwrap_or(name).contains(['.', ':']),
    }
}

fn message(snapshot: &Snapshot) -> Response {
    let mut response = Response::new(Body::from(snapshot.message.clone()));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

async fn page(Extension(snapshot): Extension<Arc<Snapshot>>) -> Response {
    message(&snapshot)
}

async fn told(Extension(snapshot): Extension<Arc<Snapshot>>) -> Response {
    axum::Json(&snapshot.told).into_response()
}

async fn healthy(State(server): State<Arc<Server>>) -> StatusCode {
    if server.draining() {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    }
}

async fn metrics(State(server): State<Arc<Server>>) -> Response {
    match server.metrics.page() {
        Ok(page) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], page).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_name_of_this_machine_is_told_from_a_foreign_one() {
        let own = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));
        for host in [
            "",
            "localhost",
            "LOCALHOST:8080",
            "localhost.",
            "127.0.0.1",
            "127.9.9.9:1",
            "[::1]:80",
            "[::1]",
            "10.1.2.3:80",
            "web",
            "web:80",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(is_of_this_machine(host.as_bytes(), own), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:80",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.1.2.4",
            "[fe80::1]",
            "evil.example.",
            "a:b:c",
            "web:evil.example",
            "[::1]evil.example",
        ] {
            assert!(!is_of_this_machine(host.as_bytes(), own), "{host}");
        }
        assert!(!is_of_this_machine(b"\xff", own));
    }
}
