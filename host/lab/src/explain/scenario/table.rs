//! The setup of a recorded exchange in the words of `pointsman.toml`, and what its backends had behind them.

use std::time::Duration;

use pointsman_core::contract::{Column, Commit, NONE, Resume, RowState};
use pointsman_core::fleet::InitialState;
use pointsman_core::journal::{Happened, Setup};
use pointsman_core::table::{Backend, Limits, Pattern, Price, PriceTier, Timeouts};
use pointsman_store::Journaled;
use toml::{Table, Value};

use super::answers::Answers;
use super::span;
use super::toml::{Toml, inline, quoted_key};
use crate::story::BackendSnapshot;
use crate::world::past_of;

/// Writes the settings common to all exchanges.
pub(super) fn settings(text: &mut Toml, setup: &Setup, remarks: &mut Vec<String>) {
    match serde_json::from_str::<serde_json::Value>(&setup.settings).map(Value::try_from) {
        Ok(Ok(Value::Table(settings))) if settings.is_empty() => {}
        Ok(Ok(Value::Table(settings))) => {
            text.line("[settings]");
            settings.into_iter().for_each(|(key, value)| text.put(&key, value));
            text.blank();
        }
        Ok(Ok(_) | Err(_)) | Err(_) => {
            remarks.push("The policy's settings cannot be written as TOML; they are left out.".to_owned())
        }
    }
    let ms = |d: Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
    let (budgets, fleet, cooldown) = (&setup.budgets, &setup.fleet, &setup.fleet.cooldown);
    text.line("[limits]");
    text.put("max_attempts", i64::from(budgets.max_attempts));
    text.put("max_waits", i64::from(budgets.max_waits));
    text.put("max_wait_ms", ms(budgets.max_wait));
    text.put("max_exchange_ms", ms(budgets.max_total));
    text.put("queue_length", fleet.queue_length as i64);
    text.blank();
    text.line("[cooldown]");
    text.put("base_ms", ms(cooldown.base));
    text.put("max_ms", ms(cooldown.max));
    text.put("jitter", cooldown.jitter);
    text.put("retry_after_floor_ms", ms(cooldown.retry_after_floor));
    text.put("retry_after_cap_ms", ms(cooldown.retry_after_cap));
    text.blank();
    text.line("[stream]");
    match setup.streams.commit {
        Commit::Headers => text.put("commit", "headers"),
        Commit::FirstContent => text.put("commit", "first-content"),
        Commit::Complete => text.put("commit", "complete"),
        Commit::Tokens(n) => text.line(&format!("commit = {}", inline(&[("tokens", i64::from(n).into())]))),
    }
    let resume = match setup.streams.resume {
        Resume::None => "none",
        Resume::Splice => "splice",
        Resume::Prefill => "prefill",
    };
    text.put("resume", resume);
    text.blank();
}

pub(super) fn clients(text: &mut Toml, journaled: &Journaled) {
    let asking = journaled.trail.facts.client;
    for (client, index) in journaled.setup.clients.iter().zip(0..) {
        text.line("[[client]]");
        text.put("name", client.name.to_string());
        limits(text, client.limits);
        if let Some(budget) = client.budget_usd_per_day {
            text.put("budget_usd_per_day", budget);
            text.put_if("free_when_over_budget", false, !client.free_when_over_budget);
        }
        if let Some(models) = &client.models {
            text.put("models", models.iter().map(|pattern| Value::String(written(pattern))).collect::<Vec<_>>());
        }
        let spent = journaled.trail.spending.today_microusd;
        text.put_if("spent_usd", spent as f64 / 1e6, index == asking && spent > 0);
        text.blank();
    }
}

fn limits(text: &mut Toml, limits: Limits) {
    for (key, limit) in written_limits(limits) {
        text.put(key, limit);
    }
}

fn written_limits(limits: Limits) -> Vec<(&'static str, Value)> {
    let Limits { rpm, burst, tpm, max_concurrency, rpd, tpd } = limits;
    let all = [
        ("rpm", rpm),
        ("burst", burst),
        ("tpm", tpm),
        ("max_concurrency", max_concurrency),
        ("rpd", rpd),
        ("tpd", tpd),
    ];
    all.into_iter().filter_map(|(key, limit)| Some((key, Value::from(i64::from(limit?))))).collect()
}

