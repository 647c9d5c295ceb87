//! A backend as a policy saw it in one question.

use std::fmt;
use std::sync::Arc;

use pointsman_core::contract::{BackendRow, Column, Columns, NONE, Query, Row, RowState};
use pointsman_core::outcome::Kind;
use pointsman_core::table::{Table, Tier};

use super::of_ms;

/// A backend as a policy saw it in one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendSnapshot {
    /// Id of the backend.
    pub backend: Arc<str>,
    /// Tier of the backend.
    pub tier: Tier,
    /// Its place in the table.
    pub index: u32,
    row: BackendRow,
    /// Attempts of the same exchange that failed at it before the question.
    tries: usize,
    /// The columns it was recorded in.
    columns: Columns,
}

impl BackendSnapshot {
    /// Reads a row of a query; none for a backend that could not serve the request at all.
    pub fn read(backend: &Arc<str>, tier: Tier, index: u32, row: Row<'_>) -> Option<Self> {
        let columns = row.columns().clone();
        let (backend, is_suited) = (backend.clone(), !row.is(RowState::Unsuited));
        is_suited.then(|| Self { backend, tier, index, row: row.in_current_columns(), tries: 0, columns })
    }

    /// Those of a question that could serve the request, in the table's order.
    pub fn all(query: &Query, table: &Table) -> Vec<Self> {
        let rows = (0..).zip(&table.backends).zip(query.rows.iter());
        let tries = |index| query.attempts.iter().filter(|attempt| attempt.backend == index).count();
        rows.filter_map(|((index, backend), row)| {
            let snapshot = Self::read(&backend.id, backend.tier, index, row)?;
            Some(Self { tries: tries(index), ..snapshot })
        })
        .collect()
    }

    /// Returns the length of the queue for each tier that has one: all backends of a tier share it, so each shows its
    /// length.
    pub fn queues(all: &[Self]) -> impl Iterator<Item = (Tier, u32)> {
        let queued = |tier| all.iter().filter(|s| s.tier == tier).map(|s| s.number(Column::Queued)).max();
        [Tier::Primary, Tier::Fallback]
            .into_iter()
            .filter_map(move |tier| Some((tier, queued(tier).filter(|n| *n > 0)?)))
    }

    /// Its row, "unknown" in columns that were not recorded.
    pub fn row(&self) -> &BackendRow {
        &self.row
    }

    /// A number of its row.
    pub fn number(&self, column: Column) -> u32 {
        self.row.number(column)
    }

    /// Its recorded numbers, by the contract's names.
    pub fn numbers(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let recorded = Column::ALL.into_iter().filter(|column| self.columns.have(*column));
        recorded.map(|column| (column.as_str(), self.row.number(column)))
    }

    /// Returns true in this state.
    pub fn is(&self, state: RowState) -> bool {
        self.row.is(state)
    }

    /// The word for its state.
    pub fn state(&self) -> &'static str {
        RowState::of(self.number(Column::State)).map_or("unknown", RowState::as_str)
    }

    /// The word for why it cools, or has to be probed; none when neither.
    pub fn reason(&self) -> Option<&'static str> {
        let index = self.number(Column::CooldownReason) as usize;
        (index > 0).then(|| Kind::ALL.get(index).map_or("unknown", |kind| kind.as_str()))
    }

    /// Describes its limits or cooldown, or that there are none, as the rest of a sentence that begins with its name.
    pub fn condition(&self) -> String {
        let reason = self.reason().unwrap_or("unknown");
        if self.is(RowState::Ready) {
            return match self.reason() {
                Some(reason) => format!("is ready for a probe ({reason})"),
                None => "is ready".to_owned(),
            };
        }
        if self.is(RowState::Cooling) {
            let failures = match self.number(Column::Failures) {
                0 | 1 => String::new(),
                n => format!(", {n} failures"),
            };
            // From its second try on an exchange pauses for longer than others.
            let tries = match self.tries {
                0 | 1 => String::new(),
                n => format!(", for this request after {n} tries"),
            };
            return format!("cools for {} more ({reason}{failures}{tries})", of_ms(self.number(Column::CooldownMs)));
        }
        if self.is(RowState::Probing) {
            return format!("is being probed ({reason})");
        }
        if self.is(RowState::Drained) {
            return "is drained".to_owned();
        }
        let which = self.exhausted().map(|which| format!(" ({which})")).unwrap_or_default();
        match self.number(Column::ReadyMs) {
            NONE => format!("is at its limits{which}"),
            ms => format!("is at its limits for {}{which}", of_ms(ms)),
        }
    }

    /// Names the limit that is used up, as far as the numbers show.
    fn exhausted(&self) -> Option<&'static str> {
        let is_none_left = |column| self.number(column) == 0;
        if is_none_left(Column::RequestsLeft) {
            Some("no request left")
        } else if is_none_left(Column::ConcurrencyLeft) {
            Some("no slot free")
        } else if is_none_left(Column::TokensLeft) {
            Some("no tokens left")
        } else if self.number(Column::Queued) > 0 {
            Some("others wait for it")
        } else {
            None
        }
    }
}

impl fmt::Display for BackendSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.backend, self.condition())?;
        if self.is(RowState::Drained) {
            return Ok(());
        }
        if self.number(Column::InFlight) > 0 {
            write!(f, ", {} in flight", self.number(Column::InFlight))?;
        }
        match self.number(Column::EmergencyMs) {
            _ if self.is(RowState::Ready) || !self.columns.have(Column::EmergencyMs) => Ok(()),
            NONE => f.write_str(", no emergency"),
            0 => f.write_str(", emergency now"),
            ms => write!(f, ", emergency in {}", of_ms(ms)),
        }
    }
}

#[cfg(test)]
mod tests {
    use pointsman_core::contract::Rows;

    use super::*;

    fn read(row: BackendRow) -> Option<BackendSnapshot> {
        let rows: Rows = [row].into_iter().collect();
        BackendSnapshot::read(&"a".into(), Tier::Primary, 0, rows.get(0)?)
    }

    #[test]
    fn a_row_reads_as_a_sentence() {
        let mut row = BackendRow::new(RowState::Cooling)
            .with(Column::CooldownMs, 1_980)
            .with(Column::CooldownReason, Kind::RateLimited.index())
            .with(Column::InFlight, 2);
        let standing = read(row).unwrap();
        assert_eq!(standing.to_string(), "a cools for 1.98 s more (rate_limited), 2 in flight, no emergency");
        row.put(Column::Failures, 3);
        let standing = read(row).unwrap();
        assert_eq!(standing.condition(), "cools for 1.98 s more (rate_limited, 3 failures)");
        row.put(Column::State, RowState::Unsuited as u32);
        assert_eq!(read(row), None);
    }

    #[test]
    fn the_limit_that_bites_is_named() {
        let row = BackendRow::new(RowState::Throttled).with(Column::ReadyMs, 800).with(Column::ConcurrencyLeft, 0);
        let condition = |row| read(row).unwrap().condition();
        assert_eq!(condition(row), "is at its limits for 800 ms (no slot free)");
        let row = row.with(Column::RequestsLeft, 0);
        assert_eq!(condition(row), "is at its limits for 800 ms (no request left)");
        let row = row.with(Column::ReadyMs, NONE);
        assert_eq!(condition(row), "is at its limits (no request left)");
    }
}
