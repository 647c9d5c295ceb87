//! The beginning of an attempt: what is sent, changed for this backend as little as can be, and how its answer is read.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Uri};

use super::additions::{Added, Addition};
use super::deadlines::Deadlines;
use super::digest::{Digested, PromptCount};
use super::form::Form;
use super::held::Held;
use super::reading::Reading;
use super::request::{Asked, ClientRequest, Endpoint};
use super::translated::TranslatedAttempt;
use super::{Attempt, Phase};
use crate::contract::{Operation, Resume};
use crate::dialect::ApiPath;
use crate::dialect::facts::{BodyFacts, TOKENS_PER_ATTACHMENT};
use crate::dialect::headers;
use crate::dialect::repair::Repairs;
use crate::dialect::resume::{Joiner, Transcript, prefill};
use crate::dialect::splice::without_stream_options;
use crate::dialect::usage::BodyTap;
use crate::exchange::{Facts, Join, Sending};
use crate::http::redact::Redactor;
use crate::outcome::{Kind, Outcome};
use crate::table::Dialect;
use crate::time::Timestamp;

/// The way the body sent continues an answer.
struct Continuation {
    body: Option<Bytes>,
    joiner: Joiner,
}

impl Attempt {
    /// An attempt that begins at `now`; one that resumes joins what was `told` to the client. The body is the client's
    /// with the model's name for this backend in it; for a prefill, with the beginning of the answer; for a backend of
    /// another dialect, translated.
    pub fn new(
        now: Timestamp,
        request: &ClientRequest<'_>,
        endpoint: &Endpoint,
        capabilities: &BTreeMap<String, bool>,
        sending: &Sending,
        told: Option<&Transcript>,
    ) -> Self {
        let (translated_body, translated) = match TranslatedAttempt::new(request, endpoint, &sending.model) {
            Ok(Some((body, translated))) => (Some(Ok(body)), Some(translated)),
            Ok(None) => (None, None),
            Err(untranslatable) => (Some(Err(untranslatable)), None),
        };
        let spoken = translated.as_ref().map_or(endpoint.dialect, TranslatedAttempt::downstream);
        let continuation = continuation(request, endpoint, capabilities, sending, told, spoken, translated.is_some());
        let (prefilled_body, joiner) = match continuation {
            Some(Continuation { body, joiner }) => (body, Some(joiner)),
            None => (None, None),
        };
        let prefilled = prefilled_body.is_some();
        let may_ask_usage = request.streaming && endpoint.additions.may_ask_usage(&sending.model);
        let as_asked = || match request.body_facts {
            Some(facts) => request.changed(request.body, facts, endpoint.dialect, &sending.model, may_ask_usage),
            None => request.body.clone(),
        };
        // A translation has its own wish for the usage, whatever the client's API knows of it.
        let asks_usage = match &translated {
            Some(translated) => request.streaming && endpoint.dialect.format().has_usage_option(translated.operation()),
            None => request.hides_usage(spoken),
        };
        let translated_body = translated_body.map(|body| match may_ask_usage || !asks_usage {
            true => body,
            false => body.map(|body| without_stream_options(&body)),
        });
        let asked = asked(request, endpoint, spoken);
        let path = request.target.path();
        let is_shaped = !request.operation.is_read() && endpoint.dialect.format().is_shaped(path);
        let reading = Reading::Body(BodyTap::new(endpoint.dialect));
        let mut attempt = Self::begun(now, asked, endpoint.dialect, sending, reading);
        attempt.spoken = spoken;
        attempt.leaving = Redactor::new(endpoint.secrets.clone());
        attempt.body = translated_body.unwrap_or_else(|| Ok(prefilled_body.unwrap_or_else(as_asked)));
        attempt.prefilled = prefilled;
        attempt.joiner = joiner;
        attempt.translated = translated;
        attempt.shape_path = is_shaped.then(|| path.into());
        if asks_usage && may_ask_usage && endpoint.additions.setting().is_none() {
            attempt.added.usage = Addition::Sent;
        }
        attempt.note_limit(request, endpoint, &sending.model);
        attempt.asked_body = request.body.clone();
        attempt
    }

    /// An attempt that is not sent and gets a digested answer, or one in bytes; its client has `told` content events
    /// already.
    pub fn simulated(
        now: Timestamp,
        facts: &Facts,
        dialect: Dialect,
        sending: &Sending,
        prompt: PromptCount,
        told: u32,
    ) -> Self {
        let asked = Asked {
            operation: facts.operation,
            streaming: facts.streaming,
            has_body: true,
            prompt_tokens: prompt.tokens,
            max_tokens: facts.max_tokens,
            charged_answers: 1,
            has_usage: true,
            made_tokens: 0,
            is_idempotent: facts.idempotent,
            include_usage: true,
            hide_usage: false,
            answers: 1,
            // A world says what comes of an answer, whatever is in it.
            may_be_empty: true,
            is_of_background: false,
            service_tier: None,
        };
        let resumes = sending.join.is_some() && told > 0;
        let prompt = (!dialect.is_opaque()).then_some(prompt);
        let mut attempt = Self::begun(now, asked, dialect, sending, Reading::Digest(Digested::new(resumes, prompt)));
        attempt.prefilled = resumes && sending.join == Some(Join::Prefill);
        attempt
    }

