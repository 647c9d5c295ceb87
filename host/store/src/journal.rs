//! The journal's rows: trails, and the setups they ran under.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use pointsman_core::denial::Denial;
use pointsman_core::journal::{Setup, Trail, decode, encode};
use pointsman_core::time::Timestamp;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Transaction, params};

use super::bodies::{self, Bodies};
use super::columns::insert;
use super::exchanges::{self, ExchangeRow, with_attempts};
use super::read::{StoreReader, micros};
use super::{Shared, StoreError, schema};

/// The journal's part of an exchange.
#[derive(Clone, Debug)]
pub struct JournalPart {
    /// Questions, answers, waits and attempts of the exchange, with their times.
    pub trail: Box<Trail>,
    /// The [`Setup`] it happened under, as JSON.
    pub setup: Arc<str>,
    /// True if it belongs to the random sample. Others are recorded because they were unusual.
    pub sampled: bool,
    /// Prompt and answer, where they are asked for.
    pub bodies: Option<Box<Bodies>>,
}

/// An exchange as the journal has it.
#[derive(Clone, Debug)]
pub struct Journaled {
    /// The exchange's row, with its attempts.
    pub exchange: ExchangeRow,
    /// Questions, answers, waits and attempts of the exchange, with their times.
    pub trail: Trail,
    /// Setup of the exchange; exchanges with the same setup share it.
    pub setup: Arc<Setup>,
    /// True if it belongs to the random sample.
    pub sampled: bool,
}

/// An exchange that can be explained.
#[derive(Clone, Debug)]
pub enum Explainable {
    /// The journal has how it went.
    Journaled(Box<Journaled>),
    /// It was refused at the door for this reason: its record says all there is.
    Denied(Box<ExchangeRow>, Denial),
}

impl Explainable {
    /// The exchange's row, with its attempts.
    pub fn exchange(&self) -> &ExchangeRow {
        match self {
            Explainable::Journaled(journaled) => &journaled.exchange,
            Explainable::Denied(exchange, _) => exchange,
        }
    }
}

/// Trails that could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Number of trails in the journal.
    pub trails: u64,
    /// Error of the last of them.
    pub why: Option<String>,
}

insert! {
    TRAIL = INTO "trail";
    fn insert(key: i64, setup: i64, sampled: bool, trail: &[u8]) {
        ended_us: key,
        setup: setup,
        sampled: sampled,
        trail: trail,
    }
}

/// Writes trails inside one transaction.
pub(super) struct TrailInserter<'t> {
    transaction: &'t Transaction<'t>,
    insert: CachedStatement<'t>,
    /// The setups of this batch, mostly one: by their address, with their row and the last key.
    setups: Vec<(Arc<str>, i64, i64)>,
    bytes: i64,
}

impl<'t> TrailInserter<'t> {
    pub(super) fn new(transaction: &'t Transaction<'_>) -> rusqlite::Result<Self> {
        let insert = transaction.prepare_cached(TRAIL)?;
        Ok(Self { transaction, insert, setups: Vec::new(), bytes: 0 })
    }

    /// The trail of the exchange that was written under this key.
    pub(super) fn insert(&mut self, key: i64, part: &JournalPart) -> rusqlite::Result<()> {
        let setup = self.setup(key, &part.setup)?;
        let bytes = encode(&part.trail);
        self.bytes += bytes.len() as i64;
        insert(&mut self.insert, key, setup, part.sampled, &bytes)?;
        if let Some(bodies) = &part.bodies {
            self.bytes += bodies::insert(self.transaction, key, bodies)?;
        }
        Ok(())
    }

    fn setup(&mut self, key: i64, setup: &Arc<str>) -> rusqlite::Result<i64> {
        if let Some((_, id, last)) = self.setups.iter_mut().find(|(known, _, _)| Arc::ptr_eq(known, setup)) {
            *last = key.max(*last);
            return Ok(*id);
        }
        let mut select = self.transaction.prepare_cached("SELECT id FROM setup WHERE setup = ?1")?;
        let id = match select.query_row([setup], |row| row.get(0)).optional()? {
            Some(id) => id,
            None => {
                let mut insert =
                    self.transaction.prepare_cached("INSERT INTO setup (setup, last_ended_us) VALUES (?1, ?2)")?;
                insert.insert(params![setup, key])?
            }
        };
        self.setups.push((Arc::clone(setup), id, key));
        Ok(id)
    }

