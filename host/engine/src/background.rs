//! The background worker: one low-priority thread on which policies are loaded and freed, so that neither delays requests. An
//! instance gives its memory back to the operating system when it is dropped, and that takes longer than a decision.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::code::Code;
use super::instance::Instance;
use super::priority::Priority;

/// Jobs that may wait; callers also take turns among themselves.
const MAX_JOBS: usize = 16;

/// A job for the background worker.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// Parts of a revision that are to be dropped.
pub(crate) enum Garbage {
    /// An instance; there are never more of them than there may be instances.
    Instance(#[expect(dead_code, reason = "it is only there to be dropped")] Instance),
    /// Compiled code, perhaps its last reference.
    Code(#[expect(dead_code, reason = "it is only there to be dropped")] Arc<Code>),
}

/// Owns the thread, which ends after its owner.
pub(crate) struct BackgroundWorker(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    garbage: Vec<Garbage>,
    is_closed: bool,
}

impl BackgroundWorker {
    /// Starts the thread, which gives way to those that serve.
    pub(crate) fn start() -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let theirs = shared.clone();
        thread::Builder::new().name("policy-backgrnd".to_owned()).spawn(move || theirs.run())?;
        Ok(Self(shared))
    }

    /// Queues a job; false when the queue is full.
    pub(crate) fn submit(&self, job: Job) -> bool {
        let mut queue = self.0.queue();
        let has_room = queue.jobs.len() < MAX_JOBS;
        if has_room {
            queue.jobs.push_back(job);
            self.0.changed.notify_one();
        }
        has_room
    }

    /// Drops these on the worker thread.
    pub(crate) fn defer_drop(&self, garbage: impl IntoIterator<Item = Garbage>) {
        // Collected first: the iterator takes locks of its own.
        let garbage: Vec<_> = garbage.into_iter().collect();
        if !garbage.is_empty() {
            self.0.queue().garbage.extend(garbage);
            self.0.changed.notify_one();
        }
    }

    /// Drops at once, on the calling thread, the garbage that waits, to make room; false when there was none.
    pub(crate) fn drop_garbage_now(&self) -> bool {
        let garbage = std::mem::take(&mut self.0.queue().garbage);
        !garbage.is_empty()
    }
}

/// Offers the processor to other threads between two short pieces of work: the kernel lets even a low-priority thread go on for
/// a millisecond otherwise.
pub(crate) fn yield_now() {
    thread::yield_now();
}

impl Drop for BackgroundWorker {
    fn drop(&mut self) {
        // Not awaited: a job may be the last owner, and one that compiles may take minutes.
        self.0.queue().is_closed = true;
        self.0.changed.notify_one();
    }
}

impl Shared {
    fn run(&self) {
        // Not the lowest: on a machine that is busy throughout, a swap would take minutes.
        Priority::Low.take();
        while let Some((job, garbage)) = self.next() {
            if let Some(job) = job {
                // A panic was reported when it happened, and the caller sees its channel closed.
                let _ = catch_unwind(AssertUnwindSafe(job));
                yield_now();
            }
            if garbage.is_some() {
                drop(garbage);
                yield_now();
            }
        }
    }

    /// The next job and the next piece of garbage, one of each at most: the rest stays where [`BackgroundWorker::drop_garbage_now`]
    /// finds it. None: the worker is closed.
    fn next(&self) -> Option<(Option<Job>, Option<Garbage>)> {
        let mut queue = self.queue();
        loop {
            let (job, garbage) = (queue.jobs.pop_front(), queue.garbage.pop());
            if job.is_some() || garbage.is_some() {
                return Some((job, garbage));
            }
            if queue.is_closed {
                return None;
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whole after every step, so a panic elsewhere does not spoil it.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const GENEROUS: Duration = Duration::from_secs(20);

    #[test]
    fn jobs_are_done_one_after_another_also_after_one_that_panics() {
        let worker = BackgroundWorker::start().unwrap();
        let (did, done) = mpsc::channel();
        assert!(worker.submit(Box::new(|| panic!("a test"))));
        for n in 0..5 {
            let did = did.clone();
            assert!(worker.submit(Box::new(move || did.send(n).unwrap())));
        }
        let order: Vec<i32> = (0..5).map(|_| done.recv_timeout(GENEROUS).unwrap()).collect();
        assert_eq!(order, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn no_more_is_taken_on_than_there_is_room_for() {
        let worker = BackgroundWorker::start().unwrap();
        let ((go, goes), (began, begins)) = (mpsc::channel::<()>(), mpsc::channel());
        worker.submit(Box::new(move || {
            began.send(()).unwrap();
            let _ = goes.recv();
        }));
        begins.recv_timeout(GENEROUS).unwrap();
        assert!((0..MAX_JOBS).all(|_| worker.submit(Box::new(|| {}))));
        assert!(!worker.submit(Box::new(|| {})));
        drop(go);
    }

    #[test]
    fn what_was_taken_on_is_done_also_when_the_owner_has_gone() {
        let worker = BackgroundWorker::start().unwrap();
        let (did, done) = mpsc::channel();
        worker.submit(Box::new(move || did.send(()).unwrap()));
        drop(worker);
        done.recv_timeout(GENEROUS).unwrap();
    }
}
