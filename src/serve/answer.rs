//! The responses, and the peers that may see the proof.

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

/// Responds to every request.
pub(super) struct Answers {
    server: Arc<Server>,
    routes: TowerToHyperService<Router>,
}

impl Answers {
    pub(super) fn new(server: Arc<Server>) -> Self {
        let routes = Router::new()
            .route("/", get(message))
            .route("/-/config", get(self_report))
            .route("/-/healthy", get(healthy))
            .route("/-/metrics", get(metrics))
            .with_state(server.clone());
        Self {
            server,
            routes: TowerToHyperService::new(routes),
        }
    }

    /// Responds to one request from one snapshot, so that headers and body agree. Unless the server
    /// drains, the snapshot is that of every signal that came before the request.
    pub(super) async fn answer(
        &self,
        mut request: Request<Incoming>,
        peer: Peer,
    ) -> Result<Response, Infallible> {
        let server = &self.server;
        server.catch_up();
        server.metrics.request();
        let snapshot = server.current.load_full();
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
                // Most requests are this one, and to route it takes longer than to answer it.
                message_response(&snapshot)
            } else {
                request.extensions_mut().insert(snapshot.clone());
                Box::pin(self.routes.call(request.map(Body::new))).await?
            };
            if refused.is_none() {
                let headers = response.headers_mut();
                headers.insert(
                    HeaderName::from_static(X_CONFIG_SHA256),
                    snapshot.sha256.clone(),
                );
                headers.insert(
                    HeaderName::from_static(X_CONFIG_GENERATION),
                    snapshot.report.effective.generation.into(),
                );
                headers.insert(HeaderName::from_static(X_INSTANCE), server.instance.clone());
            }
            response
        };
        if server.draining() {
            // The header keeps a client from sending its next request into a connection that is
            // about to close.
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}

impl Peer {
    /// Returns why this peer may not see which config is served; none for a direct peer on this
    /// machine.
    ///
    /// A web page in a browser on this machine can send requests too, under the name that it came
    /// from (DNS rebinding). So a request must name this machine as its host.
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

/// Tells whether `host` names this machine: `own`, a loopback address, `localhost`, or another name
/// without a dot, because no foreign domain is one. It may have a port.
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
        // A fully qualified name may end with a dot.
        Err(_) => !name.strip_suffix('.').unwrap_or(name).contains(['.', ':']),
    }
}

fn message_response(snapshot: &Snapshot) -> Response {
    let mut response = Response::new(Body::from(snapshot.message.clone()));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

async fn message(Extension(snapshot): Extension<Arc<Snapshot>>) -> Response {
    message_response(&snapshot)
}

async fn self_report(Extension(snapshot): Extension<Arc<Snapshot>>) -> Response {
    axum::Json(&snapshot.report).into_response()
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
    fn a_foreign_host_is_not_a_name_of_this_machine() {
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
