//! Report of a series of scenarios, as text and as JSON.

use std::fmt::{self, Write as _};
use std::time::Duration;

use pointsman_engine::left_out_words;
use serde_json::{Value, json};

use super::recorder::Recorded;
use super::story::in_words;
use super::trial::{Failure, Trial};

/// Stories told of a scenario that failed, unless all are asked for.
const MAX_STORIES: usize = 4;

/// Result of one scenario file.
pub struct Verdict {
    /// Path of the scenario file.
    pub file: String,
    /// The scenario's title; none when the file was not one.
    pub title: Option<String>,
    /// Result of the trial, or the reason why it could not be run.
    pub trial: Result<Trial, String>,
    /// Real time that the trial took.
    pub took: Duration,
}

impl Verdict {
    /// Returns true if everything was as expected.
    pub fn passed(&self) -> bool {
        self.trial.as_ref().is_ok_and(Trial::passed)
    }

    /// As a terminal shows it; with `explain`, the stories of all exchanges.
    pub fn text(&self, explain: bool) -> String {
        let word = if self.passed() { "pass" } else { "FAIL" };
        let title = self.title.as_ref().unwrap_or(&self.file);
        let mut text = format!("{word}  {title}");
        match &self.trial {
            Ok(trial) => {
                let _ = writeln!(text, " ({} simulated in {})", in_words(trial.simulated), real(self.took));
                tell(&mut text, &self.file, trial, explain);
            }
            Err(why) => {
                text.push('\n');
                indented(&mut text, why);
            }
        }
        text
    }

    fn json(&self) -> Value {
        let (problem, trial) = match &self.trial {
            Ok(trial) => (None, Some(trial)),
            Err(why) => (Some(why), None),
        };
        json!({
            "file": self.file,
            "title": self.title,
            "passed": self.passed(),
            "problem": problem,
            "settings_left_out": trial.map_or(&[][..], |t| &t.left_out),
            "simulated_ms": trial.map(|t| ms(t.simulated)),
            "failures": trial.map_or(&[][..], |t| &t.failures).iter().map(failure).collect::<Vec<_>>(),
            "exchanges": trial.map_or(&[][..], |t| &t.exchanges).iter().map(exchange).collect::<Vec<_>>(),
        })
    }
}

/// The whole series as JSON. Times on the wall are left out, so that the same scenarios give the same bytes.
pub fn json(policy: &str, verdicts: &[Verdict]) -> Value {
    let passed = verdicts.iter().filter(|v| v.passed()).count();
    json!({
        "policy": policy,
        "passed": passed,
        "failed": verdicts.len() - passed,
        "scenarios": verdicts.iter().map(Verdict::json).collect::<Vec<_>>(),
    })
}

/// Lists unmet expectations, then the exchanges' stories.
fn tell(text: &mut String, file: &str, trial: &Trial, explain: bool) {
    if !trial.passed() {
        indented(text, &format!("in {file}"));
    }
    if let Some(words) = left_out_words(&trial.left_out) {
        indented(text, &format!("warning: in {file}, {words}"));
    }
    for failure in &trial.failures {
        indented(text, &failure.to_string());
    }
    let blamed = |index: usize| trial.failures.iter().any(|f| f.exchange.is_none_or(|e| e == index));
    let worth_telling: Vec<&Recorded> =
        trial.exchanges.iter().enumerate().filter(|(i, _)| explain || blamed(*i)).map(|(_, e)| e).collect();
    let most = if explain { usize::MAX } else { MAX_STORIES };
    for recorded in worth_telling.iter().take(most) {
        text.push('\n');
        indented(text, &recorded.story().to_string());
    }
    if let Some(more @ 1..) = worth_telling.len().checked_sub(most) {
        indented(text, &format!("... and {more} more requests; --explain tells of all"));
    }
    if !worth_telling.is_empty() {
        text.push('\n');
    }
}

fn indented(text: &mut String, lines: &str) {
    for line in lines.lines() {
        let _ = writeln!(text, "      {line}");
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.exchange {
            Some(index) => write!(f, "request {}: {}", index + 1, self.sentence),
            None => f.write_str(&self.sentence),
        }
    }
}

fn real(took: Duration) -> String {
    if took < Duration::from_millis(1) { format!("{} us", took.as_micros()) } else { in_words(took) }
}

fn failure(failure: &Failure) -> Value {
    json!({ "request": failure.exchange.map(|index| index + 1), "sentence": failure.sentence })
}

fn exchange(recorded: &Recorded) -> Value {
    let (waits, waited) = recorded.waits;
    let end = recorded.end.as_ref();
    let by = end.and_then(|e| e.by.as_ref());
    let attempts = recorded.attempts.iter().map(|a| {
        json!({
            "backend": &*a.backend, "lane": a.lane, "model": a.model_sent, "outcome": a.outcome, "status": a.status,
            "took_ms": ms(a.elapsed), "first_token_ms": a.first_token.map(ms),
            "input_tokens": a.usage.input_tokens, "output_tokens": a.usage.output_tokens, "cost_usd": a.cost_usd,
        })
    });
    json!({
        "request": recorded.story().title,
        "arrived_ms": ms(recorded.arrived),
        "decisions": recorded.decisions.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "notes": recorded.notes,
        "faults": recorded.faults,
        "attempts": attempts.collect::<Vec<_>>(),
        "waits": waits,
        "waited_ms": ms(waited),
        "end": end.map(|e| e.end),
        "status": end.map(|e| e.status),
        "lane": by.map(|(lane, _)| lane),
        "backend": by.map(|(_, backend)| &**backend),
        "took_ms": end.map(|e| ms(e.took)),
        "error": end.and_then(|e| e.error.as_ref()),
        "story": recorded.story().moments.iter().map(|(at, m)| format!("{:.3} s  {m}", at.as_secs_f64())).collect::<Vec<_>>(),
    })
}

fn ms(d: Duration) -> f64 {
    d.as_micros() as f64 / 1_000.0
}
