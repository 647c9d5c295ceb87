//! The way of an exchange to an answer: asks, waits and attempts, until there is something to give the client.
//!
//! It is walked before the response's head, and again when a committed stream broke and is to be resumed.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::response::Parts;
use pointsman_core::dialect::resume::Transcript;
use pointsman_core::exchange::{Action, Event, Refusal};
use pointsman_core::table::Lane;

use super::attempt::{Attempted, Begun, KeptRefusal, attempt};
use super::live::Live;
use super::relay::is_event_stream;

/// Where the way led.
pub struct Course {
    /// The exchange.
    pub live: Box<Live>,
    /// What there is for the client.
    pub found: Found,
}

/// What there is for the client.
pub enum Found {
    /// A whole answer, settled.
    Whole(Answerer, Parts, Bytes),
    /// An answer that has begun.
    Begun(Answerer, Parts, Box<Begun>),
    /// An upstream's refusal, to be passed on; none when there was nobody to refuse.
    Refusal(Option<KeptRefusal>),
    /// An error of ours.
    Error(Refusal),
    /// The exchange is over: the drain has ended, a stream cannot be resumed, or core and driver disagree.
    Nothing,
}

/// Who answered.
pub struct Answerer {
    /// The lane.
    pub lane: Lane,
    /// The backend.
    pub backend: Arc<str>,
}

/// Walks it from this action on; what was `told` to the client is what further attempts join.
pub async fn walk(mut live: Box<Live>, mut action: Action, told: Option<Transcript>) -> Course {
    let mut refusal: Option<KeptRefusal> = None;
    let found = loop {
        action = match action {
            Action::Ask(query) => {
                let decision = live.decide(query);
                live.step(Event::Decided(decision))
            }
            Action::Wait { ticket, max } => {
                let line = live.proxy().line.clone();
                match line.wait(ticket, max).await {
                    Some(permit) => live.step(Event::Granted(permit)),
                    None => live.step(Event::WaitOver),
                }
            }
            Action::Send(sending) => {
                let target = live.snapshot().targets[sending.backend as usize].clone();
                let backend = live.snapshot().view.backend(sending.backend).id.clone();
                let answerer = Answerer { lane: sending.lane, backend };
                match attempt(&live, &target, &sending, told.as_ref()).await {
                    Attempted::Whole { head, body, ended } => {
                        live.committed(head.status.as_u16());
                        live.answers(&body, head.headers.get(CONTENT_TYPE).is_some_and(is_event_stream));
                        live.relayed(ended);
                        break Found::Whole(answerer, head, body);
                    }
                    Attempted::Committed { head, begun } => {
                        live.committed(head.status.as_u16());
                        break Found::Begun(answerer, head, begun);
                    }
                    Attempted::Failed(ended, kept) => {
                        let next = live.step(Event::Ended(ended));
                        // One after which no other try can help is the last word, and the reason for the end.
                        let is_final = matches!(next, Action::PassOn);
                        refusal = if is_final { kept.or(refusal) } else { refusal.or(kept) };
                        next
                    }
                }
            }
            Action::PassOn => break Found::Refusal(refusal),
            Action::Reject(why) => break Found::Error(why),
            Action::Relay | Action::Finish(_) => break Found::Nothing,
        };
    };
    Course { live, found }
}
