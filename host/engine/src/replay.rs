//! Components that recorded questions are put to again: the engine, the limits and the checks of the live proxy, but
//! `state` answers as it was recorded, faults have no penalty, and there is no fallback.

use std::sync::Arc;

use pointsman_core::contract::{Decision, Query};
use pointsman_core::journal::{Question, StateUse};
use pointsman_core::table::Table;

use super::check::LoadError;
use super::clock::Measure;
use super::compiled::Compiled;
use super::fitting::filled_pool;
use super::guest::Shared;
use super::instance::Instance;
use super::pool::{Pool, Source, is_at_start};
use super::settings::SettingsOffer;
use super::tape::Tape;
use super::validate::validate;
use super::{Fault, FaultKind, Texts, fault_penalty};

/// One replay. What a question shows of `state` is known to those after it, whichever component they are put to.
pub struct Replay {
    tape: Arc<Tape>,
    shared: Arc<Shared>,
}

/// A component's answer to a recorded question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The decision, valid for the table, or how it failed.
    pub answer: Result<Decision, Fault>,
    /// Notes of the policy.
    pub notes: Vec<String>,
    /// Every use of `state`, in order, with the answers it got.
    pub state: Vec<StateUse>,
    /// Number of `state` answers that were not recorded: the last known value of the key was used.
    pub unrecorded: u32,
}

/// A component configured for a table, in a replay.
pub struct Replayer {
    tape: Arc<Tape>,
    pool: Arc<Pool>,
    table: Arc<Table>,
    decide_ms: u32,
}

impl Default for Replay {
    fn default() -> Self {
        let tape = Arc::new(Tape::default());
        Self { shared: Arc::new(Shared::recorded(tape.clone())), tape }
    }
}

impl Replay {
    /// Configures a component. It has been judged before, so it is not probed: what it remembers is only what it is asked.
    ///
    /// # Errors
    /// It does not start, or refuses the settings or the table.
    pub fn configure(
        &self,
        compiled: &Compiled,
        settings: &SettingsOffer,
        table: Arc<Table>,
    ) -> Result<Replayer, LoadError> {
        let source = Source { shared: self.shared.clone(), waits_for_start: true, ..compiled.source() };
        let decide_ms = source.runtime.limits.decide_ms;
        let (pool, _) = filled_pool(&source, settings, &table)?;
        Ok(Replayer { tape: self.tape.clone(), pool, table, decide_ms })
    }

    /// This question is not asked again; what it shows of `state` counts nevertheless.
    pub fn passed(&self, question: &Question) {
        self.tape.passed(&question.state, question.query.now_ms);
    }
}

impl Replayer {
    /// Asks an instance that remembers the questions before, as long as it does not fail.
    pub fn ask(&self, query: &Query, texts: &Arc<Texts>, recorded: &[StateUse]) -> Heard {
        let mut taken = match self.pool.take() {
            Ok(taken) => taken,
            Err(fault) => return Heard::failed(fault),
        };
        let instance = taken.instance();
        let heard = self.put(instance, query, texts, recorded);
        if heard.answer.is_err() || instance.is_bloated() {
            taken.discard();
        }
        heard
    }

    /// Returns the time that the last start of an instance ran, in ms, without the time in which the machine ran other
    /// threads.
    pub fn start_ms(&self) -> u32 {
        self.pool.start_ms()
    }

    /// Asks an instance that has never been asked anything.
    pub fn ask_fresh(&self, query: &Query, texts: &Arc<Texts>, recorded: &[StateUse]) -> Heard {
        match self.pool.fresh(Measure::Running) {
            Ok(mut instance) => self.put(&mut instance, query, texts, recorded),
            Err(fault) => Heard::failed(fault),
        }
    }

    fn put(&self, instance: &mut Instance, query: &Query, texts: &Arc<Texts>, recorded: &[StateUse]) -> Heard {
        let clock = self.pool.clock_for(Measure::Running);
        self.tape.begin(recorded);
        let answer = instance.ask(query, texts, Measure::Running, self.decide_ms);
        drop(clock);
        let unrecorded = self.tape.end(query.now_ms);
        let (notes, state) = instance.end();
        let answer = answer.and_then(|decision| {
            validate(decision, &self.table).map_err(|message| Fault { kind: FaultKind::Invalid, message })
        });
        Heard { answer, notes, state, unrecorded }
    }
}

impl Heard {
    fn failed(fault: Fault) -> Self {
        Self { answer: Err(fault), notes: Vec::new(), state: Vec::new(), unrecorded: 0 }
    }
}

/// Returns true if a fault with this kind and message depends on the machine's load more than on the policy: deadlines,
/// shortages, and questions that were not asked.
pub fn is_of_the_moment(kind: &str, message: &str) -> bool {
    let timed = [FaultKind::Deadline, FaultKind::Busy].map(FaultKind::as_str);
    timed.contains(&kind) || message.starts_with(fault_penalty::NOT_ASKED) || is_at_start(message)
}
