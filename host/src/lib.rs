//! Pointsman: a proxy for LLM APIs whose routing is decided by a WebAssembly component.
//!
//! Arrows point one way: `main -> cli, author, demo, serve -> drive -> policy, upstream, store, telemetry, config -> core`.

pub mod admin;
pub mod author;
pub mod cli;
mod clock;
pub mod config;
mod control;
pub mod demo;
pub mod drive;
pub mod lab;
pub mod policy;
pub mod seal;
pub mod secret;
pub mod serve;
pub mod store;
pub mod telemetry;
pub mod upstream;
