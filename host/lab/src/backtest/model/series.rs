//! Recorded attempts in order of time, sampled in blocks of neighbours.

use std::time::Duration;

use pointsman_core::time::Timestamp;

use super::outages::{self, Outages};
use super::pace::{self, Pace};
use crate::backtest::past::Try;
use crate::dice::Dice;

/// Recorded attempts at a backend, or for one model there.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Runs of failures.
    pub outages: Outages,
    /// Refusals that a limit explains, by their time.
    pub refused: Vec<Try>,
    /// Durations of its answers by their length.
    pub pace: Pace,
    /// Attempts of a block: those of a usual minute.
    pub(super) block: usize,
}

/// Bounds of a block. One of few attempts that failed spans more time than one of as many that did not, because failures cool;
/// drawn by time, the share of failures is the surer the larger a block is.
const BLOCK: (usize, usize) = (24, 64);

/// So many of the nearest may stand for an answer like theirs.
const NEAREST: usize = 8;

/// Blocks further away are no neighbours.
const NEIGHBOURHOOD: Duration = Duration::from_secs(300);

/// Attempts that are looked at to find one like it.
const LOOKS: u64 = 6;

impl Series {
    /// Learns from attempts in the order of their time, without those that a limit explains.
    pub fn learn(tries: impl Iterator<Item = Try>) -> Self {
        let outages = outages::learn(tries);
        let pace = pace::learn(&outages.calm);
        let block = attempts_a_minute(&outages.calm).clamp(BLOCK.0, BLOCK.1);
        Self { outages, refused: Vec::new(), pace, block }
    }

    /// An attempt of the good times near this moment; none where none was seen. `world` is the seed of the world: its blocks are
    /// others in each.
    pub fn near(&self, now: Timestamp, like: &Like, world: u64, dice: &mut Dice) -> Option<&Try> {
        let calm = &self.outages.calm;
        let block = self.drawn_block(calm, now, world)?;
        let mut best: Option<&Try> = None;
        for _ in 0..LOOKS {
            let found = &block[dice.below(block.len() as u64) as usize];
            if found.stream != like.stream {
                best = best.or(Some(found));
                continue;
            }
            if !self.pace.feels_load {
                return Some(found);
            }
            let off = |t: &Try| u16::abs_diff(t.in_flight, like.in_flight);
            best = best.filter(|b| b.stream == like.stream && off(b) <= off(found)).or(Some(found));
        }
        best
    }

    /// Another answer to an attempt like it: a refusal of the limit, or a failure of a bad time.
    pub fn one_of<'a>(&self, some: &'a [Try], now: Timestamp, dice: &mut Dice) -> Option<&'a Try> {
        let block = block_at(some, now, NEAREST)?;
        Some(&block[dice.below(block.len() as u64) as usize])
    }

    /// The block of this moment, or one beside it: of all the ways in which the same hours might have been seen, one.
    fn drawn_block<'a>(&self, calm: &'a [Try], now: Timestamp, world: u64) -> Option<&'a [Try]> {
        let here = place(calm, now)? / self.block;
        let blocks = calm.len().div_ceil(self.block);
        let step = Dice::of(&[world, here as u64]).below(3);
        let there = (here + step as usize).saturating_sub(1).min(blocks - 1);
        let of = |block: usize| &calm[block * self.block..calm.len().min((block + 1) * self.block)];
        let is_neighbour = |t: &Try| t.sent.since(now).max(now.since(t.sent)) <= NEIGHBOURHOOD;
        let drawn = of(there);
        Some(if drawn.first().is_some_and(is_neighbour) || drawn.last().is_some_and(is_neighbour) {
            drawn
        } else {
            of(here)
        })
    }
}

/// Properties that a sampled attempt should have.
#[derive(Clone, Copy, Debug)]
pub struct Like {
    /// A stream is requested.
    pub stream: bool,
    /// Attempts under way at the backend when it is sent.
    pub in_flight: u16,
}

