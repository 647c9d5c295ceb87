//! Records of exchanges: rows of the store, lines of the log, samples of the metrics.

use std::sync::Arc;
use std::time::Duration;

use crate::contract::Operation;
use crate::denial::Denial;
use crate::outcome::{Kind, Scope};
use crate::table::{Lane, Price};
use crate::text::{MAX_NAME_BYTES, cut};
use crate::time::Timestamp;
pub use crate::usage::{ServiceTier, Usage};
use crate::usd::total_usd;

impl Usage {
    /// Returns the cost in USD; 0 without a known price.
    pub fn cost_usd(&self, price: Option<&Price>) -> f64 {
        let Some(price) = price else { return 0.0 };
        let factor = price.factor(self.service_tier);
        let rates = price.for_prompt(self.input_tokens);
        let (input, output) = (rates.input_per_mtok, rates.output_per_mtok);
        let parts = [
            (self.cached_input_tokens, rates.cached_input_per_mtok.unwrap_or(input)),
            (self.cache_write_tokens, rates.cache_write_per_mtok.unwrap_or(input)),
            (self.cache_write_1h_tokens, rates.cache_write_1h_per_mtok.or(rates.cache_write_per_mtok).unwrap_or(input)),
            (self.audio_input_tokens, rates.audio_input_per_mtok.unwrap_or(input)),
            (self.image_input_tokens, rates.image_input_per_mtok.unwrap_or(input)),
        ];
        let mut left = self.input_tokens;
        let mut usd = 0.0;
        for (tokens, rate) in parts {
            let tokens = tokens.min(left);
            left -= tokens;
            usd += tokens as f64 * rate;
        }
        let spoken = self.audio_output_tokens.min(self.output_tokens);
        usd += left as f64 * input;
        usd += spoken as f64 * rates.audio_output_per_mtok.unwrap_or(output);
        usd += (self.output_tokens - spoken) as f64 * output;
        usd * factor / 1e6
    }
}

vocabulary! {
    /// The end of an exchange, from the client's view.
    pub enum End: serde {
        /// The whole answer was delivered.
        Delivered = "delivered",
        /// An upstream's refusal was passed on.
        Refused = "refused",
        /// The policy or exhaustion refused it.
        Rejected = "rejected",
        /// The answer began and then failed; the client was told so.
        Broken = "broken",
        /// The client disconnected before the end.
        ClientGone = "client_gone",
        /// It was refused at the door, before any policy was asked.
        Denied = "denied",
    }
}

/// Record of an attempt that ended.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptRecord {
    /// Id of the backend.
    pub backend: Arc<str>,
    /// Lane it was sent in.
    pub lane: Lane,
    /// Model name sent upstream.
    pub model_sent: String,
    /// Time at which it was sent.
    pub started: Timestamp,
    /// Time from sending to its last byte.
    pub elapsed: Duration,
    /// Time from sending to the response head.
    pub first_byte: Option<Duration>,
    /// Time from sending to the first content.
    pub first_token: Option<Duration>,
    /// Kind of its outcome.
    pub outcome: Kind,
    /// The part that is held back for it.
    pub scope: Scope,
    /// The HTTP status; 0: none.
    pub status: u16,
    /// Delay that the upstream asked for.
    pub retry_after: Option<Duration>,
    /// One sentence about the outcome, for people.
    pub message: String,
    /// The provider's own id of the request, for its support; without secrets, at most 128 characters.
    pub upstream_id: Option<Box<str>>,
    /// Tokens of prompt and answer.
    pub usage: Usage,
    /// Cost in USD; 0 for failed attempts.
    pub cost_usd: f64,
}

/// Record of an exchange that ended.
#[derive(Clone, Debug, PartialEq)]
pub struct ExchangeRecord {
    /// The request id the client was told.
    pub id: String,
    /// Time of its arrival.
    pub started: Timestamp,
    /// Time from arrival to the last byte.
    pub elapsed: Duration,
    /// Name of the client key, if one is configured.
    pub client: Option<Arc<str>>,
    /// Value of the `x-pointsman-session` header.
    pub session: Option<String>,
    /// Operation of the request.
    pub operation: Operation,
    /// The path without its query.
    pub path: String,
    /// The model as asked; "unknown" when none was named.
    pub model: String,
    /// The client asked for a stream.
    pub streaming: bool,
    /// The status the client got; 0 when it left before.
    pub status: u16,
    /// End, as the client saw it.
    pub end: End,
    /// The lane of the attempt that was relayed.
    pub lane: Option<Lane>,
    /// The backend that was relayed.
    pub backend: Option<Arc<str>>,
    /// Number of waits in the queue.
    pub waits: u32,
    /// Total time in the queue.
    pub waited: Duration,
    /// Time from arrival to the first byte downstream.
    pub first_byte: Option<Duration>,
    /// Revision of the policy that it started with.
    pub policy: Arc<str>,
    /// Policy faults met on the way.
    pub policy_faults: u32,
    /// Its attempts, oldest first.
    pub attempts: Vec<AttemptRecord>,
    /// Notes of the policy, and of Pointsman itself.
    pub notes: Vec<String>,
    /// The error's text, when the client got one.
    pub error: Option<String>,
    /// Reason of a refusal before any policy was asked.
    pub denied: Option<Denial>,
    /// Saved in USD compared with the cheapest fallback; `None`: unknown, or not answered outside the fallback lane.
    pub saved_usd: Option<f64>,
}

/// Bytes kept of a sentence: an error, a note, a message of an attempt.
const MAX_SENTENCE_BYTES: usize = 10_000;

