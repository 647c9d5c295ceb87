//! Functions that an instance can call: the contract's imports, under named limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use pointsman_core::journal::StateUse;
use pointsman_core::random::SplitMix64;
use wasmtime::{ResourceLimiter, bail};

use super::deadline::Deadline;
use super::fault_log::FaultLog;
use super::lines::LineTable;
use super::tape::{Source, Tape};
use super::wire::bindings::pointsman::policy::{log, request, state, types};
use super::{LOG_TARGET, Spending, Texts};

/// Notes one decision may leave.
const MAX_NOTES: usize = 16;
/// Length of a note; what is longer is cut.
const MAX_NOTE_BYTES: usize = 500;
/// Uses of `state` in one decision that are remembered.
const MAX_STATE_USES: usize = 256;
/// Log lines all instances together may write in a second.
const MAX_LOG_LINES_PER_SECOND: u32 = 20;
/// Length of a log line; what is longer is cut.
const MAX_LOG_BYTES: usize = 1_000;
/// Bytes kept of a guest's stderr, for the message of a trap.
const MAX_STDERR_BYTES: usize = 2_000;
/// Text that Rust adds to every panic message; guests have no environment to set that variable in.
const RUST_HINT: &str = "note: run with `RUST_BACKTRACE";
/// Bytes that a guest may hand over in one call of the host, and in one answer; more is not copied out of its memory.
pub(super) const MAX_HANDED_OVER_BYTES: usize = 128 << 10;
/// WASI handles an instance may hold at a time; each costs the host a few bytes.
const MAX_HANDLES: u32 = 1_000;

/// References in one table, more than any language runtime needs.
pub(super) const MAX_TABLE_ELEMENTS: usize = 65_536;

/// State shared by all instances of all revisions.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) state: Source,
    log_allowance: LogAllowance,
    pub(super) fault_log: FaultLog,
}

impl Shared {
    /// In which `state` answers as it was recorded.
    pub(super) fn recorded(tape: Arc<Tape>) -> Self {
        Self { state: Source::Recorded(tape), ..Self::default() }
    }
}

/// The data of one instance's store.
pub(super) struct Guest {
    shared: Arc<Shared>,
    revision: Arc<str>,
    /// The texts of the request being decided.
    texts: Option<Arc<Texts>>,
    /// Attempts before the question; none: the policy may not ask, or has asked.
    past: Option<types::PastFacts>,
    /// Printed text of an unfinished line.
    line: Vec<u8>,
    /// The last line it logged as an error during this question: why it is about to fail, in its own words.
    last_error: String,
    /// The query's time: the only clock.
    pub(super) now_ms: u64,
    /// The query's seed, and what came of it: the only randomness.
    random: SplitMix64,
    notes: Vec<String>,
    state_uses: Vec<StateUse>,
    stderr: Vec<u8>,
    /// Number of WASI handles that the guest holds.
    handles: u32,
    pub(super) memory: MemoryMeter,
    pub(super) deadline: Deadline,
    /// The lines of its sources, for what it is told when it fails.
    pub(super) lines: Option<Arc<LineTable>>,
}

impl Guest {
    pub(super) fn new(shared: Arc<Shared>, revision: Arc<str>, max_memory_bytes: usize) -> Self {
        Self {
            shared,
            revision,
            texts: None,
            past: None,
            line: Vec::new(),
            last_error: String::new(),
            now_ms: 0,
            random: SplitMix64(0),
            notes: Vec::new(),
            state_uses: Vec::new(),
            stderr: Vec::new(),
            handles: 0,
            memory: MemoryMeter { max_bytes: max_memory_bytes, used_bytes: 0, denied: None },
            deadline: Deadline::default(),
            lines: None,
        }
    }

    /// Sets the texts, time and seed of the next question.
    #[inline]
    pub(super) fn begin(&mut self, texts: &Arc<Texts>, now_ms: u64, seed: u64, past: Option<types::PastFacts>) {
        self.last_error.clear();
        self.texts = Some(Arc::clone(texts));
        self.past = past;
        self.state_uses.clear();
        self.now_ms = now_ms;
        self.random = SplitMix64(seed);
        // What was said and refused earlier explains no fault of this question.
        self.stderr.clear();
        self.memory.denied = None;
    }

    /// After it; the notes it left, and what it did with `state`.
    #[inline]
    pub(super) fn end(&mut self) -> (Vec<String>, Vec<StateUse>) {
        self.texts = None;
        (std::mem::take(&mut self.notes), std::mem::take(&mut self.state_uses))
    }

    /// Remembers a use of `state`, which is one only during a question.
    fn used_state(&mut self, what: StateUse) {
        let kept = self.state_uses.len();
        if self.texts.is_some() && kept <= MAX_STATE_USES {
            self.state_uses.push(if kept == MAX_STATE_USES { StateUse::TooMany } else { what });
        }
    }

