//! The gates of the clients: their limits, their budgets, and the right of a request to be served under them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pointsman_config::{Client, Config};
use pointsman_core::clients::{Admission, ClientDenied, ClientGate, Spending};
use pointsman_core::exchange::Only;
use pointsman_core::time::Timestamp;
use pointsman_engine::clock::Clock;
use pointsman_store::StoreReader;

/// The gates of all clients, by their names.
pub struct ClientGates {
    clock: Clock,
    /// The store in which a new gate finds what its client has spent today.
    spent: StoreReader,
    map: Mutex<HashMap<Arc<str>, ClientGate>>,
}

/// A request whose body is read; it counts for its client until this is dropped.
pub struct ClientArrival {
    gates: Arc<ClientGates>,
    client: Arc<str>,
}

/// A request that was let in. Dropped, it is over for its client's limits, and what was reserved for it is free again.
pub struct ClientPermit {
    /// Kind of backends that it may go to.
    pub only: Only,
    taken: Option<Taken>,
}

/// A share taken of a client's limits.
struct Taken {
    gates: Arc<ClientGates>,
    client: Arc<str>,
    reserved_usd: f64,
    tokens: u64,
    cost_usd: f64,
}

impl ClientGates {
    /// The gates of the configured clients.
    pub(super) fn new(config: &Config, clock: Clock, spent: StoreReader) -> Arc<Self> {
        let gates = Self { clock, spent, map: Mutex::default() };
        gates.configure(config);
        Arc::new(gates)
    }

    /// Applies a configuration; a client that stays keeps what it has used.
    pub(super) fn configure(&self, config: &Config) {
        let mut map = self.lock();
        let mut before = std::mem::take(&mut *map);
        *map = config.clients.iter().map(|client| (client.name.clone(), self.gate(client, &mut before))).collect();
    }

    fn gate(&self, client: &Client, before: &mut HashMap<Arc<str>, ClientGate>) -> ClientGate {
        let budget = client.budget_usd_per_day;
        match before.remove(&client.name) {
            Some(mut gate) => {
                gate.set_limits(client.limits, budget);
                gate
            }
            None => {
                let now = self.clock.now();
                ClientGate::new(client.limits, budget, now, self.spent_today(&client.name, now))
            }
        }
    }

    fn spent_today(&self, client: &str, now: Timestamp) -> f64 {
        self.spent.spend_since(client, ClientGate::midnight(now)).unwrap_or_else(|error| {
            tracing::warn!(client, %error, "what this client has spent today could not be read; its budget starts at 0");
            0.0
        })
    }

    /// Lets a client's request in, and reserves what it may cost, in USD. `may_be_free` is asked only when the client is
    /// over its budget: may it use what costs nothing, and is there such a backend for this request?
    ///
    /// # Errors
    /// A limit or the budget of the client is used up.
    pub fn enter(
        self: &Arc<Self>,
        client: &Arc<str>,
        only: Only,
        estimate_usd: f64,
        may_be_free: impl FnOnce() -> bool,
    ) -> Result<ClientPermit, ClientDenied> {
        let now = self.clock.now();
        let enter = |may_be_free| {
            let enter = |gate: &mut ClientGate| gate.enter(now, may_be_free, estimate_usd);
            self.lock().get_mut(client).map_or(Ok(Admission::Full), enter)
        };
        let admission = match enter(false) {
            // Outside the lock: to find out may take a translation of the request.
            Err(ClientDenied::Budget { .. }) if may_be_free() => enter(true),
            entered => entered,
        }?;
        let (free, reserved_usd) = match admission {
            Admission::Full => (false, estimate_usd),
            Admission::FreeOnly => (true, 0.0),
        };
        let taken = Taken { gates: self.clone(), client: client.clone(), reserved_usd, tokens: 0, cost_usd: 0.0 };
        Ok(ClientPermit { only: Only { free, ..only }, taken: Some(taken) })
    }

    /// Lets the body of a client's request be read. `may_be_free`: over its budget it may use what costs nothing.
    ///
    /// # Errors
    /// A limit or the budget of the client is used up.
    pub fn arrive(self: &Arc<Self>, client: &Arc<str>, may_be_free: bool) -> Result<ClientArrival, ClientDenied> {
        let now = self.clock.now();
        self.lock().get_mut(client).map_or(Ok(()), |gate| gate.arrive(now, may_be_free))?;
        Ok(ClientArrival { gates: self.clone(), client: client.clone() })
    }

    /// Returns a client's spend today and its budget.
    pub fn spending(&self, client: &Arc<str>) -> Spending {
        let now = self.clock.now();
        self.lock().get(client).map(|gate| gate.spending(now)).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, ClientGate>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientPermit {
    /// For a request that counts for no client's limits.
    pub const fn without_client(only: Only) -> Self {
        Self { only, taken: None }
    }

    /// Gives it back with what the request has used.
    pub(super) fn settle(mut self, tokens: u64, cost_usd: f64) {
        if let Some(taken) = &mut self.taken {
            (taken.tokens, taken.cost_usd) = (tokens, cost_usd);
        }
    }
}

impl Drop for ClientArrival {
    fn drop(&mut self) {
        if let Some(gate) = self.gates.lock().get_mut(&self.client) {
            gate.arrived();
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let now = self.gates.clock.now();
        if let Some(gate) = self.gates.lock().get_mut(&self.client) {
            gate.leave(now, self.tokens, self.cost_usd, self.reserved_usd);
        }
    }
}
