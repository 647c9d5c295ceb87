//! A recorded exchange as a scenario of `pointsman policy test`: yesterday's failure is tomorrow's test.
//!
//! Every question that the policy was asked is written down, and what followed it, so that a policy that decides as it was
//! decided is asked the same. What is written is played at once, with the recorded decisions in place of a policy: where
//! anything differs from the record, the file says so in its comments.

mod answers;
mod compare;
mod questions;
mod table;
mod toml;

use std::time::Duration;

use pointsman_core::journal::StateUse;
use pointsman_core::random::seed_of_first;
use pointsman_core::record::End;
use pointsman_core::rfc3339::Rfc3339;
use pointsman_core::time::Timestamp;
use pointsman_store::{AttemptRow, Journaled};

use self::toml::Toml;
use super::retell;
use super::retell::{Retold, client};
use crate::story::{Decided, DecidedWhat, Ended};

/// Largest number of lines about differences.
const MAX_REMARKS: usize = 24;

/// Differences between a scenario and the record.
#[derive(Default)]
struct Remarks {
    /// Also for a policy that decides as it was decided.
    differs: Vec<String>,
    /// Assumptions that hold only where a decision differs from the recorded one.
    assumed: Vec<String>,
}

/// The text of the file.
pub fn scenario(journaled: &Journaled) -> String {
    let retold = retell(journaled);
    let (body, mut remarks) = body(journaled, &retold);
    remarks.differs.extend(compare::differences(journaled, &format!("title = \"check\"\n{body}")));
    let mut text = head(journaled, &retold, &remarks);
    text.push_str(&body);
    text
}

fn head(journaled: &Journaled, retold: &Retold, remarks: &Remarks) -> String {
    let exchange = &journaled.exchange;
    let mut text = Toml::default();
    text.comment(&format!(
        "The exchange {} of {}, decided by the policy {}, as it was recorded.",
        exchange.id, exchange.started, exchange.policy
    ));
    text.comment("Written by `pointsman explain ID --as-scenario`; `pointsman policy test POLICY FILE` plays it.");
    text.comment("A policy that decides as recorded is asked exactly what was asked then ([[request.question]]), and the same follows.");
    text.comment("From the first other decision on, the backends go on from what that question showed of them, without other requests.");
    if remarks.differs.is_empty() {
        text.comment("Played with the recorded decisions, it goes as it was recorded.");
    } else {
        list(&mut text, "What is not as it was:", &remarks.differs);
    }
    if !remarks.assumed.is_empty() {
        list(&mut text, "Assumed after another decision:", &remarks.assumed);
    }
    text.blank();
    text.put("title", format!("{}: {}", exchange.id, retold.ended));
    text.0
}

fn list(text: &mut Toml, title: &str, remarks: &[String]) {
    text.comment(title);
    remarks.iter().take(MAX_REMARKS).for_each(|remark| text.comment(&format!("- {remark}")));
    if let Some(more @ 1..) = remarks.len().checked_sub(MAX_REMARKS) {
        text.comment(&format!("- and {more} more"));
    }
}

/// Everything but the comments on top and the title; and what cannot be written down.
fn body(journaled: &Journaled, retold: &Retold) -> (String, Remarks) {
    let Journaled { exchange, trail, setup, .. } = journaled;
    let mut remarks = Remarks::default();
    let mut text = Toml::default();
    text.put("start", start(trail.arrived));
    if let Some(first) = trail.questions().next() {
        // So that the first question has the seed that it had.
        text.put("seed", format!("{:#018x}", seed_of_first(first.query.seed)));
    }
    // Other policies' may be among them: whoever is tested is told those that it knows.
    text.put_if("settings_of", exchange.policy.clone(), setup.settings != "{}");
    text.blank();
    table::settings(&mut text, setup, &mut remarks.differs);
    table::clients(&mut text, journaled);
    table::backends(&mut text, journaled, &mut remarks.assumed);
    text.line("[[request]]");
    text.put("model", exchange.model.clone());
    text.put("path", exchange.path.clone());
    let facts = &trail.facts;
    text.put_if("stream", facts.streaming, facts.streaming);
    text.put("prompt_tokens", i64::from(facts.prompt_tokens));
    text.put_if("max_tokens", i64::from(facts.max_tokens), facts.max_tokens > 0);
    text.put_if("priority", i64::from(facts.priority), facts.priority != 0);
    if let Some(client) = client(journaled) {
        text.put("client", client.to_owned());
    }
    if let Some(session) = &exchange.session {
        text.put("session", session.clone());
    }
    if !trail.labels.is_empty() {
        let labels = trail.labels.iter().map(|(name, value)| (name.clone(), value.clone().into()));
        text.put("labels", ::toml::Value::Table(labels.collect()));
    }
    text.put_if("idempotent", false, !facts.idempotent);
    text.put_if("translatable", false, !facts.translatable && has_foreign(journaled));
    if retold.ended.end == End::ClientGone {
        text.put("leaves_after", span(left_after(journaled, retold)));
    }
    expected(&mut text, journaled, retold);
    questions::questions(&mut text, journaled);
    remarks.differs.extend(limits_of_reproduction(journaled));
    remarks.assumed.extend(other_costs(journaled));
    (text.0, remarks)
}

