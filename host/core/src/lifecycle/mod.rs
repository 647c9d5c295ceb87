//! The life cycle of a policy: promotions, the fault breaker, and the names of what happens to it.

pub mod fault_breaker;
pub mod promotion;
mod reload;
pub mod shadow;

pub use reload::{Reload, Rollback};