    /// Returns the stderr of a failed question on one line, which for a Rust guest is its panic message.
    pub(super) fn last_words(&self) -> String {
        if !self.last_error.is_empty() {
            return self.last_error.clone();
        }
        String::from_utf8_lossy(&self.stderr)
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty() && !l.starts_with(RUST_HINT))
            .collect::<Vec<_>>()
            .join(" ")
    }

    pub(super) fn write_stderr(&mut self, bytes: &[u8]) {
        let room = MAX_STDERR_BYTES.saturating_sub(self.stderr.len());
        self.stderr.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Logs printed text line by line, under the log's limits.
    pub(super) fn print(&mut self, level: log::Level, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let room = MAX_LOG_BYTES.saturating_sub(self.line.len());
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).trim_end().to_owned();
                if !line.is_empty() && !line.starts_with(RUST_HINT) {
                    self.write_log(level, line);
                }
            }
        }
    }

    fn write_log(&self, level: log::Level, message: String) {
        if !self.shared.log_allowance.take(self.now_ms) {
            return;
        }
        let (policy, message) = (&*self.revision, cut(message, MAX_LOG_BYTES));
        match level {
            log::Level::Debug => tracing::debug!(target: LOG_TARGET, policy, "{message}"),
            log::Level::Info => tracing::info!(target: LOG_TARGET, policy, "{message}"),
            log::Level::Warn => tracing::warn!(target: LOG_TARGET, policy, "{message}"),
            log::Level::Error => tracing::error!(target: LOG_TARGET, policy, "{message}"),
        }
    }

    /// Counts a WASI handle that the guest is given.
    pub(super) fn lend_handle(&mut self) -> wasmtime::Result<()> {
        if self.handles == MAX_HANDLES {
            bail!("the policy holds {MAX_HANDLES} WASI handles and drops none");
        }
        self.handles += 1;
        Ok(())
    }

    /// Counts a handle that the guest dropped.
    pub(super) fn take_handle_back(&mut self) {
        self.handles = self.handles.saturating_sub(1);
    }

    /// The next random number of the sequence that begins with the query's seed.
    pub(super) fn random(&mut self) -> u64 {
        self.random.draw()
    }
}

impl types::Host for Guest {}

impl log::Host for Guest {
    fn log(&mut self, level: log::Level, message: String) {
        if level == log::Level::Error {
            self.last_error = cut(message.clone(), MAX_LOG_BYTES);
        }
        self.write_log(level, message);
    }

    fn note(&mut self, text: String) {
        if self.texts.is_some() && self.notes.len() < MAX_NOTES {
            self.notes.push(cut(text, MAX_NOTE_BYTES));
        }
    }
}

impl request::Host for Guest {
    fn past(&mut self) -> types::PastFacts {
        let nothing = types::PastFacts { attempts: Vec::new(), waits: 0, waited_ms: 0 };
        self.past.clone().unwrap_or(nothing)
    }

    fn model(&mut self) -> String {
        self.texts.as_ref().map(|t| t.model.clone()).unwrap_or_default()
    }

    fn path(&mut self) -> String {
        self.texts.as_ref().map(|t| t.path.clone()).unwrap_or_default()
    }

    fn session(&mut self) -> Option<String> {
        self.texts.as_ref().and_then(|t| t.session.clone())
    }

    fn label(&mut self, name: String) -> Option<String> {
        self.texts.as_ref()?.label(&name).map(str::to_owned)
    }

    fn spending(&mut self) -> types::SpendingFacts {
        let Spending { today_microusd, budget_microusd } = self.texts.as_ref().map(|t| t.spending).unwrap_or_default();
        types::SpendingFacts { today_microusd, budget_microusd }
    }
}

impl state::Host for Guest {
    fn get(&mut self, key: String) -> Option<i64> {
        let found = self.shared.state.get(&key, self.now_ms);
        self.used_state(StateUse::Get { key, found });
        found
    }

    fn set(&mut self, key: String, value: i64, ttl_ms: u64) {
        self.shared.state.set(key.clone(), value, ttl_ms, self.now_ms);
        self.used_state(StateUse::Set { key, value, ttl_ms });
    }

    fn add(&mut self, key: String, delta: i64, ttl_ms: u64) -> i64 {
        let sum = self.shared.state.add(key.clone(), delta, ttl_ms, self.now_ms);
        self.used_state(StateUse::Add { key, delta, ttl_ms, sum });
        sum
    }
}

/// Refuses memory beyond the cap and remembers what was asked.
pub(super) struct MemoryMeter {
    max_bytes: usize,
    used_bytes: usize,
    /// Memory or table size that the guest was refused.
    pub(super) denied: Option<Denied>,
}

/// An import that is denied, because it goes beyond a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    Memory { asked_bytes: usize, max_bytes: usize },
    Table { asked: usize, max: usize },
}

impl std::fmt::Display for Denied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Denied::Memory { asked_bytes, max_bytes } => {
                write!(f, "it asked for {} KiB of memory and may have {} KiB", asked_bytes >> 10, max_bytes >> 10)
            }
            Denied::Table { asked, max } => write!(f, "it asked for a table of {asked} and may have {max}"),
        }
    }
}

