//! The fleet: all backends at run time, and the queue of exchanges that wait for them.
//!
//! Every permit is taken and given back here, so that limits, cooldowns, probes and the queue can never disagree.
//! Waiting exchanges are served before new ones: every call offers free capacity to the queue first.

mod failed_requests;
pub mod health;
mod lab;
pub mod limits;
mod member;
mod members;
mod observed;
mod operator;
mod overview;
mod permits;
mod queue;
mod rows;
mod saved;
pub mod state_change;
mod waiting;

pub use member::{InitialState, Stats};
pub use members::{Fleet, Settings};
pub use observed::Observed;
pub use overview::{MAX_MODEL_COOLDOWNS, ModelCooldown, OperationCooldown, Overview, ServingCounts};
pub use permits::{AttemptReport, Denied, Permit};
pub use queue::Ticket;
pub use saved::{SavedCooldown, UsedBefore};
