//! The right of a client's request to be served, under the limits of its key.

use std::sync::Arc;

use pointsman_core::exchange::Only;

use super::shared::Proxy;

/// A request that was let in. Dropped, it is over for its client's limits, and what was reserved for it is free again.
pub struct ClientPermit {
    /// Kind of backends that it may go to.
    pub only: Only,
    taken: Option<Taken>,
}

/// What was taken of a client's limits.
struct Taken {
    proxy: Arc<Proxy>,
    client: Arc<str>,
    reserved_usd: f64,
    tokens: u64,
    cost_usd: f64,
}

impl ClientPermit {
    /// For a request that counts for no client's limits.
    pub const fn without_client(only: Only) -> Self {
        Self { only, taken: None }
    }

    /// For a request of this client, with money reserved for it.
    pub(super) fn of(proxy: Arc<Proxy>, client: Arc<str>, only: Only, reserved_usd: f64) -> Self {
        Self { only, taken: Some(Taken { proxy, client, reserved_usd, tokens: 0, cost_usd: 0.0 }) }
    }

    /// Gives it back with what the request has used.
    pub(super) fn settle(mut self, tokens: u64, cost_usd: f64) {
        if let Some(taken) = &mut self.taken {
            (taken.tokens, taken.cost_usd) = (tokens, cost_usd);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.proxy.leave(&self.client, self.tokens, self.cost_usd, self.reserved_usd);
    }
}
