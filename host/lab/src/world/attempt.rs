//! An attempt of a world: core's state machine, fed with the answer that its backend gives.
//!
//! The answer is known when the attempt is sent, so the machine is run at once, in the attempt's own time: to its end, or to
//! a time limit that ends it only where another backend can answer. Whether one can is asked when that time has come, and
//! the machine run again with the decision. Bytes are made only where a script writes a body out; everything else is digested, and pieces
//! between which nothing can happen come in one step.
//!
//! All answers to one request say the same here, as they would at temperature 0: an attempt that resumes a broken stream
//! goes downstream with the first token that is new.

use std::time::Duration;

use http::HeaderMap;
use http::response::Parts;
use pointsman_core::attempt::{Attempt, BodyKind, Digest, Input, LimitLeft, Output, PromptCount};
use pointsman_core::contract::Commit;
use pointsman_core::exchange::{Ended, Facts, Join, Sending};
use pointsman_core::outcome::{Kind, Outcome};
use pointsman_core::overdue::Overdue;
use pointsman_core::record::Usage;
use pointsman_core::table::Dialect;
use pointsman_core::time::Timestamp;

use crate::answer::{Answer, Behavior, Response, asks_stream};

/// Result of an attempt, as far as it is known: when it commits, when and how it ends; times are from its sending.
#[derive(Debug)]
pub(super) struct AttemptResult {
    /// Time of the first byte downstream; `None`: never.
    pub(super) commit: Option<Duration>,
    /// Time of the end.
    pub(super) end: Duration,
    /// Outcome and usage that it ends with.
    pub(super) ended: Ended,
    /// The status of its head; 0: there was none.
    pub(super) status: u16,
    /// Units left of the provider's limits by the head: requests, then tokens.
    pub(super) limits_left: (LimitLeft, LimitLeft),
    /// The time limit that passes at `end` and ends the attempt only where another backend can answer; to be run again
    /// when that is decided.
    pub(super) overdue: Option<Overdue>,
}

/// The decision about a time limit that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Late {
    /// The attempt ends.
    Ends,
    /// The limit is put off to this time.
    GoesOn(Timestamp),
}

/// A request at a backend, and how much of the answer its client has already.
#[derive(Clone, Copy)]
pub(super) struct Sent<'a> {
    pub(super) facts: &'a Facts,
    pub(super) sending: &'a Sending,
    pub(super) dialect: Dialect,
    pub(super) at: Timestamp,
    /// Content events that its client has had before.
    pub(super) told: u32,
}

/// Runs an attempt that gets this answer, up to the first limit that passes after those that are `decided`.
pub(super) fn run(answer: &Answer, sent: Sent<'_>, decided: &[Late]) -> AttemptResult {
    run_in(answer, sent, decided, Steps::Batches)
}

/// The way the pieces of a stream are fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Steps {
    /// Those between which nothing can happen in one step.
    Batches,
    /// Each by itself; comes to the same, and takes longer.
    #[cfg(test)]
    Pieces,
}

fn run_in(answer: &Answer, sent: Sent<'_>, decided: &[Late], steps: Steps) -> AttemptResult {
    let prompt = answer.prompt.unwrap_or(PromptCount { tokens: sent.facts.prompt_tokens, cached: 0 });
    let Sent { facts, sending, dialect, at, told } = sent;
    let attempt = Attempt::simulated(at, facts, dialect, sending, prompt, told);
    let (now, after) = (at, Duration::ZERO);
    let mut run =
        Run { answer, sent, prompt, attempt, steps, decided, overdue: None, now, after, commit: None, end: None };
    match &answer.behavior {
        Behavior::ConnectFailed => run.no_connection(),
        Behavior::Reset => {
            let reset = Outcome::new(Kind::Reset, "the connection broke before the response head");
            run.feed(answer.after, Input::SendFailed(reset));
        }
        Behavior::Silence => {}
        Behavior::Response(response) if response.status >= 400 || response.body.is_some() => run.in_bytes(response),
        Behavior::Response(response) if response.status >= 300 || !asks_stream(facts) => run.whole(response),
        Behavior::Response(_) | Behavior::Cut | Behavior::Stall if asks_stream(facts) => run.stream(),
        Behavior::Response(_) | Behavior::Cut | Behavior::Stall => {
            run.feed(answer.after, head(200, HeaderMap::new(), BodyKind::Digest));
            if matches!(answer.behavior, Behavior::Cut) {
                run.feed(answer.after, Input::Broken(cut()));
            }
        }
    }
    run.result()
}

