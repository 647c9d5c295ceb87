//! Counts of tokens that no backend could give, estimated here and marked as such.

use http::{HeaderName, HeaderValue};
use pointsman_core::attempt::KeptRefusal;
use pointsman_core::dialect::Dialect;
use pointsman_core::exchange::{Reason, Refusal};

use super::in_flight::InFlight;
use super::reply::{self, Reply};

/// Marks an answer whose number is an estimate of ours.
const ESTIMATED: HeaderName = HeaderName::from_static("x-pointsman-estimated");

/// The estimate in place of an error of ours, unless it is the policy's own.
pub(super) fn in_place_of_error(in_flight: &mut InFlight, why: &Refusal) -> Option<Reply> {
    match why.reason {
        Reason::Policy { .. } | Reason::OwnShortage => None,
        Reason::NoSuchModel
        | Reason::NoSuchOperation
        | Reason::ModelMissing
        | Reason::Untranslatable
        | Reason::Exhausted
        | Reason::Limits
        | Reason::KeysRefused
        | Reason::QueueFull
        | Reason::OutOfTime
        | Reason::NotRepeated => estimated(in_flight),
    }
}

/// The estimate in place of a refusal by a backend that does not have the operation.
pub(super) fn in_place_of_refusal(in_flight: &mut InFlight, refusal: &KeptRefusal) -> Option<Reply> {
    let is_missing = matches!(refusal.head.status.as_u16(), 404 | 405 | 410 | 501);
    if is_missing { estimated(in_flight) } else { None }
}

fn estimated(in_flight: &mut InFlight) -> Option<Reply> {
    let request = in_flight.request().clone();
    request.body_facts.as_ref()?;
    let format = Dialect::of_operation(request.operation).format();
    let body = format.token_count(request.operation, request.prompt_tokens)?;
    in_flight
        .estimated("no backend counted the tokens: the number is an estimate by the length of the prompt".to_owned());
    let mut reply = reply::own_json(in_flight, &body);
    reply.headers_mut().insert(ESTIMATED, HeaderValue::from_static("true"));
    Some(reply)
}
