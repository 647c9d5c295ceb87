//! Days and hours, from the milliseconds of a query.

use serde::Deserialize;

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;
const WEEK_MS: u64 = 7 * DAY_MS;

/// A day of the week; in settings its first three letters, `"mon"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "their names say it")]
pub enum Weekday {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Weekday {
    /// All, Monday first.
    pub const ALL: [Weekday; 7] = [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];
}

/// A time of the day, to the minute; in settings `"22:30"`, up to `"24:00"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct TimeOfDay {
    minute: u16,
}

impl TryFrom<String> for TimeOfDay {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_two_digits = |t: &str| t.len() == 2 && t.bytes().all(|byte| byte.is_ascii_digit());
        let two_digits = |t: &str| if is_two_digits(t) { t.parse::<u16>().ok() } else { None };
        let minute = text
            .split_once(':')
            .and_then(|(hours, minutes)| Some((two_digits(hours)?, two_digits(minutes)?)))
            .filter(|&(hours, minutes)| minutes < 60 && hours * 60 + minutes <= 24 * 60)
            .map(|(hours, minutes)| hours * 60 + minutes);
        match minute {
            Some(minute) => Ok(Self { minute }),
            None => Err(format!("{text:?} is no time of day; write it like \"22:30\"")),
        }
    }
}

/// A moment on the clocks of a place with a fixed offset from UTC.
///
/// ```
/// use pointsman_sdk::{LocalTime, Weekday};
///
/// // 1970-01-01 was a Thursday.
/// let utc = LocalTime::at(23 * 3_600_000, 0);
/// assert_eq!((utc.weekday(), utc.hour(), utc.minute()), (Weekday::Thu, 23, 0));
/// let berlin = LocalTime::at(23 * 3_600_000, 90);
/// assert_eq!((berlin.weekday(), berlin.hour(), berlin.minute()), (Weekday::Fri, 0, 30));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    /// Since Monday, 00:00.
    ms_of_week: u64,
}

impl LocalTime {
    /// At `now_ms` since 1970-01-01 UTC, where clocks are so many minutes ahead of UTC.
    pub fn at(now_ms: u64, utc_offset_minutes: i32) -> Self {
        // 1970 began on a Thursday.
        const FIRST_THURSDAY_MS: u64 = 3 * DAY_MS;
        let offset_ms = (i64::from(utc_offset_minutes) * MINUTE_MS as i64).rem_euclid(WEEK_MS as i64) as u64;
        Self { ms_of_week: (now_ms % WEEK_MS + FIRST_THURSDAY_MS + offset_ms) % WEEK_MS }
    }

    /// The day of the week.
    pub fn weekday(&self) -> Weekday {
        Weekday::ALL[(self.ms_of_week / DAY_MS) as usize]
    }

    /// 0 to 23.
    pub fn hour(&self) -> u32 {
        (self.ms_of_week % DAY_MS / (60 * MINUTE_MS)) as u32
    }

    /// 0 to 59.
    pub fn minute(&self) -> u32 {
        (self.ms_of_week / MINUTE_MS % 60) as u32
    }
}

/// Some hours of some days of every week; in settings `{ days = ["sat", "sun"], from = "22:00", until = "06:00" }`, where
/// days left out are all. One that is not over by midnight ends on the day after.
///
/// ```
/// use pointsman_sdk::{LocalTime, Window};
///
/// let night: Window = serde_json::from_str(r#"{"from": "22:00", "until": "06:00"}"#).unwrap();
/// let at = |hour: u64| LocalTime::at(hour * 3_600_000, 0);
/// assert!(night.contains(at(23)) && night.contains(at(5)) && !night.contains(at(6)));
/// assert_eq!(night.starts_in_ms(at(20)), Some(2 * 3_600_000));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// The days on which it begins.
    #[serde(default = "every_day")]
    pub days: Vec<Weekday>,
    /// Start of the period.
    pub from: TimeOfDay,
    /// End of the period; the same as `from`: a day later.
    pub until: TimeOfDay,
}

fn every_day() -> Vec<Weekday> {
    Weekday::ALL.to_vec()
}

