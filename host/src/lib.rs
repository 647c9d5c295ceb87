//! Pointsman: a proxy for LLM APIs whose routing is decided by a WebAssembly component.
//!
//! Arrows point one way: `main -> cli, author, demo, serve -> admin -> control -> proxy -> upstream, telemetry`, to the packages
//! `pointsman-config`, `pointsman-engine` and `pointsman-store`; the command line also to `pointsman-lab`.

pub mod admin;
pub mod author;
pub mod cli;
mod control;
pub mod demo;
pub mod proxy;
pub mod serve;
pub mod telemetry;
mod terminal;
mod timer;
pub mod upstream;
