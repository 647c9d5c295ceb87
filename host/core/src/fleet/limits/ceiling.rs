//! The ceiling of attempts under way that is learned from refusals, where the configuration has none.
//!
//! Additive increase, multiplicative decrease: a refusal for too many requests at a time lowers the ceiling to three
//! quarters of what was under way (or to the number that the provider names); as many answers as it has places, each while
//! all of them were taken, raise it by one.

use crate::outcome::{Kind, Outcome};
use crate::time::Timestamp;

/// A ceiling that has grown to this many is none.
const FORGOTTEN_AT: u32 = 256;

/// Words of a refusal for too many requests at a time.
const WORDS: [&str; 10] = [
    "concurrent",
    "concurrency",
    "parallel request",
    "parallel call",
    "simultaneous",
    "requests at the same time",
    "requests at a time",
    "requests in flight",
    "in-flight request",
    "requests in progress",
];

/// The most attempts under way at a time, as far as it was learned.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ceiling {
    most: Option<u32>,
    /// Answers at the full ceiling since it last changed.
    answers: u32,
    lowered_at: Timestamp,
}

impl Ceiling {
    /// The most attempts under way; none where nothing was learned.
    pub fn most(&self) -> Option<u32> {
        self.most
    }

    /// Learns from an attempt that ended while `in_flight`, itself included, were under way. True for a refusal by which the
    /// ceiling makes room: no cooldown has to.
    pub fn learn(&mut self, now: Timestamp, sent_at: Timestamp, in_flight: u32, outcome: &Outcome) -> bool {
        match outcome.kind {
            Kind::Answered => self.raise(in_flight),
            Kind::RateLimited | Kind::Overloaded if is_about_concurrency(&outcome.message) => {
                return self.lower(now, sent_at, in_flight, outcome);
            }
            _ => {}
        }
        false
    }

    fn raise(&mut self, in_flight: u32) {
        let Some(most) = self.most.filter(|most| in_flight >= *most) else { return };
        self.answers += 1;
        if self.answers >= most {
            self.answers = 0;
            self.most = Some(most + 1).filter(|most| *most < FORGOTTEN_AT);
        }
    }

    fn lower(&mut self, now: Timestamp, sent_at: Timestamp, in_flight: u32, outcome: &Outcome) -> bool {
        self.answers = 0;
        // Attempts that were under way when it was lowered say nothing of the new one.
        if self.most.is_none() || sent_at > self.lowered_at {
            let told = number_told(&outcome.message);
            let lowered = (in_flight * 3 / 4).min(in_flight.saturating_sub(1)).min(self.most.unwrap_or(u32::MAX));
            self.most = Some(told.unwrap_or(lowered).max(1));
            self.lowered_at = now;
        }
        in_flight > 1 && outcome.retry_after.is_none()
    }
}

fn is_about_concurrency(message: &str) -> bool {
    let lower = message.to_ascii_lowercase();
    WORDS.iter().any(|word| lower.contains(word))
}

/// The limit that a refusal names: "max concurrency: 3", "limit of 5 concurrent requests".
fn number_told(message: &str) -> Option<u32> {
    let lower = message.to_ascii_lowercase();
    let number = |text: &str| text.parse::<u32>().ok().filter(|most| (1..FORGOTTEN_AT).contains(most));
    let behind =
        ["concurrency: ", "concurrency of ", "concurrency is ", "limit of ", "limit: ", "max: ", "maximum of "];
    let found = behind.iter().filter_map(|words| {
        let rest = &lower[lower.find(words)? + words.len()..];
        number(&rest[..rest.bytes().take_while(u8::is_ascii_digit).count()])
    });
    let before = || {
        let at = WORDS.iter().filter_map(|word| lower.find(word)).min()?;
        let is_most = ["limit", "max", "up to", "at most", "only", "allow"].iter().any(|word| lower.contains(word));
        lower[..at].split_whitespace().last().filter(|_| is_most).and_then(number)
    };
    found.min().or_else(before)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + ms)
    }

    fn refused(message: &str) -> Outcome {
        Outcome { status: Some(429), ..Outcome::new(Kind::RateLimited, message) }
    }

    #[test]
    fn only_a_refusal_for_what_is_under_way_lowers_it() {
        for (message, most) in [
            ("Too many concurrent requests", Some(6)),
            ("High concurrency usage of this API", Some(6)),
            ("max organization concurrency: 3, try again after 1 seconds", Some(3)),
            ("You have reached the limit of 5 concurrent requests", Some(5)),
            ("at most 2 parallel requests are allowed", Some(2)),
            ("Rate limit reached for requests per min", None),
            ("slow down", None),
        ] {
            let mut ceiling = Ceiling::default();
            assert_eq!(ceiling.learn(at(1), at(0), 8, &refused(message)), most.is_some(), "{message}");
            assert_eq!(ceiling.most(), most, "{message}");
        }
    }

    #[test]
    fn a_burst_of_refusals_lowers_it_once_and_answers_raise_it_again() {
        let mut ceiling = Ceiling::default();
        let refusal = refused("too many concurrent requests");
        for in_flight in (4..=8).rev() {
            ceiling.learn(at(10), at(0), in_flight, &refusal);
        }
        assert_eq!(ceiling.most(), Some(6));
        for _ in 0..6 {
            ceiling.learn(at(20), at(11), 6, &Outcome::answered(200));
        }
        assert_eq!(ceiling.most(), Some(7));
        ceiling.learn(at(21), at(11), 3, &Outcome::answered(200));
        ceiling.learn(at(30), at(22), 7, &refusal);
        assert_eq!(ceiling.most(), Some(5));
    }

    #[test]
    fn a_lone_request_or_a_dated_refusal_needs_a_cooldown_all_the_same() {
        let mut ceiling = Ceiling::default();
        let refusal = refused("too many concurrent requests");
        assert!(!ceiling.learn(at(1), at(0), 1, &refusal));
        assert_eq!(ceiling.most(), Some(1));
        let dated = Outcome { retry_after: Some(Duration::from_secs(2)), ..refusal };
        assert!(!ceiling.learn(at(3), at(2), 5, &dated));
    }

    proptest! {
        /// A provider with a fixed ceiling: what is sent at a time settles below it, and is never nothing.
        #[test]
        fn it_settles_around_the_providers_own(limit in 1u32..40, rounds in 20usize..120) {
            let mut ceiling = Ceiling::default();
            let (mut now, mut refusals) = (1, 0);
            for round in 0..rounds {
                let sent = ceiling.most().unwrap_or(64).min(64);
                prop_assert!(sent >= 1);
                let refusal = refused("Too many concurrent requests");
                for i in 0..sent {
                    let outcome = if i < sent.saturating_sub(limit) { refusal.clone() } else { Outcome::answered(200) };
                    refusals += u32::from(round > 20 && outcome.kind != Kind::Answered);
                    ceiling.learn(at(now), at(now - 1), sent - i, &outcome);
                }
                now += 2;
            }
            prop_assert!(ceiling.most().is_some_and(|most| most <= limit + 1) || limit > 63, "{:?}", ceiling);
            // One of at least as many as fit, once in a while.
            prop_assert!(refusals as usize <= rounds, "{refusals}");
        }
    }
}
