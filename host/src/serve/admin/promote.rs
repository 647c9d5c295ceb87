//! Guarded promotions: begun, ended, and remembered.

use axum::Json;
use axum::body::{Body, HttpBody};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use pointsman_core::canary::Plan;
use serde::Serialize;

use super::policy::{component, replace};
use super::{AdminState, PolicyEventView, failure};

/// `?canary=5%25&for=10m&guard=p95<=%2B10%25&guard=...` with the component as the body.
pub(super) async fn start(
    State(state): State<AdminState>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
    body: Body,
) -> Response {
    let plan = query.map_err(|error| error.body_text()).and_then(|Query(asked)| plan(&asked));
    let plan = match plan {
        Ok(plan) => plan,
        Err(why) => {
            // Read all the same: a client that still sends does not read the answer.
            let _ = component(body, state.max_component_bytes).await;
            return failure(StatusCode::BAD_REQUEST, why);
        }
    };
    match component(body, state.max_component_bytes).await {
        Ok(component) if component.is_empty() => {
            failure(StatusCode::BAD_REQUEST, "send the candidate's component as the body")
        }
        Ok(component) => replace(state, move |state| state.controls.promote(component, plan)).await,
        Err(refusal) => refusal,
    }
}

fn plan(asked: &[(String, String)]) -> Result<Plan, String> {
    let once = |name: &str| {
        let mut all = asked.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let first = all.next();
        if all.next().is_some() { Err(format!("{name} is given twice")) } else { Ok(first) }
    };
    if let Some((unknown, _)) = asked.iter().find(|(name, _)| !["canary", "for", "guard"].contains(&&**name)) {
        return Err(format!("`{unknown}` is not known; give canary=, for= and any number of guard="));
    }
    let guards = asked.iter().filter(|(name, _)| name == "guard").map(|(_, value)| value.as_str());
    Plan::parse(once("canary")?, once("for")?, guards).map_err(|bad| bad.to_string())
}

pub(super) async fn abort(State(state): State<AdminState>, body: Body) -> Response {
    if !body.is_end_stream() {
        return failure(StatusCode::BAD_REQUEST, "a body is not read; nothing was ended");
    }
    replace(state, |state| state.controls.abort_promotion()).await
}

pub(super) async fn events(State(state): State<AdminState>) -> Response {
    #[derive(Serialize)]
    struct Events {
        events: Vec<PolicyEventView>,
    }
    match tokio::task::spawn_blocking(move || state.controls.policy_events()).await {
        Ok(Ok(events)) => Json(Events { events }).into_response(),
        Ok(Err(error)) => failure(StatusCode::INTERNAL_SERVER_ERROR, error),
        Err(_panicked) => failure(StatusCode::INTERNAL_SERVER_ERROR, "reading the store failed; see the log"),
    }
}
