//! Exchanges under way, and the events that are due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use pointsman_core::exchange::{Ended, Event, Exchange, Join};
use pointsman_core::fleet::Ticket;
use pointsman_core::outcome::{Kind, Outcome};
use pointsman_core::record::Usage;
use pointsman_core::table::Lane;
use pointsman_core::time::Timestamp;

use super::Ask;
use super::attempt::{AttemptResult, Late};
use crate::answer::{Answer, asks_stream};

/// The place of an exchange under way; used again after its end.
pub(super) type Slot = u32;

/// An exchange under way, and the event that it waits for.
pub(super) struct InFlight {
    pub number: u64,
    pub exchange: Exchange,
    pub ask: Ask,
    pub arrived: Timestamp,
    /// Money reserved of its client's budget, USD.
    pub reserved_usd: f64,
    /// Its place in the queue while it waits.
    pub ticket: Option<Ticket>,
    /// While an attempt is under way.
    pub result: Option<AttemptResult>,
    /// The answer of that attempt, to run it again.
    pub under_way: Option<UnderWay>,
    /// The first refusal that explains itself.
    pub refusal: Option<ClientView>,
    /// Content sent to the client by the committed attempt.
    pub client_view: ClientView,
    /// Time when the attempt under way was sent.
    pub sent_at: Timestamp,
    /// True once the attempt under way is committed.
    pub committed: bool,
    /// Tokens of a stream that the client has.
    pub tokens: u32,
}

/// Inputs with which an attempt is run again, when a time limit has passed that ends it only where another backend can answer.
pub(super) struct UnderWay {
    pub answer: Answer,
    /// About the limits that have passed.
    pub decided: Vec<Late>,
    /// Tokens that its client had when it was sent.
    pub told: u32,
}

impl InFlight {
    pub(super) fn new(number: u64, exchange: Exchange, ask: Ask, arrived: Timestamp) -> Self {
        Self {
            number,
            exchange,
            ask,
            arrived,
            reserved_usd: 0.0,
            ticket: None,
            result: None,
            under_way: None,
            refusal: None,
            client_view: ClientView::default(),
            sent_at: arrived,
            committed: false,
            tokens: 0,
        }
    }
}

impl InFlight {
    /// Builds the event for the end of the attempt under way; of a committed one, with the part that the client has.
    pub(super) fn ended(&mut self, ended: Ended) -> Event {
        if !self.committed {
            return Event::Ended(ended);
        }
        let seen = u32::try_from(ended.usage.output_tokens).unwrap_or(u32::MAX);
        self.tokens = match self.exchange.sending().and_then(|sending| sending.join) {
            Some(Join::Prefill) => self.tokens.saturating_add(seen),
            Some(Join::Splice) | None => self.tokens.max(seen),
        };
        if ended.outcome.kind != Kind::Answered && asks_stream(&self.ask.facts) {
            Event::Broke(ended)
        } else {
            Event::Ended(ended)
        }
    }
}

impl InFlight {
    /// The client leaves: of a committed attempt, what went downstream until now is paid.
    pub(super) fn left(&mut self, now: Timestamp) -> Event {
        let Some(result) = self.result.take().filter(|_| self.committed) else { return Event::ClientGone };
        let Ended { usage, first_byte, first_token, .. } = result.ended;
        let begun = result.commit.unwrap_or_default();
        let (lasts, lasted) = (result.end.saturating_sub(begun), now.since(self.sent_at).saturating_sub(begun));
        let share = if lasts.is_zero() { 1.0 } else { lasted.div_duration_f64(lasts).min(1.0) };
        let output_tokens = (usage.output_tokens as f64 * share) as u64;
        let outcome = Outcome::new(Kind::ClientGone, "the client went away");
        let usage = Usage { output_tokens, estimated: true, ..usage };
        Event::Ended(Ended { outcome, usage, first_byte, first_token, upstream_id: None })
    }
}

/// The exchange as its client sees it.
#[derive(Debug, Default)]
pub(super) struct ClientView {
    pub status: u16,
    pub by: Option<(Lane, u32)>,
    pub error: Option<String>,
}

/// A moment in the life of a place; what is due is void when the place has moved on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    pub slot: Slot,
    number: u32,
}

/// Exchanges under way, in places that are used again.
#[derive(Default)]
pub(super) struct Places {
    places: Vec<(u32, Option<InFlight>)>,
    free: Vec<Slot>,
}

impl Places {
    pub(super) fn put(&mut self, live: InFlight) -> Slot {
        match self.free.pop() {
            Some(slot) => {
                self.places[slot as usize].1 = Some(live);
                slot
            }
            None => {
                self.places.push((0, Some(live)));
                u32::try_from(self.places.len() - 1).expect("fewer exchanges are under way than fit into memory")
            }
        }
    }

    pub(super) fn live(&mut self, slot: Slot) -> &mut InFlight {
        self.places[slot as usize].1.as_mut().expect("a place is named only while its exchange is under way")
    }

    /// Returns true if this exchange is still under way in the slot.
    pub(super) fn holds(&self, slot: Slot, exchange: u64) -> bool {
        self.places[slot as usize].1.as_ref().is_some_and(|live| live.number == exchange)
    }

    /// Returns true if the slot's exchange has not moved on since.
    pub(super) fn is_turn(&self, turn: Turn) -> bool {
        self.places[turn.slot as usize].0 == turn.number
    }

    /// Voids what was due there, and begins another turn.
    pub(super) fn next_turn(&mut self, slot: Slot) -> Turn {
        let number = &mut self.places[slot as usize].0;
        *number = number.wrapping_add(1);
        Turn { slot, number: *number }
    }

    pub(super) fn take(&mut self, slot: Slot) -> Option<InFlight> {
        self.next_turn(slot);
        let live = self.places[slot as usize].1.take();
        self.free.extend(live.is_some().then_some(slot));
        live
    }
}

/// An event that may be due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// Time alone may have brought capacity for the waiting line.
    Alarm,
    /// A wait's time is up.
    WaitOver(Turn),
    /// The first byte goes downstream.
    Commit(Turn),
    /// The attempt ends.
    End(Turn),
    /// The client of this exchange has no patience left.
    Leave {
        /// Slot of the exchange, if it is still under way.
        slot: Slot,
        /// Number of its exchange.
        exchange: u64,
    },
}

/// Something that is due. What is due at the same time comes in the order in which it was planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    pub at: Timestamp,
    sequence: u64,
    pub what: What,
}

/// Events to come, by their time.
#[derive(Default)]
pub(super) struct Agenda {
    heap: BinaryHeap<Reverse<Due>>,
    planned: u64,
}

impl Agenda {
    pub(super) fn add(&mut self, at: Timestamp, what: What) {
        self.planned += 1;
        self.heap.push(Reverse(Due { at, sequence: self.planned, what }));
    }

    pub(super) fn next_at(&self) -> Option<Timestamp> {
        self.heap.peek().map(|Reverse(due)| due.at)
    }

    pub(super) fn pop(&mut self) -> Option<Due> {
        self.heap.pop().map(|Reverse(due)| due)
    }
}
