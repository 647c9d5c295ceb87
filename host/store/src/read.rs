//! Queries of the store: usage, spend, exchanges. Every call blocks on SQLite; in a runtime use `spawn_blocking`.

use std::ops::RangeInclusive;
use std::sync::MutexGuard;

use pointsman_core::record::End;
use pointsman_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Shared, StoreError};

pointsman_core::vocabulary! {
    /// By what usage is summed.
    pub enum Group {
        /// The client key's name.
        Client = "client",
        /// The backend: requests by the one that was relayed, attempts, tokens and cost by the one that caused them.
        Backend = "backend",
        /// The model as asked.
        Model = "model",
        /// The lane, counted as [`Group::Backend`] is.
        Lane = "lane",
        /// The hour (UTC) in which exchanges ended.
        Hour = "hour",
        /// The day (UTC) in which exchanges ended.
        Day = "day",
    }
}

/// Usage of one member of a group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct UsageRow {
    /// The client, backend, model, lane, hour or day; none: exchanges without one.
    pub key: Option<String>,
    /// Exchanges; requests refused at the door are not among them.
    pub requests: u64,
    /// Exchanges that were refused, rejected or broken.
    pub failures: u64,
    /// Attempts.
    pub attempts: u64,
    /// Prompt tokens.
    pub input_tokens: u64,
    /// Answer tokens.
    pub output_tokens: u64,
    /// Prompt tokens that the provider had cached.
    pub cached_input_tokens: u64,
    /// Cost in USD.
    pub cost_usd: f64,
    /// Waits.
    pub waits: u64,
    /// Time spent waiting, in ms.
    pub waited_ms: u64,
    /// Requests refused at the door.
    pub denied: u64,
    /// Savings compared with the cheapest fallback in USD, of exchanges that waited and were answered outside the
    /// fallback lane; `None`: there were some, and no fallback has a price for them.
    pub saved_by_waiting_usd: Option<f64>,
    /// The same of exchanges that did not wait.
    pub saved_without_waiting_usd: Option<f64>,
}

impl UsageRow {
    /// Both together, without a key.
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            key: None,
            requests: self.requests + other.requests,
            failures: self.failures + other.failures,
            attempts: self.attempts + other.attempts,
            input_tokens: self.input_tokens + other.input_tokens,
            output_tokens: self.output_tokens + other.output_tokens,
            cached_input_tokens: self.cached_input_tokens + other.cached_input_tokens,
            cost_usd: self.cost_usd + other.cost_usd,
            waits: self.waits + other.waits,
            waited_ms: self.waited_ms + other.waited_ms,
            denied: self.denied + other.denied,
            saved_by_waiting_usd: known_sum(self.saved_by_waiting_usd, other.saved_by_waiting_usd),
            saved_without_waiting_usd: known_sum(self.saved_without_waiting_usd, other.saved_without_waiting_usd),
        }
    }

    /// Nothing yet: nothing saved is known, and nothing is unknown.
    pub fn nothing() -> Self {
        Self { saved_by_waiting_usd: Some(0.0), saved_without_waiting_usd: Some(0.0), ..Self::default() }
    }
}

/// Adds two amounts. One that is unknown is left out if the other is above zero, else the sum is unknown.
fn known_sum(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (Some(known), None) | (None, Some(known)) => Some(known).filter(|known| *known > 0.0),
        (None, None) => None,
    }
}

/// Conditions on exchanges; absent ones match all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The status the client got, both ends included.
    pub status: Option<RangeInclusive<u16>>,
    /// A backend that was tried.
    pub backend: Option<String>,
    /// The client key's name.
    pub client: Option<String>,
    /// Ends to include; empty: all.
    pub ends: Vec<End>,
}

