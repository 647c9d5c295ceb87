//! Other rules at other hours.
//!
//! Batch work is what carries the label `batch_label` (a header `x-pointsman-label-batch` with any value but "no"), or has
//! a priority of `batch_priority` or less.
//!
//! | | within a window (off-peak) | outside (peak) |
//! |---|---|---|
//! | other requests | the better of two primaries, a wait, a fallback, emergency | the same |
//! | batch work | the same, but no fallback | `batch_at_peak`: refused, or only what primaries have to spare |
//!
//! "To spare" is a primary less than `spare_below` full; batch work waits for a limited one as others do. When it is refused, it is
//! told when the next window begins. `fallback` says at which hours other requests may use fallbacks at all.

use pointsman_sdk::settings::{self, within};
use pointsman_sdk::{
    Candidate, Choose, Decision, LocalTime, Patience, Policy, Query, Rejection, Roster, Table, Tier, Window, note,
    request,
};
use serde::Deserialize;

/// Settings of the policy; see `README.md`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    windows: Vec<Window>,
    utc_offset_minutes: i32,
    batch_label: String,
    batch_priority: i32,
    batch_at_peak: BatchAtPeak,
    spare_below: f64,
    fallback: Hours,
    primary_wait_ms: u32,
    primary_wait_max_retries: u32,
    max_pool_retries: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum BatchAtPeak {
    Refuse,
    Spare,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Hours {
    Always,
    Peak,
    OffPeak,
    Never,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            windows: Vec::new(),
            utc_offset_minutes: 0,
            batch_label: "batch".to_owned(),
            batch_priority: -1,
            batch_at_peak: BatchAtPeak::Spare,
            spare_below: 0.3,
            fallback: Hours::Always,
            primary_wait_ms: 5_000,
            primary_wait_max_retries: 6,
            max_pool_retries: 3,
        }
    }
}

/// The policy.
pub struct OffPeak {
    settings: Settings,
    roster: Roster,
}

pointsman_sdk::export!(OffPeak);

impl Policy for OffPeak {
    fn configure(settings: &str, table: &Table) -> Result<Self, String> {
        let settings: Settings = settings::parse(settings)?;
        if settings.windows.iter().all(|window| window.days.is_empty()) {
            return Err("setting `windows`: say when the quiet hours are, such as \
                        windows = [{ from = \"22:00\", until = \"06:00\" }]"
                .to_owned());
        }
        within("utc_offset_minutes", settings.utc_offset_minutes, -720..=840)?;
        within("batch_priority", settings.batch_priority, -101..=100)?;
        within("spare_below", settings.spare_below, 0.0..=1.0)?;
        within("primary_wait_ms", settings.primary_wait_ms, 0..=600_000)?;
        within("primary_wait_max_retries", settings.primary_wait_max_retries, 0..=1_000)?;
        within("max_pool_retries", settings.max_pool_retries, 0..=100)?;
        Ok(Self { settings, roster: Roster::new(table) })
    }

    fn decide(&mut self, query: &Query) -> Decision {
        let now = LocalTime::at(query.now_ms, self.settings.utc_offset_minutes);
        let is_off_peak = self.settings.windows.iter().any(|window| window.contains(now));
        let decision = match (self.is_batch(query), is_off_peak) {
            (true, true) => self.primary(query, |_| true),
            (true, false) => return self.batch_at_peak(query).unwrap_or_else(|| self.refuse(now)),
            (false, _) => self.primary(query, |_| true).or_else(|| self.without_primary(query, is_off_peak)),
        };
        decision.unwrap_or_else(Decision::exhausted)
    }
}

impl OffPeak {
    fn is_batch(&self, query: &Query) -> bool {
        query.request.priority <= self.settings.batch_priority
            || request::label(&self.settings.batch_label).is_some_and(|value| value != "no")
    }

    fn primary(&self, query: &Query, is_open: impl Fn(&Candidate) -> bool + Clone) -> Option<Decision> {
        let primaries = self.open(query, Tier::Primary);
        let ready = primaries.clone().ready().filter(is_open).least_tried(query);
        (ready.two_choices(&query.request, &mut query.dice()).map(|c| c.send()))
            .or_else(|| primaries.wait(query, self.patience()))
    }

    fn without_primary(&self, query: &Query, is_off_peak: bool) -> Option<Decision> {
        let may_fall_back = match self.settings.fallback {
            Hours::Always => true,
            Hours::Peak => !is_off_peak,
            Hours::OffPeak => is_off_peak,
            Hours::Never => false,
        };
        let fallbacks = self.open(query, Tier::Fallback).filter(|_| may_fall_back);
        let anyone = self.roster.candidates(query).filter(|c| may_fall_back || c.tier() == Tier::Primary);
        let ready = fallbacks.clone().ready().least_tried(query);
        (ready.cheapest(&query.request).two_choices(&query.request, &mut query.dice()).map(|c| c.send()))
            .or_else(|| fallbacks.wait(query, self.patience()))
            .or_else(|| anyone.emergency(query, self.patience()))
    }

    fn batch_at_peak(&self, query: &Query) -> Option<Decision> {
        match self.settings.batch_at_peak {
            BatchAtPeak::Refuse => None,
            BatchAtPeak::Spare => {
                let spare_permille = (self.settings.spare_below * 1_000.0) as u32;
                self.primary(query, |c| c.load_permille() < spare_permille)
            }
        }
    }

