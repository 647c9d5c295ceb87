//! The policy's routes.

use axum::Json;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::view::{PolicyView, RollbackView, ShadowReport};
use super::{AdminState, failure};
use pointsman_core::lifecycle::UploadOptions;

/// So much of an upload that is too large is read and thrown away: a client that still sends does not read the answer.
const MAX_DISCARDED_BYTES: usize = 1 << 30;

pub(super) async fn show(State(state): State<AdminState>) -> Response {
    Json(PolicyView::new(&state.control)).into_response()
}

pub(super) async fn shadow(State(state): State<AdminState>) -> Response {
    match state.control.shadow_loader().status() {
        Some(status) => Json(ShadowReport::from(&status)).into_response(),
        None => failure(StatusCode::NOT_FOUND, "there is no shadow; name one with [policy.shadow] file"),
    }
}

/// `?name=mine&settings={...}` with the component as the body.
pub(super) async fn put(
    State(state): State<AdminState>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
    body: Body,
) -> Response {
    let options = query.map_err(|error| error.body_text()).and_then(|Query(asked)| options(&asked));
    // Read also where it is refused: a client that still sends does not read the answer.
    match (options, component(body, state.max_component_bytes).await) {
        (Ok(options), Ok(component)) => {
            let control = state.control;
            change(async move {
                control.upload(component, options).await?;
                Ok(PolicyView::new(&control))
            })
            .await
        }
        (Err(why), Ok(_)) => failure(StatusCode::BAD_REQUEST, format!("{why}; the policy in force stays")),
        (Ok(_) | Err(_), Err(refusal)) => refusal,
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

/// `?to=REVISION`
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

/// The whole upload, of at most `max_bytes`.
pub(super) async fn component(mut body: Body, max_bytes: usize) -> Result<Bytes, Response> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(max_bytes).min(max_bytes);
    let (mut component, mut size) = (Vec::with_capacity(announced), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            failure(StatusCode::BAD_REQUEST, format!("the upload broke off ({error}); the policy in force stays"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        size += data.len();
        if size > max_bytes {
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
    Ok(component.into())
}
