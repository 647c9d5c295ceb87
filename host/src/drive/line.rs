//! The fleet behind a lock, and the alarm clock of its waiting line.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pointsman_core::fleet::Ticket;
use pointsman_core::fleet::{Fleet, Permit};
use pointsman_core::time::Timestamp;
use pointsman_engine::clock::Clock;
use tokio::sync::Notify;

/// How often changes of backends' states are looked for that were left out at first.
const CHANGES_EVERY: Duration = Duration::from_secs(5);

/// The fleet, shared. Whenever somebody may have given capacity back, the line is served before the lock is released.
pub struct Line {
    clock: Clock,
    state: Mutex<State>,
    alarm: Notify,
    /// A backend's state has changed.
    changed: Notify,
}

struct State {
    fleet: Fleet,
    waiting: HashMap<Ticket, Place>,
    /// When time alone may bring capacity.
    look_again: Option<Timestamp>,
    /// What the alarm is set to.
    alarm_at: Option<Timestamp>,
}

#[derive(Default)]
struct Place {
    waker: Option<Waker>,
    permit: Option<Permit>,
}

impl Line {
    /// A line before a fleet.
    pub fn new(fleet: Fleet, clock: Clock) -> Self {
        let state = State { fleet, waiting: HashMap::new(), look_again: None, alarm_at: None };
        Self { clock, state: Mutex::new(state), alarm: Notify::new(), changed: Notify::new() }
    }

    /// Works on the fleet. Waiters are served first, so that nobody overtakes them, and again after.
    pub fn with<T>(&self, f: impl FnOnce(&mut Fleet, Timestamp) -> T) -> T {
        let now = self.clock.now();
        let mut state = self.lock();
        let mut woken = state.serve(now);
        let result = f(&mut state.fleet, now);
        woken.extend(state.serve(now));
        let sooner = state.look_again.is_some_and(|at| state.alarm_at.is_none_or(|set| at < set));
        let has_changes = state.fleet.has_changes();
        drop(state);
        if has_changes {
            self.changed.notify_one();
        }
        if sooner {
            self.alarm.notify_one();
        }
        woken.into_iter().for_each(Waker::wake);
        result
    }

    /// Waits for a grant, at most `max`; none when the time is up.
    pub async fn wait(self: &Arc<Self>, ticket: Ticket, max: Duration) -> Option<Permit> {
        let waiting = Waiting::register(self, ticket);
        tokio::time::timeout(max, waiting).await.ok()
    }

    /// Waits until a backend's state may have changed: at most [`CHANGES_EVERY`], because a change that comes out late is
    /// not announced.
    pub async fn changed(&self) {
        let _ = tokio::time::timeout(CHANGES_EVERY, self.changed.notified()).await;
    }

