//! The plan of a guarded promotion: share of the candidate, duration, and limits on how much worse it may be.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// The share of exchanges that a candidate gets where none is given, in percent.
const DEFAULT_SHARE_PERCENT: f64 = 5.0;

/// Duration where none is given.
const DEFAULT_LASTS: Duration = Duration::from_secs(600);

/// The shortest promotion.
const MIN_LASTS: Duration = Duration::from_secs(1);

/// The longest promotion: a week.
const MAX_LASTS: Duration = Duration::from_secs(7 * 24 * 3_600);

/// The largest allowance of a guard, in percent.
const MAX_LIMIT_PERCENT: f64 = 1_000.0;

/// Plan of a guarded promotion.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Share of the traffic that the candidate gets.
    pub share: Share,
    /// Time for which both are compared.
    pub lasts: Duration,
    /// Limits on the candidate, each measure at most once.
    pub guards: Vec<Guard>,
}

/// The candidate's share of the exchanges: more than none, less than all.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Share(f64);

/// The subject that a side is drawn for: the same subject is always on the same side.
#[derive(Clone, Copy, Debug, Hash)]
pub enum Subject<'a> {
    /// A client's session.
    Session {
        /// The client key's name; none: no keys are configured.
        client: Option<&'a str>,
        /// `x-pointsman-session`.
        session: &'a str,
    },
    /// A request on its own, by its id.
    Request(&'a str),
}

vocabulary! {
    /// The quantity that a guard limits.
    pub enum Measure {
        /// The share of exchanges whose client got no whole answer.
        ErrorRate = "error_rate",
        /// The time from arrival to the last byte that all but the slowest twentieth of exchanges stay below.
        P95 = "p95",
        /// The mean cost of an exchange, all its attempts together.
        Spend = "spend",
    }
}

/// A limit on how much worse than the policy in force the candidate may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guard {
    /// Measure that is compared.
    pub measure: Measure,
    /// By how much: for the error rate a difference of shares, else a share of what the policy in force has.
    pub limit: f64,
}

/// A promotion that cannot be carried out as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPlan {
    /// The share is not readable.
    #[error("canary={0:?} is not a share of the exchanges; write a percentage above 0% and below 100%, such as 5%")]
    Share(String),
    /// The duration is not readable.
    #[error("for={0:?} is not a time for a promotion; write 1s to 7d, such as 90s, 10m or 2h")]
    Lasts(String),
    /// The guard.
    #[error(
        "guard={0:?} is no guard; write error_rate<=+0.5%, p95<=+10% or spend<=+5%, with a percentage from 0% to 1000%"
    )]
    Guard(String),
    /// Two guards of one measure.
    #[error("guard={guard:?}: {} is guarded twice; give each guard once", .measure.as_str())]
    Twice {
        /// The second guard of the measure.
        guard: String,
        /// Measure of both.
        measure: Measure,
    },
}

impl Plan {
    /// Reads what an operator wrote; what is not given has its default: 5 %, 10 minutes, all three guards.
    ///
    /// # Errors
    /// The first part that makes no sense.
    pub fn parse<'a>(
        share: Option<&str>,
        lasts: Option<&str>,
        guards: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, BadPlan> {
        let share = share.map_or(Ok(Share(DEFAULT_SHARE_PERCENT / 100.0)), |text| {
            Share::parse(text).ok_or_else(|| BadPlan::Share(text.to_owned()))
        })?;
        let lasts = lasts.map_or(Ok(DEFAULT_LASTS), |text| {
            let known = duration(text).filter(|lasts| (MIN_LASTS..=MAX_LASTS).contains(lasts));
            known.ok_or_else(|| BadPlan::Lasts(text.to_owned()))
        })?;
        let mut parsed: Vec<Guard> = Vec::new();
        for text in guards {
            let guard = Guard::parse(text).ok_or_else(|| BadPlan::Guard(text.to_owned()))?;
            if parsed.iter().any(|known| known.measure == guard.measure) {
                return Err(BadPlan::Twice { guard: text.to_owned(), measure: guard.measure });
            }
            parsed.push(guard);
        }
        let guards = if parsed.is_empty() { Guard::DEFAULTS.to_vec() } else { parsed };
        Ok(Self { share, lasts, guards })
    }
}

impl Share {
    /// Reads a percentage such as `5%`.
    pub fn parse(text: &str) -> Option<Self> {
        let share = percent(text)? / 100.0;
        (share > 0.0 && share < 1.0).then_some(Self(share))
    }

    /// As a fraction, above 0 and below 1.
    pub const fn fraction(self) -> f64 {
        self.0
    }

    /// Returns true if this subject belongs to the candidate. The hash is keyed (SipHash), so that nobody can choose a
    /// side without the `key`; a larger share of the same key includes the smaller one.
    pub fn takes(self, key: u64, subject: Subject<'_>) -> bool {
        let mut hasher = DefaultHasher::new();
        (key, subject).hash(&mut hasher);
        // 53 bits are what a fraction can tell apart.
        ((hasher.finish() >> 11) as f64) < self.0 * (1u64 << 53) as f64
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Percent(self.0))
    }
}

