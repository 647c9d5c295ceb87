//! The explanation of an exchange: what happened to it, in the order of time, in words.
//!
//! A [`Story`] is plain data, told by a [`Teller`]: of a world as it happens, and of what a server has recorded.

mod backend_snapshot;
mod decided;
mod passed_over;
mod teller;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::denial::Denial;
use pointsman_core::exchange::{Facts, Join};
use pointsman_core::journal::StateUse;
use pointsman_core::outcome::Scope;
use pointsman_core::record::AttemptRecord;
use pointsman_core::table::{Lane, Tier};
use pointsman_core::text::OneLine;
use pointsman_core::usd::Usd;

pub use backend_snapshot::BackendSnapshot;
pub use decided::{Decided, DecidedWhat, Ended};
pub use passed_over::{Choice, PassedOver, Why, passed_over};
pub use teller::{Answered, Sent, Teller};

/// Backends told of one question; of more only the number is told.
const MAX_LISTED: usize = 12;

/// Everything that happened to one exchange.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Story {
    /// Title of the exchange: "request 2: m, 100 prompt tokens".
    pub title: String,
    /// Moments with their times, oldest first; time 0 is the caller's choice.
    pub moments: Vec<(Duration, Moment)>,
}

/// An event of a story.
#[derive(Clone, Debug, PartialEq)]
pub enum Moment {
    /// The request arrived.
    Arrived,
    /// The policy was asked, and saw this of the backends that could serve it.
    Asked(Vec<BackendSnapshot>),
    /// It used the shared `state` like this.
    State(Vec<String>),
    /// The policy's decision, in words.
    Decided(String),
    /// A note of the policy.
    Noted(String),
    /// Or failed like this, and the default policy decided.
    Fault(String),
    /// The reasons why the decision was for none of these.
    PassedOver(Vec<PassedOver>),
    /// The decision could not be carried out, for this reason.
    NotHad(String),
    /// An attempt was sent.
    Sent {
        /// Id of the backend.
        backend: Arc<str>,
        /// Lane of the attempt.
        lane: Lane,
        /// The model name sent.
        model: String,
        /// True for a probe after a cooldown.
        probe: bool,
        /// Way to continue the delivered text; `None` when nothing was delivered.
        join: Option<Join>,
    },
    /// Backends that could not serve the request, and why, as the rest of a sentence that begins with the name.
    Unsuited(Vec<(Arc<str>, String)>),
    /// The first byte went downstream.
    Committed,
    /// An attempt ended.
    Outcome(Outcome),
    /// It began to wait, at most so long.
    Waits(Duration),
    /// It waited so long; the backend is the one whose capacity it was handed, none when its time was up.
    Waited(Duration, Option<Arc<str>>),
    /// The end of the exchange, in words.
    End(String),
    /// All of it cost this.
    Cost(Cost),
    /// The cheapest fallback would have cost so much more, in USD.
    Saved {
        /// Amount that it differs by, USD.
        usd: f64,
        /// True if it was saved by waiting.
        waited: bool,
    },
    /// It was refused at the door.
    Denied {
        /// The reason of the refusal.
        denial: Denial,
        /// Message that the client got.
        why: String,
    },
}

/// End of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Id of the backend.
    pub backend: Arc<str>,
    /// As what, by its word.
    pub outcome: String,
    /// The part that it is held against, by its word; `None`: none, or an old record.
    pub scope: Option<String>,
    /// The HTTP status; 0: none.
    pub status: u16,
    /// Time from sending to the end of the attempt.
    pub took: Duration,
    /// Its first content after its sending.
    pub first_token: Option<Duration>,
    /// Delay that the upstream asked for.
    pub retry_after: Option<Duration>,
    /// Message of the upstream, or description of the failure.
    pub message: String,
    /// Cost of the attempt.
    pub cost: Cost,
}

/// Tokens of attempts and their cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Cost, USD.
    pub usd: f64,
    /// Prompt tokens.
    pub input_tokens: u64,
    /// Answer tokens.
    pub output_tokens: u64,
    /// Prompt tokens that the provider had cached.
    pub cached_input_tokens: u64,
    /// True if tokens were estimated because a provider did not report them.
    pub estimated: bool,
}

impl Cost {
    /// Returns the sum of both.
    pub fn plus(self, other: Self) -> Self {
        Self {
            usd: self.usd + other.usd,
            input_tokens: self.input_tokens + other.input_tokens,
            output_tokens: self.output_tokens + other.output_tokens,
            cached_input_tokens: self.cached_input_tokens + other.cached_input_tokens,
            estimated: self.estimated || other.estimated,
        }
    }
}

