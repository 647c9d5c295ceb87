//! A world in virtual time: requests arrive, a decider decides, backends answer, and core's own `Exchange` and `Fleet` do
//! what they do in the server. Seeded, deterministic, without a clock.
//!
//! Each use brings an [`Environment`] (who asks and what backends answer), a decider (a policy, or any closure) and a
//! [`Watcher`] (a story, a check of invariants, a sum).

mod attempt;
mod environment;
mod places;
#[cfg(test)]
mod tests;
mod track;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::attempt::explains_itself;
use pointsman_core::clients::{Admission, ClientDenied, ClientGate, estimate_usd};
use pointsman_core::contract::{Decision, NONE, Query};
use pointsman_core::dialect::envelope::ErrorKind;
use pointsman_core::exchange::{Action, Budgets, Event, Exchange, Facts, Only, Sending, StreamDefaults};
use pointsman_core::fleet::Ticket;
use pointsman_core::fleet::{Fleet, InitialState, Permit};
use pointsman_core::journal::{Setup, Terms};
use pointsman_core::outcome::Kind;
use pointsman_core::record::End;
use pointsman_core::time::Timestamp;
use pointsman_core::usd::total_usd;
use pointsman_core::view::View;

use crate::answer::asks_stream;

pub use environment::{Ask, Attempt, Environment, EventKind, Finished, Scene, Watcher};
pub use track::{RecordedAttempt, RecordedQuestion, Then, past_of};

use pointsman_engine::{Texts, Verdict};

use attempt::{AttemptResult, Late, Sent};
use places::{Agenda, ClientView, InFlight, Places, Slot, UnderWay, What};
use track::{Moment, Track};

/// Time between two looks of a recorded attempt whose time limit passed without an end.
const RECORDED_LOOK: Duration = Duration::from_secs(5);

/// The world; see the module.
pub struct World<O, D, W> {
    outside: O,
    decide: D,
    watcher: W,
    now: Timestamp,
    fleet: Fleet,
    view: Arc<View>,
    budgets: Budgets,
    streams: StreamDefaults,
    clients: Vec<(Terms, ClientGate)>,
    places: Places,
    agenda: Agenda,
    next_request: Option<(Timestamp, Ask)>,
    arrived: u64,
    tickets: HashMap<Ticket, Slot>,
    granted: VecDeque<(Ticket, Permit)>,
    /// Time that the timer of the queue is set to.
    alarm_at: Option<Timestamp>,
    /// Record of its only exchange, while the exchange follows it.
    track: Option<Track>,
}

/// State of a world at its end.
pub struct After<O, W> {
    /// The environment of the world.
    pub outside: O,
    /// The observer of the world.
    pub watcher: W,
    /// The fleet as it was left.
    pub fleet: Fleet,
    /// The table, seen through the fleet.
    pub view: Arc<View>,
    /// Time of the last event.
    pub now: Timestamp,
}

