//! Responses that were begun in the background, shared by all exchanges.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pointsman_core::affinity::{BackgroundResponse, BackgroundResponses, response_in_path};
use pointsman_core::contract::Operation;
use pointsman_core::record::Usage;

use super::request::ProxyRequest;

/// The responses whose usage is not yet known, behind a lock.
#[derive(Debug, Default)]
pub struct SharedBackground(Mutex<BackgroundResponses>);

impl SharedBackground {
    /// The response that a request asks for, if its usage is not yet known.
    pub fn asked_for(&self, request: &ProxyRequest) -> Option<BackgroundResponse> {
        if request.operation != Operation::Stored {
            return None;
        }
        self.lock().get(response_in_path(request.own_path())?).cloned()
    }

    /// Remembers a response that was begun.
    pub(super) fn begun(&self, response: BackgroundResponse) {
        self.lock().insert(response);
    }

    /// Returns the usage of this response that is to be counted; none while it is under way, and once it was counted.
    pub(super) fn settle(&self, asked_for: &BackgroundResponse, told: Usage) -> Usage {
        if told.total() == 0 || told.estimated {
            return Usage::NONE;
        }
        match self.lock().take(asked_for.key) {
            Some(begun) => told.less(&begun.counted),
            None => Usage::NONE,
        }
    }

    fn lock(&self) -> MutexGuard<'_, BackgroundResponses> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
