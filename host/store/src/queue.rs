//! The bounded queue between the hot path and the writer.
//!
//! A mutex around a vector, not a channel: a push is a few nanoseconds and wakes the writer only for the first row of a
//! batch, so that the hot path makes at most a few system calls a second however many exchanges end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pointsman_core::record::ExchangeRecord;
use tokio::sync::oneshot;

use super::{
    BATCH_ROWS, CooldownRow, HomeRow, JournalPart, LOG_TARGET, MAX_HOMES, StoreError, StoreStats, batch_delay,
};

/// Told when what was waited for is written, or why it is not.
pub(super) type FlushReply = oneshot::Sender<Result<(), StoreError>>;

/// An exchange to be written. Under the lock a push moves two pointers, not the 400 bytes of a record.
pub(super) struct Entry {
    pub(super) exchange: Box<ExchangeRecord>,
    pub(super) journal: Option<Box<JournalPart>>,
}

/// The next work of the writer.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) exchanges: Vec<Entry>,
    pub(super) cooldowns: Option<Vec<CooldownRow>>,
    pub(super) homes: Vec<HomeRow>,
    pub(super) flushes: Vec<FlushReply>,
    /// Nothing comes after this batch.
    pub(super) last: bool,
}

#[derive(Default)]
struct Inbox {
    next: Batch,
    /// Exchanges the writer has taken and not yet written: they count towards the bound.
    taken: usize,
    /// Memory of the exchanges that are not yet written, in bytes, and of those among them that the writer has taken.
    bytes: usize,
    taken_bytes: usize,
    /// Memory of the trails that are not yet written, in bytes, and of those among them that the writer has taken.
    trail_bytes: usize,
    taken_trail_bytes: usize,
    closed: bool,
    /// Number of exchanges lost since a batch was written last, or since the end was requested; and the error.
    loss: Option<(usize, String)>,
    /// The reason why the latest batch is not written yet.
    trouble: Option<String>,
}

impl Inbox {
    fn idle(&self) -> bool {
        self.next.exchanges.is_empty()
            && self.next.cooldowns.is_none()
            && self.next.homes.is_empty()
            && self.next.flushes.is_empty()
            && !self.closed
    }

    /// Marks the taken batch as done.
    fn settle(&mut self) {
        self.taken = 0;
        self.bytes -= std::mem::take(&mut self.taken_bytes);
        self.trail_bytes -= std::mem::take(&mut self.taken_trail_bytes);
    }

    fn urgent(&self) -> bool {
        self.closed || !self.next.flushes.is_empty() || self.next.exchanges.len() >= BATCH_ROWS
    }
}

/// The queue; its bounds are in exchanges, and in bytes of them and of trails.
pub(super) struct Queue {
    bound: usize,
    bound_bytes: usize,
    trail_bound_bytes: usize,
    inbox: Mutex<Inbox>,
    wake: Condvar,
    written: AtomicU64,
    dropped: AtomicU64,
    trails_written: AtomicU64,
    trails_dropped: AtomicU64,
    failed_batches: AtomicU64,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("bound", &self.bound).field("stats", &self.stats()).finish()
    }
}

