//! The shadow: another policy that is asked what the policy in force was asked, and whose answers are only compared.
//!
//! What an exchange does for it is to leave a copy of the question in a bounded queue, where there is room. One thread of
//! low priority asks: it has its own instances, its own `state` and its own deadline, and runs for no more than its share
//! of a processor. What does not fit is dropped and counted, never waited for.

mod budget;
mod stats;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use budget::Budget;
use pointsman_core::contract::{Decision, Query};
use pointsman_core::divergence::{Divergence, words};
use pointsman_core::table::Table;
use pointsman_core::time::Timestamp;
use pointsman_engine::clock::Measure;
use pointsman_engine::{FaultKind, Priority, Revision, Said, Texts};

use crate::telemetry::metrics::Metrics;
use pointsman_core::lifecycle::shadow::{ShadowDrop, ShadowResult};

pub use stats::{Divergent, ShadowStats};

/// Questions that may wait for the shadow; further ones are dropped.
const MAX_WAITING: usize = 256;

/// Polling interval of the thread while questions are rare.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// After so many looks at nothing it sleeps until it is woken. So who asks often wakes nobody, which would cost more than
/// all the rest.
const IDLE_LOOKS: u32 = 100;

/// A policy that is asked beside the one in force.
pub struct ShadowPolicy {
    /// The policy, isolated from all others.
    pub revision: Revision,
    /// The share of one processor it may use, above 0 and at most 1.
    pub core_share: f64,
    /// Results of the questions so far.
    pub stats: Arc<ShadowStats>,
}

/// Asks the shadow there is, if any.
pub struct Shadow {
    inner: Arc<Inner>,
}

struct Inner {
    metrics: Metrics,
    /// Set while there is a shadow; the only check on the hot path without one.
    is_on: AtomicBool,
    policy: ArcSwapOption<ShadowPolicy>,
    queue: Mutex<VecDeque<Question>>,
    waiting: AtomicUsize,
    /// Set while its share is used up.
    is_spent: AtomicBool,
    is_asleep: AtomicBool,
    stop: AtomicBool,
    thread: OnceLock<Thread>,
}

/// A question to the policy in force, and its answer.
struct Question {
    policy: Arc<ShadowPolicy>,
    request_id: String,
    query: Query,
    texts: Arc<Texts>,
    decision: Decision,
}

