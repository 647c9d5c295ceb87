//! Requests that were just found exhausted, shared between tasks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pointsman_core::exhaustion::{RecentlyExhausted, Repeated, Repetition};
use pointsman_core::time::Timestamp;

use super::request::ProxyRequest;

/// [`RecentlyExhausted`] behind a lock that nobody takes while nothing is exhausted.
#[derive(Default)]
pub struct ExhaustedRequests {
    any: AtomicBool,
    recent: Mutex<RecentlyExhausted>,
}

impl ExhaustedRequests {
    /// Counts a request that was found exhausted before, and says what it may do.
    pub fn asked(&self, now: Timestamp, request: &ProxyRequest) -> Option<Repetition> {
        self.any.load(Ordering::Acquire).then(|| self.lock().asked(now, repeated(request))).flatten()
    }

    /// A request was found exhausted after so many tries; nobody can have recovered before `until`.
    pub fn insert(&self, now: Timestamp, request: &ProxyRequest, until: Timestamp, tries: u32) {
        self.lock().insert(now, repeated(request), until, tries);
        self.any.store(true, Ordering::Release);
    }

    /// A request was answered.
    pub fn remove(&self, now: Timestamp, request: &ProxyRequest) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let mut recent = self.lock();
        recent.remove(now, repeated(request));
        recent.forget(now);
        self.any.store(!recent.is_empty(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, RecentlyExhausted> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn repeated(request: &ProxyRequest) -> Repeated<'_> {
    Repeated {
        client: request.client.as_deref(),
        model: &request.model,
        target: request.target.as_str(),
        body: &request.body,
    }
}
