//! `GET /api/events`: what happens, as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use super::{AdminState, failure};
use crate::telemetry::backlog::Read;
use crate::telemetry::events::MAX_WATCHERS;

/// A comment says so often that the stream is alive.
const COMMENT_EVERY: Duration = Duration::from_secs(15);

/// Until the watcher or the server goes.
pub(super) async fn watch(State(state): State<AdminState>) -> Response {
    let Some(watcher) = state.events.watch() else {
        let message = format!("{MAX_WATCHERS} watch already, which is the most; close one of them");
        return failure(StatusCode::SERVICE_UNAVAILABLE, message);
    };
    let stop = state.stop.clone();
    let told = stream::unfold((watcher, stop), |(mut watcher, stop)| async move {
        let event = match stop.run_until_cancelled(watcher.read()).await? {
            Read::Event(event) => Event::default().event(event.kind).data(&*event.data),
            Read::Missed(events) => Event::default().event("missed").data(format!("{{\"events\":{events}}}")),
        };
        Some((Ok::<_, Infallible>(event), (watcher, stop)))
    });
    Sse::new(told).keep_alive(KeepAlive::new().interval(COMMENT_EVERY)).into_response()
}
