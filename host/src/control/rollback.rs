//! Going back to an earlier policy: by the operator's word, or because the one in force fails too often.

use std::sync::Arc;

use pointsman_core::lifecycle::{CannotGoBack, Change, Requested, Rollback, RollbackTarget, Superseded};

use super::Control;
use super::compilations::Code;
use super::policy::{Judged, Thread, Turn};
use super::settings::Provenance;
use pointsman_config::Config;

/// A rollback that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WentBack {
    /// Revision that was left, 12 digits.
    pub from: String,
    /// Revision that is in force now, 12 digits.
    pub to: String,
}

impl Control {
    /// Brings an earlier revision back into force: the one of this name, or the latest that gave way to a newer one. A
    /// file whose content does not change does not bring the other back. No compilation under way is waited for.
    ///
    /// # Errors
    /// When there is none, the configuration of today is not for it, or a newer one came into force meanwhile.
    pub async fn rollback(&self, to: Option<&str>) -> Result<WentBack, CannotGoBack> {
        // Nothing is half put in force while the revision to go back to is looked for.
        let turn = self.turn.lock().await;
        let target = self.state().lifecycle.roll_back(to)?;
        drop(turn);
        match self.restored(&target).await {
            // Two went back to the same, and the other was first.
            Ok(_) if self.state().lifecycle.is_back(&target) => {
                Err(CannotGoBack::InForce(target.entry.hash.revision()))
            }
            Ok((turn, judged)) => Ok(self.go_back(&turn, judged, target.change(None), Rollback::Operator).await?),
            Err(error) if error.is::<Superseded>() => Err(error
                .downcast::<Superseded>()
                .map_or_else(|error| CannotGoBack::Refused(format!("{error:#}")), CannotGoBack::Superseded)),
            Err(error) => {
                let error = error.context(format!("revision {} cannot come back", target.entry.hash.revision()));
                Err(CannotGoBack::Refused(self.refuse_policy(Requested::Rollback, &error)))
            }
        }
    }

    /// Falls back to the latest good policy, where the breaker of the one in force tripped. Without one it stays, and the native
    /// fallback goes on to decide what it does not: a default that nobody asked for would be another surprise.
    pub(super) async fn fall_back(&self) {
        let before = self.proxy.snapshot();
        let Some(why) = before.fault_stats.trip_reason() else { return };
        let from = before.policy.id();
        let targets = self.state().lifecycle.fall_back(why);
        for target in targets {
            let to = target.entry.hash.revision();
            match self.restored(&target).await {
                // Another policy came into force meanwhile.
                Ok((_, judged)) if !Arc::ptr_eq(&judged.before.fault_stats, &before.fault_stats) => return,
                Ok((turn, judged)) => {
                    let warning = format!("revision {from} was rolled back to {to}: {why}");
                    tracing::error!(%from, %to, why, "the policy failed too often and was rolled back to the last good one");
                    let change = self.state().lifecycle.fallback_change(&target, warning);
                    if let Err(superseded) = self.go_back(&turn, judged, change, Rollback::Faults).await {
                        tracing::info!("not rolled back: {superseded}");
                    }
                    return;
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(revision = to, error, "this revision cannot be restored; trying the one before it");
                }
            }
        }
        self.stay(from, why);
    }

    /// There is nothing to fall back to.
    fn stay(&self, policy: &str, why: &str) {
        tracing::error!(%policy, why, "the policy fails too often, and there is no earlier one to roll back to: it stays in force, and the default policy decides where it fails");
        self.proxy.metrics.rolled_back(Rollback::Stayed);
        let why = format!("revision {policy} fails too often, and there is no earlier one to go back to: {why}");
        let now = self.proxy.clock.now();
        self.state().lifecycle.refuse_policy(now, Requested::Rollback, "", why);
    }

    async fn go_back(
        &self,
        turn: &Turn<'_>,
        judged: Judged,
        change: Change,
        cause: Rollback,
    ) -> Result<WentBack, Superseded> {
        let went = WentBack { from: judged.before.policy.id().to_string(), to: judged.revision.id().to_string() };
        self.take(turn, judged, change, None).await?;
        self.proxy.metrics.rolled_back(cause);
        Ok(went)
    }

    /// A kept revision under the configuration of now.
    async fn restored(&self, target: &RollbackTarget) -> anyhow::Result<(Turn<'_>, Judged)> {
        let hash = target.entry.hash;
        let compiled = self.state().revisions.compiled(hash);
        let code = match compiled {
            Some(compiled) => Code::Compiled(compiled),
            None => Code::Component(self.kept.component(hash).await?),
        };
        let standing = |config: &Config| Provenance::kept(&target.entry, self.state().lifecycle.history(), config);
        self.judge_until_current(code, target.intent, Thread::Own, standing).await
    }
}
