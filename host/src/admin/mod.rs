//! The admin listener: health, metrics, the JSON API and the console.

mod api;
mod endpoint;
mod events;
mod failure;
mod form;
mod guard;
mod openapi;
mod parameters;
mod policy;
mod promote;
mod query;
mod routes;
mod view;

use std::sync::Arc;

use axum::Router;
use axum::http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use pointsman_core::http::framing::Fault;
use pointsman_store::{Explainable, Queries, StoreHandle};
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
    /// Control over the running proxy.
    pub control: Arc<Control>,
    /// Metrics that `/metrics` shows.
    pub metrics: Metrics,
    /// Questions to the store, on threads of their own.
    pub queries: Queries,
    /// Function that explains an exchange.
    pub explain: Explain,
    /// The store, for its own numbers.
    pub store: StoreHandle,
    /// Token for access, as the configuration in force has it; `None`: loopback only.
    pub token: Arc<dyn Fn() -> Option<AdminToken> + Send + Sync>,
    /// The largest component that is taken, in bytes.
    pub max_component_bytes: usize,
    /// Events that `/api/events` streams.
    pub events: Events,
    /// Ends what would go on for ever.
    pub stop: CancellationToken,
    /// Present time, for `since=24h`.
    pub clock: Clock,
}

/// The routes. Requests carry their peer's address as `ConnectInfo<SocketAddr>`: without it nobody is let in who has no
/// token.
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

/// The answer to a request whose framing can be read in two ways, or whose head is too large.
pub fn misframed(fault: Fault) -> Response {
    let status = match fault {
        Fault::HeadTooLarge | Fault::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    };
    let mut response = failure(status, fault.message());
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The answer where too many requests are under way.
pub fn too_many_requests() -> Response {
    let message = "too many requests of operators are under way; come again in a moment";
    let mut response = failure(StatusCode::SERVICE_UNAVAILABLE, message);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
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
