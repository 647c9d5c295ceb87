//! Promotions and the shadow as the operator sees them.

use pointsman_core::fleet::ModelCooldown;
use pointsman_core::lifecycle::promotion::{GuardReport, SideStats};
use pointsman_core::time::Timestamp;
use pointsman_engine::left_out_words;
use pointsman_store::PolicyEventRow;

use crate::admin::{
    DivergenceView, GuardView, ModelCooldownView, PolicyEventView, PromotionView, RefusalView, ShadowReport,
    ShadowView, SideView, SidesView,
};
use crate::control::{PromotionStatus, ShadowStatus};
use crate::drive::{Divergent, Progress, Tally};
use crate::telemetry::rfc3339::Rfc3339;
use pointsman_core::lifecycle::Refusal;
use pointsman_core::lifecycle::shadow::{ShadowDrop, ShadowResult};

pub(super) fn model_cooldown(cooldown: &ModelCooldown, now: Timestamp) -> ModelCooldownView {
    ModelCooldownView {
        model: cooldown.model.to_string(),
        cooldown_ms: cooldown.until.since(now).as_millis() as u64,
        until: Rfc3339(cooldown.until).to_string(),
        reason: cooldown.reason.as_str(),
        failures: cooldown.failures,
    }
}

pub(super) fn refusal(refusal: &Refusal) -> RefusalView {
    let Refusal { at, source, error } = refusal.clone();
    RefusalView { at: Rfc3339(at).to_string(), source, error }
}

pub(super) fn promotion(promotion: &PromotionStatus) -> PromotionView {
    let run = &promotion.run;
    let Progress { plan, since, until, extended, control, candidate, findings } = promotion.progress.clone();
    let over = run.over.as_ref();
    PromotionView {
        state: over.map_or("running", |over| over.step.as_str()),
        candidate: run.candidate(),
        control: run.control.clone(),
        warning: left_out_words(&run.left_out),
        share: plan.share.to_string(),
        since: Rfc3339(since).to_string(),
        until: Rfc3339(until).to_string(),
        extended: extended.is_some(),
        extended_because: extended,
        ended_at: over.map(|over| Rfc3339(over.at).to_string()),
        why: over.map(|over| over.why.clone()),
        sides: SidesView { control: side(&control), candidate: side(&candidate) },
        guards: findings.into_iter().map(guard).collect(),
    }
}

fn side(seen: &SideStats) -> SideView {
    SideView {
        exchanges: seen.exchanges,
        failed: seen.failed,
        p95_ms: seen.p95.map(|p95| p95.as_millis() as u64),
        cost_usd: seen.cost_usd,
    }
}

fn guard(finding: GuardReport) -> GuardView {
    GuardView { guard: finding.guard.to_string(), standing: finding.standing.as_str(), words: finding.words }
}

pub(super) fn event(row: PolicyEventRow) -> PolicyEventView {
    PolicyEventView {
        at: Rfc3339(Timestamp::from_millis(row.at_ms)).to_string(),
        step: row.step,
        candidate: row.candidate,
        control: row.control,
        why: row.why,
        numbers: serde_json::from_str(&row.numbers).unwrap_or_default(),
    }
}

pub(super) fn shadow(status: &ShadowStatus) -> ShadowView {
    let tally = status.installed.as_ref().map(|(_, _, tally)| &**tally);
    let count = |of: &dyn Fn(&Tally) -> u64| tally.map_or(0, of);
    let (compared, different) = (count(&Tally::compared), count(&Tally::different));
    ShadowView {
        file: status.file.display().to_string(),
        revision: status.installed.as_ref().map(|(revision, _, _)| revision.clone()),
        since: status.installed.as_ref().map(|(_, since, _)| Rfc3339(*since).to_string()),
        error: status.error.clone(),
        decisions: ShadowResult::ALL.map(|result| (result.as_str(), count(&|tally| tally.results(result)))).into(),
        compared,
        different,
        different_share: different as f64 / compared.max(1) as f64,
        dropped: ShadowDrop::ALL.map(|why| (why.as_str(), count(&|tally| tally.drops(why)))).into(),
        ran_ms: count(&|tally| tally.ran().as_millis() as u64),
        core_share: status.core_share,
    }
}

pub(super) fn shadow_report(status: &ShadowStatus) -> ShadowReport {
    let listed = |list: fn(&Tally) -> Vec<Divergent>| {
        let tally = status.installed.as_ref().map(|(_, _, tally)| tally);
        tally.map_or_else(Vec::new, |tally| list(tally).into_iter().map(divergence).collect())
    };
    ShadowReport { shadow: shadow(status), divergences: listed(Tally::latest), ties: listed(Tally::ties) }
}

fn divergence(divergent: Divergent) -> DivergenceView {
    let Divergent { at, request_id, model, result, live, shadow, notes } = divergent;
    DivergenceView { at: Rfc3339(at).to_string(), request_id, model, kind: result.as_str(), live, shadow, notes }
}
