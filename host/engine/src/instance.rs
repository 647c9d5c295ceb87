//! One running instance of a component: asked one question at a time, dropped after a fault.

use std::sync::Arc;
use std::time::Duration;

use pointsman_core::contract::{Decision, Query};
use pointsman_core::journal::StateUse;
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, WasmBacktrace};

use super::address_space::InstancePermit;
use super::clock::Measure;
use super::guest::{Guest, MAX_HANDED_OVER_BYTES};
use super::lines::LineTable;
use super::ticker::Alarm;
use super::wire::bindings::{Policy, PolicyPre};
use super::wire::{self, TableParts};
use super::{Fault, FaultKind, Texts};

/// Frames of a backtrace worth telling.
const MAX_FRAMES: usize = 6;

/// A function's name is the guest's own text; a longer one is cut, and not made readable first.
const MAX_NAME_BYTES: usize = 300;

/// The message of a fault; what is longer is cut.
const MAX_MESSAGE_BYTES: usize = 3_000;

/// An instance that has grown by more than this since it was configured is not kept for the next question.
const MAX_GROWTH_BYTES: usize = 8 << 20;

/// A component's instance and its memory.
pub(super) struct Instance {
    store: Store<Guest>,
    policy: Policy,
    /// Dropped after the store, whose memory it stands for.
    _permit: InstancePermit,
    /// Memory it had when it was configured.
    configured_bytes: usize,
}

/// The reason why there is no instance.
pub(super) enum NotStarted {
    /// As many as there may be are in use.
    PoolFull,
    /// The component failed while it was started or configured.
    Fault(Fault),
}

impl Instance {
    /// A fresh instance; what the component does at its start must be over after `limit_ms`.
    pub(super) fn start(
        pre: &PolicyPre<Guest>,
        permit: InstancePermit,
        guest: Guest,
        alarm: Alarm,
        measure: Measure,
        limit_ms: u32,
    ) -> Result<Self, NotStarted> {
        let mut store = Store::new(pre.engine(), guest);
        store.limiter(|guest| &mut guest.memory);
        store.set_hostcall_fuel(MAX_HANDED_OVER_BYTES);
        store.epoch_deadline_callback(move |mut store| Ok(store.data_mut().deadline.on_tick(&alarm)));
        allow(&mut store, measure, limit_ms);
        match pre.instantiate(&mut store) {
            Ok(policy) => Ok(Self { store, policy, _permit: permit, configured_bytes: 0 }),
            Err(error) if error.is::<PoolConcurrencyLimitError>() => Err(NotStarted::PoolFull),
            Err(error) => Err(NotStarted::Fault(fault(&store, &error))),
        }
    }

    /// Tells the instance its settings and table; the inner error is the policy's own refusal of them.
    pub(super) fn configure(
        &mut self,
        settings: &str,
        table: &TableParts,
        measure: Measure,
        limit_ms: u32,
    ) -> Result<Result<(), String>, Fault> {
        allow(&mut self.store, measure, limit_ms);
        let answer = table
            .with(|table| self.policy.call_configure(&mut self.store, settings, table))
            .map_err(|error| fault(&self.store, &error));
        self.configured_bytes = self.store.data().memory.used_bytes();
        answer
    }

    /// Asks; after a fault the instance must not be used again.
    #[inline]
    pub(super) fn ask(
        &mut self,
        query: &Query,
        texts: &Arc<Texts>,
        measure: Measure,
        limit_ms: u32,
    ) -> Result<Decision, Fault> {
        self.store.data_mut().begin(texts, query.now_ms, query.seed, wire::past(query));
        allow(&mut self.store, measure, limit_ms);
        match self.policy.call_decide(&mut self.store, wire::query(query)) {
            Ok(decision) => Ok(wire::decision(decision)),
            Err(error) => Err(fault(&self.store, &error)),
        }
    }

    /// Ends the question; what the policy noted during it, and what it did with `state`.
    #[inline]
    pub(super) fn end(&mut self) -> (Vec<String>, Vec<StateUse>) {
        self.store.data_mut().end()
    }

    /// Returns how long the last question ran, without the time in which the machine ran other threads; zero for most.
    #[inline]
    pub(super) fn ran(&self) -> Duration {
        self.store.data().deadline.ran()
    }

    /// Returns true if the last question took milliseconds.
    #[inline]
    pub(super) fn was_long(&self) -> bool {
        self.store.data().deadline.is_long()
    }

    /// Returns true if it has taken so much memory that a fresh instance is better.
    #[inline]
    pub(super) fn is_bloated(&self) -> bool {
        self.store.data().memory.used_bytes() > self.configured_bytes + MAX_GROWTH_BYTES
    }

    /// Its linear memory, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.store.data().memory.used_bytes()
    }
}

/// Starts the time of a call.
#[inline]
fn allow(store: &mut Store<Guest>, measure: Measure, limit_ms: u32) {
    store.data_mut().deadline.start(measure, limit_ms);
    store.set_epoch_deadline(1);
}