/// One exchange as it was recorded. Times in ms; `started` in RFC 3339.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "the fields are those of `ExchangeRecord`")]
pub struct ExchangeRow {
    pub id: String,
    pub started: String,
    pub elapsed_ms: u64,
    pub client: Option<String>,
    pub session: Option<String>,
    pub operation: String,
    pub path: String,
    pub model: String,
    pub streaming: bool,
    pub status: u16,
    pub end: String,
    pub lane: Option<String>,
    pub backend: Option<String>,
    pub waits: u32,
    pub waited_ms: u64,
    pub first_byte_ms: Option<u64>,
    pub policy: String,
    pub policy_faults: u32,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cached_input_tokens: u64,
    pub estimated: bool,
    pub cost_usd: f64,
    pub notes: Vec<String>,
    pub error: Option<String>,
    pub denied: Option<String>,
    pub saved_usd: Option<f64>,
    pub attempts: Vec<AttemptRow>,
}

/// One attempt as it was recorded. Times in ms; `started` in RFC 3339.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "the fields are those of `AttemptRecord`")]
pub struct AttemptRow {
    pub number: u32,
    pub backend: String,
    pub lane: String,
    pub model_sent: String,
    pub started: String,
    pub elapsed_ms: u64,
    pub first_byte_ms: Option<u64>,
    pub first_token_ms: Option<u64>,
    pub outcome: String,
    pub status: u16,
    pub retry_after_ms: Option<u64>,
    pub message: Option<String>,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cached_input_tokens: u64,
    pub estimated: bool,
    pub cost_usd: f64,
}

/// Asks the store; cheap to clone, its clones take turns.
#[derive(Clone, Debug)]
pub struct StoreReader {
    connection: Shared,
}

impl StoreReader {
    pub(super) fn new(connection: Shared) -> Self {
        Self { connection }
    }

    pub(super) fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock()
    }

    /// Usage of the exchanges that ended at or after `since`, in the order of the key.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn usage(&self, since: Timestamp, group: Group) -> Result<Vec<UsageRow>, StoreError> {
        let connection = self.connection();
        let mut select = connection.prepare_cached(&usage_sql(group))?;
        let rows = select.query_map([micros(since)], |row| {
            Ok(UsageRow {
                key: row.get(0)?,
                requests: unsigned(row, 1)?,
                failures: unsigned(row, 2)?,
                attempts: unsigned(row, 3)?,
                input_tokens: unsigned(row, 4)?,
                output_tokens: unsigned(row, 5)?,
                cached_input_tokens: unsigned(row, 6)?,
                cost_usd: money(row, 7)?,
                waits: unsigned(row, 8)?,
                waited_ms: unsigned(row, 9)?,
                denied: unsigned(row, 10)?,
                saved_by_waiting_usd: row.get(11)?,
                saved_without_waiting_usd: row.get(12)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Returns the cost of a client's exchanges that ended at or after `since`, USD.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn spend_since(&self, client: &str, since: Timestamp) -> Result<f64, StoreError> {
        let connection = self.connection();
        let mut select =
            connection.prepare_cached("SELECT total(cost_usd) FROM exchanges WHERE ended_us >= ?1 AND client = ?2")?;
        Ok(select.query_row(params![micros(since), client], |row| row.get(0))?)
    }

    /// The latest exchange of this request id. Looks from the newest backwards: an id that is not there costs a look at
    /// every row, about a second for some millions.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn exchange(&self, id: &str) -> Result<Option<ExchangeRow>, StoreError> {
        let connection = self.connection();
        let sql = format!("SELECT {EXCHANGE_COLUMNS} FROM exchanges WHERE id = ?1 ORDER BY ended_us DESC LIMIT 1");
        let found = connection.prepare_cached(&sql)?.query_row([id], exchange_row).optional()?;
        found.map(|(key, exchange)| with_attempts(&connection, key, exchange)).transpose()
    }

    /// The latest exchanges of a kind, newest first, at most `limit`.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn exchanges(&self, filter: &Filter, limit: u32) -> Result<Vec<ExchangeRow>, StoreError> {
        let connection = self.connection();
        let sql = format!(
            "SELECT {EXCHANGE_COLUMNS} FROM exchanges AS x
             WHERE (?1 IS NULL OR status BETWEEN ?1 AND ?2) AND (?3 IS NULL OR client = ?3)
               AND (?4 IS NULL OR backend = ?4
                    OR EXISTS (SELECT 1 FROM attempts AS a WHERE a.ended_us = x.ended_us AND a.backend = ?4))
               AND (?6 IS NULL OR end IN (SELECT value FROM json_each(?6)))
             ORDER BY ended_us DESC LIMIT ?5"
        );
        let mut select = connection.prepare_cached(&sql)?;
        let status = filter.status.as_ref();
        let ends: Vec<&str> = filter.ends.iter().map(|end| end.as_str()).collect();
        let ends = (!ends.is_empty()).then(|| serde_json::json!(ends).to_string());
        let (low, high) = (status.map(|s| *s.start()), status.map(|s| *s.end()));
        let bounds = params![low, high, filter.client, filter.backend, limit, ends];
        let found: Vec<_> = select.query_map(bounds, exchange_row)?.collect::<Result<_, _>>()?;
        found.into_iter().map(|(key, exchange)| with_attempts(&connection, key, exchange)).collect()
    }
}

