//! The operator's requests: those of health are always answered, of others only so many at a time.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower_service::Service as _;

use super::connections::RequestBody;
use super::guard;
use super::listen::Serve;
use crate::admin;

/// Answers the admin listener's requests.
pub(super) struct Operator {
    router: Router,
    /// Requests that may be under way.
    permits: Arc<Semaphore>,
}

impl Operator {
    /// A quarter of `max_connections` is kept for probes of health.
    pub(super) fn new(router: Router, max_connections: usize) -> Self {
        let max_requests = (max_connections - max_connections / 4).max(1);
        Self { router, permits: Arc::new(Semaphore::new(max_requests)) }
    }
}

impl Serve for Operator {
    type Body = OperatorBody;

    async fn serve(&self, peer: SocketAddr, request: Request<RequestBody>) -> Response<OperatorBody> {
        if let Some(fault) = guard::refused(&request) {
            return admin::misframed(fault).map(OperatorBody::free);
        }
        let permit = match request.uri().path() {
            "/healthz" | "/readyz" => None,
            _ => match self.permits.clone().try_acquire_owned() {
                Ok(permit) => Some(permit),
                Err(_) => return admin::too_many_requests().map(OperatorBody::free),
            },
        };
        let mut request = request;
        request.extensions_mut().insert(ConnectInfo(peer));
        let response = match self.router.clone().call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        response.map(|body| OperatorBody { body, _permit: permit })
    }
}

/// The body of an answer; its request counts until it ends.
pub(super) struct OperatorBody {
    body: axum::body::Body,
    _permit: Option<OwnedSemaphorePermit>,
}

impl OperatorBody {
    fn free(body: axum::body::Body) -> Self {
        Self { body, _permit: None }
    }
}

impl Body for OperatorBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