/// The arrival, to the microsecond.
fn start(arrived: Timestamp) -> String {
    let (text, micros) = (Rfc3339(arrived).to_string(), arrived.as_micros() % 1_000);
    if micros == 0 { text } else { format!("{}{micros:03}Z", text.trim_end_matches('Z')) }
}

/// Computes when the client disconnected: the record has whole milliseconds, and the trail has nothing after it.
fn left_after(journaled: &Journaled, retold: &Retold) -> Duration {
    let last = journaled.trail.steps.last().map_or(Duration::ZERO, |step| step.at);
    retold.ended.took.max(last + Duration::from_micros(1))
}

/// Lists facts that a scenario cannot express.
fn limits_of_reproduction(journaled: &Journaled) -> Vec<String> {
    let trail = &journaled.trail;
    let mut remarks = Vec::new();
    if trail.left_out > 0 {
        remarks.push(format!("{} questions were not kept; any decisions are expected in their place.", trail.left_out));
    }
    if trail.questions().any(|question| question.fault.is_some()) {
        remarks.push(
            "The policy failed and the default policy decided in its place: a policy that fails here fails the test."
                .to_owned(),
        );
    }
    if trail.questions().any(|question| question.state.contains(&StateUse::TooMany)) {
        remarks.push("The policy used more numbers of `state` than are kept; those left out begin empty.".to_owned());
    }
    remarks
}

/// Explains where costs differ from the record.
fn other_costs(journaled: &Journaled) -> Option<String> {
    let estimated = u64::from(journaled.trail.facts.prompt_tokens);
    let differs = |attempt: &AttemptRow| attempt.cost_usd > 0.0 && attempt.input_tokens != estimated;
    journaled.exchange.attempts.iter().any(differs).then(|| {
        format!("The prompt counts as the {estimated} tokens that were estimated on arrival, so costs differ.")
    })
}

fn has_foreign(journaled: &Journaled) -> bool {
    let mut dialects = journaled.setup.table.backends.iter().map(|backend| backend.dialect);
    let first = dialects.next();
    dialects.any(|dialect| Some(dialect) != first)
}

/// Writes the expected decisions and the end.
fn expected(text: &mut Toml, journaled: &Journaled, retold: &Retold) {
    let goes_on = journaled.trail.left_out > 0;
    let decisions = retold.decisions.iter().map(ToString::to_string).chain(goes_on.then(|| "...".to_owned()));
    text.put("decisions", decisions.map(::toml::Value::String).collect::<Vec<_>>());
    if let Some(end) = end_pattern(&retold.ended, &retold.decisions) {
        text.put("end", end);
    }
}

/// As scenario files write it; none for what they cannot.
fn end_pattern(ended: &Ended, decisions: &[Decided]) -> Option<String> {
    match ended.end {
        End::Delivered | End::Refused | End::Broken => {
            let by = ended.by.as_ref().map(|(_, backend)| format!(" by {backend}")).unwrap_or_default();
            Some(match ended.end {
                End::Refused => format!("refused {}{by}", ended.status),
                // Who was told last is not always who broke.
                End::Broken => "broken".to_owned(),
                End::Delivered | End::Rejected | End::ClientGone | End::Denied => format!("delivered{by}"),
            })
        }
        End::Rejected => {
            // A client that had its head before was told a status of 200 and the error in-band.
            let last = decisions.last().and_then(|decided| match decided.what {
                DecidedWhat::Reject(status) => Some(status),
                DecidedWhat::Send(_) | DecidedWhat::Wait(_) => None,
            });
            let status = if ended.status >= 400 { ended.status } else { last.unwrap_or(503) };
            Some(format!("rejected {status}"))
        }
        End::ClientGone => Some("left".to_owned()),
        End::Denied => None,
    }
}

/// A span as scenario files write it.
fn span(d: Duration) -> String {
    let micros = d.as_micros();
    match micros % 1_000 {
        0 => format!("{}ms", micros / 1_000),
        _ => format!("{}ms", micros as f64 / 1_000.0),
    }
}
