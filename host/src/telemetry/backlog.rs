//! Events that watchers have not read yet: bounded in number and bytes, whoever reads how slowly.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// One event, as watchers receive it.
#[derive(Clone, Debug)]
pub struct Event {
    /// `exchange`, `change`, `promotion` or `backend`.
    pub kind: &'static str,
    /// Its facts, as JSON on one line.
    pub data: Arc<str>,
}

/// Bounds of the events kept for watchers that are slower than they come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Events.
    pub(super) events: usize,
    /// Bytes of them; the newest is kept however long it is.
    pub(super) bytes: usize,
}

/// The latest events.
#[derive(Debug)]
pub(super) struct Backlog {
    bounds: Bounds,
    ring: Mutex<Ring>,
    /// The number of the next event, for those who wait for it.
    next: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Event>,
    bytes: usize,
    /// Number of the first event kept.
    first: u64,
}

/// Reads events from its beginning on.
#[derive(Debug)]
pub struct Watcher {
    backlog: Arc<Backlog>,
    /// Number of the event to be read next.
    next: u64,
    wake: watch::Receiver<u64>,
}

/// A line that a watcher reads.
#[derive(Clone, Debug)]
pub enum Read {
    /// The next event.
    Event(Event),
    /// So many events that it was too slow for.
    Missed(u64),
}

impl Backlog {
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, ring: Mutex::default(), next: watch::Sender::new(0) })
    }

    /// Watchers.
    pub(super) fn watchers(&self) -> usize {
        self.next.receiver_count()
    }

    /// A watcher of what comes from now on.
    pub(super) fn watch(self: &Arc<Self>) -> Watcher {
        let wake = self.next.subscribe();
        let ring = self.ring();
        let next = ring.first + ring.events.len() as u64;
        drop(ring);
        Watcher { backlog: self.clone(), next, wake }
    }

    pub(super) fn push(&self, event: Event) {
        let mut ring = self.ring();
        ring.bytes += event.data.len();
        ring.events.push_back(event);
        while ring.events.len() > 1 && (ring.events.len() > self.bounds.events || ring.bytes > self.bounds.bytes) {
            ring.drop_first();
        }
        self.next.send_replace(ring.first + ring.events.len() as u64);
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn drop_first(&mut self) {
        if let Some(event) = self.events.pop_front() {
            self.bytes -= event.data.len();
            self.first += 1;
        }
    }

    fn clear(&mut self) {
        self.first += self.events.len() as u64;
        self.events.clear();
        self.bytes = 0;
    }

    /// The event of this number, or how many are missed before there is one.
    fn read(&self, next: u64) -> Option<Read> {
        match next.checked_sub(self.first) {
            None => Some(Read::Missed(self.first - next)),
            Some(index) => self.events.get(usize::try_from(index).unwrap_or(usize::MAX)).cloned().map(Read::Event),
        }
    }
}

impl Watcher {
    /// The next event; waits until there is one.
    pub async fn read(&mut self) -> Read {
        loop {
            self.wake.mark_unchanged();
            if let Some(read) = self.try_read() {
                return read;
            }
            if self.wake.changed().await.is_err() {
                // Its sender lives as long as the backlog, which is held here.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The next event, if there is one.
    pub fn try_read(&mut self) -> Option<Read> {
        let read = self.backlog.ring().read(self.next)?;
        self.next += match &read {
            Read::Event(_) => 1,
            Read::Missed(events) => *events,
        };
        Some(read)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if self.backlog.watchers() <= 1 {
            self.backlog.ring().clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(bytes: usize) -> Event {
        Event { kind: "exchange", data: "x".repeat(bytes).into() }
    }

    fn lengths(watcher: &mut Watcher) -> Vec<i64> {
        let read = std::iter::from_fn(|| watcher.try_read());
        let length = |read| match read {
            Read::Event(event) => event.data.len() as i64,
            Read::Missed(events) => -(events as i64),
        };
        read.map(length).collect()
    }

    #[test]
    fn what_a_watcher_is_too_slow_for_is_dropped_by_number_and_bytes_and_told() {
        let backlog = Backlog::new(Bounds { events: 4, bytes: 100 });
        let (mut quick, mut slow) = (backlog.watch(), backlog.watch());
        for bytes in [1, 2, 3] {
            backlog.push(event(bytes));
        }
        assert_eq!(lengths(&mut quick), [1, 2, 3]);
        for bytes in [4, 5, 6] {
            backlog.push(event(bytes));
        }
        assert_eq!(lengths(&mut quick), [4, 5, 6]);
        assert_eq!(lengths(&mut slow), [-2, 3, 4, 5, 6], "by number");
        backlog.push(event(60));
        backlog.push(event(70));
        assert_eq!(lengths(&mut slow), [-1, 70], "by bytes");
        backlog.push(event(5_000));
        assert_eq!(backlog.ring().events.len(), 1);
        assert_eq!((lengths(&mut quick), lengths(&mut slow)), (vec![-2, 5_000], vec![5_000]), "the newest is kept");
        drop((quick, slow));
        assert_eq!((backlog.ring().events.len(), backlog.watchers()), (0, 0), "nobody reads them any more");
        assert!(lengths(&mut backlog.watch()).is_empty(), "what was before is not read");
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let backlog = Backlog::new(Bounds { events: 4, bytes: 100 });
        let mut watcher = backlog.watch();
        let waiting = tokio::spawn(async move { watcher.read().await });
        while !waiting.is_finished() {
            backlog.push(event(7));
            tokio::task::yield_now().await;
        }
        assert!(matches!(waiting.await.unwrap(), Read::Event(event) if event.data.len() == 7));
    }
}
