//! The policy contract (`wit/policy.wit`) in core's types: queries, the rows in them, decisions.

mod columns;
mod decision;
mod operation;
mod query;
mod rows;

pub use columns::{COLUMNS, Column, NONE, RowState};
pub use decision::{Commit, Decision, Dispatch, Hold, OnFault, Rejection, Resume};
pub use operation::Operation;
pub use query::{AttemptFacts, Query, RequestFacts};
pub use rows::{BackendRow, Columns, Row, Rows};
