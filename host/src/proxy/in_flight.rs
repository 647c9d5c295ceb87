//! An exchange under way in the server: whatever becomes of the client, it is settled and recorded exactly once.

use std::sync::Arc;
use std::time::Duration;

use pointsman_core::affinity::Learner;
use pointsman_core::attempt::translatable;
use pointsman_core::contract::{Decision, Dispatch, Query, Rejection, RowState};
use pointsman_core::denial::Denial;
use pointsman_core::dialect::repair::Repairs;
use pointsman_core::dialect::translate::Untranslatable;
use pointsman_core::exchange::{Action, Ended, Event, Exchange, Reason, Refusal};
use pointsman_core::journal::{Failed, Question, Trail};
use pointsman_core::outcome::{Kind, Outcome, Scope};
use pointsman_core::overdue::Overdue;
use pointsman_core::record::{End, ExchangeRecord};
use pointsman_core::table::{Lane, Tier};
use pointsman_core::time::Timestamp;
use pointsman_engine::Verdict;
use pointsman_store::Bodies;

use super::client_gates::ClientPermit;
use super::journal;
use super::large_bodies::is_large;
use super::offload_blocking::offload_blocking;
use super::request::{PinnedBackend, ProxyRequest};
use super::served_by::ServedBy;
use super::shared::Proxy;
use super::snapshot::Snapshot;

/// The most notes kept of one exchange; a policy may leave 16 at every question.
const MAX_NOTES: usize = 100;

/// The note of an exchange whose client is over its budget.
const OVER_BUDGET: &str = "the client's budget of the day is spent: only backends that cost nothing may be used (client.free_when_over_budget)";

/// An exchange, its pinned snapshot, and its record so far. Dropped at any moment, it settles and records.
pub struct InFlight {
    proxy: Arc<Proxy>,
    snapshot: Arc<Snapshot>,
    exchange: Exchange,
    request: Arc<ProxyRequest>,
    /// The reason that the backends of another dialect that serve the model are no candidates.
    untranslatable: Option<Untranslatable>,
    arrived: Timestamp,
    notes: Vec<String>,
    policy_faults: u32,
    /// Its trail for the journal; none where the journal keeps nothing.
    trail: Option<Box<Trail>>,
    /// Prompt and answer, where the journal keeps them.
    bodies: Option<Box<Bodies>>,
    /// Learns which things the answer makes known; none where there is one backend, or nothing lasts.
    learner: Option<Learner>,
    client_view: ClientView,
    /// Its place under the limits of its client; none once it is given back.
    permit: Option<ClientPermit>,
}

/// The exchange as the client sees it.
#[derive(Clone, Debug, Default)]
struct ClientView {
    status: u16,
    lane: Option<Lane>,
    backend: Option<Arc<str>>,
    first_byte: Option<Duration>,
    error: Option<String>,
    end: Option<End>,
    denied: Option<Denial>,
}

