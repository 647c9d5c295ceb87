//! The admin listener: health, metrics, the JSON API and the console.

mod api;
mod endpoint;
mod events;
mod failure;
mod guard;
mod openapi;
mod parameters;
mod policy;
mod promote;
mod query;
mod routes;
mod view;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use pointsman_store::{Explainable, Queries, StoreHandle};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::telemetry::Clock;
use crate::telemetry::events::Events;
use crate::telemetry::metrics::Metrics;

use crate::control::Control;
use failure::failure;

pub use guard::AdminToken;

/// Tells a recorded exchange as JSON. The lab knows how; the server does not depend on it.
pub type Explain = fn(&Explainable) -> serde_json::Value;

/// State that the admin listener shows and works on.
#[derive(Clone)]
pub struct AdminState {
    /// The running proxy.
    pub control: Arc<Control>,
    /// Metrics of the proxy.
    pub metrics: Metrics,
    /// Reader of recorded exchanges.
    pub queries: Queries,
    /// Function that explains an exchange.
    pub explain: Explain,
    /// The store, for its own numbers.
    pub store: StoreHandle,
    /// Token for access, as the configuration in force has it; `None`: loopback only.
    pub token: Arc<dyn Fn() -> Option<AdminToken> + Send + Sync>,
    /// The largest component that is taken, in bytes.
    pub max_component_bytes: usize,
    /// Live events.
    pub events: Events,
    /// Ends what would go on for ever.
    pub stop: CancellationToken,
    /// For `since=24h`.
    pub clock: Clock,
}

/// The routes. To be served with `into_make_service_with_connect_info::<SocketAddr>()`, as [`serve`] does: without the peer's
/// address nobody is let in who has no token.
pub fn router(state: AdminState) -> Router {
    routes::router(&state)
        .fallback(|| async { failure(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            failure(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
        })
        .layer(middleware::from_fn_with_state(state.clone(), guard::check))
        .layer(middleware::map_response(with_safe_headers))
        .with_state(state)
}

/// Serves until `shutdown` is ready and the requests under way are answered.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    state: AdminState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let service = router(state).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(shutdown).await
}

async fn console() -> Response {
    // Everything is inside the page; it may ask this listener and nobody else.
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                  base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let headers = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, policy)];
    (headers, include_str!("console.html")).into_response()
}

async fn with_safe_headers(mut response: Response) -> Response {
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
