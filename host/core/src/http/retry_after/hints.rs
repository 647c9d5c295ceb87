//! Rate limits and wishes in headers.

use std::time::{Duration, UNIX_EPOCH};

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};

use super::forms::{decimal, decimal_u64, reset, sane};
use crate::time::Timestamp;

/// `retry-after-ms`, or `retry-after` in seconds or as a date.
pub(super) fn explicit(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
    if let Some(wish) = text("retry-after-ms").and_then(|v| decimal(v, 1e-3)) {
        return Some(wish);
    }
    let value = text(RETRY_AFTER.as_str())?;
    decimal(value, 1.0).or_else(|| {
        let at = httpdate::parse_http_date(value).ok()?;
        // The upstream's own clock, where it tells it: ours may be wrong.
        let date = text(DATE.as_str()).and_then(|d| httpdate::parse_http_date(d).ok());
        let from = date.or_else(|| UNIX_EPOCH.checked_add(Duration::from_micros(now.as_micros())))?;
        sane(at.duration_since(from).unwrap_or_default())
    })
}

/// One limit as the upstream tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hint {
    /// The limit. Providers do not agree on its window (minute, day), so rely on the other two.
    pub limit: Option<u64>,
    /// Units left of the limit.
    pub remaining: Option<u64>,
    /// Until it is whole again.
    pub reset: Option<Duration>,
}

impl Hint {
    /// So much is left, until then; none where the upstream did not tell both.
    pub fn left_until(&self, now: Timestamp) -> Option<(u32, Timestamp)> {
        Some((u32::try_from(self.remaining?).unwrap_or(u32::MAX), now + self.reset?))
    }
}

/// Rate limits as the upstream's headers describe them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateHints {
    /// Requests.
    pub requests: Hint,
    /// Tokens.
    pub tokens: Hint,
}

impl RateHints {
    /// Reads `[x-]ratelimit-{limit,remaining,reset}[-{requests,req,tokens}][-minute|-day]` and
    /// `anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}` in one pass; of several
    /// token limits the one with the least remaining counts, and a day's only where it is used up or the only one.
    pub fn parse(headers: &HeaderMap, now: Timestamp) -> Self {
        let mut hints = Self::default();
        let mut by_direction = [Hint::default(); 2];
        let mut of_day = [Hint::default(); 2];
        for (name, value) in headers {
            let name = name.as_str();
            let (slot, field) = if let Some(rest) = name.strip_prefix("x-").unwrap_or(name).strip_prefix("ratelimit-") {
                let (rest, is_of_day) = match (rest.strip_suffix("-minute"), rest.strip_suffix("-day")) {
                    (Some(rest), _) => (rest, false),
                    (None, Some(rest)) => (rest, true),
                    (None, None) => (rest, false),
                };
                let [day_requests, day_tokens] = &mut of_day;
                match (rest.split_once('-'), is_of_day) {
                    (None, false) => (&mut hints.requests, rest),
                    (None, true) => (day_requests, rest),
                    (Some((field, "requests" | "req")), false) => (&mut hints.requests, field),
                    (Some((field, "requests" | "req")), true) => (day_requests, field),
                    (Some((field, "tokens")), false) => (&mut hints.tokens, field),
                    (Some((field, "tokens")), true) => (day_tokens, field),
                    (Some(_), _) => continue,
                }
            } else if let Some(rest) = name.strip_prefix("anthropic-ratelimit-") {
                match rest.rsplit_once('-') {
                    Some(("requests", field)) => (&mut hints.requests, field),
                    Some(("tokens", field)) => (&mut hints.tokens, field),
                    Some(("input-tokens", field)) => (&mut by_direction[0], field),
                    Some(("output-tokens", field)) => (&mut by_direction[1], field),
                    Some(_) | None => continue,
                }
            } else {
                continue;
            };
            let Ok(value) = value.to_str() else { continue };
            match field {
                "limit" => slot.limit = value.trim().parse().ok(),
                "remaining" => slot.remaining = decimal_u64(value.trim()),
                "reset" => slot.reset = reset(value.trim(), now),
                _ => {}
            }
        }
        for hint in by_direction {
            let tighter = hint.remaining.is_some_and(|left| hints.tokens.remaining.is_none_or(|known| left < known));
            if tighter || hints.tokens == Hint::default() {
                hints.tokens = hint;
            }
        }
        for (day, slot) in of_day.into_iter().zip([&mut hints.requests, &mut hints.tokens]) {
            if day.remaining == Some(0) || *slot == Hint::default() {
                *slot = day;
            }
        }
        hints
    }

    /// Until the limits that are used up are whole again. With `refused`, when no limit is known to be used up, the
    /// sooner reset of those told: one of them must have been the reason.
    pub fn wait(&self, refused: bool) -> Option<Duration> {
        let both = [self.requests, self.tokens];
        let used_up = both.iter().filter(|h| h.remaining == Some(0)).filter_map(|h| h.reset).max();
        used_up.or_else(|| if refused { both.iter().filter_map(|h| h.reset).min() } else { None })
    }
}
