//! Rows of numbers, a row for each backend, with the columns that say what the numbers are.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::columns::{COLUMNS, Column, NONE, RowState};
use crate::forms::packed;

/// Numbers of a row in the current version.
const WIDTH: usize = COLUMNS.len();

/// Columns of version 1.0.0 of the contract: the first so many.
const WIDTH_OF_1_0_0: usize = 14;

/// The columns of rows, in order: those of this version, or those that rows were recorded with.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Columns(Option<Arc<Recorded>>);

/// Columns of a recorded table, other than [`COLUMNS`].
#[derive(Debug, PartialEq, Eq)]
struct Recorded {
    names: Vec<String>,
    /// Place in a row by [`Column`]; none where there is no such column.
    places: [Option<usize>; WIDTH],
}

impl Columns {
    /// Columns of these names, in this order.
    pub fn named(names: &[impl AsRef<str>]) -> Self {
        let names: Vec<String> = names.iter().map(|name| name.as_ref().to_owned()).collect();
        if names == COLUMNS {
            return Self::default();
        }
        let places = COLUMNS.map(|column| names.iter().position(|name| name == column));
        Self(Some(Arc::new(Recorded { names, places })))
    }

    /// The columns of version 1.0.0, which are meant by records that name none.
    pub fn of_1_0_0() -> Self {
        Self::named(&COLUMNS[..WIDTH_OF_1_0_0])
    }

    /// Returns true for the columns of version 1.0.0.
    pub fn are_of_1_0_0(&self) -> bool {
        self.names().eq(COLUMNS[..WIDTH_OF_1_0_0].iter().copied())
    }

    /// Returns their names in the order of a row.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.width()).map(|place| match &self.0 {
            None => COLUMNS[place],
            Some(recorded) => &recorded.names[place],
        })
    }

    /// Returns the number of columns, which is that of a row's numbers.
    pub fn width(&self) -> usize {
        self.0.as_ref().map_or(WIDTH, |recorded| recorded.names.len())
    }

    /// Returns true if rows have this column.
    pub fn have(&self, column: Column) -> bool {
        self.place(column).is_some()
    }

    fn place(&self, column: Column) -> Option<usize> {
        match &self.0 {
            None => Some(column as usize),
            Some(recorded) => recorded.places[column as usize],
        }
    }
}

impl fmt::Debug for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl Serialize for Columns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.names())
    }
}

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        if names.is_empty() {
            return Err(serde::de::Error::custom("a row has no column"));
        }
        Ok(Self::named(&names))
    }
}

/// One backend's numbers in this version's columns: what the fleet writes, and how a row is made by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendRow([u32; WIDTH]);

impl BackendRow {
    /// A backend that is no candidate: nothing of it is told, all its other numbers are 0.
    pub const UNSUITED: Self = {
        let mut numbers = [0; WIDTH];
        numbers[Column::State as usize] = RowState::Unsuited as u32;
        Self(numbers)
    };

    /// A backend in this state, idle, without limits, not cooling, closed to emergencies; when it will be ready is not
    /// known unless it is.
    pub fn new(state: RowState) -> Self {
        let ready_ms = if state == RowState::Ready { 0 } else { NONE };
        let row = Self(Column::ALL.map(Column::unknown)).with(Column::CooldownReason, 0);
        row.with(Column::State, state as u32).with(Column::ReadyMs, ready_ms)
    }

    /// Returns the row with this number in a column.
    #[must_use]
    pub const fn with(mut self, column: Column, number: u32) -> Self {
        self.0[column as usize] = number;
        self
    }

    /// Writes the number of a column.
    pub const fn put(&mut self, column: Column, number: u32) {
        self.0[column as usize] = number;
    }

    /// Returns the number of a column.
    pub const fn number(&self, column: Column) -> u32 {
        self.0[column as usize]
    }

    /// Returns true if the backend is in this state.
    pub fn is(&self, state: RowState) -> bool {
        self.number(Column::State) == state as u32
    }
}

