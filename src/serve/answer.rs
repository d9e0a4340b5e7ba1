//! What is answered to whom.

use std::{convert::Infallible, sync::Arc};

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
    Proof,
    connections::Peer,
    metrics,
    state::{Server, Snapshot},
};
use crate::told::{X_CONFIG_GENERATION, X_CONFIG_SHA256, X_INSTANCE};

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
        Self { server, pages: TowerToHyperService::new(pages) }
    }

    /// One snapshot per request: its headers and its body cannot disagree, and it is that of every signal that came before, until it drains.
    pub(super) async fn answer(&self, mut request: Request<Incoming>, peer: Peer) -> Result<Response, Infallible> {
        let server = &self.server;
        server.catch_up();
        server.metrics.request();
        let snapshot = server.now.load_full();
        let any = server.proof == Proof::Any;
        let forwarded = || ["forwarded", "x-forwarded-for"].iter().any(|h| request.headers().contains_key(*h));
        let path = request.uri().path();
        let mut response = if path.starts_with("/-/") && !any && (!peer.loopback || forwarded()) {
            (StatusCode::FORBIDDEN, "only for direct loopback peers; see --proof\n").into_response()
        } else {
            let mut response = if path == "/" && request.method() == Method::GET {
                // What a server is for, and all that most requests ask: to route it would take longer than to answer it.
                message(&snapshot)
            } else {
                request.extensions_mut().insert(snapshot.clone());
                Box::pin(self.pages.call(request.map(Body::new))).await?
            };
            if peer.loopback || any {
                let headers = response.headers_mut();
                headers.insert(HeaderName::from_static(X_CONFIG_SHA256), snapshot.sha256.clone());
                headers.insert(HeaderName::from_static(X_CONFIG_GENERATION), snapshot.told.effective.generation.into());
                headers.insert(HeaderName::from_static(X_INSTANCE), server.instance.clone());
            }
            response
        };
        if server.draining() {
            // Told in the answer, a client does not send the next request into a connection that is about to close.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}

fn message(snapshot: &Snapshot) -> Response {
    let mut response = Response::new(Body::from(snapshot.message.clone()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

async fn page(Extension(snapshot): Extension<Arc<Snapshot>>) -> Response {
    message(&snapshot)
}

async fn told(Extension(snapshot): Extension<Arc<Snapshot>>) -> Response {
    axum::Json(&snapshot.told).into_response()
}

async fn healthy(State(server): State<Arc<Server>>) -> StatusCode {
    if server.draining() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}

async fn metrics(State(server): State<Arc<Server>>) -> Response {
    match server.metrics.page() {
        Ok(page) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], page).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