    /// Notes the last use of the setups and the total size, after the last trail of a batch.
    pub(super) fn finish(self) -> rusqlite::Result<()> {
        if self.setups.is_empty() {
            return Ok(());
        }
        let mut used =
            self.transaction.prepare_cached("UPDATE setup SET last_ended_us = max(last_ended_us, ?2) WHERE id = ?1")?;
        for (_, id, last) in &self.setups {
            used.execute([id, last])?;
        }
        self.transaction.prepare_cached("UPDATE trail_total SET bytes = bytes + ?1")?.execute([self.bytes])?;
        Ok(())
    }
}

/// Deletes the trails before this key, and the setups that only they had; how many trails.
pub(super) fn delete_before(transaction: &Transaction<'_>, key: i64) -> rusqlite::Result<usize> {
    let freed: i64 = transaction
        .prepare_cached("SELECT coalesce(sum(length(trail)), 0) FROM trail WHERE ended_us < ?1")?
        .query_row([key], |row| row.get(0))?;
    let freed = freed + bodies::delete_before(transaction, key)?;
    let deleted = transaction.prepare_cached("DELETE FROM trail WHERE ended_us < ?1")?.execute([key])?;
    if deleted > 0 {
        transaction.prepare_cached("UPDATE trail_total SET bytes = bytes - ?1")?.execute([freed])?;
        transaction.prepare_cached("DELETE FROM setup WHERE last_ended_us < ?1")?.execute([key])?;
    }
    Ok(deleted)
}

impl JournalPart {
    /// About what it takes in memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.trail.bytes() + self.bodies.as_ref().map_or(0, |bodies| bodies.bytes())
    }
}

impl StoreReader {
    /// Opens the store of a Pointsman that may be running, to read what it has recorded.
    ///
    /// # Errors
    /// When there is no such file, or it has no journal.
    pub fn open(file: &Path) -> Result<Self, StoreError> {
        Ok(Self::new(Shared::new(schema::open_to_read(file)?)))
    }

    /// The latest exchange of this request id, where it can be explained.
    ///
    /// # Errors
    /// When SQLite fails, or its trail cannot be read.
    pub fn explainable(&self, id: &str) -> Result<Option<Explainable>, StoreError> {
        if let Some(exchange) = self.exchange(id)?
            && let Some(denial) = exchange.denied.as_deref().and_then(Denial::parse)
        {
            return Ok(Some(Explainable::Denied(Box::new(exchange), denial)));
        }
        Ok(self.journaled(id)?.map(|journaled| Explainable::Journaled(Box::new(journaled))))
    }