/// Sums of the group's members; the one parameter is the earliest end, in µs.
fn usage_sql(group: Group) -> String {
    let by = match group {
        Group::Client => "client",
        Group::Model => "model",
        Group::Hour => "strftime('%Y-%m-%dT%H:00:00Z', ended_us / 3600000000 * 3600, 'unixepoch')",
        Group::Day => "strftime('%Y-%m-%d', ended_us / 86400000000 * 86400, 'unixepoch')",
        Group::Backend => return usage_by_attempt_sql("backend"),
        Group::Lane => return usage_by_attempt_sql("lane"),
    };
    format!(
        "SELECT {by} AS key, sum(denied IS NULL), sum({FAILED}), sum(attempts), sum(input_tokens), sum(output_tokens),
                sum(cached_input_tokens), total(cost_usd), sum(waits), sum(waited_ms), sum(denied IS NOT NULL),
                {}, {}
         FROM exchanges WHERE ended_us >= ?1 GROUP BY key ORDER BY key",
        saved_sql("waits > 0"),
        saved_sql("waits = 0"),
    )
}

/// A resumed stream has cost at two backends: tokens and cost are taken from the attempts, the rest from the exchange.
fn usage_by_attempt_sql(column: &str) -> String {
    format!(
        "SELECT key, sum(requests), sum(failures), sum(attempts), sum(input), sum(output), sum(cached), total(cost),
                sum(waits), sum(waited_ms), sum(denied IS NOT NULL), {}, {}
         FROM (SELECT {column} AS key, denied IS NULL AS requests, {FAILED} AS failures, 0 AS attempts, 0 AS input, 0 AS output,
                      0 AS cached, 0.0 AS cost, waits, waited_ms, denied, end, lane, saved_usd
               FROM exchanges WHERE ended_us >= ?1
               UNION ALL
               SELECT {column}, 0, 0, 1, input_tokens, output_tokens, cached_input_tokens, cost_usd, 0, 0, NULL, NULL,
                      NULL, NULL
               FROM attempts WHERE ended_us >= ?1)
         GROUP BY key ORDER BY key",
        saved_sql("waits > 0"),
        saved_sql("waits = 0"),
    )
}

/// SQL for the savings of the exchanges of a group in this condition; NULL where there are some and none is known.
fn saved_sql(condition: &str) -> String {
    let compared = format!("({condition} AND end = 'delivered' AND lane IN ('primary', 'emergency'))");
    format!("CASE WHEN total({compared}) = 0 THEN 0.0 ELSE sum(CASE WHEN {compared} THEN saved_usd END) END")
}

