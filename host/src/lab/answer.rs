//! What a backend gives to an attempt, and what that comes to under the attempt's time limits.
//!
//! The limits bite where the live driver's do (`drive/attempt.rs`, `drive/gate.rs`, `drive/source.rs`), and statuses, headers and bodies
//! are judged by the same code of core.
//!
//! All answers to one request say the same here, as they would at temperature 0: an attempt that resumes a broken stream
//! goes downstream with the first token that is new.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use pointsman_core::contract::{Commit, Operation};
use pointsman_core::dialect::classify::{BODY_PREFIX_BYTES, classify, classify_whole};
use pointsman_core::dialect::resume::Unfit;
use pointsman_core::dialect::usage::BodyTap;
use pointsman_core::exchange::{Ended, Facts, Join, Sending};
use pointsman_core::http::retry_after::RateHints;
use pointsman_core::outcome::{Kind, Outcome};
use pointsman_core::record::Usage;
use pointsman_core::table::Dialect;
use pointsman_core::time::Timestamp;

/// What a backend gives to one attempt.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What it is.
    pub gives: Gives,
    /// From sending to the head of a stream; none: half the time to its first content.
    pub head: Option<Duration>,
    /// From sending to the first content of a stream.
    pub first_token: Duration,
    /// From sending to the last byte, or to what happens instead of it. What is no stream comes all at once then.
    pub after: Duration,
    /// Tokens of the answer, each a piece of a stream, evenly spaced.
    pub tokens: u32,
    /// The prompt as the backend counts it; none: as it was estimated on arrival.
    pub prompt: Option<Prompt>,
}

/// A prompt's tokens as a backend counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// All of them.
    pub tokens: u32,
    /// Those that it had cached.
    pub cached: u32,
}

/// How an attempt is answered.
#[derive(Clone, Debug)]
pub enum Gives {
    /// A response; shared, because many attempts get the same.
    Response(Arc<Response>),
    /// No connection.
    ConnectFailed,
    /// The connection breaks before the head.
    Reset,
    /// Nothing, ever.
    Silence,
    /// The connection breaks inside the body.
    Cut,
    /// The body falls silent.
    Stall,
}

/// A response's head and body.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body; none: a good answer where the status is a success, else an empty one.
    pub body: Option<Bytes>,
}

/// When an attempt goes downstream, when it ends and as what; times are from its sending.
#[derive(Debug)]
pub struct Course {
    /// When its first byte goes downstream; none: never.
    pub commit: Option<Duration>,
    /// When it ends.
    pub end: Duration,
    /// As what.
    pub ended: Ended,
    /// The status of its head; 0: there was none.
    pub status: u16,
    /// What the head said is left of the provider's limits: requests, then tokens.
    pub left: (Left, Left),
}

/// So much is left of a limit, until then.
pub type Left = Option<(u32, Timestamp)>;

/// Is a stream asked for whose end can be told from a cut?
pub fn asks_stream(facts: &Facts) -> bool {
    let is_known = match facts.operation {
        Operation::Chat | Operation::Completion | Operation::Response | Operation::Message => true,
        Operation::Embedding | Operation::Other => false,
    };
    facts.streaming && is_known
}

/// What an attempt comes to that is sent at `sent_at` and gets `answer`; the client has `told` tokens already.
pub fn course(
    answer: &Answer,
    facts: &Facts,
    sending: &Sending,
    dialect: Dialect,
    sent_at: Timestamp,
    told: u32,
) -> Course {
    let run = Run { answer, facts, sending, dialect, sent_at, told };
    let mut course = match &answer.gives {
        Gives::ConnectFailed => run.no_connection(),
        Gives::Reset => {
            run.before_head(answer.after, Outcome::new(Kind::Reset, "the connection broke before the response head"))
        }
        Gives::Silence => run.no_head(),
        Gives::Response(response) if response.status >= 400 => run.refusal(response),
        Gives::Response(_) | Gives::Cut | Gives::Stall if run.is_stream() => run.stream(),
        Gives::Response(response) => run.whole(response),
        Gives::Cut => run.broken_whole(answer.after, cut()),
        Gives::Stall => {
            let (at, outcome) = run.silent_since(answer.after);
            run.broken_whole(at, outcome)
        }
    };
    if let Gives::Response(response) = &answer.gives
        && let Some(head_at) = course.ended.first_byte.or((course.status >= 400).then_some(course.end))
    {
        course.left = run.learned(&response.headers, head_at);
    }
    course
}

