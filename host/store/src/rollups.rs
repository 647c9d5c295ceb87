//! Usage summed by the hour: written with the exchanges, read in place of them where a long time is asked about.
//!
//! A sum over a year of exchanges reads gigabytes; over its hours it reads some thousand rows. The sums outlive the exchanges.
//! Records of an earlier Pointsman are summed afterwards, some thousand exchanges at a time ([`fill`]).

use std::borrow::Cow;
use std::collections::HashMap;

use pointsman_core::record::{End, ExchangeRecord};
use pointsman_core::table::Lane;
use pointsman_core::time::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::StoreLimits;
use super::columns::signed;
use super::usage_parts::{COLUMNS, Dimension, HOUR_US, parts_sql};

/// Exchanges of an earlier Pointsman that are summed at a time.
const FILL_ROWS: i64 = 4_096;

/// Hours for which sums are kept: 400 days, so that a year can be compared with the one before it.
const KEPT_HOURS: i64 = 400 * 24;

/// Sums that are kept; of more, the oldest go.
const MAX_ROWS: u64 = 500_000;

/// Bytes that a row takes at most on average, with a name of 256 bytes, and the part of the store that they may have.
const ROW_BYTES: u64 = 512;
const PART_OF_STORE: u64 = 8;

/// Sums of one key in one hour.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    requests: i64,
    failures: i64,
    attempts: i64,
    input_tokens: i64,
    output_tokens: i64,
    cached_input_tokens: i64,
    cost_usd: f64,
    waits: i64,
    waited_ms: i64,
    denied: i64,
    compared_waited: i64,
    saved_waited_usd: Option<f64>,
    compared: i64,
    saved_usd: Option<f64>,
}

/// Key of a row: the dimension, the hour, the member; none: exchanges without one.
type Key<'a> = (Dimension, i64, Option<Cow<'a, str>>);

/// Sums of the exchanges of one transaction.
#[derive(Default)]
pub(super) struct Rollups<'a> {
    sums: HashMap<Key<'a>, Sums>,
    /// Exchanges with smaller keys are summed by [`fill`].
    filled_from: i64,
}

impl<'a> Rollups<'a> {
    /// No sums yet.
    ///
    /// # Errors
    /// When SQLite fails.
    pub(super) fn begin(transaction: &Transaction<'_>) -> rusqlite::Result<Self> {
        Ok(Self { sums: HashMap::new(), filled_from: filled_from(transaction)? })
    }

    /// Adds an exchange that was written under this key.
    pub(super) fn add(&mut self, key: i64, record: &'a ExchangeRecord) {
        if key < self.filled_from {
            return;
        }
        let hour = key.div_euclid(HOUR_US);
        let of_exchange = Sums::of_exchange(record);
        let (usage, cost_usd) = (record.usage(), record.cost_usd());
        let whole = Sums {
            attempts: record.attempts.len() as i64,
            input_tokens: signed(usage.input_tokens),
            output_tokens: signed(usage.output_tokens),
            cached_input_tokens: signed(usage.cached_input_tokens),
            cost_usd,
            ..of_exchange
        };
        let mut add = |dimension, member: Option<&'a str>, sums: &Sums| {
            self.sums.entry((dimension, hour, member.map(Cow::Borrowed))).or_default().add(sums);
        };
        add(Dimension::Client, record.client.as_deref(), &whole);
        add(Dimension::Model, Some(&record.model), &whole);
        add(Dimension::Backend, record.backend.as_deref(), &of_exchange);
        add(Dimension::Lane, record.lane.map(|lane| lane.as_str()), &of_exchange);
        for attempt in &record.attempts {
            let sums = Sums {
                attempts: 1,
                input_tokens: signed(attempt.usage.input_tokens),
                output_tokens: signed(attempt.usage.output_tokens),
                cached_input_tokens: signed(attempt.usage.cached_input_tokens),
                cost_usd: attempt.cost_usd,
                ..Sums::default()
            };
            add(Dimension::Backend, Some(&attempt.backend), &sums);
            add(Dimension::Lane, Some(attempt.lane.as_str()), &sums);
        }
    }

    /// Writes them to those that are there.
    ///
    /// # Errors
    /// When SQLite fails.
    pub(super) fn finish(self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut insert = transaction.prepare_cached(&format!(
            "INSERT INTO usage_hour (dimension, hour, member, {COLUMNS})
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17) {ADDED}"
        ))?;
        for ((dimension, hour, member), sums) in self.sums {
            let member = member.map_or(Value::Integer(0), |member| Value::Text(member.into_owned()));
            insert.execute(params![
                dimension.as_str(),
                hour,
                member,
                sums.requests,
                sums.failures,
                sums.attempts,
                sums.input_tokens,
                sums.output_tokens,
                sums.cached_input_tokens,
                sums.cost_usd,
                sums.waits,
                sums.waited_ms,
                sums.denied,
                sums.compared_waited,
                sums.saved_waited_usd,
                sums.compared,
                sums.saved_usd,
            ])?;
        }
        Ok(())
    }
}

impl Sums {
    /// The sums of one exchange, without its attempts.
    fn of_exchange(record: &ExchangeRecord) -> Self {
        let is_denied = record.denied.is_some();
        let is_failure = matches!(record.end, End::Refused | End::Rejected | End::Broken);
        let is_compared = record.end == End::Delivered && matches!(record.lane, Some(Lane::Primary | Lane::Emergency));
        let has_waited = record.waits > 0;
        let compared = |is: bool| (i64::from(is_compared && is), record.saved_usd.filter(|_| is_compared && is));
        let ((compared_waited, saved_waited_usd), (compared, saved_usd)) =
            (compared(has_waited), compared(!has_waited));
        Self {
            requests: i64::from(!is_denied),
            failures: i64::from(is_failure),
            waits: i64::from(record.waits),
            waited_ms: super::insert::millis(record.waited),
            denied: i64::from(is_denied),
            compared_waited,
            saved_waited_usd,
            compared,
            saved_usd,
            ..Self::default()
        }
    }

