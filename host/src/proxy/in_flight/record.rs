//! The end of an exchange: it is settled, and one record is made of it.

use pointsman_core::affinity::BackgroundResponse;
use pointsman_core::exchange::{Ended, Event};
use pointsman_core::outcome::{Kind, Outcome};
use pointsman_core::record::{End, ExchangeRecord};
use pointsman_core::time::Timestamp;

use super::InFlight;
use crate::proxy::journal;

impl InFlight {
    /// The client went away: with what the attempt under way has used, if there was one.
    fn client_gone(&self) -> Event {
        let Some(usage) = self.request.abandoned.usage.get().filter(|usage| usage.total() > 0) else {
            return Event::ClientGone;
        };
        let gone = Outcome::new(Kind::ClientGone, "the client went away");
        Event::Ended(Ended { usage: *usage, ..Ended::failed(gone) })
    }

    /// The response that was begun in the background, if its answer did not tell what it used.
    fn begun_in_background(&self, record: &ExchangeRecord) -> Option<BackgroundResponse> {
        if !self.request.begins_in_background() {
            return None;
        }
        let key = self.learner.as_ref()?.response()?;
        let last = record.attempts.last().filter(|last| last.usage.estimated || last.usage.total() == 0)?;
        Some(BackgroundResponse { key, model_sent: last.model_sent.clone(), counted: last.usage })
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
            Some(until) if self.request.pinned.is_none() => {
                let tries = self.exchange.attempts().len() as u32;
                self.proxy.exhausted.insert(now, &self.request, until, tries);
            }
            Some(_) | None => {}
        }
        let record = self.record(now);
        if let Some(begun) = self.begun_in_background(&record) {
            self.proxy.background.begun(begun);
        }
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
