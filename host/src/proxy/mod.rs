//! Drives exchanges: runs the actions of core's state machines and feeds them the results.

mod affinity;
mod answer_memory;
mod attempt;
mod background;
mod client_gates;
mod estimate;
mod event_stream;
mod exchange;
mod fault_stats;
mod in_flight;
mod journal;
mod large_bodies;
mod links;
mod memory;
mod offload_blocking;
mod promotion;
mod recently_exhausted;
mod refusal;
mod relay;
mod reply;
mod request;
mod served_by;
mod shadow;
mod shared;
mod shared_fleet;
mod snapshot;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use pointsman_core::attempt::KeptRefusal;
use pointsman_core::dialect::envelope::ErrorKind;
use pointsman_core::exchange::Event;

pub use affinity::SharedAffinity;
pub use client_gates::{ClientArrival, ClientPermit};
pub use fault_stats::FaultStats;
pub use large_bodies::{is_large, turn};
pub use memory::{Grant, MemoryNumbers, SharedMemory};
pub use promotion::{Progress, TrafficSplit};
pub use relay::{Broken, ProxyBody};
pub use reply::{OwnError, Reply, insert_request_id};
pub use request::{IncomingRequest, PinnedBackend, ProxyRequest};
pub use shadow::{Divergent, Shadow, ShadowPolicy, ShadowStats};
pub use shared::{Denied, Proxy, Unknown};
pub use shared_fleet::SharedFleet;
pub use snapshot::{Snapshot, Target, TargetError};

use attempt::UpstreamAttempt;
use exchange::{ExchangeResponse, run_until_response};
use in_flight::InFlight;
use relay::Relay;
use served_by::ServedBy;

/// Runs an exchange from its arrival to the head of its response; its body settles the rest.
///
/// A client that waits for a stream is not left in silence for longer than `stream.keepalive_ms`: then the head goes
/// out before the answer is there, comments follow, and errors are sent as events.
pub async fn drive(
    proxy: Arc<Proxy>,
    snapshot: Arc<Snapshot>,
    request: Arc<ProxyRequest>,
    permit: ClientPermit,
) -> Reply {
    proxy.began();
    let arrived = proxy.clock.now();
    let Some(keepalive) = keepalive(&snapshot, &request) else {
        return reply_with(begin(InFlight::new(proxy, snapshot, request, permit, arrived)).await);
    };
    let mut running = Box::pin(begin(InFlight::new(proxy, snapshot.clone(), request.clone(), permit, arrived)));
    match tokio::time::timeout(keepalive, &mut running).await {
        Ok(response) => reply_with(response),
        Err(_) => {
            let relay = Relay::waiting(running, keepalive, request.clone());
            reply::early(&snapshot, &request, ProxyBody::Relay(Box::new(relay)))
        }
    }
}

async fn begin(mut in_flight: Box<InFlight>) -> (Box<InFlight>, ExchangeResponse) {
    let action = in_flight.step(Event::Arrived);
    run_until_response(in_flight, action, None).await
}

/// The longest silence towards this client; none where it does not wait for events, or keepalives are off.
fn keepalive(snapshot: &Snapshot, request: &ProxyRequest) -> Option<Duration> {
    snapshot.config.stream.keepalive.filter(|_| request.streaming && request.operation.has_streams())
}

/// The reply to a client that has not got its head yet.
fn reply_with((mut in_flight, response): (Box<InFlight>, ExchangeResponse)) -> Reply {
    match response {
        ExchangeResponse::Whole(served_by, mut head, body) => {
            let body = links::lead_back(&in_flight, &served_by, &mut head, body);
            let attempts = in_flight.exchange().attempts().len() as u64;
            reply::of_upstream(&in_flight, head, &served_by, attempts, ProxyBody::whole(body))
        }
        ExchangeResponse::Streaming(served_by, head, held, attempt) => {
            relay(in_flight, &served_by, head, held, attempt)
        }
        ExchangeResponse::Refusal(Some((served_by, refusal))) => {
            let estimate = estimate::in_place_of_refusal(&mut in_flight, &refusal);
            estimate.unwrap_or_else(|| pass_on(in_flight, &served_by, refusal))
        }
        ExchangeResponse::Refusal(None) => unforwardable(in_flight),
        ExchangeResponse::Error(why) => {
            if let Some(estimate) = estimate::in_place_of_error(&mut in_flight, &why) {
                return estimate;
            }
            let reply = reply::of_refusal(&in_flight, &why);
            in_flight.rejected(reply.status().as_u16(), &why.message);
            in_flight.refused_for(&why.reason);
            reply
        }
        ExchangeResponse::Nothing if in_flight.proxy().cut.is_cancelled() => shut_down(in_flight),
        ExchangeResponse::Nothing => out_of_step(in_flight),
    }
}

fn relay(
    in_flight: Box<InFlight>,
    served_by: &ServedBy,
    mut head: Parts,
    held: Bytes,
    attempt: Box<UpstreamAttempt>,
) -> Reply {
    links::lead_back(&in_flight, served_by, &mut head, Bytes::new());
    let attempts = in_flight.exchange().attempts().len() as u64 + 1;
    let reply = reply::of_upstream(&in_flight, head, served_by, attempts, ProxyBody::Whole(None));
    let keepalive = keepalive(in_flight.snapshot(), in_flight.request());
    reply.map(|_| ProxyBody::Relay(Box::new(Relay::flowing(in_flight, held, attempt, keepalive))))
}

/// Passes the upstream's refusal on as it came.
fn pass_on(mut in_flight: Box<InFlight>, served_by: &ServedBy, refusal: KeptRefusal) -> Reply {
    let KeptRefusal { head, body, .. } = refusal;
    in_flight.answers(&body, false);
    in_flight.passed_on(head.status.as_u16(), served_by);
    let attempts = in_flight.exchange().attempts().len() as u64;
    reply::of_upstream(&in_flight, head, served_by, attempts, ProxyBody::whole(body))
}

/// Refuses a request that could not be put under the backend's base URL, or not be translated.
fn unforwardable(in_flight: Box<InFlight>) -> Reply {
    let why = in_flight.exchange().attempts().last().map_or_else(String::new, |a| a.message.clone());
    own_error(in_flight, ErrorKind::InvalidRequest, &why)
}

/// Ends an exchange whose answer had not begun when the drain ended.
fn shut_down(in_flight: Box<InFlight>) -> Reply {
    own_error(in_flight, ErrorKind::ShuttingDown, "Pointsman is shutting down; try again in a moment")
}

/// Ends an exchange whose event did not fit its state: an internal error.
fn out_of_step(in_flight: Box<InFlight>) -> Reply {
    tracing::error!(request_id = %in_flight.request().id, "internal error: an exchange got an event that does not fit its state, and was ended");
    let message =
        "Pointsman lost track of this exchange; this is a fault in Pointsman, please report it with the request id";
    own_error(in_flight, ErrorKind::Internal, message)
}

/// Ends an exchange with an error of our own.
fn own_error(mut in_flight: Box<InFlight>, kind: ErrorKind, message: &str) -> Reply {
    let reply = OwnError::new(kind, message).reply(in_flight.request().client_dialect(), &in_flight.request().id);
    in_flight.rejected(reply.status().as_u16(), message);
    reply
}
