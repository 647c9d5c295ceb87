//! Drives exchanges: does what the core's state machine says, and tells it what came of it.

mod aside;
mod attempt;
mod exchange;
mod fault_stats;
mod journal;
mod live;
mod promotion;
mod proxy;
mod relay;
mod reply;
mod request;
mod shadow;
mod shared_fleet;
mod snapshot;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use pointsman_core::attempt::{KeptRefusal, streams_are_known};
use pointsman_core::clients::Admission;
use pointsman_core::dialect::Dialect;
use pointsman_core::dialect::envelope::ErrorKind;
use pointsman_core::exchange::Event;

pub use fault_stats::FaultStats;
pub use promotion::{Progress, TrafficSplit};
pub use proxy::{Denied, Proxy, Unknown};
pub use relay::{Broken, ProxyBody};
pub use reply::{OwnError, Reply};
pub use request::{Arrival, Asked, Only};
pub use shadow::{Divergent, Shadow, ShadowPolicy, Tally};
pub use shared_fleet::SharedFleet;
pub use snapshot::{Snapshot, Target, TargetError};

use attempt::UpstreamAttempt;
use exchange::{ExchangeResponse, ServedBy, run_until_response};
use live::Live;
use relay::Relay;

/// Takes an exchange from its arrival to the head of its response; the body settles the rest.
///
/// A client that waits for a stream is not left in silence for longer than `stream.keepalive_ms`: then the head goes
/// out before the answer is there, comments follow, and what comes of it is told in-band.
pub async fn drive(proxy: Arc<Proxy>, snapshot: Arc<Snapshot>, asked: Arc<Asked>, admission: Admission) -> Reply {
    proxy.began();
    let arrived = proxy.clock.now();
    let Some(keepalive) = keepalive(&snapshot, &asked) else {
        return reply_with(begin(Live::new(proxy, snapshot, asked, admission, arrived)).await);
    };
    let mut running = Box::pin(begin(Live::new(proxy, snapshot.clone(), asked.clone(), admission, arrived)));
    match tokio::time::timeout(keepalive, &mut running).await {
        Ok(response) => reply_with(response),
        Err(_) => {
            let relay = Relay::waiting(running, keepalive, asked.clone());
            reply::early(&snapshot, &asked, ProxyBody::Relay(Box::new(relay)))
        }
    }
}

async fn begin(mut live: Box<Live>) -> (Box<Live>, ExchangeResponse) {
    let action = live.step(Event::Arrived);
    run_until_response(live, action, None).await
}

/// The longest silence towards this client; none where it does not wait for events, or the operator wants none.
fn keepalive(snapshot: &Snapshot, asked: &Asked) -> Option<Duration> {
    snapshot.config.stream.keepalive.filter(|_| asked.streaming && streams_are_known(asked.operation))
}

/// The reply to a client that has not got its head yet.
fn reply_with((mut live, response): (Box<Live>, ExchangeResponse)) -> Reply {
    match response {
        ExchangeResponse::Whole(served_by, head, body) => {
            let attempts = live.exchange().attempts().len() as u64;
            reply::of_upstream(&live, head, &served_by, attempts, ProxyBody::whole(body))
        }
        ExchangeResponse::Streaming(served_by, head, held, attempt) => relay(live, &served_by, head, held, attempt),
        ExchangeResponse::Refusal(Some((served_by, refusal))) => pass_on(live, &served_by, refusal),
        ExchangeResponse::Refusal(None) => unforwardable(live),
        ExchangeResponse::Error(why) => {
            let reply = reply::of_refusal(&live, &why);
            live.rejected(reply.status().as_u16(), &why.message);
            live.refused_for(&why.reason);
            reply
        }
        ExchangeResponse::Nothing if live.proxy().cut.is_cancelled() => shut_down(live),
        ExchangeResponse::Nothing => out_of_step(live),
    }
}

fn relay(live: Box<Live>, served_by: &ServedBy, head: Parts, held: Bytes, attempt: Box<UpstreamAttempt>) -> Reply {
    let attempts = live.exchange().attempts().len() as u64 + 1;
    let reply = reply::of_upstream(&live, head, served_by, attempts, ProxyBody::Whole(None));
    let keepalive = keepalive(live.snapshot(), live.asked());
    reply.map(|_| ProxyBody::Relay(Box::new(Relay::flowing(live, held, attempt, keepalive))))
}

/// The upstream's refusal as it came.
fn pass_on(mut live: Box<Live>, served_by: &ServedBy, refusal: KeptRefusal) -> Reply {
    let KeptRefusal { head, body } = refusal;
    live.answers(&body, false);
    live.passed_on(head.status.as_u16(), served_by);
    let attempts = live.exchange().attempts().len() as u64;
    reply::of_upstream(&live, head, served_by, attempts, ProxyBody::whole(body))
}

/// A refusal of our own making: the request could not be put under the backend's base URL.
fn unforwardable(live: Box<Live>) -> Reply {
    let why = live.exchange().attempts().last().map_or_else(String::new, |a| a.message.clone());
    own_error(live, ErrorKind::InvalidRequest, &why)
}

/// The drain ended before the answer began.
fn shut_down(live: Box<Live>) -> Reply {
    own_error(live, ErrorKind::ShuttingDown, "Pointsman is shutting down; try again in a moment")
}

/// The core and the driver disagree: our own fault, told as such.
fn out_of_step(live: Box<Live>) -> Reply {
    tracing::error!(request_id = %live.asked().id, "internal error: an exchange got an event that does not fit its state, and was ended");
    let message =
        "Pointsman lost track of this exchange; this is a fault in Pointsman, please report it with the request id";
    own_error(live, ErrorKind::Internal, message)
}

/// Ends an exchange with an error of our own.
fn own_error(mut live: Box<Live>, kind: ErrorKind, message: &str) -> Reply {
    let reply = OwnError::new(kind, message).reply(Dialect::of_operation(live.asked().operation), &live.asked().id);
    live.rejected(reply.status().as_u16(), message);
    reply
}
