//! A backend as a policy saw it in one question.

use std::fmt;
use std::sync::Arc;

use pointsman_core::contract::{COLUMNS, Column, NONE, Query, RowState, STRIDE};
use pointsman_core::outcome::Kind;
use pointsman_core::table::{Table, Tier};

use super::of_ms;

/// A backend as a policy saw it in one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its id.
    pub backend: Arc<str>,
    /// Its tier.
    pub tier: Tier,
    /// Its place in the table.
    pub index: u32,
    row: [u32; STRIDE],
}

impl Standing {
    /// The words for the states, in the order of [`RowState`].
    pub const STATES: [&str; 6] = ["ready", "throttled", "cooling", "probing", "drained", "unsuited"];

    /// Reads a row of a query; none for a backend that could not serve the request at all.
    pub fn read(backend: &Arc<str>, tier: Tier, index: u32, row: &[u32]) -> Option<Self> {
        let row: [u32; STRIDE] = row.try_into().ok()?;
        let suited = row[Column::State as usize] != RowState::Unsuited as u32;
        suited.then(|| Self { backend: backend.clone(), tier, index, row })
    }

    /// Those of a question that could serve the request, in the table's order.
    pub fn all(query: &Query, table: &Table) -> Vec<Self> {
        let rows = (0..).zip(&table.backends).zip(query.rows.chunks_exact(STRIDE));
        rows.filter_map(|((index, backend), row)| Self::read(&backend.id, backend.tier, index, row)).collect()
    }

    /// How many waited for each tier, of the tiers where somebody did: one line serves all backends of a tier, so that each of
    /// them shows its length.
    pub fn queues(all: &[Self]) -> impl Iterator<Item = (Tier, u32)> {
        let queued = |tier| all.iter().filter(|s| s.tier == tier).map(|s| s.number(Column::Queued)).max();
        [Tier::Primary, Tier::Fallback]
            .into_iter()
            .filter_map(move |tier| Some((tier, queued(tier).filter(|n| *n > 0)?)))
    }

    /// Its row.
    pub fn row(&self) -> &[u32] {
        &self.row
    }

    /// A number of its row.
    pub fn number(&self, column: Column) -> u32 {
        self.row[column as usize]
    }

    /// Its numbers, by the contract's names.
    pub fn numbers(&self) -> impl Iterator<Item = (&'static str, u32)> {
        COLUMNS.into_iter().zip(self.row)
    }

    /// Is it in this state?
    pub fn is(&self, state: RowState) -> bool {
        self.number(Column::State) == state as u32
    }

    /// The word for its state.
    pub fn state(&self) -> &'static str {
        Self::STATES.get(self.number(Column::State) as usize).copied().unwrap_or("unknown")
    }

    /// The word for why it cools, or has to be probed; none when neither.
    pub fn reason(&self) -> Option<&'static str> {
        let index = self.number(Column::CooldownReason) as usize;
        (index > 0).then(|| Kind::ALL.get(index).map_or("unknown", |kind| kind.as_str()))
    }

    /// What keeps it, or that nothing does, as the rest of a sentence that begins with its name.
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
            return format!("cools for {} more ({reason}{failures})", of_ms(self.number(Column::CooldownMs)));
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

    /// Which limit bites, as far as the numbers tell.
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

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.backend, self.condition())?;
        if self.is(RowState::Drained) {
            return Ok(());
        }
        if self.number(Column::InFlight) > 0 {
            write!(f, ", {} in flight", self.number(Column::InFlight))?;
        }
        match self.number(Column::EmergencyMs) {
            _ if self.is(RowState::Ready) => Ok(()),
            NONE => f.write_str(", no emergency"),
            0 => f.write_str(", emergency now"),
            ms => write!(f, ", emergency in {}", of_ms(ms)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_reads_as_a_sentence() {
        let mut row = [0; STRIDE];
        row[Column::State as usize] = RowState::Cooling as u32;
        row[Column::CooldownMs as usize] = 1_980;
        row[Column::CooldownReason as usize] = Kind::RateLimited.index();
        row[Column::InFlight as usize] = 2;
        row[Column::EmergencyMs as usize] = NONE;
        let standing = Standing::read(&"a".into(), Tier::Primary, 0, &row).unwrap();
        assert_eq!(standing.to_string(), "a cools for 1.98 s more (rate_limited), 2 in flight, no emergency");
        row[Column::Failures as usize] = 3;
        let standing = Standing::read(&"a".into(), Tier::Primary, 0, &row).unwrap();
        assert_eq!(standing.condition(), "cools for 1.98 s more (rate_limited, 3 failures)");
        row[Column::State as usize] = RowState::Unsuited as u32;
        assert_eq!(Standing::read(&"a".into(), Tier::Primary, 0, &row), None);
    }

    #[test]
    fn the_limit_that_bites_is_named() {
        let mut row = [9; STRIDE];
        row[Column::State as usize] = RowState::Throttled as u32;
        row[Column::ReadyMs as usize] = 800;
        row[Column::ConcurrencyLeft as usize] = 0;
        let condition = |row: &[u32]| Standing::read(&"a".into(), Tier::Primary, 0, row).unwrap().condition();
        assert_eq!(condition(&row), "is at its limits for 800 ms (no slot free)");
        row[Column::RequestsLeft as usize] = 0;
        assert_eq!(condition(&row), "is at its limits for 800 ms (no request left)");
        row[Column::ReadyMs as usize] = NONE;
        assert_eq!(condition(&row), "is at its limits (no request left)");
    }
}
