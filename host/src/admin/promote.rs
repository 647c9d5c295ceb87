//! Guarded promotions: begun, ended, and remembered.

use axum::Json;
use axum::body::{Body, HttpBody};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use pointsman_core::lifecycle::promotion::Plan;
use schemars::JsonSchema;
use serde::Serialize;

use super::form::Asked;
use super::policy::{Upload, change, once, options, receive};
use super::view::{PolicyEventView, PolicyView};
use super::{AdminState, failure};

/// Options of a promotion, in the address or as fields of a form.
const OPTIONS: [&str; 6] = ["name", "settings", "set", "canary", "for", "guard"];

/// `?canary=5%25&for=10m&guard=p95<=%2B10%25&guard=...&settings={...}` with the component as the body, or a form with all of
/// them.
pub(super) async fn start(
    State(state): State<AdminState>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    // Read also where it is refused: a client that still sends does not read the answer.
    let received = receive(body, &state).await;
    let asked = match query {
        Ok(Query(asked)) => asked,
        Err(error) => return failure(StatusCode::BAD_REQUEST, error.body_text()),
    };
    let judged = match received {
        // What is wrong in the address is told before what is wrong with the body.
        Err(refusal) => return plan(&asked).map_or_else(|why| failure(StatusCode::BAD_REQUEST, why), |_| refusal),
        Ok(Upload { component, memory }) => Asked::read(asked, &headers, component, &OPTIONS)
            .and_then(|Asked { options: asked, component }| Ok((plan(&asked)?, options(&asked)?, component, memory))),
    };
    match judged {
        Err(why) => failure(StatusCode::BAD_REQUEST, why),
        Ok((_, _, component, _)) if component.is_empty() => {
            failure(StatusCode::BAD_REQUEST, "send the candidate's component as the body")
        }
        Ok((plan, options, component, memory)) => {
            let control = state.control;
            change(async move {
                let _memory = memory;
                control.promote(component, options, plan).await?;
                Ok(PolicyView::new(&control))
            })
            .await
        }
    }
}

pub(super) fn plan(asked: &[(String, String)]) -> Result<Plan, String> {
    let guards = asked.iter().filter(|(name, _)| name == "guard").map(|(_, value)| value.as_str());
    Plan::parse(once(asked, "canary")?, once(asked, "for")?, guards).map_err(|bad| bad.to_string())
}

pub(super) async fn abort(State(state): State<AdminState>, body: Body) -> Response {
    if !body.is_end_stream() {
        return failure(StatusCode::BAD_REQUEST, "a body is not read; nothing was ended");
    }
    let control = state.control;
    change(async move {
        control.abort_promotion().await?;
        Ok(PolicyView::new(&control))
    })
    .await
}

/// Steps of promotions.
#[derive(Serialize, JsonSchema)]
pub(super) struct PolicyEvents {
    /// The newest first.
    events: Vec<PolicyEventView>,
}

pub(super) async fn events(State(state): State<AdminState>) -> Response {
    match tokio::task::spawn_blocking(move || state.control.events()).await {
        Ok(Ok(rows)) => {
            Json(PolicyEvents { events: rows.into_iter().map(PolicyEventView::from).collect() }).into_response()
        }
        Ok(Err(error)) => failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        Err(_panicked) => failure(StatusCode::INTERNAL_SERVER_ERROR, "reading the store failed; see the log"),
    }
}