/// The index of the attempt nearest to this moment.
fn place(tries: &[Try], now: Timestamp) -> Option<usize> {
    let next = tries.partition_point(|t| t.sent < now);
    let before = next.checked_sub(1);
    match (before, tries.get(next)) {
        (Some(before), Some(after)) if now.since(tries[before].sent) < after.sent.since(now) => Some(before),
        (_, Some(_)) => Some(next),
        (before, None) => before,
    }
}

fn block_at(tries: &[Try], now: Timestamp, block: usize) -> Option<&[Try]> {
    let first = place(tries, now)?.saturating_sub(block / 2);
    Some(&tries[first..tries.len().min(first + block)])
}

/// In the minutes in which there were any.
fn attempts_a_minute(tries: &[Try]) -> usize {
    let minute = |t: &Try| t.sent.as_micros() / 60_000_000;
    let minutes = tries.chunk_by(|a, b| minute(a) == minute(b)).count();
    tries.len() / minutes.max(1)
}

#[cfg(test)]
mod tests {
    use pointsman_core::outcome::Kind;

    use super::*;
    use crate::backtest::model::tests::{T0, tried};

    const S: Duration = Duration::from_secs(1);
    const LIKE: Like = Like { stream: false, in_flight: 0 };

    /// One a second, an hour long; the second half hour is slow.
    fn hour() -> Series {
        let one = |n: u32| {
            let took = if n < 1_800 { S } else { S * 9 };
            Try { took, ..tried(T0 + S * n, Kind::Answered) }
        };
        Series::learn((0..3_600).map(one))
    }

    #[test]
    fn what_is_drawn_was_seen_near_that_moment() {
        let series = hour();
        for seed in 0..200 {
            let mut dice = Dice::new(seed, 1);
            let early = series.near(T0 + S * 600, &LIKE, seed, &mut dice).unwrap();
            let late = series.near(T0 + S * 3_000, &LIKE, seed, &mut dice).unwrap();
            assert_eq!((early.took, late.took), (S, S * 9));
            assert!(early.sent.since(T0) > S * 400 && early.sent.since(T0) < S * 800, "{early:?}");
        }
    }

    #[test]
    fn each_world_draws_blocks_of_its_own_and_the_same_world_the_same() {
        let series = hour();
        let block = |world| series.drawn_block(&series.outages.calm, T0 + S * 1_000, world).unwrap()[0].sent;
        let different: std::collections::BTreeSet<_> = (0..50).map(block).collect();
        assert_eq!(different.len(), 3);
        assert_eq!(block(7), block(7));
    }

    #[test]
    fn a_stream_is_answered_like_a_stream_and_under_load_like_under_load() {
        let one = |n: u32| {
            let (stream, in_flight) = (n.is_multiple_of(4), (n % 10) as u16);
            let took = Duration::from_millis(500 + 200 * u64::from(in_flight));
            Try { stream, in_flight, took, ..tried(T0 + S * n, Kind::Answered) }
        };
        let series = Series::learn((0..2_000).map(one));
        assert!(series.pace.feels_load);
        let like = Like { stream: false, in_flight: 9 };
        let drawn = |seed| series.near(T0 + S * 1_000, &like, seed, &mut Dice::new(seed, 1)).unwrap();
        let streams = (0..200).filter(|seed| drawn(*seed).stream).count();
        let load: f64 = (0..200).map(|seed| f64::from(drawn(seed).in_flight)).sum::<f64>() / 200.0;
        assert!(streams < 5 && load > 6.0, "{streams} {load}");
    }

    #[test]
    fn nothing_is_drawn_from_nothing() {
        let series = Series::default();
        assert!(series.near(T0, &LIKE, 1, &mut Dice::new(1, 1)).is_none());
        assert!(series.one_of(&[], T0, &mut Dice::new(1, 1)).is_none());
    }
}
