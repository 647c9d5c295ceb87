//! The small languages of a scenario's values: durations, decisions, ends, counts. Each says how it is written.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::record::End;
use pointsman_core::table::Lane;

use crate::recorder::{Decided, DecidedWhat, Ended};

/// Syntax of a duration.
pub(super) const DURATION: &str =
    "a number and a unit: \"300ms\", \"2s\", \"1.5s\", \"2m\", \"1h\" or \"1d\"; 100 days at most";
/// Syntax of a decision.
pub(super) const DECISION: &str = "\"LANE [BACKEND] [as MODEL]\", \"wait LANE\", \"reject [STATUS]\" or \"...\", where LANE is primary, fallback or emergency";
/// Syntax of an end.
pub(super) const END: &str =
    "\"delivered [by BACKEND]\", \"refused STATUS [by BACKEND]\", \"rejected STATUS\", \"broken\" or \"left\"";
/// Syntax of a count.
pub(super) const COUNT: &str = "a number, or \"<=6\", \">=2\" or \"3..5\"";

/// The longest duration that is believed.
const MAX_DURATION: Duration = Duration::from_secs(100 * 24 * 3_600);

/// Reads a duration; none when it is none.
pub(super) fn duration(text: &str) -> Option<Duration> {
    pointsman_core::duration::parse(text).filter(|duration| *duration <= MAX_DURATION)
}

/// One entry of a request's `decisions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// `...`: any decisions, or none.
    Any,
    /// One decision that matches this.
    One(DecisionPattern),
}

/// A decision as it should be; what is left out matches anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionPattern {
    what: WhatPattern,
    /// Id of the backend; none: any.
    pub backend: Option<String>,
    /// The model asked for from then on.
    pub model: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WhatPattern {
    Send(Lane),
    Wait(Lane),
    Reject(Option<u16>),
}

impl Expected {
    /// Reads one; none when it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let one = |what, backend: Option<&str>, model: Option<&str>| {
            let (backend, model) = (backend.map(str::to_owned), model.map(str::to_owned));
            Some(Expected::One(DecisionPattern { what, backend, model }))
        };
        match words.as_slice() {
            ["..."] => Some(Expected::Any),
            ["wait", lane] => one(WhatPattern::Wait(Lane::parse(lane)?), None, None),
            ["reject"] => one(WhatPattern::Reject(None), None, None),
            ["reject", status] => one(WhatPattern::Reject(Some(self::status(status)?)), None, None),
            [lane] => one(WhatPattern::Send(Lane::parse(lane)?), None, None),
            [lane, "as", model] => one(WhatPattern::Send(Lane::parse(lane)?), None, Some(model)),
            [lane, backend] => one(WhatPattern::Send(Lane::parse(lane)?), Some(backend), None),
            [lane, backend, "as", model] => one(WhatPattern::Send(Lane::parse(lane)?), Some(backend), Some(model)),
            _ => None,
        }
    }
}

impl DecisionPattern {
    /// The decision that it is; none where its status is left open.
    pub(super) fn decided(&self) -> Option<Decided> {
        let what = match self.what {
            WhatPattern::Send(lane) => DecidedWhat::Send(lane),
            WhatPattern::Wait(lane) => DecidedWhat::Wait(lane),
            WhatPattern::Reject(status) => DecidedWhat::Reject(status?),
        };
        Some(Decided { what, backend: self.backend.as_deref().map(Arc::from), model: self.model.clone() })
    }

    /// Returns true if this is the decision.
    pub fn matches(&self, decided: &Decided) -> bool {
        let what = match (self.what, decided.what) {
            (WhatPattern::Send(wanted), DecidedWhat::Send(lane))
            | (WhatPattern::Wait(wanted), DecidedWhat::Wait(lane)) => wanted == lane,
            (WhatPattern::Reject(wanted), DecidedWhat::Reject(status)) => wanted.is_none_or(|w| w == status),
            (WhatPattern::Send(_) | WhatPattern::Wait(_) | WhatPattern::Reject(_), _) => false,
        };
        let named = |wanted: &Option<String>, is: Option<&str>| wanted.as_deref().is_none_or(|w| is == Some(w));
        what && named(&self.backend, decided.backend.as_deref()) && named(&self.model, decided.model.as_deref())
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Expected::One(pattern) = self else { return f.write_str("...") };
        match pattern.what {
            WhatPattern::Send(lane) => f.write_str(lane.as_str())?,
            WhatPattern::Wait(lane) => write!(f, "wait {}", lane.as_str())?,
            WhatPattern::Reject(None) => f.write_str("reject")?,
            WhatPattern::Reject(Some(status)) => write!(f, "reject {status}")?,
        }
        if let Some(backend) = &pattern.backend {
            write!(f, " {backend}")?;
        }
        pattern.model.as_ref().map_or(Ok(()), |model| write!(f, " as {model}"))
    }
}

/// An end as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndPattern {
    end: End,
    status: Option<u16>,
    /// Backend that gave the answer; `None`: any.
    pub by: Option<Arc<str>>,
}