impl Guard {
    /// The guards of a promotion that names none.
    pub const DEFAULTS: [Guard; 3] = [
        Guard { measure: Measure::ErrorRate, limit: 0.005 },
        Guard { measure: Measure::P95, limit: 0.1 },
        Guard { measure: Measure::Spend, limit: 0.05 },
    ];

    /// Reads `p95<=+10%`; the plus may be left out (in an address it is a space).
    pub fn parse(text: &str) -> Option<Self> {
        let (name, limit) = text.split_once("<=")?;
        let measure = Measure::parse(name.trim())?;
        let limit = limit.trim();
        let limit = percent(limit.strip_prefix('+').unwrap_or(limit))?;
        (limit <= MAX_LIMIT_PERCENT).then_some(Self { measure, limit: limit / 100.0 })
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}<=+{}", self.measure.as_str(), Percent(self.limit))
    }
}

/// A fraction as people write it: at most two digits after the point, and none that say nothing.
pub(super) struct Percent(pub(super) f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:.2}", self.0 * 100.0);
        let text = text.trim_end_matches('0').trim_end_matches('.');
        write!(f, "{}%", if text == "-0" { "0" } else { text })
    }
}

/// A percentage that is not negative.
fn percent(text: &str) -> Option<f64> {
    let number = text.trim().strip_suffix('%')?.trim_end();
    let is_plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    number.parse::<f64>().ok().filter(|_| is_plain)
}

/// `90s`, `10m`, `2h` or `1d`.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let unit = text.chars().last()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let number = &text[..text.len() - 1];
    let number = number.bytes().all(|b| b.is_ascii_digit()).then(|| number.parse::<u64>().ok())??;
    number.checked_mul(seconds).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_plan_is_read_as_it_is_written() {
        let plan = Plan::parse(Some("2.5%"), Some("90s"), ["error_rate<=+0.5%", "p95<= 10%", "spend <= 0%"]).unwrap();
        assert_eq!((plan.share.fraction(), plan.lasts), (0.025, Duration::from_secs(90)));
        let shown: Vec<String> = plan.guards.iter().map(Guard::to_string).collect();
        assert_eq!(shown, ["error_rate<=+0.5%", "p95<=+10%", "spend<=+0%"]);
        assert_eq!(plan.share.to_string(), "2.5%");
        let default = Plan::parse(None, None, []).unwrap();
        assert_eq!((default.share.to_string(), default.lasts), ("5%".to_owned(), Duration::from_secs(600)));
        assert_eq!(default.guards, Guard::DEFAULTS);
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_one_sentence() {
        for share in ["0%", "100%", "5", "-5%", "NaN%", "1e1%", "%", ""] {
            let error = Plan::parse(Some(share), None, []).unwrap_err();
            assert_eq!(error, BadPlan::Share(share.to_owned()));
        }
        for lasts in ["10", "0s", "8d", "-1m", "m", "1.5h", "99999999999999999999d", "5µ"] {
            assert_eq!(Plan::parse(None, Some(lasts), []).unwrap_err(), BadPlan::Lasts(lasts.to_owned()));
        }
        for guard in ["latency<=+5%", "p95<+5%", "p95<=5", "p95<=+1001%", "p95<=-1%", "p95"] {
            assert_eq!(Plan::parse(None, None, [guard]).unwrap_err(), BadPlan::Guard(guard.to_owned()));
        }
        let twice = Plan::parse(None, None, ["p95<=+5%", "p95<=+6%"]).unwrap_err();
        assert_eq!(twice.to_string(), "guard=\"p95<=+6%\": p95 is guarded twice; give each guard once");
    }

    #[test]
    fn a_session_has_one_side_and_the_sides_have_their_shares() {
        let share = Share::parse("5%").unwrap();
        let takes = |i: usize| {
            let session = i.to_string();
            let subject = Subject::Session { client: Some("agent"), session: &session };
            assert_eq!(share.takes(7, subject), share.takes(7, subject));
            share.takes(7, subject)
        };
        let taken = (0..20_000).filter(|i| takes(*i)).count();
        assert!((850..1_150).contains(&taken), "{taken} of 20,000");
        let same = |key| (0..64).map(|i: u32| share.takes(key, Subject::Request(&i.to_string()))).collect::<Vec<_>>();
        assert!((0..64).any(|key| same(key) != same(key + 64)), "another key, another draw");
    }

    proptest! {
        #[test]
        fn a_larger_share_keeps_who_was_in(key: u64, id: String, small in 0.001f64..0.999, more in 0.0f64..1.0) {
            let large = Share(small + (0.9999 - small) * more);
            let subject = Subject::Request(&id);
            prop_assert!(!Share(small).takes(key, subject) || large.takes(key, subject));
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = Plan::parse(Some(&text), Some(&text), [text.as_str()]);
            let _ = Guard::parse(&text);
        }
    }
}
