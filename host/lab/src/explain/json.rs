//! The explanation for machines. Its shape is told in `policies/README.md`; what is there stays, and more may join.

use std::sync::Arc;
use std::time::Duration;

use pointsman_core::denial::Denial;
use pointsman_core::exchange::Join;
use pointsman_store::{ExchangeRow, Explainable, Journaled};
use serde_json::{Map, Value, json};

use super::retell::client;
use super::{Retold, denied, retell};
use crate::story::{BackendSnapshot, Cost, Moment, Outcome, PassedOver};

/// An exchange as JSON: what it was, what it came to, what it cost, and everything that happened, in order.
pub fn json(explainable: &Explainable) -> Value {
    match explainable {
        Explainable::Journaled(journaled) => journaled_json(journaled),
        Explainable::Denied(exchange, denial) => denied_json(exchange, *denial),
    }
}

fn denied_json(exchange: &ExchangeRow, denial: Denial) -> Value {
    let story = denied(exchange, denial);
    json!({
        "id": exchange.id,
        "title": story.title,
        "started": exchange.started,
        "elapsed_ms": exchange.elapsed_ms,
        "request": {
            "model": exchange.model, "operation": exchange.operation, "path": exchange.path,
            "streaming": exchange.streaming, "client": exchange.client,
        },
        "end": {
            "end": exchange.end, "status": exchange.status, "denied": denial.as_str(), "error": exchange.error,
        },
        "events": story.moments.iter().map(|(at, moment)| event(*at, moment)).collect::<Vec<_>>(),
    })
}

fn journaled_json(journaled: &Journaled) -> Value {
    let Journaled { exchange, trail, sampled, .. } = journaled;
    let Retold { story, decisions, ended } = retell(journaled);
    let cost =
        story.moments.iter().find_map(|(_, moment)| if let Moment::Cost(cost) = moment { Some(*cost) } else { None });
    json!({
        "id": exchange.id,
        "title": story.title,
        "started": exchange.started,
        "elapsed_ms": exchange.elapsed_ms,
        "policy": exchange.policy,
        "sampled": sampled,
        "request": {
            "model": exchange.model, "operation": exchange.operation, "path": exchange.path,
            "streaming": exchange.streaming, "prompt_tokens": trail.facts.prompt_tokens,
            "max_tokens": trail.facts.max_tokens, "priority": trail.facts.priority,
            "client": client(journaled).or(exchange.client.as_deref()), "session": exchange.session,
            "labels": trail.labels.iter().map(|(name, value)| (name.clone(), json!(value))).collect::<Map<_, _>>(),
        },
        "decisions": decisions.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "end": {
            "end": exchange.end, "status": exchange.status, "lane": exchange.lane, "backend": exchange.backend,
            "error": ended.error,
        },
        "cost": cost_json(cost.unwrap_or_default()),
        "saved_usd": exchange.saved_usd,
        "events": story.moments.iter().map(|(at, moment)| event(*at, moment)).collect::<Vec<_>>(),
        "questions_left_out": trail.left_out,
    })
}

/// A moment: when, the word for what happened, its facts, and the line that people read.
fn event(at: Duration, moment: &Moment) -> Value {
    let (what, facts) = facts(moment);
    let mut event = Map::new();
    event.insert("at_ms".to_owned(), json!(ms(at)));
    event.insert("what".to_owned(), json!(what));
    if let Value::Object(facts) = facts {
        event.extend(facts);
    }
    event.insert("text".to_owned(), json!(moment.to_string()));
    Value::Object(event)
}

fn facts(moment: &Moment) -> (&'static str, Value) {
    match moment {
        Moment::Arrived => ("arrived", json!({})),
        Moment::Asked(standings) => {
            let queues: Map<_, _> = BackendSnapshot::queues(standings)
                .map(|(tier, queued)| (tier.as_str().to_owned(), json!(queued)))
                .collect();
            ("asked", json!({ "backends": standings.iter().map(standing).collect::<Vec<_>>(), "queued": queues }))
        }
        Moment::Unsuited(others) => {
            let one = |(backend, told): &(Arc<str>, String)| json!({ "backend": &**backend, "told": told });
            ("unsuited", json!({ "backends": others.iter().map(one).collect::<Vec<_>>() }))
        }
        Moment::State(uses) => ("state", json!({ "uses": uses })),
        Moment::Decided(decision) => ("decided", json!({ "decision": decision })),
        Moment::Noted(note) => ("noted", json!({ "note": note })),
        Moment::Fault(fault) => ("fault", json!({ "fault": fault })),
        Moment::PassedOver(others) => {
            let one = |other: &PassedOver| json!({ "backend": &*other.backend, "why": other.why.as_str(), "told": other.told });
            ("passed_over", json!({ "backends": others.iter().map(one).collect::<Vec<_>>() }))
        }
        Moment::NotHad(why) => ("not_had", json!({ "why": why })),
        Moment::Sent { backend, lane, model, probe, join } => (
            "sent",
            json!({ "backend": &**backend, "lane": lane, "model": model, "probe": probe, "join": join.map(join_word) }),
        ),
        Moment::Committed => ("committed", json!({})),
        Moment::Outcome(outcome) => ("outcome", outcome_json(outcome)),
        Moment::Waits(max) => ("waits", json!({ "max_ms": ms(*max) })),
        Moment::Waited(took, granted) => ("waited", json!({ "took_ms": ms(*took), "backend": granted.as_deref() })),
        Moment::End(_) => ("end", json!({})),
        Moment::Cost(cost) => ("cost", cost_json(*cost)),
        Moment::Saved { usd, waited } => ("saved", json!({ "usd": usd, "waited": waited })),
        Moment::Denied { denial, why } => (
            "denied",
            json!({ "reason": denial.as_str(), "why": why, "limit": denial.setting(), "advice": denial.advice() }),
        ),
    }
}

fn join_word(join: Join) -> &'static str {
    match join {
        Join::Splice => "splice",
        Join::Prefill => "prefill",
    }
}

/// The row of a backend by the contract's names; its state and reason as words.
fn standing(standing: &BackendSnapshot) -> Value {
    let mut row = Map::new();
    row.insert("backend".to_owned(), json!(&*standing.backend));
    for (name, number) in standing.numbers() {
        let known = (number != pointsman_core::contract::NONE).then_some(number);
        row.insert(name.to_owned(), json!(known));
    }
    row.insert("state".to_owned(), json!(standing.state()));
    row.insert("cooldown_reason".to_owned(), json!(standing.reason()));
    Value::Object(row)
}

fn outcome_json(outcome: &Outcome) -> Value {
    json!({
        "backend": &*outcome.backend, "outcome": outcome.outcome, "scope": outcome.scope, "status": outcome.status, "took_ms": ms(outcome.took),
        "first_token_ms": outcome.first_token.map(ms), "retry_after_ms": outcome.retry_after.map(ms),
        "message": outcome.message, "cost": cost_json(outcome.cost),
    })
}

fn cost_json(cost: Cost) -> Value {
    json!({
        "usd": cost.usd, "input_tokens": cost.input_tokens, "output_tokens": cost.output_tokens,
        "cached_input_tokens": cost.cached_input_tokens, "estimated": cost.estimated,
    })
}

fn ms(d: Duration) -> f64 {
    d.as_micros() as f64 / 1_000.0
}
