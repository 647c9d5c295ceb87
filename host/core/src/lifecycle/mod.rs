//! The life cycle of a policy: promotions and the fault breaker.

pub mod fault_breaker;
pub mod promotion;
