//! A guarded promotion: a candidate gets a share of the exchanges, and by what comes of them takes over or goes.
//!
//! One at a time. Whatever else brings another policy into force ends it; another configuration goes to both sides.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use pointsman_core::lifecycle::fault_breaker::FaultLimits;
use pointsman_core::lifecycle::promotion::{Plan, Verdict};
use pointsman_core::table::Table;
use pointsman_core::time::Timestamp;
use pointsman_engine::Revision;

use super::Control;
use super::component::Component;
use super::history::Entry;
use super::policy::Place;
use super::settings::Standing;
use crate::config::Config;
use crate::control::upload::UploadOptions;
use crate::drive::{FaultStats, Progress, Snapshot, TrafficSplit};
use pointsman_core::lifecycle::promotion::PromotionStep;

/// A promotion, under way or the last one.
#[derive(Clone)]
pub struct Promotion {
    /// The candidate's revision.
    pub candidate: String,
    /// The revision it is compared with.
    pub control: String,
    /// What it is decided by.
    split: Arc<TrafficSplit>,
    /// Kept until it is in the history.
    component: Option<Component>,
    /// Which settings it gets.
    standing: Standing,
    /// Settings that it was offered and does not know.
    pub left_out: Vec<String>,
    /// How it ended; none: it is under way.
    pub over: Option<Over>,
}

/// The end of a promotion.
#[derive(Clone)]
pub struct Over {
    /// What it came to.
    pub step: PromotionStep,
    /// When.
    pub at: Timestamp,
    /// Why, in a sentence.
    pub why: String,
    /// How it stood.
    pub progress: Progress,
}

impl Promotion {
    /// How it stands, or stood when it ended.
    pub fn progress(&self) -> Progress {
        self.over.as_ref().map_or_else(|| self.split.progress(), |over| over.progress.clone())
    }

    fn is_running(&self) -> bool {
        self.over.is_none()
    }
}

/// Why a candidate is not tried, or a promotion not ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotPromote {
    /// One is under way.
    #[error("the promotion of revision {0} is under way; DELETE /api/policy/promote ends it")]
    UnderWay(String),
    /// It is in force.
    #[error("revision {0} is in force already")]
    InForce(String),
    /// It is no policy for this configuration.
    #[error("{0}")]
    Refused(String),
    /// There is nothing to end.
    #[error("no promotion is under way")]
    None,
}

impl Control {
    /// Judges a component as an upload, and gives it a share of the exchanges.
    ///
    /// # Errors
    /// When it is refused, in force, or another one is being tried.
    pub async fn promote(&self, bytes: Bytes, options: UploadOptions, plan: Plan) -> Result<(), CannotPromote> {
        let _turn = self.one_at_a_time.lock().await;
        let component = self.in_workshop(move || Component::new(bytes)).await;
        let component = component.map_err(|error| CannotPromote::Refused(format!("{error:#}")))?;
        if let Some(running) = self.promotion().filter(Promotion::is_running) {
            return Err(CannotPromote::UnderWay(running.candidate));
        }
        let before = self.proxy.snapshot();
        let candidate = component.hash.revision();
        // With other settings it is another candidate.
        let is_in_force = |options: &UploadOptions| {
            let is_this = |entry: &Entry| entry.hash == component.hash && entry.options == *options;
            self.state().history.in_force().is_some_and(is_this)
        };
        if is_in_force(&options) {
            return Err(CannotPromote::InForce(candidate));
        }
        let standing = Standing::upload(options);
        let judged = self.judge(&component, &before.config, before.view.table.clone(), &standing).await;
        let revision = judged.map_err(|error| {
            let error = format!("{:#}", error.context("the candidate is refused"));
            tracing::error!(candidate, error, "promotion refused; the policy in force stays");
            CannotPromote::Refused(error)
        })?;
        let standing = standing.settled(&revision);
        if is_in_force(standing.options()) {
            return Err(CannotPromote::InForce(candidate));
        }
        let left_out = revision.left_out().to_vec();
        let began = format!("{} of the exchanges for {:?}", plan.share, plan.lasts);
        let split = Arc::new(TrafficSplit::new(plan, secret(), self.proxy.clock.now()));
        let fault_stats = Arc::new(FaultStats::new(Some(breaker_limits(&before.config))));
        let control = before.policy.id().to_string();
        let component = Some(component);
        let promotion =
            Promotion { candidate, control, split: split.clone(), component, standing, left_out, over: None };
        self.publish(&before, before.with_candidate(Arc::new(revision), fault_stats, split));
        self.set_promotion(promotion.clone());
        self.promotion_began.notify_one();
        self.tell(&promotion, PromotionStep::Started, &began).await;
        Ok(())
    }

