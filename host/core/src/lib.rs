//! The pure logic of Pointsman.
//!
//! Nothing here sees a socket, a file, a clock or wasm: every function takes the time it needs and returns values.
//! The live server, the tests and any simulator drive the same code.

// First: the modules below use its macro.
#[macro_use]
mod vocabulary;

pub mod affinity;
pub mod attempt;
pub mod clients;
pub mod contract;
pub mod crowding;
pub mod denial;
pub mod descriptors;
pub mod dialect;
pub mod divergence;
pub mod duration;
pub mod exchange;
pub mod exhaustion;
pub mod fleet;
mod forms;
pub mod http;
pub mod journal;
mod lane;
pub mod lifecycle;
pub mod memory_budget;
pub mod origin;
pub mod outcome;
pub mod overdue;
pub mod random;
pub mod rank;
pub mod record;
pub mod rfc3339;
pub mod route_index;
pub mod saving;
pub mod suited;
pub mod table;
pub mod text;
pub mod time;
mod usage;
pub mod usd;
pub mod view;
