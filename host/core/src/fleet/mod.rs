//! The fleet: all backends at run time, and the queue of exchanges that wait for them.
//!
//! Every permit is taken and given back here, so that limits, cooldowns, probes and the queue can never disagree.
//! Waiting exchanges are served before new ones: every call offers free capacity to the queue first.

pub mod health;
pub mod limits;
mod member;
mod members;
mod observed;
mod queue;
pub mod state_change;

pub use member::{Past, Stats};
pub use members::{
    Denied, Fleet, KeptCooldown, MAX_MODEL_COOLDOWNS, ModelCooldown, Overview, Permit, Report, ServingCounts, Settings,
    seed_of_first,
};
pub use observed::Observed;
pub use queue::Ticket;
