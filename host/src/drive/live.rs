//! An exchange in the hands of the server: whatever becomes of the client, it is settled and recorded exactly once.

use std::sync::Arc;
use std::time::Duration;

use pointsman_core::attempt::translatable;
use pointsman_core::clients::Admission;
use pointsman_core::contract::{Decision, Dispatch, Query, Rejection, RowState};
use pointsman_core::denial::Denial;
use pointsman_core::dialect::translate::Untranslatable;
use pointsman_core::exchange::{Action, Ended, Event, Exchange, Reason, Refusal};
use pointsman_core::journal::{Failed, Question, Trail};
use pointsman_core::outcome::Kind;
use pointsman_core::record::{End, ExchangeRecord};
use pointsman_core::table::{Lane, Tier};
use pointsman_core::time::Timestamp;
use pointsman_engine::Verdict;
use pointsman_store::Bodies;

use super::aside::aside;
use super::exchange::ServedBy;
use super::journal;
use super::proxy::Proxy;
use super::request::{Asked, Only};
use super::snapshot::Snapshot;

/// Notes kept of one exchange; a policy may leave 16 at every question, and be asked many.
const MAX_NOTES: usize = 100;

/// The note of an exchange whose client is over its budget.
const OVER_BUDGET: &str = "the client's budget of the day is spent: only backends that cost nothing may be used (client.free_when_over_budget)";

/// An exchange, its pinned snapshot, and what its record will say. Dropped at any moment, it settles and records.
pub struct Live {
    proxy: Arc<Proxy>,
    snapshot: Arc<Snapshot>,
    exchange: Exchange,
    asked: Arc<Asked>,
    /// Why the backends of another dialect that serve the model are not asked.
    untranslatable: Option<Untranslatable>,
    arrived: Timestamp,
    notes: Vec<String>,
    policy_faults: u32,
    /// What the journal may keep of it; none where it keeps nothing.
    trail: Option<Box<Trail>>,
    /// Prompt and answer, where the journal keeps them.
    bodies: Option<Box<Bodies>>,
    told: Told,
}

/// What the client was told.
#[derive(Clone, Debug, Default)]
struct Told {
    status: u16,
    lane: Option<Lane>,
    backend: Option<Arc<str>>,
    first_byte: Option<Duration>,
    error: Option<String>,
    end: Option<End>,
    denied: Option<Denial>,
}

impl Live {
    /// Takes an exchange that has just arrived. Boxed, because it goes through many hands.
    pub fn new(
        proxy: Arc<Proxy>,
        snapshot: Arc<Snapshot>,
        asked: Arc<Asked>,
        admission: Admission,
        arrived: Timestamp,
    ) -> Box<Self> {
        let crosses = translatable(&snapshot.view, &asked.client_request());
        let facts = asked.facts(crosses == Ok(true));
        let trail = journal::is_kept(&snapshot, &asked).then(|| {
            let texts = &asked.texts;
            Box::new(Trail::new(arrived, facts.clone(), texts.labels.clone(), texts.spending))
        });
        let rules = trail.as_ref().and(snapshot.bodies.as_ref());
        let bodies = rules.map(|rules| Box::new(Bodies::new(Arc::clone(rules), &asked.body)));
        let exchange =
            Exchange::new(arrived, snapshot.view.clone(), &asked.model, facts, snapshot.budgets, snapshot.streams);
        let (exchange, notes) = if admission == Admission::FreeOnly {
            (exchange.free_only(), vec![OVER_BUDGET.to_owned()])
        } else {
            (exchange, Vec::new())
        };
        Box::new(Self {
            proxy,
            snapshot,
            exchange,
            asked,
            untranslatable: crosses.err(),
            arrived,
            notes,
            policy_faults: 0,
            bodies,
            trail,
            told: Told::default(),
        })
    }

    /// The proxy it belongs to.
    pub fn proxy(&self) -> &Arc<Proxy> {
        &self.proxy
    }

    /// The configuration and policy it is pinned to.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The request.
    pub fn asked(&self) -> &Arc<Asked> {
        &self.asked
    }

