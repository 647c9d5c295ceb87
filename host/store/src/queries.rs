//! Questions that a running server asks its own record: answered by a few threads with connections of their own, in the order
//! in which they were asked, bounded in number and time. Nobody else waits for them: neither the writer nor the runtime.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use pointsman_core::time::Timestamp;
use rusqlite::ErrorCode;
use tokio::sync::oneshot;

use super::{Clock, QUERY_TIMEOUT_MS, Shared, StoreError, StorePath, StoreReader};

/// Threads that answer questions, each with a connection of its own.
pub const QUERY_THREADS: usize = 2;
/// Questions that may wait for a thread; more are refused.
pub const QUERIES_WAITING_MAX: usize = 32;
/// Steps of SQLite's machine between two looks at whether the question is still to be answered; well below a millisecond.
const STEPS: i32 = 10_000;

/// Asks the store; cheap to clone.
#[derive(Clone)]
pub struct Queries(Arc<Inbox>);

struct Inbox {
    state: Mutex<State>,
    wake: Condvar,
    /// True after the end was requested: what runs is interrupted.
    is_closed: AtomicBool,
    clock: Clock,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Question>,
}

struct Question {
    answer: Box<dyn FnOnce(&StoreReader) + Send>,
    /// True after whoever asked has gone.
    is_abandoned: Arc<AtomicBool>,
}

/// Marks the question as abandoned when it is dropped.
struct Asker(Arc<AtomicBool>);

impl Drop for Asker {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl fmt::Debug for Queries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queries").field("waiting", &self.0.lock().waiting.len()).finish_non_exhaustive()
    }
}

impl Queries {
    /// Asks, and waits for the answer. A question whose future is dropped is not answered, or interrupted.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when [`QUERIES_WAITING_MAX`] questions wait already, [`StoreError::TooLong`] after
    /// [`QUERY_TIMEOUT_MS`], and when SQLite fails.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&StoreReader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let asker = Asker(Arc::default());
        self.push(Question {
            // The asker may have gone meanwhile.
            answer: Box::new(move |reader| drop(reply.send(question(reader)))),
            is_abandoned: Arc::clone(&asker.0),
        })?;
        match answer.await {
            Ok(Err(StoreError::Sql(error))) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                Err(if self.0.is_closed() { StoreError::Closed } else { StoreError::TooLong })
            }
            Ok(answer) => answer,
            Err(_never_answered) => Err(StoreError::Closed),
        }
    }

    fn push(&self, question: Question) -> Result<(), StoreError> {
        let mut state = self.0.lock();
        if self.0.is_closed() {
            return Err(StoreError::Closed);
        }
        state.waiting.retain(|question| !question.is_abandoned.load(Ordering::Relaxed));
        if state.waiting.len() >= QUERIES_WAITING_MAX {
            return Err(StoreError::Busy);
        }
        state.waiting.push_back(question);
        drop(state);
        self.0.wake.notify_one();
        Ok(())
    }
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Waits for the next question; none after the end.
    fn next(&self) -> Option<Question> {
        let idle = |state: &mut State| state.waiting.is_empty() && !self.is_closed();
        let mut state = self.wake.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        if self.is_closed() { None } else { state.waiting.pop_front() }
    }
}

/// The threads; they end when this is dropped.
pub(super) struct QueryThreads {
    inbox: Arc<Inbox>,
    threads: Vec<JoinHandle<()>>,
}

impl fmt::Debug for QueryThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryThreads").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

impl QueryThreads {
    /// Starts a thread for each of these connections. A store in memory has one for all: one thread takes turns with the writer,
    /// and its questions are not interrupted.
    pub(super) fn start(path: &StorePath, connections: Vec<Shared>, clock: Clock) -> Result<Self, StoreError> {
        let inbox =
            Arc::new(Inbox { state: Mutex::default(), wake: Condvar::new(), is_closed: AtomicBool::new(false), clock });
        let mut started = Self { inbox, threads: Vec::new() };
        let can_interrupt = matches!(path, StorePath::File(_));
        for connection in connections {
            let inbox = Arc::clone(&started.inbox);
            let thread = std::thread::Builder::new().name("store-query".to_owned());
            let run = move || {
                while let Some(question) = inbox.next() {
                    answer(&inbox, &connection, question, can_interrupt);
                }
            };
            started.threads.push(thread.spawn(run).map_err(StoreError::Thread)?);
        }
        Ok(started)
    }

    pub(super) fn queries(&self) -> Queries {
        Queries(Arc::clone(&self.inbox))
    }
}

fn answer(inbox: &Arc<Inbox>, connection: &Shared, question: Question, can_interrupt: bool) {
    if question.is_abandoned.load(Ordering::Relaxed) {
        return;
    }
    if can_interrupt {
        let until: Timestamp = (inbox.clock)() + Duration::from_millis(QUERY_TIMEOUT_MS);
        let (inbox, is_abandoned) = (Arc::clone(inbox), Arc::clone(&question.is_abandoned));
        let is_over = move || is_abandoned.load(Ordering::Relaxed) || inbox.is_closed() || (inbox.clock)() >= until;
        if let Err(error) = connection.lock().progress_handler(STEPS, Some(is_over)) {
            tracing::warn!(target: super::LOG_TARGET, "a question to the store cannot be given a time limit: {error}");
        }
    }
    // Whoever asked learns of a panic by the reply that never comes; the thread goes on.
    let answered = catch_unwind(AssertUnwindSafe(|| (question.answer)(&StoreReader::new(connection.clone()))));
    if answered.is_err() {
        tracing::error!(target: super::LOG_TARGET, "reading the store panicked");
    }
}

