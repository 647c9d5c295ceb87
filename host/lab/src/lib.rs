//! The laboratory: policies tried in virtual time, with core's own state machines.
//!
//! [`world`] is a world in which core's `Exchange` and `Fleet` do what they do in the server, while requests, backends'
//! answers and decisions come from wherever its caller likes. [`answer`] says what an answer comes to under an attempt's
//! time limits. [`scenario`] reads the files of `pointsman policy test`, [`trial`] plays one and compares,
//! [`recorder`] remembers each exchange as facts and as a [`story`] for people. [`simulate`] makes worlds up from a seed and
//! holds every exchange to its invariants. [`replay`] puts recorded questions to a component again.
//! [`backtest`] lives recorded traffic through again, under another policy, in a world learned from the journal. [`chronicle`] writes a
//! world down as the server would.

pub mod answer;
pub mod backtest;
pub mod chronicle;
mod dice;
pub mod explain;
pub mod recorder;
pub mod replay;
pub mod report;
pub mod scenario;
pub mod settings;
pub mod simulate;
pub mod story;
#[cfg(test)]
mod tests;
pub mod trial;
pub mod world;
