//! Cooldowns and probes, kept by the rules of `core::health` at their mildest: the shortest cooldown that an outcome earns.

use std::collections::HashSet;
use std::time::Duration;

use pointsman_core::fleet::health::{CooldownSettings, cooldown_rule, may_be_requests};
use pointsman_core::outcome::{Kind, Scope};
use pointsman_core::record::AttemptRecord;
use pointsman_core::table::Lane;
use pointsman_core::time::Timestamp;

use super::{Found, InFlight, Name, Rule};

/// Cooldowns of all backends, by the judge's own books.
pub(super) struct Cooling {
    bounds: CooldownSettings,
    backends: Vec<OfBackend>,
}

#[derive(Clone, Default)]
struct OfBackend {
    wide: BackendSnapshot,
    models: Vec<BackendSnapshot>,
    /// Exchanges that failed here in a way that may be their own fault.
    failed: HashSet<u64>,
}

/// A backend, or one model on it.
#[derive(Clone, Default)]
struct BackendSnapshot {
    /// The last failure that counted; none once it answered after it.
    failed_at: Option<Timestamp>,
    until: Timestamp,
    /// Until when the upstream itself asked to be left alone.
    asked_until: Timestamp,
    /// Until when nothing can help: no key, no money, no such model.
    hopeless_until: Timestamp,
    /// The exchange that finds out whether it is well, and until when others wait for it: its time limit may be put off.
    probing: Option<(u64, Timestamp)>,
    /// Exchanges that failed since the last answer in a way that may be their own fault; what one of them alone met is
    /// not held against the backend.
    doubtful: Vec<u64>,
    /// Time of the last of them that was not held against it: what was under way then belongs to the same burst.
    doubted_at: Option<Timestamp>,
    /// Time of the last answer.
    answered_at: Option<Timestamp>,
}

/// For so long after an answer a failure may be put down to its request or its client alone.
const TRUSTED_FOR: Duration = Duration::from_secs(60);

impl Cooling {
    pub(super) fn new(bounds: CooldownSettings, backends: usize) -> Self {
        Self { bounds, backends: vec![OfBackend::default(); backends] }
    }

    fn standings(&mut self, backend: usize, model: Name) -> [&mut BackendSnapshot; 2] {
        let OfBackend { wide, models, .. } = &mut self.backends[backend];
        if models.len() <= model {
            models.resize(model + 1, BackendSnapshot::default());
        }
        [wide, &mut models[model]]
    }

    pub(super) fn sent(&mut self, attempt: InFlight, probe: bool) -> Found {
        let InFlight { exchange, at, lane, limit, .. } = attempt;
        let mut is_due = false;
        for standing in self.standings(attempt.backend, attempt.model) {
            if at < standing.until {
                let left = standing.until.since(at);
                if at < standing.hopeless_until {
                    let how = format!("sent where the key, the money or the model is gone, for {left:?} more");
                    return Err((Rule::Cooldown, how));
                }
                if lane != Lane::Emergency {
                    return Err((Rule::Cooldown, format!("sent to a backend that cools for {left:?} more")));
                }
            }
            // The cooldown in force may be longer than the shortest, so that an emergency need be no probe.
            if lane == Lane::Emergency || standing.failed_at.is_none() {
                continue;
            }
            if let Some((other, _)) = standing.probing.replace((exchange, at + limit)).filter(|(_, until)| at < *until)
            {
                return Err((Rule::Probe, format!("sent while exchange {} still probes the backend", other + 1)));
            }
            is_due = true;
        }
        match is_due && !probe {
            true => Err((Rule::Probe, "the first attempt after a cooldown did not go as its probe".to_owned())),
            false => Ok(()),
        }
    }

    /// A probe that has begun to be answered is one no more.
    pub(super) fn committed(&mut self, attempt: InFlight) {
        for standing in self.standings(attempt.backend, attempt.model) {
            if standing.probing.is_some_and(|(exchange, _)| exchange == attempt.exchange) {
                standing.probing = None;
            }
        }
    }

