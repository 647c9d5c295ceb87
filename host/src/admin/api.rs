//! The routes' work.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use pointsman_core::lifecycle::promotion::{Side, SideStats};
use pointsman_core::rfc3339::Rfc3339;
use pointsman_core::time::Timestamp;
use pointsman_store::{ExchangePage, ExchangeRow, Group, Queries, StoreError, StoreReader, UsagePage, UsageRow};
use schemars::JsonSchema;
use serde::Serialize;

use super::query::{ExchangesQuery, UsageQuery};
use super::view::{self, BackendView, ConfigView, LaneView, ReadyView};
use super::{AdminState, failure};
use crate::control::{PromotionStatus, kept_states};
use crate::telemetry::metrics::{Live, LiveBackend, LiveSide};
use crate::telemetry::text_format::TextFormat;

pub(super) async fn ready(State(state): State<AdminState>) -> Response {
    let view = ReadyView::new(&state.control);
    let status = if view.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(view)).into_response()
}

pub(super) async fn config(State(state): State<AdminState>) -> Response {
    Json(ConfigView::new(&state.control)).into_response()
}

pub(super) async fn metrics(State(state): State<AdminState>, headers: HeaderMap) -> Response {
    let accept: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = TextFormat::negotiate(&accept.join(","));
    let text = state.metrics.encode(live(&state), format);
    ([(CONTENT_TYPE, format.content_type()), (VARY, "accept")], text).into_response()
}

fn live(state: &AdminState) -> Live {
    let (store, control) = (state.store.stats(), &state.control);
    let memory = control.proxy().memory.numbers();
    let status = control.status();
    let lifecycle = &status.lifecycle;
    let backends = view::backends(control.proxy()).into_iter().map(|backend| LiveBackend {
        id: backend.id,
        tier: backend.tier,
        state: backend.state,
        cooldown_ms: backend.cooldown_ms,
        models_cooling: backend.models_cooling,
        in_flight: backend.in_flight,
    });
    let running = control.promotion().filter(|promotion| promotion.run.over.is_none());
    let promotion = running.as_ref().map_or_else(Vec::new, |PromotionStatus { run, progress }| {
        let side = |side: Side, revision: String, stats: &SideStats| LiveSide {
            side: side.as_str(),
            revision,
            exchanges: stats.exchanges,
            failed: stats.failed,
        };
        vec![
            side(Side::Control, run.control.clone(), &progress.control),
            side(Side::Candidate, run.candidate(), &progress.candidate),
        ]
    });
    Live {
        backends: backends.collect(),
        waiting: view::lanes(control.proxy()).into_iter().map(|lane| (lane.lane, lane.queued)).collect(),
        memory_used: memory.held,
        memory_limit: memory.total,
        memory_refused: memory.refused,
        spill_used: control.proxy().disk.numbers().held,
        store_backlog: store.backlog,
        store_written: store.written,
        store_dropped: store.dropped,
        store_failed_batches: store.failed_batches,
        journal_written: store.trails_written,
        journal_dropped: store.trails_dropped,
        policy: lifecycle.history().in_force().map(|entry| entry.hash.revision()).unwrap_or_default(),
        policy_refused: lifecycle.policy_refusal().is_some(),
        config_refused: lifecycle.config_refusal().is_some(),
        policy_revisions: status.live_revisions,
        policy_instances: status.instances,
        shadow_refused: control.shadow_loader().status().is_some_and(|shadow| shadow.error.is_some()),
        promotion_share: running.map_or(0.0, |running| running.progress.plan.share.fraction()),
        promotion,
    }
}

/// Every backend with its live state, and the lanes.
#[derive(Serialize, JsonSchema)]
pub(super) struct Backends {
    /// Exchanges waiting for capacity, in all lanes.
    waiting: u64,
    /// Backends that each lane can use now.
    lanes: Vec<LaneView>,
    /// In the order of the configuration.
    backends: Vec<BackendView>,
}

pub(super) async fn backends(State(state): State<AdminState>) -> Response {
    let lanes = view::lanes(state.control.proxy());
    let waiting = lanes.iter().map(|lane| lane.queued).sum();
    Json(Backends { waiting, lanes, backends: view::backends(state.control.proxy()) }).into_response()
}

