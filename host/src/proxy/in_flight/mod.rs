//! An exchange under way in the server: whatever becomes of the client, it is settled and recorded exactly once.

mod client_view;
mod deciding;
mod record;

use std::sync::Arc;

use pointsman_core::affinity::Learner;
use pointsman_core::attempt::translatable;
use pointsman_core::dialect::repair::Repairs;
use pointsman_core::dialect::translate::Untranslatable;
use pointsman_core::exchange::{Action, Event, Exchange, Reason, Refusal};
use pointsman_core::http::headers::announces_retries;
use pointsman_core::journal::Trail;
use pointsman_core::outcome::Scope;
use pointsman_core::overdue::Overdue;
use pointsman_core::table::Lane;
use pointsman_core::time::Timestamp;
use pointsman_store::Bodies;

use client_view::ClientView;

use super::client_gates::ClientPermit;
use super::journal;
use super::large_bodies::is_large;
use super::offload_blocking::offload_blocking;
use super::request::ProxyRequest;
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
        let exchange = exchange.announcing_retries(announces_retries(&request.headers));
        let before = if request.pinned.is_none() { proxy.exhausted.asked(arrived, &request) } else { None };
        let exchange = match before {
            Some(before) => exchange.after_exhaustion(before),
            None => exchange,
        };
        let has_others = snapshot.view.table.backends.len() > 1;
        let is_learned = has_others || request.begins_in_background();
        let learner = is_learned.then(|| Learner::new(request.operation, request.own_path())).flatten();
        let exchange = exchange.priced_as(request.background.as_ref().map(|begun| begun.model_sent.clone()));
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
        if let (Event::Ended(ended) | Event::Broke(ended), Some(begun)) = (&mut event, &self.request.background) {
            ended.usage = self.proxy.background.settle(begun, ended.usage);
        }
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
        if self.snapshot.view.table.backends.len() < 2 {
            return;
        }
        self.proxy.affinity.made(self.proxy.clock.now(), &things, backend, &self.proxy.store);
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

    /// Returns true once the exchange is settled.
    pub fn is_done(&self) -> bool {
        self.exchange.is_done()
    }
}