fn written(pattern: &Pattern) -> String {
    match pattern {
        Pattern::Exact(name) => name.clone(),
        Pattern::Glob { prefix, suffix } => format!("{prefix}*{suffix}"),
    }
}

pub(super) fn backends(text: &mut Toml, journaled: &Journaled, remarks: &mut Vec<String>) {
    let mut answers = Answers::of(journaled);
    remarks.append(&mut answers.remarks);
    let first = journaled.trail.questions().next();
    let standings = first.map_or_else(Vec::new, |first| BackendSnapshot::all(&first.query, &journaled.setup.table));
    for (backend, index) in journaled.setup.table.backends.iter().zip(0..) {
        text.line("[[backend]]");
        one(text, backend);
        if let Some(standing) = standings.iter().find(|standing| standing.index == index) {
            let before = before(standing, backend, journaled, remarks);
            if !before.is_empty() {
                text.line(&format!("before = {}", inline(&before)));
            }
        }
        match answers.of_backend(index) {
            [] if standings.iter().any(|standing| standing.index == index) => {
                text.comment("It was not tried: what it would have answered is not known. Here it always answers.");
            }
            [] => {}
            [only] => text.line(&format!("script = [{only}]")),
            more => {
                text.line("script = [");
                more.iter().for_each(|answer| text.line(&format!("  {answer},")));
                text.line("]");
            }
        }
        text.blank();
    }
}

fn one(text: &mut Toml, backend: &Backend) {
    text.put("id", backend.id.to_string());
    text.put("tier", backend.tier.as_str());
    text.put("dialect", backend.dialect.as_str());
    limits(text, backend.limits);
    if !backend.model_limits.is_empty() {
        let of_model = |(model, limits): (&String, &Limits)| {
            format!("{} = {}", quoted_key(model), inline(&written_limits(*limits)))
        };
        let all: Vec<String> = backend.model_limits.iter().map(of_model).collect();
        text.line(&format!("limits = {{ {} }}", all.join(", ")));
    }
    text.put_if("weight", i64::from(backend.weight), backend.weight != 1);
    if !backend.routes.is_empty() {
        let routes: Vec<String> = backend
            .routes
            .iter()
            .map(|route| {
                let sent = if route.is_served() { Value::String(route.sent.clone()) } else { Value::Boolean(false) };
                format!("{} = {sent}", quoted_key(&written(&route.asked)))
            })
            .collect();
        text.line(&format!("models = {{ {} }}", routes.join(", ")));
    }
    let (own, usual) = (backend.timeouts, Timeouts::default());
    let all = [
        ("connect_ms", own.connect, usual.connect),
        ("first_byte_ms", own.first_byte, usual.first_byte),
        ("first_token_ms", own.first_token, usual.first_token),
        ("idle_ms", own.idle, usual.idle),
        ("total_ms", own.total, usual.total),
    ];
    let unusual: Vec<(&str, Value)> = all
        .into_iter()
        .filter(|(_, own, usual)| own != usual)
        .map(|(key, own, _)| (key, Value::Integer(own.as_millis() as i64)))
        .collect();
    if !unusual.is_empty() {
        text.line(&format!("timeouts = {}", inline(&unusual)));
    }
    let labels: Table = backend.labels.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    text.put_if("labels", Value::Table(labels), !backend.labels.is_empty());
    let able: Table = backend.capabilities.iter().map(|(name, is_able)| (name.clone(), (*is_able).into())).collect();
    text.put_if("capabilities", Value::Table(able), !backend.capabilities.is_empty());
    if !backend.prices.is_empty() {
        let price = |(model, price): (&String, &Price)| {
            let mut entries: Vec<(&str, Value)> = vec![
                ("input_per_mtok", price.input_per_mtok.into()),
                ("output_per_mtok", price.output_per_mtok.into()),
            ];
            entries.extend(rates(price));
            if !price.service_tiers.is_empty() {
                let factors =
                    price.service_tiers.iter().map(|(tier, factor)| (tier.as_str().to_owned(), (*factor).into()));
                entries.push(("service_tiers", Value::Table(factors.collect())));
            }
            if !price.tiers.is_empty() {
                entries.push(("tiers", Value::Array(price.tiers.iter().map(tier).collect())));
            }
            format!("{} = {}", quoted_key(model), inline(&entries))
        };
        let prices: Vec<String> = backend.prices.iter().map(price).collect();
        text.line(&format!("price = {{ {} }}", prices.join(", ")));
    }
}

