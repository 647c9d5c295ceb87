//! The fleet behind a lock, with the wakers and the timer of its queue.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pointsman_core::fleet::{Fleet, Permit, Ticket};
use pointsman_core::time::Timestamp;
use pointsman_engine::clock::Clock;
use tokio::sync::Notify;

/// Interval of looking for changes of state that were left out at first.
const CHANGES_EVERY: Duration = Duration::from_secs(5);

/// The fleet, shared between tasks. The queue is served before the lock is released, whenever capacity may have come back.
pub struct SharedFleet {
    clock: Clock,
    state: Mutex<State>,
    /// The timer has to be set to an earlier time.
    timer: Notify,
    /// A backend's state has changed.
    changed: Notify,
    /// A request has failed that new ones have to be compared with.
    compares_requests: AtomicBool,
}

struct State {
    fleet: Fleet,
    waiters: HashMap<Ticket, Waiter>,
    /// The next time at which the passing of time alone may bring capacity.
    next_check: Option<Timestamp>,
    /// Time that the timer is set to.
    timer_at: Option<Timestamp>,
}

#[derive(Default)]
struct Waiter {
    waker: Option<Waker>,
    permit: Option<Permit>,
}

impl SharedFleet {
    /// Shares a fleet.
    pub fn new(fleet: Fleet, clock: Clock) -> Self {
        let state = State { fleet, waiters: HashMap::new(), next_check: None, timer_at: None };
        Self {
            clock,
            state: Mutex::new(state),
            timer: Notify::new(),
            changed: Notify::new(),
            compares_requests: AtomicBool::new(false),
        }
    }

    /// Calls `f` with the fleet under the lock. The queue is served before, so that nobody overtakes it, and again after.
    pub fn with<T>(&self, f: impl FnOnce(&mut Fleet, Timestamp) -> T) -> T {
        let now = self.clock.now();
        let mut state = self.lock();
        let mut woken = state.serve(now);
        let result = f(&mut state.fleet, now);
        woken.extend(state.serve(now));
        let sooner = state.next_check.is_some_and(|at| state.timer_at.is_none_or(|set| at < set));
        let has_changes = state.fleet.has_changes();
        self.compares_requests.store(state.fleet.compares_requests(now), Ordering::Relaxed);
        drop(state);
        if has_changes {
            self.changed.notify_one();
        }
        if sooner {
            self.timer.notify_one();
        }
        woken.into_iter().for_each(Waker::wake);
        result
    }

    /// Returns true if requests have failed lately that a new one may be the same as.
    pub fn compares_requests(&self) -> bool {
        self.compares_requests.load(Ordering::Relaxed)
    }

    /// Waits for a permit, at most `max`; `None` when the time is up.
    pub async fn wait(self: &Arc<Self>, ticket: Ticket, max: Duration) -> Option<Permit> {
        let waiting = Waiting::register(self, ticket);
        tokio::time::timeout(max, waiting).await.ok()
    }

    /// Waits until a backend's state may have changed: at most [`CHANGES_EVERY`], because a change reported late is not
    /// announced.
    pub async fn changed(&self) {
        let _ = tokio::time::timeout(CHANGES_EVERY, self.changed.notified()).await;
    }

