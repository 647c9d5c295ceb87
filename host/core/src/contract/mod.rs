//! The policy contract (`wit/policy.wit`) as the core sees it: what a policy is asked, and what it may answer.

mod columns;
mod decision;
mod operation;
mod query;

pub use columns::{COLUMNS, Column, NONE, RowState, STRIDE};
pub use decision::{Commit, Decision, Dispatch, Hold, OnFault, Rejection, Resume};
pub use operation::Operation;
pub use query::{AttemptFacts, Query, RequestFacts};
