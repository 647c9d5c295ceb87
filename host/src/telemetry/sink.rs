//! Lines on their way to the terminal or the log collector, written by a thread of their own.
//!
//! Whoever logs only appends to a bounded buffer; a slow reader of the log costs lines, never requests.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::terminal::{Own, shown};

/// Buffer for lines that wait to be written, bytes. Lines beyond it are dropped, and their number is written later.
const BUFFER_MAX_BYTES: usize = 4 << 20;
/// Time in which lines are gathered before they are written together, ms.
const GATHER_MS: u64 = 20;
/// Time for the last lines to be written, whose reader may have stopped reading.
const LAST_LINES: Duration = Duration::from_millis(500);
/// They are written at once when there are this many bytes.
const GATHER_MAX_BYTES: usize = 64 << 10;

#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    lost_lines: u64,
    closed: bool,
    /// All lines are written, and nothing follows.
    done: bool,
}

#[derive(Default)]
struct Shared {
    buffer: Mutex<Buffer>,
    wake: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes lines; cheap to clone.
#[derive(Clone)]
pub(super) struct Sink {
    shared: Arc<Shared>,
    /// Sequences that the lines may have.
    own: Own,
}

/// Owns the writing thread; dropped, it waits until all lines are out, if somebody reads them.
pub(super) struct SinkGuard {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// Starts the thread that writes to `out`.
    pub(super) fn start(out: impl Write + Send + 'static, own: Own) -> io::Result<(Self, SinkGuard)> {
        let shared = Arc::new(Shared::default());
        let writing = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("log".to_owned()).spawn(move || run(&writing, out))?;
        Ok((Self { shared: Arc::clone(&shared), own }, SinkGuard { shared, thread: Some(thread) }))
    }

    /// Appends whole lines, their ends included, as a terminal may get them.
    pub(super) fn push(&self, lines: &[u8]) {
        let lines = &*shown(lines, self.own);
        let mut buffer = self.shared.lock();
        if buffer.bytes.len() + lines.len() > BUFFER_MAX_BYTES {
            buffer.lost_lines += 1;
            return;
        }
        let before = buffer.bytes.len();
        buffer.bytes.extend_from_slice(lines);
        let wake = before == 0 || (before < GATHER_MAX_BYTES && buffer.bytes.len() >= GATHER_MAX_BYTES);
        drop(buffer);
        if wake {
            self.shared.wake.notify_one();
        }
    }
}

impl Write for Sink {
    /// The subscriber writes each event with one call. A field's own lines are set in, so that none looks like an event's.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        match event.iter().position(|byte| *byte == b'\n') {
            Some(end) if end + 1 < event.len() => self.push(&set_in(event)),
            Some(_) | None => self.push(event),
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for SinkGuard {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_all();
        let writing = |buffer: &mut Buffer| !buffer.done;
        let waited = self.shared.wake.wait_timeout_while(self.shared.lock(), LAST_LINES, writing);
        let (buffer, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        drop(buffer);
        // A thread that hangs in a write ends with the process.
        if let Some(thread) = self.thread.take().filter(|_| !waited.timed_out()) {
            drop(thread.join());
        }
    }
}

/// Indents all lines but the first.
fn set_in(event: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = event.trim_ascii_end().split(|byte| *byte == b'\n').collect();
    let mut joined = lines.join(&b"\n    "[..]);
    joined.push(b'\n');
    joined
}

fn run(shared: &Shared, mut out: impl Write) {
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let idle = |buffer: &mut Buffer| buffer.bytes.is_empty() && !buffer.closed;
        let gathering = |buffer: &mut Buffer| buffer.bytes.len() < GATHER_MAX_BYTES && !buffer.closed;
        let buffer = shared.wake.wait_while(shared.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        let (mut buffer, _) = shared
            .wake
            .wait_timeout_while(buffer, Duration::from_millis(GATHER_MS), gathering)
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut buffer.bytes, &mut bytes);
        let lost = std::mem::take(&mut buffer.lost_lines);
        let closed = buffer.closed;
        drop(buffer);
        // There is nowhere to tell that the log itself cannot be written.
        drop(out.write_all(&bytes).and_then(|()| tell_lost(&mut out, lost)).and_then(|()| out.flush()));
        if closed {
            shared.lock().done = true;
            shared.wake.notify_all();
            return;
        }
    }
}

fn tell_lost(out: &mut impl Write, lost: u64) -> io::Result<()> {
    if lost == 0 {
        return Ok(());
    }
    // Valid JSON, and plain enough for a terminal.
    writeln!(out, r#"{{"level":"WARN","message":"log lines were lost: their reader is too slow","lost_lines":{lost}}}"#)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A terminal that takes nothing until it is told to.
    struct Stuck {
        go: mpsc::Receiver<()>,
        seen: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.go.recv();
            self.seen.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_reader_costs_lines_and_they_are_counted() {
        let (go, wait) = mpsc::channel();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (sink, guard) = Sink::start(Stuck { go: wait, seen: Arc::clone(&seen) }, Own::Nothing).unwrap();
        let line = [b'x'; 1023].into_iter().chain([b'\n']).collect::<Vec<_>>();
        let lines = 3 * BUFFER_MAX_BYTES / line.len();
        for _ in 0..lines {
            sink.push(&line);
        }
        drop(go);
        drop(guard);
        let text = String::from_utf8(std::mem::take(&mut *seen.lock().unwrap())).unwrap();
        let written = text.lines().filter(|l| l.starts_with('x')).count();
        let lost: usize = text
            .lines()
            .filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok())
            .map(|told| told["lost_lines"].as_u64().unwrap() as usize)
            .sum();
        assert!(lost > 0);
        assert_eq!(written + lost, lines);
    }

    #[test]
    fn lines_come_out_whole_and_in_order_when_the_guard_goes() {
        let (go, wait) = mpsc::channel();
        drop(go);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut sink, guard) = Sink::start(Stuck { go: wait, seen: Arc::clone(&seen) }, Own::Nothing).unwrap();
        for i in 0..1_000 {
            writeln!(sink, "{i}").unwrap();
        }
        drop(guard);
        let text = String::from_utf8(seen.lock().unwrap().clone()).unwrap();
        assert!(text.lines().map(|l| l.parse::<u32>().unwrap()).eq(0..1_000));
    }
}
