//! From what the journal has to a story.

use std::sync::Arc;
use std::time::Duration;

use pointsman_core::contract::NONE;
use pointsman_core::journal::{Happened, Question};
use pointsman_core::record::End;
use pointsman_core::rfc3339;
use pointsman_core::table::{Lane, Table};
use pointsman_store::{AttemptRow, ExchangeRow, Journaled};

use crate::story::{Answered, Cost, Decided, Ended, Outcome, Sent, Story, Teller, title};

/// A recorded exchange as a story.
#[derive(Clone, Debug)]
pub struct Retold {
    /// Story of the exchange; times are from its arrival.
    pub story: Story,
    /// Decisions in order; the host's choice of a backend is named where the policy left it to the host.
    pub decisions: Vec<Decided>,
    /// End of the exchange.
    pub ended: Ended,
}

/// Makes the story of a recorded exchange.
pub fn retell(journaled: &Journaled) -> Retold {
    let Journaled { exchange, trail, setup, .. } = journaled;
    let title = title(&exchange.id, &exchange.model, &trail.facts);
    let mut retelling = Retelling {
        journaled,
        table: &setup.table,
        teller: Teller::new(title, &exchange.model, Duration::ZERO),
        decisions: Vec::new(),
        to_come: exchange.attempts.iter(),
    };
    for step in &trail.steps {
        retelling.step(step.at, &step.what);
    }
    retelling.finish()
}

struct Retelling<'a> {
    journaled: &'a Journaled,
    table: &'a Table,
    teller: Teller,
    decisions: Vec<Decided>,
    /// The attempts that have not ended yet.
    to_come: std::slice::Iter<'a, AttemptRow>,
}

impl Retelling<'_> {
    fn step(&mut self, at: Duration, what: &Happened) {
        match what {
            Happened::Asked(question) => self.asked(at, question),
            Happened::Waits { max } => self.teller.waits(at, self.table, *max),
            Happened::Waited { granted } => {
                let name = |index: u32| self.table.backends.get(index as usize).map(|backend| backend.id.clone());
                self.teller.waited(at, granted.and_then(name));
            }
            Happened::Sent { backend, lane, probe, join } => self.sent(at, *backend, *lane, *probe, *join),
            Happened::Committed => self.teller.committed(at),
            Happened::Ended => {
                if let Some(attempt) = self.to_come.next() {
                    self.teller.outcome(at, outcome(attempt));
                }
            }
        }
    }

    fn asked(&mut self, at: Duration, question: &Question) {
        let Question { query, decision, notes, fault, state, took } = question;
        self.teller.asked(at, self.table, query);
        let fault = fault.as_ref().map(|fault| (fault.kind.as_str(), fault.message.as_str()));
        let answered = Answered { decision, notes, fault, state, took: Some(*took) };
        self.decisions.push(self.teller.answered(at + *took, self.table, answered));
    }

    fn sent(
        &mut self,
        at: Duration,
        backend: u32,
        lane: Lane,
        probe: bool,
        join: Option<pointsman_core::exchange::Join>,
    ) {
        if let Some(last) = self.decisions.last_mut().filter(|d| d.backend.is_none()) {
            last.backend = self.table.backends.get(backend as usize).map(|backend| backend.id.clone());
        }
        let model = self.to_come.as_slice().first().map_or("", |attempt| attempt.model_sent.as_str());
        self.teller.sent(at, self.table, Sent { backend, lane, model, probe, join });
    }

    fn finish(mut self) -> Retold {
        let exchange = &self.journaled.exchange;
        // The attempt that its client left has no end of its own in the trail.
        for attempt in self.to_come.by_ref() {
            self.teller.outcome(ended_at(exchange, attempt), outcome(attempt));
        }
        let ended = ended(exchange);
        let last = self.teller.story.moments.last().map_or(Duration::ZERO, |(at, _)| *at);
        let waits = (exchange.waits, Duration::from_millis(exchange.waited_ms));
        let over = ended.took.max(last);
        self.teller.ended(over, &ended, waits);
        if let Some(usd) = exchange.saved_usd {
            self.teller.saved(over, usd, exchange.waits > 0);
        }
        Retold { story: self.teller.story, decisions: self.decisions, ended }
    }
}

fn ended(exchange: &ExchangeRow) -> Ended {
    let end = End::parse(&exchange.end).unwrap_or(End::Broken);
    let lane = exchange.lane.as_deref().and_then(Lane::parse);
    let by = lane.zip(exchange.backend.as_deref().map(Arc::from));
    let took = Duration::from_millis(exchange.elapsed_ms);
    Ended { end, status: exchange.status, by, took, error: exchange.error.clone() }
}

fn outcome(attempt: &AttemptRow) -> Outcome {
    Outcome {
        backend: attempt.backend.as_str().into(),
        outcome: attempt.outcome.clone(),
        scope: attempt.scope.clone(),
        status: attempt.status,
        took: Duration::from_millis(attempt.elapsed_ms),
        first_token: attempt.first_token_ms.map(Duration::from_millis),
        retry_after: attempt.retry_after_ms.map(Duration::from_millis),
        message: attempt.message.clone().unwrap_or_default(),
        cost: Cost {
            usd: attempt.cost_usd,
            input_tokens: attempt.input_tokens,
            output_tokens: attempt.output_tokens,
            cached_input_tokens: attempt.cached_input_tokens,
            estimated: attempt.estimated,
        },
    }
}

/// Computes when an attempt ended, from the arrival.
fn ended_at(exchange: &ExchangeRow, attempt: &AttemptRow) -> Duration {
    let ms = |text: &str| rfc3339::parse(text).unwrap_or_default();
    ms(&attempt.started).since(ms(&exchange.started)) + Duration::from_millis(attempt.elapsed_ms)
}

/// The client's name on the request, if it had a key.
pub(super) fn client(journaled: &Journaled) -> Option<&str> {
    let index = journaled.trail.facts.client;
    (index != NONE).then(|| journaled.setup.table.clients.get(index as usize)).flatten().map(String::as_str)
}
