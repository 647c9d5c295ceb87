//! Drives exchanges: does what the core's state machine says, and tells it what came of it.

mod aside;
mod attempt;
mod line;
mod live;
mod proxy;
mod relay;
mod reply;
mod request;
mod snapshot;
mod source;
mod trial;

use std::sync::Arc;

use http::response::Parts;
use pointsman_core::exchange::{Action, Event, Sending};
use pointsman_core::wire::envelope::ErrorKind;

pub use line::Line;
pub use proxy::{Proxy, Unknown};
pub use relay::{Broken, ProxyBody};
pub use reply::{OwnError, Reply};
pub use request::{Arrival, Asked};
pub use snapshot::{Snapshot, Target, TargetError, fleet_settings};
pub use trial::Trial;

use attempt::{Attempted, Begun, KeptRefusal, attempt};
use live::Live;
use relay::Relay;

/// Takes an exchange from its arrival to the head of its response; the body settles the rest.
pub async fn drive(proxy: Arc<Proxy>, snapshot: Arc<Snapshot>, asked: Arc<Asked>) -> Reply {
    proxy.began();
    let arrived = proxy.clock.now();
    let mut live = Live::new(proxy, snapshot, asked, arrived);
    let mut refusal: Option<KeptRefusal> = None;
    let mut action = live.step(Event::Arrived);
    loop {
        action = match action {
            Action::Ask(query) => {
                let decision = live.decide(&query);
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
                match attempt(&live, &target, &sending).await {
                    Attempted::Whole { head, body, ended } => return whole(live, &sending, head, body, ended),
                    Attempted::Committed { head, begun } => {
                        live.committed(head.status.as_u16());
                        return relay(live, &sending, head, *begun);
                    }
                    Attempted::Failed(ended, kept) => {
                        refusal = refusal.or(kept);
                        live.step(Event::Ended(ended))
                    }
                }
            }
            Action::PassOn => return pass_on(live, refusal),
            Action::Reject(why) => {
                let reply = reply::of_refusal(&live, &why);
                live.rejected(reply.status().as_u16(), &why.message);
                return reply;
            }
            Action::Finish(_) if live.proxy().cut.is_cancelled() => return shut_down(live),
            Action::Relay | Action::Finish(_) => return out_of_step(live),
        };
    }
}

fn whole(
    mut live: Live,
    sending: &Sending,
    head: Parts,
    body: bytes::Bytes,
    ended: pointsman_core::exchange::Ended,
) -> Reply {
    live.committed(head.status.as_u16());
    live.relayed(ended);
    let backend = live.snapshot().view.backend(sending.backend).id.clone();
    let attempts = live.exchange().attempts().len() as u64;
    reply::of_upstream(&live, head, Some((sending.lane, &backend)), attempts, ProxyBody::whole(body))
}

fn relay(live: Live, sending: &Sending, head: Parts, begun: Begun) -> Reply {
    let backend = live.snapshot().view.backend(sending.backend).id.clone();
    let attempts = live.exchange().attempts().len() as u64 + 1;
    let status = head.status.as_u16();
    let answered_by = Some((sending.lane, &*backend));
    let mut reply = reply::of_upstream(&live, head, answered_by, attempts, ProxyBody::Whole(None));
    if begun.source.is_events() {
        // Events may be left out, or an error added.
        reply.headers_mut().remove(http::header::CONTENT_LENGTH);
    }
    reply.map(|_| ProxyBody::Relay(Box::new(Relay::new(live, begun, status))))
}

/// The upstream's refusal as it came.
fn pass_on(mut live: Live, refusal: Option<KeptRefusal>) -> Reply {
    let Some(KeptRefusal { lane, backend, head, body }) = refusal else {
        return unforwardable(live);
    };
    live.passed_on(head.status.as_u16(), lane, &backend);
    let answered_by = Some((lane, &*backend));
    let attempts = live.exchange().attempts().len() as u64;
    reply::of_upstream(&live, head, answered_by, attempts, ProxyBody::whole(body))
}

/// A refusal of our own making: the request could not be put under the backend's base URL.
fn unforwardable(live: Live) -> Reply {
    let why = live.exchange().attempts().last().map_or_else(String::new, |a| a.message.clone());
    own_error(live, ErrorKind::InvalidRequest, &why)
}

/// The drain ended before the answer began.
fn shut_down(live: Live) -> Reply {
    own_error(live, ErrorKind::ShuttingDown, "Pointsman is shutting down; try again in a moment")
}

/// The core and the driver disagree: our own fault, told as such.
fn out_of_step(live: Live) -> Reply {
    tracing::error!(request_id = %live.asked().id, "the exchange ended out of step");
    let message =
        "Pointsman lost track of this exchange; this is a fault in Pointsman, please report it with the request id";
    own_error(live, ErrorKind::Internal, message)
}

/// Ends an exchange with an error of our own.
fn own_error(mut live: Live, kind: ErrorKind, message: &str) -> Reply {
    let reply = OwnError::new(kind, message).reply(live.asked().operation, &live.asked().id);
    live.rejected(reply.status().as_u16(), message);
    reply
}