impl Window {
    /// Returns true during the period.
    pub fn contains(&self, at: LocalTime) -> bool {
        let long_ms = self.long_ms();
        self.starts().any(|start| (at.ms_of_week + WEEK_MS - start) % WEEK_MS < long_ms)
    }

    /// Time until it starts, in ms: 0 at the moment it does, the next start while it lasts; none when it has no days.
    pub fn starts_in_ms(&self, at: LocalTime) -> Option<u64> {
        self.starts().map(|start| (start + WEEK_MS - at.ms_of_week) % WEEK_MS).min()
    }

    /// In ms of the week.
    fn starts(&self) -> impl Iterator<Item = u64> {
        self.days.iter().map(|&day| (day as u64 * DAY_MS + u64::from(self.from.minute) * MINUTE_MS) % WEEK_MS)
    }

    fn long_ms(&self) -> u64 {
        let (from, until) = (u64::from(self.from.minute) * MINUTE_MS, u64::from(self.until.minute) * MINUTE_MS);
        if until > from { until - from } else { until + DAY_MS - from }
    }
}

/// Time until the day of the budgets ends, in ms.
///
/// ```
/// assert_eq!(pointsman_sdk::until_midnight_utc_ms(0), 86_400_000);
/// assert_eq!(pointsman_sdk::until_midnight_utc_ms(86_399_999), 1);
/// ```
pub fn until_midnight_utc_ms(now_ms: u64) -> u32 {
    (DAY_MS - now_ms % DAY_MS) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-05, a Monday.
    const MONDAY_MS: u64 = 1_767_571_200_000;
    const HOUR_MS: u64 = 60 * MINUTE_MS;

    fn window(json: &str) -> Window {
        serde_json::from_str(json).unwrap()
    }

    fn monday_at(hour: u64) -> LocalTime {
        LocalTime::at(MONDAY_MS + hour * HOUR_MS, 0)
    }

    #[test]
    fn days_and_hours_follow_the_offset_both_ways() {
        assert_eq!(monday_at(0).weekday(), Weekday::Mon);
        assert_eq!(LocalTime::at(MONDAY_MS, -1).weekday(), Weekday::Sun);
        assert_eq!(LocalTime::at(MONDAY_MS, -1).minute(), 59);
        assert_eq!(LocalTime::at(MONDAY_MS, 14 * 60).hour(), 14);
        assert_eq!(LocalTime::at(0, -12 * 60).weekday(), Weekday::Wed);
    }

    #[test]
    fn a_window_over_midnight_ends_on_the_day_after() {
        let sunday_night = window(r#"{"days": ["sun"], "from": "22:00", "until": "06:00"}"#);
        assert!(sunday_night.contains(monday_at(5)));
        assert!(!sunday_night.contains(monday_at(6)));
        assert!(!sunday_night.contains(monday_at(23)), "that is Monday's night");
        assert_eq!(sunday_night.starts_in_ms(monday_at(6)), Some((6 * 24 + 16) * HOUR_MS));
    }

    #[test]
    fn a_whole_day_and_no_day() {
        let monday = window(r#"{"days": ["mon"], "from": "00:00", "until": "24:00"}"#);
        let same = window(r#"{"days": ["mon"], "from": "00:00", "until": "00:00"}"#);
        for hour in 0..24 {
            assert!(monday.contains(monday_at(hour)) && same.contains(monday_at(hour)));
        }
        assert!(!monday.contains(monday_at(24)) && !same.contains(monday_at(24)));
        assert_eq!(window(r#"{"days": [], "from": "00:00", "until": "24:00"}"#).starts_in_ms(monday_at(0)), None);
    }

    #[test]
    fn what_is_no_time_of_day_is_refused() {
        for wrong in ["24:01", "7:00", "22", "22:60", "-1:00", "+1:00", "aa:bb"] {
            let error = TimeOfDay::try_from(wrong.to_owned());
            assert!(error.is_err(), "{wrong}");
        }
        assert!(serde_json::from_str::<Window>(r#"{"days": ["monday"], "from": "00:00", "until": "01:00"}"#).is_err());
    }
}