impl MemoryMeter {
    /// Linear memory the guest has.
    pub(super) fn used_bytes(&self) -> usize {
        self.used_bytes
    }
}

impl ResourceLimiter for MemoryMeter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let used_bytes = self.used_bytes - current.min(self.used_bytes) + desired;
        if used_bytes > self.max_bytes {
            self.denied = Some(Denied::Memory { asked_bytes: used_bytes, max_bytes: self.max_bytes });
            return Ok(false);
        }
        self.used_bytes = used_bytes;
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        if desired > MAX_TABLE_ELEMENTS {
            self.denied = Some(Denied::Table { asked: desired, max: MAX_TABLE_ELEMENTS });
            return Ok(false);
        }
        Ok(true)
    }
}

/// So many lines in each second of the queries' time.
#[derive(Default)]
struct LogAllowance {
    second: AtomicU64,
    lines: AtomicU32,
}

impl LogAllowance {
    fn take(&self, now_ms: u64) -> bool {
        /// A clock that was set back by more than this is believed, in seconds.
        const SET_BACK: u64 = 60;
        let second = now_ms / 1_000;
        let seen = self.second.load(Ordering::Relaxed);
        // An instance that is being configured has no time yet: what it says counts to the second under way.
        let is_new = second > seen || (second > 0 && seen - second > SET_BACK);
        if is_new && self.second.swap(second, Ordering::Relaxed) != second {
            self.lines.store(0, Ordering::Relaxed);
        }
        let lines = self.lines.fetch_add(1, Ordering::Relaxed);
        if lines == MAX_LOG_LINES_PER_SECOND {
            tracing::warn!(target: LOG_TARGET, "the policy logs more than {MAX_LOG_LINES_PER_SECOND} lines a second; the rest is dropped");
        }
        lines < MAX_LOG_LINES_PER_SECOND
    }
}

/// The text, at most so many bytes of it.
fn cut(mut text: String, max_bytes: usize) -> String {
    if text.len() > max_bytes {
        text.truncate(text.floor_char_boundary(max_bytes));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_flood_is_cut_off_each_second() {
        let allowance = LogAllowance::default();
        let lines = |now_ms| (0..100).filter(|_| allowance.take(now_ms)).count();
        assert_eq!(lines(5_000), MAX_LOG_LINES_PER_SECOND as usize);
        assert_eq!(lines(5_999), 0);
        assert_eq!(lines(6_000), MAX_LOG_LINES_PER_SECOND as usize);
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("ääää".into(), 3), "ä…");
        assert_eq!(cut("abc".into(), 3), "abc");
    }

    #[test]
    fn the_last_error_logged_goes_before_what_was_printed() {
        use log::Host as _;
        let mut guest = Guest::new(Arc::default(), "r".into(), 0);
        guest.begin(&Arc::default(), 0, 0, None);
        guest.write_stderr(b"thread panicked\n");
        assert_eq!(guest.last_words(), "thread panicked");
        guest.log(log::Level::Warn, "strange".into());
        guest.log(log::Level::Error, "no price for a".into());
        assert_eq!(guest.last_words(), "no price for a");
        guest.begin(&Arc::default(), 0, 0, None);
        assert!(!guest.last_words().contains("price"), "an earlier question's error explains nothing");
    }

    #[test]
    fn what_is_printed_becomes_bounded_lines() {
        let mut guest = Guest::new(Arc::default(), "r".into(), 0);
        guest.print(log::Level::Info, b"half a ");
        assert_eq!(guest.line, b"half a ");
        guest.print(log::Level::Info, b"line\n\nrest");
        assert_eq!(guest.line, b"rest");
        guest.print(log::Level::Info, &[b'x'; 10_000]);
        assert_eq!(guest.line.len(), MAX_LOG_BYTES);
    }

    #[test]
    fn what_rust_says_of_a_variable_that_nobody_can_set_is_no_log_line() {
        let mut guest = Guest::new(Arc::default(), "r".into(), 0);
        let hint = format!("{RUST_HINT}=1` environment variable to display a backtrace\n");
        for _ in 0..MAX_LOG_LINES_PER_SECOND {
            guest.print(log::Level::Warn, hint.as_bytes());
        }
        assert!(guest.shared.log_allowance.take(0), "none was written");
    }

    #[test]
    fn notes_need_a_question_and_are_bounded() {
        use log::Host as _;
        let mut guest = Guest::new(Arc::default(), "r".into(), 0);
        guest.note("in configure".into());
        assert!(guest.end().0.is_empty());
        guest.begin(&Arc::default(), 0, 0, None);
        for _ in 0..100 {
            guest.note("n".repeat(10_000));
        }
        let (notes, _) = guest.end();
        assert_eq!(notes.len(), MAX_NOTES);
        assert!(notes[0].len() <= MAX_NOTE_BYTES + '…'.len_utf8());
        assert!(guest.end().0.is_empty(), "notes never reach the next exchange");
    }
}
