//! A guarded promotion: a candidate gets a share of the exchanges, and by what comes of them takes over or goes.
//!
//! One at a time. Whatever else brings another policy into force ends it; another configuration goes to both sides.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use pointsman_config::Config;
use pointsman_core::lifecycle::fault_breaker::FaultLimits;
use pointsman_core::lifecycle::promotion::{CannotPromote, Plan, PromotionRun, PromotionStep, Verdict};
use pointsman_core::lifecycle::{Superseded, UploadOptions};
use pointsman_core::table::Table;
use pointsman_engine::Revision;

use super::Control;
use super::compilations::Code;
use super::component::Component;
use super::policy::{Judged, Thread, Turn};
use super::settings::Provenance;
use crate::proxy::{FaultStats, Progress, Snapshot, TrafficSplit};

/// The candidate of a promotion: its traffic, and what puts it in force.
pub(super) struct Candidate {
    split: Arc<TrafficSplit>,
    /// Kept until it is in the history.
    component: Option<Component>,
    standing: Provenance,
    /// The progress at the end; none while the promotion is under way.
    last: Option<Progress>,
}

/// A promotion, under way or the last one, for the operator.
pub struct PromotionStatus {
    /// Its names and its end.
    pub run: PromotionRun,
    /// The numbers now, or at its end.
    pub progress: Progress,
}

impl Candidate {
    fn progress(&self) -> Progress {
        self.last.clone().unwrap_or_else(|| self.split.progress())
    }
}

impl Control {
    /// Judges a component as an upload, and gives it a share of the exchanges.
    ///
    /// # Errors
    /// When it is refused, in force, or another one is being tried.
    pub async fn promote(&self, bytes: Bytes, options: UploadOptions, plan: Plan) -> Result<(), CannotPromote> {
        let refused = |error: anyhow::Error| CannotPromote::Refused(format!("{error:#}"));
        let component = self.hashed(bytes).await.map_err(refused)?;
        let intent = self.state().lifecycle.promote(component.hash, &options)?;
        let standing = |_: &Config| Provenance::upload(options.clone());
        let judged =
            self.judge_until_current(Code::Component(component.clone()), intent, Thread::Background, standing).await;
        let judged = judged.and_then(|(turn, judged)| Ok((turn, judged.settled()?)));
        let (turn, judged) = judged.map_err(|error| {
            let error = match error.downcast::<Superseded>() {
                Ok(superseded) => return CannotPromote::Superseded(superseded),
                Err(error) => error,
            };
            let (candidate, error) =
                (component.hash.revision(), format!("{:#}", error.context("the candidate is refused")));
            tracing::error!(candidate, error, "promotion refused; the policy in force stays");
            CannotPromote::Refused(error)
        })?;
        let (incoming, control) = (judged.standing.incoming(&component), judged.before.policy.id().to_string());
        let left_out = judged.revision.left_out().to_vec();
        self.state().lifecycle.start_promotion(intent, incoming, control, left_out)?;
        self.start(&turn, judged, component, plan).await;
        Ok(())
    }

    async fn start(&self, _turn: &Turn<'_>, judged: Judged, component: Component, plan: Plan) {
        let Judged { before, revision, standing } = judged;
        let began = format!("{} of the exchanges for {:?}", plan.share, plan.lasts);
        let split = Arc::new(TrafficSplit::new(plan, secret(), self.proxy.clock.now()));
        let stats = Arc::new(FaultStats::new(Some(breaker_limits(&before.config))));
        let candidate = Candidate { split: split.clone(), component: Some(component), standing, last: None };
        self.state().candidate = Some(candidate);
        self.publish(&before, before.with_candidate(Arc::new(revision), stats, split));
        self.signals.promotion_began.notify_one();
        self.tell(PromotionStep::Started, &began).await;
    }

    /// The operator ends the promotion under way: the policy in force gets all exchanges again.
    ///
    /// # Errors
    /// When there is none.
    pub async fn abort_promotion(&self) -> Result<(), CannotPromote> {
        let turn = self.turn.lock().await;
        match self.end_promotion(&turn, PromotionStep::Aborted, "the operator ended it").await {
            true => Ok(()),
            false => Err(CannotPromote::None),
        }
    }

    /// The promotion under way, or the last one since the start.
    pub fn promotion(&self) -> Option<PromotionStatus> {
        let state = self.state();
        let run = state.lifecycle.promotion()?.clone();
        Some(PromotionStatus { run, progress: state.candidate.as_ref()?.progress() })
    }

    /// The traffic of the promotion under way.
    fn running_split(&self) -> Option<Arc<TrafficSplit>> {
        let state = self.state();
        state.lifecycle.running()?;
        state.candidate.as_ref().map(|candidate| candidate.split.clone())
    }

