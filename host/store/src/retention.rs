//! Old exchanges make room: by age and by size, a bounded piece at a time.

use std::time::Duration;

use pointsman_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::{StoreLimits, homes, journal, rollups};

/// The most exchanges one step deletes, so that new ones never wait long. The limit by size works in whole steps, and leaves
/// a store alone that has no more exchanges than this.
const STEP_ROWS: i64 = 4_096;
/// The most free pages one step gives back to the file system.
const STEP_PAGES: u32 = 1_024;

/// Deletes the oldest exchanges and trails that are over a limit, at most [`STEP_ROWS`] of each; true when more are over it.
pub(super) fn step(connection: &mut Connection, limits: &StoreLimits, now: Timestamp) -> rusqlite::Result<bool> {
    let more_trails = trails(connection, limits, now)?;
    let more_denials = denials(connection)?;
    homes::tend(connection, now.as_millis())?;
    // Before exchanges go whose usage was not summed.
    if rollups::fill(connection)? {
        return Ok(true);
    }
    rollups::tend(connection, limits, now)?;
    Ok(exchanges(connection, limits, now)? || more_trails || more_denials)
}

/// Refusals at the door that are kept: of requests without a known client key, which anybody can send, and of the others.
const DENIALS_KEPT: [(bool, i64); 2] = [(true, 10_000), (false, 100_000)];

/// Deletes the oldest refusals beyond [`DENIALS_KEPT`], so that they never push out what was answered. They have no attempts
/// and no trail.
fn denials(connection: &Connection) -> rusqlite::Result<bool> {
    let mut more = false;
    for (anonymous, kept) in DENIALS_KEPT {
        let found: i64 = connection
            .prepare_cached("SELECT count(*) FROM exchange WHERE denied IS NOT NULL AND (client IS NULL) = ?1")?
            .query_row([anonymous], |row| row.get(0))?;
        let surplus = found - kept;
        if surplus > 0 {
            let mut delete = connection.prepare_cached(
                "DELETE FROM exchange WHERE ended_us IN (
                     SELECT ended_us FROM exchange WHERE denied IS NOT NULL AND (client IS NULL) = ?1
                     ORDER BY ended_us LIMIT ?2)",
            )?;
            delete.execute(params![anonymous, surplus.min(STEP_ROWS)])?;
            more |= surplus > STEP_ROWS;
        }
    }
    Ok(more)
}

/// Deletes the oldest trails beyond the journal's limits; their exchanges stay.
fn trails(connection: &mut Connection, limits: &StoreLimits, now: Timestamp) -> rusqlite::Result<bool> {
    let after_step: Option<i64> = connection
        .prepare_cached("SELECT ended_us FROM trail ORDER BY ended_us LIMIT 1 OFFSET ?1")?
        .query_row([STEP_ROWS], |row| row.get(0))
        .optional()?;
    let bytes: i64 = connection.query_row("SELECT bytes FROM trail_total", [], |row| row.get(0))?;
    let too_large = limits.journal.max_bytes.is_some_and(|most| bytes.unsigned_abs() > most);
    let too_old = limits.journal.retention_days.map_or(i64::MIN, |days| oldest_kept(now, days));
    let before = match (after_step, too_large) {
        (Some(next), true) => next,
        (next, _) => too_old.min(next.unwrap_or(i64::MAX)),
    };
    let transaction = connection.transaction()?;
    let deleted = journal::delete_before(&transaction, before)?;
    transaction.commit()?;
    if deleted > 0 {
        vacuum(connection)?;
    }
    Ok(deleted as i64 >= STEP_ROWS)
}

fn exchanges(connection: &mut Connection, limits: &StoreLimits, now: Timestamp) -> rusqlite::Result<bool> {
    let after_step: Option<i64> = connection
        .prepare_cached("SELECT ended_us FROM exchange ORDER BY ended_us LIMIT 1 OFFSET ?1")?
        .query_row([STEP_ROWS], |row| row.get(0))
        .optional()?;
    let too_old = limits.retention_days.map(|days| oldest_kept(now, days));
    let aged = match too_old {
        Some(kept) => delete_before(connection, kept.min(after_step.unwrap_or(i64::MAX)))?,
        None => 0,
    };
    if aged > 0 {
        vacuum(connection)?;
        return Ok(after_step.zip(too_old).is_some_and(|(next, kept)| next < kept) || over_size(connection, limits)?);
    }
    match after_step {
        Some(next) if over_size(connection, limits)? => {
            delete_before(connection, next)?;
            vacuum(connection)?;
            over_size(connection, limits)
        }
        Some(_) | None => Ok(false),
    }
}

fn oldest_kept(now: Timestamp, days: u32) -> i64 {
    let kept = now - Duration::from_secs(u64::from(days) * 86_400);
    i64::try_from(kept.as_micros()).unwrap_or(i64::MAX)
}

fn delete_before(connection: &mut Connection, key: i64) -> rusqlite::Result<usize> {
    let transaction = connection.transaction()?;
    journal::delete_before(&transaction, key)?;
    transaction.prepare_cached("DELETE FROM earlier_attempt WHERE ended_us < ?1")?.execute([key])?;
    let deleted = transaction.prepare_cached("DELETE FROM exchange WHERE ended_us < ?1")?.execute([key])?;
    transaction.commit()?;
    Ok(deleted)
}

fn over_size(connection: &Connection, limits: &StoreLimits) -> rusqlite::Result<bool> {
    let Some(max_bytes) = limits.max_bytes else {
        return Ok(false);
    };
    let bytes: i64 = connection.query_row(
        // The policies kept have a bound of their own; they are not to push the exchanges out.
        "SELECT (page_count - freelist_count) * page_size - (SELECT coalesce(sum(bytes), 0) FROM
            (SELECT DISTINCT sha256, bytes FROM policy_revision))
        FROM pragma_page_count, pragma_freelist_count, pragma_page_size",
        [],
        |row| row.get(0),
    )?;
    Ok(bytes.max(0).unsigned_abs() > max_bytes)
}

fn vacuum(connection: &Connection) -> rusqlite::Result<()> {
    // Each step of this statement frees one page.
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({STEP_PAGES})"))?;
    let mut pages = statement.query([])?;
    while pages.next()?.is_some() {}
    Ok(())
}