impl EndPattern {
    /// Reads one; none when it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let of = |end, status: Option<u16>, by: Option<&str>| Some(Self { end, status, by: by.map(Arc::from) });
        match words.as_slice() {
            ["delivered"] => of(End::Delivered, None, None),
            ["delivered", "by", backend] => of(End::Delivered, None, Some(backend)),
            ["refused", status] => of(End::Refused, Some(self::status(status)?), None),
            ["refused", status, "by", backend] => of(End::Refused, Some(self::status(status)?), Some(backend)),
            ["rejected", status] => of(End::Rejected, Some(self::status(status)?), None),
            ["broken"] => of(End::Broken, None, None),
            ["left"] => of(End::ClientGone, None, None),
            _ => None,
        }
    }

    /// Returns true if this is the end.
    pub fn matches(&self, ended: &Ended) -> bool {
        let by = ended.by.as_ref().map(|(_, backend)| backend);
        self.end == ended.end
            && self.status.is_none_or(|status| status == ended.status)
            && self.by.as_ref().is_none_or(|wanted| by == Some(wanted))
    }
}

impl fmt::Display for EndPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.end == End::ClientGone { "left" } else { self.end.as_str() })?;
        if let Some(status) = self.status {
            write!(f, " {status}")?;
        }
        self.by.as_ref().map_or(Ok(()), |by| write!(f, " by {by}"))
    }
}

/// Bounds of an expected number or amount, both included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Count {
    /// This number and no other.
    Exactly(f64),
    /// This number or less.
    AtMost(f64),
    /// This number or more.
    AtLeast(f64),
    /// From this to that, both included.
    Between(f64, f64),
}

impl Count {
    /// Reads one that is written as text; none when it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0);
        let text = text.trim();
        if let Some(most) = text.strip_prefix("<=") {
            return number(most).map(Count::AtMost);
        }
        if let Some(least) = text.strip_prefix(">=") {
            return number(least).map(Count::AtLeast);
        }
        match text.split_once("..") {
            Some((low, high)) => {
                let (low, high) = (number(low)?, number(high)?);
                (low <= high).then_some(Count::Between(low, high))
            }
            None => number(text).map(Count::Exactly),
        }
    }

    /// Returns true if the number is as expected.
    pub fn admits(self, number: f64) -> bool {
        /// Sums of prices are not exact.
        const NEARLY: f64 = 1e-9;
        match self {
            Count::Exactly(n) => (number - n).abs() <= NEARLY,
            Count::AtMost(n) => number <= n + NEARLY,
            Count::AtLeast(n) => number >= n - NEARLY,
            Count::Between(low, high) => number >= low - NEARLY && number <= high + NEARLY,
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Count::Exactly(n) => write!(f, "{n}"),
            Count::AtMost(n) => write!(f, "at most {n}"),
            Count::AtLeast(n) => write!(f, "at least {n}"),
            Count::Between(low, high) => write!(f, "{low} to {high}"),
        }
    }
}

fn status(word: &str) -> Option<u16> {
    word.parse().ok().filter(|status| (100..=599).contains(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        let ms = |text| duration(text).map(|d| d.as_micros());
        assert_eq!(ms("300ms"), Some(300_000));
        assert_eq!(ms("1.5s"), Some(1_500_000));
        assert_eq!(ms("2m"), Some(120_000_000));
        assert_eq!(ms("1 h"), Some(3_600_000_000));
        for wrong in ["", "300", "ms", "-1s", "1e3s", "1y", "s1", "..s", "9999999h", "NaNs"] {
            assert_eq!(ms(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_decision_is_written_as_it_is_read() {
        for text in
            ["primary", "fallback b", "primary as n", "emergency a as n", "wait primary", "reject", "reject 402", "..."]
        {
            assert_eq!(Expected::parse(text).map(|e| e.to_string()).as_deref(), Some(text));
        }
        for wrong in ["", "primary a b", "wait", "wait a", "reject x", "secondary", "primary a as", "...."] {
            assert_eq!(Expected::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn what_is_left_out_matches_anything() {
        let decided = |what, backend: Option<&str>| Decided { what, backend: backend.map(Arc::from), model: None };
        let matches = |text: &str, decided: &Decided| match Expected::parse(text) {
            Some(Expected::One(pattern)) => pattern.matches(decided),
            Some(Expected::Any) | None => panic!("{text}"),
        };
        let primary = decided(DecidedWhat::Send(Lane::Primary), Some("a"));
        assert!(matches("primary", &primary) && matches("primary a", &primary));
        assert!(
            !matches("primary b", &primary) && !matches("fallback a", &primary) && !matches("primary as n", &primary)
        );
        assert!(!matches("wait primary", &primary));
        let reject = decided(DecidedWhat::Reject(402), None);
        assert!(matches("reject", &reject) && matches("reject 402", &reject) && !matches("reject 503", &reject));
    }

    #[test]
    fn counts_have_bounds() {
        let admits = |text: &str, number| Count::parse(text).unwrap().admits(number);
        assert!(admits("2", 2.0) && !admits("2", 3.0));
        assert!(admits("<=6", 6.0) && !admits("<=6", 7.0));
        assert!(admits(">=2", 2.0) && !admits(">=2", 1.0));
        assert!(admits("3..5", 3.0) && admits("3..5", 5.0) && !admits("3..5", 6.0));
        assert!(admits("<=0.5", 0.1 + 0.4));
        for wrong in ["", "x", "<6", "5..3", "-1", "1..", "inf"] {
            assert_eq!(Count::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn an_end_is_written_as_it_is_read() {
        for text in ["delivered", "delivered by a", "refused 400", "refused 400 by a", "rejected 503", "broken", "left"]
        {
            assert_eq!(EndPattern::parse(text).map(|e| e.to_string()).as_deref(), Some(text));
        }
        for wrong in ["", "delivered a", "refused", "rejected", "rejected soon", "broken 502"] {
            assert_eq!(EndPattern::parse(wrong), None, "{wrong:?}");
        }
    }
}