impl From<&AttemptRecord> for Outcome {
    fn from(attempt: &AttemptRecord) -> Self {
        let usage = attempt.usage;
        Self {
            backend: attempt.backend.clone(),
            outcome: attempt.outcome.as_str().to_owned(),
            scope: attempt.scope.blamed().map(str::to_owned),
            status: attempt.status,
            took: attempt.elapsed,
            first_token: attempt.first_token,
            retry_after: attempt.retry_after,
            message: attempt.message.clone(),
            cost: Cost {
                usd: attempt.cost_usd,
                input_tokens: usage.input_tokens,
                output_tokens: usage.output_tokens,
                cached_input_tokens: usage.cached_input_tokens,
                estimated: usage.estimated,
            },
        }
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", OneLine(&self.title))?;
        let mut before = String::new();
        for (at, moment) in &self.moments {
            // The same time is written once, and the word for what happened as well.
            let now = format!("{:.3} s", at.as_secs_f64());
            let mut time = if before == now { String::new() } else { now.clone() };
            let (mut word, parts) = moment.parts();
            for part in parts {
                writeln!(f, "{}", format!("{time:>12}  {word:<9}{}", OneLine(&part)).trim_end())?;
                (time, word) = (String::new(), "");
            }
            before = now;
        }
        Ok(())
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, parts) = self.parts();
        f.write_str(format!("{word:<9}{}", OneLine(&parts.join("; "))).trim_end())
    }
}

impl Moment {
    /// The word for what happened, and what is told of it, at least one part.
    fn parts(&self) -> (&'static str, Vec<String>) {
        let one = |word, text: String| (word, vec![text]);
        match self {
            Moment::Arrived => one("arrived", String::new()),
            Moment::Asked(standings) => {
                let wait = |(tier, queued): (Tier, u32)| match queued {
                    1 => format!("1 other waits for a {}", tier.as_str()),
                    _ => format!("{queued} others wait for a {}", tier.as_str()),
                };
                ("asked", listed(standings).into_iter().chain(BackendSnapshot::queues(standings).map(wait)).collect())
            }
            Moment::Unsuited(others) => {
                let told: Vec<String> = others.iter().map(|(backend, why)| format!("{backend} {why}")).collect();
                ("unsuited", listed(&told))
            }
            Moment::State(uses) => ("state", listed(uses)),
            Moment::Decided(decision) => one("decided", decision.clone()),
            Moment::Noted(note) => one("noted", note.clone()),
            Moment::Fault(fault) => one("fault", format!("{fault}; the default policy decided instead")),
            Moment::PassedOver(others) => ("others", listed(others)),
            Moment::NotHad(why) => one("not had", why.clone()),
            Moment::Sent { backend, lane, model, probe, join } => {
                let probe = if *probe { ", a probe after its cooldown" } else { "" };
                let join = match join {
                    Some(Join::Splice) => ", to continue the answer that broke off",
                    Some(Join::Prefill) => ", prefilled with what was delivered",
                    None => "",
                };
                one("sent", format!("to {backend} in the {} lane, as {model}{probe}{join}", lane.as_str()))
            }
            Moment::Committed => one("begun", "the answer's first byte went downstream".to_owned()),
            Moment::Outcome(outcome) => one("outcome", outcome.to_string()),
            Moment::Waits(max) => one("waits", format!("at most {}", in_words(*max))),
            Moment::Waited(took, Some(backend)) => {
                one("waited", format!("{}, then got a permit of {backend}", in_words(*took)))
            }
            Moment::Waited(took, None) => one("waited", format!("{}, until its time was up", in_words(*took))),
            Moment::End(end) => one("end", end.clone()),
            Moment::Cost(cost) => one("cost", cost.to_string()),
            Moment::Saved { usd, waited: true } => {
                one("saved", format!("{} by waiting: the cheapest fallback would have cost that much more", Usd(*usd)))
            }
            Moment::Saved { usd, waited: false } => one(
                "saved",
                format!("{} without a wait: the cheapest fallback would have cost that much more", Usd(*usd)),
            ),
            Moment::Denied { denial, why } => {
                let limit = denial.setting().map(|setting| format!("limit: {setting} in the configuration"));
                let told = [Some(why.clone()), limit, Some(format!("what to do: {}", denial.advice()))];
                ("denied", told.into_iter().flatten().collect())
            }
        }
    }
}

fn listed<T: ToString>(all: &[T]) -> Vec<String> {
    let mut told: Vec<String> = all.iter().take(MAX_LISTED).map(T::to_string).collect();
    match all.len().saturating_sub(MAX_LISTED) {
        0 if all.is_empty() => told.push("none".to_owned()),
        0 => {}
        more => told.push(format!("and {more} more")),
    }
    told
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.backend, self.outcome)?;
        if self.status > 0 {
            write!(f, " ({})", self.status)?;
        }
        write!(f, " after {}", in_words(self.took))?;
        if let Some(first_token) = self.first_token {
            write!(f, ", its first token after {}", in_words(first_token))?;
        }
        if let Some(retry_after) = self.retry_after {
            write!(f, ", Retry-After {}", in_words(retry_after))?;
        }
        if self.cost.usd > 0.0 {
            write!(f, ", {}", Usd(self.cost.usd))?;
        }
        if let Some(against) = self.scope.as_deref().and_then(held_against) {
            write!(f, ", held against {against}")?;
        }
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

