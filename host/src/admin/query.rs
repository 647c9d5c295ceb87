//! Parameters in the query of a URL.

use std::ops::RangeInclusive;

use pointsman_core::record::End;
use pointsman_core::rfc3339;
use pointsman_core::time::Timestamp;
use pointsman_store::{Filter, Group};
use serde::Deserialize;

/// Without `since`: the last day.
const SINCE_DEFAULT: &str = "24h";
/// Rows of an answer where `limit` is not given.
const LIMIT_DEFAULT: u32 = 50;
/// The most exchanges in one answer.
const LIMIT_MAX: u32 = 1_000;

/// Query of `/api/usage?since=&group=&after=`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UsageQuery {
    since: Option<String>,
    group: Option<String>,
    after: Option<String>,
}

impl UsageQuery {
    /// Reads since when, by what, and behind how many members; or says what is wrong.
    pub(super) fn read(&self, now: Timestamp) -> Result<(Timestamp, Group, usize), String> {
        let since = since(given(&self.since).unwrap_or(SINCE_DEFAULT), now)?;
        let group = given(&self.group).unwrap_or("backend");
        let group = Group::parse(group)
            .ok_or_else(|| format!("group: `{group}` is not known; use client, backend, model, lane, hour or day"))?;
        let after = given(&self.after).map_or(Ok(0), |text| {
            text.parse().map_err(|_| format!("after: `{text}` is not the `next` of a page before"))
        })?;
        Ok((since, group, after))
    }
}

/// Query of `/api/exchanges?limit=&status=&end=&backend=&client=&before=`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExchangesQuery {
    limit: Option<String>,
    status: Option<String>,
    end: Option<String>,
    backend: Option<String>,
    client: Option<String>,
    before: Option<String>,
}

impl ExchangesQuery {
    /// Reads the filter and the limit; the error is for the client.
    pub(super) fn read(&self) -> Result<(Filter, u32), String> {
        let limit = match given(&self.limit) {
            None => LIMIT_DEFAULT,
            Some(text) => match text.parse() {
                Ok(limit @ 1..=LIMIT_MAX) => limit,
                Ok(_) | Err(_) => {
                    return Err(format!("limit: `{text}` is not a number from 1 to {LIMIT_MAX}"));
                }
            },
        };
        let owned = |value: &Option<String>| given(value).map(str::to_owned);
        let status = given(&self.status).map(statuses).transpose()?;
        let ends = given(&self.end).map(ends).transpose()?.unwrap_or_default();
        let before = given(&self.before)
            .map(|text| text.parse().map_err(|_| format!("before: `{text}` is not the `next` of a page before")));
        let before = before.transpose()?;
        Ok((Filter { status, backend: owned(&self.backend), client: owned(&self.client), ends, before }, limit))
    }
}

/// An empty value is as good as none: forms send it.
fn given(value: &Option<String>) -> Option<&str> {
    value.as_deref().filter(|text| !text.is_empty())
}

/// `denied`, or several words with commas between them.
fn ends(text: &str) -> Result<Vec<End>, String> {
    let one = |word: &str| {
        End::parse(word.trim()).ok_or_else(|| {
            let known = End::ALL.map(End::as_str).join(", ");
            format!("end: `{word}` is not known; use one or several, with commas, of {known}")
        })
    };
    text.split(',').map(one).collect()
}

/// `429`, or `4xx` for a whole class.
fn statuses(text: &str) -> Result<RangeInclusive<u16>, String> {
    let wrong = || format!("status: `{text}` is neither a status such as 429 nor a class such as 5xx");
    if let Some(class) = text.strip_suffix("xx") {
        let class: u16 = class.parse().ok().filter(|class| (1..=5).contains(class)).ok_or_else(wrong)?;
        return Ok(class * 100..=class * 100 + 99);
    }
    let status: u16 = text.parse().ok().filter(|status| *status <= 599).ok_or_else(wrong)?;
    Ok(status..=status)
}

fn since(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    rfc3339::parse_or_ago(text, now).ok_or_else(|| format!("since: `{text}` {}", rfc3339::NOT_UNDERSTOOD))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        let now = Timestamp::from_millis(1_768_473_000_000);
        let at = |text| since(text, now).map(Timestamp::as_millis);
        assert_eq!(at("90s"), Ok(1_768_472_910_000));
        assert_eq!(at("1d"), Ok(1_768_386_600_000));
        assert_eq!(at("1768000000"), Ok(1_768_000_000_000));
        assert_eq!(at("2026-01-15T10:30:00Z"), Ok(1_768_473_000_000));
        assert_eq!(at("175307616h"), Ok(0), "longer ago than 1970 is everything");
        for wrong in ["", "h", "-1h", "1y", "soon", "é", "99999999999999999999d", "18446744073709551615"] {
            assert!(at(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ends_are_words_with_commas() {
        assert_eq!(ends("denied"), Ok(vec![End::Denied]));
        assert_eq!(ends("rejected, broken"), Ok(vec![End::Rejected, End::Broken]));
        assert!(ends("refused,lost").unwrap_err().contains("`lost` is not known"));
    }

    #[test]
    fn statuses_are_one_or_a_class() {
        assert_eq!(statuses("429"), Ok(429..=429));
        assert_eq!(statuses("5xx"), Ok(500..=599));
        assert_eq!(statuses("0"), Ok(0..=0), "clients that left before an answer");
        for wrong in ["6xx", "xx", "-1", "999", "ok", "0xx"] {
            assert!(statuses(wrong).is_err(), "{wrong}");
        }
    }
}
