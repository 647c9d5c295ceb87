//! Retry-After, in every form that providers use for it.

mod body;
mod forms;
mod hints;

use std::time::Duration;

use http::HeaderMap;

use crate::time::Timestamp;

pub use forms::LONGEST_HINT;
use hints::explicit;
pub use hints::{Hint, RateHints};

/// Reads wishes to be left alone.
pub enum RetryAfter {}

impl RetryAfter {
    /// The upstream's wish, most explicit form first: `retry-after-ms`, `retry-after` (seconds, a date or a duration), the body's own
    /// ([`body::wait`]), then the resets of limits that are used up (on a 429: of any limit). A quota of the day that is used
    /// up outlasts any shorter wish.
    ///
    /// Garbage, negative and overlong values are as if absent; a moment that has passed is zero.
    pub fn parse(status: u16, headers: &HeaderMap, body: Option<&[u8]>, now: Timestamp) -> Option<Duration> {
        let wish = explicit(headers, now)
            .or_else(|| body.and_then(|body| body::wait(status, body, now)))
            .or_else(|| RateHints::parse(headers, now).wait(status == 429));
        wish.max(body.and_then(|body| body::day_quota_wait(body, now)))
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    /// 2025-01-31 12:00:00 UTC.
    const NOW: Timestamp = Timestamp::from_millis(1_738_324_800_000);

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (n.parse::<HeaderName>().unwrap(), HeaderValue::from_str(v).unwrap())).collect()
    }

    fn wish(pairs: &[(&str, &str)]) -> Option<u64> {
        RetryAfter::parse(429, &headers(pairs), None, NOW).map(|d| u64::try_from(d.as_millis()).unwrap())
    }

    #[test]
    fn every_form_of_retry_after() {
        for (name, value, expected_ms) in [
            ("retry-after-ms", "1500", Some(1_500)),
            ("retry-after-ms", "0.5", Some(0)),
            ("retry-after", "0", Some(0)),
            ("retry-after", "107", Some(107_000)),
            ("retry-after", " 2.5 ", Some(2_500)),
            ("retry-after", "Fri, 31 Jan 2025 12:01:00 GMT", Some(60_000)),
            ("retry-after", "Fri, 31 Jan 2025 11:59:00 GMT", Some(0)),
            ("retry-after", "Friday, 31-Jan-25 12:01:00 GMT", Some(60_000)),
            ("retry-after", "-1", None),
            ("retry-after", "soon", None),
            ("retry-after", "", None),
            ("retry-after", "1e5", None),
            ("retry-after", "inf", None),
            ("retry-after", "NaN", None),
            ("retry-after", "1.2.3", None),
            ("retry-after", "99999999999999999999999", None),
            ("retry-after-ms", "-20", None),
            ("retry-after", "20s", Some(20_000)),
            ("retry-after", "2 minutes", Some(120_000)),
            ("retry-after", "2025-01-31T12:00:30Z", Some(30_000)),
            ("retry-after", "2025-01-31T11:00:30Z", Some(0)),
            ("x-retry-after", "20", Some(20_000)),
        ] {
            assert_eq!(wish(&[(name, value)]), expected_ms, "{name}: {value}");
        }
    }

    #[test]
    fn milliseconds_go_before_seconds_and_both_before_resets() {
        assert_eq!(wish(&[("retry-after", "9"), ("retry-after-ms", "8500")]), Some(8_500));
        assert_eq!(wish(&[("retry-after", "9"), ("x-ratelimit-reset-requests", "1s")]), Some(9_000));
        assert_eq!(wish(&[("retry-after", "bad"), ("x-ratelimit-reset-requests", "1s")]), Some(1_000));
    }

    #[test]
    fn of_several_the_longest_counts() {
        let mut two = HeaderMap::new();
        for value in ["5", "30", "7"] {
            two.append("retry-after", HeaderValue::from_static(value));
        }
        assert_eq!(RetryAfter::parse(429, &two, None, NOW), Some(Duration::from_secs(30)));
    }

    #[test]
    fn the_ietfs_field_and_a_subscriptions_windows() {
        for (pairs, expected_ms) in [
            (&[("ratelimit", "limit=10, remaining=0, reset=25")][..], Some(25_000)),
            (&[("ratelimit", "limit=10;remaining=0;reset=25")], Some(25_000)),
            (&[("ratelimit", "\"default\";r=0;t=25"), ("ratelimit-policy", "\"default\";q=10;w=60")], Some(25_000)),
            (&[("ratelimit", "\"minute\";r=3;t=5, \"day\";r=0;t=7200")], Some(7_200_000)),
            (&[("ratelimit", "\"minute\";r=0;t=5, \"day\";r=0;t=7200")], Some(7_200_000)),
            (&[("ratelimit", "nonsense"), ("ratelimit-reset", "3")], Some(3_000)),
            (
                &[
                    ("anthropic-ratelimit-unified-status", "rejected"),
                    ("anthropic-ratelimit-unified-reset", "1738324920"),
                    ("anthropic-ratelimit-unified-5h-reset", "1738324860"),
                ],
                Some(120_000),
            ),
        ] {
            assert_eq!(wish(pairs), expected_ms, "{pairs:?}");
        }
        let left = RateHints::parse(&headers(&[("ratelimit", "\"a\";r=9;t=5, \"b\";r=4;t=60")]), NOW);
        assert_eq!((left.requests.remaining, left.requests.reset), (Some(4), Some(Duration::from_secs(60))));
    }

    #[test]
    fn a_date_is_measured_by_the_upstreams_clock() {
        let pairs = [("retry-after", "Fri, 31 Jan 2025 13:00:30 GMT"), ("date", "Fri, 31 Jan 2025 13:00:00 GMT")];
        assert_eq!(wish(&pairs), Some(30_000));
    }

    #[test]
    fn resets_in_every_form() {
        for (name, value, expected_ms) in [
            ("x-ratelimit-reset-requests", "1s", Some(1_000)),
            ("x-ratelimit-reset-tokens", "6m0s", Some(360_000)),
            ("x-ratelimit-reset-tokens", "20ms", Some(20)),
            ("x-ratelimit-reset-tokens", "1h2m3.5s", Some(3_723_500)),
            ("x-ratelimit-reset-requests", "12", Some(12_000)),
            ("x-ratelimit-reset", "30", Some(30_000)),
            ("x-ratelimit-reset", "1738324860", Some(60_000)),
            ("x-ratelimit-reset", "1738324860500", Some(60_500)),
            ("x-ratelimit-reset", "1738324800", Some(0)),
            ("x-ratelimit-reset-tokens-minute", "7", Some(7_000)),
            ("anthropic-ratelimit-requests-reset", "2025-01-31T12:00:05Z", Some(5_000)),
            ("anthropic-ratelimit-tokens-reset", "2025-01-31T13:00:05.25+01:00", Some(5_250)),
            ("anthropic-ratelimit-input-tokens-reset", "2025-01-31T06:30:00-05:30", Some(0)),
            ("anthropic-ratelimit-tokens-reset", "2025-02-30T12:00:00Z", None),
            ("anthropic-ratelimit-tokens-reset", "2025-13-01T12:00:00Z", None),
            ("x-ratelimit-reset-requests", "5x", None),
            ("x-ratelimit-reset-requests", "s", None),
            ("x-ratelimit-reset-requests", "-3s", None),
            ("x-ratelimit-reset-requests", "999999999h", None),
        ] {
            assert_eq!(wish(&[(name, value)]), expected_ms, "{name}: {value}");
        }
    }

    #[test]
    fn the_reset_that_counts_is_that_of_the_limit_used_up() {
        let pairs = [
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", "9s"),
            ("x-ratelimit-remaining-tokens", "50"),
            ("x-ratelimit-reset-tokens", "1s"),
        ];
        assert_eq!(wish(&pairs), Some(9_000));
        assert_eq!(wish(&pairs[1..]), Some(1_000));
        assert_eq!(RetryAfter::parse(500, &headers(&pairs[1..]), None, NOW), None);
        assert_eq!(RetryAfter::parse(500, &headers(&pairs), None, NOW), Some(Duration::from_secs(9)));
    }

    #[test]
    fn wishes_in_bodies() {
        for (body, expected_ms) in [
            (r#"[{"error":{"details":[{"@type":"x.RetryInfo","retryDelay": "17s"}]}}]"#, Some(17_000)),
            (r#"{"retryDelay":"3.5s"}"#, Some(3_500)),
            (r#"{"error":{"message":"Limit reached. Please try again in 6m0.5s. Visit"}}"#, Some(360_500)),
            (r#"{"error":{"message":"try again in 20ms."}}"#, Some(20)),
            ("try again in 5 minutes", Some(300_000)),
            ("try again in a while", None),
            (r#"{"retryDelay":"#, None),
            ("", None),
        ] {
            let found = RetryAfter::parse(429, &HeaderMap::new(), Some(body.as_bytes()), NOW);
            assert_eq!(found.map(|d| d.as_millis()), expected_ms, "{body}");
        }
    }

    #[test]
    fn hints_of_both_families() {
        let hints = RateHints::parse(
            &headers(&[
                ("x-ratelimit-limit-requests", "60"),
                ("x-ratelimit-remaining-requests", "59"),
                ("x-ratelimit-limit-tokens", "150000"),
                ("x-ratelimit-remaining-tokens", "-1"),
                ("x-ratelimit-reset-tokens", "6m0s"),
                ("x-ratelimit-limit-requests-day", "7"),
            ]),
            NOW,
        );
        assert_eq!(hints.requests, Hint { limit: Some(60), remaining: Some(59), reset: None });
        assert_eq!(
            hints.tokens,
            Hint { limit: Some(150_000), remaining: Some(0), reset: Some(Duration::from_secs(360)) }
        );
        let hints = RateHints::parse(
            &headers(&[
                ("anthropic-ratelimit-requests-remaining", "4"),
                ("anthropic-ratelimit-input-tokens-remaining", "900"),
                ("anthropic-ratelimit-output-tokens-remaining", "10"),
                ("anthropic-ratelimit-output-tokens-limit", "8000"),
            ]),
            NOW,
        );
        assert_eq!(hints.requests.remaining, Some(4));
        assert_eq!(hints.tokens, Hint { limit: Some(8_000), remaining: Some(10), reset: None });
    }

    #[test]
    fn a_days_limit_counts_where_it_is_used_up_or_alone() {
        let used_up = [
            ("x-ratelimit-remaining-requests-day", "0"),
            ("x-ratelimit-reset-requests-day", "33011.5"),
            ("x-ratelimit-remaining-tokens-minute", "900"),
            ("x-ratelimit-reset-tokens-minute", "11"),
        ];
        assert_eq!(wish(&used_up), Some(33_011_500));
        assert_eq!(wish(&used_up[2..]), Some(11_000));
        let left = [("x-ratelimit-remaining-requests-day", "5"), ("x-ratelimit-remaining-requests", "3")];
        assert_eq!(RateHints::parse(&headers(&left), NOW).requests.remaining, Some(3));
        assert_eq!(RateHints::parse(&headers(&left[..1]), NOW).requests.remaining, Some(5));
        assert_eq!(wish(&[("ratelimit-remaining", "0"), ("ratelimit-reset", "30")]), Some(30_000));
    }

    proptest! {
        #[test]
        fn never_panics_and_never_exceeds_its_bound(
            name in prop::sample::select(vec![
                "retry-after", "retry-after-ms", "x-ratelimit-reset", "x-ratelimit-reset-tokens", "ratelimit", "x-retry-after",
                "anthropic-ratelimit-tokens-reset", "date",
            ]),
            value in prop_oneof!["[ -~]{0,40}", "[0-9.hmsdTZ:+-]{0,40}", "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[.0-9Z+:-]{0,8}"],
            body in prop_oneof!["\"retryDelay\":\"[0-9.a-z]{0,9}\"", "try again in \\PC{0,12}"],
            now: u64,
        ) {
            let found = RetryAfter::parse(429, &headers(&[(name, &value)]), Some(body.as_bytes()), Timestamp::from_micros(now));
            prop_assert!(found.is_none_or(|d| d < LONGEST_HINT));
        }

        #[test]
        fn whole_seconds_come_back_as_they_went(n in 0u64..30_000_000) {
            prop_assert_eq!(wish(&[("retry-after", &n.to_string())]), Some(n * 1_000));
        }
    }
}
