//! Everything static: the backends, and the words and columns behind the numbers of a query.

use crate::columns::{COLUMNS, Column};
use crate::words::{Operation, Outcome};

/// Cost class of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// Preferred.
    Primary,
    /// Used when no primary is available, or by choice.
    Fallback,
}

/// The kind of backends that an attempt may go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// To a primary backend.
    Primary,
    /// To a fallback backend.
    Fallback,
    /// To any backend, under the emergency rate.
    Emergency,
}

/// A model as one backend serves it.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Index into the table's models.
    pub model: usize,
    /// The name sent upstream.
    pub sent: String,
    /// USD per million prompt tokens; none where no price is configured.
    pub input_per_mtok: Option<f64>,
    /// USD per million answer tokens; none where no price is configured.
    pub output_per_mtok: Option<f64>,
}

/// The unchanging facts of one backend.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// Its name in configuration, logs and metrics.
    pub id: String,
    /// Its tier.
    pub tier: Tier,
    /// `openai`, `anthropic` or `plain`.
    pub dialect: String,
    /// The share of traffic the operator wants here, relative to the others of its tier; at least 1.
    pub weight: u32,
    /// Requests a minute; none is unlimited.
    pub rpm: Option<u32>,
    /// Tokens a minute; none is unlimited.
    pub tpm: Option<u32>,
    /// Requests at a time; none is unlimited.
    pub max_concurrency: Option<u32>,
    /// The listed models it serves.
    pub routes: Vec<Route>,
    /// It serves names that are not listed.
    pub any_model: bool,
    /// The operator's own words about it.
    pub labels: Vec<(String, String)>,
    /// Optional capabilities.
    pub capabilities: Vec<String>,
    /// Facts newer than this SDK.
    pub attributes: Vec<(String, String)>,
}

/// Arguments of `configure`, as they cross the contract.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableParts {
    /// The backends.
    pub backends: Vec<Backend>,
    /// Models that can be asked for by name.
    pub models: Vec<String>,
    /// Names of the client keys.
    pub clients: Vec<String>,
    /// The name of each number in a backend's row.
    pub columns: Vec<String>,
    /// The words behind a request's operation.
    pub operations: Vec<String>,
    /// The words behind an attempt's outcome.
    pub outcomes: Vec<String>,
    /// Facts newer than this SDK.
    pub attributes: Vec<(String, String)>,
}

/// The backend table of one configuration. Indices used in a query point into its lists.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// The backends, in the order of a query's rows.
    pub backends: Vec<Backend>,
    /// Models that can be asked for by name.
    pub models: Vec<String>,
    /// Names of the client keys.
    pub clients: Vec<String>,
    /// Facts newer than this SDK.
    pub attributes: Vec<(String, String)>,
    layout: Layout,
}

impl Table {
    /// Resolves the columns and words by their names, so that new, extra or reordered ones change nothing.
    pub fn new(parts: TableParts) -> Self {
        let layout = Layout::new(&parts.columns, &parts.operations, &parts.outcomes);
        let TableParts { backends, models, clients, attributes, .. } = parts;
        Self { backends, models, clients, attributes, layout }
    }

    /// Returns the layout of a query's rows.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }
}

/// Columns of a row, and the words of each vocabulary.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// Place in the row by [`Column`]; `u16::MAX`, which no row reaches, where the host has no such column.
    offsets: [u16; COLUMNS.len()],
    stride: usize,
    operations: Vec<Operation>,
    outcomes: Vec<Outcome>,
}

impl Layout {
    fn new(columns: &[String], operations: &[String], outcomes: &[String]) -> Self {
        let place = |name: &str| columns.iter().position(|c| c == name).and_then(|i| u16::try_from(i).ok());
        Self {
            offsets: COLUMNS.map(|(_, name)| place(name).unwrap_or(u16::MAX)),
            stride: columns.len(),
            operations: operations.iter().map(|word| Operation::of(word)).collect(),
            outcomes: outcomes.iter().map(|word| Outcome::of(word)).collect(),
        }
    }

    /// Returns the number of columns in a row.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The operation behind its number.
    pub fn operation(&self, index: u32) -> Operation {
        self.operations.get(index as usize).copied().unwrap_or(Operation::Unknown)
    }

    /// The outcome behind its number.
    pub fn outcome(&self, index: u32) -> Outcome {
        self.outcomes.get(index as usize).copied().unwrap_or(Outcome::Unknown)
    }

    #[inline]
    pub(crate) fn offset(&self, column: Column) -> usize {
        usize::from(self.offsets[column as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_listed_in_the_order_of_the_enum() {
        for (i, (column, _)) in COLUMNS.iter().enumerate() {
            assert_eq!(*column as usize, i);
        }
    }

    #[test]
    fn words_are_resolved_by_name_wherever_they_stand() {
        let words = |list: &[&str]| list.iter().map(|w| w.to_string()).collect::<Vec<_>>();
        let layout = Layout::new(
            &words(&["novelty", "ready_ms", "state"]),
            &words(&["embedding", "telepathy"]),
            &words(&["timed_out", "abducted", "answered"]),
        );
        assert_eq!(layout.stride(), 3);
        assert_eq!(layout.offset(Column::State), 2);
        assert_eq!(layout.offset(Column::ReadyMs), 1);
        assert_eq!(layout.offset(Column::Queued), usize::from(u16::MAX));
        assert_eq!(layout.operation(0), Operation::Embedding);
        assert_eq!(layout.operation(1), Operation::Unknown);
        assert_eq!(layout.outcome(0), Outcome::TimedOut);
        assert_eq!(layout.outcome(1), Outcome::Unknown);
        assert_eq!(layout.outcome(99), Outcome::Unknown);
    }
}
