//! One downstream request: who asks, is it well-formed, and then the drive. What is refused here is recorded by `Door`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, HOST, ORIGIN};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version};
use hyper::body::Body as _;
use pointsman_config::Client;
use pointsman_core::attempt::{serves_free, translatable};
use pointsman_core::clients::{self, ClientDenied};
use pointsman_core::contract::Operation;
use pointsman_core::denial::Denial;
use pointsman_core::dialect::ApiPath;
use pointsman_core::dialect::envelope::ErrorKind;
use pointsman_core::dialect::request_body::{BodyError, Unread};
use pointsman_core::exchange::Only;
use pointsman_core::http::framing::Fault;
use pointsman_core::http::keyless::Exposure;
use pointsman_core::http::query::without_credentials;
use pointsman_core::http::url;
use pointsman_core::memory_budget::{Holder, NoRoom};
use pointsman_core::suited::shown;
use pointsman_core::view::WithoutModel;

use super::connections::RequestBody;
use super::discovery::Discovery;
use super::door::Door;
use super::guard;
use super::ids::RequestIds;
use super::listen::Serve;
use super::local;
use super::models;
use super::request_body::{self, BODY_IDLE, BodyProblem, Footprint, decoded_limit, discard, expected_bytes, is_small};
use super::strangers;
use crate::proxy::{
    ClientArrival, ClientPermit, Grant, IncomingRequest, OwnError, Proxy, ProxyBody, ProxyRequest, Reply, Snapshot,
    Unknown, drive, is_large, turn,
};

/// The most that is expected to come of a byte of a coded body.
const MAX_CODING_RATIO: usize = 64;

/// The Retry-After of a body that has no room to be decoded in beside others.
const DECODING_RETRY: Duration = Duration::from_secs(5);

/// Handler of every request of the listener.
pub(super) struct Service {
    proxy: Arc<Proxy>,
    discovery: Discovery,
    ids: RequestIds,
    exposure: Exposure,
}

impl Service {
    /// A service before a proxy, at a listener with this reach.
    pub(super) fn new(proxy: Arc<Proxy>, exposure: Exposure) -> Self {
        Self { proxy, discovery: Discovery::default(), ids: RequestIds::new(), exposure }
    }

    /// Answers one request. Whatever is wrong with it is answered too, in the client's dialect.
    async fn call(&self, peer: SocketAddr, request: Request<RequestBody>) -> Reply {
        let is_head = request.method() == Method::HEAD;
        let origin = request.headers().get(ORIGIN).cloned();
        let mut reply = self.answer(peer, request).await;
        if origin.is_some() && !reply.headers().contains_key(ALLOW) {
            let snapshot = self.proxy.snapshot();
            snapshot.config.server.allowed_origins.apply(origin.as_ref(), reply.headers_mut());
        }
        if is_head { without_body(reply) } else { reply }
    }