    /// Serves the queue whenever time alone brings capacity: a cooldown ends, a limit has room. Runs until dropped.
    pub async fn run_timer(self: Arc<Self>) {
        loop {
            let timer_at = {
                let mut state = self.lock();
                state.timer_at = state.next_check;
                state.timer_at
            };
            match timer_at {
                None => self.timer.notified().await,
                Some(at) => {
                    let delay = at.since(self.clock.now());
                    let _ = tokio::time::timeout(delay, self.timer.notified()).await;
                }
            }
            self.with(|_, _| ());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn serve(&mut self, now: Timestamp) -> Vec<Waker> {
        let (served, next_check) = self.fleet.serve_queue(now);
        self.next_check = next_check;
        let mut woken = Vec::new();
        for (ticket, permit) in served {
            // A ticket is registered right after it is drawn; one without a waiter is registered in a moment.
            let waiter = self.waiters.entry(ticket).or_default();
            waiter.permit = Some(permit);
            woken.extend(waiter.waker.take());
        }
        woken
    }
}

/// A waiter in the queue, as a future. Dropped, it leaves the queue and gives back its permit.
struct Waiting {
    fleet: Arc<SharedFleet>,
    ticket: Ticket,
}

impl Waiting {
    fn register(fleet: &Arc<SharedFleet>, ticket: Ticket) -> Self {
        fleet.lock().waiters.entry(ticket).or_default();
        Self { fleet: fleet.clone(), ticket }
    }
}

impl Future for Waiting {
    type Output = Permit;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        let mut state = self.fleet.lock();
        let waiter = state.waiters.entry(self.ticket).or_default();
        match waiter.permit.take() {
            Some(permit) => Poll::Ready(permit),
            None => {
                waiter.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let unused = {
            let mut state = self.fleet.lock();
            state.fleet.leave(self.ticket);
            state.waiters.remove(&self.ticket).and_then(|waiter| waiter.permit)
        };
        if let Some(permit) = unused {
            self.fleet.with(|fleet, _| fleet.refund(permit));
        }
    }
}

#[cfg(test)]
mod tests {

    use pointsman_core::contract::Operation;
    use pointsman_core::fleet::{AttemptReport, Settings};
    use pointsman_core::outcome::{Kind, Outcome};
    use pointsman_core::table::{Backend, Lane, Limits, Table};
    use pointsman_core::view::{View, Want};

    use super::*;

    fn one_slot() -> (Arc<SharedFleet>, Arc<View>, Want) {
        let backend = Backend { limits: Limits { max_concurrency: Some(1), ..Limits::default() }, ..Backend::new("a") };
        let mut fleet = Fleet::new(Settings::default(), 1);
        let view = fleet.adopt(Arc::new(Table::new(vec![backend], Vec::new())), Settings::default());
        let want = view.want(&"m".into(), Operation::Chat, 1);
        (Arc::new(SharedFleet::new(fleet, Clock::start())), view, want)
    }

    fn take(fleet: &SharedFleet, view: &View, want: &Want) -> Permit {
        fleet.with(|f, now| f.acquire(now, view, want, Lane::Primary, None)).expect("the slot is free")
    }

    fn settle(fleet: &SharedFleet, permit: Permit, kind: Kind, retry_after_ms: u64) {
        let retry_after = Some(Duration::from_millis(retry_after_ms)).filter(|d| !d.is_zero());
        let outcome = Outcome { retry_after, ..Outcome::new(kind, "") };
        fleet.with(|f, now| {
            f.settle(now, permit, AttemptReport { outcome: &outcome, first_token: None, tokens_used: None })
        });
    }

    #[tokio::test]
    async fn a_returned_permit_wakes_the_first_in_line() {
        let (fleet, view, want) = one_slot();
        let held = take(&fleet, &view, &want);
        let ticket = fleet.with(|f, _| f.join(&view, &want, Lane::Primary)).expect("there is room");
        let waiting = tokio::spawn({
            let fleet = fleet.clone();
            async move { fleet.wait(ticket, Duration::from_secs(10)).await }
        });
        tokio::task::yield_now().await;
        settle(&fleet, held, Kind::Answered, 0);
        let permit = waiting.await.expect("no panic").expect("granted");
        fleet.with(|f, _| f.refund(permit));
    }

    #[tokio::test]
    async fn the_timer_wakes_the_line_when_a_cooldown_ends() {
        let (fleet, view, want) = one_slot();
        let timer = tokio::spawn(fleet.clone().run_timer());
        let held = take(&fleet, &view, &want);
        settle(&fleet, held, Kind::RateLimited, 250);
        let before = fleet.with(|_, now| now);
        let ticket = fleet.with(|f, _| f.join(&view, &want, Lane::Primary)).expect("there is room");
        let permit = fleet.wait(ticket, Duration::from_secs(10)).await.expect("granted");
        let waited = fleet.with(|_, now| now).since(before);
        assert!(waited >= Duration::from_millis(240) && waited < Duration::from_secs(5), "{waited:?}");
        fleet.with(|f, _| f.refund(permit));
        timer.abort();
    }

    #[tokio::test]
    async fn who_leaves_after_being_served_gives_the_permit_back() {
        let (fleet, view, want) = one_slot();
        let held = take(&fleet, &view, &want);
        let ticket = fleet.with(|f, _| f.join(&view, &want, Lane::Primary)).expect("there is room");
        let waiting = Waiting::register(&fleet, ticket);
        settle(&fleet, held, Kind::Answered, 0);
        drop(waiting);
        assert_eq!(fleet.with(|f, now| f.overview(now, &view)[0].in_flight), 0);
        assert!(fleet.lock().waiters.is_empty());
    }
}
