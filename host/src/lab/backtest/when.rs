//! Times as people give them: so long ago, or a point in time.

use std::time::Duration;

use pointsman_core::time::Timestamp;

use crate::telemetry::rfc3339;

/// A point in time as it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// So long before now.
    Ago(Duration),
    /// Then.
    At(Timestamp),
}

impl When {
    /// Reads `90s`, `45m`, `24h`, `7d`, `2026-01-15` or `2026-01-15T10:30:00Z`.
    ///
    /// # Errors
    /// What it should have been.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(at) = rfc3339::parse(text) {
            return Ok(When::At(at));
        }
        let wrong =
            || format!("{text:?} is no time; write 90s, 45m, 24h, 7d, or a point in time like 2026-01-15T10:30:00Z");
        let unit = text.chars().last().ok_or_else(wrong)?;
        let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| wrong())?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return Err(wrong()),
        };
        Ok(When::Ago(Duration::from_secs(number.saturating_mul(seconds))))
    }

    /// The point in time.
    pub fn before(self, now: Timestamp) -> Timestamp {
        match self {
            When::Ago(ago) => now - ago,
            When::At(at) => at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(When::parse("24h"), Ok(When::Ago(Duration::from_secs(86_400))));
        assert_eq!(When::parse("7d"), When::parse("168h"));
        assert!(matches!(When::parse("2026-01-15"), Ok(When::At(_))));
        for wrong in ["", "h", "24", "-3h", "1.5h", "yesterday", "3é"] {
            assert!(When::parse(wrong).unwrap_err().contains("24h"), "{wrong}");
        }
    }
}