    /// The operator ends the promotion under way: the policy in force gets all exchanges again.
    ///
    /// # Errors
    /// When there is none.
    pub async fn abort_promotion(&self) -> Result<(), CannotPromote> {
        let _turn = self.one_at_a_time.lock().await;
        match self.end_promotion(PromotionStep::Aborted, "the operator ended it").await {
            true => Ok(()),
            false => Err(CannotPromote::None),
        }
    }

    /// The promotion under way, or the last one since the start.
    pub fn promotion(&self) -> Option<Promotion> {
        self.state().promotion.clone()
    }

    /// Ready when time alone may end the promotion under way.
    pub(super) async fn promotion_is_due(&self) {
        match self.promotion().filter(Promotion::is_running) {
            Some(running) => {
                // The timer's milliseconds are coarser than the clock's.
                const LATER: Duration = Duration::from_millis(2);
                let left = running.split.until().since(self.proxy.clock.now());
                tokio::time::sleep(left + LATER).await;
            }
            None => std::future::pending().await,
        }
    }

    /// Acts upon what the numbers say.
    pub(super) async fn judge_promotion(&self) {
        let _turn = self.one_at_a_time.lock().await;
        let Some(running) = self.promotion().filter(Promotion::is_running) else { return };
        for verdict in running.split.verdicts(self.proxy.clock.now()) {
            match verdict {
                Verdict::GoOn => {}
                Verdict::Extended(why) => self.tell(&running, PromotionStep::Extended, &why).await,
                Verdict::RollBack(why) => {
                    self.end_promotion(PromotionStep::RolledBack, &why).await;
                }
                Verdict::Promote(why) => self.take_candidate(&running, why).await,
            }
        }
    }

    /// The candidate, if there is one, failed so often that it is given up.
    pub(super) async fn give_up_candidate(&self) {
        let _turn = self.one_at_a_time.lock().await;
        let snapshot = self.proxy.snapshot();
        let given_up = snapshot.candidate.as_ref().and_then(|candidate| candidate.fault_stats.trip_reason());
        if let Some(why) = given_up {
            let why = format!("the candidate failed too often: {why}");
            self.end_promotion(PromotionStep::RolledBack, &why).await;
        }
    }

    async fn take_candidate(&self, running: &Promotion, why: String) {
        let before = self.proxy.snapshot();
        let (Some(candidate), Some(component)) = (&before.candidate, &running.component) else { return };
        candidate.fault_stats.set_limits(before.config.policy.rollback);
        let next = before.under(candidate.policy.clone(), candidate.fault_stats.clone());
        let place =
            Place::of(component, &running.standing, format!("revision {} was promoted: {why}", running.candidate));
        self.install(&before, next, place).await;
        self.close_promotion(running, PromotionStep::Promoted, &why);
        self.tell(running, PromotionStep::Promoted, &why).await;
    }

    /// Another policy came into force, and with it the end of a promotion.
    pub(super) async fn overtaken(&self, why: &str) {
        self.end_promotion(PromotionStep::Overtaken, why).await;
    }

    /// True when there was one.
    async fn end_promotion(&self, step: PromotionStep, why: &str) -> bool {
        let Some(running) = self.promotion().filter(Promotion::is_running) else { return false };
        self.close_promotion(&running, step, why);
        let snapshot = self.proxy.snapshot();
        if snapshot.candidate.is_some() {
            self.publish(&snapshot, snapshot.under(snapshot.policy.clone(), snapshot.fault_stats.clone()));
        }
        self.tell(&running, step, why).await;
        true
    }

    fn close_promotion(&self, running: &Promotion, step: PromotionStep, why: &str) {
        let over = Over { step, at: self.proxy.clock.now(), why: why.to_owned(), progress: running.split.progress() };
        self.set_promotion(Promotion { component: None, over: Some(over), ..running.clone() });
    }

    fn set_promotion(&self, promotion: Promotion) {
        self.state().promotion = Some(promotion);
    }

    /// The candidate there is, configured for another table; or why it refuses it.
    pub(super) async fn candidate_with_table(
        &self,
        before: &Snapshot,
        config: &Config,
        table: Arc<Table>,
    ) -> Option<anyhow::Result<Revision>> {
        let candidate = before.candidate.as_ref()?;
        let standing = self.promotion().filter(Promotion::is_running)?.standing;
        Some(self.with_table(candidate.policy.clone(), config, table, &standing).await)
    }

    /// The next snapshot has a candidate too, where the one before has. A candidate that refuses the configuration goes.
    pub(super) async fn with_candidate(
        &self,
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
                self.end_promotion(PromotionStep::Overtaken, &why).await;
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