struct Run<'a> {
    answer: &'a Answer,
    sent: Sent<'a>,
    prompt: PromptCount,
    attempt: Attempt,
    steps: Steps,
    /// Limits that passed, not yet met.
    decided: &'a [Late],
    overdue: Option<Overdue>,
    now: Timestamp,
    /// The same moment from the sending on, to the nanosecond.
    after: Duration,
    commit: Option<Duration>,
    end: Option<(Duration, Ended)>,
}

impl Run<'_> {
    /// Feeds an input that comes this long after the sending, and before it the timers that are due until then.
    fn feed(&mut self, after: Duration, input: Input) {
        self.pass_until(self.sent.at + after);
        self.step(after, input);
    }

    fn pass_until(&mut self, until: Timestamp) {
        while self.end.is_none() && self.attempt.wake_at() < until {
            let due_at = self.attempt.wake_at();
            let due = due_at.since(self.sent.at);
            if let Some(overdue) = self.attempt.overdue(due_at) {
                match self.decided.split_first() {
                    Some((Late::Ends, rest)) => self.decided = rest,
                    Some((Late::GoesOn(later), rest)) => {
                        self.decided = rest;
                        self.attempt.put_off(*later);
                        continue;
                    }
                    None => {
                        self.overdue = Some(overdue);
                        // As it would be if it ended now.
                        return self.step(due, Input::ClientGone);
                    }
                }
            }
            self.step(due, Input::Timer);
        }
    }

    fn step(&mut self, after: Duration, input: Input) {
        if self.end.is_some() {
            return;
        }
        self.after = self.after.max(after);
        self.now = self.now.max(self.sent.at + after);
        match self.attempt.step(self.now, input) {
            // Nothing is added to a request that is not sent.
            Output::Wait | Output::Deliver(_) | Output::SendAgain => {}
            Output::Commit(_) => self.commit = Some(self.after),
            Output::Whole(_, ended) => (self.commit, self.end) = (Some(self.after), Some((self.after, ended))),
            Output::Ended(_, ended) => self.end = Some((self.after, ended)),
        }
    }

    fn result(mut self) -> AttemptResult {
        self.pass_until(Timestamp::from_micros(u64::MAX));
        let (status, limits_left) = (self.attempt.status(), self.attempt.limits_left());
        let (end, ended) = self.end.unwrap_or_else(|| {
            // No limit that can be configured is so long.
            let outcome = Outcome::new(Kind::TimedOut, "the attempt never ended");
            (self.after, Ended::failed(outcome))
        });
        AttemptResult { commit: self.commit, end, ended, status, limits_left, overdue: self.overdue }
    }

    /// The time limit of a connection is that of the connection pool.
    fn no_connection(&mut self) {
        let limit = self.sent.sending.timeouts.connect;
        let text = match self.answer.after > limit {
            true => format!("no connection within {limit:?} (timeouts.connect_ms)"),
            false => "the connection was refused".to_owned(),
        };
        let outcome = Outcome::new(Kind::ConnectFailed, text);
        self.feed(self.answer.after.min(limit), Input::SendFailed(outcome));
    }

    /// A body that is written out, or that of a refusal.
    fn in_bytes(&mut self, response: &Response) {
        let body = response.body.clone().unwrap_or_default();
        let kind = if body.is_empty() { BodyKind::Empty } else { BodyKind::Bytes };
        self.feed(self.answer.after, head(response.status, response.headers.clone(), kind));
        self.feed(self.answer.after, Input::LastBytes(body));
        self.feed(self.answer.after, Input::End);
    }

    /// An answer in one piece comes all at once.
    fn whole(&mut self, response: &Response) {
        let after = self.answer.after;
        let operation = self.sent.facts.operation;
        let tokens = operation.is_read().then(|| if operation.has_streams() { self.answer.tokens } else { 0 });
        let usage = tokens.filter(|_| response.status < 300).and_then(|tokens| self.usage(tokens));
        self.feed(after, head(response.status, response.headers.clone(), BodyKind::Digest));
        self.feed(after, Input::Digest(Digest { usage, ..Digest::default() }));
        self.feed(after, Input::End);
    }

    /// As the provider tells it; none: this one does not.
    fn usage(&self, output_tokens: u32) -> Option<Usage> {
        let PromptCount { tokens, cached } = self.prompt;
        (!self.sent.dialect.is_opaque()).then(|| Usage {
            input_tokens: tokens.into(),
            output_tokens: output_tokens.into(),
            cached_input_tokens: cached.into(),
            ..Usage::NONE
        })
    }

    fn stream(&mut self) {
        let pieces = Pieces::of(self.answer);
        let headers = match &self.answer.behavior {
            Behavior::Response(response) => response.headers.clone(),
            Behavior::ConnectFailed | Behavior::Reset | Behavior::Silence | Behavior::Cut | Behavior::Stall => {
                HeaderMap::new()
            }
        };
        self.feed(pieces.head, head(200, headers, BodyKind::Digest));
        let mut fed = 0;
        while fed < pieces.count && self.end.is_none() {
            let upto = self.batch(&pieces, fed);
            let digest = Digest { contents: (upto - fed).into(), is_new: self.is_new(upto), ..Digest::default() };
            // Whatever passes before the first of them passes; between them nothing does.
            self.pass_until(self.sent.at + pieces.at(fed + 1));
            self.step(pieces.at(upto), Input::Digest(digest));
            fed = upto;
        }
        match self.answer.behavior {
            Behavior::Cut => self.feed(pieces.last, Input::Broken(cut())),
            // The last sign of life.
            Behavior::Stall => self.feed(pieces.last, Input::Digest(Digest::default())),
            Behavior::Response(_) | Behavior::ConnectFailed | Behavior::Reset | Behavior::Silence => {
                // The end is new too, to a client that has no more than this.
                let is_new = self.is_new(pieces.count.saturating_add(1));
                let usage = self.usage(pieces.count);
                self.feed(pieces.last, Input::Digest(Digest { is_finish: true, is_new, usage, ..Digest::default() }));
                self.feed(pieces.last, Input::End);
            }
        }
    }

    /// The last of the pieces that can come in one step, because nothing can happen between them: the gate opens with
    /// none before it, they come in quicker succession than silence is allowed, and all of them in time.
    fn batch(&self, pieces: &Pieces, fed: u32) -> u32 {
        let limits = &self.sent.sending.timeouts;
        if self.steps != Steps::Batches || pieces.gap > limits.idle {
            return fed + 1;
        }
        let upto = [1, self.opening()].into_iter().filter(|piece| *piece > fed).min().unwrap_or(pieces.count);
        upto.min(pieces.count).min(pieces.seen_by(limits.total)).max(fed + 1)
    }

    /// The piece that opens the gate at the latest.
    fn opening(&self) -> u32 {
        match (self.resumes(), self.sent.sending.commit) {
            (Some(Join::Splice), _) => self.sent.told.saturating_add(1),
            (None, Commit::Tokens(n)) => n,
            (Some(Join::Prefill), _) | (None, Commit::Headers | Commit::FirstContent | Commit::Complete) => 1,
        }
    }

    /// Returns true if the nth piece, counted from 1, is new to the client.
    fn is_new(&self, n: u32) -> bool {
        self.resumes() != Some(Join::Splice) || n > self.sent.told
    }

    fn resumes(&self) -> Option<Join> {
        self.sent.sending.join.filter(|_| self.sent.told > 0)
    }
}

