//! An exchange as rows.

use std::time::Duration;

use pointsman_core::denial::Denial;
use pointsman_core::record::{AttemptRecord, ExchangeRecord};
use rusqlite::{CachedStatement, Transaction, params};

const EXCHANGE: &str = "
INSERT INTO exchange VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20,
    ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34, ?35, ?36, ?37, ?38, ?39, ?40, ?41, ?42, ?43,
    ?44, ?45)
ON CONFLICT (ended_us) DO NOTHING";

const EARLIER_ATTEMPT: &str = "
INSERT INTO earlier_attempt VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)";

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
        let mut key = count((record.started + record.elapsed).as_micros());
        while self.insert_exchange(key, record)? == 0 {
            key += 1;
        }
        let Some((_last, earlier)) = record.attempts.split_last() else {
            return Ok(key);
        };
        for (number, attempt) in (1..).zip(earlier) {
            self.insert_attempt(key, number, attempt)?;
        }
        Ok(key)
    }

    fn insert_exchange(&mut self, key: i64, record: &ExchangeRecord) -> rusqlite::Result<usize> {
        let usage = record.usage();
        let cost_usd = record.cost_usd();
        let last = record.attempts.last();
        let last_usage = last.map(|a| a.usage).unwrap_or_default();
        self.exchange.execute(params![
            key,
            record.id,
            count(record.started.as_millis()),
            millis(record.elapsed),
            record.client.as_deref(),
            record.session,
            record.operation.as_str(),
            record.path,
            record.model,
            record.streaming,
            record.status,
            record.end.as_str(),
            record.lane.map(|lane| lane.as_str()),
            record.backend.as_deref(),
            record.attempts.len() as i64,
            record.waits,
            millis(record.waited),
            record.first_byte.map(millis),
            &*record.policy,
            record.policy_faults,
            count(usage.input_tokens),
            count(usage.output_tokens),
            count(usage.cached_input_tokens),
            usage.estimated,
            cost_usd,
            notes(&record.notes),
            record.error,
            last.map(|a| count(a.started.as_millis())),
            last.map(|a| millis(a.elapsed)),
            last.and_then(|a| a.first_byte).map(millis),
            last.and_then(|a| a.first_token).map(millis),
            last.map(|a| a.outcome.as_str()),
            last.and_then(|a| a.retry_after).map(millis),
            last.map(|a| &a.message).filter(|message| !message.is_empty()),
            last.map(|a| &*a.backend).filter(|backend| record.backend.as_deref() != Some(backend)),
            last.map(|a| a.lane).filter(|lane| record.lane != Some(*lane)).map(|lane| lane.as_str()),
            last.map(|a| &a.model_sent).filter(|model| **model != record.model),
            last.map(|a| a.status).filter(|status| *status != record.status),
            unlike(count(last_usage.input_tokens), count(usage.input_tokens)),
            unlike(count(last_usage.output_tokens), count(usage.output_tokens)),
            unlike(count(last_usage.cached_input_tokens), count(usage.cached_input_tokens)),
            unlike(last_usage.estimated, usage.estimated),
            unlike(last.map_or(0.0, |a| a.cost_usd), cost_usd),
            record.denied.map(Denial::as_str),
            record.saved_usd,
        ])
    }

    fn insert_attempt(&mut self, key: i64, number: i64, attempt: &AttemptRecord) -> rusqlite::Result<usize> {
        self.earlier_attempt.execute(params![
            key,
            number,
            &*attempt.backend,
            attempt.lane.as_str(),
            attempt.model_sent,
            count(attempt.started.as_millis()),
            millis(attempt.elapsed),
            attempt.first_byte.map(millis),
            attempt.first_token.map(millis),
            attempt.outcome.as_str(),
            attempt.status,
            attempt.retry_after.map(millis),
            (!attempt.message.is_empty()).then_some(&attempt.message),
            count(attempt.usage.input_tokens),
            count(attempt.usage.output_tokens),
            count(attempt.usage.cached_input_tokens),
            attempt.usage.estimated,
            attempt.cost_usd,
        ])
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
fn millis(duration: Duration) -> i64 {
    i64::try_from((duration.as_micros() + 500) / 1_000).unwrap_or(i64::MAX)
}

/// SQLite's integers are signed.
fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
