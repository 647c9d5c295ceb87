//! Steps of guarded promotions.

use rusqlite::Connection;

use super::columns::{columns, insert, signed};
use super::{PolicyStore, StoreError};

/// Steps kept; the oldest go.
pub const MAX_POLICY_EVENTS: u32 = 1_000;

/// A step of a guarded promotion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyEventRow {
    /// Time in ms since the epoch.
    pub at_ms: u64,
    /// Word for the step of the promotion.
    pub step: String,
    /// Revision of the candidate, 12 digits.
    pub candidate: String,
    /// Revision that the candidate is compared with, 12 digits.
    pub control: String,
    /// The reason in a sentence.
    pub why: String,
    /// Both sides and the guards at that moment, as JSON.
    pub numbers: String,
}

columns!(PolicyEventRow { at_ms, step, candidate, control, why, numbers });

insert! {
    POLICY_EVENT = INTO "policy_event";
    fn insert(event: &PolicyEventRow) {
        at_ms: signed(event.at_ms),
        step: event.step,
        candidate: event.candidate,
        control: event.control,
        why: event.why,
        numbers: event.numbers,
    }
}

impl PolicyStore {
    /// Adds a step, and forgets the oldest beyond [`MAX_POLICY_EVENTS`]. When this returns, it is on disk.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn add_event(&self, event: &PolicyEventRow) -> Result<(), StoreError> {
        let connection = self.connection()?;
        connection.pragma_update(None, "synchronous", "full")?;
        let added = add(&connection, event);
        connection.pragma_update(None, "synchronous", "normal")?;
        Ok(added?)
    }

    /// The latest steps, the newest first, at most so many.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn events(&self, limit: u32) -> Result<Vec<PolicyEventRow>, StoreError> {
        let connection = self.connection()?;
        let sql = format!("SELECT {} FROM policy_event ORDER BY number DESC LIMIT ?1", PolicyEventRow::COLUMNS);
        let mut select = connection.prepare_cached(&sql)?;
        let rows = select.query_map([limit], PolicyEventRow::read)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

fn add(connection: &Connection, event: &PolicyEventRow) -> rusqlite::Result<()> {
    insert(&mut *connection.prepare_cached(POLICY_EVENT)?, event)?;
    connection
        .prepare_cached("DELETE FROM policy_event WHERE number <= (SELECT max(number) FROM policy_event) - ?1")?
        .execute([MAX_POLICY_EVENTS])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pointsman_core::time::Timestamp;

    use super::*;
    use crate::{Store, StoreLimits, StorePath};

    #[test]
    fn the_latest_are_kept_and_told_first() {
        let store = Store::open(StorePath::Memory, StoreLimits::default(), Arc::new(Timestamp::default)).unwrap();
        let policies = store.policies();
        let event = |n: u64| PolicyEventRow { at_ms: n, step: "started".to_owned(), ..PolicyEventRow::default() };
        for n in 0..u64::from(MAX_POLICY_EVENTS) + 5 {
            policies.add_event(&event(n)).unwrap();
        }
        let kept = policies.events(u32::MAX).unwrap();
        assert_eq!(kept.len(), MAX_POLICY_EVENTS as usize);
        assert_eq!((kept[0].at_ms, kept.last().unwrap().at_ms), (u64::from(MAX_POLICY_EVENTS) + 4, 5));
        assert_eq!(policies.events(2).unwrap().len(), 2);
    }
}