impl InFlight {
    /// An exchange that has just arrived. Boxed, because it is moved often.
    pub fn new(
        proxy: Arc<Proxy>,
        snapshot: Arc<Snapshot>,
        request: Arc<ProxyRequest>,
        permit: ClientPermit,
        arrived: Timestamp,
    ) -> Box<Self> {
        let translatable = translatable(&snapshot.view, &request.client_request());
        let facts = request.facts(translatable == Ok(true));
        let trail = journal::is_kept(&snapshot, &request).then(|| {
            let texts = &request.texts;
            Box::new(Trail::new(arrived, facts.clone(), texts.labels.clone(), texts.spending))
        });
        let rules = trail.as_ref().and(snapshot.bodies.as_ref());
        let bodies = rules.map(|rules| Box::new(Bodies::new(Arc::clone(rules), &request.body)));
        let home = proxy.affinity.home(arrived, &request, &snapshot.view);
        let exchange =
            Exchange::new(arrived, snapshot.view.clone(), &request.model, facts, snapshot.budgets, snapshot.streams);
        let mut exchange = exchange.at_home(home).at_endpoint(request.endpoint(), request.body.len());
        if proxy.fleet.compares_requests() {
            exchange.set_request(request.number(exchange.origin().client));
        }
        let exchange = exchange.with_exhausted_status(snapshot.config.exhausted_status(request.client_index));
        let before = proxy.exhausted.until(arrived, &request).filter(|_| request.pinned.is_none());
        let exchange = match before {
            Some(until) => exchange.after_exhaustion(until),
            None => exchange,
        };
        let has_others = snapshot.view.table.backends.len() > 1;
        let learner = has_others.then(|| Learner::new(request.operation, request.own_path())).flatten();
        let exchange = exchange.only(permit.only);
        let notes = if permit.only.free { vec![OVER_BUDGET.to_owned()] } else { Vec::new() };
        Box::new(Self {
            proxy,
            snapshot,
            exchange,
            request,
            untranslatable: translatable.err(),
            arrived,
            notes,
            policy_faults: 0,
            bodies,
            learner,
            trail,
            client_view: ClientView::default(),
            permit: Some(permit),
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
    pub fn request(&self) -> &Arc<ProxyRequest> {
        &self.request
    }

    /// The state machine, read-only.
    pub fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    /// Steps the state machine; returns the action that follows.
    pub fn step(&mut self, mut event: Event) -> Action {
        if let Event::Ended(ended) | Event::Broke(ended) = &mut event
            && ended.outcome.scope != Scope::Nothing
        {
            self.request.client_request().narrow_scope(&mut ended.outcome);
            let (request, client) = (&self.request, self.exchange.origin().client);
            let number = || request.number(client);
            let number = if is_large(request.body.len()) { offload_blocking(number) } else { number() };
            self.exchange.set_request(number);
        }
        let (exchange, trail) = (&mut self.exchange, &mut self.trail);
        let action = self.proxy.fleet.with(|fleet, now| {
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

    /// Names the part of the request that cannot be translated, where the model is served only by backends of another
    /// dialect.
    fn explained(&self, why: Refusal) -> Refusal {
        let (Reason::NoSuchModel, Some(untranslatable)) = (&why.reason, &self.untranslatable) else { return why };
        let message = format!(
            "The model {:?} is served only by backends of another provider's API, and this request cannot be \
             translated for them: {untranslatable}. Leave that out, or ask for another model",
            self.request.model
        );
        Refusal { reason: Reason::Untranslatable, message, ..why }
    }

    /// The policy's decision; a request pinned to a backend asks no policy.
    pub fn decide(&mut self, query: Query) -> Decision {
        if let Some(pinned) = self.request.pinned {
            return self.decide_pinned(&query, pinned);
        }
        let asked_at = self.proxy.clock.now();
        let policy = &self.snapshot.policy;
        let on_fault = self.snapshot.config.policy.on_fault;
        let ask = || policy.decide_or(on_fault, &query, &self.request.texts);
        let verdict = if policy.is_slow() { offload_blocking(ask) } else { ask() };
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
            let ProxyRequest { id, texts, .. } = &*self.request;
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

    /// One attempt at the pinned backend and no more.
    fn decide_pinned(&self, query: &Query, PinnedBackend { backend: index, within }: PinnedBackend) -> Decision {
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

    /// Adds a note to the record, once.
    pub fn note(&mut self, note: String) {
        if self.notes.len() < MAX_NOTES && !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Decides about the attempt under way when a time limit that fails over has passed: `None` ends it, else it is put
    /// off. A request pinned to a backend has nobody else.
    pub fn overdue(&mut self, overdue: Overdue, can_resume: bool) -> Option<Timestamp> {
        if self.request.pinned.is_some() {
            return Some(Timestamp::from_micros(u64::MAX));
        }
        let exchange = &mut self.exchange;
        self.proxy.fleet.with(|fleet, now| exchange.overdue(fleet, now, overdue, can_resume))
    }

    /// Records what the provider's headers said of its limits.
    pub fn learn(&self, requests: Option<(u32, Timestamp)>, tokens: Option<(u32, Timestamp)>) {
        if let Some(permit) = self.exchange.permit() {
            self.proxy.fleet.with(|fleet, _| fleet.learn(permit, requests, tokens));
        }
    }

    /// Records the commit of the attempt under way. A resumed answer keeps its status and first byte; its backend changes.
    pub fn committed(&mut self, status: u16) {
        if !self.exchange.is_resuming() {
            self.set_status(status);
        }
        if let Some(sending) = self.exchange.sending() {
            self.client_view.lane = Some(sending.lane);
            let backend = self.snapshot.view.backend(sending.backend).id.clone();
            if sending.lane != Lane::Emergency && self.snapshot.view.table.backends.len() > 1 {
                self.proxy.affinity.answers(self.proxy.clock.now(), &self.request, &backend);
            }
            self.client_view.backend = Some(backend);
        }
        self.step(Event::Committed);
    }

    /// Learns from a piece of a committed answer which things its backend has made.
    pub fn learns(&mut self, piece: &[u8]) {
        let (Some(learner), Some(backend)) = (&mut self.learner, &self.client_view.backend) else { return };
        let mut things = Vec::new();
        if (200..300).contains(&self.client_view.status) {
            learner.read(piece, |thing| things.push(thing));
        }
        self.proxy.affinity.made(self.proxy.clock.now(), &things, backend, &self.proxy.store);
    }

    /// Records that a count of tokens was estimated here, because no backend has it.
    pub fn estimated(&mut self, note: String) {
        self.set_status(200);
        self.client_view.error = None;
        self.client_view.end = Some(End::Delivered);
        self.notes.push(note);
    }

    /// Records the status that goes to the client now, and the time of its first byte.
    pub fn set_status(&mut self, status: u16) {
        self.client_view.status = status;
        self.client_view.first_byte = Some(self.proxy.clock.now().since(self.arrived));
    }

    /// Records that an upstream's refusal is passed on.
    pub fn passed_on(&mut self, status: u16, served_by: &ServedBy) {
        let ServedBy { lane, backend, .. } = served_by;
        self.set_status(status);
        self.client_view.lane = Some(*lane);
        self.client_view.backend = Some(backend.clone());
        self.client_view.error =
            self.exchange.attempts().iter().rfind(|a| a.backend == *backend).map(|a| a.message.clone());
        self.client_view.end = Some(End::Refused);
    }

    /// Records an error of Pointsman's own.
    pub fn rejected(&mut self, status: u16, error: &str) {
        self.set_status(status);
        self.client_view.error = Some(error.to_owned());
        self.client_view.end = Some(End::Rejected);
    }

    /// Records the reason of such an error; a model that no backend serves counts as a refusal at the door.
    pub fn refused_for(&mut self, reason: &Reason) {
        match reason {
            Reason::NoSuchModel => {
                self.client_view.end = Some(End::Denied);
                self.client_view.denied = Some(Denial::UnknownModel);
            }
            Reason::NoSuchOperation => {
                self.client_view.end = Some(End::Denied);
                self.client_view.denied = Some(Denial::NoSuchPath);
            }
            Reason::ModelMissing
            | Reason::Untranslatable
            | Reason::Exhausted
            | Reason::Limits
            | Reason::KeysRefused
            | Reason::QueueFull
            | Reason::OutOfTime
            | Reason::NotRepeated
            | Reason::OwnShortage
            | Reason::Policy { .. } => {}
        }
    }

    /// Records a piece of the answer that goes out, where the journal keeps answers.
    pub fn answers(&mut self, data: &[u8], is_event: bool) {
        if let Some(bodies) = &mut self.bodies {
            bodies.answered(data, is_event);
        }
    }

    /// Counts what was mended in a stream.
    pub fn repaired(&self, repairs: Repairs) {
        if repairs != Repairs::default() {
            self.proxy.metrics.repaired(repairs);
        }
    }

    /// Ends the committed attempt.
    pub fn relayed(&mut self, ended: Ended) {
        self.client_view.error = Some(ended.outcome.message.clone()).filter(|_| ended.outcome.kind != Kind::Answered);
        if let Action::Finish(end) = self.step(Event::Ended(ended)) {
            self.client_view.end = Some(end);
        }
    }

    /// Ends a committed attempt that broke off and can be continued; returns the action that follows.
    pub fn broke_off(&mut self, ended: Ended) -> Action {
        self.client_view.error = Some(ended.outcome.message.clone());
        let action = self.step(Event::Broke(ended));
        if let Action::Finish(end) = &action {
            self.client_view.end = Some(*end);
        }
        action
    }

    /// Records an error event sent to a client that has its head, status 200.
    pub fn error_event_sent(&mut self, error: &str) {
        if !self.exchange.is_resuming() {
            self.set_status(200);
        }
        self.client_view.error = Some(error.to_owned());
        self.client_view.end = Some(if self.exchange.is_resuming() { End::Broken } else { End::Rejected });
    }

    /// Records that the client did not get the whole answer.
    pub fn broke(&mut self) {
        self.client_view.end = Some(End::Broken);
    }

    /// Returns true once the exchange is settled.
    pub fn is_done(&self) -> bool {
        self.exchange.is_done()
    }

    /// The client went away: with what the attempt under way has used, if there was one.
    fn client_gone(&self) -> Event {
        let Some(usage) = self.request.abandoned.usage.get().filter(|usage| usage.total() > 0) else {
            return Event::ClientGone;
        };
        let gone = Outcome::new(Kind::ClientGone, "the client went away");
        Event::Ended(Ended { usage: *usage, ..Ended::failed(gone) })
    }

    fn record(&mut self, now: Timestamp) -> ExchangeRecord {
        let (waits, waited) = self.exchange.waits();
        self.notes.extend(self.exchange.take_warnings());
        let seen = std::mem::take(&mut self.client_view);
        let end = seen.end.unwrap_or(End::ClientGone);
        // A health check would not have been sent to a fallback.
        let saved_usd = self.exchange.saved_usd(end, seen.lane).filter(|_| self.request.pinned.is_none());
        ExchangeRecord {
            id: self.request.id.clone(),
            started: self.arrived,
            elapsed: now.since(self.arrived),
            client: self.request.client.clone(),
            session: self.request.texts.session.clone(),
            operation: self.request.operation,
            path: self.request.texts.path.clone(),
            model: self.request.model.to_string(),
            streaming: self.request.streaming,
            status: seen.status,
            end,
            lane: seen.lane,
            backend: seen.backend,
            waits,
            waited,
            first_byte: seen.first_byte,
            policy: self.snapshot.policy.id().clone(),
            policy_faults: self.policy_faults,
            attempts: self.exchange.take_attempts(),
            notes: std::mem::take(&mut self.notes),
            error: seen.error,
            denied: seen.denied,
            saved_usd,
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.exchange.is_done() {
            self.step(self.client_gone());
        }
        let now = self.proxy.clock.now();
        match self.exchange.exhausted_until() {
            Some(until) if self.request.pinned.is_none() => self.proxy.exhausted.insert(now, &self.request, until),
            Some(_) | None => {}
        }
        let record = self.record(now);
        if record.end == End::Delivered {
            self.proxy.exhausted.remove(now, &self.request);
        }
        if self.request.pinned.is_none() && record.denied.is_none() {
            self.proxy.compared(&self.snapshot, &record);
        }
        let part =
            self.trail.take().and_then(|trail| journal::part(trail, self.bodies.take(), &self.snapshot, &record));
        if let Some(permit) = self.permit.take() {
            permit.settle(record.usage().total(), record.cost_usd());
        }
        self.proxy.finished(record, part);
    }
}