impl Shadow {
    /// No shadow is asked yet.
    pub fn new(metrics: Metrics) -> Self {
        let inner = Inner {
            metrics,
            is_on: AtomicBool::new(false),
            policy: ArcSwapOption::empty(),
            queue: Mutex::default(),
            waiting: AtomicUsize::new(0),
            is_spent: AtomicBool::new(false),
            is_asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            thread: OnceLock::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Asks this one from now on, or none.
    ///
    /// # Errors
    /// When its thread cannot be started; then there is none.
    pub fn install(&self, policy: Option<Arc<ShadowPolicy>>) -> std::io::Result<()> {
        let inner = &self.inner;
        if policy.is_some() && inner.thread.get().is_none() {
            let theirs = inner.clone();
            let handle = thread::Builder::new().name("policy-shadow".to_owned()).spawn(move || theirs.run())?;
            // Only one casts at a time.
            let _ = inner.thread.set(handle.thread().clone());
        }
        inner.is_on.store(policy.is_some(), Ordering::Relaxed);
        inner.policy.store(policy);
        Ok(())
    }

    /// Returns the shadow that is asked; none: there is none.
    pub fn policy(&self) -> Option<Arc<ShadowPolicy>> {
        self.inner.policy.load_full()
    }

    /// A question has been decided; the shadow may hear of it. Never waits.
    #[inline]
    pub fn mirror(&self, table: &Arc<Table>, request_id: &str, query: &Query, texts: &Arc<Texts>, decision: &Decision) {
        if self.inner.is_on.load(Ordering::Relaxed) {
            self.inner.enqueue(table, request_id, query, texts, decision);
        }
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        // Not joined: the last question may take as long as its deadline, and nobody waits for the answer.
        self.inner.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.inner.thread.get() {
            thread.unpark();
        }
    }
}

impl Inner {
    fn enqueue(&self, table: &Arc<Table>, request_id: &str, query: &Query, texts: &Arc<Texts>, decision: &Decision) {
        let Some(policy) = self.policy.load_full() else { return };
        let refusal = if !Arc::ptr_eq(policy.revision.table(), table) {
            Some(ShadowDrop::Table)
        } else if self.is_spent.load(Ordering::Relaxed) {
            Some(ShadowDrop::Share)
        } else if self.waiting.fetch_add(1, Ordering::SeqCst) >= MAX_WAITING {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            Some(ShadowDrop::Queue)
        } else {
            None
        };
        if let Some(why) = refusal {
            return self.dropped(&policy, why);
        }
        let (query, texts, decision) = (query.clone(), texts.clone(), decision.clone());
        self.queue().push_back(Question { policy, request_id: request_id.to_owned(), query, texts, decision });
        // Sequentially consistent on both sides: either the thread sees the question, or we see that it sleeps.
        if self.is_asleep.load(Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    fn dropped(&self, policy: &ShadowPolicy, why: ShadowDrop) {
        policy.stats.dropped(why);
        self.metrics.shadow_dropped(why);
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Question>> {
        // The list is whole after every step, so a panic elsewhere does not spoil it.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        Priority::Lowest.take();
        let mut idle = 0;
        let mut account: Option<(Arc<ShadowPolicy>, Budget)> = None;
        let (mut seen, mut used) = (Measure::Wall.now(), Measure::Running.now());
        while !self.stop.load(Ordering::SeqCst) {
            let next = self.queue().pop_front();
            match next {
                Some(question) => {
                    idle = 0;
                    self.waiting.fetch_sub(1, Ordering::SeqCst);
                    self.ask(&question);
                    if !account.as_ref().is_some_and(|(policy, _)| Arc::ptr_eq(policy, &question.policy)) {
                        let budget = Budget::new(question.policy.core_share);
                        account = Some((question.policy, budget));
                    }
                }
                None if idle < IDLE_LOOKS => {
                    idle += 1;
                    thread::park_timeout(LOOK_EVERY);
                }
                None => {
                    idle = 0;
                    // What is not asked any more gives up its memory.
                    account.take_if(|(policy, _)| !self.is_installed(policy));
                    self.sleep();
                }
            }
            let (now, ran) = (Measure::Wall.now(), Measure::Running.now());
            if let Some((policy, budget)) = &mut account {
                let more = ran.saturating_sub(used);
                policy.stats.ran_for(more);
                self.metrics.shadow_ran(more);
                if let Some(pause) = budget.settle(now - seen, more) {
                    self.pause(pause);
                }
            }
            (seen, used) = (now, ran);
        }
    }

    fn is_installed(&self, policy: &Arc<ShadowPolicy>) -> bool {
        self.policy.load().as_ref().is_some_and(|cast| Arc::ptr_eq(cast, policy))
    }

    fn ask(&self, question: &Question) {
        let Question { policy, request_id, query, texts, decision } = question;
        let Said { decision: said, notes } = policy.revision.ask_alone(query, texts);
        let table = policy.revision.table();
        let result = match &said {
            Ok(other) => ShadowResult::from(Divergence::between(query, table, decision, other)),
            // A shortage is not its failure.
            Err(fault) if fault.kind == FaultKind::Busy => return self.dropped(policy, ShadowDrop::Busy),
            Err(_) => ShadowResult::Fault,
        };
        if result != ShadowResult::Same {
            policy.stats.keep(Divergent {
                at: Timestamp::from_millis(query.now_ms),
                request_id: request_id.clone(),
                model: texts.model.clone(),
                result,
                live: words(decision, table),
                shadow: said.map_or_else(|fault| fault.to_string(), |other| words(&other, table)),
                notes,
            });
        }
        // The count comes last: who sees it finds all that belongs to it.
        self.metrics.shadow_asked(result);
        policy.stats.count(result);
    }

    /// It has run for longer than it may: what waits is dropped, and nothing is taken meanwhile.
    fn pause(&self, pause: Duration) {
        self.is_spent.store(true, Ordering::Relaxed);
        let waiting: Vec<Question> = self.queue().drain(..).collect();
        self.waiting.fetch_sub(waiting.len(), Ordering::SeqCst);
        waiting.iter().for_each(|question| self.dropped(&question.policy, ShadowDrop::Share));
        drop(waiting);
        let until = Measure::Wall.now() + pause;
        while !self.stop.load(Ordering::SeqCst)
            && let Some(left) = until.checked_sub(Measure::Wall.now()).filter(|left| !left.is_zero())
        {
            thread::park_timeout(left);
        }
        self.is_spent.store(false, Ordering::Relaxed);
    }

    fn sleep(&self) {
        self.is_asleep.store(true, Ordering::SeqCst);
        while self.waiting.load(Ordering::SeqCst) == 0 && !self.stop.load(Ordering::SeqCst) {
            thread::park();
        }
        self.is_asleep.store(false, Ordering::SeqCst);
    }
}
