//! The harness of the end-to-end tests: a provider that can be told to misbehave, the real proxy as a child
//! process, and clients for both well-formed and malformed requests.
//!
//! ```no_run
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use pointsman_tests::{backend, chat, tokens, upstream};
//! let busy = upstream().reply(pointsman_tests::status(429).retry_after(2)).start().await;
//! let well = upstream().reply(chat("hello")).start().await;
//! # }
//! ```

mod client;
mod compile_gate;
mod forward_proxy;
mod guide;
mod http2;
pub mod made_up_dialect;
mod policy;
mod proxy;
mod reply;
mod rough_day;
mod tls;
mod upstream;

pub use client::{Answer, Event, EventStream, RawConnection, Request};
pub use compile_gate::{CompileGate, HeldCompilation};
pub use forward_proxy::{ForwardProxy, forward_proxy};
pub use guide::{Block, Guide, Walk, blocks, tour};
pub use http2::{Narrow, NarrowStream};
pub use policy::{WatPolicy, revision_of, sends_to, takes_turns, takes_turns_in_memory};
pub use proxy::{Backend, Finished, Http2, Proxy, ProxyBuilder, backend, forget_sums, run, run_with_input, run_within};
pub use reply::{Gate, Reply, bytes, chat, echo, embeddings, json, raw, silence, sse, status, tokens};
pub use rough_day::{RoughDay, rough_day};
pub use tls::{TlsUpstream, flooding_http2_upstream, tls_upstream, tls_upstream_for};
pub use upstream::{Seen, Upstream, UpstreamBuilder, upstream};

use std::time::Duration;

/// No test waits longer than this for something that should happen. It is there to end a test that hangs, not to measure
/// one: on one core, at the lowest priority and beside other work, what takes a second may take half a minute.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `probe` gives a value; for facts that no event tells, like a row in another process's database.
///
/// # Panics
/// When [`PATIENCE`] runs out.
pub async fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let patience = tokio::time::Instant::now() + PATIENCE;
    loop {
        ticks.tick().await;
        if let Some(value) = probe() {
            return value;
        }
        assert!(tokio::time::Instant::now() < patience, "never happened: {what}");
    }
}

/// Awaits `future`, but not longer than [`PATIENCE`].
///
/// # Panics
/// When it takes longer.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    within(PATIENCE, what, future).await
}

pub(crate) async fn within<T>(patience: Duration, what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(patience, future).await.unwrap_or_else(|_| panic!("took too long: {what}"))
}

/// Starts describing a proxy whose binary is the `proxy-under-test` of the calling test's package.
#[macro_export]
macro_rules! proxy {
    () => {
        $crate::ProxyBuilder::new(env!("CARGO_BIN_EXE_proxy-under-test"))
    };
}