/// The part that a failure is held against, in words.
fn held_against(scope: &str) -> Option<&'static str> {
    Some(match Scope::parse(scope)? {
        Scope::Nothing => return None,
        Scope::Request => "this request",
        Scope::RequestHere => "this request at this backend",
        Scope::Headers => "a header of the client's",
        Scope::BodySize => "bodies of this size",
        Scope::PromptSize => "prompts of this size",
        Scope::AnswerSize => "answers of this length",
        Scope::Model => "the model at this backend",
        Scope::Operation => "the operation at this backend",
        Scope::Backend => "the backend",
    })
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {} tokens in, {} out", Usd(self.usd), self.input_tokens, self.output_tokens)?;
        if self.cached_input_tokens > 0 {
            write!(f, ", {} of those in cached", self.cached_input_tokens)?;
        }
        if self.estimated { f.write_str(" (counted here, the provider did not say)") } else { Ok(()) }
    }
}

/// One use of the shared `state`, in words.
pub fn state_use(usage: &StateUse) -> String {
    let lasting = |ttl_ms: u64| match ttl_ms {
        0 => String::new(),
        ms => format!(" for {}", in_words(Duration::from_millis(ms))),
    };
    match usage {
        StateUse::Get { key, found: Some(value) } => format!("{key} is {value}"),
        StateUse::Get { key, found: None } => format!("{key} is not set"),
        StateUse::Set { key, value, ttl_ms } => format!("{key} set to {value}{}", lasting(*ttl_ms)),
        StateUse::Add { key, delta, ttl_ms, sum } => format!("{key} {delta:+} is {sum} now{}", lasting(*ttl_ms)),
        StateUse::TooMany => "and more uses, which were not kept".to_owned(),
    }
}

/// Describes a request in a line: "request 2: m, 100 prompt tokens, as a stream".
pub fn title(name: &str, model: &str, facts: &Facts) -> String {
    let stream = if facts.streaming { ", as a stream" } else { "" };
    let priority = if facts.priority == 0 { String::new() } else { format!(", priority {}", facts.priority) };
    format!("{name}: {model}, {} prompt tokens{stream}{priority}", facts.prompt_tokens)
}

/// An end with what it took: "delivered by a in the primary lane after 2 s (1 attempt, no wait)".
pub fn end_text(ended: &Ended, attempts: usize, waits: (u32, Duration)) -> String {
    let (waits, waited) = waits;
    let lane = ended.by.as_ref().map_or(String::new(), |(lane, _)| format!(" in the {} lane", lane.as_str()));
    let error = ended.error.as_ref().map_or(String::new(), |error| format!(": {error}"));
    let waits = match waits {
        0 => "no wait".to_owned(),
        waits => format!("{} of {} together", counted(waits as usize, "wait"), in_words(waited)),
    };
    format!("{ended}{lane} after {} ({}, {waits}){error}", in_words(ended.took), counted(attempts, "attempt"))
}

fn counted(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn of_ms(ms: u32) -> String {
    in_words(Duration::from_millis(ms.into()))
}

/// A duration as people write it: "20 ms", "1.5 s", "2 min".
pub fn in_words(d: Duration) -> String {
    /// Above it minutes are easier to read.
    const LONG: Duration = Duration::from_secs(300);
    let ms = d.as_micros().div_ceil(1_000);
    if d >= LONG {
        return format!("{} min", trimmed(d.as_secs_f64() / 60.0, 1));
    }
    if ms < 1_000 { format!("{ms} ms") } else { format!("{} s", trimmed(ms as f64 / 1_000.0, 3)) }
}

fn trimmed(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        let words = |ms| in_words(Duration::from_millis(ms));
        assert_eq!(words(0), "0 ms");
        assert_eq!(words(999), "999 ms");
        assert_eq!(words(1_500), "1.5 s");
        assert_eq!(words(120_000), "120 s");
        assert_eq!(words(600_000), "10 min");
    }

    #[test]
    fn a_time_is_written_once() {
        let at = Duration::from_millis(20);
        let moments = vec![(at, Moment::Arrived), (at, Moment::Decided("primary a".to_owned()))];
        let story = Story { title: "request 1".to_owned(), moments };
        assert_eq!(story.to_string(), "request 1\n     0.020 s  arrived\n              decided  primary a\n");
    }
}
