//! One running instance of a component: asked one question at a time, dropped after a fault.

use std::sync::Arc;

use pointsman_core::contract::{Decision, Query};
use wasmtime::{Store, Trap, WasmBacktrace};

use super::guest::Guest;
use super::wire::bindings::{Policy, PolicyPre};
use super::wire::{self, TableParts};
use super::{Fault, FaultKind, Texts};

/// Frames of a backtrace worth telling.
const MAX_FRAMES: usize = 6;

/// A component's instance and its memory.
pub(super) struct Instance {
    store: Store<Guest>,
    policy: Policy,
}

impl Instance {
    /// A fresh instance; what the component does at its start must be over after `ticks`.
    pub(super) fn start(pre: &PolicyPre<Guest>, guest: Guest, ticks: u32) -> Result<Self, Fault> {
        let mut store = Store::new(pre.engine(), guest);
        store.limiter(|guest| &mut guest.memory);
        store.epoch_deadline_callback(|mut store| Ok(store.data_mut().deadline.on_tick()));
        allow(&mut store, ticks);
        match pre.instantiate(&mut store) {
            Ok(policy) => Ok(Self { store, policy }),
            Err(error) => Err(fault(&store, &error)),
        }
    }

    /// Tells the instance its settings and table; the inner error is the policy's own refusal of them.
    pub(super) fn configure(
        &mut self,
        settings: &str,
        table: &TableParts,
        ticks: u32,
    ) -> Result<Result<(), String>, Fault> {
        allow(&mut self.store, ticks);
        table
            .with(|table| self.policy.call_configure(&mut self.store, settings, table))
            .map_err(|error| fault(&self.store, &error))
    }

    /// Asks; after a fault the instance must not be used again.
    #[inline]
    pub(super) fn ask(&mut self, query: &Query, texts: &Arc<Texts>, ticks: u32) -> Result<Decision, Fault> {
        self.store.data_mut().begin(texts, query.now_ms, query.seed, wire::past(query));
        allow(&mut self.store, ticks);
        match self.policy.call_decide(&mut self.store, wire::query(query)) {
            Ok(decision) => Ok(wire::decision(decision)),
            Err(error) => Err(fault(&self.store, &error)),
        }
    }

    /// Ends the question; what the policy noted during it.
    #[inline]
    pub(super) fn end(&mut self) -> Vec<String> {
        self.store.data_mut().end()
    }

    /// Its linear memory, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.store.data().memory.used_bytes()
    }
}

/// Starts a deadline of so many ticks.
#[inline]
fn allow(store: &mut Store<Guest>, ticks: u32) {
    store.data_mut().deadline.ticks_left = ticks;
    store.set_epoch_deadline(1);
}

/// What happened, in one line for the operator and the author.
#[cold]
fn fault(store: &Store<Guest>, error: &wasmtime::Error) -> Fault {
    let guest = store.data();
    let trap = error.downcast_ref::<Trap>();
    let kind = if trap == Some(&Trap::Interrupt) {
        FaultKind::Deadline
    } else if guest.memory.denied || error.is::<wasmtime::PoolConcurrencyLimitError>() {
        FaultKind::Memory
    } else {
        FaultKind::Trap
    };
    let cause = match kind {
        FaultKind::Deadline => "no answer in time".to_owned(),
        FaultKind::Memory if guest.memory.denied => "it asked for more memory than it may have".to_owned(),
        FaultKind::Memory | FaultKind::Trap | FaultKind::Invalid => error.root_cause().to_string(),
    };
    let words = guest.last_words();
    let place = error.downcast_ref::<WasmBacktrace>().map(frames).unwrap_or_default();
    let mut message = cause;
    if !words.is_empty() {
        message = format!("{message}: {words}");
    }
    if !place.is_empty() {
        message = format!("{message}; in {}", place.join(" < "));
    }
    Fault { kind, message }
}

/// Function names, innermost first, without those of the language's own panic machinery.
fn frames(backtrace: &WasmBacktrace) -> Vec<String> {
    const MACHINERY: [&str; 7] = ["std::", "core::", "alloc::", "__rust", "rust_", "__rustc", "abort"];
    // A line is `N: 0xOFFSET - MODULE!FUNCTION`; only this form has the names demangled.
    let text = backtrace.to_string();
    let names = || text.lines().filter_map(|line| line.split_once('!')).map(|(_, name)| name.trim().to_owned());
    let own: Vec<String> =
        names().filter(|name| !MACHINERY.iter().any(|m| name.starts_with(m))).take(MAX_FRAMES).collect();
    if own.is_empty() { names().take(MAX_FRAMES).collect() } else { own }
}
