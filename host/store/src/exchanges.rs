//! Exchanges as they were recorded.

use std::ops::RangeInclusive;

use pointsman_core::record::End;
use pointsman_core::text::{MAX_NAME_BYTES, cut};
use pointsman_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use schemars::JsonSchema;
use serde::Serialize;

use super::StoreError;
use super::columns::{columns, money};
use super::read::{StoreReader, json_bytes, micros};

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
    /// The `next` of the page before; none: from the newest on.
    pub before: Option<i64>,
}

/// Some exchanges, the newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct ExchangePage {
    /// At most as many as asked for.
    pub exchanges: Vec<ExchangeRow>,
    /// Beginning of the page that follows; none: there are no more.
    pub next: Option<i64>,
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
    /// The provider's own id of the request.
    pub upstream_id: Option<String>,
    /// The part that a failed attempt is held against.
    pub scope: Option<String>,
}

columns!(ExchangeRow {
    id, started, elapsed_ms, client, session, operation, path, model, streaming, status, end, lane, backend, waits, waited_ms,
    first_byte_ms, policy, policy_faults, input_tokens, output_tokens, cached_input_tokens, estimated, cost_usd with money,
    notes with list, error, denied, saved_usd;
    attempts
});

columns!(AttemptRow {
    number, backend, lane, model_sent, started, elapsed_ms, first_byte_ms, first_token_ms, outcome, status, retry_after_ms,
    message, input_tokens, output_tokens, cached_input_tokens, estimated, cost_usd with money,
    upstream_id, scope,
});

/// Requests and tokens sent to a backend within a minute.
#[derive(Clone, Debug, PartialEq)]
pub struct SentRow {
    /// The model name sent.
    pub model_sent: String,
    /// The end of the last exchange, in ms since 1970.
    pub at_ms: u64,
    /// Attempts that the provider saw.
    pub requests: u64,
    /// Their tokens, prompt and answer.
    pub tokens: u64,
}

/// Attempts that had no connection were not seen by the provider.
const SENT_SINCE: &str = "
SELECT model_sent, max(ended_us) / 1000, count(*), sum(input_tokens + output_tokens)
FROM attempts WHERE ended_us >= ?1 AND backend = ?2 AND outcome <> 'connect_failed'
GROUP BY model_sent, ended_us / 60000000 ORDER BY 2";

impl StoreReader {
    /// Returns the requests and tokens that a backend was sent since then, by the minute, oldest first.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn sent_since(&self, backend: &str, since: Timestamp) -> Result<Vec<SentRow>, StoreError> {
        let connection = self.connection();
        let mut select = connection.prepare_cached(SENT_SINCE)?;
        let rows = select.query_map(params![micros(since), backend], |row| {
            let number = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
            Ok(SentRow { model_sent: row.get(0)?, at_ms: number(1)?, requests: number(2)?, tokens: number(3)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The latest exchange of this request id. Looks from the newest backwards: an id that is not there costs a look at
    /// every row, about a second for some millions.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn exchange(&self, id: &str) -> Result<Option<ExchangeRow>, StoreError> {
        let connection = self.connection();
        latest(&connection, id)?.map(|(key, exchange)| with_attempts(&connection, key, exchange)).transpose()
    }

    /// The latest exchanges of a kind, newest first, at most `limit`.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn exchanges(&self, filter: &Filter, limit: u32) -> Result<Vec<ExchangeRow>, StoreError> {
        Ok(self.page(filter, limit, usize::MAX)?.exchanges)
    }

    /// As [`StoreReader::exchanges`], and no more than make `max_bytes` of JSON, but at least one.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn page(&self, filter: &Filter, limit: u32, max_bytes: usize) -> Result<ExchangePage, StoreError> {
        let connection = self.connection();
        let sql = format!(
            "SELECT {}, ended_us FROM exchanges AS x
             WHERE (?1 IS NULL OR status BETWEEN ?1 AND ?2) AND (?3 IS NULL OR client = ?3)
               AND (?4 IS NULL OR backend = ?4
                    OR EXISTS (SELECT 1 FROM attempts AS a WHERE a.ended_us = x.ended_us AND a.backend = ?4))
               AND (?6 IS NULL OR end IN (SELECT value FROM json_each(?6)))
               AND ended_us < ?7
             ORDER BY ended_us DESC LIMIT ?5",
            ExchangeRow::COLUMNS
        );
        let mut select = connection.prepare_cached(&sql)?;
        let status = filter.status.as_ref();
        let ends: Vec<&str> = filter.ends.iter().map(|end| end.as_str()).collect();
        let ends = (!ends.is_empty()).then(|| serde_json::json!(ends).to_string());
        let (low, high) = (status.map(|s| *s.start()), status.map(|s| *s.end()));
        let before = filter.before.unwrap_or(i64::MAX);
        let bounds = params![low, high, filter.client, filter.backend, i64::from(limit) + 1, ends, before];
        let mut rows = select.query(bounds)?;
        let mut page = ExchangePage { exchanges: Vec::new(), next: None };
        let (mut bytes, mut last) = (0usize, None);
        while let Some(row) = rows.next()? {
            let (key, exchange) = keyed(row)?;
            let exchange = with_attempts(&connection, key, exchange)?;
            bytes = bytes.saturating_add(json_bytes(&exchange));
            if page.exchanges.len() >= limit as usize || (last.is_some() && bytes > max_bytes) {
                page.next = last;
                break;
            }
            last = Some(key);
            page.exchanges.push(exchange);
        }
        Ok(page)
    }
}

/// The key and the latest exchange of this request id, without its attempts.
pub(super) fn latest(connection: &Connection, id: &str) -> rusqlite::Result<Option<(i64, ExchangeRow)>> {
    let sql = format!(
        "SELECT {}, ended_us FROM exchanges WHERE id = ?1 ORDER BY ended_us DESC LIMIT 1",
        ExchangeRow::COLUMNS
    );
    connection.prepare_cached(&sql)?.query_row([id], keyed).optional()
}

fn keyed(row: &Row<'_>) -> rusqlite::Result<(i64, ExchangeRow)> {
    let mut exchange = ExchangeRow::read(row)?;
    // Earlier versions kept them whole.
    for name in [&mut exchange.model, &mut exchange.path].into_iter().chain(&mut exchange.session) {
        cut(name, MAX_NAME_BYTES);
    }
    Ok((row.get("ended_us")?, exchange))
}

/// The exchange with its attempts.
pub(super) fn with_attempts(
    connection: &Connection,
    key: i64,
    exchange: ExchangeRow,
) -> Result<ExchangeRow, StoreError> {
    let sql = format!("SELECT {} FROM attempts WHERE ended_us = ?1 ORDER BY number", AttemptRow::COLUMNS);
    let mut select = connection.prepare_cached(&sql)?;
    let attempts = select.query_map([key], AttemptRow::read)?.collect::<Result<_, _>>()?;
    Ok(ExchangeRow { attempts, ..exchange })
}

/// Reads a list of texts in JSON; NULL is an empty one.
fn list(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<String>> {
    let json: Option<String> = row.get(column)?;
    Ok(json.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default())
}
