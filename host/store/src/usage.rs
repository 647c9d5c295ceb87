//! Usage of clients, backends, models, lanes, hours and days.

use pointsman_core::text::{MAX_NAME_BYTES, cut};
use pointsman_core::time::Timestamp;
use rusqlite::{Connection, params};
use schemars::JsonSchema;
use serde::Serialize;

use super::StoreError;
use super::columns::{columns, money};
use super::read::{StoreReader, json_bytes, micros};
use super::rollups::filled_from;
use super::usage_parts::{COLUMNS, Dimension, HOUR_US, parts_sql};

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
        let Span { begin, end, hours_from } = Span::since(&connection, since)?;
        let sql = format!("SELECT {} FROM ({}) ORDER BY key", UsageRow::COLUMNS, usage_sql(group));
        let mut select = connection.prepare_cached(&sql)?;
        let mut page = UsagePage { total: UsageRow::nothing(), rows: Vec::new(), next: None };
        let mut bytes = 0usize;
        for (index, row) in select.query_map([begin, end, hours_from], UsageRow::read)?.enumerate() {
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
        let Span { begin, end, hours_from } = Span::since(&connection, since)?;
        let mut select = connection.prepare_cached(
            "SELECT total(cost_usd) FROM (
                 SELECT cost_usd FROM exchanges WHERE ended_us >= ?1 AND ended_us < ?2 AND client = ?4
                 UNION ALL
                 SELECT cost_usd FROM usage_hour WHERE dimension = 'client' AND hour >= ?3 AND member = ?4)",
        )?;
        Ok(select.query_row(params![begin, end, hours_from, client], |row| row.get(0))?)
    }
}

/// A time up to now in two parts: exchanges that are summed one by one, and hours whose sums are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    /// Keys of the exchanges, from here...
    begin: i64,
    /// ...to before here.
    end: i64,
    /// The first hour that is read.
    hours_from: i64,
}

impl Span {
    fn since(connection: &Connection, since: Timestamp) -> Result<Self, StoreError> {
        Ok(Self::of(micros(since), filled_from(connection)?))
    }

    /// The part of an hour at the beginning has no sum, nor has what an earlier version wrote before `filled_from`, until it is
    /// summed. The hour of `filled_from` has the sum of what is behind it.
    fn of(begin: i64, filled_from: i64) -> Self {
        if begin < filled_from {
            return Self { begin, end: filled_from, hours_from: filled_from.div_euclid(HOUR_US) };
        }
        let hours_from = begin.saturating_add(HOUR_US - 1).div_euclid(HOUR_US);
        Self { begin, end: hours_from.saturating_mul(HOUR_US), hours_from }
    }
}

impl Group {
    const fn dimension(self) -> Dimension {
        match self {
            // Every exchange has one client, or none.
            Group::Client | Group::Hour | Group::Day => Dimension::Client,
            Group::Model => Dimension::Model,
            Group::Backend => Dimension::Backend,
            Group::Lane => Dimension::Lane,
        }
    }
}

/// Sums of the group's members. The parameters are the first key of single exchanges, the one behind the last, and the first
/// hour whose sums are read.
fn usage_sql(group: Group) -> String {
    let key = match group {
        Group::Client | Group::Model | Group::Backend | Group::Lane => "member",
        Group::Hour => "strftime('%Y-%m-%dT%H:00:00Z', hour * 3600, 'unixepoch')",
        Group::Day => "strftime('%Y-%m-%d', hour * 3600, 'unixepoch')",
    };
    let dimension = group.dimension();
    format!(
        "SELECT {key} AS key, CAST(total(requests) AS INTEGER) AS requests, CAST(total(failures) AS INTEGER) AS failures,
                CAST(total(attempts) AS INTEGER) AS attempts,
                CAST(min(total(input_tokens), {MOST_TOKENS}) AS INTEGER) AS input_tokens,
                CAST(min(total(output_tokens), {MOST_TOKENS}) AS INTEGER) AS output_tokens,
                CAST(min(total(cached_input_tokens), {MOST_TOKENS}) AS INTEGER) AS cached_input_tokens,
                total(cost_usd) AS cost_usd, CAST(total(waits) AS INTEGER) AS waits,
                CAST(total(waited_ms) AS INTEGER) AS waited_ms, CAST(total(denied) AS INTEGER) AS denied,
                CASE WHEN total(compared_waited) = 0 THEN 0.0 ELSE sum(saved_waited_usd) END AS saved_by_waiting_usd,
                CASE WHEN total(compared) = 0 THEN 0.0 ELSE sum(saved_usd) END AS saved_without_waiting_usd
         FROM (SELECT member, ended_us / {HOUR_US} AS hour, {COLUMNS} FROM ({})
               UNION ALL
               SELECT CASE typeof(member) WHEN 'text' THEN member END, hour, {COLUMNS}
               FROM usage_hour WHERE dimension = '{}' AND hour >= ?3)
         GROUP BY key",
        parts_sql(dimension),
        dimension.as_str(),
    )
}

/// The largest sum of tokens, in SQL. A sum of integers fails where it overflows, which absurd numbers of an old record may do.
const MOST_TOKENS: &str = "9e18";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_whole_hours_and_what_is_left_of_one() {
        let hour = HOUR_US;
        assert_eq!(Span::of(5 * hour, 0), Span { begin: 5 * hour, end: 5 * hour, hours_from: 5 });
        assert_eq!(Span::of(5 * hour + 1, 0), Span { begin: 5 * hour + 1, end: 6 * hour, hours_from: 6 });
        assert_eq!(Span::of(0, 7 * hour + 9), Span { begin: 0, end: 7 * hour + 9, hours_from: 7 }, "not summed before");
        assert_eq!(Span::of(i64::MAX, 0).hours_from, i64::MAX / hour);
    }
}