    /// The state machine, to look at.
    pub fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    /// Tells the state machine what happened; answers what to do.
    pub fn step(&mut self, event: Event) -> Action {
        let (exchange, trail) = (&mut self.exchange, &mut self.trail);
        let action = self.proxy.line.with(|fleet, now| {
            if let Some(trail) = trail {
                trail.heard(now, &event);
            }
            let action = exchange.step(fleet, now, event);
            if let Some(trail) = trail {
                trail.told(now, exchange, &action);
            }
            action
        });
        match action {
            Action::Reject(why) => Action::Reject(self.explained(why)),
            action => action,
        }
    }

    /// Where somebody would serve the model if the request said less, the client learns what is too much.
    fn explained(&self, why: Refusal) -> Refusal {
        let (Reason::NoSuchModel, Some(untranslatable)) = (&why.reason, &self.untranslatable) else { return why };
        let message = format!(
            "The model {:?} is served only by backends of another provider's API, and this request cannot be \
             translated for them: {untranslatable}. Leave that out, or ask for another model",
            self.asked.model
        );
        Refusal { reason: Reason::Untranslatable, message, ..why }
    }

    /// Asks the policy.
    pub fn decide(&mut self, query: Query) -> Decision {
        if let Some(only) = self.asked.only {
            return self.once(&query, only);
        }
        let asked_at = self.proxy.clock.now();
        let policy = &self.snapshot.policy;
        let on_fault = self.snapshot.config.policy.on_fault;
        let ask = || policy.decide_or(on_fault, &query, &self.asked.texts);
        let verdict = if policy.is_slow() { aside(ask) } else { ask() };
        let now = self.proxy.clock.now();
        let took = now.since(asked_at);
        self.proxy.decided(&verdict, took);
        if self.snapshot.fault_stats.record_decision(now, verdict.fault.as_ref()) {
            self.proxy.breaker_tripped.notify_one();
        }
        if verdict.fault.is_some() {
            self.policy_faults += 1;
        }
        if self.snapshot.is_in_force() {
            let Asked { id, texts, .. } = &*self.asked;
            self.proxy.shadow.mirror(&self.snapshot.view.table, id, &query, texts, &verdict.decision);
        }
        let room = MAX_NOTES.saturating_sub(self.notes.len());
        self.notes.extend(verdict.notes.iter().take(room).cloned());
        let decision = verdict.decision.clone();
        if let Some(trail) = &mut self.trail {
            let Verdict { decision, notes, fault, state } = verdict;
            let fault = fault.map(|f| Failed { kind: f.kind.as_str().to_owned(), message: f.message });
            trail.asked(asked_at, Question { query, decision, notes, fault, state, took });
        }
        decision
    }

    /// One attempt at this backend and no more: no policy is asked where there is nothing to choose.
    fn once(&self, query: &Query, Only { backend: index, within }: Only) -> Decision {
        if !query.attempts.is_empty() || !query.rows.is(index as usize, RowState::Ready) {
            return Decision::Reject(Rejection::default());
        }
        let backend = self.snapshot.view.backend(index);
        let total = Some(backend.timeouts.total.min(within));
        let dispatch = Dispatch { backend: Some(index), total, ..Dispatch::default() };
        match backend.tier {
            Tier::Primary => Decision::Primary(dispatch),
            Tier::Fallback => Decision::Fallback(dispatch),
        }
    }

    /// Remembers what the provider's headers said of its limits.
    pub fn learn(&self, requests: Option<(u32, Timestamp)>, tokens: Option<(u32, Timestamp)>) {
        if let Some(permit) = self.exchange.permit() {
            self.proxy.line.with(|fleet, _| fleet.learn(permit, requests, tokens));
        }
    }

    /// The answer's first byte goes out, with this status, from the backend of the attempt under way. Of an answer that
    /// is resumed, the first byte is long out; who answers is now another.
    pub fn committed(&mut self, status: u16) {
        if !self.exchange.is_resuming() {
            self.tell(status);
        }
        if let Some(sending) = self.exchange.sending() {
            self.told.lane = Some(sending.lane);
            self.told.backend = Some(self.snapshot.view.backend(sending.backend).id.clone());
        }
        self.step(Event::Committed);
    }

    /// The client is told this status now.
    pub fn tell(&mut self, status: u16) {
        self.told.status = status;
        self.told.first_byte = Some(self.proxy.clock.now().since(self.arrived));
    }

