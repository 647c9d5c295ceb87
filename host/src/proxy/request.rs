//! A downstream request, read once: its original bytes, and the facts the core and the policy need.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, HOST};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method};
use pointsman_config::Privileges;
use pointsman_core::affinity::{BackgroundResponse, session_in_headers};
use pointsman_core::attempt::ClientRequest;
use pointsman_core::clients::Spending;
use pointsman_core::contract::{NONE, Operation};
use pointsman_core::dialect::ApiPath;
use pointsman_core::dialect::Dialect;
use pointsman_core::dialect::facts::BodyFacts;
use pointsman_core::dialect::request_body::{BodyError, RequestBody, Unread};
use pointsman_core::dialect::translate::{Strictness, Translations};
use pointsman_core::exchange::Facts;
use pointsman_core::http::encoding::Encoding;
use pointsman_core::http::url::percent_decoded;
use pointsman_core::origin::Endpoint;
use pointsman_core::record::Usage;
use pointsman_core::table::UNKNOWN_MODEL;
use pointsman_core::text::{MAX_NAME_BYTES, beginning};
use pointsman_engine::Texts;

use super::memory::Grant;
use super::offload_blocking::offload_blocking;

/// Labels a client may send; more are ignored.
const MAX_LABELS: usize = 16;

/// A client's request, complete, with the facts read from it.
#[derive(Debug)]
pub struct ProxyRequest {
    /// The request id, ours or the client's.
    pub id: String,
    /// The client key's name and its index in the table.
    pub client: Option<Arc<str>>,
    /// Index of the client key, or `NONE`.
    pub client_index: u32,
    /// Method of the request.
    pub method: Method,
    /// Path and query, byte for byte, but for a credential in the query.
    pub target: PathAndQuery,
    /// Bytes of the path before that of the operation.
    pub root: usize,
    /// The headers as they came.
    pub headers: HeaderMap,
    /// The body as it came, but for its encoding, a byte order mark, and a model that only the path named.
    pub body: Bytes,
    /// The facts of a JSON object or a form; none for any other body.
    pub body_facts: Option<BodyFacts>,
    /// The reason why a body that is there has no facts.
    pub unread: Option<Unread>,
    /// Operation that its path names.
    pub operation: Operation,
    /// The request in other dialects.
    pub translations: Translations,
    /// The model; "unknown" when none was named.
    pub model: Arc<str>,
    /// The client asked for a stream.
    pub streaming: bool,
    /// Estimated tokens of the prompt.
    pub prompt_tokens: u32,
    /// The most tokens of the answer; 0: did not say.
    pub max_tokens: u32,
    /// -100..=100, and no higher than the client may ask for.
    pub priority: i32,
    /// A hash of the session; 0: none.
    pub session: u64,
    /// The texts that the policy may read.
    pub texts: Arc<Texts>,
    /// The host in the request line, as over HTTP/2.
    pub authority: Option<Authority>,
    /// The request came over TLS, to us or to a proxy before us.
    pub is_https: bool,
    /// The one backend that it may go to, once; none: the policy decides.
    pub pinned: Option<PinnedBackend>,
    /// The response that it asks for, begun in the background, whose usage is not yet known.
    pub background: Option<BackgroundResponse>,
    /// Its number, once it was needed.
    pub number: OnceLock<u64>,
    /// Use of the attempt under way, for a client that goes away before the answer.
    pub abandoned: Abandoned,
    /// The memory that it holds.
    pub memory: Option<Grant>,
}

/// The attempt that was under way when the client went away.
#[derive(Debug, Default)]
pub struct Abandoned {
    /// The request was written to a connection.
    pub is_written: AtomicBool,
    /// Tokens that the attempt has used.
    pub usage: OnceLock<Usage>,
}

/// A backend that a request is pinned to, for one attempt.
#[derive(Clone, Copy, Debug)]
pub struct PinnedBackend {
    /// Index of the backend in the table.
    pub backend: u32,
    /// The attempt's total time limit.
    pub within: Duration,
}

