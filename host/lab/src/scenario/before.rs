//! `backend.before`: what a backend has behind it at time 0.

use std::time::Duration;

use pointsman_config::KeyPath;
use pointsman_core::fleet::InitialState;
use pointsman_core::outcome::Kind;

use super::check::Check;
use super::raw::RawBefore;

impl Check<'_, '_, '_> {
    pub(super) fn past(&mut self, backend: &KeyPath, raw: &RawBefore) -> InitialState {
        let at = backend.key("before");
        let cooling = raw.cooling.as_deref().map(|text| self.duration(&at, "cooling", Some(text), Duration::ZERO));
        let reason = match raw.reason.as_deref() {
            None => Kind::RateLimited,
            Some(word) => Kind::parse(word).unwrap_or_else(|| {
                self.unknown(&at.key("reason"), "outcome", word, &Kind::ALL.map(Kind::as_str));
                Kind::RateLimited
            }),
        };
        for (key, is_given) in [("reason", raw.reason.is_some()), ("failures", raw.failures.is_some())] {
            if is_given && cooling.is_none() {
                let problem =
                    self.complaints.error(&at.key(key), format!("`{key}` says why it cools, and it does not"));
                problem.help("add `cooling`; \"0s\" for a backend that waits for its probe");
            }
        }
        let errors = raw.errors.unwrap_or(0.0);
        if !(0.0..=1.0).contains(&errors) {
            self.complaints.error(&at.key("errors"), "`errors` is a share, from 0 to 1");
        }
        let mut span = |key: &str, text: &Option<String>| {
            text.as_deref().map(|text| self.duration(&at, key, Some(text), Duration::ZERO))
        };
        InitialState {
            cooldown: cooling.map(|left| (left, reason)),
            failures: raw.failures.unwrap_or(1),
            drained: raw.drained,
            in_flight: raw.in_flight.unwrap_or(0),
            requests_left: raw.requests_left,
            tokens_left: raw.tokens_left,
            full_for: span("full_for", &raw.full_for),
            emergency_in: span("emergency_in", &raw.emergency_in),
            latency: span("latency", &raw.latency).unwrap_or_default(),
            first_token: span("first_token", &raw.first_token).unwrap_or_default(),
            errors: errors as f32,
        }
    }
}