    fn add(&mut self, other: &Self) {
        for (sum, more) in [
            (&mut self.requests, other.requests),
            (&mut self.failures, other.failures),
            (&mut self.attempts, other.attempts),
            (&mut self.input_tokens, other.input_tokens),
            (&mut self.output_tokens, other.output_tokens),
            (&mut self.cached_input_tokens, other.cached_input_tokens),
            (&mut self.waits, other.waits),
            (&mut self.waited_ms, other.waited_ms),
            (&mut self.denied, other.denied),
            (&mut self.compared_waited, other.compared_waited),
            (&mut self.compared, other.compared),
        ] {
            *sum = sum.saturating_add(more);
        }
        self.cost_usd += other.cost_usd;
        for (sum, more) in
            [(&mut self.saved_waited_usd, other.saved_waited_usd), (&mut self.saved_usd, other.saved_usd)]
        {
            *sum = sum.map_or(more, |sum| Some(sum + more.unwrap_or(0.0)));
        }
    }
}

/// A row that is there gets what is new. A sum that would overflow stays at the largest number there is.
const ADDED: &str = "ON CONFLICT (dimension, hour, member) DO UPDATE SET
    requests = requests + excluded.requests, failures = failures + excluded.failures,
    attempts = attempts + excluded.attempts,
    input_tokens = CAST(min(1.0 * input_tokens + excluded.input_tokens, 9e18) AS INTEGER),
    output_tokens = CAST(min(1.0 * output_tokens + excluded.output_tokens, 9e18) AS INTEGER),
    cached_input_tokens = CAST(min(1.0 * cached_input_tokens + excluded.cached_input_tokens, 9e18) AS INTEGER),
    cost_usd = cost_usd + excluded.cost_usd, waits = waits + excluded.waits, waited_ms = waited_ms + excluded.waited_ms,
    denied = denied + excluded.denied, compared_waited = compared_waited + excluded.compared_waited,
    saved_waited_usd = CASE WHEN saved_waited_usd IS NULL THEN excluded.saved_waited_usd
        ELSE saved_waited_usd + coalesce(excluded.saved_waited_usd, 0.0) END,
    compared = compared + excluded.compared,
    saved_usd = CASE WHEN saved_usd IS NULL THEN excluded.saved_usd ELSE saved_usd + coalesce(excluded.saved_usd, 0.0) END";

/// The first key of which all exchanges are in the sums.
///
/// # Errors
/// When SQLite fails.
pub(super) fn filled_from(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("SELECT from_us FROM usage_filled")?.query_row([], |row| row.get(0))
}

/// Sums some of the exchanges that an earlier Pointsman wrote, the newest first; true when more are left.
///
/// # Errors
/// When SQLite fails; nothing is summed twice.
pub(super) fn fill(connection: &mut Connection) -> rusqlite::Result<bool> {
    let end = filled_from(connection)?;
    if end == 0 {
        return Ok(false);
    }
    let transaction = connection.transaction()?;
    let begin: i64 = transaction
        .prepare_cached("SELECT ended_us FROM exchange WHERE ended_us < ?1 ORDER BY ended_us DESC LIMIT 1 OFFSET ?2")?
        .query_row([end, FILL_ROWS - 1], |row| row.get(0))
        .optional()?
        .unwrap_or(0);
    for dimension in Dimension::ALL {
        let sql = format!(
            "INSERT INTO usage_hour (dimension, hour, member, {COLUMNS})
             SELECT '{}', ended_us / {HOUR_US}, coalesce(member, 0),
                 total(requests), total(failures), total(attempts), min(total(input_tokens), 9e18),
                 min(total(output_tokens), 9e18), min(total(cached_input_tokens), 9e18), total(cost_usd), total(waits),
                 total(waited_ms), total(denied), total(compared_waited), sum(saved_waited_usd), total(compared), sum(saved_usd)
             FROM ({}) WHERE true GROUP BY 2, 3 {ADDED}",
            dimension.as_str(),
            parts_sql(dimension)
        );
        transaction.execute(&sql, [begin, end])?;
    }
    transaction.execute("UPDATE usage_filled SET from_us = ?1", [begin])?;
    transaction.commit()?;
    Ok(begin > 0)
}

/// Deletes sums that are too old or too many.
///
/// # Errors
/// When SQLite fails.
pub(super) fn tend(connection: &Connection, limits: &StoreLimits, now: Timestamp) -> rusqlite::Result<()> {
    let mut oldest = signed(now.as_micros()) / HOUR_US - KEPT_HOURS;
    let most = limits.max_bytes.map_or(MAX_ROWS, |bytes| MAX_ROWS.min(bytes / PART_OF_STORE / ROW_BYTES));
    let rows: u64 = connection.prepare_cached("SELECT count(*) FROM usage_hour")?.query_row([], |row| row.get(0))?;
    if rows > most {
        let surplus = signed(rows - most);
        let after: Option<i64> = connection
            .prepare_cached("SELECT hour FROM usage_hour ORDER BY hour LIMIT 1 OFFSET ?1")?
            .query_row([surplus], |row| row.get(0))
            .optional()?;
        oldest = oldest.max(after.unwrap_or(i64::MIN).saturating_add(1));
    }
    let mut delete = connection.prepare_cached("DELETE FROM usage_hour WHERE dimension = ?1 AND hour < ?2")?;
    for dimension in Dimension::ALL {
        delete.execute(params![dimension.as_str(), oldest])?;
    }
    Ok(())
}
