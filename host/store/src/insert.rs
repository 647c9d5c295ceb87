//! An exchange as rows.

use std::time::Duration;

use pointsman_core::denial::Denial;
use pointsman_core::record::{AttemptRecord, ExchangeRecord, Usage};
use rusqlite::{CachedStatement, Transaction};

use super::columns::{insert, signed};

insert! {
    EXCHANGE = INTO "exchange" ON CONFLICT "(ended_us) DO NOTHING";
    fn insert_exchange(
        key: i64,
        record: &ExchangeRecord,
        usage: Usage,
        cost_usd: f64,
        last: Option<&AttemptRecord>,
        last_usage: Usage,
    ) {
        ended_us: key,
        id: record.id,
        started_ms: signed(record.started.as_millis()),
        elapsed_ms: millis(record.elapsed),
        client: record.client.as_deref(),
        session: record.session,
        operation: record.operation.as_str(),
        path: record.path,
        model: record.model,
        streaming: record.streaming,
        status: record.status,
        end: record.end.as_str(),
        lane: record.lane.map(|lane| lane.as_str()),
        backend: record.backend.as_deref(),
        attempts: record.attempts.len() as i64,
        waits: record.waits,
        waited_ms: millis(record.waited),
        first_byte_ms: record.first_byte.map(millis),
        policy: &*record.policy,
        policy_faults: record.policy_faults,
        input_tokens: signed(usage.input_tokens),
        output_tokens: signed(usage.output_tokens),
        cached_input_tokens: signed(usage.cached_input_tokens),
        estimated: usage.estimated,
        cost_usd: cost_usd,
        notes: notes(&record.notes),
        error: record.error,
        last_started_ms: last.map(|a| signed(a.started.as_millis())),
        last_elapsed_ms: last.map(|a| millis(a.elapsed)),
        last_first_byte_ms: last.and_then(|a| a.first_byte).map(millis),
        last_first_token_ms: last.and_then(|a| a.first_token).map(millis),
        last_outcome: last.map(|a| a.outcome.as_str()),
        last_retry_after_ms: last.and_then(|a| a.retry_after).map(millis),
        last_message: last.map(|a| &a.message).filter(|message| !message.is_empty()),
        last_backend: last.map(|a| &*a.backend).filter(|backend| record.backend.as_deref() != Some(backend)),
        last_lane: last.map(|a| a.lane).filter(|lane| record.lane != Some(*lane)).map(|lane| lane.as_str()),
        last_model_sent: last.map(|a| &a.model_sent).filter(|model| **model != record.model),
        last_status: last.map(|a| a.status).filter(|status| *status != record.status),
        last_input_tokens: unlike(signed(last_usage.input_tokens), signed(usage.input_tokens)),
        last_output_tokens: unlike(signed(last_usage.output_tokens), signed(usage.output_tokens)),
        last_cached_input_tokens: unlike(signed(last_usage.cached_input_tokens), signed(usage.cached_input_tokens)),
        last_estimated: unlike(last_usage.estimated, usage.estimated),
        last_cost_usd: unlike(last.map_or(0.0, |a| a.cost_usd), cost_usd),
        denied: record.denied.map(Denial::as_str),
        saved_usd: record.saved_usd,
        last_upstream_id: last.and_then(|a| a.upstream_id.as_deref()),
        last_scope: last.and_then(|a| a.scope.blamed()),
    }
}

insert! {
    EARLIER_ATTEMPT = INTO "earlier_attempt";
    fn insert_attempt(key: i64, number: i64, attempt: &AttemptRecord) {
        ended_us: key,
        number: number,
        backend: &*attempt.backend,
        lane: attempt.lane.as_str(),
        model_sent: attempt.model_sent,
        started_ms: signed(attempt.started.as_millis()),
        elapsed_ms: millis(attempt.elapsed),
        first_byte_ms: attempt.first_byte.map(millis),
        first_token_ms: attempt.first_token.map(millis),
        outcome: attempt.outcome.as_str(),
        status: attempt.status,
        retry_after_ms: attempt.retry_after.map(millis),
        message: (!attempt.message.is_empty()).then_some(&attempt.message),
        input_tokens: signed(attempt.usage.input_tokens),
        output_tokens: signed(attempt.usage.output_tokens),
        cached_input_tokens: signed(attempt.usage.cached_input_tokens),
        estimated: attempt.usage.estimated,
        cost_usd: attempt.cost_usd,
        upstream_id: attempt.upstream_id.as_deref(),
        scope: attempt.scope.blamed(),
    }
}

/// Writes exchanges inside one transaction.
pub(super) struct Inserter<'t> {
    exchange: CachedStatement<'t>,
    earlier_attempt: CachedStatement<'t>,
}

impl<'t> Inserter<'t> {
    pub(super) fn new(transaction: &'t Transaction<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            exchange: transaction.prepare_cached(EXCHANGE)?,
            earlier_attempt: transaction.prepare_cached(EARLIER_ATTEMPT)?,
        })
    }

    /// Writes an exchange; its key.
    pub(super) fn insert(&mut self, record: &ExchangeRecord) -> rusqlite::Result<i64> {
        let mut key = signed((record.started + record.elapsed).as_micros());
        let (usage, cost_usd, last) = (record.usage(), record.cost_usd(), record.attempts.last());
        let last_usage = last.map(|a| a.usage).unwrap_or_default();
        while insert_exchange(&mut self.exchange, key, record, usage, cost_usd, last, last_usage)? == 0 {
            key += 1;
        }
        let Some((_last, earlier)) = record.attempts.split_last() else {
            return Ok(key);
        };
        for (number, attempt) in (1..).zip(earlier) {
            insert_attempt(&mut self.earlier_attempt, key, number, attempt)?;
        }
        Ok(key)
    }
}

/// NULL stands for what the exchange has.
fn unlike<T: PartialEq>(last: T, exchange: T) -> Option<T> {
    (last != exchange).then_some(last)
}

/// The policy's notes as a JSON list, which SQLite's own functions read; none when there are none.
fn notes(notes: &[String]) -> Option<String> {
    if notes.is_empty() {
        return None;
    }
    serde_json::to_string(notes).ok()
}

/// Whole milliseconds, to the nearest.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from((duration.as_micros() + 500) / 1_000).unwrap_or(i64::MAX)
}
