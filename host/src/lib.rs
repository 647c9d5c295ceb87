//! Pointsman: a proxy for LLM APIs whose routing is decided by a WebAssembly component.
//!
//! Arrows point one way: `main -> cli, author, demo, lab, serve -> drive -> upstream, telemetry, config`, to the packages
//! `pointsman-engine`, `pointsman-store` and `pointsman-core`.

pub mod admin;
pub mod author;
pub mod cli;
mod control;
pub mod demo;
pub mod drive;
pub mod serve;
pub mod telemetry;
pub mod upstream;
