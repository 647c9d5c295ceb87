//! Going back to an earlier policy: by the operator's word, or because this one fails too often.

use axum::body::Bytes;
use pointsman_engine::Revision;

use super::component::Component;
use super::history::{End, Entry};
use super::policy::Place;
use super::settings::Standing;
use super::{About, Control};
use crate::drive::Snapshot;
use pointsman_core::lifecycle::Rollback;

/// From which revision to which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WentBack {
    /// The one left.
    pub from: String,
    /// The one in force.
    pub to: String,
}

/// Why the policy cannot go back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotGoBack {
    /// No such revision is kept.
    #[error("revision {asked:?} is not kept; there is {kept}")]
    Unknown {
        /// What was asked for.
        asked: String,
        /// What there is.
        kept: String,
    },
    /// It is in force.
    #[error("revision {0} is in force already")]
    InForce(String),
    /// There is none to go back to.
    #[error("there is no earlier policy revision to go back to; with ?to=REVISION any that is kept is taken: {0}")]
    Nothing(String),
    /// It does not decide any more.
    #[error("{0}")]
    Refused(String),
}

impl Control {
    /// Brings an earlier revision back into force: the one of this name, or the latest that gave way to a newer one. A
    /// file whose content does not change does not bring the other back.
    ///
    /// # Errors
    /// When there is none, or the configuration of today is not for it; what is in force stays.
    pub async fn rollback(&self, to: Option<&str>) -> Result<WentBack, CannotGoBack> {
        let _turn = self.one_at_a_time.lock().await;
        let before = self.proxy.snapshot();
        let entry = self.wanted(to)?;
        match self.kept(&before, &entry).await {
            Ok(revision) => {
                // To return to what was left before is no verdict on what is left now.
                let (end, verb) = match entry.ended.as_ref().map(|ended| ended.end) {
                    Some(End::Replaced) => (End::RolledBack, "went back to"),
                    Some(End::RolledBack | End::Faults) | None => (End::Replaced, "took again"),
                };
                let why = format!("the operator {verb} {}", entry.hash.revision());
                let place = Place::back_to(entry, end, why);
                Ok(self.go_back(&before, revision, place, Rollback::Operator).await)
            }
            Err(error) => {
                let error = error.context(format!("revision {} cannot come back", entry.hash.revision()));
                self.refused_policy(About::Rollback, &error);
                Err(CannotGoBack::Refused(format!("{error:#}")))
            }
        }
    }

    fn wanted(&self, to: Option<&str>) -> Result<Entry, CannotGoBack> {
        let state = self.state();
        let names: Vec<_> = state.history.newest_first().map(|entry| entry.hash.revision()).collect();
        let kept = names.join(", ");
        let Some(to) = to else {
            return state.history.good().next().cloned().ok_or(CannotGoBack::Nothing(kept));
        };
        match state.history.find(to) {
            None => Err(CannotGoBack::Unknown { asked: to.chars().take(64).collect(), kept }),
            Some(entry) if entry.ended.is_none() => Err(CannotGoBack::InForce(to.to_owned())),
            Some(entry) => Ok(entry.clone()),
        }
    }

    /// The policy in force failed too often: goes back to the latest that did not, where there is one. Without one it
    /// stays, and the native fallback goes on to decide what it does not: a default that nobody asked for would be another
    /// surprise.
    pub(super) async fn give_up(&self) {
        let _turn = self.one_at_a_time.lock().await;
        let before = self.proxy.snapshot();
        let Some(why) = before.fault_stats.trip_reason() else { return };
        let good: Vec<Entry> = self.state().history.good().cloned().collect();
        for entry in good {
            match self.kept(&before, &entry).await {
                Ok(revision) => {
                    let (from, to) = (before.policy.id(), revision.id());
                    tracing::error!(%from, %to, why, "the policy failed too often and was rolled back to the last good one");
                    let error = Some(format!("revision {from} was rolled back to {to}: {why}"));
                    let place = Place { error, ..Place::back_to(entry, End::Faults, why.to_owned()) };
                    self.go_back(&before, revision, place, Rollback::Faults).await;
                    return;
                }
                Err(error) => {
                    let (revision, error) = (entry.hash.revision(), format!("{error:#}"));
                    tracing::error!(revision, error, "this revision cannot be restored; trying the one before it");
                }
            }
        }
        let policy = before.policy.id();
        tracing::error!(%policy, why, "the policy fails too often, and there is no earlier one to roll back to: it stays in force, and the default policy decides where it fails");
        self.proxy.metrics.rolled_back(Rollback::Stayed);
        let why = format!("revision {policy} fails too often, and there is no earlier one to go back to: {why}");
        let refusal = self.refusal(About::Rollback, why);
        self.state().policy_refusal = Some((About::Rollback, refusal));
    }

    async fn go_back(&self, before: &Snapshot, revision: Revision, place: Place<'_>, cause: Rollback) -> WentBack {
        let went = WentBack { from: before.policy.id().to_string(), to: revision.id().to_string() };
        self.proxy.metrics.rolled_back(cause);
        self.take(before, revision, place).await;
        went
    }

    /// A kept revision under the configuration of now.
    async fn kept(&self, before: &Snapshot, entry: &Entry) -> anyhow::Result<Revision> {
        let hash = entry.hash;
        let component = match self.compiled(&hash) {
            // The bytes are not looked at again.
            Some(_) => Component { bytes: Bytes::new(), hash },
            None => Component::kept(&self.policies, hash).await?,
        };
        let standing = Standing::kept(entry, &self.state().history, &before.config);
        self.judge(&component, &before.config, before.view.table.clone(), &standing).await
    }
}