/// Describes an error in one line for the operator and the author.
#[cold]
fn fault(store: &Store<Guest>, error: &wasmtime::Error) -> Fault {
    let guest = store.data();
    let (kind, cause) = cause(guest, error);
    let mut message = cause;
    let words = guest.last_words();
    if !words.is_empty() {
        message = format!("{message}: {words}");
    }
    let place = error.downcast_ref::<WasmBacktrace>();
    let place = place.map(|backtrace| frames(backtrace, guest.lines.as_deref())).unwrap_or_default();
    if !place.is_empty() {
        message = format!("{message}; in {}", place.join(" < "));
    }
    Fault { kind, message: one_line(&message, MAX_MESSAGE_BYTES) }
}

fn cause(guest: &Guest, error: &wasmtime::Error) -> (FaultKind, String) {
    let trap = error.downcast_ref::<Trap>();
    if trap == Some(&Trap::Interrupt) {
        let deadline = &guest.deadline;
        let (limit, took) = (deadline.limit_ms(), deadline.elapsed_ms());
        return (FaultKind::Deadline, format!("no answer within {limit} ms; it was stopped after {took} ms"));
    }
    if let Some(denied) = guest.memory.denied {
        return (FaultKind::Memory, denied.to_string());
    }
    let is_answer = trap.is_none() && error.downcast_ref::<WasmBacktrace>().is_none();
    let kind = if is_answer { FaultKind::Invalid } else { FaultKind::Trap };
    let text = error.root_cause().to_string();
    // The engine's error for it has no public type.
    if text.contains("fuel allocated for hostcalls") {
        let (what, max) = (if is_answer { "its answer has" } else { "it handed the host" }, MAX_HANDED_OVER_BYTES);
        return (kind, format!("{what} more than {max} bytes of text or lists"));
    }
    (kind, text)
}

/// Function names, innermost first, with file and line where the component has them, without those of the language's own panic
/// machinery.
fn frames(backtrace: &WasmBacktrace, lines: Option<&LineTable>) -> Vec<String> {
    const MACHINERY: [&str; 7] = ["std::", "core::", "alloc::", "__rust", "rust_", "__rustc", "abort"];
    let is_long = |name: Option<&str>| name.is_some_and(|name| name.len() > MAX_NAME_BYTES);
    if backtrace.frames().iter().any(|f| is_long(f.func_name()) || is_long(f.module().name())) {
        let name = |f: &wasmtime::FrameInfo| f.func_name().map(|name| one_line(name, MAX_NAME_BYTES));
        return backtrace.frames().iter().filter_map(name).take(MAX_FRAMES).collect();
    }
    // A line is `N: 0xOFFSET - MODULE!FUNCTION`; only this form has the names demangled.
    let text = backtrace.to_string();
    let mut names: Vec<String> =
        text.lines().filter_map(|line| line.split_once('!')).map(|(_, name)| without_hashes(name.trim())).collect();
    if names.len() == backtrace.frames().len() {
        for (name, frame) in names.iter_mut().zip(backtrace.frames()) {
            let offset = frame.func_offset().and_then(|offset| u32::try_from(offset).ok());
            let place = lines.zip(offset).and_then(|(lines, offset)| lines.place(frame.func_index(), offset));
            name.extend(place.map(|place| format!(" ({place})")));
        }
    }
    // Recursion fills the backtrace with itself.
    names.dedup();
    let is_own = |name: &&String| !MACHINERY.iter().any(|m| name.starts_with(m));
    let own: Vec<String> = names.iter().filter(is_own).take(MAX_FRAMES).cloned().collect();
    names.truncate(MAX_FRAMES);
    if own.is_empty() { names } else { own }
}

/// A Rust name without the hashes that tell builds of it apart: `a[0123456789abcdef]::b` and `a::b::h0123456789abcdef`.
fn without_hashes(name: &str) -> String {
    const DIGITS: usize = 16;
    let is_hash = |text: &str| text.len() == DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit());
    let name = match name.rsplit_once("::h") {
        Some((front, hash)) if is_hash(hash) => front,
        Some(_) | None => name,
    };
    let mut parts = name.split('[');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(']') {
            Some((hash, rest)) if is_hash(hash) => plain.push_str(rest),
            Some(_) | None => plain.extend(["[", part]),
        }
    }
    plain
}

/// A guest's text as it may stand in a log: bounded, and without what would end the line or move the cursor.
pub(super) fn one_line(text: &str, max_bytes: usize) -> String {
    let end = text.floor_char_boundary(max_bytes);
    let mut line: String = text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if end < text.len() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_text_stays_on_one_line() {
        assert_eq!(one_line("a\nb\x1b[2J", 100), "a b [2J");
        assert_eq!(one_line("ääää", 3), "ä…");
    }

    #[test]
    fn names_are_told_without_hashes() {
        assert_eq!(without_hashes("std[d123b7a1a2ed1472]::process::abort"), "std::process::abort");
        assert_eq!(without_hashes("guest::act::hbc1c7cf9531e5195"), "guest::act");
        assert_eq!(without_hashes("<[u8; 3] as a::B>::hop"), "<[u8; 3] as a::B>::hop");
    }
}
