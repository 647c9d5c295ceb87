//! The journal as the lab needs it: who asked what and when, and what every backend made of it. Read one by one, kept
//! compact.

use std::sync::Arc;
use std::time::Duration;

use pointsman_core::attempt::PromptCount;
use pointsman_core::exchange::Facts;
use pointsman_core::journal::Setup;
use pointsman_core::outcome::Kind;
use pointsman_core::time::Timestamp;
use pointsman_engine::Texts;

use super::results::{ExchangeStats, TimeGrid};

/// With fewer exchanges a backtest says nothing.
pub const MIN_EXCHANGES: usize = 100;

/// The recorded traffic: requests, attempts and results under the latest setup.
pub struct Past {
    /// Setup of the last exchange: the configuration that is assumed for all.
    pub setup: Arc<Setup>,
    /// Exchanges that ran under an earlier one.
    pub other_setups: usize,
    /// Requests in the order of their arrival.
    pub arrivals: Vec<Arrival>,
    /// Attempts at each backend of the setup, by their time.
    pub tries: Vec<Vec<Try>>,
    /// Names of models as they were sent; [`Try::model`] is an index.
    pub models: Vec<Arc<str>>,
    /// Attempts at backends that the setup does not have any more.
    pub lost_tries: usize,
    /// Results of the recorded exchanges.
    pub recorded: ExchangeStats,
    /// The time from the first arrival to the last, cut into parts.
    pub face: TimeGrid,
    /// Policy revisions with their exchanges, the most frequent first.
    pub revisions: Vec<(String, usize)>,
    /// The sample's share of all exchanges, 0..=1.
    pub share: f64,
    /// Spend of each client key on that day before the first exchange, USD.
    pub spent_usd: Vec<f64>,
}

/// A recorded request.
pub struct Arrival {
    /// Time of its arrival.
    pub at: Timestamp,
    /// The model asked for.
    pub model: Arc<str>,
    /// Numbers of the request that the policy is told.
    pub facts: Facts,
    /// Texts that the policy may read.
    pub texts: Arc<Texts>,
    /// Properties of the request learned from its answers.
    pub own: Own,
}

/// Properties of a request that do not depend on the backend.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Own {
    /// Its prompt as a backend counted it.
    pub prompt: Option<PromptCount>,
    /// The tokens of its whole answer.
    pub output: Option<u32>,
    /// Tokens of its answer that were seen, where it was not seen whole.
    pub least: u32,
    /// Some backend found it wrong in itself.
    pub is_refused: bool,
    /// Backends that it is too long for.
    pub too_long: Vec<u32>,
    /// Time after which its client left.
    pub patience: Option<Duration>,
}

/// An attempt that was made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Try {
    /// Time of sending.
    pub sent: Timestamp,
    /// From sending to its last byte, or to its failure.
    pub took: Duration,
    /// To its head, in ms.
    pub head_ms: Option<u32>,
    /// To its first content, in ms.
    pub first_ms: Option<u32>,
    /// Kind of outcome.
    pub kind: Kind,
    /// The status; 0: none.
    pub status: u16,
    /// Retry-After of the response, ms.
    pub retry_after_ms: Option<u32>,
    /// Tokens of the prompt.
    pub prompt: u32,
    /// Tokens of the answer.
    pub output: u32,
    /// A stream was requested.
    pub stream: bool,
    /// The model sent: an index into [`Past::models`].
    pub model: u16,
    /// Attempts under way there when it was sent.
    pub in_flight: u16,
}

impl Try {
    /// Tokens of both ways.
    pub fn tokens(&self) -> u64 {
        u64::from(self.prompt) + u64::from(self.output)
    }
}

/// The journal has too little to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFew {
    /// So many exchanges it has.
    pub found: usize,
}
