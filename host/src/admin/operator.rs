//! The proxy as its operator sees and works it.

mod views;

use std::sync::Arc;

use axum::body::Bytes;
use pointsman_core::contract::RowState;
use pointsman_core::fleet::{Fleet, Overview};
use pointsman_core::lifecycle::promotion::Plan;
use pointsman_core::table::Lane;
use pointsman_core::time::Timestamp;
use pointsman_engine::left_out_words;
use tokio::runtime::Handle;

use super::{
    BackendCounts, BackendView, ConfigView, ControlError, Controls, LaneView, PolicyEventView, PolicyView, ReadyView,
    RevisionView, RollbackView, ShadowReport,
};
use crate::config::BackendConfig;
use crate::control::kept_states;
use crate::control::{CannotUpload, Control, WentBack};
use crate::telemetry::rfc3339::Rfc3339;
use pointsman_core::lifecycle::CannotGoBack;
use pointsman_core::lifecycle::UploadOptions;
use pointsman_core::lifecycle::history::Entry;
use pointsman_core::lifecycle::promotion::CannotPromote;

/// The admin listener's hands and eyes.
pub struct Operator {
    control: Arc<Control>,
    runtime: Handle,
}

impl Operator {
    /// Works on the proxy under this control; must be made inside the runtime.
    pub fn new(control: Arc<Control>) -> Self {
        Self { control, runtime: Handle::current() }
    }

    fn work(&self, id: &str, f: impl FnOnce(&mut Fleet, Timestamp) -> bool) -> Result<(), ControlError> {
        if self.control.proxy().line.with(f) {
            kept_states::save(self.control.proxy());
            return Ok(());
        }
        Err(ControlError::NotFound(format!("there is no backend {id:?}; GET /api/backends lists them")))
    }
}

impl Operator {
    fn promoted(&self, done: Result<(), CannotPromote>) -> Result<PolicyView, ControlError> {
        match done {
            Ok(()) => Ok(self.policy()),
            Err(
                error @ (CannotPromote::UnderWay(_)
                | CannotPromote::InForce(_)
                | CannotPromote::Superseded(_)
                | CannotPromote::None),
            ) => Err(ControlError::Conflict(error.to_string())),
            Err(error @ CannotPromote::Refused(_)) => Err(ControlError::Refused(error.to_string())),
        }
    }
}

impl Controls for Operator {
    fn backends(&self) -> Vec<BackendView> {
        let proxy = self.control.proxy();
        let snapshot = proxy.snapshot();
        let (overview, now) = proxy.line.with(|fleet, now| (fleet.overview(now, &snapshot.view), now));
        let view = |(backend, o): (&BackendConfig, Overview)| BackendView {
            id: o.id.to_string(),
            tier: backend.backend.tier.as_str(),
            dialect: backend.backend.dialect.as_str(),
            base_url: backend.base_url.to_string(),
            models: backend.backend.routes.iter().filter(|r| r.is_served()).map(|r| r.asked.to_string()).collect(),
            state: state_word(o.state),
            cooldown_ms: o.cooldown.map_or(0, |(until, _)| until.since(now).as_millis() as u64),
            cooldown_reason: o.cooldown.map(|(_, reason)| reason.as_str().to_owned()),
            models_cooling: o.models_cooling as u64,
            model_cooldowns: o.model_cooldowns.iter().map(|cooldown| views::model_cooldown(cooldown, now)).collect(),
            in_flight: u64::from(o.in_flight),
            requests_left: o.requests_left.map(u64::from),
            tokens_left: o.tokens_left.map(u64::from),
            latency_ms: o.stats.latency_ms as u64,
            first_token_ms: o.stats.first_token_ms as u64,
            error_permille: (o.stats.errors * 1_000.0) as u32,
            failures: o.failures,
            served: o.stats.answered,
            attempts: o.stats.sent,
        };
        snapshot.config.backends.iter().zip(overview).map(view).collect()
    }

    fn lanes(&self) -> Vec<LaneView> {
        let queued = self.control.proxy().line.with(|fleet, _| Lane::ALL.map(|lane| fleet.waiting_in(lane) as u64));
        Lane::ALL.iter().zip(queued).map(|(lane, queued)| LaneView { lane: lane.as_str(), queued }).collect()
    }

    fn policy(&self) -> PolicyView {
        let snapshot = self.control.proxy().snapshot();
        let status = self.control.status();
        let (decisions, faults) = (snapshot.fault_stats.decisions(), snapshot.fault_stats.faults());
        let lifecycle = &status.lifecycle;
        let history: Vec<RevisionView> = lifecycle
            .history()
            .newest_first()
            .map(|entry| match &entry.ended {
                None => RevisionView {
                    decisions: entry.decisions + decisions,
                    faults: entry.faults + faults,
                    ..revision_view(entry)
                },
                Some(_) => revision_view(entry),
            })
            .collect();
        let in_force = history.iter().find(|entry| entry.end.is_none()).cloned().unwrap_or_default();
        PolicyView {
            revision: in_force.revision,
            origin: in_force.origin,
            since: in_force.taken_at,
            name: snapshot.policy.name().map(str::to_owned),
            settings: serde_json::from_str(snapshot.policy.settings()).unwrap_or_default(),
            settings_left_out: snapshot.policy.left_out().to_vec(),
            warning: left_out_words(snapshot.policy.left_out()),
            decisions: in_force.decisions,
            faults: in_force.faults,
            last_error: lifecycle.policy_refusal().map(|refusal| refusal.error.clone()),
            refusal: lifecycle.policy_refusal().map(views::refusal),
            history_error: status.not_kept,
            live_revisions: status.live_revisions,
            instances: status.instances,
            promotion: self.control.promotion().as_ref().map(views::promotion),
            shadow: self.control.shadow_loader().status().as_ref().map(views::shadow),
            history,
        }
    }

