//! The HTTP responses: metrics and health.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use super::metrics::Metrics;
use crate::serve::CONTENT_TYPE;

/// Returns the router of every request.
pub(super) fn routes(shared: Arc<Metrics>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/-/metrics", get(metrics))
        .route("/-/healthy", get(healthy))
        .with_state(shared)
}

async fn metrics(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.page() {
        Ok(page) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], page).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Answers as long as the process takes requests. A failed run is no reason to start it again: the
/// metrics tell of that.
async fn healthy() -> &'static str {
    "ok\n"
}
