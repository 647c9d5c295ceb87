//! placeholder

pub mod cli;
pub mod config;
pub mod demo;
pub mod secret;
pub mod serve;
pub mod store;
pub mod telemetry;
//! The proxy.

pub mod policy;
