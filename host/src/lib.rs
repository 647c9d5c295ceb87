//! placeholder

pub mod serve;
pub mod store;
pub mod telemetry;