struct Run<'a> {
    answer: &'a Answer,
    facts: &'a Facts,
    sending: &'a Sending,
    dialect: Dialect,
    sent_at: Timestamp,
    told: u32,
}

impl Run<'_> {
    fn learned(&self, headers: &HeaderMap, head_at: Duration) -> (Left, Left) {
        let now = self.sent_at + head_at;
        let hints = RateHints::parse(headers, now);
        (hints.requests.left_until(now), hints.tokens.left_until(now))
    }

    fn no_connection(&self) -> Course {
        let limit = self.sending.timeouts.connect;
        let outcome = match self.answer.after > limit {
            true => Outcome::new(Kind::ConnectFailed, format!("no connection within {limit:?} (timeouts.connect_ms)")),
            false => Outcome::new(Kind::ConnectFailed, "the connection was refused"),
        };
        self.before_head(self.answer.after.min(limit), outcome)
    }

    /// The longest that a head may take.
    fn head_limit(&self) -> Duration {
        self.sending.timeouts.first_byte.min(self.sending.timeouts.total)
    }

    fn no_head(&self) -> Course {
        let limit = self.head_limit();
        let text = format!("no response head within {limit:?} (timeouts.first_byte_ms)");
        failed(limit, Ended::failed(Outcome::new(Kind::TimedOut, text)), 0)
    }

    fn before_head(&self, at: Duration, outcome: Outcome) -> Course {
        if at > self.head_limit() { self.no_head() } else { failed(at, Ended::failed(outcome), 0) }
    }

    fn refusal(&self, response: &Response) -> Course {
        let at = self.answer.after;
        if at > self.head_limit() {
            return self.no_head();
        }
        let body = response.body.as_deref().unwrap_or_default();
        let prefix = &body[..body.len().min(BODY_PREFIX_BYTES)];
        let mut outcome = classify(self.dialect, response.status, &response.headers, prefix, self.sent_at + at);
        if self.sending.join == Some(Join::Prefill) && outcome.kind == Kind::Refused {
            outcome.kind = Kind::NotResumed;
        }
        failed(at, Ended::failed(outcome), response.status)
    }

    /// A whole answer is held until it is complete; what no model answers is passed on as it comes.
    fn whole(&self, response: &Response) -> Course {
        let at = self.answer.after;
        if at > self.head_limit() {
            return self.no_head();
        }
        let status = response.status;
        let outcome = match &response.body {
            Some(body) if self.is_held() => {
                classify_whole(self.dialect, status, &response.headers, body, self.sent_at + at)
            }
            Some(_) | None => Outcome::answered(status),
        };
        if outcome.kind != Kind::Answered {
            let ended = Ended { first_byte: Some(at), ..Ended::failed(outcome) };
            return failed(at, ended, status);
        }
        let usage = self.usage_of_whole(response);
        let ended = Ended { outcome, usage, first_byte: Some(at), first_token: None };
        Course { commit: Some(at), end: at, ended, status, left: NOTHING_LEARNED }
    }

    /// `at` is when it is noticed.
    fn broken_whole(&self, at: Duration, outcome: Outcome) -> Course {
        let head_at = self.answer.after;
        if head_at > self.head_limit() {
            return self.no_head();
        }
        let ended = Ended { first_byte: Some(head_at), ..Ended::failed(outcome) };
        let commit = (!self.is_held()).then_some(head_at);
        Course { commit, end: at, ended, status: 200, left: NOTHING_LEARNED }
    }

    fn is_held(&self) -> bool {
        self.facts.operation != Operation::Other
    }

    fn usage_of_whole(&self, response: &Response) -> Usage {
        if let Some(body) = &response.body {
            let mut tap = BodyTap::new(self.dialect);
            tap.push(body);
            return tap.usage().unwrap_or_default();
        }
        if response.status >= 300 || self.dialect.is_opaque() {
            return Usage::default();
        }
        match self.facts.operation {
            Operation::Chat | Operation::Completion | Operation::Response | Operation::Message => {
                self.usage(self.answer.tokens, false)
            }
            Operation::Embedding => self.usage(0, false),
            Operation::Other => Usage::default(),
        }
    }

    fn usage(&self, output_tokens: u32, estimated: bool) -> Usage {
        let prompt = self.answer.prompt.unwrap_or(Prompt { tokens: self.facts.prompt_tokens, cached: 0 });
        Usage {
            input_tokens: prompt.tokens.into(),
            output_tokens: output_tokens.into(),
            cached_input_tokens: prompt.cached.into(),
            estimated,
        }
    }

    /// Is it a stream whose end can be told from a cut? A body that the script writes out is none.
    fn is_stream(&self) -> bool {
        let written_out = matches!(&self.answer.gives, Gives::Response(r) if r.body.is_some() || r.status >= 300);
        asks_stream(self.facts) && !written_out
    }

    fn stream(&self) -> Course {
        let pieces = Pieces::of(self.answer);
        if pieces.head > self.head_limit() {
            return self.no_head();
        }
        let opens = self.gate_opens(&pieces);
        let (end, outcome) = self.stream_ends(&pieces, opens);
        let commit = opens.filter(|at| *at <= end);
        let first_token = Some(pieces.first).filter(|at| pieces.count > 0 && *at <= end);
        let usage = self.usage_of_stream(&pieces, end, outcome.kind);
        let ended = Ended { outcome, usage, first_byte: Some(pieces.head), first_token };
        Course { commit, end, ended, status: 200, left: NOTHING_LEARNED }
    }

    /// When the commit gate opens, if nothing goes wrong before.
    fn gate_opens(&self, pieces: &Pieces) -> Option<Duration> {
        let finish = (self.finishes() && !self.is_too_short()).then_some(pieces.last);
        match self.sending.join {
            Some(Join::Splice) => return pieces.at(self.told.saturating_add(1)).or(finish),
            Some(Join::Prefill) => return pieces.at(1).or(finish),
            None => {}
        }
        match self.sending.commit {
            Commit::Headers => Some(pieces.head),
            Commit::FirstContent => pieces.at(1).or(finish),
            Commit::Tokens(n) => pieces.at(n).or(finish),
            Commit::Complete => finish,
        }
    }

    /// Does it end before what the client has already?
    fn is_too_short(&self) -> bool {
        self.sending.join == Some(Join::Splice) && self.answer.tokens < self.told
    }

    fn finishes(&self) -> bool {
        matches!(self.answer.gives, Gives::Response(_))
    }

    /// The end that comes first: its own, or that of a limit.
    fn stream_ends(&self, pieces: &Pieces, opens: Option<Duration>) -> (Duration, Outcome) {
        let limits = &self.sending.timeouts;
        let own = match self.answer.gives {
            Gives::Stall => self.silent_since(pieces.last),
            Gives::Cut => (pieces.last, cut()),
            Gives::Response(_) if self.is_too_short() => {
                (pieces.last, Outcome::new(Kind::NotResumed, Unfit::Shorter.to_string()))
            }
            Gives::Response(_) | Gives::ConnectFailed | Gives::Reset | Gives::Silence => {
                (pieces.last, Outcome::answered(200))
            }
        };
        let silence = pieces.silence_over(limits.idle).map(|since| self.silent_since(since));
        let total = (limits.total, Outcome::new(Kind::TimedOut, TOO_LONG));
        let late =
            (opens != Some(pieces.head) && pieces.at(1).unwrap_or(pieces.last) > limits.first_token).then(|| {
                let text = format!("no first token within {:?} (timeouts.first_token_ms)", limits.first_token);
                (limits.first_token.max(pieces.head), Outcome::new(Kind::TimedOut, text))
            });
        // Of two that come at the same time the stream's own wins: the bytes are there.
        [Some(own), silence, late, Some(total)].into_iter().flatten().min_by_key(|(at, _)| *at).expect("one is its own")
    }

    /// Bytes came at `since` and none after.
    fn silent_since(&self, since: Duration) -> (Duration, Outcome) {
        let limits = &self.sending.timeouts;
        if since + limits.idle >= limits.total {
            return (limits.total, Outcome::new(Kind::TimedOut, TOO_LONG));
        }
        let text = format!("the stream was silent for {:?} (timeouts.idle_ms)", limits.idle);
        (since + limits.idle, Outcome::new(Kind::Stalled, text))
    }

    /// A stream that finished told its usage; of any other the pieces are counted.
    fn usage_of_stream(&self, pieces: &Pieces, end: Duration, kind: Kind) -> Usage {
        let answered = kind == Kind::Answered;
        let seen = if answered { pieces.count } else { pieces.seen_by(end) };
        if self.dialect.is_opaque() || (seen == 0 && !answered) {
            return Usage::default();
        }
        self.usage(seen, !answered)
    }
}