/// A row for each backend, in the table's order, as a policy is told them: flat, in the columns it was configured with.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Rows {
    columns: Columns,
    numbers: Vec<u32>,
}

impl Rows {
    /// These rows in other columns. A column that this version does not know is `NONE` throughout.
    pub fn new(rows: Vec<BackendRow>, columns: &Columns) -> Self {
        let numbers = match &columns.0 {
            None => rows.into_iter().map(|row| row.0).collect::<Vec<_>>().into_flattened(),
            Some(recorded) => {
                let columns: Vec<Option<Column>> = recorded.names.iter().map(|name| Column::named(name)).collect();
                let told = |row: &BackendRow| columns.iter().map(|c| c.map_or(NONE, |c| row.number(c))).collect();
                rows.iter().flat_map(|row| -> Vec<u32> { told(row) }).collect()
            }
        };
        Self { columns: columns.clone(), numbers }
    }

    /// Recorded numbers with the columns they were recorded in; none when they are no whole rows of them.
    pub(crate) fn recorded(numbers: Vec<u32>, columns: &Columns) -> Option<Self> {
        numbers.len().is_multiple_of(columns.width()).then(|| Self { columns: columns.clone(), numbers })
    }

    /// Returns the columns of the rows.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// All numbers, row by row.
    pub fn numbers(&self) -> &[u32] {
        &self.numbers
    }

    pub(crate) fn into_numbers(self) -> Vec<u32> {
        self.numbers
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.numbers.len() / self.columns.width()
    }

    /// Returns true without any row.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The row of a backend, by its index in the table.
    pub fn get(&self, index: usize) -> Option<Row<'_>> {
        let width = self.columns.width();
        let numbers = self.numbers.get(index * width..)?.get(..width)?;
        Some(Row { columns: &self.columns, numbers })
    }

    /// A number of a backend's row; what stands for "unknown" where there is no such column or row.
    pub fn number(&self, index: usize, column: Column) -> u32 {
        self.get(index).map_or(column.unknown(), |row| row.number(column))
    }

    /// Returns true if the backend at this index is in this state.
    pub fn is(&self, index: usize, state: RowState) -> bool {
        self.number(index, Column::State) == state as u32
    }

    /// All rows, in the table's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Row<'_>> {
        self.numbers.chunks_exact(self.columns.width()).map(|numbers| Row { columns: &self.columns, numbers })
    }
}

impl FromIterator<BackendRow> for Rows {
    fn from_iter<I: IntoIterator<Item = BackendRow>>(rows: I) -> Self {
        Self::new(rows.into_iter().collect(), &Columns::default())
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// In a trail there are only the numbers: the columns are those of the setup that it names.
impl Serialize for Rows {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        packed::serialize(&self.numbers, serializer)
    }
}

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { columns: Columns::default(), numbers: packed::deserialize(deserializer)? })
    }
}

/// A backend's row among [`Rows`], read by its columns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    columns: &'a Columns,
    numbers: &'a [u32],
}

impl<'a> Row<'a> {
    /// A number; what stands for "unknown" where there is no such column.
    pub fn number(&self, column: Column) -> u32 {
        self.columns.place(column).map_or(column.unknown(), |place| self.numbers[place])
    }

    /// Returns true if the backend is in this state.
    pub fn is(&self, state: RowState) -> bool {
        self.number(Column::State) == state as u32
    }

    /// The row in this version's columns, "unknown" in those that it lacks.
    pub fn in_current_columns(&self) -> BackendRow {
        BackendRow(Column::ALL.map(|column| self.number(column)))
    }

    /// Returns the columns of the row.
    pub fn columns(&self) -> &'a Columns {
        self.columns
    }

    /// Its numbers with their names.
    pub fn named(&self) -> impl Iterator<Item = (&'a str, u32)> {
        self.columns.names().zip(self.numbers.iter().copied())
    }
}

