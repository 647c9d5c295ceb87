//! What is remembered of an exchange: the row of the store, the line of the log, the step of the metrics.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::contract::Operation;
use crate::denial::Denial;
use crate::outcome::Kind;
use crate::saving::total_usd;
use crate::table::{Lane, Price};
use crate::time::Timestamp;

/// Tokens of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Prompt tokens, cached ones included.
    pub input_tokens: u64,
    /// Answer tokens, reasoning included.
    pub output_tokens: u64,
    /// Prompt tokens the provider had cached.
    pub cached_input_tokens: u64,
    /// Counted here because the provider did not say.
    pub estimated: bool,
}

impl Usage {
    /// What this costs in USD; 0 where no price is known.
    pub fn cost_usd(&self, price: Option<Price>) -> f64 {
        let Some(price) = price else { return 0.0 };
        let cached = self.cached_input_tokens.min(self.input_tokens);
        let fresh = self.input_tokens - cached;
        let cached_price = price.cached_input_per_mtok.unwrap_or(price.input_per_mtok);
        (fresh as f64 * price.input_per_mtok
            + cached as f64 * cached_price
            + self.output_tokens as f64 * price.output_per_mtok)
            / 1e6
    }
}

/// How an exchange ended, as its client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The whole answer was delivered.
    Delivered,
    /// An upstream's refusal was passed on.
    Refused,
    /// The policy or exhaustion refused it.
    Rejected,
    /// The answer began and then failed; the client was told so.
    Broken,
    /// The client went away.
    ClientGone,
    /// It was refused at the door, before any policy was asked.
    Denied,
}

impl End {
    /// Every end.
    pub const ALL: [End; 6] = [End::Delivered, End::Refused, End::Rejected, End::Broken, End::ClientGone, End::Denied];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            End::Delivered => "delivered",
            End::Refused => "refused",
            End::Rejected => "rejected",
            End::Broken => "broken",
            End::ClientGone => "client_gone",
            End::Denied => "denied",
        }
    }

    /// The end of this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|end| end.as_str() == word)
    }
}

/// One attempt, ended.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptRecord {
    /// The backend's id.
    pub backend: Arc<str>,
    /// How it was sent.
    pub lane: Lane,
    /// The model name sent.
    pub model_sent: String,
    /// When it was sent.
    pub started: Timestamp,
    /// How long it took, to its last byte.
    pub elapsed: Duration,
    /// Time to the response head.
    pub first_byte: Option<Duration>,
    /// Time to the first content.
    pub first_token: Option<Duration>,
    /// What it came to.
    pub outcome: Kind,
    /// The HTTP status; 0: none.
    pub status: u16,
    /// What the upstream asked for.
    pub retry_after: Option<Duration>,
    /// One sentence for people.
    pub message: String,
    /// Its tokens.
    pub usage: Usage,
    /// What it cost; failed attempts cost nothing.
    pub cost_usd: f64,
}

/// One exchange, ended.
#[derive(Clone, Debug, PartialEq)]
pub struct ExchangeRecord {
    /// The request id the client was told.
    pub id: String,
    /// Arrival.
    pub started: Timestamp,
    /// Arrival to last byte.
    pub elapsed: Duration,
    /// The client key's name.
    pub client: Option<Arc<str>>,
    /// `x-pointsman-session`.
    pub session: Option<String>,
    /// What was asked.
    pub operation: Operation,
    /// The path without its query.
    pub path: String,
    /// The model as asked; "unknown" when none was named.
    pub model: String,
    /// Did the client want a stream?
    pub streaming: bool,
    /// The status the client got; 0 when it left before.
    pub status: u16,
    /// How it ended.
    pub end: End,
    /// The lane of the attempt that was relayed.
    pub lane: Option<Lane>,
    /// The backend that was relayed.
    pub backend: Option<Arc<str>>,
    /// Waits.
    pub waits: u32,
    /// Time spent waiting.
    pub waited: Duration,
    /// Arrival to the first byte downstream.
    pub first_byte: Option<Duration>,
    /// Policy revision.
    pub policy: Arc<str>,
    /// Policy faults met on the way.
    pub policy_faults: u32,
    /// The attempts, oldest first.
    pub attempts: Vec<AttemptRecord>,
    /// What the policy noted.
    pub notes: Vec<String>,
    /// The error's text, when the client got one.
    pub error: Option<String>,
    /// Why it was refused at the door; none: it was not.
    pub denied: Option<Denial>,
    /// What it saved compared with the cheapest fallback, in USD; none: unknown, or not answered outside the fallback lane.
    pub saved_usd: Option<f64>,
}

impl ExchangeRecord {
    /// The tokens of all attempts together.
    pub fn usage(&self) -> Usage {
        self.attempts.iter().fold(Usage::default(), |sum, a| Usage {
            input_tokens: sum.input_tokens + a.usage.input_tokens,
            output_tokens: sum.output_tokens + a.usage.output_tokens,
            cached_input_tokens: sum.cached_input_tokens + a.usage.cached_input_tokens,
            estimated: sum.estimated | a.usage.estimated,
        })
    }

    /// What all attempts together cost.
    pub fn cost_usd(&self) -> f64 {
        total_usd(self.attempts.iter().map(|a| a.cost_usd))
    }

    /// What waiting saved: [`ExchangeRecord::saved_usd`] of an exchange that waited.
    pub fn saved_by_waiting_usd(&self) -> Option<f64> {
        self.saved_usd.filter(|_| self.waits > 0)
    }
}
