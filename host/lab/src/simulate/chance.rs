//! A policy that decides by chance: any valid decision, and many that are of no use.

use std::time::Duration;

use pointsman_core::contract::{Commit, Decision, Dispatch, Hold, Rejection, Resume};
use pointsman_core::table::{Lane, Table};
use pointsman_engine::Verdict;

use crate::dice::Dice;

/// A policy that makes any valid decision by chance.
pub(super) struct Chance<'a> {
    dice: Dice,
    table: &'a Table,
}

impl<'a> Chance<'a> {
    /// By the dice of this seed.
    pub(super) fn new(seed: u64, table: &'a Table) -> Self {
        Self { dice: Dice::new(seed, 2), table }
    }

    /// The next decision, whatever is asked.
    pub(super) fn decide(&mut self) -> Verdict {
        let decision = match self.dice.below(10) {
            0..=3 => Decision::Primary(self.dispatch(Lane::Primary)),
            4 | 5 => Decision::Fallback(self.dispatch(Lane::Fallback)),
            6 => Decision::Emergency(self.dispatch(Lane::Emergency)),
            7 | 8 => {
                let max = Duration::from_millis(self.dice.magnitude(1.0, 20_000.0) as u64);
                Decision::Wait(Hold { max, lane: self.dice.pick(&Lane::ALL) })
            }
            _ if self.dice.one_in(3) => {
                let status = self.dice.pick(&[0, 402, 503]);
                Decision::Reject(Rejection { status, message: "by chance".to_owned(), ..Rejection::default() })
            }
            _ => Decision::Primary(Dispatch::default()),
        };
        Verdict::of(decision)
    }

    fn dispatch(&mut self, lane: Lane) -> Dispatch {
        const GATES: [Commit; 4] = [Commit::Headers, Commit::FirstContent, Commit::Tokens(3), Commit::Complete];
        const RESUMES: [Resume; 3] = [Resume::None, Resume::Splice, Resume::Prefill];
        let backend = self.dice.one_in(2).then(|| self.backend(lane)).flatten();
        Dispatch {
            backend,
            model: self.dice.one_in(20).then(|| self.model(lane, backend)).flatten(),
            first_byte: self.limit(),
            first_token: self.limit(),
            idle: self.limit(),
            total: self.limit(),
            commit: self.dice.one_in(2).then(|| self.dice.pick(&GATES)),
            resume: self.dice.one_in(2).then(|| self.dice.pick(&RESUMES)),
        }
    }

    fn backend(&mut self, lane: Lane) -> Option<u32> {
        let index = self.dice.below(self.table.backends.len() as u64) as u32;
        lane.admits(self.table.backends[index as usize].tier).then_some(index)
    }

    /// One that the backend, or somebody in the lane, serves.
    fn model(&mut self, lane: Lane, backend: Option<u32>) -> Option<u32> {
        let index = self.dice.below(self.table.models.len() as u64) as u32;
        let name = self.table.models.get(index as usize)?;
        let mut backends = (0..).zip(&self.table.backends);
        let serves = |(i, b): (u32, &pointsman_core::table::Backend)| {
            lane.admits(b.tier) && backend.is_none_or(|backend| backend == i) && b.sent_model(name).is_some()
        };
        backends.any(serves).then_some(index)
    }

    fn limit(&mut self) -> Option<Duration> {
        self.dice.one_in(8).then(|| Duration::from_millis(self.dice.magnitude(1.0, 20_000.0) as u64))
    }
}