/// The parts of a request that arrives, before its facts are read.
pub struct IncomingRequest {
    /// Request id, the client's own or a new one.
    pub id: String,
    /// The client key that was presented, if keys are configured.
    pub client: Option<(u32, Arc<str>)>,
    /// Spend and budget of that key.
    pub spending: Spending,
    /// Method, address and headers as they came.
    pub head: http::request::Parts,
    /// Path and query to forward.
    pub target: PathAndQuery,
    /// Operation and root of its path.
    pub path: ApiPath,
    /// Body as it came.
    pub body: Bytes,
    /// Largest body, decoded, in bytes.
    pub max_body_bytes: u64,
    /// The memory that was taken for it; none: a request of our own.
    pub memory: Option<Grant>,
    /// The treatment of fields that a backend of another dialect cannot take.
    pub translation: Strictness,
    /// Headers of the client that count.
    pub privileges: Privileges,
}

/// Larger compressed bodies are decoded aside, in bytes.
const DECODED_ASIDE_BYTES: usize = 16 << 10;

impl ProxyRequest {
    /// Reads the facts. Of what the client names no more than [`MAX_NAME_BYTES`] are kept.
    ///
    /// # Errors
    /// [`BodyError`].
    pub fn read(arrival: IncomingRequest) -> Result<Self, BodyError> {
        let IncomingRequest {
            id,
            client,
            spending,
            mut head,
            target,
            path,
            body,
            max_body_bytes,
            memory,
            translation,
            privileges,
        } = arrival;
        let ApiPath { operation, root } = path;
        let mut read = read_body(body, &mut head.headers, operation, max_body_bytes)?;
        let in_path = name_by_path(&mut read, target.path(), operation, &head.headers);
        let RequestBody { body, facts, unread, .. } = read;
        let header = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok());
        let session = session_in_headers(&head.headers).map(str::to_owned).or_else(|| facts.session.clone());
        let priority = header("x-pointsman-priority").and_then(|p| p.trim().parse::<i32>().ok()).unwrap_or(0);
        let model: Arc<str> = facts.model.as_deref().or(in_path.as_deref()).unwrap_or(UNKNOWN_MODEL).into();
        let texts = Texts {
            model: model.to_string(),
            path: beginning(target.path(), MAX_NAME_BYTES).to_owned(),
            session: session.clone(),
            labels: labels(&head.headers, &privileges),
            spending,
        };
        let (client_index, client) = client.map_or((NONE, None), |(index, name)| (index, Some(name)));
        Ok(Self {
            id,
            client,
            client_index,
            operation,
            translations: Translations::new(translation),
            streaming: facts.stream,
            prompt_tokens: facts.prompt_tokens,
            max_tokens: facts.max_tokens,
            priority: privileges.priority(priority),
            session: session.as_deref().map_or(0, Facts::session_number),
            texts: Arc::new(texts),
            authority: head.uri.authority().cloned(),
            is_https: is_https(&head),
            pinned: None,
            background: None,
            number: OnceLock::new(),
            abandoned: Abandoned::default(),
            memory,
            model,
            body_facts: facts.is_read().then_some(facts),
            unread,
            method: head.method,
            target,
            root,
            headers: head.headers,
            body,
        })
    }

    /// Holds what its body takes, by `footprint` of its length, and no more.
    pub fn settle_memory(&mut self, footprint: impl FnOnce(u64) -> u64) {
        if let Some(memory) = &mut self.memory {
            // To hold less is always possible, and it is not more than was taken for the longest that may come.
            let _ = memory.resize(footprint(self.body.len() as u64));
        }
    }

    /// The facts that the exchange needs.
    pub fn facts(&self, translatable: bool) -> Facts {
        Facts {
            operation: self.operation,
            streaming: self.streaming,
            priority: self.priority,
            prompt_tokens: self.prompt_tokens,
            max_tokens: self.max_tokens,
            client: self.client_index,
            session: self.session,
            translatable,
            idempotent: self.is_idempotent(),
        }
    }

    /// Returns true if it may be sent twice. A question to a model may, whatever its method (RFC 9110 section 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        self.operation.is_question() || self.method.is_idempotent()
    }

    /// Returns true if its answer is made in the background, and told later.
    pub fn begins_in_background(&self) -> bool {
        self.operation == Operation::Response && self.body_facts.as_ref().is_some_and(|facts| facts.background)
    }

    /// The endpoint that it uses.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::new(self.operation, &self.method, self.path())
    }

    /// Its number for a client key: the same request has the same, for as long as the process runs.
    pub fn number(&self, client: u64) -> u64 {
        static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(()));
        *self.number.get_or_init(|| self.client_request().number(*SEED, client))
    }

    /// The dialect that the client speaks.
    pub fn client_dialect(&self) -> Dialect {
        Dialect::of_client(self.operation, &self.headers)
    }

    /// Returns true if a model is asked that the request does not name in a way that can be read.
    pub fn is_model_unknown(&self) -> bool {
        let is_named = &*self.model != UNKNOWN_MODEL;
        match self.unread {
            Some(_) => self.operation.is_question() && !is_named,
            // A moderation has a model of the provider's own.
            None => self.client_request().asks_model() && !is_named,
        }
    }

    /// The path without its query.
    pub fn path(&self) -> &str {
        self.target.path()
    }

    /// The address by which the client reached us: `http://host:port`.
    pub fn origin(&self) -> Option<String> {
        let host = self.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = host.or_else(|| self.authority.as_ref().map(Authority::as_str))?;
        let scheme = if self.is_https { "https" } else { "http" };
        Some(format!("{scheme}://{host}"))
    }

    /// The path behind the root of the API.
    pub fn own_path(&self) -> &str {
        &self.target.path()[self.root..]
    }

    /// As attempts send it on.
    pub fn client_request(&self) -> ClientRequest<'_> {
        ClientRequest {
            id: &self.id,
            method: &self.method,
            target: &self.target,
            root: self.root,
            headers: &self.headers,
            body: &self.body,
            body_facts: self.body_facts.as_ref(),
            translations: &self.translations,
            operation: self.operation,
            model: &self.model,
            streaming: self.streaming,
            prompt_tokens: self.prompt_tokens,
            is_idempotent: self.is_idempotent(),
            is_of_background: self.background.is_some(),
        }
    }
}