fn head(status: u16, headers: HeaderMap, body: BodyKind) -> Input {
    let (mut head, ()): (Parts, ()) = http::Response::new(()).into_parts();
    head.status = http::StatusCode::from_u16(status).unwrap_or_default();
    head.headers = headers;
    Input::Head(head, body)
}

fn cut() -> Outcome {
    Outcome::new(Kind::Cut, "the connection broke inside the answer")
}

/// Times of the pieces of a stream.
struct Pieces {
    head: Duration,
    first: Duration,
    gap: Duration,
    count: u32,
    /// The finish, or the last sign of life.
    last: Duration,
}

impl Pieces {
    fn of(answer: &Answer) -> Self {
        let first = answer.first_token.min(answer.after);
        let gap = (answer.after - first) / answer.tokens.max(1);
        let head = answer.head.unwrap_or(first / 2).min(first);
        Self { head, first, gap, count: answer.tokens, last: answer.after }
    }

    /// Returns the time of the nth content, counted from 1.
    fn at(&self, n: u32) -> Duration {
        self.first + self.gap * n.saturating_sub(1)
    }

    fn seen_by(&self, at: Duration) -> u32 {
        if self.count == 0 || at < self.first {
            return 0;
        }
        let more = (at - self.first).as_nanos().checked_div(self.gap.as_nanos());
        more.map_or(self.count, |more| u32::try_from(more).unwrap_or(u32::MAX).saturating_add(1).min(self.count))
    }
}