    async fn answer(&self, peer: SocketAddr, request: Request<RequestBody>) -> Reply {
        let path = ApiPath::read(request.uri().path(), request.headers());
        let id = self.ids.of(request.headers());
        let mut door = Door::new(&self.proxy, id, path.operation, request.uri(), request.headers());
        if let Some(fault) = guard::refused(&request) {
            return misframed(&door, fault);
        }
        let snapshot = self.proxy.snapshot();
        let (head, body) = request.into_parts();
        if self.proxy.is_closing() {
            return shutting_down(&door);
        }
        let own = local::options(&head, &snapshot).or_else(|| local::sign_of_life(&head, path.operation, &snapshot));
        if let Some(reply) = own {
            return reply;
        }
        if let Some(refused) = strangers::refused(&head, &snapshot, self.exposure, &door) {
            return refused;
        }
        let client = match self.proxy.identify(&snapshot, &head.headers) {
            Ok(client) => client,
            Err(unknown) => return unidentified(&door, unknown),
        };
        door.identified(client.as_ref().map(|(_, name)| name));
        if let Some(reply) = unforwardable(&head, &door) {
            return reply;
        }
        if let Some(listed) = models::listed_at(&head.method, &head.uri.path()[path.root..]) {
            let models = self.discovery.models(&snapshot).await;
            return models::reply(&listed, &models, &head.headers, &snapshot, door.id());
        }
        if let Some(reply) = local::refused(&head, path.operation, &snapshot, &door) {
            return reply;
        }
        let limit = snapshot.config.server.max_body_bytes;
        let footprint = Footprint::of(&head.headers, path.operation, &snapshot);
        let (arriving, mut memory) = match self.let_in(&snapshot, client.as_ref(), peer, (&body, footprint), &door) {
            Ok(let_in) => let_in,
            Err(reply) => {
                // Who waits to be asked for its body is not asked.
                if !head.headers.contains_key(EXPECT) {
                    discard(body);
                }
                return *reply;
            }
        };
        let read = tokio::time::timeout(
            snapshot.config.limits.max_exchange,
            request_body::read(body, limit, footprint, &mut memory),
        );
        let Some(read) = self.proxy.cut.run_until_cancelled(read).await else { return shutting_down(&door) };
        let body = match read.unwrap_or(Err(BodyProblem::Slow)) {
            Ok(body) => body,
            Err(problem) => return unread(&door, &problem, limit),
        };
        let spending = client.as_ref().map(|(_, name)| self.proxy.gates.spending(name)).unwrap_or_default();
        let target = head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        let is_client_key = |value: &str| snapshot.config.client_of(value).is_some();
        let target = without_credentials(target, path.operation != Operation::Plain, is_client_key);
        let privileges = snapshot.config.privileges(client.as_ref().map(|(index, _)| *index)).clone();
        let (id, translation) = (door.id().to_owned(), snapshot.config.server.translation);
        // Before memory is taken for what it decodes to, so that few hold that at a time.
        let turn = turn(expected_work(&head.headers, body.len())).await;
        let decoded_limit = decoded_limit(&head.headers, body.len(), limit, footprint, &mut memory);
        let arrival = IncomingRequest {
            id,
            client,
            spending,
            head,
            target,
            path,
            body,
            max_body_bytes: decoded_limit,
            memory: Some(memory),
            translation,
            privileges,
        };
        let asked = turn.run(|| {
            ProxyRequest::read(arrival).inspect(|asked| {
                if is_large(asked.body.len()) {
                    // Translations are kept, so that the exchange finds them made.
                    let _ = translatable(&snapshot.view, &asked.client_request());
                }
            })
        });
        let asked = match asked {
            Ok(mut asked) => {
                asked.settle_memory(|length| footprint.with_body(length));
                Arc::new(asked)
            }
            Err(BodyError::TooLarge(_)) if decoded_limit < limit => {
                return without_room(&door, NoRoom::Now { retry_after: DECODING_RETRY });
            }
            Err(error) => return unusable(&door, &error),
        };
        drop(arriving);
        door.read(&asked);
        match self.admit(&snapshot, &asked, &door) {
            Ok(permit) => drive(self.proxy.clone(), snapshot.for_exchange(&asked), asked, permit).await,
            Err(reply) => *reply,
        }
    }

    /// Lets a request in whose body is to be read: a large or unannounced one only as far as its client's own limits allow, and
    /// any where there is memory for it.
    fn let_in(
        &self,
        snapshot: &Snapshot,
        client: Option<&(u32, Arc<str>)>,
        peer: SocketAddr,
        (body, footprint): (&RequestBody, Footprint),
        door: &Door<'_>,
    ) -> Result<(Option<ClientArrival>, Grant), Box<Reply>> {
        let arriving = match client.filter(|_| !is_small(body)) {
            None => None,
            Some((index, name)) => {
                let client = &snapshot.config.clients[*index as usize];
                let arriving = self.proxy.gates.arrive(name, client.free_when_over_budget);
                Some(arriving.map_err(|denied| Box::new(over_limit(door, client, denied)))?)
            }
        };
        let holder = client.map_or_else(|| Holder::peer(peer.ip()), |(_, name)| Holder::Client(name.clone()));
        // One that is longer than allowed is refused for that.
        let expected = expected_bytes(body).min(snapshot.config.server.max_body_bytes);
        let memory = self.proxy.memory.take(holder, footprint.with_body(expected));
        Ok((arriving, memory.map_err(|no_room| Box::new(without_room(door, no_room)))?))
    }