/// Reads a body, decoded, whose headers then say what it is.
fn read_body(
    body: Bytes,
    headers: &mut HeaderMap,
    operation: Operation,
    max_body_bytes: u64,
) -> Result<RequestBody, BodyError> {
    let is_encoded = headers.contains_key(CONTENT_ENCODING) || Encoding::sniff(&body).is_some();
    let is_long_work = body.len() > DECODED_ASIDE_BYTES && is_encoded && operation != Operation::Plain;
    let read = || RequestBody::read(body, headers, operation, max_body_bytes);
    let read = if is_long_work { offload_blocking(read) } else { read() }?;
    // In a request to a plain API a member of this name may be anything.
    if read.facts.has_long_model && operation != Operation::Plain {
        return Err(BodyError::LongModel);
    }
    read.relabel(headers);
    Ok(read)
}

/// Returns the model that only the path names; a question's body names it from then on.
fn name_by_path(read: &mut RequestBody, path: &str, operation: Operation, headers: &HeaderMap) -> Option<String> {
    if read.facts.model.is_some() || operation == Operation::Plain {
        return None;
    }
    let model = model_in_path(path)?;
    if operation.is_question() {
        read.name_model(&model, headers);
    }
    Some(model)
}

/// The model that a path names.
fn model_in_path(path: &str) -> Option<String> {
    let name = percent_decoded(ApiPath::model_in(path)?).into_owned();
    (name.len() <= MAX_NAME_BYTES).then_some(name)
}

fn is_https(head: &http::request::Parts) -> bool {
    let told = head.headers.get("x-forwarded-proto").and_then(|scheme| scheme.to_str().ok());
    told.or(head.uri.scheme_str()).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"))
}

fn labels(headers: &HeaderMap, privileges: &Privileges) -> Vec<(String, String)> {
    let label = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        let kept = |text| beginning(text, MAX_NAME_BYTES).to_owned();
        let name = name.as_str().strip_prefix("x-pointsman-label-").filter(|name| privileges.allow_label(name))?;
        Some((kept(name), kept(value.to_str().ok()?)))
    };
    headers.iter().filter_map(label).take(MAX_LABELS).collect()
}