/// When the pieces of a stream come.
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

    /// When the nth content comes, counted from 1.
    fn at(&self, n: u32) -> Option<Duration> {
        (1..=self.count).contains(&n).then(|| self.first + self.gap * (n - 1))
    }

    /// Since when it is silent for longer than `idle` for the first time before its last piece.
    fn silence_over(&self, idle: Duration) -> Option<Duration> {
        let second = if self.count > 0 { self.first } else { self.last };
        if second - self.head > idle {
            return Some(self.head);
        }
        (self.count > 0 && self.gap > idle).then_some(self.first)
    }

    fn seen_by(&self, at: Duration) -> u32 {
        if self.count == 0 || at < self.first {
            return 0;
        }
        let more = (at - self.first).as_micros().checked_div(self.gap.as_micros());
        more.map_or(self.count, |more| u32::try_from(more).unwrap_or(u32::MAX).saturating_add(1).min(self.count))
    }
}

const TOO_LONG: &str = "the attempt took longer than its total time limit";

const NOTHING_LEARNED: (Left, Left) = (None, None);

fn cut() -> Outcome {
    Outcome::new(Kind::Cut, "the connection broke inside the answer")
}

fn failed(end: Duration, ended: Ended, status: u16) -> Course {
    Course { commit: None, end, ended, status, left: NOTHING_LEARNED }
}

