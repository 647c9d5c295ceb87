//! Live events for watchers of the admin API. Without a watcher an event costs one atomic load.

use std::sync::Arc;

use pointsman_core::fleet::state_change::StateChange;
use pointsman_core::record::ExchangeRecord;
use pointsman_core::rfc3339::Rfc3339;
use serde::Serialize;

use super::backlog::{Backlog, Bounds, Event, Watcher};
use super::line;

/// Events kept for watchers that are slower than they come; each is told how many it missed beyond them.
const BACKLOG: Bounds = Bounds { events: 1_024, bytes: 4 << 20 };

/// More do not watch at a time.
pub const MAX_WATCHERS: usize = 64;

/// Sender and subscription point of events; cheap to clone.
#[derive(Clone, Debug)]
pub struct Events(Arc<Backlog>);

impl Default for Events {
    fn default() -> Self {
        Self(Backlog::new(BACKLOG))
    }
}

impl Events {
    /// An exchange is over; its facts are those of the JSON log line.
    pub fn exchange(&self, record: &ExchangeRecord) {
        if self.is_watched() {
            let mut json = Vec::new();
            line::json(&mut json, record);
            self.tell("exchange", String::from_utf8_lossy(&json).trim_end());
        }
    }

    /// A configuration or policy came into force, or was refused for this `error`.
    pub fn change(&self, what: &'static str, revision: Option<&str>, error: Option<&str>) {
        #[derive(Serialize)]
        struct Change<'a> {
            what: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            revision: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            error: Option<&'a str>,
        }
        if self.is_watched()
            && let Ok(json) = serde_json::to_string(&Change { what, revision, error })
        {
            self.tell("change", &json);
        }
    }

    /// A step of a guarded promotion.
    pub fn promotion(&self, step: &'static str, candidate: &str, control: &str, why: &str) {
        if self.is_watched() {
            let facts = serde_json::json!({ "step": step, "candidate": candidate, "control": control, "why": why });
            self.tell("promotion", &facts.to_string());
        }
    }

    /// The state of a backend, or of a model or an operation on it, changed.
    pub fn backend(&self, change: &StateChange) {
        #[derive(Serialize)]
        struct BackendEvent<'a> {
            at: String,
            backend: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            model: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            operation: Option<&'a str>,
            state: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            reason: Option<&'static str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            until: Option<String>,
            left_out: u32,
        }
        if !self.is_watched() {
            return;
        }
        let cooldown = change.change.cooldown();
        let event = BackendEvent {
            at: Rfc3339(change.at).to_string(),
            backend: &change.backend,
            model: change.model.as_deref(),
            operation: change.operation.as_deref(),
            state: change.change.as_str(),
            reason: cooldown.map(|(_, reason)| reason.as_str()),
            until: cooldown.map(|(until, _)| Rfc3339(until).to_string()),
            left_out: change.left_out,
        };
        if let Ok(json) = serde_json::to_string(&event) {
            self.tell("backend", &json);
        }
    }

    /// Sees what happens from now on; none when [`MAX_WATCHERS`] watch already.
    pub fn watch(&self) -> Option<Watcher> {
        (self.0.watchers() < MAX_WATCHERS).then(|| self.0.watch())
    }

    fn is_watched(&self) -> bool {
        self.0.watchers() > 0
    }

    fn tell(&self, kind: &'static str, data: &str) {
        self.0.push(Event { kind, data: data.into() });
    }
}

#[cfg(test)]
mod tests {
    use super::super::backlog::Read;
    use super::*;

    #[test]
    fn a_change_is_told_to_who_watches() {
        let events = Events::default();
        events.change("policy", Some("abc"), None);
        let mut watcher = events.watch().unwrap();
        events.change("config", None, Some("line 3: \"what\"?"));
        let Some(Read::Event(event)) = watcher.try_read() else { panic!("it is told") };
        assert_eq!((event.kind, &*event.data), ("change", r#"{"what":"config","error":"line 3: \"what\"?"}"#));
        assert!(watcher.try_read().is_none(), "what was before is not told");
    }

    #[test]
    fn watchers_are_bounded() {
        let events = Events::default();
        let watching: Vec<_> = (0..MAX_WATCHERS).map(|_| events.watch().unwrap()).collect();
        assert!(events.watch().is_none());
        drop(watching);
        assert!(events.watch().is_some());
    }
}