/// 1 for an exchange that the client did not get what it asked for; its going away is its own affair.
const FAILED: &str = "end IN ('refused', 'rejected', 'broken')";

pub(super) const EXCHANGE_COLUMNS: &str =
    "ended_us, id, started, elapsed_ms, client, session, operation, path, model, streaming,
    status, end, lane, backend, waits, waited_ms, first_byte_ms, policy, policy_faults, input_tokens, output_tokens,
    cached_input_tokens, estimated, cost_usd, notes, error, denied, saved_usd";

const ATTEMPT_COLUMNS: &str = "number, backend, lane, model_sent, started, elapsed_ms, first_byte_ms, first_token_ms,
    outcome, status, retry_after_ms, message, input_tokens, output_tokens, cached_input_tokens, estimated, cost_usd";

/// The key and the exchange, still without its attempts.
pub(super) fn exchange_row(row: &Row<'_>) -> rusqlite::Result<(i64, ExchangeRow)> {
    let notes: Option<String> = row.get(24)?;
    let exchange = ExchangeRow {
        id: row.get(1)?,
        started: row.get(2)?,
        elapsed_ms: unsigned(row, 3)?,
        client: row.get(4)?,
        session: row.get(5)?,
        operation: row.get(6)?,
        path: row.get(7)?,
        model: row.get(8)?,
        streaming: row.get(9)?,
        status: row.get(10)?,
        end: row.get(11)?,
        lane: row.get(12)?,
        backend: row.get(13)?,
        waits: row.get(14)?,
        waited_ms: unsigned(row, 15)?,
        first_byte_ms: optional(row, 16)?,
        policy: row.get(17)?,
        policy_faults: row.get(18)?,
        input_tokens: unsigned(row, 19)?,
        output_tokens: unsigned(row, 20)?,
        cached_input_tokens: unsigned(row, 21)?,
        estimated: row.get(22)?,
        cost_usd: money(row, 23)?,
        notes: notes.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default(),
        error: row.get(25)?,
        denied: row.get(26)?,
        saved_usd: row.get(27)?,
        attempts: Vec::new(),
    };
    Ok((row.get(0)?, exchange))
}

pub(super) fn with_attempts(
    connection: &Connection,
    key: i64,
    exchange: ExchangeRow,
) -> Result<ExchangeRow, StoreError> {
    let sql = format!("SELECT {ATTEMPT_COLUMNS} FROM attempts WHERE ended_us = ?1 ORDER BY number");
    let mut select = connection.prepare_cached(&sql)?;
    let attempts = select.query_map([key], attempt_row)?.collect::<Result<_, _>>()?;
    Ok(ExchangeRow { attempts, ..exchange })
}

fn attempt_row(row: &Row<'_>) -> rusqlite::Result<AttemptRow> {
    Ok(AttemptRow {
        number: row.get(0)?,
        backend: row.get(1)?,
        lane: row.get(2)?,
        model_sent: row.get(3)?,
        started: row.get(4)?,
        elapsed_ms: unsigned(row, 5)?,
        first_byte_ms: optional(row, 6)?,
        first_token_ms: optional(row, 7)?,
        outcome: row.get(8)?,
        status: row.get(9)?,
        retry_after_ms: optional(row, 10)?,
        message: row.get(11)?,
        input_tokens: unsigned(row, 12)?,
        output_tokens: unsigned(row, 13)?,
        cached_input_tokens: unsigned(row, 14)?,
        estimated: row.get(15)?,
        cost_usd: money(row, 16)?,
    })
}

/// Stores of earlier versions have costs of -0.0.
fn money(row: &Row<'_>, column: usize) -> rusqlite::Result<f64> {
    Ok(row.get::<_, f64>(column)? + 0.0)
}

/// SQLite's integers are signed; ours are never negative.
fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.unsigned_abs())
}

fn optional(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(i64::unsigned_abs))
}

pub(super) fn micros(time: Timestamp) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
