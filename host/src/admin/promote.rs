//! Guarded promotions: begun, ended, and remembered.

use axum::Json;
use axum::body::{Body, HttpBody};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use pointsman_core::lifecycle::promotion::Plan;
use schemars::JsonSchema;
use serde::Serialize;

use super::policy::{Upload, change, once, options, receive};
use super::view::{PolicyEventView, PolicyView};
use super::{AdminState, failure};

/// `?canary=5%25&for=10m&guard=p95<=%2B10%25&guard=...&settings={...}` with the component as the body.
pub(super) async fn start(
    State(state): State<AdminState>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
    body: Body,
) -> Response {
    let asked = query.map_err(|error| error.body_text()).and_then(|Query(asked)| Ok((plan(&asked)?, options(&asked)?)));
    let (plan, options) = match asked {
        Ok(asked) => asked,
        Err(why) => {
            // Read all the same: a client that still sends does not read the answer.
            let _ = receive(body, &state).await;
            return failure(StatusCode::BAD_REQUEST, why);
        }
    };
    match receive(body, &state).await {
        Ok(Upload { component, .. }) if component.is_empty() => {
            failure(StatusCode::BAD_REQUEST, "send the candidate's component as the body")
        }
        Ok(Upload { component, memory }) => {
            let control = state.control;
            change(async move {
                let _memory = memory;
                control.promote(component, options, plan).await?;
                Ok(PolicyView::new(&control))
            })
            .await
        }
        Err(refusal) => refusal,
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
