//! What an attempt sends: the client's body, changed for this backend as little as can be, and how its answer is read.

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Request, Uri};
use http_body_util::Full;
use pointsman_core::contract::{Operation, Resume};
use pointsman_core::dialect::facts::BodyFacts;
use pointsman_core::dialect::headers;
use pointsman_core::dialect::resume::{Joiner, Transcript, prefill};
use pointsman_core::dialect::splice::{Change, splice};
use pointsman_core::exchange::{Join, Sending};
use pointsman_core::outcome::Outcome;
use pointsman_core::table::Dialect;

use super::foreign::Foreign;
use super::live::Live;
use super::request::Asked;
use super::snapshot::Target;

/// What an attempt sends, and how its answer is read.
pub struct Plan {
    /// The body.
    pub body: Bytes,
    /// Keeps what is delivered in mind; none where nothing is to be resumed.
    pub joiner: Option<Joiner>,
    /// Does the body give the backend the beginning of its answer?
    pub prefilled: bool,
    /// The way back, where the backend speaks another dialect.
    pub foreign: Option<Foreign>,
}

/// The dialect that the answer is read in: the backend's own, or the client's once it is translated.
pub fn spoken(foreign: Option<&Foreign>, target: &Target) -> Dialect {
    foreign.map_or(target.dialect, |foreign| foreign.translation().downstream())
}

/// The client's body with the model's name for this backend in it; for a prefill, with the beginning of the answer; for
/// a backend of another dialect, translated.
pub fn plan(live: &Live, target: &Target, sending: &Sending, told: Option<&Transcript>) -> Result<Plan, Outcome> {
    let asked = live.asked();
    let foreign = Foreign::of(asked, target, &sending.model)?;
    let body = || match &foreign {
        Some(foreign) => foreign.body.clone(),
        None => body_for(asked, target, sending),
    };
    let is_kept = sending.join.is_some() || sending.resume != Resume::None;
    if !asked.streaming || !streams_are_known(asked.operation) || !is_kept {
        return Ok(Plan { body: body(), joiner: None, prefilled: false, foreign });
    }
    let new = || Transcript::new(spoken(foreign.as_ref(), target), asked.operation);
    let told = told.cloned().unwrap_or_else(new);
    let capabilities = &live.snapshot().view.backend(sending.backend).capabilities;
    if sending.join == Some(Join::Prefill)
        && foreign.is_none()
        && let Some((body, unsent)) = prefill(&asked.body, asked.operation, &told, capabilities)
        && let Ok(facts) = BodyFacts::read(&body, None)
    {
        let body = changed(asked, &body, &facts, target, sending);
        return Ok(Plan { body, joiner: Some(Joiner::continued(told, unsent)), prefilled: true, foreign });
    }
    Ok(Plan { body: body(), joiner: Some(Joiner::splice(told)), prefilled: false, foreign })
}

fn body_for(asked: &Asked, target: &Target, sending: &Sending) -> Bytes {
    match &asked.body_facts {
        Some(facts) => changed(asked, &asked.body, facts, target, sending),
        None => asked.body.clone(),
    }
}

fn changed(asked: &Asked, body: &Bytes, facts: &BodyFacts, target: &Target, sending: &Sending) -> Bytes {
    let include_usage = asked.asks_usage_for_itself(target.dialect);
    splice(body, facts, Change { model: Some(&sending.model), include_usage })
}

/// The request as this backend gets it: its key, its path, this body; all else as the client sent it, unless it is
/// translated.
pub fn request(asked: &Asked, target: &Target, plan: &Plan) -> Result<Request<Full<Bytes>>, String> {
    let foreign = plan.foreign.as_ref();
    let path = match foreign {
        Some(foreign) => foreign.path().map_err(|e| e.to_string())?,
        None => asked.target.clone(),
    };
    let operation = foreign.map_or(asked.operation, |foreign| foreign.translation().upstream().1);
    let url = target.base.join(&Uri::from(path)).map_err(|e| e.to_string())?;
    let path = url.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let mut request = Request::new(Full::new(plan.body.clone()));
    *request.method_mut() = asked.method.clone();
    *request.uri_mut() = Uri::from(path);
    let mut headers = headers::upstream(&asked.headers, target.dialect, operation, target.key.as_ref());
    if let Some(foreign) = foreign {
        foreign.clean(&mut headers);
    }
    *request.headers_mut() = headers;
    for (name, value) in &target.headers {
        request.headers_mut().insert(name.clone(), value.clone());
    }
    Ok(request)
}

/// Operations whose streams have an end that can be told from a cut.
pub fn streams_are_known(operation: Operation) -> bool {
    match operation {
        Operation::Chat | Operation::Completion | Operation::Response | Operation::Message => true,
        Operation::Embedding | Operation::Other => false,
    }
}
