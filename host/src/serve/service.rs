//! One downstream request: who asks, is it well-formed, and then the drive. What is refused here is recorded by `Door`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, ORIGIN};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Uri};
use hyper::body::Body as _;
use pointsman_core::attempt::translatable;
use pointsman_core::contract::Operation;
use pointsman_core::dialect::ApiPath;
use pointsman_core::dialect::request_body::BodyError;
use pointsman_core::http::keyless::Exposure;
use pointsman_core::http::query::without_credentials;
use pointsman_core::memory_budget::NoRoom;

use super::admission::{admit, holder_of, let_in};
use super::connections::RequestBody;
use super::discovery::Discovery;
use super::door::Door;
use super::guard;
use super::ids::RequestIds;
use super::listen::Serve;
use super::local;
use super::models;
use super::refusals::{misframed, shutting_down, unforwardable, unidentified, unread, unusable, without_room};
use super::request_body::{self, BodyProblem, Footprint, decoded_limit, discard};
use super::spill;
use super::strangers;
use crate::proxy::{Grant, IncomingRequest, Proxy, ProxyBody, ProxyRequest, Reply, Snapshot, drive, is_large, turn};

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
        let request = without_blanks(request);
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
        let asked = match self.read(&snapshot, (head, body), path, client, peer, &door).await {
            Ok(asked) => asked,
            Err(reply) => return *reply,
        };
        door.read(&asked);
        match admit(&self.proxy, &snapshot, &asked, &door) {
            Ok(permit) => drive(self.proxy.clone(), snapshot.for_exchange(&asked), asked, permit).await,
            Err(reply) => *reply,
        }
    }

    /// Reads the body of a request that may have one, and what it asks.
    ///
    /// # Errors
    /// The refusal.
    async fn read(
        &self,
        snapshot: &Arc<Snapshot>,
        (head, body): (http::request::Parts, RequestBody),
        path: ApiPath,
        client: Option<(u32, Arc<str>)>,
        peer: SocketAddr,
        door: &Door<'_>,
    ) -> Result<Arc<ProxyRequest>, Box<Reply>> {
        let limit = snapshot.config.server.max_body_bytes;
        let footprint = Footprint::of(&head.headers, path.operation, snapshot);
        let let_in = let_in(&self.proxy, snapshot, client.as_ref(), peer, (&body, footprint), door);
        let let_in = let_in.and_then(|(arriving, memory)| match memory {
            Err(NoRoom::Now { .. }) if spill::may_spill(snapshot, &body) => Ok((arriving, memory)),
            Err(no_room) => Err(Box::new(without_room(door, no_room))),
            Ok(_) => Ok((arriving, memory)),
        });
        let (arriving, memory) = match let_in {
            Ok(let_in) => let_in,
            Err(reply) => {
                // Who waits to be asked for its body is not asked.
                if !head.headers.contains_key(EXPECT) {
                    discard(body);
                }
                return Err(reply);
            }
        };
        let received = self.receive(snapshot, (body, memory), footprint, client.as_ref(), peer, door).await;
        let (body, mut memory) = received?;
        let spending = client.as_ref().map(|(_, name)| self.proxy.gates.spending(name)).unwrap_or_default();
        let target = forwarded_target(&head.uri, path.operation, snapshot);
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
        let asked = turn.run(|| read_request(arrival, snapshot));
        drop(arriving);
        match asked {
            Ok(mut asked) => {
                asked.settle_memory(|length| footprint.with_body(length));
                asked.background = self.proxy.background.asked_for(&asked);
                Ok(Arc::new(asked))
            }
            Err(BodyError::TooLarge(_)) if decoded_limit < limit => {
                Err(Box::new(without_room(door, NoRoom::Now { retry_after: DECODING_RETRY })))
            }
            Err(error) => Err(Box::new(unusable(door, &error))),
        }
    }

    /// Receives a body whole, within the limits of its length and of time; by way of the disk, where there was no memory.
    ///
    /// # Errors
    /// The refusal.
    async fn receive(
        &self,
        snapshot: &Snapshot,
        (body, memory): (RequestBody, Result<Grant, NoRoom>),
        footprint: Footprint,
        client: Option<&(u32, Arc<str>)>,
        peer: SocketAddr,
        door: &Door<'_>,
    ) -> Result<(Bytes, Grant), Box<Reply>> {
        let max_bytes = snapshot.config.server.max_body_bytes;
        let received = async {
            match memory {
                Ok(mut memory) => {
                    let body = request_body::read(body, max_bytes, footprint, &mut memory).await?;
                    Ok((body, memory))
                }
                Err(no_room) => {
                    let holder = holder_of(client, peer);
                    let spilled = spill::write(&self.proxy, snapshot, body, holder, no_room).await?;
                    spilled.read(&self.proxy, footprint).await
                }
            }
        };
        let received = tokio::time::timeout(snapshot.config.limits.max_exchange, received);
        let Some(received) = self.proxy.cut.run_until_cancelled(received).await else {
            return Err(Box::new(shutting_down(door)));
        };
        received.unwrap_or(Err(BodyProblem::Slow)).map_err(|problem| Box::new(unread(door, &problem, max_bytes)))
    }
}

/// Path and query to forward: without a key of one of our clients.
fn forwarded_target(uri: &Uri, operation: Operation, snapshot: &Snapshot) -> PathAndQuery {
    let target = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let is_client_key = |value: &str| snapshot.config.client_of(value).is_some();
    without_credentials(target, operation != Operation::Plain, is_client_key)
}

/// Reads the facts of a request. A large one is translated here, where no worker of the runtime waits for it.
fn read_request(arrival: IncomingRequest, snapshot: &Snapshot) -> Result<ProxyRequest, BodyError> {
    ProxyRequest::read(arrival).inspect(|asked| {
        if is_large(asked.body.len()) {
            // Translations are kept, so that the exchange finds them made.
            let _ = translatable(&snapshot.view, &asked.client_request());
        }
    })
}

/// The request without blanks behind the segments of a known operation's path: they come with a base URL that has some.
fn without_blanks(mut request: Request<RequestBody>) -> Request<RequestBody> {
    let uri = request.uri();
    if let Some(path) = ApiPath::without_blanks(uri.path(), request.headers()) {
        let target = uri.query().map_or(path.clone(), |query| format!("{path}?{query}"));
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = target.parse().ok();
        if let Ok(mended) = Uri::from_parts(parts) {
            *request.uri_mut() = mended;
        }
    }
    request
}

/// The length of the body that is worked on, about: a coding hides it.
fn expected_work(headers: &HeaderMap, length: usize) -> usize {
    let is_coded = headers.contains_key(CONTENT_ENCODING);
    length.saturating_mul(if is_coded { MAX_CODING_RATIO } else { 1 })
}

impl Serve for Service {
    type Body = ProxyBody;

    async fn serve(&self, peer: SocketAddr, request: Request<RequestBody>) -> Reply {
        self.call(peer, request).await
    }
}

/// A HEAD request gets the head alone; over HTTP/2 nobody else sees to that.
fn without_body(mut reply: Reply) -> Reply {
    if let Some(length) = reply.body().size_hint().exact().filter(|length| *length > 0) {
        reply.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    reply.map(|_| ProxyBody::Whole(None))
}
