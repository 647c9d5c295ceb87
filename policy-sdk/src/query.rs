//! The query that a policy is asked, with the packed rows behind named numbers.

use crate::columns::Column;
use crate::dice::Dice;
use crate::table::{Lane, Layout};
use crate::words::{Operation, Outcome, State};

/// The request, in numbers. Its texts are behind [`crate::request`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Index into the table's models; none when the name is not listed there.
    pub model: Option<usize>,
    /// Operation of the request.
    pub operation: Operation,
    /// Index into the table's clients.
    pub client: Option<usize>,
    /// The client asked for a stream.
    pub streaming: bool,
    /// -100..=100, larger is more urgent.
    pub priority: i32,
    /// Estimated tokens of the prompt.
    pub prompt_tokens: u32,
    /// The most tokens the client lets the answer have; 0: did not say.
    pub max_tokens: u32,
    /// A hash of the client's session; 0: none.
    pub session: u64,
    /// Milliseconds since arrival.
    pub elapsed_ms: u32,
    /// Milliseconds left of the exchange's total time.
    pub remaining_ms: u32,
}

/// One attempt of this exchange that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Index into the table's backends.
    pub backend: usize,
    /// Lane it was sent in.
    pub lane: Lane,
    /// Outcome of the attempt.
    pub outcome: Outcome,
    /// The HTTP status; 0: none.
    pub status: u16,
    /// Duration of the attempt, in ms.
    pub elapsed_ms: u32,
    /// Number of waits of this exchange before it was sent.
    pub waits_before: u32,
}

/// A question about the next step of one exchange.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// Milliseconds since 1970-01-01 UTC. The only clock there is.
    pub now_ms: u64,
    /// A random number, new for every query. The only randomness there is.
    pub seed: u64,
    /// The request.
    pub request: Request,
    /// Oldest first.
    pub attempts: &'a [Attempt],
    /// Waits so far.
    pub waits: u32,
    /// Total time of the waits, in ms.
    pub waited_ms: u32,
    /// The packed numbers of all backends; [`Query::backend`] reads them.
    pub rows: &'a [u32],
    /// Layout of the rows.
    pub layout: &'a Layout,
}

impl<'a> Query<'a> {
    /// The live numbers of a backend, by its index in the table. Past the end all numbers are unknown.
    #[inline]
    pub fn backend(&self, index: usize) -> Row<'a> {
        let stride = self.layout.stride();
        let start = index * stride;
        Row { index, numbers: self.rows.get(start..start + stride).unwrap_or(&[]), layout: self.layout }
    }

    /// The randomness of this query.
    pub fn dice(&self) -> Dice {
        Dice::new(self.seed)
    }

    /// Attempts of this exchange at a backend, in all lanes.
    pub fn tries(&self, backend: usize) -> u32 {
        self.attempts.iter().filter(|a| a.backend == backend).count() as u32
    }

    /// Attempts of this exchange in a lane.
    pub fn attempts_in(&self, lane: Lane) -> u32 {
        self.attempts.iter().filter(|a| a.lane == lane).count() as u32
    }

    /// Returns true if a backend has answered in this exchange that no other try there can succeed: it has no such
    /// model, no room for this prompt, or refuses the request itself.
    ///
    /// ```
    /// use pointsman_sdk::Outcome;
    /// use pointsman_sdk::testing::{case, primary};
    ///
    /// let tried = case([primary("a"), primary("b")]).after(0, Outcome::TooLong).after(1, Outcome::ServerError);
    /// tried.query(|query| {
    ///     assert!(query.is_ruled_out(0) && !query.is_ruled_out(1));
    ///     assert_eq!(query.tries(1), 1);
    /// });
    /// ```
    pub fn is_ruled_out(&self, backend: usize) -> bool {
        let last_word = |o| matches!(o, Outcome::TooLong | Outcome::ModelMissing | Outcome::Refused);
        self.attempts.iter().any(|a| a.backend == backend && last_word(a.outcome))
    }

    /// Number of backends.
    pub fn backend_count(&self) -> usize {
        self.rows.len().checked_div(self.layout.stride()).unwrap_or(0)
    }
}

/// The live numbers of one backend.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    index: usize,
    numbers: &'a [u32],
    layout: &'a Layout,
}

