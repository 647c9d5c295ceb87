//! Runs an exchange until there is a response for the client: asks, waits and attempts.
//!
//! It runs before the response's head, and again when a committed stream broke and is to be resumed.

use bytes::Bytes;
use http::response::Parts;
use pointsman_core::attempt::{KeptRefusal, Output};
use pointsman_core::dialect::resume::Transcript;
use pointsman_core::dialect::translate::left_out;
use pointsman_core::exchange::{Action, Event, Refusal, Sending};
use pointsman_core::http::headers::has_content_type;

use super::attempt::UpstreamAttempt;
use super::in_flight::InFlight;
use super::served_by::ServedBy;

/// Response that the client gets.
pub enum ExchangeResponse {
    /// A whole answer; the attempt is settled.
    Whole(ServedBy, Parts, Bytes),
    /// An answer that was committed with these bytes, maybe none, and goes on.
    Streaming(ServedBy, Parts, Bytes, Box<UpstreamAttempt>),
    /// An upstream's refusal, to be passed on; none when there was nobody to refuse.
    Refusal(Option<(ServedBy, KeptRefusal)>),
    /// An error of Pointsman's own.
    Error(Refusal),
    /// The exchange is over: the drain has ended, a stream cannot be resumed, or core and driver disagree.
    Nothing,
}

/// Runs an exchange from this action on; `told` is what the client has of a broken answer, which further attempts join.
pub(super) async fn run_until_response(
    mut in_flight: Box<InFlight>,
    mut action: Action,
    told: Option<Transcript>,
) -> (Box<InFlight>, ExchangeResponse) {
    let mut refusal = None;
    let response = loop {
        action = match action {
            Action::Ask(query) => {
                let decision = in_flight.decide(query);
                in_flight.step(Event::Decided(decision))
            }
            Action::Wait { ticket, max } => {
                let proxy = in_flight.proxy().clone();
                match proxy.cut.run_until_cancelled(proxy.fleet.wait(ticket, max)).await {
                    Some(Some(permit)) => in_flight.step(Event::Granted(permit)),
                    Some(None) => in_flight.step(Event::WaitOver),
                    None => break ExchangeResponse::Nothing,
                }
            }
            Action::Send(sending) => match send(&mut in_flight, &sending, told.as_ref(), &mut refusal).await {
                Ok(response) => break response,
                Err(next) => next,
            },
            Action::PassOn => break ExchangeResponse::Refusal(refusal),
            Action::Reject(why) => break ExchangeResponse::Error(why),
            Action::Relay | Action::Finish(_) => break ExchangeResponse::Nothing,
        };
    };
    (in_flight, response)
}

/// Makes one attempt.
///
/// # Errors
/// It failed: the action that follows.
async fn send(
    in_flight: &mut InFlight,
    sending: &Sending,
    told: Option<&Transcript>,
    refusal: &mut Option<(ServedBy, KeptRefusal)>,
) -> Result<ExchangeResponse, Action> {
    let target = in_flight.snapshot().targets[sending.backend as usize].clone();
    let backend = in_flight.snapshot().view.backend(sending.backend).id.clone();
    let (mut attempt, output) = UpstreamAttempt::begin(in_flight, &target, sending, told).await;
    if let Some(why) = attempt.take_own_shortage() {
        return Err(in_flight.step(Event::NotSent(why)));
    }
    let left_out = left_out::header(attempt.machine().left_out());
    if let Some(note) = left_out::note(attempt.machine().left_out(), &backend) {
        in_flight.note(note);
    }
    let served_by = ServedBy { lane: sending.lane, backend, left_out };
    if output.end().is_some() {
        in_flight.repaired(attempt.machine().repairs());
    }
    match (output, attempt.machine_mut().take_head()) {
        (Output::Whole(body, ended), Some(head)) => {
            in_flight.committed(head.status.as_u16());
            in_flight.learns(&body);
            in_flight.answers(&body, has_content_type(&head.headers, "text/event-stream"));
            in_flight.relayed(ended);
            Ok(ExchangeResponse::Whole(served_by, head, body))
        }
        (Output::Commit(bytes), Some(head)) => {
            in_flight.committed(head.status.as_u16());
            Ok(ExchangeResponse::Streaming(served_by, head, bytes, attempt))
        }
        (Output::Ended(_, ended), _) => {
            let kept = attempt.machine_mut().take_refusal().map(|kept| (served_by, kept));
            let next = in_flight.step(Event::Ended(ended));
            *refusal = better(refusal.take(), kept, matches!(next, Action::PassOn));
            Err(next)
        }
        // Every commit has a head, and nothing is delivered before it.
        (Output::Wait | Output::Deliver(_) | Output::Whole(..) | Output::Commit(_) | Output::SendAgain, _) => {
            Ok(ExchangeResponse::Nothing)
        }
    }
}

/// Chooses between the refusals of two attempts: one that explains itself before one that does not; one after which no
/// other try can help is the last word, and the reason for the end.
fn better(
    before: Option<(ServedBy, KeptRefusal)>,
    kept: Option<(ServedBy, KeptRefusal)>,
    is_last_word: bool,
) -> Option<(ServedBy, KeptRefusal)> {
    let explains =
        |refusal: &Option<(ServedBy, KeptRefusal)>| refusal.as_ref().is_some_and(|(_, kept)| !kept.is_last_resort);
    match (explains(&before), explains(&kept)) {
        (true, false) => before,
        (false, true) => kept,
        (true, true) | (false, false) if is_last_word => kept.or(before),
        (true, true) | (false, false) => before.or(kept),
    }
}
