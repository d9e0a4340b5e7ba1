//! What is answered to whom.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Extension, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};

use super::{
    Proof,
    connections::Peer,
    metrics,
    state::{Server, Snapshot},
};
use crate::told::{X_CONFIG_GENERATION, X_CONFIG_SHA256, X_INSTANCE};

/// Every request needs its [`Peer`] as an extension.
pub(super) fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/", get(message))
        .route("/-/config", get(told))
        .route("/-/healthy", get(healthy))
        .route("/-/metrics", get(metrics))
        .layer(middleware::from_fn_with_state(server.clone(), prove))
        .with_state(server)
}

/// One snapshot per request: its headers and its body cannot disagree.
async fn prove(State(server): State<Arc<Server>>, Extension(peer): Extension<Peer>, mut request: Request, next: Next) -> Response {
    server.metrics.request();
    let snapshot = server.now.load_full();
    let forwarded = ["forwarded", "x-forwarded-for"].iter().any(|h| request.headers().contains_key(*h));
    let any = server.proof == Proof::Any;
    let mut response = if request.uri().path().starts_with("/-/") && !any && (!peer.loopback || forwarded) {
        (StatusCode::FORBIDDEN, "only for direct loopback peers; see --proof\n").into_response()
    } else {
        request.extensions_mut().insert(snapshot.clone());
        let mut response = next.run(request).await;
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
    response
}

async fn message(Extension(snapshot): Extension<Arc<Snapshot>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], snapshot.message.clone()).into_response()
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
