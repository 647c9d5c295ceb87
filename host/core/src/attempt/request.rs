//! The client's request and the backend that an attempt is made of.

use std::sync::Arc;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::refusal::bare_key;
use crate::contract::Operation;
use crate::dialect::facts::BodyFacts;
use crate::dialect::splice::{Change, must_ask_usage, splice};
use crate::dialect::translate::Translations;
use crate::http::url::BaseUrl;
use crate::table::Dialect;

/// A client's request, as attempts send it on.
#[derive(Clone, Copy, Debug)]
pub struct ClientRequest<'a> {
    /// The request id.
    pub id: &'a str,
    /// The method.
    pub method: &'a Method,
    /// Path and query, byte for byte.
    pub target: &'a PathAndQuery,
    /// The headers as they came.
    pub headers: &'a HeaderMap,
    /// The body as it came.
    pub body: &'a Bytes,
    /// The facts of a JSON body; none for any other body.
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
}

/// A backend as something that can be sent to.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its wire format.
    pub dialect: Dialect,
    /// The base URL.
    pub base: BaseUrl,
    /// Its key as a header value, marked sensitive.
    pub key: Option<HeaderValue>,
    /// Headers of the operator's own.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// The traits of a request that its answer is judged by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) operation: Operation,
    pub(super) streaming: bool,
    pub(super) has_body: bool,
    pub(super) prompt_tokens: u32,
    pub(super) is_idempotent: bool,
    /// The client asked for the usage of a stream.
    pub(super) include_usage: bool,
    /// We ask for the usage of this stream, and the client did not.
    pub(super) hide_usage: bool,
}

impl Endpoint {
    /// The key itself, without the scheme before it; empty where there is none.
    pub fn bare_key(&self) -> &[u8] {
        bare_key(self.dialect, self.key.as_ref())
    }
}

impl ClientRequest<'_> {
    /// Returns true if we ask for the usage of this stream, and the client did not.
    pub(super) fn hides_usage(&self, dialect: Dialect) -> bool {
        self.body_facts.is_some_and(|facts| must_ask_usage(dialect, self.operation, facts))
    }

    /// A body of this request with the model's name for a backend in it, and with the usage asked for.
    pub(super) fn changed(&self, body: &Bytes, facts: &BodyFacts, dialect: Dialect, model: &str) -> Bytes {
        splice(body, facts, Change { model: Some(model), include_usage: self.hides_usage(dialect) })
    }
}
