//! The client's request and the backend that an attempt is made of.

use std::sync::Arc;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::additions::Additions;
use crate::contract::Operation;
use crate::dialect::ApiPath;
use crate::dialect::classify::narrowed;
use crate::dialect::facts::BodyFacts;
use crate::dialect::splice::{Change, must_ask_usage, splice};
use crate::dialect::translate::Translations;
use crate::http::account_headers;
use crate::http::headers::is_forwarded;
use crate::http::json::{self, Cursor};
use crate::http::path;
use crate::http::path_template::PathTemplate;
use crate::http::query::OwnQuery;
use crate::http::redact::Secrets;
use crate::http::url::{BadPath, BaseUrl, ClientRoot, percent_decoded, percent_encoded};
use crate::origin::request_number;
use crate::outcome::Outcome;
use crate::table::{Dialect, UNKNOWN_MODEL};
use crate::usage::ServiceTier;

/// A client's request, as attempts send it on.
#[derive(Clone, Copy, Debug)]
pub struct ClientRequest<'a> {
    /// Request id, which translations and errors name.
    pub id: &'a str,
    /// Method of the client's request.
    pub method: &'a Method,
    /// Path and query, byte for byte.
    pub target: &'a PathAndQuery,
    /// Bytes of the path before that of the operation.
    pub root: usize,
    /// The headers as they came.
    pub headers: &'a HeaderMap,
    /// The body as it came.
    pub body: &'a Bytes,
    /// The facts of a JSON object or a form; none for any other body.
    pub body_facts: Option<&'a BodyFacts>,
    /// The request in other dialects.
    pub translations: &'a Translations,
    /// The operation.
    pub operation: Operation,
    /// The model; "unknown" when none was named.
    pub model: &'a Arc<str>,
    /// The client wants a stream.
    pub streaming: bool,
    /// Estimated tokens of the prompt.
    pub prompt_tokens: u32,
    /// The request may be sent twice.
    pub is_idempotent: bool,
    /// It asks for a response that was begun in the background, whose usage is not yet known.
    pub is_of_background: bool,
}

/// A backend as something that can be sent to.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Dialect that the backend speaks.
    pub dialect: Dialect,
    /// Base URL, which operations' paths are put behind.
    pub base: BaseUrl,
    /// The template of paths behind the base; none: the paths of the dialect.
    pub path_template: Option<PathTemplate>,
    /// Query parameters of every request to it.
    pub query: OwnQuery,
    /// Its key as a header value, marked sensitive.
    pub key: Option<HeaderValue>,
    /// Headers of the operator's own.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// An answer with nothing in it is an answer of this backend, and not a failed attempt.
    pub may_be_empty: bool,
    /// Additions to requests that this backend takes.
    pub additions: Arc<Additions>,
    /// Its secrets, which are looked for in everything that it sends.
    pub secrets: Secrets,
}

/// The traits of a request that its answer is judged by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) operation: Operation,
    pub(super) streaming: bool,
    pub(super) has_body: bool,
    pub(super) prompt_tokens: u32,
    /// The most tokens one answer may have; 0: not said.
    pub(super) max_tokens: u32,
    /// Number of answers that are charged, each with so many.
    pub(super) charged_answers: u32,
    /// Its answer tells what it used.
    pub(super) has_usage: bool,
    /// Tokens of an answer that is no text, where the provider does not count them.
    pub(super) made_tokens: u32,
    pub(super) is_idempotent: bool,
    /// The client asked for the usage of a stream.
    pub(super) include_usage: bool,
    /// The client did not ask for the usage of this stream, so it is not shown.
    pub(super) hide_usage: bool,
    /// Answers asked for at once.
    pub(super) answers: u32,
    /// An answer with nothing in it is an answer.
    pub(super) may_be_empty: bool,
    /// It asks for a response that was begun in the background.
    pub(super) is_of_background: bool,
    /// The way in which it is to be served.
    pub(super) service_tier: Option<ServiceTier>,
}

/// Returns true for a client's header that a backend gets.
fn goes_out(name: &HeaderName) -> bool {
    is_forwarded(name) && !account_headers::is_of_credential(name)
}

impl Endpoint {
    /// The URL of a request: the client's target, or a translated one, under the base or in the template. `model` is the name
    /// sent; none where the request names none.
    ///
    /// # Errors
    /// [`BadPath`].
    pub fn url(&self, target: &PathAndQuery, path: ApiPath, model: Option<&str>) -> Result<Uri, BadPath> {
        let query = self.query.merge(target.query());
        let own = &target.path()[path.root..];
        match (&self.path_template, model) {
            (Some(template), Some(model)) => self.base.join_expanded(&template.expand(model, own), query.as_deref()),
            (Some(_), None) => self.base.join_expanded(own, query.as_deref()),
            (None, _) => self.base.join(target.path(), query.as_deref(), self.client_root(path)),
        }
    }