    fn refuse(&self, now: LocalTime) -> Decision {
        let starts_in_ms = self.settings.windows.iter().filter_map(|window| window.starts_in_ms(now)).min();
        note("batch work is for the quiet hours");
        Decision::Reject(Rejection {
            status: 429,
            kind: "off_peak_only".to_owned(),
            message: format!(
                "Batch work is served in the quiet hours; the next begin in {} minutes.",
                starts_in_ms.unwrap_or(0).div_ceil(60_000)
            ),
            // At most a week, which fits.
            retry_after_ms: starts_in_ms.and_then(|ms| u32::try_from(ms).ok()),
        })
    }

    fn open<'a>(&'a self, query: &'a Query<'a>, tier: Tier) -> impl Choose<'a> {
        self.roster.candidates(query).of(tier).with_retries_left(query, self.settings.max_pool_retries)
    }

    fn patience(&self) -> Patience {
        Patience { longest_ms: self.settings.primary_wait_ms, waits: self.settings.primary_wait_max_retries }
    }
}

#[cfg(test)]
mod tests {
    use pointsman_sdk::Outcome;
    use pointsman_sdk::testing::{Case, Given, case, fallback, primary};

    use super::*;

    /// 2026-01-05, a Monday.
    const MONDAY_MS: u64 = 1_767_571_200_000;
    const HOUR_MS: u64 = 3_600_000;
    const NIGHTS: &str = r#"{"windows": [{"from": "22:00", "until": "06:00"}]}"#;

    fn at(hour: u64, backends: impl IntoIterator<Item = Given>) -> Case {
        case(backends).at_ms(MONDAY_MS + hour * HOUR_MS).settings(NIGHTS)
    }

    fn cooling() -> Given {
        primary("a").cooling(Outcome::RateLimited, 60_000)
    }

    fn decision(case: &Case) -> Decision {
        case.decision::<OffPeak>()
    }

    fn rejection(case: &Case) -> Rejection {
        match decision(case) {
            Decision::Reject(rejection) => rejection,
            other => panic!("{other:?}"),
        }
    }

    fn with_setting(case: &Case, setting: &str) -> Case {
        case.clone().settings(&NIGHTS.replacen('{', &format!("{{{setting}, "), 1))
    }

    #[test]
    fn batch_work_is_told_by_label_or_priority() {
        let full = || primary("full").with("in_flight", 8);
        let noon = || at(12, [full()]);
        assert_eq!(decision(&noon()), Decision::primary(0));
        assert_eq!(decision(&noon().label("batch", "no")), Decision::primary(0));
        for batch in [noon().label("batch", "nightly"), noon().priority(-1)] {
            assert_eq!(rejection(&batch).retry_after_ms, Some(10 * HOUR_MS as u32));
        }
    }

    #[test]
    fn by_night_batch_work_uses_primaries_freely_but_never_a_fallback() {
        let night = |backends: [Given; 2]| at(23, backends).priority(-50);
        assert_eq!(decision(&night([primary("a").with("in_flight", 99), fallback("b")])), Decision::primary(0));
        assert_eq!(decision(&night([cooling(), fallback("b")])), Decision::exhausted());
        assert_eq!(decision(&night([primary("a").throttled(900), fallback("b")])), Decision::wait_for_primary(5_000));
    }

    #[test]
    fn by_day_batch_work_gets_what_is_to_spare_or_nothing() {
        let idle = at(12, [primary("full").with("in_flight", 9), primary("idle")]).priority(-50);
        assert_eq!(idle.shares::<OffPeak>(), [0, 1_000]);
        let refusing = with_setting(&idle, r#""batch_at_peak": "refuse""#);
        assert_eq!(rejection(&refusing).status, 429);
        let throttled = at(12, [primary("a").throttled(900), fallback("b")]).priority(-50);
        assert_eq!(decision(&throttled), Decision::wait_for_primary(5_000));
        assert_eq!(rejection(&throttled.after_waits(6)).kind, "off_peak_only");
    }

    #[test]
    fn fallbacks_keep_their_hours() {
        for (setting, by_day, by_night) in
            [("always", true, true), ("peak", true, false), ("off-peak", false, true), ("never", false, false)]
        {
            for (hour, expected) in [(12, by_day), (23, by_night)] {
                let paid = fallback("b").with("emergency_ms", 0);
                let asked = with_setting(&at(hour, [cooling(), paid]), &format!(r#""fallback": "{setting}""#));
                let either = if expected { Decision::fallback(1) } else { Decision::exhausted() };
                assert_eq!(decision(&asked), either, "{setting} at {hour}");
            }
        }
    }

    #[test]
    fn the_hours_are_local() {
        let batch = at(21, [primary("full").with("in_flight", 99)]).priority(-1);
        assert_eq!(rejection(&batch).retry_after_ms, Some(HOUR_MS as u32));
        assert_eq!(decision(&with_setting(&batch, r#""utc_offset_minutes": 60"#)), Decision::primary(0));
    }

    #[test]
    fn wrong_settings_are_named() {
        let error = |json| OffPeak::configure(json, &case([]).table()).err().unwrap_or_default();
        for (json, word) in [
            ("", "`windows`: say when"),
            (r#"{"windows": [{"from": "9", "until": "10:00"}]}"#, "setting `windows`: \"9\" is no time of day"),
            (&NIGHTS.replacen('{', r#"{"fallback": "sometimes", "#, 1), "setting `fallback`: unknown variant"),
            (&NIGHTS.replacen('{', r#"{"utc_offset_minutes": 900, "#, 1), "`utc_offset_minutes`: 900"),
        ] {
            assert!(error(json).contains(word), "{json}: {}", error(json));
        }
    }
}