impl Queue {
    pub(super) fn new(bound: usize, bound_bytes: usize, trail_bound_bytes: usize) -> Self {
        Self {
            bound,
            bound_bytes,
            trail_bound_bytes,
            inbox: Mutex::default(),
            wake: Condvar::new(),
            written: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            trails_written: AtomicU64::new(0),
            trails_dropped: AtomicU64::new(0),
            failed_batches: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        // Nothing under this lock can panic half-way through a change.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, mut entry: Entry) {
        let trail_bytes = entry.journal.as_ref().map_or(0, |part| part.bytes());
        let bytes = entry.exchange.bytes();
        let mut inbox = self.lock();
        let has_bytes = inbox.bytes + bytes <= self.bound_bytes;
        if inbox.closed || inbox.next.exchanges.len() + inbox.taken >= self.bound || !has_bytes {
            drop(inbox);
            self.trails_dropped.fetch_add(entry.journal.is_some().into(), Ordering::Relaxed);
            self.count_dropped(1, "more exchanges wait to be written than [store] backlog and backlog_mb allow");
            return;
        }
        inbox.bytes += bytes;
        let has_room = inbox.trail_bytes + trail_bytes <= self.trail_bound_bytes;
        let surplus = if has_room { None } else { entry.journal.take() };
        inbox.trail_bytes += if has_room { trail_bytes } else { 0 };
        let was_idle = inbox.idle();
        inbox.next.exchanges.push(entry);
        let wake = was_idle || inbox.next.exchanges.len() == BATCH_ROWS;
        drop(inbox);
        if wake {
            self.wake.notify_one();
        }
        if surplus.is_some() {
            let why = "more of them wait to be written than [journal] backlog_mb allows";
            let total = self.trails_dropped.fetch_add(1, Ordering::Relaxed) + 1;
            if total.is_power_of_two() {
                tracing::error!(target: LOG_TARGET, dropped = total, "exchanges are missing from the journal: {why}");
            }
        }
    }

    pub(super) fn set_cooldowns(&self, rows: Vec<CooldownRow>) {
        self.lock().next.cooldowns = Some(rows);
        self.wake.notify_one();
    }

    pub(super) fn add_homes(&self, rows: impl IntoIterator<Item = HomeRow>) {
        let mut inbox = self.lock();
        let room = MAX_HOMES.saturating_sub(inbox.next.homes.len());
        inbox.next.homes.extend(rows.into_iter().take(room));
        drop(inbox);
        self.wake.notify_one();
    }

    pub(super) fn flush(&self) -> oneshot::Receiver<Result<(), StoreError>> {
        let (reply, receiver) = oneshot::channel();
        let mut inbox = self.lock();
        if !inbox.closed {
            inbox.next.flushes.push(reply);
            drop(inbox);
            self.wake.notify_one();
        }
        receiver
    }

    /// No more rows are taken; the writer ends after the last batch.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// The next batch: waits up to `patience` for its first row (none when there is none by then), then for the batch
    /// to gather.
    pub(super) fn take(&self, patience: Duration) -> Option<Batch> {
        let (mut inbox, _) = self
            .wake
            .wait_timeout_while(self.lock(), patience, |inbox| inbox.idle())
            .unwrap_or_else(PoisonError::into_inner);
        if inbox.idle() {
            return None;
        }
        if !inbox.urgent() {
            (inbox, _) = self
                .wake
                .wait_timeout_while(inbox, batch_delay(), |inbox| !inbox.urgent())
                .unwrap_or_else(PoisonError::into_inner);
        }
        let mut batch = std::mem::take(&mut inbox.next);
        batch.last = inbox.closed;
        inbox.taken = batch.exchanges.len();
        inbox.taken_bytes = inbox.bytes;
        inbox.taken_trail_bytes = inbox.trail_bytes;
        Some(batch)
    }

    /// Waits up to `delay` before a failed batch is tried again, or until someone waits for a flush or the end.
    pub(super) fn pause(&self, delay: Duration) {
        drop(self.wake.wait_timeout_while(self.lock(), delay, |inbox| !inbox.closed && inbox.next.flushes.is_empty()));
    }

    /// Those who began to wait for a flush since the last batch was taken.
    pub(super) fn take_flushes(&self) -> Vec<FlushReply> {
        std::mem::take(&mut self.lock().next.flushes)
    }

    /// Returns true after the end was requested.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// The taken exchanges are written.
    pub(super) fn settle_written(&self, rows: usize, trails: usize) {
        self.written.fetch_add(rows as u64, Ordering::Relaxed);
        self.trails_written.fetch_add(trails as u64, Ordering::Relaxed);
        let mut inbox = self.lock();
        inbox.settle();
        inbox.trouble = None;
        if !inbox.closed {
            inbox.loss = None;
        }
    }

    /// The taken exchanges are lost.
    pub(super) fn settle_lost(&self, rows: usize, trails: usize, reason: String) {
        self.trails_dropped.fetch_add(trails as u64, Ordering::Relaxed);
        if rows > 0 {
            self.count_dropped(rows as u64, &reason);
        }
        let mut inbox = self.lock();
        inbox.settle();
        let before = inbox.loss.take().map_or(0, |(rows, _)| rows);
        inbox.loss = Some((before + rows, reason));
    }

    /// A batch failed for this reason; it is tried again, or lost.
    pub(super) fn count_failed_batch(&self, reason: &str) {
        self.lock().trouble = Some(reason.to_owned());
        self.failed_batches.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts lost rows and tells the log at the first and then at each doubling, so that a flood is a few lines.
    fn count_dropped(&self, rows: u64, why: &str) {
        let before = self.dropped.fetch_add(rows, Ordering::Relaxed);
        let total = before + rows;
        if before == 0 || before.ilog2() < total.ilog2() {
            tracing::error!(target: LOG_TARGET, dropped = total, "exchanges are not recorded: {why}");
        }
    }

    /// Exchanges that wait to be written.
    pub(super) fn len(&self) -> usize {
        let inbox = self.lock();
        inbox.next.exchanges.len() + inbox.taken
    }

    /// The reason why the store cannot be written at present.
    pub(super) fn trouble(&self) -> Option<String> {
        self.lock().trouble.clone()
    }

    /// Says whether the store can be written, where no batch shows it.
    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        self.lock().trouble = trouble;
    }

    /// Returns how many exchanges were lost since a batch was written last, and the error.
    pub(super) fn loss(&self) -> Option<(usize, String)> {
        self.lock().loss.clone()
    }

    pub(super) fn stats(&self) -> StoreStats {
        StoreStats {
            backlog: self.len() as u64,
            written: self.written.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            trails_written: self.trails_written.load(Ordering::Relaxed),
            trails_dropped: self.trails_dropped.load(Ordering::Relaxed),
            failed_batches: self.failed_batches.load(Ordering::Relaxed),
        }
    }
}
