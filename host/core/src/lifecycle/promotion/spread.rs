//! Distribution of times: a histogram of fixed size whose buckets are at most a sixty-fourth wide.

use std::time::Duration;

/// A bucket's width is at most its lower edge divided by this.
const STEPS: u64 = 64;
const STEPS_LOG2: u32 = STEPS.trailing_zeros();

/// Longer times count as this one, in µs: 19 hours.
const MAX_MICROS: u64 = (1 << 36) - 1;

const BUCKETS: usize = (36 - STEPS_LOG2 as usize + 1) * STEPS as usize;

/// Times, counted in buckets of growing width.
#[derive(Clone, Debug)]
pub(super) struct Spread {
    buckets: Box<[u32]>,
    /// The buckets from here on are empty.
    end: usize,
    count: u64,
}

impl Default for Spread {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS].into(), end: 0, count: 0 }
    }
}

impl Spread {
    pub(super) fn add(&mut self, time: Duration) {
        let at = bucket(micros(time));
        self.buckets[at] = self.buckets[at].saturating_add(1);
        self.end = self.end.max(at + 1);
        self.count += 1;
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// No less than the `rank`th longest time, counted from 1; none: there are not so many.
    pub(super) fn longest(&self, rank: u64) -> Option<Duration> {
        let mut left = rank.checked_sub(1)?;
        for (bucket, &count) in self.buckets[..self.end].iter().enumerate().rev() {
            match left.checked_sub(u64::from(count)) {
                Some(rest) => left = rest,
                None => return Some(Duration::from_micros(last_of(bucket))),
            }
        }
        None
    }

    /// The time that a share of them is no longer than; none: there is none.
    pub(super) fn quantile(&self, share: f64) -> Option<Duration> {
        let longer = (self.count as f64 * (1.0 - share)).floor() as u64;
        self.longest(longer + 1)
    }

    /// Counts the times that are surely longer than this.
    pub(super) fn longer_than(&self, time: Duration) -> u64 {
        let first = bucket(micros(time)) + 1;
        self.buckets[first.min(self.end)..self.end].iter().map(|&count| u64::from(count)).sum()
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min(MAX_MICROS)
}

fn bucket(micros: u64) -> usize {
    if micros < STEPS {
        return micros as usize;
    }
    let octave = micros.ilog2() - STEPS_LOG2;
    (u64::from(octave + 1) * STEPS + ((micros >> octave) & (STEPS - 1))) as usize
}

/// The longest time that lies in it, in µs.
fn last_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let octave = bucket / STEPS - 1;
    ((STEPS + bucket % STEPS + 1) << octave) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_time_lies_in_a_narrow_bucket(micros in 0u64..=MAX_MICROS) {
            let at = bucket(micros);
            prop_assert!(micros <= last_of(at) && last_of(at) <= micros + micros / STEPS);
            prop_assert!(at == 0 || last_of(at - 1) < micros);
        }

        #[test]
        fn ranks_are_those_of_the_sorted_times(mut times in prop::collection::vec(0u64..1_000_000, 1..200), than in 0u64..1_000_000) {
            let mut spread = Spread::default();
            times.iter().for_each(|&t| spread.add(Duration::from_micros(t)));
            times.sort_unstable_by(|a, b| b.cmp(a));
            for (rank, &time) in (1..).zip(&times) {
                let told = spread.longest(rank).unwrap().as_micros() as u64;
                prop_assert!(time <= told && told <= time + time / STEPS);
            }
            prop_assert_eq!(spread.longest(times.len() as u64 + 1), None);
            let longer = times.iter().filter(|&&t| t > than).count() as u64;
            let surely = times.iter().filter(|&&t| t > than + than / STEPS).count() as u64;
            let told = spread.longer_than(Duration::from_micros(than));
            prop_assert!(surely <= told && told <= longer);
        }
    }

    #[test]
    fn what_is_too_long_counts_as_the_longest() {
        let mut spread = Spread::default();
        spread.add(Duration::MAX);
        assert_eq!(spread.longest(1), Some(Duration::from_micros(MAX_MICROS)));
        assert_eq!((spread.longer_than(Duration::MAX), spread.quantile(0.95)), (0, spread.longest(1)));
    }
}