    /// The latest exchange of this request id that has a trail. Looks from the newest backwards.
    ///
    /// # Errors
    /// When SQLite fails, or its trail cannot be read.
    pub fn journaled(&self, id: &str) -> Result<Option<Journaled>, StoreError> {
        let connection = self.connection();
        let Some((key, exchange)) = exchanges::latest(&connection, id)? else { return Ok(None) };
        let mut select = connection.prepare_cached(
            "SELECT setup.setup, sampled, trail FROM trail JOIN setup ON id = trail.setup WHERE ended_us = ?1",
        )?;
        let row = select
            .query_row([key], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get::<_, Vec<u8>>(2)?)))
            .optional()?;
        let Some((setup, sampled, bytes)) = row else { return Ok(None) };
        let unreadable = |why: String| StoreError::Unreadable { id: id.to_owned(), why };
        let setup: Setup = serde_json::from_str(&setup).map_err(|e| unreadable(format!("its setup: {e}")))?;
        let trail = decode(&bytes, &setup.table.columns).map_err(|e| unreadable(e.to_string()))?;
        let exchange = with_attempts(&connection, key, exchange)?;
        Ok(Some(Journaled { exchange, trail, setup: Arc::new(setup), sampled }))
    }

    /// The request id of the exchange that ended last and can be explained: it has a trail, or was refused at the door.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn latest_explainable(&self) -> Result<Option<String>, StoreError> {
        let connection = self.connection();
        let latest = |sql: &str| {
            let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?));
            connection.prepare_cached(sql)?.query_row([], row).optional()
        };
        let trail =
            "SELECT ended_us, id FROM trail JOIN exchanges USING (ended_us) ORDER BY trail.ended_us DESC LIMIT 1";
        let denied = "SELECT ended_us, id FROM exchanges WHERE denied IS NOT NULL ORDER BY ended_us DESC LIMIT 1";
        Ok(latest(trail)?.max(latest(denied)?).map(|(_, id)| id))
    }

    /// Counts the exchanges with a trail that ended from `since` to before `until`.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn journal_size(&self, since: Timestamp, until: Timestamp) -> Result<u64, StoreError> {
        let connection = self.connection();
        let mut select =
            connection.prepare_cached("SELECT count(*) FROM trail WHERE ended_us >= ?1 AND ended_us < ?2")?;
        Ok(select.query_row([micros(since), micros(until)], |row| row.get::<_, i64>(0))?.unsigned_abs())
    }

    /// Returns when the first and the last exchange with a trail ended.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn journal_span(&self) -> Result<Option<(Timestamp, Timestamp)>, StoreError> {
        let connection = self.connection();
        let mut select = connection.prepare_cached("SELECT min(ended_us), max(ended_us) FROM trail")?;
        let times = select.query_row([], |row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?)))?;
        let time = |us: i64| Timestamp::from_micros(us.unsigned_abs());
        Ok(Option::zip(times.0, times.1).map(|(first, last)| (time(first), time(last))))
    }

    /// Hands over every exchange with a trail that ended in this time (`until` not in it), in the order of their ends, until
    /// `each` breaks off. What cannot be read is left out and counted.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn journal(
        &self,
        since: Timestamp,
        until: Timestamp,
        mut each: impl FnMut(Journaled) -> ControlFlow<()>,
    ) -> Result<Skipped, StoreError> {
        let connection = self.connection();
        let setups = setups(&connection)?;
        let sql = format!(
            "SELECT {}, ended_us, trail.setup, sampled, trail FROM trail JOIN exchanges USING (ended_us)
             WHERE trail.ended_us >= ?1 AND trail.ended_us < ?2 ORDER BY trail.ended_us",
            ExchangeRow::COLUMNS
        );
        let mut select = connection.prepare_cached(&sql)?;
        let mut rows = select.query([micros(since), micros(until)])?;
        let mut skipped = Skipped::default();
        while let Some(row) = rows.next()? {
            let exchange = ExchangeRow::read(row)?;
            let setup_id: i64 = row.get("setup")?;
            let setup = setups.iter().find(|(id, _)| *id == setup_id);
            let setup = match setup {
                Some((_, Ok(setup))) => setup,
                Some((_, Err(why))) => {
                    skipped.add(why.clone());
                    continue;
                }
                None => {
                    skipped.add("its setup is missing".to_owned());
                    continue;
                }
            };
            let bytes = row.get_ref("trail")?.as_blob().unwrap_or_default();
            match decode(bytes, &setup.table.columns) {
                Ok(trail) => {
                    let exchange = with_attempts(&connection, row.get("ended_us")?, exchange)?;
                    let journaled = Journaled { exchange, trail, setup: setup.clone(), sampled: row.get("sampled")? };
                    if each(journaled).is_break() {
                        break;
                    }
                }
                Err(error) => skipped.add(error.to_string()),
            }
        }
        Ok(skipped)
    }
}

impl Skipped {
    fn add(&mut self, why: String) {
        self.trails += 1;
        self.why = Some(why);
    }
}

type ReadSetup = Result<Arc<Setup>, String>;

fn setups(connection: &Connection) -> Result<Vec<(i64, ReadSetup)>, StoreError> {
    let mut select = connection.prepare_cached("SELECT id, setup FROM setup")?;
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
    let read = |text: &str| serde_json::from_str(text).map(Arc::new).map_err(|e| format!("its setup: {e}"));
    rows.map(|row| row.map(|(id, text)| (id, read(&text)))).collect::<rusqlite::Result<_>>().map_err(StoreError::from)
}