impl<O, D, W> World<O, D, W>
where
    O: Environment,
    D: FnMut(&Query, &Arc<Texts>) -> Verdict,
    W: Watcher,
{
    /// A world with this setup's backends and clients that begins at `start`. `seed` is for core's own dice;
    /// `spent_usd` is what each client has spent that day before.
    pub fn new(
        setup: &Setup,
        start: Timestamp,
        seed: u64,
        spent_usd: &[f64],
        outside: O,
        decide: D,
        watcher: W,
    ) -> Self {
        let mut fleet = Fleet::new(setup.fleet, seed);
        let view = fleet.adopt(Arc::new(setup.table.clone()), setup.fleet);
        let gate = |(i, client): (usize, &Terms)| {
            let spent = spent_usd.get(i).copied().unwrap_or(0.0);
            (client.clone(), ClientGate::new(client.limits, client.budget_usd_per_day, start, spent))
        };
        Self {
            outside,
            decide,
            watcher,
            now: start,
            fleet,
            view,
            budgets: setup.budgets,
            streams: setup.streams,
            clients: setup.clients.iter().enumerate().map(gate).collect(),
            places: Places::default(),
            agenda: Agenda::default(),
            next_request: None,
            arrived: 0,
            tickets: HashMap::new(),
            granted: VecDeque::new(),
            alarm_at: None,
            track: None,
        }
    }

    /// Its backends have this behind them, in the table's order.
    pub fn assuming(mut self, pasts: &[InitialState]) -> Self {
        for (backend, past) in self.view.table.backends.iter().zip(pasts) {
            self.fleet.set_initial_state(self.now, &backend.id, past);
        }
        self
    }

    /// Its only exchange goes as it was recorded for as long as the decisions are those that were recorded.
    pub fn following(mut self, questions: &[RecordedQuestion]) -> Self {
        self.track = Track::new(self.now, questions);
        self
    }

    /// Lets time pass until nothing is left to happen.
    pub fn run(mut self) -> After<O, W> {
        self.next_request = self.outside.next_request();
        loop {
            while let Some((ticket, permit)) = self.granted.pop_front() {
                self.grant(ticket, permit);
            }
            let request_at = self.next_request.as_ref().map(|(at, _)| *at);
            match (request_at, self.agenda.next_at()) {
                (None, None) => break,
                (Some(at), due) if due.is_none_or(|due| at <= due) => self.arrive(at),
                (_, Some(_)) | (Some(_), None) => self.next_due(),
            }
        }
        let Self { outside, watcher, fleet, view, now, .. } = self;
        After { outside, watcher, fleet, view, now }
    }

    fn arrive(&mut self, at: Timestamp) {
        self.now = self.now.max(at);
        let Some((_, mut ask)) = self.next_request.take() else { return };
        self.next_request = self.outside.next_request();
        let number = self.arrived;
        self.arrived += 1;
        let admitted = self.admit(&mut ask);
        let facts = ask.facts.clone();
        let exchange = Exchange::new(self.now, self.view.clone(), &ask.model, facts, self.budgets, self.streams);
        let (exchange, reserved_usd) = match &admitted {
            Ok((only, reserved_usd)) => (exchange.only(*only), *reserved_usd),
            Err(_) => (exchange, 0.0),
        };
        self.tell(number, EventKind::Arrived(&ask));
        let patience = ask.patience;
        let slot = self.places.put(InFlight { reserved_usd, ..InFlight::new(number, exchange, ask, self.now) });
        if let Some(patience) = patience {
            self.agenda.add(self.now + patience, What::Leave { slot, exchange: number });
        }
        match admitted {
            Ok(_) => {
                self.meet_question();
                self.go_on(slot, Event::Arrived)
            }
            Err(told) => self.finish(slot, End::Rejected, told),
        }
    }

    /// The limits of the client's own key: the backends left for it, and the money reserved, USD.
    fn admit(&mut self, ask: &mut Ask) -> Result<(Only, f64), ClientView> {
        let Some((client, gate)) = self.clients.get_mut(ask.facts.client as usize) else {
            return Ok((Only::default(), 0.0));
        };
        let spending = gate.spending(self.now);
        ask.texts = Arc::new(Texts { spending, ..(*ask.texts).clone() });
        let name = &client.name;
        let (kind, error) = if !client.may_ask(&ask.model) {
            (ErrorKind::ModelNotFound, format!("The key {name:?} may not ask for the model {:?}", ask.model))
        } else {
            let is_free = || self.view.serves_free(&ask.model, ask.facts.operation, ask.facts.translatable);
            let priced = client.budget_usd_per_day.is_some();
            let Facts { operation, translatable, prompt_tokens, .. } = ask.facts;
            let dearest = match self.view.dearest(&ask.model, operation, translatable, prompt_tokens, None) {
                _ if !priced => Some((0.0, 0.0)),
                dearest => dearest,
            };
            let entered = dearest.map(|dearest| {
                let usd = estimate_usd(dearest, ask.facts.prompt_tokens, ask.facts.max_tokens, 1);
                (usd, gate.enter(self.now, client.free_when_over_budget && is_free(), usd))
            });
            let (kind, why) = match entered {
                None => (ErrorKind::InvalidRequest, "has a budget, and the model has no price"),
                Some((usd, Ok(Admission::Full))) => return Ok((Only { priced, ..Only::default() }, usd)),
                Some((_, Ok(Admission::FreeOnly))) => {
                    return Ok((Only { free: true, priced, serving_all: false }, 0.0));
                }
                Some((_, Err(denied))) => match denied {
                    ClientDenied::Rate { .. } => (ErrorKind::RateLimited, "has used up its rate limit"),
                    ClientDenied::Concurrency => (ErrorKind::RateLimited, "has too many requests under way"),
                    ClientDenied::Budget { .. } => (ErrorKind::BudgetExceeded, "has spent its budget of the day"),
                },
            };
            (kind, format!("The key {name:?} {why}"))
        };
        // Who was not let in does not leave.
        ask.facts.client = NONE;
        Err(ClientView { status: kind.status(), by: None, error: Some(error) })
    }

    fn next_due(&mut self) {
        let Some(due) = self.agenda.pop() else { return };
        let is_void = match due.what {
            What::Alarm => self.alarm_at != Some(due.at),
            What::WaitOver(turn) | What::Commit(turn) | What::End(turn) => !self.places.is_turn(turn),
            What::Leave { slot, exchange } => !self.places.holds(slot, exchange),
        };
        if is_void {
            // Something else came first.
            return;
        }
        self.now = due.at;
        match due.what {
            What::Alarm => {
                self.alarm_at = None;
                self.serve_line();
            }
            What::WaitOver(turn) => self.wait_over(turn.slot),
            What::Commit(turn) => self.commit(turn.slot),
            What::End(turn) => self.end_attempt(turn.slot),
            What::Leave { slot, .. } => self.leave(slot),
        }
    }

    /// The client goes away, whatever is under way.
    fn leave(&mut self, slot: Slot) {
        let live = self.places.live(slot);
        if let Some(ticket) = live.ticket.take() {
            // What it has been handed in this moment goes back.
            self.fleet.leave(ticket);
            self.tickets.remove(&ticket);
        }
        let attempts = live.exchange.attempts().len();
        let event = live.left(self.now);
        let action = self.step(slot, event);
        let live = self.places.live(slot);
        if let Some(record) = live.exchange.attempts().get(attempts) {
            let scene = Scene { now: self.now, exchange: live.number, fleet: &self.fleet, view: &self.view };
            self.watcher.saw(&scene, EventKind::Ended(record));
        }
        self.act(slot, action);
    }

    fn wait_over(&mut self, slot: Slot) {
        let granted = self.track.as_ref().and_then(Track::granted);
        self.expect_question();
        let mut permit = None;
        if let Some(ticket) = self.places.live(slot).ticket.take() {
            permit = granted.and_then(|backend| self.fleet.grant(self.now, ticket, backend));
            // Before the line is served again: what comes free in this moment is not for it any more.
            self.fleet.leave(ticket);
            self.tickets.remove(&ticket);
        }
        self.tell_of(slot, EventKind::Waited { granted: permit.as_ref().map(|permit| permit.backend) });
        self.go_on(slot, permit.map_or(Event::WaitOver, Event::Granted));
    }

    fn grant(&mut self, ticket: Ticket, permit: Permit) {
        let Some(slot) = self.tickets.remove(&ticket) else {
            self.fleet.refund(permit);
            return self.serve_line();
        };
        self.places.live(slot).ticket = None;
        self.tell_of(slot, EventKind::Waited { granted: Some(permit.backend) });
        self.go_on(slot, Event::Granted(permit));
    }

    fn go_on(&mut self, slot: Slot, event: Event) {
        let action = self.step(slot, event);
        self.act(slot, action);
    }

    /// Waiters are served first, so that nobody overtakes them, and again after: as the server does at each step.
    fn step(&mut self, slot: Slot, event: Event) -> Action {
        self.serve_line();
        let action = self.places.live(slot).exchange.step(&mut self.fleet, self.now, event);
        self.serve_line();
        action
    }

    fn serve_line(&mut self) {
        let (served, look_again) = self.fleet.serve_queue(self.now);
        for (ticket, permit) in &served {
            if let Some(slot) = self.tickets.get(ticket).copied() {
                self.tell_of(slot, EventKind::Granted { backend: permit.backend });
            }
        }
        self.granted.extend(served);
        if let Some(at) = look_again.filter(|at| self.alarm_at.is_none_or(|set| *at < set)) {
            self.alarm_at = Some(at);
            self.agenda.add(at, What::Alarm);
        }
    }

    /// Carries out the exchange's actions until it has to wait for an event.
    fn act(&mut self, slot: Slot, mut action: Action) {
        loop {
            action = match action {
                Action::Ask(query) => self.ask(slot, &query),
                Action::Wait { ticket, max } => return self.wait(slot, ticket, max),
                Action::Send(sending) => return self.send(slot, &sending),
                Action::Relay => return,
                Action::PassOn => {
                    let told = self.places.live(slot).refusal.take().unwrap_or_default();
                    return self.finish(slot, End::Refused, told);
                }
                Action::Reject(why) if self.places.live(slot).exchange.is_resuming() => {
                    // What was begun is not continued: the client hears it in the middle of the stream.
                    let told = ClientView {
                        error: Some(why.message),
                        ..std::mem::take(&mut self.places.live(slot).client_view)
                    };
                    return self.finish(slot, End::Broken, told);
                }
                Action::Reject(why) => {
                    let told = ClientView { status: why.reason.status(), by: None, error: Some(why.message) };
                    return self.finish(slot, End::Rejected, told);
                }
                Action::Finish(end) => {
                    let told = std::mem::take(&mut self.places.live(slot).client_view);
                    return self.finish(slot, end, told);
                }
            };
        }
    }

    fn ask(&mut self, slot: Slot, query: &Query) -> Action {
        self.tell_of(slot, EventKind::Asked(query));
        let verdict = (self.decide)(query, &self.places.live(slot).ask.texts);
        self.tell_of(slot, EventKind::Decided(&verdict));
        self.follow(&verdict.decision);
        let action = self.step(slot, Event::Decided(verdict.decision));
        if self.track.as_ref().is_some_and(|track| !track.is_followed_by(&action)) {
            self.leave_track();
        }
        action
    }

    /// Follows the record if this is the recorded decision; another decision leaves it.
    fn follow(&mut self, decision: &Decision) {
        let Some(track) = &mut self.track else { return };
        match track.decided(decision, &self.view.table) {
            Some(moment) => self.meet(moment),
            None => self.leave_track(),
        }
    }

    /// An attempt or a wait ends: the question that was recorded after it may come.
    fn expect_question(&mut self) {
        if let Some(track) = &mut self.track {
            track.ended();
            self.meet_question();
        }
    }

    fn meet_question(&mut self) {
        if let Some(moment) = self.track.as_ref().and_then(Track::upcoming) {
            self.meet(moment);
        }
    }

    fn meet(&mut self, moment: Moment) {
        self.now = self.now.max(moment.at);
        self.fleet.observe(Some(moment.observed));
    }

    /// Nothing more is known of what happens; the backends go on from what was last seen of them.
    fn leave_track(&mut self) {
        let Some(track) = self.track.take() else { return };
        self.fleet.observe(None);
        // Those that were asked had their seeds.
        for _ in 0..track.asked() {
            self.fleet.seed();
        }
        let pasts = track.pasts(self.now, &self.view.table, self.budgets.max_total);
        for (backend, past) in self.view.table.backends.iter().zip(&pasts) {
            self.fleet.set_initial_state(self.now, &backend.id, past);
        }
    }

    fn wait(&mut self, slot: Slot, ticket: Ticket, max: Duration) {
        let model = self.places.live(slot).exchange.model().clone();
        self.tell_of(slot, EventKind::Waits { max, model });
        self.places.live(slot).ticket = Some(ticket);
        self.tickets.insert(ticket, slot);
        let turn = self.places.next_turn(slot);
        let recorded = self.track.as_ref().map(|track| track.waits(self.now, max));
        self.agenda.add(self.now + recorded.flatten().unwrap_or(max), What::WaitOver(turn));
        if recorded == Some(None) {
            self.leave_track();
            self.serve_line();
        }
    }

    fn send(&mut self, slot: Slot, sending: &Sending) {
        let live = self.places.live(slot);
        let probe = live.exchange.permit().is_some_and(Permit::is_probe);
        let attempt = Attempt { now: self.now, exchange: live.number, ask: &live.ask, sending };
        let answer = self.outside.answer(&attempt);
        let dialect = self.view.backend(sending.backend).dialect;
        let sent = Sent { facts: &live.ask.facts, sending, dialect, at: self.now, told: live.tokens };
        let mut decided = Vec::new();
        let result = match &self.track {
            Some(track) => {
                let scripted = loop {
                    let result = attempt::run(&answer, sent, &decided);
                    if result.overdue.is_none() {
                        break result;
                    }
                    let at = self.now + result.end;
                    decided.push(if track.goes_on(at) { Late::GoesOn(at + RECORDED_LOOK) } else { Late::Ends });
                };
                track.result(self.now, scripted)
            }
            None => attempt::run(&answer, sent, &decided),
        };
        let (commit, end) = (result.commit, result.end);
        live.under_way = Some(UnderWay { answer, decided, told: live.tokens });
        live.committed = false;
        live.sent_at = self.now;
        live.result = Some(result);
        let model = live.exchange.model().clone();
        self.tell_of(slot, EventKind::Sent { sending, probe, model });
        let turn = self.places.next_turn(slot);
        match commit {
            Some(commit) => self.agenda.add(self.now + commit, What::Commit(turn)),
            None => self.agenda.add(self.now + end, What::End(turn)),
        }
    }

    fn commit(&mut self, slot: Slot) {
        self.learn(slot);
        let live = self.places.live(slot);
        let (Some(sending), Some(result)) = (live.exchange.sending(), &live.result) else { return };
        live.committed = true;
        live.client_view = ClientView { status: result.status, by: Some((sending.lane, sending.backend)), error: None };
        let left = result.end.saturating_sub(result.commit.unwrap_or_default());
        self.tell_of(slot, EventKind::Committed);
        self.go_on(slot, Event::Committed);
        match left.is_zero() {
            true => self.end_attempt(slot),
            false => {
                let turn = self.places.next_turn(slot);
                self.agenda.add(self.now + left, What::End(turn));
            }
        }
    }

    fn end_attempt(&mut self, slot: Slot) {
        self.learn(slot);
        if self.goes_on(slot) {
            return;
        }
        let live = self.places.live(slot);
        let Some(AttemptResult { ended, status, .. }) = live.result.take() else { return };
        let outcome = &ended.outcome;
        if live.client_view.by.is_some() && outcome.kind != Kind::Answered {
            live.client_view.error = Some(outcome.message.clone());
        }
        let kept = explains_itself(outcome.kind, live.ask.facts.idempotent).then(|| {
            let by = live.exchange.sending().map(|s| (s.lane, s.backend));
            ClientView { status, by, error: Some(outcome.message.clone()) }
        });
        let event = live.ended(ended);
        self.expect_question();
        let action = self.step(slot, event);
        let live = self.places.live(slot);
        // The first is kept, to be passed on; one after which no other try can help is the last word.
        let before = live.refusal.take();
        live.refusal = if matches!(action, Action::PassOn) { kept.or(before) } else { before.or(kept) };
        if let Some(record) = live.exchange.attempts().last() {
            let scene = Scene { now: self.now, exchange: live.number, fleet: &self.fleet, view: &self.view };
            self.watcher.saw(&scene, EventKind::Ended(record));
        }
        self.act(slot, action);
    }

    /// Decides about a time limit that has passed in the attempt under way. False when the attempt is over.
    fn goes_on(&mut self, slot: Slot) -> bool {
        let live = self.places.live(slot);
        let (Some(overdue), Some(under_way)) = (live.result.as_ref().and_then(|r| r.overdue), &mut live.under_way)
        else {
            return false;
        };
        let late = match live.exchange.overdue(&mut self.fleet, self.now, overdue, asks_stream(&live.ask.facts)) {
            Some(until) => Late::GoesOn(until),
            None => Late::Ends,
        };
        under_way.decided.push(late);
        let Some(sending) = live.exchange.sending() else { return false };
        let dialect = self.view.backend(sending.backend).dialect;
        let sent = Sent { facts: &live.ask.facts, sending, dialect, at: live.sent_at, told: under_way.told };
        let result = attempt::run(&under_way.answer, sent, &under_way.decided);
        let commit = result.commit.filter(|_| !live.committed);
        let at = live.sent_at + commit.unwrap_or(result.end);
        // What was learned from its head is not learned again.
        let limits_left = if live.committed { Default::default() } else { result.limits_left };
        live.result = Some(AttemptResult { limits_left, ..result });
        if late == Late::Ends {
            return false;
        }
        let turn = self.places.next_turn(slot);
        self.agenda.add(at, if commit.is_some() { What::Commit(turn) } else { What::End(turn) });
        true
    }

    /// Applies the provider's rate limit headers.
    fn learn(&mut self, slot: Slot) {
        let live = self.places.live(slot);
        if let (Some(permit), Some(result)) = (live.exchange.permit(), &mut live.result)
            && let (requests, tokens) = std::mem::take(&mut result.limits_left)
            && (requests.is_some() || tokens.is_some())
        {
            self.fleet.learn(permit, requests, tokens);
        }
    }

    fn finish(&mut self, slot: Slot, end: End, told: ClientView) {
        let Some(live) = self.places.take(slot) else { return };
        let attempts = live.exchange.attempts();
        if let Some((_, gate)) = self.clients.get_mut(live.ask.facts.client as usize) {
            let used = attempts.iter().map(|attempt| attempt.usage.total()).fold(0, u64::saturating_add);
            let cost_usd = total_usd(attempts.iter().map(|attempt| attempt.cost_usd));
            gate.leave(self.now, used, cost_usd, live.reserved_usd);
        }
        let finished = Finished {
            end,
            status: told.status,
            by: told.by,
            error: told.error.as_deref(),
            took: self.now.since(live.arrived),
            attempts,
            waits: live.exchange.waits(),
        };
        self.tell(live.number, EventKind::Finished(&finished));
    }

    fn tell_of(&mut self, slot: Slot, sight: EventKind<'_>) {
        let number = self.places.live(slot).number;
        self.tell(number, sight);
    }

    fn tell(&mut self, exchange: u64, sight: EventKind<'_>) {
        let scene = Scene { now: self.now, exchange, fleet: &self.fleet, view: &self.view };
        self.watcher.saw(&scene, sight);
    }
}
