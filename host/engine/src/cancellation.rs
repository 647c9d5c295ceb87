//! Compilations that nobody wants any more.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Ends one compilation, before or while it is under way. Its clones are the same.
#[derive(Clone, Default)]
pub struct Cancellation(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    is_cancelled: bool,
    action: Option<Box<dyn FnOnce() + Send>>,
}

impl Cancellation {
    /// The compilation ends with [`LoadError::Cancelled`](super::LoadError::Cancelled), also where it begins later.
    pub fn cancel(&self) {
        let action = {
            let mut state = self.state();
            state.is_cancelled = true;
            state.action.take()
        };
        action.into_iter().for_each(|act| act());
    }

    /// True once it is cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.state().is_cancelled
    }

    /// Acts when it is cancelled, at once where it is; in the place of what was to be done before.
    pub(super) fn when_cancelled(&self, act: impl FnOnce() + Send + 'static) {
        let mut state = self.state();
        if state.is_cancelled {
            drop(state);
            act();
        } else {
            state.action = Some(Box::new(act));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change under this lock is an assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Cancellation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cancellation").field(&self.is_cancelled()).finish()
    }
}