impl ExchangeRecord {
    /// Cuts texts from outside to what is kept of them: names that a client gave to [`MAX_NAME_BYTES`], sentences to 10,000
    /// bytes.
    pub fn cut_texts(&mut self) {
        for name in [&mut self.model, &mut self.path].into_iter().chain(&mut self.session) {
            cut(name, MAX_NAME_BYTES);
        }
        let messages = self.attempts.iter_mut().map(|attempt| &mut attempt.message);
        for sentence in self.notes.iter_mut().chain(&mut self.error).chain(messages) {
            cut(sentence, MAX_SENTENCE_BYTES);
        }
    }

    /// The memory that it takes, in bytes.
    pub fn bytes(&self) -> usize {
        let names = [&self.id, &self.path, &self.model].into_iter().chain(&self.session).chain(&self.error);
        let attempts = self.attempts.iter().map(|attempt| {
            let id = attempt.upstream_id.as_ref().map_or(0, |id| id.len());
            size_of::<AttemptRecord>() + attempt.model_sent.len() + attempt.message.len() + id
        });
        let notes = self.notes.iter().map(|note| size_of::<String>() + note.len());
        size_of::<Self>() + names.map(String::len).sum::<usize>() + attempts.sum::<usize>() + notes.sum::<usize>()
    }

    /// The tokens of all attempts together.
    pub fn usage(&self) -> Usage {
        self.attempts.iter().fold(Usage::default(), |sum, attempt| sum.plus(&attempt.usage))
    }

    /// Returns the cost of all attempts in USD.
    pub fn cost_usd(&self) -> f64 {
        total_usd(self.attempts.iter().map(|a| a.cost_usd))
    }

    /// Returns [`ExchangeRecord::saved_usd`] of an exchange that waited.
    pub fn saved_by_waiting_usd(&self) -> Option<f64> {
        self.saved_usd.filter(|_| self.waits > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::PriceTier;

    fn close(usd: f64, expected: f64) -> bool {
        (usd - expected).abs() < 1e-9
    }

    #[test]
    fn every_part_has_its_price_and_the_rest_the_plain_one() {
        let usage = Usage {
            input_tokens: 1_000_000,
            output_tokens: 100_000,
            cached_input_tokens: 100_000,
            cache_write_tokens: 200_000,
            cache_write_1h_tokens: 300_000,
            audio_input_tokens: 50_000,
            image_input_tokens: 50_000,
            audio_output_tokens: 50_000,
            ..Usage::default()
        };
        let plain = Price { input_per_mtok: 3.0, output_per_mtok: 15.0, ..Price::default() };
        assert!(close(usage.cost_usd(Some(&plain)), 3.0 + 1.5));
        let full = Price {
            cached_input_per_mtok: Some(0.3),
            cache_write_per_mtok: Some(3.75),
            cache_write_1h_per_mtok: Some(6.0),
            audio_input_per_mtok: Some(40.0),
            image_input_per_mtok: Some(10.0),
            audio_output_per_mtok: Some(80.0),
            ..plain.clone()
        };
        let expected = 0.03 + 0.75 + 1.8 + 2.0 + 0.5 + 0.3 * 3.0 + 4.0 + 0.75;
        assert!(close(usage.cost_usd(Some(&full)), expected), "{}", usage.cost_usd(Some(&full)));
        let no_hour = Price { cache_write_1h_per_mtok: None, ..full };
        assert!(close(usage.cost_usd(Some(&no_hour)), expected - 1.8 + 0.3 * 3.75));
        assert_eq!(usage.cost_usd(None), 0.0);
    }

    #[test]
    fn a_long_prompt_has_the_price_of_its_tier() {
        let rates = |input, output| Price { input_per_mtok: input, output_per_mtok: output, ..Price::default() };
        let tier = |above_input_tokens, input, output| PriceTier { above_input_tokens, price: rates(input, output) };
        let price = Price { tiers: vec![tier(200_000, 6.0, 22.5), tier(500_000, 12.0, 45.0)], ..rates(3.0, 15.0) };
        let cost =
            |input| Usage { input_tokens: input, output_tokens: 1_000, ..Usage::default() }.cost_usd(Some(&price));
        assert!(close(cost(200_000), 0.6 + 0.015));
        assert!(close(cost(200_001), 1.200_006 + 0.022_5));
        assert!(close(cost(600_000), 7.2 + 0.045));
    }

    #[test]
    fn a_service_tier_has_its_factor() {
        let price = Price {
            input_per_mtok: 2.0,
            output_per_mtok: 8.0,
            service_tiers: [(ServiceTier::Flex, 0.5), (ServiceTier::Priority, 1.75)].into(),
            ..Price::default()
        };
        let cost = |service_tier| {
            Usage { input_tokens: 1_000_000, output_tokens: 1_000_000, service_tier, ..Usage::default() }
                .cost_usd(Some(&price))
        };
        for (tier, usd) in [
            (None, 10.0),
            (Some(ServiceTier::Standard), 10.0),
            (Some(ServiceTier::Flex), 5.0),
            (Some(ServiceTier::Priority), 17.5),
            (Some(ServiceTier::Batch), 10.0),
        ] {
            assert!(close(cost(tier), usd), "{tier:?}");
        }
        assert_eq!([ServiceTier::told(b"default"), ServiceTier::told(b"auto")], [Some(ServiceTier::Standard), None]);
    }

    #[test]
    fn sums_do_not_overflow() {
        let most = Usage {
            input_tokens: u64::MAX,
            output_tokens: u64::MAX,
            cached_input_tokens: u64::MAX,
            ..Usage::default()
        };
        assert_eq!(most.plus(&most), most);
        assert_eq!(most.total(), u64::MAX);
        assert!(most.cost_usd(Some(&Price { input_per_mtok: 1e9, ..Price::default() })).is_finite());
    }
}