    /// Serves the line whenever time alone brings capacity: a cooldown ends, a limit has room. Runs until dropped.
    pub async fn keep_time(self: Arc<Self>) {
        loop {
            let alarm_at = {
                let mut state = self.lock();
                state.alarm_at = state.look_again;
                state.alarm_at
            };
            match alarm_at {
                None => self.alarm.notified().await,
                Some(at) => {
                    let delay = at.since(self.clock.now());
                    let _ = tokio::time::timeout(delay, self.alarm.notified()).await;
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
        let (served, look_again) = self.fleet.serve_queue(now);
        self.look_again = look_again;
        let mut woken = Vec::new();
        for (ticket, permit) in served {
            // A ticket is registered right after it is drawn; one without a place is registered in a moment.
            let place = self.waiting.entry(ticket).or_default();
            place.permit = Some(permit);
            woken.extend(place.waker.take());
        }
        woken
    }
}

/// A place in line, as a future. Dropped, it leaves the line and gives back what it was handed.
struct Waiting {
    line: Arc<Line>,
    ticket: Ticket,
}

impl Waiting {
    fn register(line: &Arc<Line>, ticket: Ticket) -> Self {
        line.lock().waiting.entry(ticket).or_default();
        Self { line: line.clone(), ticket }
    }
}

impl Future for Waiting {
    type Output = Permit;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        let mut state = self.line.lock();
        let place = state.waiting.entry(self.ticket).or_default();
        match place.permit.take() {
            Some(permit) => Poll::Ready(permit),
            None => {
                place.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let unused = {
            let mut state = self.line.lock();
            state.fleet.leave(self.ticket);
            state.waiting.remove(&self.ticket).and_then(|place| place.permit)
        };
        if let Some(permit) = unused {
            self.line.with(|fleet, _| fleet.refund(permit));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pointsman_core::contract::Operation;
    use pointsman_core::fleet::{AttemptReport, Settings};
    use pointsman_core::outcome::{Kind, Outcome};
    use pointsman_core::table::{Backend, Dialect, Lane, Limits, Table, Tier, Timeouts};
    use pointsman_core::view::{View, Want};

    use super::*;

    fn one_slot() -> (Arc<Line>, Arc<View>, Want) {
        let backend = Backend {
            id: "a".into(),
            tier: Tier::Primary,
            dialect: Dialect::Openai,
            weight: 1,
            limits: Limits { max_concurrency: Some(1), ..Limits::default() },
            routes: Vec::new(),
            prices: BTreeMap::new(),
            timeouts: Timeouts::default(),
            labels: BTreeMap::new(),
            capabilities: BTreeMap::new(),
        };
        let mut fleet = Fleet::new(Settings::default(), 1);
        let view = fleet.adopt(Arc::new(Table::new(vec![backend], Vec::new())), Settings::default());
        let want = view.want(&"m".into(), Operation::Chat, 1);
        (Arc::new(Line::new(fleet, Clock::start())), view, want)
    }

    fn take(line: &Line, view: &View, want: &Want) -> Permit {
        line.with(|f, now| f.acquire(now, view, want, Lane::Primary, None)).expect("the slot is free")
    }

    fn settle(line: &Line, permit: Permit, kind: Kind, retry_after_ms: u64) {
        let retry_after = Some(Duration::from_millis(retry_after_ms)).filter(|d| !d.is_zero());
        let outcome = Outcome { retry_after, ..Outcome::new(kind, "") };
        line.with(|f, now| {
            f.settle(now, permit, AttemptReport { outcome: &outcome, first_token: None, tokens_used: None })
        });
    }

    #[tokio::test]
    async fn a_returned_permit_wakes_the_first_in_line() {
        let (line, view, want) = one_slot();
        let held = take(&line, &view, &want);
        let ticket = line.with(|f, _| f.join(&view, &want, Lane::Primary)).expect("there is room");
        let waiting = tokio::spawn({
            let line = line.clone();
            async move { line.wait(ticket, Duration::from_secs(10)).await }
        });
        tokio::task::yield_now().await;
        settle(&line, held, Kind::Answered, 0);
        let permit = waiting.await.expect("no panic").expect("granted");
        line.with(|f, _| f.refund(permit));
    }

    #[tokio::test]
    async fn the_alarm_wakes_the_line_when_a_cooldown_ends() {
        let (line, view, want) = one_slot();
        let keeper = tokio::spawn(line.clone().keep_time());
        let held = take(&line, &view, &want);
        settle(&line, held, Kind::RateLimited, 250);
        let before = line.with(|_, now| now);
        let ticket = line.with(|f, _| f.join(&view, &want, Lane::Primary)).expect("there is room");
        let permit = line.wait(ticket, Duration::from_secs(10)).await.expect("granted");
        let waited = line.with(|_, now| now).since(before);
        assert!(waited >= Duration::from_millis(240) && waited < Duration::from_secs(5), "{waited:?}");
        line.with(|f, _| f.refund(permit));
        keeper.abort();
    }

    #[tokio::test]
    async fn who_leaves_after_being_served_gives_the_permit_back() {
        let (line, view, want) = one_slot();
        let held = take(&line, &view, &want);
        let ticket = line.with(|f, _| f.join(&view, &want, Lane::Primary)).expect("there is room");
        let waiting = Waiting::register(&line, ticket);
        settle(&line, held, Kind::Answered, 0);
        drop(waiting);
        assert_eq!(line.with(|f, now| f.overview(now, &view)[0].in_flight), 0);
        assert!(line.lock().waiting.is_empty());
    }
}