impl Drop for QueryThreads {
    fn drop(&mut self) {
        self.inbox.is_closed.store(true, Ordering::Relaxed);
        // Under the lock, so that no thread misses it between its look and its sleep.
        self.inbox.lock().waiting.clear();
        self.inbox.wake.notify_all();
        for thread in self.threads.drain(..) {
            // A panic was logged where it happened.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::tests::{T0_MS, fixed, unlimited};
    use crate::{Group, Store};

    /// Never ends by itself.
    const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

    fn on_disk(clock: Clock) -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(StorePath::File(folder.path().join("s.db")), unlimited(), clock).unwrap();
        (folder, store)
    }

    fn endless(reader: &StoreReader) -> Result<i64, StoreError> {
        Ok(reader.connection().query_row(ENDLESS, [], |row| row.get(0))?)
    }

    fn usage(reader: &StoreReader) -> Result<usize, StoreError> {
        Ok(reader.usage(Timestamp::default(), Group::Day)?.len())
    }

    #[tokio::test]
    async fn a_question_whose_asker_left_is_interrupted() {
        let (_folder, store) = on_disk(fixed(T0_MS));
        let queries = store.queries();
        for _ in 0..3 * QUERY_THREADS {
            let (began, has_begun) = oneshot::channel();
            let question = queries.ask(move |reader| {
                began.send(()).unwrap();
                endless(reader)
            });
            tokio::select! {
                answer = question => panic!("it never ends: {answer:?}"),
                begun = has_begun => begun.unwrap(),
            }
        }
        assert_eq!(queries.ask(usage).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_question_ends_at_its_time_limit() {
        let ticks = std::sync::atomic::AtomicU64::new(T0_MS);
        let (_folder, store) =
            on_disk(Arc::new(move || Timestamp::from_millis(ticks.fetch_add(QUERY_TIMEOUT_MS / 4, Ordering::Relaxed))));
        let ended = store.queries().ask(endless).await;
        assert!(matches!(ended, Err(StoreError::TooLong)), "{ended:?}");
    }

    #[tokio::test]
    async fn more_than_may_wait_are_refused_and_abandoned_ones_make_room() {
        let (_folder, store) = on_disk(fixed(T0_MS));
        let queries = store.queries();
        let (release, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let held = || {
            let gate = Arc::clone(&gate);
            let queries = queries.clone();
            tokio::spawn(async move { queries.ask(move |_| Ok(gate.lock().unwrap().recv().is_ok())).await })
        };
        let wait_for = async |waiting: usize| {
            while queries.0.lock().waiting.len() != waiting {
                tokio::task::yield_now().await;
            }
        };
        let mut all: Vec<_> = Vec::new();
        for _ in 0..QUERY_THREADS {
            all.push(held());
            tokio::task::yield_now().await;
            // A thread has taken it.
            wait_for(0).await;
        }
        for waiting in 1..=QUERIES_WAITING_MAX {
            all.push(held());
            wait_for(waiting).await;
        }
        assert!(matches!(queries.ask(usage).await, Err(StoreError::Busy)));
        let gone = all.pop().unwrap();
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        let fits = tokio::spawn({
            let queries = queries.clone();
            async move { queries.ask(usage).await }
        });
        for _ in &all {
            release.send(()).unwrap();
        }
        for one in all {
            assert!(one.await.unwrap().unwrap());
        }
        assert_eq!(fits.await.unwrap().unwrap(), 0);
    }

    #[tokio::test]
    async fn closing_the_store_ends_what_runs() {
        let (_folder, store) = on_disk(fixed(T0_MS));
        let queries = store.queries();
        let (began, has_begun) = oneshot::channel();
        let asked = tokio::spawn({
            let queries = queries.clone();
            async move {
                let question = queries.ask(move |reader| {
                    began.send(()).unwrap();
                    endless(reader)
                });
                question.await
            }
        });
        has_begun.await.unwrap();
        store.close().unwrap();
        assert!(matches!(asked.await.unwrap(), Err(StoreError::Closed)));
        assert!(matches!(queries.ask(usage).await, Err(StoreError::Closed)));
    }

    #[tokio::test]
    async fn a_panic_costs_one_answer() {
        let (_folder, store) = on_disk(fixed(T0_MS));
        for _ in 0..=QUERY_THREADS {
            let panicked =
                store.queries().ask(|_| -> Result<(), StoreError> { panic!("a fault of the question") }).await;
            assert!(matches!(panicked, Err(StoreError::Closed)));
        }
        assert_eq!(store.queries().ask(usage).await.unwrap(), 0);
    }
}