    fn client_root(&self, path: ApiPath) -> ClientRoot {
        match path.operation {
            _ if self.dialect.is_opaque() => ClientRoot::Opaque,
            Operation::Plain => ClientRoot::Opaque,
            Operation::Other => ClientRoot::Version(path.root),
            _ => ClientRoot::Operation(path.root),
        }
    }
}

impl ClientRequest<'_> {
    /// The path and where that of the operation begins.
    pub(super) const fn path(&self) -> ApiPath {
        ApiPath { operation: self.operation, root: self.root }
    }

    /// The model to send, if the request names one.
    pub(super) fn names_model(&self) -> bool {
        **self.model != *UNKNOWN_MODEL
    }

    /// Path and query with the model's name for a backend in the path, where the path names the one asked for; and bytes before
    /// the operation's own path.
    pub(super) fn target_for(&self, model: &str) -> (PathAndQuery, usize) {
        self.renamed_target(model).unwrap_or_else(|| (self.target.clone(), self.root))
    }

    fn renamed_target(&self, model: &str) -> Option<(PathAndQuery, usize)> {
        let (path, whole) = (self.target.path(), self.target.as_str());
        if **self.model == *model {
            return None;
        }
        let place = path::model_in(path).filter(|place| percent_decoded(&path[place.clone()]) == **self.model)?;
        let sent = percent_encoded(model);
        let root = if place.end <= self.root { self.root + sent.len() - place.len() } else { self.root };
        let renamed = [&whole[..place.start], &sent, &whole[place.end..]].concat();
        Some((renamed.parse().ok()?, root))
    }

    /// Returns true if it asks a model: a question, or anything else that names a model. What reads or manages things at a
    /// provider asks none. A moderation that names no model is judged by the provider's own, for nothing.
    pub fn asks_model(&self) -> bool {
        let needs_model = self.operation.is_question() && self.operation != Operation::Moderation;
        self.names_model() || needs_model && (!self.body.is_empty() || *self.method == Method::POST)
    }

    /// Returns true if its answer tells what it used. What is read again was charged when it was made, but for what was made in
    /// the background; a count of tokens costs nothing.
    pub(super) fn has_usage(&self) -> bool {
        self.is_of_background || self.asks_model() && !self.method.is_safe() && !self.operation.counts_tokens()
    }

    /// Returns the number of answers that are charged; a completion also has the drafts among which the best was chosen.
    pub fn charged_answers(&self) -> u32 {
        let drafts = || json::member(self.body, "best_of").and_then(json::count).unwrap_or(0);
        let drafts = if self.operation == Operation::Completion { drafts() } else { 0 };
        let shown = self.body_facts.map_or(1, |facts| facts.answers);
        let each = u32::try_from(drafts).unwrap_or(u32::MAX).max(shown).clamp(1, MAX_ANSWERS);
        each.saturating_mul(self.prompts())
    }

    /// Narrows the scope of an outcome to what this request carried: a header that the refusal names, or an operation that
    /// is none of a model.
    pub fn narrow_scope(&self, outcome: &mut Outcome) {
        outcome.scope = narrowed(outcome, self.operation, self.headers.keys().filter(|name| goes_out(name)));
    }

    /// The number of the request for a client key: the same request has the same.
    pub fn number(&self, seed: u64, client: u64) -> u64 {
        let headers = self.headers.iter().filter(|(name, _)| goes_out(name));
        request_number(seed, client, self.method, self.target.as_str(), headers, self.body)
    }

    /// Returns true if the usage of this stream can be asked for, and the client does not.
    pub(super) fn hides_usage(&self, dialect: Dialect) -> bool {
        self.body_facts.is_some_and(|facts| must_ask_usage(dialect, self.operation, facts))
    }

    /// A body of this request with the model's name for a backend in it, and with the usage asked for where it may be.
    pub(super) fn changed(
        &self,
        body: &Bytes,
        facts: &BodyFacts,
        dialect: Dialect,
        model: &str,
        may_ask_usage: bool,
    ) -> Bytes {
        let include_usage = may_ask_usage && self.hides_usage(dialect);
        splice(body, facts, Change { model: Some(model), include_usage })
    }

    /// Returns the answers asked for at once; a completion has one for each prompt, `n` times.
    pub(super) fn answers(&self) -> u32 {
        let answers = self.body_facts.map_or(1, |facts| facts.answers);
        answers.saturating_mul(self.prompts())
    }

    /// Prompts that are answered each on its own.
    fn prompts(&self) -> u32 {
        if self.operation == Operation::Completion { prompts(self.body) } else { 1 }
    }
}

/// The most answers to one prompt that are counted; no provider gives more (OpenAI's `n` ends at 128).
const MAX_ANSWERS: u32 = 128;

/// Prompts of a completion's request: several texts, or lists of tokens, are several.
fn prompts(body: &[u8]) -> u32 {
    let Some(prompt) = json::member(body, "prompt") else { return 1 };
    let mut at = Cursor::new(prompt);
    let mut count = 0;
    if at.enter(b'[') {
        while at.has_element() {
            let is_prompt = matches!(at.value().first(), Some(b'"' | b'['));
            count += u32::from(is_prompt);
        }
    }
    count.max(1)
}
