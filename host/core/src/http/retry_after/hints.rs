//! Rate limits and wishes in headers.

use std::time::{Duration, UNIX_EPOCH};

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};

use super::forms::{decimal, decimal_u64, reset, sane, units};
use crate::rfc3339;
use crate::time::Timestamp;

/// `retry-after-ms`, or `retry-after` in seconds, as a date, or, as gateways write it, with a unit ("20s"). Of several the
/// longest counts.
pub(super) fn explicit(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let longest = |name: &str, read: &dyn Fn(&str) -> Option<Duration>| {
        headers.get_all(name).iter().filter_map(|value| read(value.to_str().ok()?.trim())).max()
    };
    // The upstream's own clock, where it tells it: ours may be wrong.
    let date = || httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?.trim()).ok();
    let of_date = |value: &str| {
        let at = httpdate::parse_http_date(value).ok()?;
        let from = date().or_else(|| UNIX_EPOCH.checked_add(Duration::from_micros(now.as_micros())))?;
        sane(at.duration_since(from).unwrap_or_default())
    };
    let of_moment = |value: &str| rfc3339::parse(value).and_then(|at| sane(at.since(now)));
    let read = |value: &str| {
        decimal(value, 1.0).or_else(|| of_date(value)).or_else(|| of_moment(value)).or_else(|| units(value))
    };
    longest("retry-after-ms", &|value| decimal(value, 1e-3))
        .or_else(|| longest(RETRY_AFTER.as_str(), &read))
        .or_else(|| longest("x-retry-after", &read))
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
    /// Reads the field `RateLimit` of the IETF's draft: `"default";r=0;t=30`, one item for each policy, of which the one with the
    /// least left counts; before its version 8 `limit=10, remaining=0, reset=30`.
    fn of_field(text: &str) -> Self {
        let mut all = Self::default();
        for item in text.split(',') {
            let mut one = Self::default();
            for (name, value) in item.split(';').filter_map(|parameter| parameter.split_once('=')) {
                let count = decimal_u64(value.trim().trim_matches('"'));
                match name.trim() {
                    "r" => one.remaining = count,
                    "t" => one.reset = count.map(Duration::from_secs).and_then(sane),
                    "remaining" => all.remaining = count,
                    "reset" => all.reset = count.map(Duration::from_secs).and_then(sane),
                    _ => {}
                }
            }
            all = all.or_tighter(one);
        }
        all
    }

    /// The one of two with less left.
    fn or_tighter(self, other: Self) -> Self {
        match (self.remaining, other.remaining) {
            (_, None) => self,
            (None, Some(_)) if self.reset.is_some() => self,
            (None, Some(_)) => other,
            (Some(left), Some(others)) if others < left => other,
            (Some(left), Some(others)) if others == left && other.reset > self.reset => other,
            (Some(_), Some(_)) => self,
        }
    }

    /// So much is left, until then; none where the upstream did not tell both.
    pub fn left_until(&self, now: Timestamp) -> Option<(u32, Timestamp)> {
        Some((u32::try_from(self.remaining?).unwrap_or(u32::MAX), now + self.reset?))
    }
}

/// Rate limits as the upstream's headers describe them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateHints {
    /// Requests left, and when that is reset.
    pub requests: Hint,
    /// Tokens left, and when that is reset.
    pub tokens: Hint,
}

impl RateHints {
    /// Reads `[x-]ratelimit-{limit,remaining,reset}[-{requests,req,tokens}][-minute|-day]`,
    /// `anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}`,
    /// `anthropic-ratelimit-unified-{status,reset}` and the IETF's `RateLimit` in one pass; of several token limits the one with
    /// the least remaining counts, and a day's only where it is used up or the only one.
    pub fn parse(headers: &HeaderMap, now: Timestamp) -> Self {
        let mut hints = Self::default();
        let mut by_direction = [Hint::default(); 2];
        let mut of_day = [Hint::default(); 2];
        let mut standard = Hint::default();
        for (name, value) in headers {
            let name = name.as_str();
            if name.strip_prefix("x-").unwrap_or(name) == "ratelimit" {
                standard = standard.or_tighter(value.to_str().map_or(Hint::default(), Hint::of_field));
                continue;
            }
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
                    // Of a subscription, whose windows are told apart only there.
                    Some(("unified", field)) => (&mut standard, field),
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
                "status" if value.trim() == "rejected" => slot.remaining = Some(0),
                _ => {}
            }
        }
        for hint in by_direction {
            let tighter = hint.remaining.is_some_and(|left| hints.tokens.remaining.is_none_or(|known| left < known));
            if tighter || hints.tokens == Hint::default() {
                hints.tokens = hint;
            }
        }
        if hints.requests == Hint::default() {
            hints.requests = standard;
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
