//! Admission of a client's request: before its body is read by memory and the client's limits, and after it by its model and
//! what it may cost.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Method, StatusCode};
use pointsman_core::attempt::{serves_free, translatable};
use pointsman_core::clients;
use pointsman_core::denial::Denial;
use pointsman_core::dialect::envelope::ErrorKind;
use pointsman_core::dialect::request_body::Unread;
use pointsman_core::exchange::Only;
use pointsman_core::memory_budget::{Holder, NoRoom};
use pointsman_core::suited::shown;
use pointsman_core::view::WithoutModel;

use super::connections::RequestBody;
use super::door::Door;
use super::refusals::over_limit;
use super::request_body::{Footprint, expected_bytes, is_small};
use crate::proxy::{ClientArrival, ClientPermit, Grant, OwnError, Proxy, ProxyRequest, Reply, Snapshot};

/// A request whose body is to be read: its place among those of its client, and its memory, where there is some.
pub(super) type LetIn = (Option<ClientArrival>, Result<Grant, NoRoom>);

/// Lets a request in whose body is to be read: a large or unannounced one only as far as its client's own limits allow, and
/// any where there is memory for it, or says that there is none.
///
/// # Errors
/// The refusal by the client's own limits.
pub(super) fn let_in(
    proxy: &Proxy,
    snapshot: &Snapshot,
    client: Option<&(u32, Arc<str>)>,
    peer: SocketAddr,
    (body, footprint): (&RequestBody, Footprint),
    door: &Door<'_>,
) -> Result<LetIn, Box<Reply>> {
    let arriving = match client.filter(|_| !is_small(body)) {
        None => None,
        Some((index, name)) => {
            let client = &snapshot.config.clients[*index as usize];
            let arriving = proxy.gates.arrive(name, client.free_when_over_budget);
            Some(arriving.map_err(|denied| Box::new(over_limit(door, client, denied)))?)
        }
    };
    // One that is longer than allowed is refused for that.
    let expected = expected_bytes(body).min(snapshot.config.server.max_body_bytes);
    Ok((arriving, proxy.memory.take(holder_of(client, peer), footprint.with_body(expected))))
}

/// The holder of the memory of a client's requests.
pub(super) fn holder_of(client: Option<&(u32, Arc<str>)>, peer: SocketAddr) -> Holder {
    client.map_or_else(|| Holder::peer(peer.ip()), |(_, name)| Holder::Client(name.clone()))
}

/// Admits a request that was read: its model is known as far as it must be, and its client's own limits allow it.
///
/// # Errors
/// The refusal.
pub(super) fn admit(
    proxy: &Proxy,
    snapshot: &Snapshot,
    asked: &ProxyRequest,
    door: &Door<'_>,
) -> Result<ClientPermit, Box<Reply>> {
    let only = Only { serving_all: needs_all_models(snapshot, asked, door)?, ..Only::default() };
    let Some(name) = &asked.client else { return Ok(ClientPermit::without_client(only)) };
    let client = &snapshot.config.clients[asked.client_index as usize];
    let request = asked.client_request();
    let asks_model = request.asks_model();
    if asks_model && !client.may_ask(&asked.model) {
        let message = format!("The key {name:?} may not ask for the model {:?}", asked.model);
        return Err(Box::new(door.deny(Denial::ModelNotAllowed, ErrorKind::ModelNotFound, &message)));
    }
    // A count of tokens names a model and costs nothing.
    let priced = asks_model && client.budget_usd_per_day.is_some() && !asked.operation.counts_tokens();
    let estimate_usd = if priced { estimate_usd(snapshot, asked, door)? } else { 0.0 };
    let costs_nothing = !asks_model && (asked.method.is_safe() || asked.method == Method::DELETE);
    let may_be_free = || costs_nothing || client.free_when_over_budget && serves_free(&snapshot.view, &request);
    let entered = proxy.gates.enter(name, Only { priced, ..only }, estimate_usd, may_be_free);
    let mut permit = entered.map_err(|denied| Box::new(over_limit(door, client, denied)))?;
    // What a provider keeps lies with that provider, whatever its models cost.
    permit.only.free &= !costs_nothing;
    Ok(permit)
}

/// Returns true if only a backend that serves every model may get this request, because its model is not known.
///
/// # Errors
/// Nobody may: backends differ in what they serve, and luck is not to decide.
fn needs_all_models(snapshot: &Snapshot, asked: &ProxyRequest, door: &Door<'_>) -> Result<bool, Box<Reply>> {
    if !asked.is_model_unknown() {
        return Ok(false);
    }
    match snapshot.view.without_model(asked.operation) {
        WithoutModel::Any => Ok(false),
        WithoutModel::ServingAll => Ok(true),
        WithoutModel::None => {
            let why = match &asked.unread {
                Some(unread) => format!("The request body could not be read: {unread}; so the model is not known"),
                None => "The request names no model".to_owned(),
            };
            let message = format!(
                "{why}, and the backends here serve different ones. Send a JSON object with a \"model\" of GET /v1/models"
            );
            let status =
                matches!(asked.unread, Some(Unread::Encoding(_))).then_some(StatusCode::UNSUPPORTED_MEDIA_TYPE);
            let error = OwnError { status, ..OwnError::new(ErrorKind::InvalidRequest, &message) };
            Err(Box::new(door.deny_with(Denial::BadRequest, &error)))
        }
    }
}

/// The most that this request of a client with a budget is expected to cost, USD.
///
/// # Errors
/// Its cost could not be counted, because nobody who serves the model has a price for it.
fn estimate_usd(snapshot: &Snapshot, asked: &ProxyRequest, door: &Door<'_>) -> Result<f64, Box<Reply>> {
    let request = asked.client_request();
    let translatable = translatable(&snapshot.view, &request) == Ok(true);
    let service_tier = asked.body_facts.as_ref().and_then(|facts| facts.service_tier);
    let ProxyRequest { model, operation, prompt_tokens, .. } = asked;
    if let Some(dearest) = snapshot.view.dearest(model, *operation, translatable, *prompt_tokens, service_tier) {
        let answers = request.charged_answers();
        return Ok(clients::estimate_usd(dearest, asked.prompt_tokens, asked.max_tokens, answers));
    }
    let name = asked.client.as_deref().unwrap_or_default();
    let message = format!(
        "The key {name:?} has a budget, and no backend that serves {:?} has a price for it, so that its cost could not be counted. \
         The operator gives it one: [backend.price.\"MODEL\"], 0 if it is free",
        shown(&asked.model)
    );
    let status = Some(StatusCode::FORBIDDEN);
    let error = OwnError { status, ..OwnError::new(ErrorKind::InvalidRequest, &message) };
    Err(Box::new(door.deny_with(Denial::NoPrice, &error)))
}