    fn begun(now: Timestamp, asked: Asked, dialect: Dialect, sending: &Sending, reading: Reading) -> Self {
        Self {
            asked,
            dialect,
            spoken: dialect,
            commit: sending.commit,
            join: sending.join,
            prefilled: false,
            translated: None,
            body: Ok(Bytes::new()),
            joiner: None,
            phase: Phase::Sending,
            deadlines: Deadlines::new(now, sending.timeouts),
            reading,
            held: Held::default(),
            head: None,
            status: 0,
            first_byte: None,
            first_token: None,
            limits_left: (None, None),
            refusal: None,
            upstream_id: None,
            watch: None,
            leaving: Redactor::default(),
            told_as_stream: false,
            body_repairs: Repairs::default(),
            form: Form::AsItComes,
            shape_path: None,
            added: Added::default(),
            asked_body: Bytes::new(),
            decoder: None,
            packed: None,
        }
    }

    /// The request as this backend gets it: its key, its path, this body; all else as the client sent it, unless it is
    /// translated. `model` is the name sent, for paths that have it.
    ///
    /// # Errors
    /// It cannot be translated, or the client's path cannot stand under the backend's base URL.
    pub fn request(
        &self,
        request: &ClientRequest<'_>,
        endpoint: &Endpoint,
        model: &str,
    ) -> Result<Request<Bytes>, Outcome> {
        let translated = self.translated.as_ref();
        let (renamed, root) = request.target_for(model);
        let target = translated.map_or(Ok(renamed), TranslatedAttempt::path);
        let operation = translated.map_or(request.operation, TranslatedAttempt::operation);
        let refused = |why: &dyn ToString| Outcome::new(Kind::Refused, why.to_string());
        let target = target.map_err(|why| refused(&why))?;
        let path = match translated {
            Some(_) => ApiPath { operation, ..ApiPath::read(target.path(), &HeaderMap::new()) },
            None => ApiPath { root, ..request.path() },
        };
        let model = request.names_model().then_some(model);
        let url = endpoint.url(&target, path, model).map_err(|why| refused(&why))?;
        let path = url.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        let mut sent = Request::new(self.body.clone()?);
        *sent.method_mut() = request.method.clone();
        *sent.uri_mut() = Uri::from(path);
        let mut headers = headers::upstream(request.headers, endpoint.dialect, operation, endpoint.key.as_ref());
        if let Some(translated) = translated {
            translated.clean(&mut headers);
        }
        *sent.headers_mut() = headers;
        for (name, value) in &endpoint.headers {
            sent.headers_mut().insert(name.clone(), value.clone());
        }
        Ok(sent)
    }
}

/// The parts of the request that its answer is read by; `spoken` is the dialect of the answer that the client gets.
fn asked(request: &ClientRequest<'_>, endpoint: &Endpoint, spoken: Dialect) -> Asked {
    Asked {
        operation: request.operation,
        streaming: request.streaming,
        has_body: !request.body.is_empty(),
        prompt_tokens: request.prompt_tokens,
        max_tokens: request.body_facts.map_or(0, |facts| facts.max_tokens),
        charged_answers: request.charged_answers(),
        has_usage: request.has_usage(),
        made_tokens: made_tokens(request),
        is_idempotent: request.is_idempotent,
        include_usage: request.body_facts.is_some_and(|facts| facts.include_usage),
        hide_usage: request.hides_usage(spoken),
        answers: if request.streaming { request.answers() } else { 1 },
        may_be_empty: endpoint.may_be_empty,
        is_of_background: request.is_of_background,
        service_tier: request.body_facts.and_then(|facts| facts.service_tier),
    }
}

/// Tokens of an answer that is no text: a picture counts as one does inside a prompt, speech as the text that it says.
fn made_tokens(request: &ClientRequest<'_>) -> u32 {
    match request.operation {
        Operation::Image => request.charged_answers().saturating_mul(TOKENS_PER_ATTACHMENT as u32),
        // A recording comes in a form, a text in an object.
        Operation::Audio if request.body_facts.is_some_and(BodyFacts::is_object) => request.prompt_tokens,
        _ => 0,
    }
}

/// Builds the state of joining the answer to the delivered text, or of recording it so that another may join it;
/// `None` where nothing is to be resumed.
fn continuation(
    request: &ClientRequest<'_>,
    endpoint: &Endpoint,
    capabilities: &BTreeMap<String, bool>,
    sending: &Sending,
    told: Option<&Transcript>,
    spoken: Dialect,
    is_translated: bool,
) -> Option<Continuation> {
    let is_kept = sending.join.is_some() || sending.resume != Resume::None;
    if !request.streaming || !request.operation.has_streams() || !is_kept {
        return None;
    }
    let told = told.cloned().unwrap_or_else(|| Transcript::new(spoken, request.operation));
    if sending.join == Some(Join::Prefill)
        && !is_translated
        && request.answers() <= 1
        && let Some((body, unsent)) = prefill(request.body, request.operation, &told, capabilities)
        && let Ok(facts) = BodyFacts::read(&body, None)
    {
        let may_ask_usage = endpoint.additions.may_ask_usage(&sending.model);
        let body = Some(request.changed(&body, &facts, endpoint.dialect, &sending.model, may_ask_usage));
        return Some(Continuation { body, joiner: Joiner::continued(told, unsent) });
    }
    Some(Continuation { body: None, joiner: Joiner::splice(told) })
}
