//! The two sides of a guarded promotion: who belongs to which, and what came of both.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pointsman_core::lifecycle::promotion::{Canary, Finding, Plan, Sample, Seen, Share, Side, Subject, Verdict};
use pointsman_core::record::ExchangeRecord;
use pointsman_core::time::Timestamp;

use super::request::Asked;

/// A side of a promotion under way.
#[derive(Clone)]
pub struct Part {
    /// The promotion.
    pub split: Arc<Split>,
    /// The side.
    pub side: Side,
}

/// Splits the exchanges of a promotion, and keeps its books. A lock is taken at the end of an exchange only.
pub struct Split {
    key: u64,
    share: Share,
    books: Mutex<Books>,
}

struct Books {
    canary: Canary,
    /// What nobody has acted upon yet; never more than an extension and an end.
    verdicts: Vec<Verdict>,
}

/// How a promotion stands.
#[derive(Clone, Debug)]
pub struct Progress {
    /// What was asked for.
    pub plan: Plan,
    /// When it began.
    pub since: Timestamp,
    /// When it ends, or is extended.
    pub until: Timestamp,
    /// Why it has been extended; none: it has not.
    pub extended: Option<String>,
    /// The policy in force.
    pub control: Seen,
    /// The candidate.
    pub candidate: Seen,
    /// The guards.
    pub findings: Vec<Finding>,
}

impl Split {
    /// Of a promotion that begins now; the `key` is a secret of its own.
    pub fn new(plan: Plan, key: u64, now: Timestamp) -> Self {
        let share = plan.share;
        let books = Books { canary: Canary::new(plan, now), verdicts: Vec::new() };
        Self { key, share, books: Mutex::new(books) }
    }

    /// Is this exchange the candidate's? All of a session are on one side; without a session each is on its own.
    pub fn takes(&self, asked: &Asked) -> bool {
        let subject = match &asked.texts.session {
            Some(session) => Subject::Session { client: asked.client.as_deref(), session },
            None => Subject::Request(&asked.id),
        };
        self.share.takes(self.key, subject)
    }

    /// An exchange ended. True when there is a verdict to act upon.
    pub fn ended(&self, now: Timestamp, side: Side, record: &ExchangeRecord) -> bool {
        let sample = Sample::of(record);
        let mut books = self.books();
        let verdict = books.canary.ended(now, side, &sample);
        books.tell(verdict)
    }

    /// Looks whether its time is over, and takes what is to be acted upon.
    pub fn verdicts(&self, now: Timestamp) -> Vec<Verdict> {
        let mut books = self.books();
        let verdict = books.canary.look(now);
        books.tell(verdict);
        std::mem::take(&mut books.verdicts)
    }

    /// When to look again at the latest.
    pub fn until(&self) -> Timestamp {
        self.books().canary.until()
    }

    /// How it stands.
    pub fn progress(&self) -> Progress {
        let books = self.books();
        let canary = &books.canary;
        Progress {
            plan: canary.plan().clone(),
            since: canary.since(),
            until: canary.until(),
            extended: canary.extended().map(str::to_owned),
            control: canary.seen(Side::Control),
            candidate: canary.seen(Side::Candidate),
            findings: canary.findings(),
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // A panic in the middle of an exchange's numbers would spoil no more than these.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn tell(&mut self, verdict: Verdict) -> bool {
        match verdict {
            Verdict::GoOn => false,
            Verdict::Extended(_) | Verdict::Promote(_) | Verdict::RollBack(_) => {
                self.verdicts.push(verdict);
                true
            }
        }
    }
}
