//! The steps of a promotion: logged, counted, sent to watchers, and written to the store.

use pointsman_core::lifecycle::promotion::{PromotionStep, SideStats};
use pointsman_store::PolicyEventRow;
use serde_json::{Value, json};

use super::Control;
use crate::proxy::Progress;

impl Control {
    /// Reports a step of the promotion under way, or of the one that has just ended.
    pub(super) async fn tell(&self, step: PromotionStep, why: &str) {
        let Some(promotion) = self.promotion() else { return };
        let (candidate, control) = (promotion.run.candidate(), promotion.run.control);
        match step {
            PromotionStep::Started | PromotionStep::Promoted | PromotionStep::Aborted => {
                tracing::info!(step = step.as_str(), candidate, control, why, "guarded promotion");
            }
            PromotionStep::Extended
            | PromotionStep::RolledBack
            | PromotionStep::Overtaken
            | PromotionStep::Interrupted => {
                tracing::warn!(step = step.as_str(), candidate, control, why, "guarded promotion");
            }
        }
        self.proxy.metrics.promotion(step);
        self.proxy.events.promotion(step.as_str(), &candidate, &control, why);
        let event = PolicyEventRow {
            at_ms: self.proxy.clock.now().as_millis(),
            step: step.as_str().to_owned(),
            candidate,
            control,
            why: why.to_owned(),
            numbers: numbers(&promotion.progress).to_string(),
        };
        self.kept.add_event(event).await;
    }

    /// A promotion that was under way when the last process ended is over.
    pub(super) async fn note_interruption(&self) {
        let _turn = self.turn.lock().await;
        if self.promotion().is_some() {
            return;
        }
        let under_way = [PromotionStep::Started, PromotionStep::Extended].map(PromotionStep::as_str);
        let last = self.kept.last_event().await.filter(|last| under_way.contains(&&*last.step));
        let Some(last) = last else { return };
        let step = PromotionStep::Interrupted;
        let why = "Pointsman was started again while it was under way; the policy before it stays in force".to_owned();
        tracing::warn!(
            step = step.as_str(),
            candidate = last.candidate,
            control = last.control,
            why,
            "guarded promotion"
        );
        self.proxy.metrics.promotion(step);
        let at_ms = self.proxy.clock.now().as_millis();
        self.kept.add_event(PolicyEventRow { at_ms, step: step.as_str().to_owned(), why, ..last }).await;
    }
}

/// Both sides and the guards, as they are kept.
fn numbers(progress: &Progress) -> Value {
    let side = |seen: &SideStats| {
        json!({
            "exchanges": seen.exchanges,
            "failed": seen.failed,
            "p95_ms": seen.p95.map(|p95| p95.as_millis() as u64),
            "cost_usd": seen.cost_usd,
        })
    };
    let guards: Vec<Value> = progress
        .findings
        .iter()
        .map(|finding| {
            json!({
                "guard": finding.guard.to_string(),
                "standing": finding.standing.as_str(),
                "words": finding.words,
            })
        })
        .collect();
    json!({
        "share": progress.plan.share.to_string(),
        "sides": { "control": side(&progress.control), "candidate": side(&progress.candidate) },
        "guards": guards,
    })
}
