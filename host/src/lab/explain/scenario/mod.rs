//! A recorded exchange as a scenario of `pointsman policy test`: yesterday's failure is tomorrow's test.
//!
//! What is written is played at once, with the recorded decisions in place of a policy. Where the world of the scenario
//! shows something else than was recorded, the file says so in its comments.

mod answers;
mod compare;
mod table;
mod toml;

use std::time::Duration;

use pointsman_core::fleet::seed_of_first;
use pointsman_core::journal::StateUse;
use pointsman_core::record::End;

use self::toml::Toml;
use super::retell;
use super::retell::{Retold, client};
use crate::lab::story::{Decided, DecidedWhat, Ended};
use crate::store::Journaled;
use crate::telemetry::rfc3339::Rfc3339;

/// What differs or cannot be reproduced, at most so many lines of it.
const MAX_REMARKS: usize = 24;

/// The text of the file.
pub fn scenario(journaled: &Journaled) -> String {
    let retold = retell(journaled);
    let (body, mut remarks) = body(journaled, &retold);
    remarks.extend(compare::differences(journaled, &retold, &format!("title = \"check\"\n{body}")));
    let mut text = head(journaled, &remarks);
    text.push_str(&body);
    text
}

fn head(journaled: &Journaled, remarks: &[String]) -> String {
    let exchange = &journaled.exchange;
    let mut text = Toml::default();
    text.comment(&format!(
        "The exchange {} of {}, decided by the policy {}, as it was recorded.",
        exchange.id, exchange.started, exchange.policy
    ));
    text.comment("Written by `pointsman explain ID --as-scenario`; `pointsman policy test POLICY FILE` plays it.");
    if remarks.is_empty() {
        text.comment("Played with the recorded decisions, it goes as it was recorded.");
    } else {
        text.comment("What is not as it was:");
        remarks.iter().take(MAX_REMARKS).for_each(|remark| text.comment(&format!("- {remark}")));
        if let Some(more @ 1..) = remarks.len().checked_sub(MAX_REMARKS) {
            text.comment(&format!("- and {more} more"));
        }
    }
    text.blank();
    let ended = retell(journaled).ended;
    text.put("title", format!("{}: {ended}", exchange.id));
    text.0
}

/// Everything but the comments on top and the title; and what cannot be written down.
fn body(journaled: &Journaled, retold: &Retold) -> (String, Vec<String>) {
    let Journaled { exchange, trail, setup, .. } = journaled;
    let mut remarks = Vec::new();
    let mut text = Toml::default();
    text.put("start", Rfc3339(trail.arrived).to_string());
    if let Some(first) = trail.questions().next() {
        // So that the first question has the seed that it had.
        text.put("seed", format!("{:#018x}", seed_of_first(first.query.seed)));
    }
    // A policy that did not decide it is told those of its settings that it knows.
    text.put_if("settings_of", exchange.policy.clone(), setup.settings != "{}");
    text.blank();
    table::settings(&mut text, setup, &mut remarks);
    table::clients(&mut text, journaled);
    table::backends(&mut text, journaled, &mut remarks);
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
    expected(&mut text, journaled, retold);
    remarks.extend(limits_of_reproduction(journaled, retold));
    (text.0, remarks)
}

/// What a scenario has no words for.
fn limits_of_reproduction(journaled: &Journaled, retold: &Retold) -> Vec<String> {
    let Journaled { exchange, trail, .. } = journaled;
    let mut remarks = Vec::new();
    if retold.ended.end == End::ClientGone {
        remarks.push("Its client left; here it stays, and no end is expected.".to_owned());
    }
    if trail.left_out > 0 {
        remarks.push(format!("{} questions were not kept; any decisions are expected in their place.", trail.left_out));
    }
    if trail.questions().any(|question| question.fault.is_some()) {
        remarks.push(
            "The policy failed and the default policy decided in its place: a policy that fails here fails the test."
                .to_owned(),
        );
    }
    let finds = |usage: &StateUse| matches!(usage, StateUse::Get { found: Some(_), .. });
    if trail.questions().any(|question| question.state.iter().any(finds)) {
        remarks.push("The policy found something in `state`; here it begins empty.".to_owned());
    }
    if trail.facts.acts {
        remarks.push(
            "The request may change something at the provider, so it is not sent twice; here it may be.".to_owned(),
        );
    }
    if !trail.facts.crosses && has_foreign(journaled) {
        remarks.push(
            "The request could not be translated for backends of another dialect; here every request can.".to_owned(),
        );
    }
    let estimated = u64::from(trail.facts.prompt_tokens);
    if exchange.attempts.iter().any(|attempt| attempt.cost_usd > 0.0 && attempt.input_tokens != estimated) {
        remarks.push(format!(
            "The prompt counts as the {estimated} tokens that were estimated on arrival, so costs differ."
        ));
    }
    remarks
}

fn has_foreign(journaled: &Journaled) -> bool {
    let mut dialects = journaled.setup.table.backends.iter().map(|backend| backend.dialect);
    let first = dialects.next();
    dialects.any(|dialect| Some(dialect) != first)
}

/// What was decided and how it ended.
fn expected(text: &mut Toml, journaled: &Journaled, retold: &Retold) {
    let goes_on = retold.ended.end == End::ClientGone || journaled.trail.left_out > 0;
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
        End::ClientGone | End::Denied => None,
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
