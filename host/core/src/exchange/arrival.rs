//! The begin of an exchange: what is known of its request when it arrives.

use std::sync::Arc;
use std::time::Duration;

use super::types::{Action, Budgets, ExhaustedStatus, Facts, StreamDefaults};
use super::{Exchange, Phase};
use crate::affinity::Home;
use crate::contract::NONE;
use crate::exhaustion::Repetition;
use crate::fleet::Fleet;
use crate::origin::{Endpoint, Origin, Size};
use crate::rank::Rank;
use crate::time::Timestamp;
use crate::view::{View, Want};

/// The longest wait of a request that was found exhausted a moment ago.
const MAX_WAIT_AGAIN: Duration = Duration::from_secs(10);

/// Tokens charged to a token limit for an answer of unknown length.
const ANSWER_TOKENS: u32 = 1_024;

/// Kind of backends that an exchange is confined to, whatever model its policy asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Only {
    /// Those that cost nothing: the client's budget is spent.
    pub free: bool,
    /// Those whose cost can be counted: the client has a budget.
    pub priced: bool,
    /// Those that serve every model as it is asked for: the request's model is not known.
    pub serving_all: bool,
}

impl Exchange {
    /// An exchange that has arrived at `now`.
    pub fn new(
        now: Timestamp,
        view: Arc<View>,
        model: &Arc<str>,
        facts: Facts,
        budgets: Budgets,
        streams: StreamDefaults,
    ) -> Self {
        let answer = if facts.max_tokens > 0 { facts.max_tokens.min(ANSWER_TOKENS) } else { ANSWER_TOKENS };
        let tokens = facts.prompt_tokens.saturating_add(answer);
        let rank = Rank::newcomer(facts.priority);
        let origin = origin_of(&facts);
        let want = Want { rank, origin, ..wanted(&view, model, &facts, tokens) };
        Self {
            view,
            want,
            facts,
            budgets,
            streams,
            arrived: now,
            phase: Phase::New,
            attempts: Vec::new(),
            attempt_facts: Vec::new(),
            scopes: Vec::new(),
            asked: 0,
            waits: 0,
            waited: Duration::ZERO,
            empty_waits: 0,
            lost_races: 0,
            queue_full: false,
            resuming: false,
            no_prefill: Vec::new(),
            only: Only::default(),
            left_out: Vec::new(),
            lost: Duration::ZERO,
            sent_at: now,
            relayed: Duration::ZERO,
            relaying_since: None,
            noted_overdue: None,
            warnings: Vec::new(),
            longest_hold: None,
            counted_from: 0,
            exhausted_status: ExhaustedStatus::Unavailable,
            priced_as: None,
            exhausted_before: None,
            announces_retries: false,
            exhausted_until: None,
            home: None,
        }
    }

    /// Its usage has the price of this model, by the name sent: it asks for an answer that was begun earlier.
    pub fn priced_as(mut self, model_sent: Option<String>) -> Self {
        self.priced_as = model_sent;
        self
    }

    /// Exhaustion by limits is told with this status.
    pub fn with_exhausted_status(mut self, status: ExhaustedStatus) -> Self {
        self.exhausted_status = status;
        self
    }

    /// It repeats a request that was just found exhausted: the attempts and waits of before count. It asks at most one of the
    /// backends that have failed, if that, and each other one that is ready once; and it does not wait. Once nobody needs to be
    /// waited for any more it may wait once and for a short time, as for a slot.
    pub fn after_exhaustion(mut self, before: Repetition) -> Self {
        self.exhausted_before = Some(before);
        self.budgets.max_waits = if self.arrived < before.until { 0 } else { self.budgets.max_waits.min(1) };
        self.budgets.max_wait = self.budgets.max_wait.min(MAX_WAIT_AGAIN);
        self
    }

    /// Its client says that it repeats by itself what fails: its own repetitions count for it.
    pub fn announcing_retries(mut self, announces: bool) -> Self {
        self.announces_retries = announces;
        self
    }

    /// Tells it which backend holds what the request builds on; one that binds is the only candidate, if it is one.
    pub fn at_home(mut self, home: Option<Home>) -> Self {
        self.want = self.view.at_home(self.want, home);
        self.home = self.want.home;
        self
    }

    /// Confines it to this kind of backends.
    pub fn only(mut self, only: Only) -> Self {
        self.only = only;
        self.want = self.confined(self.want.clone());
        self
    }

    /// Sets the endpoint that it uses and the length of its body.
    pub fn at_endpoint(mut self, endpoint: Endpoint, body_bytes: usize) -> Self {
        self.want.origin.endpoint = endpoint;
        self.want.origin.size.body_bytes = u32::try_from(body_bytes).unwrap_or(u32::MAX);
        self
    }

    /// Sets the number of its request ([`crate::origin::request_number`]): needed once an attempt has failed, and on arrival
    /// where [`Fleet::compares_requests`].
    pub fn set_request(&mut self, number: u64) {
        self.want.origin.request = number;
    }

    pub(super) fn confined(&self, want: Want) -> Want {
        let Only { free, priced, serving_all } = self.only;
        let want = if free { self.view.free_of(want) } else { want };
        let want = if priced { self.view.priced_of(want) } else { want };
        if serving_all { self.view.serving_all_of(want) } else { want }
    }

    pub(super) fn arrive(&mut self, fleet: &mut Fleet, now: Timestamp) -> Action {
        self.want.origin.exchange = fleet.number_request();
        if self.want.origin.request == 0 {
            self.want.origin.request = fleet.number_request();
        }
        if self.want.candidates.is_empty() {
            return Action::Reject(self.no_such_model());
        }
        match self.exhausted_again(fleet, now) {
            Some(told) => told,
            None => self.ask(fleet, now, None),
        }
    }
}

/// The origin of a request with these facts.
fn origin_of(facts: &Facts) -> Origin {
    let client = if facts.client == NONE { 0 } else { u64::from(facts.client) + 1 };
    let size = Size { body_bytes: 0, prompt_tokens: facts.prompt_tokens, answer_tokens: facts.max_tokens };
    Origin { client, size, ..Origin::unknown(facts.operation) }
}

/// Builds the want of an exchange with these facts.
pub(super) fn wanted(view: &View, model: &Arc<str>, facts: &Facts, tokens: u32) -> Want {
    if facts.translatable {
        view.want_across(model, facts.operation, tokens)
    } else {
        view.want(model, facts.operation, tokens)
    }
}
