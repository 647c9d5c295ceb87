//! States of backends that outlive a restart: cooldowns, what the operator has drained, and the things that they hold.

use std::sync::Arc;
use std::time::Duration;

use pointsman_core::fleet::{Fleet, SavedCooldown, UsedBefore};
use pointsman_core::outcome::Kind;
use pointsman_core::table::Table;
use pointsman_core::time::Timestamp;
use pointsman_store::{CooldownRow, SentRow, Store};

use crate::proxy::{Proxy, SharedAffinity};

/// Interval of writing changed states, so that they survive a crash.
const SAVED_EVERY: Duration = Duration::from_millis(500);

/// The window of limits of a day.
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// The reason of the row of a drained backend, which is none of the outcomes and has no end.
const DRAINED: &str = "drained";

/// Puts back what was in force when the last process ended. Backends that are no longer configured are forgotten.
pub(crate) fn restore(fleet: &mut Fleet, table: &Table, store: &Store, now: Timestamp) {
    let rows = store.load_cooldowns(now.as_millis()).unwrap_or_else(|error| {
        tracing::warn!(%error, "the cooldowns and drains of the last run could not be read; backends start without");
        Vec::new()
    });
    let (drained, cooling): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.reason == DRAINED);
    for row in drained {
        fleet.set_drained(now, &row.backend, true);
    }
    let kept: Vec<SavedCooldown> = cooling.into_iter().filter_map(cooldown).collect();
    fleet.restore(now, &kept);
    for backend in table.backends.iter().filter(|backend| backend.has_day_limit()) {
        match store.reader().sent_since(&backend.id, now - DAY) {
            Ok(rows) => fleet.restore_day(&backend.id, &rows.into_iter().map(used_before).collect::<Vec<_>>()),
            Err(error) => {
                tracing::warn!(%error, backend = %backend.id, "what was sent within the last day could not be read; its limits of a day start unused");
            }
        }
    }
}

fn used_before(row: SentRow) -> UsedBefore {
    let SentRow { model_sent, at_ms, requests, tokens } = row;
    let least = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    UsedBefore { model_sent, at: Timestamp::from_millis(at_ms), requests: least(requests), tokens: least(tokens) }
}

/// The homes of stored things that the last process knew.
pub(crate) fn homes(store: &Store, now: Timestamp) -> SharedAffinity {
    let rows = store.load_homes(now.as_millis()).unwrap_or_else(|error| {
        tracing::warn!(%error, "which backends hold stored responses and files could not be read; requests for them may go elsewhere");
        Vec::new()
    });
    SharedAffinity::restored(now, rows)
}

/// Writes the states whenever they change. Runs until dropped.
pub(crate) async fn keep(proxy: Arc<Proxy>) {
    let mut every = tokio::time::interval(SAVED_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut saved = Vec::new();
    loop {
        every.tick().await;
        let rows = rows(&proxy);
        if rows != saved {
            proxy.store.save_cooldowns(rows.clone());
            saved = rows;
        }
    }
}

/// Writes the states with the next batch.
pub(crate) fn save(proxy: &Proxy) {
    proxy.store.save_cooldowns(rows(proxy));
}

fn rows(proxy: &Proxy) -> Vec<CooldownRow> {
    let (cooldowns, drained) = proxy.fleet.with(|fleet, now| (fleet.cooldowns(now), fleet.drained()));
    let cooling = cooldowns.into_iter().map(|kept| CooldownRow {
        backend: kept.backend,
        model: kept.model,
        until_ms: kept.until.as_millis(),
        reason: kept.reason.as_str().to_owned(),
        failures: kept.failures,
    });
    let drained = drained.into_iter().map(|backend| CooldownRow {
        backend: backend.to_string(),
        model: None,
        until_ms: u64::MAX,
        reason: DRAINED.to_owned(),
        failures: 0,
    });
    cooling.chain(drained).collect()
}

fn cooldown(row: CooldownRow) -> Option<SavedCooldown> {
    let reason = Kind::parse(&row.reason)?;
    let until = Timestamp::from_millis(row.until_ms);
    Some(SavedCooldown { backend: row.backend, model: row.model, until, reason, failures: row.failures })
}
