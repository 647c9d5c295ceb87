//! The policy's routes.

use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::form::Asked;
use super::view::{PolicyView, RollbackView, ShadowReport};
use super::{AdminState, failure};
use crate::proxy::Grant;
use pointsman_core::lifecycle::UploadOptions;
use pointsman_core::memory_budget::{Holder, NoRoom};

/// So much of an upload that is too large is read and thrown away: a client that still sends does not read the answer.
const MAX_DISCARDED_BYTES: usize = 1 << 30;

/// Bytes that memory is taken for at first where an upload does not announce its length.
const FIRST_ROOM_BYTES: usize = 64 << 10;

/// Copies of an upload: the one that comes, and the one that is kept.
const COPIES: u64 = 2;

/// Time for an upload to go on.
const BODY_IDLE: Duration = Duration::from_secs(30);

pub(super) async fn show(State(state): State<AdminState>) -> Response {
    Json(PolicyView::new(&state.control)).into_response()
}

pub(super) async fn shadow(State(state): State<AdminState>) -> Response {
    match state.control.shadow_loader().status() {
        Some(status) => Json(ShadowReport::from(&status)).into_response(),
        None => failure(StatusCode::NOT_FOUND, "there is no shadow; name one with [policy.shadow] file"),
    }
}

/// Options of an upload, in the address or as fields of a form.
const OPTIONS: [&str; 3] = ["name", "settings", "set"];

/// `?name=mine&settings={...}` with the component as the body, or a form with all of them.
pub(super) async fn put(
    State(state): State<AdminState>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    // Read also where it is refused: a client that still sends does not read the answer.
    let Upload { component, memory } = match receive(body, &state).await {
        Ok(upload) => upload,
        Err(refusal) => return refusal,
    };
    let asked = query.map_err(|error| error.body_text());
    let asked = asked.and_then(|Query(asked)| Asked::read(asked, &headers, component, &OPTIONS));
    match asked.and_then(|Asked { options: asked, component }| Ok((options(&asked)?, component))) {
        Ok((options, component)) => {
            let control = state.control;
            change(async move {
                let _memory = memory;
                control.upload(component, options).await?;
                Ok(PolicyView::new(&control))
            })
            .await
        }
        Err(why) => failure(StatusCode::BAD_REQUEST, format!("{why}; the policy in force stays")),
    }
}

/// Reads the options that came with a component in the query of the URL.
pub(super) fn options(asked: &[(String, String)]) -> Result<UploadOptions, String> {
    UploadOptions::read(once(asked, "name")?, once(asked, "settings")?)?.with_set(once(asked, "set")?)
}

/// The value of a key that may be given once.
pub(super) fn once<'a>(asked: &'a [(String, String)], name: &str) -> Result<Option<&'a str>, String> {
    let mut all = asked.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let first = all.next();
    if all.next().is_some() { Err(format!("{name} is given twice")) } else { Ok(first) }
}

/// Query of a rollback: `?to=REVISION`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RollbackQuery {
    to: Option<String>,
}

pub(super) async fn rollback(
    State(state): State<AdminState>,
    query: Result<Query<RollbackQuery>, QueryRejection>,
    body: Body,
) -> Response {
    // Who says it otherwise wants a certain revision, and must not get another.
    match query {
        Ok(Query(RollbackQuery { to })) if body.is_end_stream() => {
            let control = state.control;
            change(async move {
                let went = control.rollback(to.as_deref()).await?;
                Ok(RollbackView::new(went, &control))
            })
            .await
        }
        Ok(_) | Err(_) => failure(
            StatusCode::BAD_REQUEST,
            "name the revision in the address, as rollback?to=REVISION, or give none for the one before; \
             a body is not read, and the policy in force stays",
        ),
    }
}

/// Carries out a change to its end, also where the client goes away.
pub(super) async fn change<T: Serialize + Send + 'static>(
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Response {
    match tokio::spawn(work).await {
        Ok(Ok(view)) => Json(view).into_response(),
        Ok(Err(failure)) => failure.into_response(),
        Err(_panicked) => failure(StatusCode::INTERNAL_SERVER_ERROR, "replacing the policy failed; see the log"),
    }
}

/// A component that was uploaded, and the memory that it holds until its change is over.
pub(super) struct Upload {
    pub(super) component: Bytes,
    pub(super) memory: Grant,
}

/// The whole upload, of at most so many bytes as a policy may have, and as far as there is memory for it. What is refused is
/// read all the same and thrown away.
pub(super) async fn receive(mut body: Body, state: &AdminState) -> Result<Upload, Response> {
    let max_bytes = state.max_component_bytes;
    let announced = body.size_hint().exact().map(|length| usize::try_from(length).unwrap_or(usize::MAX).min(max_bytes));
    let mut room = announced.unwrap_or(FIRST_ROOM_BYTES.min(max_bytes));
    let memory = &state.control.proxy().memory;
    let mut memory = memory.take(Holder::Operator, COPIES * room as u64).map_err(without_room);
    let (mut component, mut size) = (Vec::with_capacity(if memory.is_ok() { announced.unwrap_or(0) } else { 0 }), 0);
    loop {
        let frame = tokio::time::timeout(BODY_IDLE, body.frame()).await.map_err(|_| {
            failure(StatusCode::REQUEST_TIMEOUT, "the upload paused for too long; the policy in force stays")
        })?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| {
            failure(StatusCode::BAD_REQUEST, format!("the upload broke off ({error}); the policy in force stays"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        size += data.len();
        if let Ok(grant) = &mut memory
            && size > room
            && size <= max_bytes
        {
            room = size.saturating_mul(2).min(max_bytes);
            if let Err(no_room) = grant.resize(COPIES * room as u64) {
                memory = Err(without_room(no_room));
            }
        }
        if size > max_bytes || memory.is_err() {
            component = Vec::new();
        } else {
            component.extend_from_slice(&data);
        }
        if size > MAX_DISCARDED_BYTES {
            break;
        }
    }
    if size > max_bytes {
        let message = format!("a policy has at most {max_bytes} bytes; the policy in force stays");
        return Err(failure(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    if memory.is_err() {
        state.control.proxy().memory.count_refusal();
    }
    Ok(Upload { component: component.into(), memory: memory? })
}

/// There is no memory for an upload.
fn without_room(no_room: NoRoom) -> Response {
    match no_room {
        NoRoom::Now { retry_after } => {
            let message = "there is no memory for this upload beside others and requests (server.memory_budget_mb); \
                           the policy in force stays";
            let mut response = failure(StatusCode::SERVICE_UNAVAILABLE, message);
            let seconds = HeaderValue::from(retry_after.as_millis().div_ceil(1_000) as u64);
            response.headers_mut().insert(RETRY_AFTER, seconds);
            response
        }
        NoRoom::Ever => {
            let message =
                "the upload takes more memory than there is (server.memory_budget_mb); the policy in force stays";
            failure(StatusCode::PAYLOAD_TOO_LARGE, message)
        }
    }
}
