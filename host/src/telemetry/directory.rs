//! The cells that depend on the configuration, by name.

use std::collections::HashMap;
use std::sync::Arc;

use pointsman_core::record::{AttemptRecord, ExchangeRecord};
use pointsman_core::table::Table;

use super::cells::{BackendCells, ClientCells, LANES, LaneTotals, ModelCells, end_index, lane_index};

/// All cells that depend on the configuration.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) backends: Named<BackendCells>,
    pub(super) clients: Named<ClientCells>,
    pub(super) models: Named<ModelCells>,
}

impl Directory {
    pub(super) fn new(table: &Table) -> Self {
        Self {
            backends: Named::new(table.backends.iter().map(|b| (Arc::clone(&b.id), BackendCells::of(b)))),
            clients: Named::new(table.clients.iter().map(|c| (c.as_str().into(), ClientCells::default()))),
            models: Named::new(table.models.iter().map(|m| (m.as_str().into(), ModelCells::default()))),
        }
    }

    /// The directory of a new table; what was counted before goes on being counted.
    pub(super) fn heir(table: &Table, before: &Directory) -> Self {
        let new = Self::new(table);
        Self {
            backends: new.backends.heir(&before.backends),
            clients: new.clients.heir(&before.clients),
            models: new.models.heir(&before.models),
        }
    }

    /// Counts a request refused at the door: for its client only, because no backend and no lane had to do with it.
    pub(super) fn denied(&self, record: &ExchangeRecord) {
        self.clients.cell(record.client.as_deref()).ends[end_index(record.end)].inc();
    }

    pub(super) fn observe(&self, record: &ExchangeRecord, totals: &[LaneTotals; LANES.len()]) {
        let end = end_index(record.end);
        let (usage, cost_usd) = (record.usage(), record.cost_usd());
        let backend = self.backends.cell(record.backend.as_deref());
        backend.lane(record.lane).ends[end].inc();
        for attempt in &record.attempts {
            self.observe_attempt(attempt, backend, record);
        }
        let client = self.clients.cell(record.client.as_deref());
        client.ends[end].inc();
        client.spent.add(usage, cost_usd);
        totals[lane_index(record.lane)].observe(record, cost_usd);
        if let Some(dialect) = backend.dialect {
            self.models.cell(Some(&record.model)).of(dialect, record.operation).observe(record, usage);
        }
    }

    fn observe_attempt(&self, attempt: &AttemptRecord, relayed: &BackendCells, record: &ExchangeRecord) {
        // Mostly there is one attempt, and it is the one that was relayed: no second lookup.
        let cells = match &record.backend {
            Some(id) if Arc::ptr_eq(id, &attempt.backend) => relayed,
            Some(_) | None => self.backends.cell(Some(&attempt.backend)),
        };
        let cells = cells.lane(Some(attempt.lane));
        cells.outcomes[attempt.outcome.index() as usize].inc();
        cells.attempt_seconds.observe(attempt.elapsed.as_secs_f64());
        cells.spent.add(attempt.usage, attempt.cost_usd);
    }
}

/// The cells of one kind by name. Names that are not configured share one cell, so that no client can grow the exposition.
#[derive(Debug)]
pub(super) struct Named<C> {
    known: HashMap<Arc<str>, Arc<C>>,
    other: Arc<C>,
    none: Arc<C>,
}

/// Label value for names that are not configured.
pub(super) const OTHER: &str = "other";
/// Label value for a missing name.
pub(super) const NONE: &str = "none";

impl<C: Default> Named<C> {
    fn new(names: impl Iterator<Item = (Arc<str>, C)>) -> Self {
        let known = names.map(|(name, cells)| (name, Arc::new(cells))).collect();
        Self { known, other: Arc::default(), none: Arc::default() }
    }

    /// As `self`, with the counts of `before` where the name was there before.
    fn heir(mut self, before: &Self) -> Self {
        for (name, cells) in &mut self.known {
            if let Some(kept) = before.known.get(name) {
                *cells = Arc::clone(kept);
            }
        }
        Self { known: self.known, other: Arc::clone(&before.other), none: Arc::clone(&before.none) }
    }

    fn cell(&self, name: Option<&str>) -> &C {
        match name {
            Some(name) => self.known.get(name).unwrap_or(&self.other),
            None => &self.none,
        }
    }

    /// Every name with its cells, in alphabetical order, the shared ones last.
    pub(super) fn all(&self) -> Vec<(&str, &C)> {
        let mut all: Vec<(&str, &C)> = self.known.iter().map(|(name, cells)| (&**name, &**cells)).collect();
        all.sort_unstable_by_key(|(name, _)| *name);
        for (name, shared) in [(OTHER, &self.other), (NONE, &self.none)] {
            // A configured name may be the same word; two series of one name would make the exposition invalid.
            if !self.known.contains_key(name) {
                all.push((name, shared));
            }
        }
        all
    }
}
