//! Traffic of a guarded promotion: the side of an exchange, and the numbers of both sides.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pointsman_core::lifecycle::promotion::{
    GuardReport, Plan, Promotion, Sample, Share, Side, SideStats, Subject, Verdict,
};
use pointsman_core::record::ExchangeRecord;
use pointsman_core::time::Timestamp;

use super::request::ProxyRequest;

/// Splits exchanges between the policy in force and a candidate, and counts what comes of both. A lock is taken at the end of an
/// exchange only.
pub struct TrafficSplit {
    key: u64,
    share: Share,
    tracked: Mutex<Tracked>,
}

struct Tracked {
    promotion: Promotion,
    /// Verdicts not acted upon yet; never more than an extension and an end.
    verdicts: Vec<Verdict>,
}

/// Progress of a promotion, for the operator and the record.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Share, duration and guards.
    pub plan: Plan,
    /// Time at which it began.
    pub since: Timestamp,
    /// Time at which it ends or is extended.
    pub until: Timestamp,
    /// The reason for the extension; `None`: not extended.
    pub extended: Option<String>,
    /// Totals of the policy in force.
    pub control: SideStats,
    /// Totals of the candidate.
    pub candidate: SideStats,
    /// Guards with what is known of each.
    pub findings: Vec<GuardReport>,
}

impl TrafficSplit {
    /// Starts a promotion; the `key` is a secret of its own.
    pub fn new(plan: Plan, key: u64, now: Timestamp) -> Self {
        let share = plan.share;
        let tracked = Tracked { promotion: Promotion::new(plan, now), verdicts: Vec::new() };
        Self { key, share, tracked: Mutex::new(tracked) }
    }

    /// Returns true if this exchange belongs to the candidate. A session stays on one side; without a session each
    /// exchange is drawn anew.
    pub fn takes(&self, request: &ProxyRequest) -> bool {
        let subject = match &request.texts.session {
            Some(session) => Subject::Session { client: request.client.as_deref(), session },
            None => Subject::Request(&request.id),
        };
        self.share.takes(self.key, subject)
    }

    /// An exchange ended. True when there is a verdict to act upon.
    pub fn ended(&self, now: Timestamp, side: Side, record: &ExchangeRecord) -> bool {
        let sample = Sample::of(record);
        let mut tracked = self.tracked();
        let verdict = tracked.promotion.ended(now, side, &sample);
        tracked.tell(verdict)
    }

    /// Looks whether its time is over, and takes what is to be acted upon.
    pub fn verdicts(&self, now: Timestamp) -> Vec<Verdict> {
        let mut tracked = self.tracked();
        let verdict = tracked.promotion.look(now);
        tracked.tell(verdict);
        std::mem::take(&mut tracked.verdicts)
    }

    /// Returns the latest time to look again.
    pub fn until(&self) -> Timestamp {
        self.tracked().promotion.until()
    }

    /// Returns its progress at this moment.
    pub fn progress(&self) -> Progress {
        let tracked = self.tracked();
        let promotion = &tracked.promotion;
        Progress {
            plan: promotion.plan().clone(),
            since: promotion.since(),
            until: promotion.until(),
            extended: promotion.extended().map(str::to_owned),
            control: promotion.seen(Side::Control),
            candidate: promotion.seen(Side::Candidate),
            findings: promotion.findings(),
        }
    }

    fn tracked(&self) -> MutexGuard<'_, Tracked> {
        // A panic in the middle of an exchange's numbers would spoil no more than these.
        self.tracked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tracked {
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