#[cfg(test)]
mod tests {
    use pointsman_core::contract::{NONE, Resume};
    use pointsman_core::table::{Lane, Timeouts};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn answer(gives: Gives, first_token_ms: u32, after_ms: u32, tokens: u32) -> Answer {
        Answer { gives, head: None, first_token: MS * first_token_ms, after: MS * after_ms, tokens, prompt: None }
    }

    fn ok() -> Gives {
        Gives::Response(Arc::new(Response { status: 200, ..Response::default() }))
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
            crosses: false,
            acts: false,
        }
    }

    fn limits() -> Timeouts {
        Timeouts { connect: MS * 50, first_byte: MS * 1_000, first_token: MS * 500, idle: MS * 300, total: MS * 5_000 }
    }

    /// Commit, end (both in ms) and kind of an attempt.
    fn came_to(answer: &Answer, streaming: bool, commit: Commit) -> (Option<u128>, u128, Kind) {
        let (lane, resume, model) = (Lane::Primary, Resume::None, "m".to_owned());
        let sending = Sending { backend: 0, lane, model, timeouts: limits(), commit, resume, join: None };
        let course = course(answer, &facts(streaming), &sending, Dialect::OPENAI, Timestamp::from_millis(5), 0);
        (course.commit.map(|at| at.as_millis()), course.end.as_millis(), course.ended.outcome.kind)
    }

    #[test]
    fn a_whole_answer_is_committed_when_it_is_complete() {
        let whole = |gives, after| came_to(&answer(gives, 0, after, 20), false, Commit::FirstContent);
        assert_eq!(whole(ok(), 400), (Some(400), 400, Kind::Answered));
        assert_eq!(whole(ok(), 1_001), (None, 1_000, Kind::TimedOut));
        assert_eq!(whole(Gives::Cut, 400), (None, 400, Kind::Cut));
        assert_eq!(whole(Gives::Stall, 400), (None, 700, Kind::Stalled));
        assert_eq!(whole(Gives::Silence, 400), (None, 1_000, Kind::TimedOut));
        assert_eq!(whole(Gives::ConnectFailed, 20), (None, 20, Kind::ConnectFailed));
        assert_eq!(whole(Gives::ConnectFailed, 400), (None, 50, Kind::ConnectFailed));
        assert_eq!(whole(Gives::Reset, 400), (None, 400, Kind::Reset));
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
        let cut = |tokens, commit| came_to(&answer(Gives::Cut, 100, 300, tokens), true, commit);
        assert_eq!(cut(0, Commit::FirstContent), (None, 300, Kind::Cut));
        assert_eq!(cut(3, Commit::FirstContent), (Some(100), 300, Kind::Cut));
        assert_eq!(cut(3, Commit::Complete), (None, 300, Kind::Cut));
        assert_eq!(
            came_to(&answer(Gives::Stall, 100, 400, 3), true, Commit::Tokens(2)),
            (Some(200), 700, Kind::Stalled)
        );
    }

    #[test]
    fn a_stream_is_held_to_its_time_limits() {
        let stream = |first, after, tokens, commit| came_to(&answer(ok(), first, after, tokens), true, commit);
        assert_eq!(stream(600, 900, 20, Commit::FirstContent), (None, 500, Kind::TimedOut), "first token");
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
        let usage = |gives| {
            let answer = answer(gives, 100, 400, 3);
            course(&answer, &facts(true), &sending, Dialect::OPENAI, Timestamp::default(), 0).ended.usage
        };
        let whole = Usage { input_tokens: 10, output_tokens: 3, ..Usage::default() };
        assert_eq!(usage(ok()), whole);
        assert_eq!(usage(Gives::Cut), Usage { estimated: true, ..whole });
    }

    #[test]
    fn a_resume_goes_downstream_with_the_first_token_that_is_new() {
        let joined = |join, tokens, told| {
            let (lane, resume, model) = (Lane::Primary, Resume::Splice, "m".to_owned());
            let commit = Commit::FirstContent;
            let sending = Sending { backend: 0, lane, model, timeouts: limits(), commit, resume, join: Some(join) };
            let answer = answer(ok(), 100, 300, tokens);
            let course = course(&answer, &facts(true), &sending, Dialect::OPENAI, Timestamp::default(), told);
            (course.commit.map(|at| at.as_millis()), course.ended.outcome.kind)
        };
        assert_eq!(joined(Join::Splice, 4, 2), (Some(200), Kind::Answered), "the third token");
        assert_eq!(joined(Join::Splice, 4, 4), (Some(300), Kind::Answered), "only its end is new");
        assert_eq!(joined(Join::Splice, 4, 5), (None, Kind::NotResumed), "it is shorter");
        assert_eq!(joined(Join::Prefill, 4, 5), (Some(100), Kind::Answered), "all of it is new");
    }
}