    /// Ready when time alone may end the promotion under way.
    pub(super) async fn promotion_is_due(&self) {
        let Some(split) = self.running_split() else { return std::future::pending().await };
        // The timer's milliseconds are coarser than the clock's.
        const LATER: Duration = Duration::from_millis(2);
        tokio::time::sleep(split.until().since(self.proxy.clock.now()) + LATER).await;
    }

    /// Acts upon what the numbers say.
    pub(super) async fn judge_promotion(&self) {
        let turn = self.turn.lock().await;
        let Some(split) = self.running_split() else { return };
        for verdict in split.verdicts(self.proxy.clock.now()) {
            match verdict {
                Verdict::GoOn => {}
                Verdict::Extended(why) => self.tell(PromotionStep::Extended, &why).await,
                Verdict::RollBack(why) => {
                    self.end_promotion(&turn, PromotionStep::RolledBack, &why).await;
                }
                Verdict::Promote(why) => self.take_candidate(&turn, &why).await,
            }
        }
    }

    /// Ends the promotion where the candidate's fault breaker tripped.
    pub(super) async fn drop_failing_candidate(&self) {
        let turn = self.turn.lock().await;
        let snapshot = self.proxy.snapshot();
        let tripped = snapshot.candidate.as_ref().and_then(|candidate| candidate.fault_stats.trip_reason());
        if let Some(why) = tripped {
            let why = format!("the candidate failed too often: {why}");
            self.end_promotion(&turn, PromotionStep::RolledBack, &why).await;
        }
    }

    async fn take_candidate(&self, turn: &Turn<'_>, verdict: &str) {
        let before = self.proxy.snapshot();
        let Some(candidate) = &before.candidate else { return };
        let (change, component) = {
            let state = self.state();
            (state.lifecycle.candidate_change(verdict), state.candidate.as_ref().and_then(|c| c.component.clone()))
        };
        let Some(prepared) = change.and_then(|change| self.prepare(turn, &before, change).ok()) else { return };
        candidate.fault_stats.set_limits(before.config.policy.rollback);
        let next = before.under(candidate.policy.clone(), candidate.fault_stats.clone());
        self.put_in_force(turn, &before, next, prepared, component.as_ref()).await;
    }

    /// True when there was one.
    async fn end_promotion(&self, _turn: &Turn<'_>, step: PromotionStep, why: &str) -> bool {
        let now = self.proxy.clock.now();
        if !self.state().lifecycle.end_promotion(now, step, why) {
            return false;
        }
        self.candidate_is_over();
        let snapshot = self.proxy.snapshot();
        if snapshot.candidate.is_some() {
            self.publish(&snapshot, snapshot.under(snapshot.policy.clone(), snapshot.fault_stats.clone()));
        }
        self.tell(step, why).await;
        true
    }

    /// Keeps the numbers as they are at the end: afterwards they still change, by exchanges that were under way.
    pub(super) fn candidate_is_over(&self) {
        if let Some(candidate) = self.state().candidate.as_mut() {
            candidate.last = Some(candidate.split.progress());
            candidate.component = None;
        }
    }

    /// The candidate there is, configured for another table; or why it refuses it.
    pub(super) async fn candidate_with_table(
        &self,
        before: &Snapshot,
        config: &Config,
        table: Arc<Table>,
    ) -> Option<anyhow::Result<Revision>> {
        let candidate = before.candidate.as_ref()?;
        let standing = self.state().candidate.as_ref()?.standing.clone();
        Some(self.with_table(candidate.policy.clone(), config, table, &standing).await)
    }

    /// The next snapshot has a candidate too, where the one before has. A candidate that refuses the configuration goes.
    pub(super) async fn with_candidate(
        &self,
        turn: &Turn<'_>,
        before: &Snapshot,
        next: Snapshot,
        revision: Option<anyhow::Result<Revision>>,
    ) -> Snapshot {
        let (Some(candidate), Some(split), Some(revision)) = (&before.candidate, &before.split, revision) else {
            return next;
        };
        match revision {
            Ok(revision) => {
                candidate.fault_stats.set_limits(Some(breaker_limits(&next.config)));
                next.with_candidate(Arc::new(revision), candidate.fault_stats.clone(), split.clone())
            }
            Err(error) => {
                let why = format!("the candidate refuses the new configuration: {error:#}");
                self.end_promotion(turn, PromotionStep::Overtaken, &why).await;
                next
            }
        }
    }
}

/// A candidate is watched for its faults also where a policy in force would be kept whatever it does.
fn breaker_limits(config: &Config) -> FaultLimits {
    config.policy.rollback.unwrap_or_default()
}

/// Nobody can tell from the outside on which side a session will be.
fn secret() -> u64 {
    RandomState::new().build_hasher().finish()
}
