//! The numbers of a world: bounded, however many exchanges there are, and the same whatever order worlds are added in.

use std::time::Duration;

use pointsman_core::outcome::Kind;
use pointsman_core::record::End;

use crate::world::{EventKind, Finished};

/// Counts of a simulation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SimulationStats {
    /// Number of exchanges that ended.
    pub exchanges: u64,
    /// Answered whole, by lane, in the order of [`Lane::ALL`].
    pub answered: [u64; 3],
    /// An upstream's refusal was passed on.
    pub refused: u64,
    /// Exchanges that Pointsman refused.
    pub rejected: u64,
    /// Exchanges whose answer began and broke.
    pub broken: u64,
    /// Number of waits of all exchanges.
    pub waits: u64,
    /// Total time of these waits.
    pub waited: Duration,
    /// Attempts sent.
    pub attempts: u64,
    /// Attempts that probed after a cooldown.
    pub probes: u64,
    /// Attempts that an upstream answered with 429.
    pub rate_limited: u64,
    /// Questions at which the policy failed.
    pub faults: u64,
    /// Cost of all attempts in millionths of a USD, each rounded.
    pub spend_microusd: u64,
    /// Virtual time from the first to the last thing that happened.
    pub simulated: Duration,
    /// Arrival to end of those that were answered.
    pub times: Histogram,
}

impl SimulationStats {
    /// Counts an event.
    pub fn saw(&mut self, sight: &EventKind<'_>) {
        match sight {
            EventKind::Decided(verdict) => self.faults += u64::from(verdict.fault.is_some()),
            EventKind::Sent { probe, .. } => {
                self.attempts += 1;
                self.probes += u64::from(*probe);
            }
            EventKind::Ended(record) => {
                self.rate_limited += u64::from(record.outcome == Kind::RateLimited);
                self.spend_microusd += (record.cost_usd * 1e6).round() as u64;
            }
            EventKind::Finished(finished) => self.finished(finished),
            EventKind::Arrived(_) | EventKind::Asked(_) | EventKind::Committed => {}
            EventKind::Waits { .. } | EventKind::Granted { .. } | EventKind::Waited { .. } => {}
        }
    }

    fn finished(&mut self, finished: &Finished<'_>) {
        self.exchanges += 1;
        self.waits += u64::from(finished.waits.0);
        self.waited += finished.waits.1;
        match finished.end {
            End::Delivered => {
                if let Some((lane, _)) = finished.by {
                    self.answered[lane as usize] += 1;
                }
                self.times.add(finished.took);
            }
            End::Refused => self.refused += 1,
            End::Rejected | End::Denied => self.rejected += 1,
            End::Broken | End::ClientGone => self.broken += 1,
        }
    }

    /// Adds the counts of another world.
    pub fn add(&mut self, other: &SimulationStats) {
        self.exchanges += other.exchanges;
        for (sum, more) in self.answered.iter_mut().zip(other.answered) {
            *sum += more;
        }
        self.refused += other.refused;
        self.rejected += other.rejected;
        self.broken += other.broken;
        self.waits += other.waits;
        self.waited += other.waited;
        self.attempts += other.attempts;
        self.probes += other.probes;
        self.rate_limited += other.rate_limited;
        self.faults += other.faults;
        self.spend_microusd += other.spend_microusd;
        self.simulated += other.simulated;
        self.times.merge(&other.times);
    }
}

/// Times in ms, exact below 128 and to one part in 64 above.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<u64>,
    sum: u64,
}

impl Histogram {
    fn add(&mut self, time: Duration) {
        let place = place_of(u32::try_from(time.as_millis()).unwrap_or(u32::MAX));
        if self.counts.len() <= place {
            self.counts.resize(place + 1, 0);
        }
        self.counts[place] += 1;
        self.sum += 1;
    }

    fn merge(&mut self, other: &Histogram) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (sum, more) in self.counts.iter_mut().zip(&other.counts) {
            *sum += more;
        }
        self.sum += other.sum;
    }

    /// The time in ms that this share of all stays within, `share` in 0..=1; 0 when there is none.
    pub fn quantile_ms(&self, share: f64) -> u32 {
        let wanted = (self.sum as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let place = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        place.map_or(0, least_of)
    }
}

/// 64 places for each doubling above 128.
fn place_of(ms: u32) -> usize {
    let doublings = (31 - ms.max(64).leading_zeros()) - 6;
    (doublings * 64 + (ms >> doublings)) as usize
}

fn least_of(place: usize) -> u32 {
    let doublings = (place / 64).saturating_sub(1);
    ((place - doublings * 64) as u32) << doublings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_found_again_to_one_part_in_64() {
        for ms in [0, 1, 63, 64, 127, 128, 200, 1_000, 65_535, 600_000, u32::MAX] {
            let found = least_of(place_of(ms));
            assert!(found <= ms && ms - found <= ms / 64, "{ms} became {found}");
        }
        assert_eq!(least_of(place_of(127)), 127);
    }

    #[test]
    fn quantiles_are_those_of_the_times_added() {
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        assert_eq!(one.quantile_ms(0.5), 0);
        for ms in 1..=50 {
            one.add(Duration::from_millis(ms));
            other.add(Duration::from_millis(50 + ms));
        }
        one.merge(&other);
        assert_eq!((one.quantile_ms(0.5), one.quantile_ms(0.99), one.quantile_ms(1.0)), (50, 99, 100));
    }
}
