//! The policy engine: components in, decisions out.
//!
//! An [`Engine`] lives as long as the process. [`Engine::load`] makes a [`Revision`] of a component: compiled, checked,
//! configured and probed, so that a revision that exists is one that decides. [`Revision::decide`] is the hot call: it
//! takes an instance out of the pool, asks it, validates the answer, and falls back on the native default policy whenever the component fails, so that it always has a decision to give.
//!
//! Nothing here is async or touches tokio, and no decision sees a clock: it is a function of the query and the shared
//! state. Only deadlines are measured, by the ticker.

mod address_space;
mod background;
mod cache;
mod cancellation;
mod check;
pub mod clock;
mod code;
mod compile;
mod compile_child;
mod compiled;
mod deadline;
mod decision_reader;
mod engine;
mod fault_log;
mod fault_penalty;
mod fitting;
mod guest;
mod idle;
mod instance;
mod limits;
mod lines;
pub mod memory;
mod name;
mod native_fallback;
pub mod plain_file;
mod pool;
mod priority;
mod replay;
mod revision;
mod runtime;
pub mod sample;
mod settings;
mod size_limits;
mod slots;
mod state;
mod tape;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_hostile;
mod ticker;
mod validate;
mod wasi;
pub mod watch;
mod wire;

pub use cancellation::Cancellation;
pub use check::{LoadError, contract};
pub use compile_child::{CompileJob, compile_in_children};
pub use compiled::Compiled;
pub use engine::{Engine, EngineError};
pub use limits::EngineLimits;
pub use lines::{LineRow, LineTable};
pub use name::{named, of as name_of};
pub use native_fallback::NativeFallback;
pub use pointsman_core::lifecycle::Hash;
pub use priority::Priority;
pub use replay::{Heard, Replay, Replayer, is_of_the_moment};
pub use revision::{Revision, probes};
pub use settings::{SettingsOffer, left_out_words, refused_key};

use pointsman_core::clients::Spending;
use pointsman_core::contract::Decision;
use pointsman_core::journal::StateUse;

/// The part of the program that log lines name; directives of `[log] level` go by it.
const LOG_TARGET: &str = "pointsman::policy";

/// Texts that a policy may ask of a request, beyond its numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// The model as the client wrote it; "unknown" when it named none.
    pub model: String,
    /// The path without its query.
    pub path: String,
    /// `x-pointsman-session`.
    pub session: Option<String>,
    /// `x-pointsman-label-NAME`, by lower-case NAME.
    pub labels: Vec<(String, String)>,
    /// The client key's money as the exchange arrived.
    pub spending: Spending,
}

impl Texts {
    /// The label of this name, in any case.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Result of a question to the policy: decision, notes and uses of `state`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Valid for the table: indices, lanes and ranges are checked.
    pub decision: Decision,
    /// Notes of the policy.
    pub notes: Vec<String>,
    /// The fault of the component, where the native fallback decided in its place.
    pub fault: Option<Fault>,
    /// Every use of `state` by the component, in order; what is beyond a bound ends with [`StateUse::TooMany`].
    pub state: Vec<StateUse>,
}

impl Verdict {
    /// A verdict with this decision and no notes.
    pub fn of(decision: Decision) -> Self {
        Self { decision, notes: Vec::new(), fault: None, state: Vec::new() }
    }
}

/// A component's own answer to one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Valid for the table, or why there is none.
    pub decision: Result<Decision, Fault>,
    /// Notes of the policy.
    pub notes: Vec<String>,
}

pointsman_core::vocabulary! {
    /// Kind of a policy fault.
    pub enum FaultKind {
        /// It stopped itself: panic, unreachable code, stack overflow, a call of something that is not there.
        Trap = "trap",
        /// It did not answer in time.
        Deadline = "deadline",
        /// It wanted more memory, or more instances, than it may have.
        Memory = "memory",
        /// It answered something that is no decision.
        Invalid = "invalid",
        /// None of its instances was free: a shortage, and not its failure.
        Busy = "busy",
    }
}

/// A policy failed at one question.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("policy fault ({}): {message}", kind.as_str())]
pub struct Fault {
    /// Kind of the fault, by which faults are counted.
    pub kind: FaultKind,
    /// Last output of the guest, and the place in its source.
    pub message: String,
}
