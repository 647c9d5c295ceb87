//! A downstream request, read once: its original bytes, and the facts the core and the policy need.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method};
use pointsman_core::attempt::ClientRequest;
use pointsman_core::clients::Spending;
use pointsman_core::contract::{NONE, Operation};
use pointsman_core::dialect::facts::{Ambiguous, BodyFacts};
use pointsman_core::dialect::operation_at;
use pointsman_core::dialect::translate::Translations;
use pointsman_core::exchange::Facts;
use pointsman_core::view::UNKNOWN_MODEL;
use pointsman_engine::Texts;

/// Labels a client may send; more are ignored.
const MAX_LABELS: usize = 16;

/// Paths that ask a model and leave nothing behind, beside those that are operations of their own.
const QUESTIONS: [&str; 10] = [
    "/audio/speech",
    "/audio/transcriptions",
    "/audio/translations",
    "/images/edits",
    "/images/generations",
    "/images/variations",
    "/messages/count_tokens",
    "/moderations",
    "/rerank",
    "/responses/input_tokens",
];

/// A request that has arrived, body and all.
#[derive(Debug)]
pub struct Asked {
    /// The request id, ours or the client's.
    pub id: String,
    /// The client key's name and its index in the table.
    pub client: Option<Arc<str>>,
    /// Its index, or `NONE`.
    pub client_index: u32,
    /// The method.
    pub method: Method,
    /// Path and query, byte for byte.
    pub target: PathAndQuery,
    /// The headers as they came.
    pub headers: HeaderMap,
    /// The body as it came.
    pub body: Bytes,
    /// What a JSON body says; none for any other body.
    pub body_facts: Option<BodyFacts>,
    /// What is asked for.
    pub operation: Operation,
    /// The request in other dialects.
    pub translations: Translations,
    /// The model; "unknown" when none was named.
    pub model: Arc<str>,
    /// Does the client want a stream?
    pub streaming: bool,
    /// Estimated tokens of the prompt.
    pub prompt_tokens: u32,
    /// The most tokens of the answer; 0: did not say.
    pub max_tokens: u32,
    /// -100..=100.
    pub priority: i32,
    /// A hash of the session; 0: none.
    pub session: u64,
    /// What the policy may read.
    pub texts: Arc<Texts>,
    /// The one backend it may go to, once; none: the policy decides.
    pub only: Option<Only>,
}

/// One attempt at one backend.
#[derive(Clone, Copy, Debug)]
pub struct Only {
    /// Which.
    pub backend: u32,
    /// How long the attempt may take.
    pub within: Duration,
}

/// A request's parts, as the listener has them.
pub struct Arrival {
    /// The request id.
    pub id: String,
    /// The client key that was presented, if keys are configured.
    pub client: Option<(u32, Arc<str>)>,
    /// That key's money.
    pub spending: Spending,
    /// Head.
    pub head: http::request::Parts,
    /// Body.
    pub body: Bytes,
}

impl Asked {
    /// Reads the facts.
    ///
    /// # Errors
    /// The body names its model or `stream` twice: which one counts is a matter of taste, so nobody is asked.
    pub fn read(arrival: Arrival) -> Result<Self, Ambiguous> {
        let Arrival { id, client, spending, head, body } = arrival;
        let target = head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        let operation = operation_at(target.path());
        let header = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok());
        let facts = match body.is_empty() {
            true => BodyFacts::default(),
            false => BodyFacts::read(&body, header("content-type"))?,
        };
        let session = header("x-pointsman-session").filter(|s| !s.is_empty()).map(str::to_owned);
        let priority = header("x-pointsman-priority").and_then(|p| p.trim().parse::<i32>().ok()).unwrap_or(0);
        let model: Arc<str> = facts.model.as_deref().unwrap_or(UNKNOWN_MODEL).into();
        let texts = Texts {
            model: model.to_string(),
            path: target.path().to_owned(),
            session: session.clone(),
            labels: labels(&head.headers),
            spending,
        };
        let (client_index, client) = client.map_or((NONE, None), |(index, name)| (index, Some(name)));
        Ok(Self {
            id,
            client,
            client_index,
            operation,
            translations: Translations::default(),
            streaming: facts.stream,
            prompt_tokens: facts.prompt_tokens,
            max_tokens: facts.max_tokens,
            priority: priority.clamp(-100, 100),
            session: session.as_deref().map_or(0, Facts::session_number),
            texts: Arc::new(texts),
            only: None,
            model,
            body_facts: facts.is_object().then_some(facts),
            method: head.method,
            target,
            headers: head.headers,
            body,
        })
    }

    /// What the exchange needs of it; `crosses`: may it be translated for backends of another dialect?
    pub fn facts(&self, crosses: bool) -> Facts {
        Facts {
            operation: self.operation,
            streaming: self.streaming,
            priority: self.priority,
            prompt_tokens: self.prompt_tokens,
            max_tokens: self.max_tokens,
            client: self.client_index,
            session: self.session,
            crosses,
            acts: self.acts(),
        }
    }

    /// May it change something at the upstream? A question to a model does not, whatever its method.
    pub fn acts(&self) -> bool {
        let path = self.path().trim_end_matches('/');
        let is_question = self.operation != Operation::Other || QUESTIONS.iter().any(|end| path.ends_with(end));
        !is_question && !self.method.is_idempotent()
    }

    /// The path without its query.
    pub fn path(&self) -> &str {
        self.target.path()
    }

    /// As attempts send it on.
    pub fn client_request(&self) -> ClientRequest<'_> {
        ClientRequest {
            id: &self.id,
            method: &self.method,
            target: &self.target,
            headers: &self.headers,
            body: &self.body,
            body_facts: self.body_facts.as_ref(),
            translations: &self.translations,
            operation: self.operation,
            model: &self.model,
            streaming: self.streaming,
            prompt_tokens: self.prompt_tokens,
            is_idempotent: !self.acts(),
        }
    }
}

fn labels(headers: &HeaderMap) -> Vec<(String, String)> {
    let label = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        let name = name.as_str().strip_prefix("x-pointsman-label-")?;
        Some((name.to_owned(), value.to_str().ok()?.to_owned()))
    };
    headers.iter().filter_map(label).take(MAX_LABELS).collect()
}