#[cfg(test)]
mod tests {
    use pointsman_core::contract::Operation;
    use std::sync::Arc;

    use pointsman_core::contract::{NONE, Resume};
    use pointsman_core::table::{Lane, Timeouts};
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn answer(behavior: Behavior, first_token_ms: u32, after_ms: u32, tokens: u32) -> Answer {
        Answer { behavior, head: None, first_token: MS * first_token_ms, after: MS * after_ms, tokens, prompt: None }
    }

    fn ok() -> Behavior {
        Behavior::Response(Arc::new(Response { status: 200, ..Response::default() }))
    }

    fn facts(streaming: bool) -> Facts {
        let operation = Operation::Chat;
        Facts {
            operation,
            streaming,
            priority: 0,
            prompt_tokens: 10,
            max_tokens: 0,
            client: NONE,
            session: 0,
            translatable: false,
            idempotent: true,
        }
    }

    fn limits() -> Timeouts {
        let (first_byte, first_token, idle, total) = (MS * 1_000, MS * 500, MS * 300, MS * 5_000);
        Timeouts { connect: MS * 50, first_byte, first_token, idle, total, stream_total: Some(total) }
    }

    fn sent(answer: &Answer, facts: &Facts, sending: &Sending, told: u32) -> AttemptResult {
        let sent = Sent { facts, sending, dialect: Dialect::OPENAI, at: Timestamp::from_millis(5), told };
        // Somebody else is ready at any time.
        run(answer, sent, &[Late::Ends])
    }

    /// Commit, end (both in ms) and kind of an attempt.
    fn came_to(answer: &Answer, streaming: bool, commit: Commit) -> (Option<u128>, u128, Kind) {
        let (lane, resume, model) = (Lane::Primary, Resume::None, "m".to_owned());
        let sending = Sending { backend: 0, lane, model, timeouts: limits(), commit, resume, join: None };
        let result = sent(answer, &facts(streaming), &sending, 0);
        (result.commit.map(|at| at.as_millis()), result.end.as_millis(), result.ended.outcome.kind)
    }

    #[test]
    fn a_whole_answer_is_committed_when_it_is_complete() {
        let whole = |behavior, after| came_to(&answer(behavior, 0, after, 20), false, Commit::FirstContent);
        assert_eq!(whole(ok(), 400), (Some(400), 400, Kind::Answered));
        assert_eq!(whole(ok(), 1_001), (None, 1_000, Kind::TimedOut));
        assert_eq!(whole(Behavior::Cut, 400), (None, 400, Kind::Cut));
        assert_eq!(whole(Behavior::Stall, 400), (None, 700, Kind::Stalled));
        assert_eq!(whole(Behavior::Silence, 400), (None, 1_000, Kind::TimedOut));
        assert_eq!(whole(Behavior::ConnectFailed, 20), (None, 20, Kind::ConnectFailed));
        assert_eq!(whole(Behavior::ConnectFailed, 400), (None, 50, Kind::ConnectFailed));
        assert_eq!(whole(Behavior::Reset, 400), (None, 400, Kind::Reset));
    }

    #[test]
    fn the_gate_decides_when_a_stream_is_committed() {
        let stream = |commit| came_to(&answer(ok(), 100, 500, 4), true, commit);
        assert_eq!(stream(Commit::Headers), (Some(50), 500, Kind::Answered));
        assert_eq!(stream(Commit::FirstContent), (Some(100), 500, Kind::Answered));
        assert_eq!(stream(Commit::Tokens(3)), (Some(300), 500, Kind::Answered));
        assert_eq!(stream(Commit::Tokens(9)), (Some(500), 500, Kind::Answered));
        assert_eq!(stream(Commit::Complete), (Some(500), 500, Kind::Answered));
    }

    #[test]
    fn a_break_before_the_gate_is_a_failed_attempt_and_after_it_a_broken_answer() {
        let cut = |tokens, commit| came_to(&answer(Behavior::Cut, 100, 300, tokens), true, commit);
        assert_eq!(cut(0, Commit::FirstContent), (None, 300, Kind::Cut));
        assert_eq!(cut(3, Commit::FirstContent), (Some(100), 300, Kind::Cut));
        assert_eq!(cut(3, Commit::Complete), (None, 300, Kind::Cut));
        assert_eq!(
            came_to(&answer(Behavior::Stall, 100, 400, 3), true, Commit::Tokens(2)),
            (Some(200), 700, Kind::Stalled)
        );
    }