impl fmt::Debug for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.named()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Vec<BackendRow> {
        let cooling = BackendRow::new(RowState::Cooling).with(Column::CooldownMs, 70).with(Column::EmergencyMs, 5);
        vec![BackendRow::new(RowState::Ready), cooling]
    }

    #[test]
    fn rows_of_this_version_are_flat_in_its_order() {
        let rows = Rows::new(two(), &Columns::default());
        assert_eq!(rows.numbers().len(), 2 * COLUMNS.len());
        assert_eq!(rows.numbers()[COLUMNS.len() + Column::CooldownMs as usize], 70);
        assert_eq!((rows.len(), rows.number(1, Column::CooldownMs)), (2, 70));
        assert!(rows.is(0, RowState::Ready) && rows.is(1, RowState::Cooling) && !rows.is(2, RowState::Ready));
        assert_eq!(rows.iter().map(|row| row.in_current_columns()).collect::<Vec<_>>(), two());
        assert_eq!(rows, two().into_iter().collect());
    }

    #[test]
    fn rows_in_other_columns_have_their_width_and_order() {
        let columns = Columns::named(&["novelty", "emergency_ms", "state"]);
        let rows = Rows::new(two(), &columns);
        assert_eq!(rows.numbers(), [NONE, NONE, RowState::Ready as u32, NONE, 5, RowState::Cooling as u32]);
        assert_eq!((rows.len(), rows.number(1, Column::EmergencyMs)), (2, 5));
        assert!(rows.is(0, RowState::Ready));
        assert_eq!(
            rows.get(1).unwrap().named().map(|(name, _)| name).collect::<Vec<_>>(),
            columns.names().collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_number_that_is_not_there_is_unknown() {
        let rows = Rows::new(two(), &Columns::named(&["state"]));
        for column in Column::ALL.into_iter().filter(|column| *column != Column::State) {
            assert!(!rows.columns().have(column));
            assert_eq!(rows.number(1, column), column.unknown(), "{column:?}");
        }
        assert_eq!(rows.get(2), None);
        let row = rows.get(1).unwrap().in_current_columns();
        assert_eq!((row.number(Column::TokensLeft), row.number(Column::InFlight)), (NONE, 0));
    }

    #[test]
    fn recorded_numbers_are_whole_rows() {
        let columns = Columns::named(&["state", "queued"]);
        assert_eq!(Rows::recorded(vec![0, 1, 2, 3], &columns).unwrap().number(1, Column::Queued), 3);
        assert_eq!(Rows::recorded(vec![0; 3], &columns), None);
    }

    #[test]
    fn columns_are_kept_by_name_and_those_of_the_first_version_are_meant_by_none() {
        let kept =
            |columns: &Columns| serde_json::from_str::<Columns>(&serde_json::to_string(columns).unwrap()).unwrap();
        for columns in [Columns::default(), Columns::named(&["state", "novelty"])] {
            assert_eq!(kept(&columns), columns);
        }
        assert!(Columns::of_1_0_0().are_of_1_0_0() && !Columns::named(&["state"]).are_of_1_0_0());
        assert_eq!(Columns::of_1_0_0().names().last(), Some("queued"));
        assert!(serde_json::from_str::<Columns>("[]").is_err());
    }

    #[test]
    fn what_is_not_said_of_a_row_made_by_hand_is_unlimited_or_unknown() {
        let row = BackendRow::new(RowState::Throttled);
        for column in [Column::ReadyMs, Column::RequestsLeft, Column::ConcurrencyLeft, Column::EmergencyMs] {
            assert_eq!(row.number(column), NONE, "{column:?}");
        }
        for column in [Column::CooldownMs, Column::CooldownReason, Column::InFlight, Column::Queued, Column::Home] {
            assert_eq!(row.number(column), 0, "{column:?}");
        }
        assert_eq!(BackendRow::new(RowState::Ready).number(Column::ReadyMs), 0);
    }
}
