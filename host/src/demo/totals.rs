//! The results of the demo's requests, and their cost with and without waiting.

use std::collections::BTreeMap;
use std::time::Duration;

use pointsman_config::Config;
use pointsman_core::table::{Lane, Price};

use super::load::{Ended, Sample};

/// Prices of the demo's backends.
#[derive(Clone, Debug, Default)]
pub(super) struct Prices {
    by_backend: BTreeMap<String, Price>,
    /// Highest price of all backends, that of the paid one.
    paid: Price,
}

impl Prices {
    /// The configured prices of one model, in USD.
    pub(super) fn of(config: &Config, model: &str) -> Self {
        let mut prices = Self::default();
        for backend in config.backends.iter().map(|b| &b.backend) {
            let price = backend.sent_model(model).and_then(|sent| backend.price(&sent).cloned()).unwrap_or_default();
            if price.output_per_mtok > prices.paid.output_per_mtok {
                prices.paid = price.clone();
            }
            prices.by_backend.insert(backend.id.to_string(), price);
        }
        prices
    }

    fn cost(&self, sample: &Sample) -> f64 {
        let price = sample.backend.as_ref().and_then(|id| self.by_backend.get(id));
        price.map_or(0.0, |price| cost(price, sample))
    }
}

/// Counts; every number is of requests that are over.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Totals {
    /// Number of requests answered in full.
    pub answered: u64,
    /// Number of requests not answered in full.
    pub failed: u64,
    /// Number of failed requests whose answer had begun.
    pub cut_short: u64,
    /// Answered by lane, in the order of [`Lane::ALL`].
    pub lanes: [u64; 3],
    /// Number of requests answered after waiting.
    pub waited: u64,
    /// Total waiting time of these.
    pub waited_total: Duration,
    /// The longest of these waits.
    pub waited_longest: Duration,
    /// Answered after more than one attempt.
    pub retried: u64,
    /// Cost of the answers, USD.
    pub spent_usd: f64,
    /// Cost if every request that waited and was then answered at a lower price had gone to the paid backend at once,
    /// USD.
    pub without_waiting_usd: f64,
}

impl Totals {
    /// Counts a request and its cost.
    pub(super) fn add(&mut self, sample: &Sample, prices: &Prices) {
        match sample.ended {
            Ended::Whole => self.answered += 1,
            ended @ (Ended::Refused(_) | Ended::Broken | Ended::Unreachable) => {
                self.failed += 1;
                self.cut_short += u64::from(ended == Ended::Broken);
                return;
            }
        }
        if let Some(place) = Lane::ALL.iter().position(|lane| Some(*lane) == sample.lane) {
            self.lanes[place] += 1;
        }
        let spent = prices.cost(sample);
        self.spent_usd += spent;
        self.retried += u64::from(sample.attempts > 1);
        if sample.waited.is_zero() {
            self.without_waiting_usd += spent;
        } else {
            self.waited += 1;
            self.waited_total += sample.waited;
            self.waited_longest = self.waited_longest.max(sample.waited);
            self.without_waiting_usd += cost(&prices.paid, sample).max(spent);
        }
    }

    /// The mean of the waits; zero when there was none.
    pub(super) fn waited_mean(&self) -> Duration {
        u32::try_from(self.waited).ok().and_then(|n| self.waited_total.checked_div(n)).unwrap_or_default()
    }

    /// Returns the savings by waiting, USD.
    pub(super) fn saved_usd(&self) -> f64 {
        (self.without_waiting_usd - self.spent_usd).max(0.0)
    }
}

fn cost(price: &Price, sample: &Sample) -> f64 {
    (sample.input_tokens as f64 * price.input_per_mtok + sample.output_tokens as f64 * price.output_per_mtok) / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(backend: &str, lane: Lane, waited_ms: u64) -> Sample {
        Sample {
            streamed: false,
            ended: Ended::Whole,
            lane: Some(lane),
            backend: Some(backend.to_owned()),
            attempts: 1,
            waited: Duration::from_millis(waited_ms),
            input_tokens: 1_000_000,
            output_tokens: 500_000,
        }
    }

    fn prices() -> Prices {
        let paid = Price { input_per_mtok: 2.0, output_per_mtok: 10.0, ..Price::default() };
        Prices {
            by_backend: BTreeMap::from([("free".to_owned(), Price::default()), ("paid".to_owned(), paid.clone())]),
            paid,
        }
    }

    #[test]
    fn only_those_that_waited_and_were_served_for_less_count_as_saved() {
        let mut tally = Totals::default();
        tally.add(&sample("free", Lane::Primary, 0), &prices());
        tally.add(&sample("free", Lane::Primary, 300), &prices());
        tally.add(&sample("free", Lane::Primary, 100), &prices());
        tally.add(&sample("paid", Lane::Fallback, 0), &prices());
        tally.add(&sample("paid", Lane::Fallback, 200), &prices());
        assert_eq!((tally.answered, tally.lanes), (5, [3, 2, 0]));
        assert_eq!((tally.spent_usd, tally.without_waiting_usd, tally.saved_usd()), (14.0, 28.0, 14.0));
        assert_eq!(
            (tally.waited, tally.waited_mean(), tally.waited_longest.as_millis()),
            (3, Duration::from_millis(200), 300)
        );
    }

    #[test]
    fn failures_cost_and_save_nothing() {
        let mut tally = Totals::default();
        for ended in [Ended::Broken, Ended::Refused(503), Ended::Unreachable] {
            tally.add(&Sample { ended, ..sample("paid", Lane::Fallback, 100) }, &prices());
        }
        assert_eq!(tally, Totals { failed: 3, cut_short: 1, ..Totals::default() });
        assert_eq!(tally.waited_mean(), Duration::ZERO);
    }
}
