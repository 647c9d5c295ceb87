//! State that survives a restart: cooldowns in force and drained backends.

use std::sync::Arc;

use super::health::Health;
use super::member::Member;
use super::members::Fleet;
use crate::outcome::Kind;
use crate::time::Timestamp;

/// A cooldown saved for the next start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedCooldown {
    /// Id of the backend.
    pub backend: String,
    /// The model as it is named to the backend; `None`: the whole backend.
    pub model: Option<String>,
    /// Time at which the cooldown ends.
    pub until: Timestamp,
    /// Kind of the outcome that caused it.
    pub reason: Kind,
    /// Failures since the last answer.
    pub failures: u32,
}

/// Requests and tokens sent to a backend in a short time before a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedBefore {
    /// Name of the model as it is sent.
    pub model_sent: String,
    /// The end of that time.
    pub at: Timestamp,
    /// Requests of the minute.
    pub requests: u32,
    /// Tokens of the minute, prompt and answer.
    pub tokens: u32,
}

impl Fleet {
    /// Takes what a backend was sent within the last day out of its limits of a day, oldest first.
    pub fn restore_day(&mut self, backend: &str, used: &[UsedBefore]) {
        self.update_member(backend, |member| {
            for UsedBefore { model_sent, at, requests, tokens } in used {
                member.restore_day(*at, model_sent, *requests, *tokens);
            }
        });
    }

    /// The cooldowns in force, to be saved for the next start.
    pub fn cooldowns(&self, now: Timestamp) -> Vec<SavedCooldown> {
        let of_member = |member: &Member| -> Vec<SavedCooldown> {
            let keep = |(model, health): (Option<&Arc<str>>, &Health)| SavedCooldown {
                backend: member.id.to_string(),
                model: model.map(|m| m.to_string()),
                until: health.until,
                reason: health.reason,
                failures: health.failures,
            };
            member.cooldowns(now).map(keep).collect()
        };
        self.all().flat_map(of_member).collect()
    }

    /// The configured backends that the operator drained, to be saved for the next start.
    pub fn drained(&self) -> Vec<Arc<str>> {
        self.configured().filter(|member| member.is_drained()).map(|member| member.id.clone()).collect()
    }

    /// Restores saved cooldowns after a restart. Those of unknown backends are dropped, and those for a refused key,
    /// because keys are often changed by a restart.
    pub fn restore(&mut self, now: Timestamp, saved: &[SavedCooldown]) {
        for cooldown in saved.iter().filter(|c| c.until > now && c.reason != Kind::Unauthorised) {
            let SavedCooldown { backend, model, until, reason, failures } = cooldown;
            let health = Health::restored(*until, *reason, *failures);
            self.update_member(backend, |member| member.restore(now, model.as_deref(), health));
        }
    }
}