/// The prices of parts of a prompt or an answer that have prices of their own.
fn rates(price: &Price) -> impl Iterator<Item = (&'static str, Value)> {
    let rates = [
        ("cached_input_per_mtok", price.cached_input_per_mtok),
        ("cache_write_per_mtok", price.cache_write_per_mtok),
        ("cache_write_1h_per_mtok", price.cache_write_1h_per_mtok),
        ("audio_input_per_mtok", price.audio_input_per_mtok),
        ("image_input_per_mtok", price.image_input_per_mtok),
        ("audio_output_per_mtok", price.audio_output_per_mtok),
    ];
    rates.into_iter().filter_map(|(key, usd)| Some((key, usd?.into())))
}

fn tier(tier: &PriceTier) -> Value {
    let above = i64::try_from(tier.above_input_tokens).unwrap_or(i64::MAX);
    let plain = [
        ("above_input_tokens", Value::Integer(above)),
        ("input_per_mtok", tier.price.input_per_mtok.into()),
        ("output_per_mtok", tier.price.output_per_mtok.into()),
    ];
    let entries = plain.into_iter().chain(rates(&tier.price));
    Value::Table(entries.map(|(key, value)| (key.to_owned(), value)).collect())
}

/// Writes the state of each backend as the policy saw it at its first question.
fn before(
    standing: &BackendSnapshot,
    backend: &Backend,
    journaled: &Journaled,
    remarks: &mut Vec<String>,
) -> Vec<(&'static str, Value)> {
    let opens = opens_at(journaled, standing.index);
    let past = past_of(standing.row(), backend, opens.unwrap_or(journaled.setup.budgets.max_total));
    if past.full_for.is_some() && standing.number(Column::ReadyMs) == NONE {
        let how_long = if opens.is_some() { "as long as it was seen to be" } else { "to the end" };
        remarks.push(format!(
            "{} {}: other requests had what it gives. Here it takes nothing, {how_long}.",
            standing.backend,
            standing.condition()
        ));
    }
    written_past(&past)
}

/// As a scenario's `before` has it; what is usual is left out.
fn written_past(past: &InitialState) -> Vec<(&'static str, Value)> {
    let text = |d: Duration| Value::String(span(d));
    let number = |n: u32| Value::Integer(n.into());
    let mut before: Vec<(&'static str, Value)> = Vec::new();
    if past.drained {
        before.push(("drained", true.into()));
    }
    if let Some((left, reason)) = past.cooldown {
        let cooldown =
            [("cooling", text(left)), ("reason", reason.as_str().into()), ("failures", number(past.failures))];
        before.extend(cooldown);
    }
    before.extend(past.full_for.map(|wait| ("full_for", text(wait))));
    before.extend(past.requests_left.map(|left| ("requests_left", number(left))));
    before.extend(past.tokens_left.map(|left| ("tokens_left", number(left))));
    if past.in_flight > 0 {
        before.push(("in_flight", number(past.in_flight)));
    }
    before.extend(past.emergency_in.map(|wait| ("emergency_in", text(wait))));
    let averages = [("latency", past.latency), ("first_token", past.first_token)];
    before.extend(averages.into_iter().filter(|(_, d)| !d.is_zero()).map(|(key, d)| (key, text(d))));
    if past.errors > 0.0 {
        before.push(("errors", ((f64::from(past.errors) * 1_000.0).round() / 1_000.0).into()));
    }
    before
}

/// Finds when it was first seen to take requests again, from the arrival.
fn opens_at(journaled: &Journaled, index: u32) -> Option<Duration> {
    journaled.trail.steps.iter().find_map(|step| {
        let opens = match &step.what {
            Happened::Asked(question) => {
                let standings = BackendSnapshot::all(&question.query, &journaled.setup.table);
                standings.iter().any(|s| s.index == index && s.is(RowState::Ready))
            }
            Happened::Waited { granted } => *granted == Some(index),
            Happened::Waits { .. } | Happened::Sent { .. } | Happened::Committed | Happened::Ended => false,
        };
        opens.then_some(step.at)
    })
}