impl Row<'_> {
    /// Its index in the table.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its state for the model of this query.
    #[inline]
    pub fn state(&self) -> State {
        State::of(self.number(Column::State))
    }

    /// Would it be sent at once?
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.number(Column::State) == State::Ready as u32
    }

    /// Returns true if it may take this request, now or later.
    pub fn is_candidate(&self) -> bool {
        matches!(self.state(), State::Ready | State::Throttled | State::Cooling | State::Probing)
    }

    /// Milliseconds left of its cooldown; 0 when there is none.
    pub fn cooldown_ms(&self) -> u32 {
        self.number(Column::CooldownMs)
    }

    /// Cause of its cooldown, or of the one that has to be probed; `Answered` without one.
    pub fn cooldown_reason(&self) -> Outcome {
        self.layout.outcome(self.number(Column::CooldownReason))
    }

    /// Milliseconds until it could take this request, cooldown and limits together; 0 now, [`NONE`](crate::NONE) unknown.
    pub fn ready_ms(&self) -> u32 {
        self.number(Column::ReadyMs)
    }

    /// Requests left before its rpm limit bites; [`NONE`](crate::NONE) unlimited.
    #[inline]
    pub fn requests_left(&self) -> u32 {
        self.number(Column::RequestsLeft)
    }

    /// Tokens left before its tpm limit bites; [`NONE`](crate::NONE) unlimited.
    #[inline]
    pub fn tokens_left(&self) -> u32 {
        self.number(Column::TokensLeft)
    }

    /// Attempts under way.
    #[inline]
    pub fn in_flight(&self) -> u32 {
        self.number(Column::InFlight)
    }

    /// Free slots of its concurrency limit; [`NONE`](crate::NONE) unlimited.
    #[inline]
    pub fn concurrency_left(&self) -> u32 {
        self.number(Column::ConcurrencyLeft)
    }

    /// Moving average of an answer's whole time, in ms; 0 unknown.
    #[inline]
    pub fn latency_ms(&self) -> u32 {
        self.number(Column::LatencyMs)
    }

    /// Moving average of the time to the first content, in ms; 0 unknown.
    #[inline]
    pub fn first_token_ms(&self) -> u32 {
        self.number(Column::FirstTokenMs)
    }

    /// Moving average of the share of failed attempts, in 1/1000.
    #[inline]
    pub fn error_permille(&self) -> u32 {
        self.number(Column::ErrorPermille)
    }

    /// Failures since the last answer.
    #[inline]
    pub fn failures(&self) -> u32 {
        self.number(Column::Failures)
    }

    /// Milliseconds until the emergency lane may use it; 0 now, [`NONE`](crate::NONE) never.
    pub fn emergency_ms(&self) -> u32 {
        self.number(Column::EmergencyMs)
    }

    /// Exchanges that wait for a backend of this one's tier and come before this one (before a new one: all).
    pub fn queued(&self) -> u32 {
        self.number(Column::Queued)
    }

    /// Things at the backend that the request builds on: 0 none, 1 its session's prompt cache, 2 those that no
    /// other backend has.
    #[inline]
    pub fn home(&self) -> u32 {
        self.number(Column::Home)
    }

    /// The number of a column, or what stands for "unknown" where the host has no such column.
    #[inline]
    fn number(&self, column: Column) -> u32 {
        self.numbers.get(self.layout.offset(column)).copied().unwrap_or(column.unknown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NONE, Table, TableParts};

    #[test]
    fn a_number_that_the_host_does_not_have_is_unknown() {
        let columns = ["novelty", "ready_ms", "state"].map(str::to_owned).into();
        let table = Table::new(TableParts { columns, ..TableParts::default() });
        let row = Row { index: 0, numbers: &[7, 80, 2], layout: table.layout() };
        assert_eq!((row.state(), row.ready_ms()), (State::Cooling, 80));
        assert_eq!((row.emergency_ms(), row.tokens_left(), row.concurrency_left()), (NONE, NONE, NONE));
        assert_eq!((row.queued(), row.failures(), row.cooldown_ms()), (0, 0, 0));
        assert_eq!(row.cooldown_reason(), Outcome::Unknown);
        let nowhere = Row { numbers: &[], ..row };
        assert_eq!((nowhere.state(), nowhere.ready_ms()), (State::Unknown, NONE));
    }

    #[test]
    fn every_state_has_its_number() {
        use State::{Cooling, Drained, Probing, Ready, Throttled, Unsuited};
        for state in [Ready, Throttled, Cooling, Probing, Drained, Unsuited] {
            assert_eq!(State::of(state as u32), state);
        }
        assert_eq!(State::of(6), State::Unknown);
    }
}
