//! Usage of clients, backends, models, lanes, hours and days.

use pointsman_core::text::{MAX_NAME_BYTES, cut};
use pointsman_core::time::Timestamp;
use rusqlite::params;
use schemars::JsonSchema;
use serde::Serialize;

use super::StoreError;
use super::columns::{columns, money};
use super::read::{StoreReader, json_bytes, micros};

pointsman_core::vocabulary! {
    /// By what usage is summed.
    pub enum Group {
        /// Name of the client key; none where no key is asked for.
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
    /// Number of attempts that were sent.
    pub attempts: u64,
    /// Tokens of their prompts, cached ones included.
    pub input_tokens: u64,
    /// Tokens of their answers.
    pub output_tokens: u64,
    /// Prompt tokens that the provider had cached.
    pub cached_input_tokens: u64,
    /// Cost of these attempts, USD.
    pub cost_usd: f64,
    /// Number of waits in the queue.
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

/// Some members of a group, and the sum of all.
#[derive(Clone, Debug, PartialEq)]
pub struct UsagePage {
    /// All members together, those of other pages too.
    pub total: UsageRow,
    /// Members in the order of their key.
    pub rows: Vec<UsageRow>,
    /// Members before the page that follows; none: there are no more.
    pub next: Option<usize>,
}

impl UsageRow {
    /// Both together, without a key.
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            key: None,
            requests: self.requests + other.requests,
            failures: self.failures + other.failures,
            attempts: self.attempts + other.attempts,
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
            cached_input_tokens: self.cached_input_tokens.saturating_add(other.cached_input_tokens),
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

columns!(UsageRow {
    key, requests, failures, attempts, input_tokens, output_tokens, cached_input_tokens, cost_usd with money, waits, waited_ms,
    denied, saved_by_waiting_usd, saved_without_waiting_usd,
});

impl StoreReader {
    /// Usage of the exchanges that ended at or after `since`, in the order of the key.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn usage(&self, since: Timestamp, group: Group) -> Result<Vec<UsageRow>, StoreError> {
        Ok(self.usage_page(since, group, 0, usize::MAX)?.rows)
    }

    /// As [`StoreReader::usage`] behind the first `after` members, and no more of them than make `max_bytes` of JSON, but at
    /// least one.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn usage_page(
        &self,
        since: Timestamp,
        group: Group,
        after: usize,
        max_bytes: usize,
    ) -> Result<UsagePage, StoreError> {
        let connection = self.connection();
        let sql = format!("SELECT {} FROM ({}) ORDER BY key", UsageRow::COLUMNS, usage_sql(group));
        let mut select = connection.prepare_cached(&sql)?;
        let mut page = UsagePage { total: UsageRow::nothing(), rows: Vec::new(), next: None };
        let mut bytes = 0usize;
        for (index, row) in select.query_map([micros(since)], UsageRow::read)?.enumerate() {
            let mut row = row?;
            page.total = page.total.plus(&row);
            if index < after || page.next.is_some() {
                continue;
            }
            // Earlier versions kept models whole.
            if let Some(key) = &mut row.key {
                cut(key, MAX_NAME_BYTES);
            }
            bytes = bytes.saturating_add(json_bytes(&row));
            if bytes > max_bytes && !page.rows.is_empty() {
                page.next = Some(index);
            } else {
                page.rows.push(row);
            }
        }
        Ok(page)
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
        "SELECT {by} AS key, sum(denied IS NULL) AS requests, sum({FAILED}) AS failures, sum(attempts) AS attempts,
                CAST(min(total(input_tokens), {MOST_TOKENS}) AS INTEGER) AS input_tokens, CAST(min(total(output_tokens), {MOST_TOKENS}) AS INTEGER) AS output_tokens,
                CAST(min(total(cached_input_tokens), {MOST_TOKENS}) AS INTEGER) AS cached_input_tokens, total(cost_usd) AS cost_usd, sum(waits) AS waits,
                sum(waited_ms) AS waited_ms, sum(denied IS NOT NULL) AS denied,
                {} AS saved_by_waiting_usd, {} AS saved_without_waiting_usd
         FROM exchanges WHERE ended_us >= ?1 GROUP BY key",
        saved_sql("waits > 0"),
        saved_sql("waits = 0"),
    )
}

/// A resumed stream has cost at two backends: tokens and cost are taken from the attempts, the rest from the exchange.
fn usage_by_attempt_sql(column: &str) -> String {
    format!(
        "SELECT key, sum(requests) AS requests, sum(failures) AS failures, sum(attempts) AS attempts,
                CAST(min(total(input), {MOST_TOKENS}) AS INTEGER) AS input_tokens, CAST(min(total(output), {MOST_TOKENS}) AS INTEGER) AS output_tokens, CAST(min(total(cached), {MOST_TOKENS}) AS INTEGER) AS cached_input_tokens,
                total(cost) AS cost_usd, sum(waits) AS waits, sum(waited_ms) AS waited_ms,
                sum(denied IS NOT NULL) AS denied, {} AS saved_by_waiting_usd, {} AS saved_without_waiting_usd
         FROM (SELECT {column} AS key, denied IS NULL AS requests, {FAILED} AS failures, 0 AS attempts, 0 AS input, 0 AS output,
                      0 AS cached, 0.0 AS cost, waits, waited_ms, denied, end, lane, saved_usd
               FROM exchanges WHERE ended_us >= ?1
               UNION ALL
               SELECT {column}, 0, 0, 1, input_tokens, output_tokens, cached_input_tokens, cost_usd, 0, 0, NULL, NULL,
                      NULL, NULL
               FROM attempts WHERE ended_us >= ?1)
         GROUP BY key",
        saved_sql("waits > 0"),
        saved_sql("waits = 0"),
    )
}

/// The largest sum of tokens, in SQL. A sum of integers fails where it overflows, which absurd numbers of an old record may do.
const MOST_TOKENS: &str = "9e18";

/// SQL for the savings of the exchanges of a group in this condition; NULL where there are some and none is known.
fn saved_sql(condition: &str) -> String {
    let compared = format!("({condition} AND end = 'delivered' AND lane IN ('primary', 'emergency'))");
    format!("CASE WHEN total({compared}) = 0 THEN 0.0 ELSE sum(CASE WHEN {compared} THEN saved_usd END) END")
}

/// 1 for an exchange that the client did not get what it asked for; its going away is its own affair.
const FAILED: &str = "end IN ('refused', 'rejected', 'broken')";