pub(super) async fn control_backend(
    State(state): State<AdminState>,
    Path((id, action)): Path<(String, String)>,
) -> Response {
    let proxy = state.control.proxy();
    let is_known = match action.as_str() {
        "drain" => proxy.fleet.with(|fleet, now| fleet.set_drained(now, &id, true)),
        "resume" => proxy.fleet.with(|fleet, now| fleet.set_drained(now, &id, false)),
        "clear-cooldown" => proxy.fleet.with(|fleet, now| fleet.clear_cooldown(now, &id)),
        unknown => {
            let message = format!("`{unknown}` is not known; use drain, resume or clear-cooldown");
            return failure(StatusCode::NOT_FOUND, message);
        }
    };
    if !is_known {
        let message = format!("there is no backend {id:?}; GET /api/backends lists them");
        return failure(StatusCode::NOT_FOUND, message);
    }
    kept_states::save(proxy);
    Json(view::backends(proxy).into_iter().find(|backend| backend.id == id)).into_response()
}

pub(super) async fn usage(
    State(state): State<AdminState>,
    query: Result<Query<UsageQuery>, QueryRejection>,
) -> Response {
    let asked = query.map_err(|e| e.body_text()).and_then(|Query(query)| query.read((state.clock)()));
    match asked {
        Ok((since, group, after)) => {
            let page = ask(&state.queries, move |reader| reader.usage_page(since, group, after, MAX_PAGE_BYTES)).await;
            page.map_or_else(|response| response, |page| Json(UsageBody::new(since, group, page)).into_response())
        }
        Err(message) => failure(StatusCode::BAD_REQUEST, message),
    }
}

/// Usage by group.
#[derive(Serialize, JsonSchema)]
pub(super) struct UsageBody {
    /// Exchanges that ended from then on (RFC 3339).
    since: String,
    /// Word for the group: client, backend, model, lane, hour or day.
    group: &'static str,
    /// All together, those of other pages too.
    total: UsageRow,
    /// The members of the group.
    rows: Vec<UsageRow>,
    /// The value of `after` for the page that follows; none: there are no more.
    next: Option<String>,
}

impl UsageBody {
    fn new(since: Timestamp, group: Group, page: UsagePage) -> Self {
        let UsagePage { total, rows, next } = page;
        let next = next.map(|after| after.to_string());
        Self { since: Rfc3339(since).to_string(), group: group.as_str(), total, rows, next }
    }
}

/// Recorded exchanges.
#[derive(Serialize, JsonSchema)]
pub(super) struct Exchanges {
    /// The newest first.
    exchanges: Vec<ExchangeRow>,
    /// The value of `before` for the page that follows; none: there are no more.
    next: Option<String>,
}

/// Bytes of rows in one answer.
const MAX_PAGE_BYTES: usize = 4 << 20;

pub(super) async fn exchanges(
    State(state): State<AdminState>,
    query: Result<Query<ExchangesQuery>, QueryRejection>,
) -> Response {
    match query.map_err(|e| e.body_text()).and_then(|Query(query)| query.read()) {
        Ok((filter, limit)) => {
            let page = ask(&state.queries, move |reader| reader.page(&filter, limit, MAX_PAGE_BYTES)).await;
            page.map_or_else(
                |response| response,
                |ExchangePage { exchanges, next }| {
                    Json(Exchanges { exchanges, next: next.map(|key| key.to_string()) }).into_response()
                },
            )
        }
        Err(message) => failure(StatusCode::BAD_REQUEST, message),
    }
}

/// A recorded exchange, and how it went.
#[derive(Serialize, JsonSchema)]
pub(super) struct ToldExchange {
    #[serde(flatten)]
    exchange: ExchangeRow,
    /// As `pointsman explain --json` tells it; none: the journal did not keep it.
    story: Option<serde_json::Value>,
}

pub(super) async fn exchange(State(state): State<AdminState>, Path(id): Path<String>) -> Response {
    let (asked, explain) = (id.clone(), state.explain);
    let found = ask(&state.queries, move |reader| {
        // What the journal has and cannot be read is no reason to hide the record.
        let story = reader.explainable(&asked).ok().flatten().map(|explainable| explain(&explainable));
        Ok(reader.exchange(&asked)?.map(|exchange| ToldExchange { exchange, story }))
    });
    match found.await {
        Ok(Some(body)) => Json(body).into_response(),
        Ok(None) => failure(
            StatusCode::NOT_FOUND,
            format!("no exchange `{id}` is recorded; it may still be under way, or older than the retention"),
        ),
        Err(response) => response,
    }
}

/// Asks the store; the error is for the operator.
async fn ask<T: Send + 'static>(
    queries: &Queries,
    question: impl FnOnce(&StoreReader) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Response> {
    queries.ask(question).await.map_err(|error| match error {
        StoreError::Busy => {
            let mut response = failure(StatusCode::SERVICE_UNAVAILABLE, error.to_string());
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            response
        }
        StoreError::TooLong => failure(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        StoreError::Closed => failure(StatusCode::INTERNAL_SERVER_ERROR, "the store gave no answer; see the log"),
        error => failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    })
}