    /// An upstream's refusal is passed on.
    pub fn passed_on(&mut self, status: u16, served_by: &ServedBy) {
        let ServedBy { lane, backend } = served_by;
        self.tell(status);
        self.told.lane = Some(*lane);
        self.told.backend = Some(backend.clone());
        self.told.error = self.exchange.attempts().iter().rfind(|a| a.backend == *backend).map(|a| a.message.clone());
        self.told.end = Some(End::Refused);
    }

    /// Pointsman itself refused.
    pub fn rejected(&mut self, status: u16, error: &str) {
        self.tell(status);
        self.told.error = Some(error.to_owned());
        self.told.end = Some(End::Rejected);
    }

    /// Pointsman refused for this reason; a model that nobody serves is a refusal at the door.
    pub fn refused_for(&mut self, reason: &Reason) {
        match reason {
            Reason::NoSuchModel => {
                self.told.end = Some(End::Denied);
                self.told.denied = Some(Denial::UnknownModel);
            }
            Reason::ModelMissing
            | Reason::Untranslatable
            | Reason::Exhausted
            | Reason::QueueFull
            | Reason::OutOfTime
            | Reason::NotRepeated
            | Reason::Policy { .. } => {}
        }
    }

    /// A piece of the answer goes out.
    pub fn answers(&mut self, data: &[u8], is_event: bool) {
        if let Some(bodies) = &mut self.bodies {
            bodies.answered(data, is_event);
        }
    }

    /// The committed attempt ended.
    pub fn relayed(&mut self, ended: Ended) {
        self.told.error = Some(ended.outcome.message.clone()).filter(|_| ended.outcome.kind != Kind::Answered);
        if let Action::Finish(end) = self.step(Event::Ended(ended)) {
            self.told.end = Some(end);
        }
    }

    /// The committed attempt broke off, and what was delivered can be continued. Answers what to do.
    pub fn broke_off(&mut self, ended: Ended) -> Action {
        self.told.error = Some(ended.outcome.message.clone());
        let action = self.step(Event::Broke(ended));
        if let Action::Finish(end) = &action {
            self.told.end = Some(*end);
        }
        action
    }

    /// A client that has its head, status 200, is told an error in-band.
    pub fn told_in_band(&mut self, error: &str) {
        if !self.exchange.is_resuming() {
            self.tell(200);
        }
        self.told.error = Some(error.to_owned());
        self.told.end = Some(if self.exchange.is_resuming() { End::Broken } else { End::Rejected });
    }

    /// The client is there and did not get the whole answer.
    pub fn broke(&mut self) {
        self.told.end = Some(End::Broken);
    }

    /// Is the request settled?
    pub fn is_done(&self) -> bool {
        self.exchange.is_done()
    }

    fn record(&mut self, now: Timestamp) -> ExchangeRecord {
        let (waits, waited) = self.exchange.waits();
        let told = std::mem::take(&mut self.told);
        let end = told.end.unwrap_or(End::ClientGone);
        // A health check would not have been sent to a fallback.
        let saved_usd = self.exchange.saved_usd(end, told.lane).filter(|_| self.asked.only.is_none());
        ExchangeRecord {
            id: self.asked.id.clone(),
            started: self.arrived,
            elapsed: now.since(self.arrived),
            client: self.asked.client.clone(),
            session: self.asked.texts.session.clone(),
            operation: self.asked.operation,
            path: self.asked.path().to_owned(),
            model: self.asked.model.to_string(),
            streaming: self.asked.streaming,
            status: told.status,
            end,
            lane: told.lane,
            backend: told.backend,
            waits,
            waited,
            first_byte: told.first_byte,
            policy: self.snapshot.policy.id().clone(),
            policy_faults: self.policy_faults,
            attempts: self.exchange.take_attempts(),
            notes: std::mem::take(&mut self.notes),
            error: told.error,
            denied: told.denied,
            saved_usd,
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if !self.exchange.is_done() {
            self.step(Event::ClientGone);
        }
        let record = self.record(self.proxy.clock.now());
        if self.asked.only.is_none() && record.denied.is_none() {
            self.proxy.compared(&self.snapshot, &record);
        }
        let part =
            self.trail.take().and_then(|trail| journal::part(trail, self.bodies.take(), &self.snapshot, &record));
        self.proxy.finished(&self.asked, record, part);
    }
}
