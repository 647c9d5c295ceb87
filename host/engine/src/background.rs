//! The workshop: the one thread on which policies are judged and taken apart, so that neither holds up those who are
//! served. An instance gives its memory back to the operating system when it is dropped, and that takes longer than a
//! decision.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::engine::Code;
use super::instance::Instance;
use super::priority::Priority;

/// Jobs that may wait; those who give them also take turns among themselves.
const MAX_JOBS: usize = 16;

/// What is to be done.
pub(super) type Job = Box<dyn FnOnce() + Send>;

/// What is left of a revision.
pub(super) enum Scrap {
    /// Memory; there are never more of them than there may be instances.
    Instance(#[expect(dead_code, reason = "it is only there to be dropped")] Instance),
    /// Compiled code, perhaps the last of it.
    Code(#[expect(dead_code, reason = "it is only there to be dropped")] Arc<Code>),
}

/// Owns the thread, which ends after its owner.
pub(super) struct Workshop(Arc<Shared>);

#[derive(Default)]
struct Shared {
    bench: Mutex<Bench>,
    changed: Condvar,
}

#[derive(Default)]
struct Bench {
    jobs: VecDeque<Job>,
    scrap: Vec<Scrap>,
    is_closed: bool,
}

impl Workshop {
    /// Starts the thread.
    pub(super) fn start() -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let theirs = shared.clone();
        thread::Builder::new().name("policy-workshop".to_owned()).spawn(move || theirs.run())?;
        Ok(Self(shared))
    }

    /// Does this next, after what waits already; false when too much does.
    pub(super) fn take_on(&self, job: Job) -> bool {
        let mut bench = self.0.bench();
        let has_room = bench.jobs.len() < MAX_JOBS;
        if has_room {
            bench.jobs.push_back(job);
            self.0.changed.notify_one();
        }
        has_room
    }

    /// Frees these when there is time.
    pub(super) fn take_apart(&self, scrap: impl IntoIterator<Item = Scrap>) {
        // Taken out of their pool before the lock is taken here.
        let scrap: Vec<_> = scrap.into_iter().collect();
        if !scrap.is_empty() {
            self.0.bench().scrap.extend(scrap);
            self.0.changed.notify_one();
        }
    }

    /// Frees at once what waits to be freed, because somebody needs the room; false when there was nothing.
    pub(super) fn clear(&self) -> bool {
        let scrap = std::mem::take(&mut self.0.bench().scrap);
        !scrap.is_empty()
    }
}

/// Between two pieces of work of a moment each: the kernel lets even the least important thread go on for a millisecond
/// before others get the processor, unless it offers to stop.
pub(super) fn breathe() {
    thread::yield_now();
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // Not awaited: a job may be the last owner, and one that compiles may take minutes.
        self.0.bench().is_closed = true;
        self.0.changed.notify_one();
    }
}

impl Shared {
    fn run(&self) {
        // Not the lowest: on a machine that is busy throughout, a swap would take minutes.
        Priority::Low.take();
        while let Some((job, scrap)) = self.next() {
            if let Some(job) = job {
                // A panic was reported when it happened, and whoever waits for the job learns that it is gone.
                let _ = catch_unwind(AssertUnwindSafe(job));
                breathe();
            }
            if scrap.is_some() {
                drop(scrap);
                breathe();
            }
        }
    }

    /// What there is to do, no more than one of each at a time: what still lies here can be freed by who needs the room.
    /// None: there is nothing, and nothing will come.
    fn next(&self) -> Option<(Option<Job>, Option<Scrap>)> {
        let mut bench = self.bench();
        loop {
            let (job, scrap) = (bench.jobs.pop_front(), bench.scrap.pop());
            if job.is_some() || scrap.is_some() {
                return Some((job, scrap));
            }
            if bench.is_closed {
                return None;
            }
            bench = self.changed.wait(bench).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whole after every step, so a panic elsewhere does not spoil it.
    fn bench(&self) -> MutexGuard<'_, Bench> {
        self.bench.lock().unwrap_or_else(PoisonError::into_inner)
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
        let workshop = Workshop::start().unwrap();
        let (did, done) = mpsc::channel();
        assert!(workshop.take_on(Box::new(|| panic!("as it happens"))));
        for n in 0..5 {
            let did = did.clone();
            assert!(workshop.take_on(Box::new(move || did.send(n).unwrap())));
        }
        let order: Vec<i32> = (0..5).map(|_| done.recv_timeout(GENEROUS).unwrap()).collect();
        assert_eq!(order, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn no_more_is_taken_on_than_there_is_room_for() {
        let workshop = Workshop::start().unwrap();
        let ((go, goes), (began, begins)) = (mpsc::channel::<()>(), mpsc::channel());
        workshop.take_on(Box::new(move || {
            began.send(()).unwrap();
            let _ = goes.recv();
        }));
        begins.recv_timeout(GENEROUS).unwrap();
        assert!((0..MAX_JOBS).all(|_| workshop.take_on(Box::new(|| {}))));
        assert!(!workshop.take_on(Box::new(|| {})));
        drop(go);
    }

    #[test]
    fn what_was_taken_on_is_done_also_when_the_owner_has_gone() {
        let workshop = Workshop::start().unwrap();
        let (did, done) = mpsc::channel();
        workshop.take_on(Box::new(move || did.send(()).unwrap()));
        drop(workshop);
        done.recv_timeout(GENEROUS).unwrap();
    }
}
