//! The steps of a promotion, told: to the log, the metrics, who watches, and for good to the store.

use pointsman_core::lifecycle::promotion::SideStats;
use pointsman_store::PolicyEventRow;
use serde_json::{Value, json};

use super::Control;
use super::promotion::Promotion;
use crate::drive::Progress;
use pointsman_core::lifecycle::promotion::PromotionStep;

impl Control {
    /// Log, metrics, and the durable list.
    pub(super) async fn tell(&self, promotion: &Promotion, step: PromotionStep, why: &str) {
        let Promotion { candidate, control, .. } = promotion;
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
        self.proxy.events.promotion(step.as_str(), candidate, control, why);
        // After the end the books still fill, with what was under way.
        let progress = self.promotion().map_or_else(|| promotion.progress(), |now| now.progress());
        self.write_event(PolicyEventRow {
            at_ms: self.proxy.clock.now().as_millis(),
            step: step.as_str().to_owned(),
            candidate: candidate.clone(),
            control: control.clone(),
            why: why.to_owned(),
            numbers: numbers(&progress).to_string(),
        })
        .await;
    }

    async fn write_event(&self, event: PolicyEventRow) {
        let policies = self.policies.clone();
        let written = tokio::task::spawn_blocking(move || policies.add_event(&event)).await;
        let error = match written {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(panicked) => panicked.to_string(),
        };
        tracing::error!(error, "this step of the promotion could not be written to the store");
    }

    /// What was under way when the last process ended is over.
    pub(super) async fn note_interruption(&self) {
        let _turn = self.one_at_a_time.lock().await;
        if self.promotion().is_some() {
            return;
        }
        let policies = self.policies.clone();
        let last = tokio::task::spawn_blocking(move || policies.events(1)).await;
        let Ok(Ok(events)) = last else { return };
        let under_way = [PromotionStep::Started, PromotionStep::Extended].map(PromotionStep::as_str);
        let Some(last) = events.into_iter().next().filter(|last| under_way.contains(&&*last.step)) else { return };
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
        self.write_event(PolicyEventRow { at_ms, step: step.as_str().to_owned(), why, ..last }).await;
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
