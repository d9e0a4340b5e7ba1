//! The routes, the responses, and the peers that may see the proof.

use std::{convert::Infallible, net::IpAddr, sync::Arc};

use axum::{
    BoxError, Router,
    body::{Body, Bytes},
    extract::{Extension, State},
    http::{HeaderName, HeaderValue, Request, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::{body::Incoming, service::Service};
use hyper_util::service::TowerToHyperService;

use super::{
    connections::Answer,
    listener::Peer,
    metrics,
    proof::Proof,
    state::{Server, Snapshot},
};
use crate::self_report::{X_CONFIG_FILE_SHA256, X_CONFIG_GENERATION, X_CONFIG_SHA256, X_INSTANCE};

/// What a request sees, from one snapshot, so that headers and body agree.
#[derive(Debug, Clone)]
struct View {
    snapshot: Arc<Snapshot>,
    /// Why the peer may not see which config is served.
    refused: Option<&'static str>,
}

/// Answers every request of every connection.
pub(super) struct Answers {
    server: Arc<Server>,
    routes: TowerToHyperService<Router>,
}

impl Answers {
    pub(super) fn new(server: Arc<Server>) -> Self {
        Self {
            routes: TowerToHyperService::new(routes(server.clone())),
            server,
        }
    }

    /// Takes the snapshot of the request, lets it be routed, and adds the proof to the response.
    /// Unless the server drains, the snapshot is that of every signal that came before the request.
    ///
    /// This stands around the router and is no layer of it: a layer costs every request a copy of
    /// the layers below it and two allocations, a tenth of what the rest of the request costs.
    async fn route<B>(&self, request: Request<B>, peer: Peer) -> Result<Response, Infallible>
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let server = &*self.server;
        server.catch_up();
        server.metrics.request();
        let snapshot = server.current.load_full();
        let refused = if server.proof == Proof::Any {
            None
        } else {
            peer.refused(&request)
        };
        let mut request = request.map(|body| {
            if body.is_end_stream() {
                Body::empty()
            } else {
                Body::new(body)
            }
        });
        request.extensions_mut().insert(View {
            snapshot: snapshot.clone(),
            refused,
        });
        let mut response = self.routes.call(request).await?;
        let headers = response.headers_mut();
        if refused.is_none() {
            headers.insert(
                HeaderName::from_static(X_CONFIG_SHA256),
                snapshot.sha256.clone(),
            );
            if let Some(file) = &snapshot.file_sha256 {
                headers.insert(HeaderName::from_static(X_CONFIG_FILE_SHA256), file.clone());
            }
            headers.insert(
                HeaderName::from_static(X_CONFIG_GENERATION),
                snapshot.report.effective.generation.into(),
            );
            headers.insert(HeaderName::from_static(X_INSTANCE), server.instance.clone());
        }
        if server.draining() {
            // The header keeps a client from sending its next request into a connection that is
            // about to close.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}

impl Answer for Answers {
    fn answer(
        &self,
        request: Request<Incoming>,
        peer: Peer,
    ) -> impl Future<Output = Result<Response, Infallible>> + Send {
        self.route(request, peer)
    }
}

/// Returns the router of every request, which carries its [`View`] as an extension.
fn routes(server: Arc<Server>) -> Router {
    let proof = Router::new()
        .route("/-/config", get(self_report))
        .route("/-/healthy", get(healthy))
        .route("/-/metrics", get(metrics))
        .with_state(server)
        .into_service();
    // A service of its own: a route would add its `Allow` to a refused request of another method.
    let guarded = Router::new()
        .route_service("/-/", proof.clone())
        .route_service("/-/{*path}", proof)
        .route_layer(middleware::from_fn(refuse));
    Router::new().route("/", get(message)).merge(guarded)
}

/// Refuses a request of a peer that may not see which config is served.
async fn refuse(Extension(view): Extension<View>, request: Request<Body>, next: Next) -> Response {
    match view.refused {
        Some(why) => (StatusCode::FORBIDDEN, why).into_response(),
        None => next.run(request).await,
    }
}

impl Peer {
    /// Returns why this peer may not see which config is served; none for a direct peer on this
    /// machine.
    ///
    /// A web page in a browser on this machine can send requests too, under the name that it came
    /// from (DNS rebinding). So a request must name this machine as its host.
    fn refused<B>(self, request: &Request<B>) -> Option<&'static str> {
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

async fn message(Extension(view): Extension<View>) -> Response {
    let mut response = Response::new(Body::from(view.snapshot.message.clone()));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

async fn self_report(Extension(view): Extension<View>) -> Response {
    axum::Json(&view.snapshot.report).into_response()
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
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::{
        fs,
        net::Ipv4Addr,
        sync::atomic::{AtomicBool, Ordering},
        time::Instant,
    };

    use axum::body::to_bytes;
    use tracing_subscriber::{filter::LevelFilter, reload};

    use super::*;
    use crate::{config, serve::source::ConfigSource};

    #[tokio::test]
    async fn a_reload_during_a_request_changes_neither_its_headers_nor_its_body() {
        let old = "message = \"old\"\n";
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("web.toml");
        fs::write(&file, old).unwrap();
        let source = ConfigSource::new(Some(&file), None).unwrap();
        let first = source.read().loaded().unwrap();
        let due = Arc::new(AtomicBool::new(false));
        let (_, levels) = reload::Layer::new(LevelFilter::INFO);
        let (proof, began) = (Proof::Loopback, Instant::now());
        let server = Server::new(source, first, None, proof, levels, due.clone(), began).unwrap();
        let server = Arc::new(server);
        let reloaded = server.clone();
        let reloading = async move |Extension(view): Extension<View>| {
            fs::write(&file, "message = \"new\"\n").unwrap();
            due.store(true, Ordering::Relaxed);
            reloaded.catch_up();
            view.snapshot.message.clone()
        };
        let answers = Answers {
            server: server.clone(),
            routes: TowerToHyperService::new(Router::new().route("/", get(reloading))),
        };

        let request = Request::new(Body::empty());
        let response = answers.route(request, Peer::Local(None)).await.unwrap();
        assert_eq!(*server.current.load().message, *b"new");
        assert_eq!(
            response.headers()[X_CONFIG_SHA256],
            config::digest(old.as_bytes())
        );
        assert_eq!(response.headers()[X_CONFIG_GENERATION], "1");
        let body = to_bytes(response.into_body(), 100).await.unwrap();
        assert_eq!(body, "old");
    }

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
