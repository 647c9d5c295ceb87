//! `[stream]`, `[limits]` and `[cooldown]`: the life of an exchange.

use pointsman_core::contract::{Commit, Resume};
use pointsman_core::exchange::Budgets;
use pointsman_core::fleet::health::CooldownSettings;

use super::Check;
use crate::checked::{Cooldown, ExchangeLimits, Stream};
use crate::defaults::{self, millis};
use crate::raw::{RawCommit, RawCooldown, RawLimits, RawResume, RawStream};
use crate::tree::Path;

impl Check<'_, '_> {
    pub(super) fn stream(&mut self, raw: &RawStream) -> Stream {
        let at = Path::of("stream");
        let keepalive = self.millis(&at.key("keepalive_ms"), raw.keepalive_ms, defaults::KEEPALIVE_MS, 0);
        Stream {
            commit: match raw.commit {
                None | Some(RawCommit::FirstContent) => Commit::FirstContent,
                Some(RawCommit::Headers) => Commit::Headers,
                Some(RawCommit::Complete) => Commit::Complete,
                Some(RawCommit::Tokens(n)) => Commit::Tokens(self.at_least(&at.key("commit"), Some(n), 1, 1)),
            },
            resume: match raw.resume {
                None | Some(RawResume::Splice) => Resume::Splice,
                Some(RawResume::None) => Resume::None,
                Some(RawResume::Prefill) => Resume::Prefill,
            },
            keepalive: Some(keepalive).filter(|d| !d.is_zero()),
        }
    }

    pub(super) fn limits(&mut self, raw: &RawLimits) -> ExchangeLimits {
        let at = Path::of("limits");
        let default = Budgets::default();
        ExchangeLimits {
            max_attempts: self.at_least(&at.key("max_attempts"), raw.max_attempts, default.max_attempts, 1),
            max_waits: raw.max_waits.unwrap_or(default.max_waits),
            max_wait: self.millis(&at.key("max_wait_ms"), raw.max_wait_ms, millis(default.max_wait), 0),
            max_exchange: self.millis(&at.key("max_exchange_ms"), raw.max_exchange_ms, millis(default.max_total), 1),
            queue_length: raw.queue_length.unwrap_or(defaults::QUEUE_LENGTH),
        }
    }

    pub(super) fn cooldown(&mut self, raw: &RawCooldown) -> Cooldown {
        let at = Path::of("cooldown");
        let default = CooldownSettings::default();
        let [base, max, floor, cap] =
            [default.base, default.max, default.retry_after_floor, default.retry_after_cap].map(millis);
        let cooldown = Cooldown {
            base: self.millis(&at.key("base_ms"), raw.base_ms, base, 1),
            max: self.millis(&at.key("max_ms"), raw.max_ms, max, 1),
            jitter: self.fraction(&at.key("jitter"), raw.jitter, default.jitter),
            retry_after_floor: self.millis(&at.key("retry_after_floor_ms"), raw.retry_after_floor_ms, floor, 0),
            retry_after_cap: self.millis(&at.key("retry_after_cap_ms"), raw.retry_after_cap_ms, cap, 1),
        };
        for (low, low_name, high, high_name) in [
            (cooldown.base, "base_ms", cooldown.max, "max_ms"),
            (cooldown.retry_after_floor, "retry_after_floor_ms", cooldown.retry_after_cap, "retry_after_cap_ms"),
        ] {
            if low > high {
                let key = if self.tree.find(&at.key(low_name)).is_some() { low_name } else { high_name };
                let message =
                    format!("`{low_name}` ({}) is above `{high_name}` ({})", low.as_millis(), high.as_millis());
                self.error(&at.key(key), message);
            }
        }
        cooldown
    }
}