    #[test]
    fn a_stream_is_held_to_its_time_limits() {
        let stream = |first, after, tokens, commit| came_to(&answer(ok(), first, after, tokens), true, commit);
        assert_eq!(stream(700, 900, 20, Commit::FirstContent), (None, 650, Kind::Stalled), "silence after its head");
        assert_eq!(stream(2_200, 2_300, 20, Commit::FirstContent), (None, 1_000, Kind::TimedOut), "head");
        assert_eq!(stream(600, 900, 20, Commit::Headers), (Some(300), 900, Kind::Answered), "committed by its head");
        assert_eq!(stream(100, 1_100, 2, Commit::FirstContent), (Some(100), 400, Kind::Stalled), "gaps of 500 ms");
        assert_eq!(stream(100, 9_000, 100, Commit::FirstContent), (Some(100), 5_000, Kind::TimedOut), "total");
    }

    #[test]
    fn what_was_seen_of_a_cut_stream_is_counted() {
        let (lane, resume, model) = (Lane::Primary, Resume::None, "m".to_owned());
        let sending =
            Sending { backend: 0, lane, model, timeouts: limits(), commit: Commit::FirstContent, resume, join: None };
        let usage = |behavior| {
            let answer = answer(behavior, 100, 400, 3);
            sent(&answer, &facts(true), &sending, 0).ended.usage
        };
        let whole = Usage { input_tokens: 10, output_tokens: 3, ..Usage::default() };
        assert_eq!(usage(ok()), whole);
        assert_eq!(usage(Behavior::Cut), Usage { estimated: true, ..whole });
    }

    #[test]
    fn a_resume_goes_downstream_with_the_first_token_that_is_new() {
        let joined = |join, tokens, told| {
            let (lane, resume, model) = (Lane::Primary, Resume::Splice, "m".to_owned());
            let commit = Commit::FirstContent;
            let sending = Sending { backend: 0, lane, model, timeouts: limits(), commit, resume, join: Some(join) };
            let answer = answer(ok(), 100, 300, tokens);
            let result = sent(&answer, &facts(true), &sending, told);
            (result.commit.map(|at| at.as_millis()), result.ended.outcome.kind)
        };
        assert_eq!(joined(Join::Splice, 4, 2), (Some(200), Kind::Answered), "the third token");
        assert_eq!(joined(Join::Splice, 4, 4), (Some(300), Kind::Answered), "only its end is new");
        assert_eq!(joined(Join::Splice, 4, 5), (None, Kind::NotResumed), "it is shorter");
        assert_eq!(joined(Join::Prefill, 4, 5), (Some(100), Kind::Answered), "all of it is new");
    }

    fn gates() -> impl Strategy<Value = Commit> {
        prop_oneof![
            Just(Commit::Headers),
            Just(Commit::FirstContent),
            (1u32..30).prop_map(Commit::Tokens),
            Just(Commit::Complete),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]
        #[test]
        fn pieces_fed_in_batches_come_to_what_each_by_itself_comes_to(
            first in 0u32..700,
            rest in 0u32..9_000,
            tokens in 0u32..40,
            behavior in prop::sample::select(vec![ok(), Behavior::Cut, Behavior::Stall]),
            commit in gates(),
            told in 0u32..12,
            join in prop::option::of(prop::sample::select(vec![Join::Splice, Join::Prefill])),
        ) {
            let (lane, resume, model) = (Lane::Primary, Resume::None, "m".to_owned());
            let sending = Sending { backend: 0, lane, model, timeouts: limits(), commit, resume, join };
            let answer = answer(behavior, first, first + rest, tokens);
            let (dialect, at) = (Dialect::OPENAI, Timestamp::from_millis(5));
            let facts = facts(true);
            let sent = Sent { facts: &facts, sending: &sending, dialect, at, told };
            let [one, other] = [Steps::Batches, Steps::Pieces].map(|steps| run_in(&answer, sent, &[Late::Ends], steps));
            prop_assert_eq!((one.commit, one.end), (other.commit, other.end));
            prop_assert_eq!(one.ended.outcome, other.ended.outcome);
            prop_assert_eq!(one.ended.usage, other.ended.usage);
            prop_assert_eq!(one.ended.first_token, other.ended.first_token);
        }
    }
}
