//! Questions that a used instance answered are asked again of fresh instances, on threads of their own.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use indexmap::IndexMap;
use pointsman_engine::{Heard, LoadError, Texts};
use pointsman_store::Journaled;

use super::compare::same_again;
use super::summary::{Difference, Forgetful, QuestionRef, Said};
use super::targets::{Desks, ReplayTarget};

/// Exchanges that may wait for one thread.
const AHEAD: usize = 64;

/// An exchange that was asked.
pub(super) struct Asked {
    /// Number of the exchange in the order of the journal.
    pub number: u64,
    /// Configuration that it was asked in.
    pub desk: ReplayTarget,
    /// The recorded exchange whose questions are asked.
    pub journaled: Arc<Journaled>,
    pub texts: Arc<Texts>,
    /// Answers of the used instance to the first questions.
    pub heard: Vec<Heard>,
}

/// Findings by the name of the revision.
pub(super) type Found = IndexMap<Arc<str>, Forgetful>;

pub(super) struct Threads<'scope> {
    threads: Vec<Asker<'scope>>,
    next: usize,
}

/// One of them, and what it is given.
struct Asker<'scope> {
    asked: SyncSender<Asked>,
    found: ScopedJoinHandle<'scope, Result<Found, LoadError>>,
}

impl<'scope> Threads<'scope> {
    /// Starts this number of threads in the scope.
    pub(super) fn start(scope: &'scope Scope<'scope, '_>, number: usize) -> Self {
        let thread = |_| {
            let (sender, asked) = sync_channel(AHEAD);
            Asker { asked: sender, found: scope.spawn(move || ask_all(&asked)) }
        };
        Self { threads: (0..number.max(1)).map(thread).collect(), next: 0 }
    }

    /// Returns the number of exchanges.
    pub(super) fn number(&self) -> usize {
        self.threads.len()
    }

    /// Hands an exchange over. Waits while they have too much to do; breaks off when one of them has failed.
    pub(super) fn ask(&mut self, asked: Asked) -> ControlFlow<()> {
        self.next = (self.next + 1) % self.threads.len();
        match self.threads[self.next].asked.send(asked) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    /// Returns the joined findings of all threads.
    ///
    /// # Errors
    /// A component did not start here that started elsewhere.
    pub(super) fn finish(self) -> Result<Found, LoadError> {
        let mut all = Found::new();
        // All of them are told that nothing more comes, before one is waited for.
        let (senders, handles): (Vec<_>, Vec<_>) = self.threads.into_iter().map(|a| (a.asked, a.found)).unzip();
        drop(senders);
        for handle in handles {
            // A panic in there is one of ours.
            let found = handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            for (revision, forgetful) in found {
                all.entry(revision).or_default().join(forgetful);
            }
        }
        Ok(all)
    }
}

fn ask_all(asked: &Receiver<Asked>) -> Result<Found, LoadError> {
    let mut desks = Desks::default();
    let mut found = Found::new();
    for asked in asked {
        let replayer = desks.at(&asked.desk)?;
        let forgetful = found.entry(asked.desk.compiled.id().clone()).or_default();
        let Journaled { exchange, trail, setup, .. } = &*asked.journaled;
        for (i, (question, heard)) in trail.questions().zip(&asked.heard).enumerate() {
            let fresh = replayer.ask_fresh(&question.query, &asked.texts, &heard.state);
            let Some(is_same) = same_again(heard, &fresh) else { continue };
            let difference = || Difference {
                place: QuestionRef::new(exchange, i),
                recorded: Said::heard(heard, &setup.table),
                now: Said::heard(&fresh, &setup.table),
                state: None,
            };
            forgetful.add(asked.number, (!is_same).then_some(difference));
        }
    }
    Ok(found)
}
