//! The two text formats that a scrape of `/metrics` may ask for.
//!
//! Prometheus' own (0.0.4) is the default, because every scraper reads it; OpenMetrics 1.0 is for those whose `Accept`
//! prefers it. They differ in three things that matter here: OpenMetrics names a counter's family without the `_total` of its
//! samples, ends with `# EOF`, and has another content type.

use std::collections::HashSet;

/// A text format of metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TextFormat {
    /// Prometheus text format, <https://prometheus.io/docs/instrumenting/exposition_formats/>.
    #[default]
    Prometheus,
    /// OpenMetrics text format, <https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>.
    OpenMetrics,
}

/// Precision of a media range: one that names the type counts before one with a wildcard (RFC 9110, 12.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Precision {
    Any,
    Type,
    Exact,
    WithVersion,
}

impl TextFormat {
    /// Returns the `Content-Type` of the format.
    pub const fn content_type(self) -> &'static str {
        match self {
            TextFormat::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            TextFormat::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The format of an `Accept` field, all its lines joined by commas. Where both are equally welcome, or neither is, it is
    /// Prometheus': to answer is more useful than a 406.
    pub fn negotiate(accept: &str) -> Self {
        let open_metrics = quality(accept, TextFormat::OpenMetrics);
        if open_metrics > 0 && open_metrics > quality(accept, TextFormat::Prometheus) {
            TextFormat::OpenMetrics
        } else {
            TextFormat::Prometheus
        }
    }

    const fn media_type(self) -> (&'static str, &'static str, &'static str) {
        match self {
            TextFormat::Prometheus => ("text", "plain", "0.0.4"),
            TextFormat::OpenMetrics => ("application", "openmetrics-text", "1.0.0"),
        }
    }
}

/// The weight of a format in thousandths; 0: not acceptable.
fn quality(accept: &str, format: TextFormat) -> u32 {
    let fitting = accept.split(',').filter_map(|range| fit(range, format));
    fitting.max_by_key(|(precision, quality)| (*precision, *quality)).map_or(0, |(_, quality)| quality)
}

/// Matches a media range with a format; returns precision and weight, `None` when it does not match or cannot be
/// parsed.
fn fit(range: &str, format: TextFormat) -> Option<(Precision, u32)> {
    let mut parts = range.split(';').map(str::trim);
    let (kind, subtype) = parts.next()?.split_once('/')?;
    let (our_kind, our_subtype, our_version) = format.media_type();
    let mut precision = if kind.eq_ignore_ascii_case(our_kind) && subtype.eq_ignore_ascii_case(our_subtype) {
        Precision::Exact
    } else if kind.eq_ignore_ascii_case(our_kind) && subtype == "*" {
        Precision::Type
    } else if (kind, subtype) == ("*", "*") {
        Precision::Any
    } else {
        return None;
    };
    let mut quality = 1_000;
    for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
        let value = value.trim().trim_matches('"');
        match &*name.trim().to_ascii_lowercase() {
            "q" => quality = thousandths(value)?,
            "version" if value != our_version => return None,
            "version" => precision = Precision::WithVersion,
            _ => {}
        }
    }
    Some((precision, quality))
}

/// A weight: 0 to 1 with at most three digits behind the point (RFC 9110, 12.4.2).
fn thousandths(text: &str) -> Option<u32> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let digits: u32 = format!("{rest:0<3}").parse().ok().filter(|_| rest.len() <= 3)?;
    match whole {
        "0" => Some(digits),
        "1" if digits == 0 => Some(1_000),
        _ => None,
    }
}

/// A page of OpenMetrics in Prometheus' format.
pub(super) fn to_prometheus(open_metrics: &str) -> String {
    let described = |line: &'static str| {
        move |text: &'_ str| {
            text.strip_prefix(line).and_then(|rest| rest.split_once(' ')).map(|(a, b)| (a.to_owned(), b.to_owned()))
        }
    };
    let (kind, help) = (described("# TYPE "), described("# HELP "));
    let counters: HashSet<String> =
        open_metrics.lines().filter_map(&kind).filter(|(_, kind)| kind == "counter").map(|(name, _)| name).collect();
    let named = |name: String| if counters.contains(&name) { format!("{name}_total") } else { name };
    let mut page = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        if let Some((name, kind)) = kind(line) {
            page.push_str(&format!("# TYPE {} {kind}", named(name)));
        } else if let Some((name, help)) = help(line) {
            page.push_str(&format!("# HELP {} {help}", named(name)));
        } else if line.starts_with('#') {
            // The end, and units, which this format does not have.
            continue;
        } else {
            page.push_str(line);
        }
        page.push('\n');
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_one_that_is_preferred() {
        use TextFormat::{OpenMetrics, Prometheus};
        // As Prometheus 3 asks, and as Prometheus 2 does.
        let newest = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                      application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                      text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let older = "application/openmetrics-text; version=1.0.0; charset=utf-8;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, format) in [
            ("", Prometheus),
            ("*/*", Prometheus),
            ("text/plain", Prometheus),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Prometheus),
            ("application/openmetrics-text", OpenMetrics),
            ("APPLICATION/OpenMetrics-Text; Version=1.0.0", OpenMetrics),
            ("application/openmetrics-text, text/plain", Prometheus),
            ("application/openmetrics-text;q=0.5, text/plain;q=0.501", Prometheus),
            ("application/openmetrics-text;q=0.5, text/plain;q=0.4", OpenMetrics),
            ("application/openmetrics-text;version=0.0.1", Prometheus),
            ("application/openmetrics-text;q=0", Prometheus),
            ("application/openmetrics-text;q=0.5, text/*;q=0.9", Prometheus),
            ("application/*, text/plain;q=0.2", OpenMetrics),
            ("application/openmetrics-text;q=2", Prometheus),
            ("application/openmetrics-text;q=0, */*", Prometheus),
            (newest, OpenMetrics),
            (older, OpenMetrics),
            ("nonsense,,;;q=", Prometheus),
        ] {
            assert_eq!(TextFormat::negotiate(accept), format, "{accept}");
        }
    }

    #[test]
    fn counters_have_their_suffix_in_the_family_and_the_end_is_left_out() {
        let page = "# HELP a_requests Requests.\n# TYPE a_requests counter\n# UNIT a_requests s\na_requests_total{x=\"# TYPE a counter\"} 1\n\
                    # HELP g Now.\n# TYPE g gauge\ng 2\n# EOF\n";
        let expected = "# HELP a_requests_total Requests.\n# TYPE a_requests_total counter\n\
                        a_requests_total{x=\"# TYPE a counter\"} 1\n# HELP g Now.\n# TYPE g gauge\ng 2\n";
        assert_eq!(to_prometheus(page), expected);
    }
}