    /// An answer shows that the exchanges that failed there too were to blame, so they say nothing of other backends.
    fn acquit_others(&mut self, answered: usize) {
        let failed = std::mem::take(&mut self.backends[answered].failed);
        for backend in &mut self.backends {
            for standing in std::iter::once(&mut backend.wide).chain(&mut backend.models) {
                standing.doubtful.retain(|exchange| !failed.contains(exchange));
            }
        }
        self.backends[answered].failed = failed;
    }

    pub(super) fn ended(&mut self, attempt: InFlight, now: Timestamp, record: &AttemptRecord) {
        let bounds = self.bounds;
        self.committed(attempt);
        if may_be_requests(record.outcome) {
            self.backends[attempt.backend].failed.insert(attempt.exchange);
        }
        if record.outcome == Kind::Answered {
            self.acquit_others(attempt.backend);
        }
        let [wide, model] = self.standings(attempt.backend, attempt.model);
        if cooldown_rule(record.outcome).base_factor == 0.0 {
            if record.outcome != Kind::ClientGone {
                wide.answered(now, attempt.at);
                model.answered(now, attempt.at);
            }
            return;
        }
        match record.outcome.usual_scope() {
            Scope::Backend => wide.failed(now, attempt, record, &bounds),
            // A world's refusals name no narrower part.
            Scope::Model
            | Scope::Operation
            | Scope::Nothing
            | Scope::Request
            | Scope::RequestHere
            | Scope::Headers
            | Scope::BodySize
            | Scope::PromptSize
            | Scope::AnswerSize => model.failed(now, attempt, record, &bounds),
        }
    }
}

impl BackendSnapshot {
    fn failed(&mut self, now: Timestamp, attempt: InFlight, record: &AttemptRecord, bounds: &CooldownSettings) {
        if may_be_requests(record.outcome) {
            // Its client may be one that is not listened to, so that it is no witness either.
            let is_trusted = self.answered_at.is_some_and(|answered_at| now.since(answered_at) < TRUSTED_FOR);
            let is_first = self.doubtful.iter().all(|exchange| *exchange == attempt.exchange);
            if !is_trusted {
                self.doubtful.push(attempt.exchange);
            }
            if is_first || is_trusted {
                self.doubted_at = Some(now);
                return;
            }
        }
        let sent_at = attempt.at;
        let before = self.failed_at.max(self.doubted_at);
        let of_the_same_burst = before.is_some_and(|before| sent_at <= before);
        let shortest = match record.retry_after {
            Some(asked) => asked.clamp(bounds.retry_after_floor, bounds.retry_after_cap),
            None if of_the_same_burst => return,
            None => shortest(record.outcome, bounds),
        };
        self.failed_at = Some(now);
        let until = now + shortest;
        self.until = self.until.max(until);
        if record.retry_after.is_some() {
            self.asked_until = self.asked_until.max(until);
        }
        if matches!(record.outcome, Kind::Unauthorised | Kind::OutOfCredit | Kind::ModelMissing) {
            self.hopeless_until = self.hopeless_until.max(until);
        }
    }

    fn answered(&mut self, now: Timestamp, sent_at: Timestamp) {
        let of_before = self.failed_at.is_some_and(|failed_at| sent_at <= failed_at);
        if !of_before && now >= self.asked_until {
            *self = Self::default();
        }
        self.answered_at = Some(now);
    }
}

fn shortest(kind: Kind, bounds: &CooldownSettings) -> Duration {
    // One request alone is not believed that the key is refused.
    let factor = if matches!(kind, Kind::Unauthorised | Kind::OutOfCredit) { 0.0 } else { 1.0 };
    let rule = cooldown_rule(kind);
    bounds.base.mul_f64(factor * rule.base_factor).min(bounds.max.mul_f64(rule.max_factor))
}