    fn ready(&self) -> ReadyView {
        let proxy = self.control.proxy();
        let snapshot = proxy.snapshot();
        let counts = proxy.line.with(|fleet, now| fleet.serving_counts(now, &snapshot.view));
        let reason = if proxy.is_closing() {
            Some("shutting down")
        } else if counts.configured == 0 {
            Some("no backend is configured")
        } else if counts.serving() == 0 {
            Some(
                "no backend can serve: each is drained, or its key is refused or its credit used up; GET /api/backends says which",
            )
        } else {
            None
        };
        let status = self.control.status();
        let policy = status
            .lifecycle
            .policy_refusal()
            .map(|_| "the policy last offered is not in force; GET /api/policy says why");
        let config = status
            .lifecycle
            .config_refusal()
            .map(|_| "the configuration last offered is not in force; GET /api/config says why");
        ReadyView {
            ready: reason.is_none(),
            reason: reason.map(str::to_owned),
            warnings: config.into_iter().chain(policy).map(str::to_owned).collect(),
            backends: BackendCounts {
                configured: counts.configured as u64,
                serving: counts.serving() as u64,
                drained: counts.drained as u64,
                excluded: counts.excluded as u64,
            },
        }
    }

    fn config(&self) -> ConfigView {
        let status = self.control.status();
        let config = self.control.proxy().snapshot().config.clone();
        ConfigView {
            revision: config.revision.to_string(),
            file: self.control.config_file().map(|file| file.display().to_string()),
            loaded_at: Rfc3339(status.config_loaded).to_string(),
            backends: config.backends.len() as u64,
            clients: config.clients.len() as u64,
            refusal: status.lifecycle.config_refusal().map(views::refusal),
        }
    }

    fn drain(&self, id: &str) -> Result<(), ControlError> {
        self.work(id, |fleet, now| fleet.set_drained(now, id, true))
    }

    fn resume(&self, id: &str) -> Result<(), ControlError> {
        self.work(id, |fleet, now| fleet.set_drained(now, id, false))
    }

    fn clear_cooldown(&self, id: &str) -> Result<(), ControlError> {
        self.work(id, |fleet, now| fleet.clear_cooldown(now, id))
    }

    fn put_policy(&self, component: Bytes, options: UploadOptions) -> Result<PolicyView, ControlError> {
        match self.runtime.block_on(self.control.upload(component, options)) {
            Ok(()) => Ok(self.policy()),
            Err(error @ CannotUpload::Refused(_)) => Err(ControlError::Refused(error.to_string())),
            Err(error @ CannotUpload::Superseded(_)) => Err(ControlError::Conflict(error.to_string())),
        }
    }

    fn rollback(&self, to: Option<&str>) -> Result<RollbackView, ControlError> {
        match self.runtime.block_on(self.control.rollback(to)) {
            Ok(WentBack { from, to }) => Ok(RollbackView { from, to, policy: self.policy() }),
            Err(error @ CannotGoBack::Unknown { .. }) => Err(ControlError::NotFound(error.to_string())),
            Err(error @ (CannotGoBack::InForce(_) | CannotGoBack::Nothing(_) | CannotGoBack::Superseded(_))) => {
                Err(ControlError::Conflict(error.to_string()))
            }
            Err(error @ CannotGoBack::Refused(_)) => Err(ControlError::Refused(error.to_string())),
        }
    }

    fn promote(&self, component: Bytes, options: UploadOptions, plan: Plan) -> Result<PolicyView, ControlError> {
        self.promoted(self.runtime.block_on(self.control.promote(component, options, plan)))
    }

    fn abort_promotion(&self) -> Result<PolicyView, ControlError> {
        self.promoted(self.runtime.block_on(self.control.abort_promotion()))
    }

    fn policy_events(&self) -> Result<Vec<PolicyEventView>, String> {
        let events = self.control.events().map_err(|error| error.to_string())?;
        Ok(events.into_iter().map(views::event).collect())
    }

    fn shadow(&self) -> Option<ShadowReport> {
        self.control.shadow_loader().status().as_ref().map(views::shadow_report)
    }
}

fn revision_view(entry: &Entry) -> RevisionView {
    let ended = entry.ended.as_ref();
    RevisionView {
        revision: entry.hash.revision(),
        origin: entry.origin.shown(),
        name: entry.options.name.clone(),
        settings: entry.options.settings.clone().map(Into::into),
        bytes: entry.bytes,
        taken_at: Rfc3339(entry.taken).to_string(),
        in_force_until: ended.map(|ended| Rfc3339(ended.at).to_string()),
        end: ended.map(|ended| ended.end.as_str()),
        why: ended.map(|ended| ended.why.clone()),
        decisions: entry.decisions,
        faults: entry.faults,
    }
}

fn state_word(state: RowState) -> &'static str {
    match state {
        RowState::Unsuited => RowState::Ready.as_str(),
        RowState::Ready | RowState::Throttled | RowState::Cooling | RowState::Probing | RowState::Drained => {
            state.as_str()
        }
    }
}
