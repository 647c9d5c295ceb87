//! `[policy]`: the component, its limits, its rollback and its shadow.

use std::time::Duration;

use pointsman_core::contract::OnFault;
use pointsman_core::lifecycle::fault_breaker::FaultLimits;

use super::Check;
use crate::checked::{Policy, Shadow};
use crate::defaults::{self, millis};
use crate::raw::{RawOnFault, RawPolicy, RawRollback, RawShadow};
use crate::settings::DEFAULT_POLICY;
use crate::tree::Path;

impl Check<'_, '_> {
    pub(super) fn policy(&mut self, raw: RawPolicy) -> Policy {
        let at = Path::of("policy");
        if raw.file.as_deref() == Some("") {
            self.error(&at.key("file"), "this is not a file").help("leave the line out to use the embedded policy");
        }
        if raw.file.is_none() {
            let fraction = "emergency_rpm_fraction";
            let settings = at.key("settings");
            let own = raw.settings.get(DEFAULT_POLICY).and_then(serde_json::Value::as_object);
            for (at, all) in [(settings.clone(), Some(&raw.settings)), (settings.key(DEFAULT_POLICY), own)] {
                let value = all.and_then(|all| all.get(fraction)).and_then(serde_json::Value::as_f64);
                let place = at.key(fraction);
                if self.fraction(&place, value, 0.1) == 0.0 {
                    self.warn(
                        &place,
                        format!("`{fraction}` of 0 still lets one request a minute through in an emergency"),
                    )
                    .help("the emergency lane sends at least one a minute to each backend");
                }
            }
        }
        let shadow = self.shadow(&at.key("shadow"), raw.shadow, &raw.settings);
        Policy {
            shadow,
            file: raw.file.map(|file| self.folder.join(file)),
            own_name: None,
            settings: raw.settings,
            deadline: self.decision_deadline(&at, raw.deadline_ms),
            on_fault: match raw.on_fault {
                None | Some(RawOnFault::Default) => OnFault::AskDefault,
                Some(RawOnFault::Refuse) => OnFault::Refuse,
            },
            memory_mb: self.at_least(&at.key("memory_mb"), raw.memory_mb, defaults::POLICY_MEMORY_MB, 1),
            compile_memory_mb: self.at_least(
                &at.key("compile_memory_mb"),
                raw.compile_memory_mb,
                defaults::COMPILE_MEMORY_MB,
                defaults::COMPILE_MEMORY_MIN_MB,
            ),
            start_wait: self.millis(&at.key("start_wait_ms"), raw.start_wait_ms, defaults::START_WAIT_MS, 0),
            rollback: self.rollback(&at.key("rollback"), &raw.rollback),
        }
    }

    fn shadow(
        &mut self,
        at: &Path,
        raw: RawShadow,
        settings: &serde_json::Map<String, serde_json::Value>,
    ) -> Option<Shadow> {
        let deadline = self.decision_deadline(at, raw.deadline_ms);
        let core_share = self.fraction(&at.key("core_share"), raw.core_share, defaults::SHADOW_CORE_SHARE);
        if core_share == 0.0 {
            self.error(&at.key("core_share"), "a shadow needs some time").help("take the [policy.shadow] out instead");
        }
        let Some(file) = raw.file.filter(|file| !file.is_empty()) else {
            if self.tree.find(at).is_some() && !self.tree.refused(&at.key("file")) {
                self.error(at, "the shadow has no file").help("name a component with file = \"candidate.wasm\"");
            }
            return None;
        };
        Some(Shadow {
            file: self.folder.join(file),
            own_settings: raw.settings,
            settings: settings.clone(),
            deadline,
            core_share,
        })
    }

    /// The longest decision, of the policy or its shadow.
    fn decision_deadline(&mut self, at: &Path, ms: Option<u32>) -> Duration {
        /// Upper limit set by the engine.
        const MAX_MS: u32 = 90;
        let at = at.key("deadline_ms");
        let ms = self.at_least(&at, ms, defaults::DECISION_DEADLINE_MS, 1);
        if ms > MAX_MS {
            self.error(&at, format!("`deadline_ms` must be at most {MAX_MS}")).label(format!("this is {ms}"));
        }
        Duration::from_millis(ms.into())
    }

    fn rollback(&mut self, at: &Path, raw: &RawRollback) -> Option<FaultLimits> {
        let default = FaultLimits::default();
        let window_ms = millis(default.window);
        let rule = FaultLimits {
            first_decisions: self.at_least(&at.key("first_decisions"), raw.first_decisions, default.first_decisions, 1),
            fault_permille: raw.fault_permille.unwrap_or(default.fault_permille),
            window: self.millis(&at.key("window_ms"), raw.window_ms, window_ms, 1),
            window_faults: self.at_least(&at.key("window_faults"), raw.window_faults, default.window_faults, 1),
        };
        for (name, value, most) in [
            ("fault_permille", rule.fault_permille, 1_000),
            ("window_faults", rule.window_faults, FaultLimits::MAX_WINDOW_FAULTS),
        ] {
            if value > most {
                self.error(&at.key(name), format!("`{name}` must be at most {most}")).label(format!("this is {value}"));
            }
        }
        raw.enabled.unwrap_or(true).then_some(rule)
    }
}