    /// Whether its model is known as far as it must be, and the limits of the client's own key.
    fn admit(&self, snapshot: &Snapshot, asked: &ProxyRequest, door: &Door<'_>) -> Result<ClientPermit, Box<Reply>> {
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
        let entered = self.proxy.gates.enter(name, Only { priced, ..only }, estimate_usd, may_be_free);
        let mut permit = entered.map_err(|denied| Box::new(over_limit(door, client, denied)))?;
        // What a provider keeps lies with that provider, whatever its models cost.
        permit.only.free &= !costs_nothing;
        Ok(permit)
    }
}

/// The length of the body that is worked on, about: a coding hides it.
fn expected_work(headers: &HeaderMap, length: usize) -> usize {
    let is_coded = headers.contains_key(CONTENT_ENCODING);
    length.saturating_mul(if is_coded { MAX_CODING_RATIO } else { 1 })
}

fn shutting_down(door: &Door<'_>) -> Reply {
    let message = "Pointsman is shutting down; try again in a moment";
    door.deny(Denial::ShuttingDown, ErrorKind::ShuttingDown, message)
}

impl Serve for Service {
    type Body = ProxyBody;

    async fn serve(&self, peer: SocketAddr, request: Request<RequestBody>) -> Reply {
        self.call(peer, request).await
    }
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
    if let Some(dearest) = snapshot.view.dearest(&asked.model, asked.operation, translatable, asked.prompt_tokens) {
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

/// A body that cannot be used.
fn unusable(door: &Door<'_>, error: &BodyError) -> Reply {
    let (denial, kind) = match error {
        BodyError::Ambiguous(_) | BodyError::LongModel | BodyError::Undecodable(_) => {
            (Denial::BadRequest, ErrorKind::InvalidRequest)
        }
        BodyError::TooLarge(_) => (Denial::BodyTooLarge, ErrorKind::BodyTooLarge),
    };
    door.deny(denial, kind, &error.to_string())
}

/// A request whose framing can be read in two ways, or whose head is too large.
fn misframed(door: &Door<'_>, fault: Fault) -> Reply {
    let kind = match fault {
        Fault::HeadTooLarge | Fault::TooManyFields => ErrorKind::HeadersTooLarge,
        _ => ErrorKind::InvalidRequest,
    };
    door.deny(Denial::BadRequest, kind, fault.message())
}

fn unidentified(door: &Door<'_>, unknown: Unknown) -> Reply {
    let (denial, message) = match unknown {
        Unknown::Missing => {
            (Denial::MissingKey, "No client key; send one of the keys configured under [[client]] as a bearer token")
        }
        Unknown::Wrong => {
            (Denial::WrongKey, "This client key is not known here; the operator configures keys under [[client]]")
        }
    };
    door.deny(denial, ErrorKind::Unauthorised, message)
}

/// Requests that cannot be put under a backend's base URL.
fn unforwardable(head: &http::request::Parts, door: &Door<'_>) -> Option<Reply> {
    let bad = |message| Some(door.deny(Denial::BadRequest, ErrorKind::InvalidRequest, message));
    if head.method == Method::CONNECT || head.uri.path_and_query().is_none_or(|p| !p.as_str().starts_with('/')) {
        return bad("Pointsman forwards requests with a path under its backends' base URLs; this request has none");
    }
    if head.method == Method::TRACE {
        // It would show the backend's key to the client (RFC 9110 section 9.3.8).
        let status = Some(StatusCode::METHOD_NOT_ALLOWED);
        let error = OwnError { status, ..OwnError::new(ErrorKind::InvalidRequest, "TRACE is not forwarded") };
        return Some(door.deny_with(Denial::BadRequest, &error));
    }
    let times = |name| head.headers.get_all(name).iter().count();
    if times(AUTHORIZATION) > 1 || times(HOST) > 1 || (head.version == Version::HTTP_11 && times(HOST) == 0) {
        return bad("The request must have one Host header and at most one Authorization header (RFC 9110)");
    }
    if url::has_dots(head.uri.path()) {
        return bad("The path has a \".\" or \"..\" segment; send the path it stands for");
    }
    None
}

fn unread(door: &Door<'_>, problem: &BodyProblem, limit: u64) -> Reply {
    let (denial, kind, message) = match problem {
        BodyProblem::NoRoom(no_room) => return without_room(door, *no_room),
        BodyProblem::TooLarge => (
            Denial::BodyTooLarge,
            ErrorKind::BodyTooLarge,
            format!("The request body is larger than {limit} bytes (server.max_body_bytes)"),
        ),
        BodyProblem::Slow => {
            let message = format!("The request body paused for longer than {BODY_IDLE:?}");
            (Denial::BadRequest, ErrorKind::InvalidRequest, message)
        }
        BodyProblem::Broken(why) => {
            (Denial::BadRequest, ErrorKind::InvalidRequest, format!("The request body broke off: {why}"))
        }
    };
    let mut reply = door.deny(denial, kind, &message);
    // The rest of the body is not read, so the connection cannot be used again.
    reply.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    reply
}

/// A request for which there is no memory.
fn without_room(door: &Door<'_>, no_room: NoRoom) -> Reply {
    let (denial, error) = match no_room {
        NoRoom::Now { retry_after } => {
            let message = "The requests under way hold the memory that this client may use (server.memory_budget_mb); try again later";
            (
                Denial::Memory,
                OwnError { retry_after: Some(retry_after), ..OwnError::new(ErrorKind::Overloaded, message) },
            )
        }
        NoRoom::Ever => {
            let message = "The request takes more memory than there is for large requests (server.memory_budget_mb)";
            (Denial::BodyTooLarge, OwnError::new(ErrorKind::BodyTooLarge, message))
        }
    };
    door.deny_with(denial, &error)
}

fn over_limit(door: &Door<'_>, client: &Client, denied: ClientDenied) -> Reply {
    let (name, limits) = (&client.name, client.limits);
    let (denial, kind, message, retry_after) = match denied {
        ClientDenied::Rate { retry_after } => {
            let rpm = limits.rpm.map(|rpm| format!("{rpm} requests a minute, client.rpm"));
            let tpm = limits.tpm.map(|tpm| format!("{tpm} tokens a minute, client.tpm"));
            let which: Vec<String> = rpm.into_iter().chain(tpm).collect();
            let message = format!("The key {name:?} has used up its rate limit ({})", which.join("; "));
            (Denial::ClientRate, ErrorKind::RateLimited, message, retry_after)
        }
        ClientDenied::Concurrency => {
            let most = limits.max_concurrency.unwrap_or_default();
            let message =
                format!("The key {name:?} has {most} requests under way, the most it may (client.max_concurrency)");
            (Denial::ClientConcurrency, ErrorKind::RateLimited, message, Duration::from_secs(1))
        }
        ClientDenied::Budget { spent_usd, reserved_usd, retry_after } => {
            let budget = client.budget_usd_per_day.unwrap_or_default();
            let reserved = match spent_usd < budget {
                true => format!(", and {reserved_usd:.4} USD are reserved for its requests under way"),
                false => String::new(),
            };
            let message = format!(
                "The key {name:?} has spent {spent_usd:.4} USD of its {budget} USD for today (client.budget_usd_per_day){reserved}"
            );
            (Denial::ClientBudget, ErrorKind::BudgetExceeded, message, retry_after)
        }
    };
    let error = OwnError { retry_after: Some(retry_after), ..OwnError::new(kind, &message) };
    door.deny_with(denial, &error)
}

/// A HEAD request gets the head alone; over HTTP/2 nobody else sees to that.
fn without_body(mut reply: Reply) -> Reply {
    if let Some(length) = reply.body().size_hint().exact().filter(|length| *length > 0) {
        reply.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    reply.map(|_| ProxyBody::Whole(None))
}
