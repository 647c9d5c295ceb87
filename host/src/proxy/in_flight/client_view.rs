//! The exchange as its client sees it: what was sent, and how it ended.

use std::sync::Arc;
use std::time::Duration;

use pointsman_core::denial::Denial;
use pointsman_core::exchange::{Action, Ended, Event, Reason};
use pointsman_core::outcome::Kind;
use pointsman_core::record::End;
use pointsman_core::table::Lane;

use super::InFlight;
use crate::proxy::served_by::ServedBy;

/// The exchange as the client sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct ClientView {
    pub(super) status: u16,
    pub(super) lane: Option<Lane>,
    pub(super) backend: Option<Arc<str>>,
    pub(super) first_byte: Option<Duration>,
    pub(super) error: Option<String>,
    pub(super) end: Option<End>,
    pub(super) denied: Option<Denial>,
}

impl InFlight {
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
}
