//! One page that needs nothing else: no script, no font, no picture from anywhere.

use std::fmt;

use pointsman_core::rfc3339::Rfc3339;
use pointsman_core::time::Timestamp;

use super::super::metrics::{Metric, Row};
use super::super::results::Part;
use super::plot::{Axis, Line, lines, stacked, whisker};
use super::{BacktestReport, Unit, grouped, shown, shown_difference, shown_reach};

/// The report as a page.
pub struct Html<'a>(pub &'a BacktestReport);

const STYLE: &str = include_str!("page.css");

/// The three that are drawn: their words and classes.
const THREE: [(&str, &str); 3] =
    [("recorded", "recorded"), ("current, modelled", "current"), ("candidate", "candidate")];

/// The lanes: their words and classes.
const LANES: [(&str, &str); 4] =
    [("primary", "primary"), ("fallback", "fallback"), ("emergency", "emergency"), ("not answered", "nobody")];

impl fmt::Display for Html<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [(_, _), (candidate, _)] = &self.0.policies;
        let title = escaped(&format!("Backtest of {candidate}"));
        write!(
            f,
            "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\"><meta name=\"color-scheme\" content=\"light dark\"><title>{title}</title>\n\
             <style>\n{STYLE}</style></head>\n<body><main>\n"
        )?;
        self.head(f)?;
        self.cards(f)?;
        self.plots(f)?;
        self.table(f)?;
        self.caveats(f)?;
        self.backends(f)?;
        f.write_str("</main></body>\n</html>\n")
    }
}

impl Html<'_> {
    fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BacktestReport { policies: [current, candidate], .. } = self.0;
        let named = |(name, id): &(String, String)| format!("{} <code>{id}</code>", escaped(name));
        write!(
            f,
            "<header><h1>{}</h1>\n<p>Simulated in the place of {}: {} exchanges from {} to {}, {} simulations of each \
             policy.</p></header>\n",
            named(candidate),
            named(current),
            grouped(self.0.exchanges as f64),
            minute(self.0.face.start),
            minute(self.0.until),
            self.0.seeds
        )
    }

    /// The differences that most ask for.
    fn cards(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<section class=\"cards\" aria-label=\"The differences at a glance\">")?;
        for metric in [Metric::Spend, Metric::Success, Metric::TimeP95, Metric::Fallback, Metric::RateLimited] {
            let row = self.0.row(metric);
            let (_, name, unit) = metric.names();
            let verdict = match (row.difference.is_not_zero(), row.is_better()) {
                (false, _) => ("same", "no difference beyond chance"),
                (true, None) => ("other", "differs"),
                (true, Some(true)) => ("better", "better"),
                (true, Some(false)) => ("worse", "worse"),
            };
            write!(
                f,
                "<div class=\"card {}\"><h2>{name}</h2><p class=\"big\">{}</p><p>{} instead of {}</p><p \
                 class=\"verdict\">{}</p></div>",
                verdict.0,
                shown_difference(unit, row.difference.mean),
                shown(unit, row.candidate.mean),
                shown(unit, row.current.mean),
                verdict.1
            )?;
        }
        f.write_str("</section>\n")
    }

    fn plots(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<section class=\"plots\">")?;
        let time = self.time_axis();
        let places: Vec<f64> = (0..self.0.parts[0].len()).map(|i| i as f64 + 0.5).collect();
        for ((word, _), parts) in THREE.into_iter().zip(&self.0.parts) {
            self.lanes(f, word, parts, &time, &places)?;
        }
        self.times(f)?;
        self.spend(f, &time)?;
        self.refusals(f, &time, &places)?;
        f.write_str("</section>\n")
    }

    fn lanes(
        &self,
        f: &mut fmt::Formatter<'_>,
        word: &str,
        parts: &[Part],
        time: &Axis,
        places: &[f64],
    ) -> fmt::Result {
        // A sum of no `f64` is -0.0 in the standard library.
        let sum_of = |numbers: &mut dyn Iterator<Item = f64>| numbers.fold(0.0, |sum, number| sum + number);
        let share = |part: &Part, lane: usize| part.lanes[lane] / sum_of(&mut part.lanes.into_iter()).max(1e-9) * 100.0;
        let of = |lane: usize| parts.iter().map(|part| share(part, lane)).collect::<Vec<f64>>();
        let areas: Vec<(&str, Vec<f64>)> = (0..4).map(|lane| (LANES[lane].1, of(lane))).collect();
        let sum = sum_of(&mut parts.iter().flat_map(|part| part.lanes));
        let total = |lane: usize| sum_of(&mut parts.iter().map(|part| part.lanes[lane])) / sum.max(1e-9) * 100.0;
        let words: Vec<String> =
            LANES.iter().enumerate().map(|(i, (name, _))| format!("{name} {:.1} %", total(i))).collect();
        let title = format!("Lanes over time: {word}");
        let y = Axis::up_to(100.0, |n| format!("{n:.0} %"));
        let plot = stacked(&title, &format!("Overall {}.", words.join(", ")), time, &y, places, &areas);
        figure(f, &title, &LANES, &plot)
    }

    fn times(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = || self.0.times.iter().flatten();
        // The fastest are few.
        let least = all().filter(|(_, share)| *share >= 0.01).map(|(ms, _)| *ms).fold(f64::INFINITY, f64::min);
        let most = all().map(|(ms, _)| *ms).fold(1.0, f64::max);
        let least = if least.is_finite() { least } else { 1.0 };
        let x =
            Axis::magnitudes(least, most, |ms| if ms < 1e3 { format!("{ms} ms") } else { format!("{} s", ms / 1e3) });
        let y = Axis::up_to(100.0, |n| format!("{n:.0} %"));
        let curves =
            self.0.times.each_ref().map(|curve| curve.iter().map(|(ms, s)| (*ms, s * 100.0)).collect::<Vec<_>>());
        let lines_of: Vec<Line<'_>> =
            THREE.iter().zip(&curves).map(|((_, class), points)| Line { class, points }).collect();
        let title = "Answered within";
        let p95 = self.0.row(Metric::TimeP95);
        let text = format!(
            "95 % of the answers: recorded within {}, current {}, candidate {}.",
            shown(Unit::Ms, p95.recorded),
            shown(Unit::Ms, p95.current.mean),
            shown(Unit::Ms, p95.candidate.mean)
        );
        figure(f, title, &THREE, &lines(title, &text, &x, &y, &lines_of))
    }

    fn spend(&self, f: &mut fmt::Formatter<'_>, time: &Axis) -> fmt::Result {
        let curve = |parts: &Vec<Part>| {
            let mut sum = 0.0;
            let mut points = vec![(0.0, 0.0)];
            points.extend(parts.iter().enumerate().map(|(i, part)| {
                sum += part.spend_usd;
                (i as f64 + 1.0, sum)
            }));
            points
        };
        let curves = self.0.parts.each_ref().map(curve);
        let most = curves.iter().flatten().map(|(_, usd)| *usd).fold(0.0, f64::max);
        let y = Axis::up_to(most, move |usd| match most {
            m if m >= 10.0 => format!("${usd:.0}"),
            m if m >= 0.1 => format!("${usd:.2}"),
            _ => format!("${usd:.4}"),
        });
        let lines_of: Vec<Line<'_>> =
            THREE.iter().zip(&curves).map(|((_, class), points)| Line { class, points }).collect();
        let row = self.0.row(Metric::Spend);
        let text = format!(
            "In the end: recorded {}, current {}, candidate {}.",
            shown(Unit::Usd, row.recorded),
            shown(Unit::Usd, row.current.mean),
            shown(Unit::Usd, row.candidate.mean)
        );
        let title = "Spend, summed up";
        figure(f, title, &THREE, &lines(title, &text, time, &y, &lines_of))
    }

    fn refusals(&self, f: &mut fmt::Formatter<'_>, time: &Axis, places: &[f64]) -> fmt::Result {
        let minutes = (self.0.face.part.as_secs_f64() / 60.0).max(1e-9);
        let curve = |parts: &Vec<Part>| -> Vec<(f64, f64)> {
            places.iter().zip(parts).map(|(at, part)| (*at, part.rate_limited / minutes)).collect()
        };
        let curves = self.0.parts.each_ref().map(curve);
        let most = curves.iter().flatten().map(|(_, n)| *n).fold(0.0, f64::max);
        let y = Axis::up_to(most, move |n| if most < 4.0 { format!("{n:.1}") } else { format!("{n:.0}") });
        let lines_of: Vec<Line<'_>> =
            THREE.iter().zip(&curves).map(|((_, class), points)| Line { class, points }).collect();
        let row = self.0.row(Metric::RateLimited);
        let text = format!(
            "Altogether: recorded {}, current {}, candidate {}.",
            grouped(row.recorded),
            grouped(row.current.mean),
            grouped(row.candidate.mean)
        );
        let title = "429s per minute";
        figure(f, title, &THREE, &lines(title, &text, time, &y, &lines_of))
    }

    /// In parts, with labels at round times (UTC).
    fn time_axis(&self) -> Axis {
        const STEPS_S: [u64; 14] =
            [1, 5, 15, 60, 300, 900, 1_800, 3_600, 7_200, 10_800, 14_400, 21_600, 43_200, 86_400];
        const MOST_LABELS: u64 = 8;
        let parts = self.0.parts[0].len() as f64;
        let part_us = self.0.face.part.as_micros().max(1) as f64;
        let start_us = self.0.face.start.as_micros();
        let span_us = (part_us * parts) as u64;
        let fits = |step: &u64| span_us / (step * 1_000_000) <= MOST_LABELS;
        let days = |n: u64| n * 86_400;
        let step = STEPS_S.into_iter().find(fits).unwrap_or(days((span_us / 86_400_000_000).div_ceil(MOST_LABELS)));
        let step_us = step.max(1) * 1_000_000;
        let label = |at_us: u64| {
            let text = Rfc3339(Timestamp::from_micros(at_us)).to_string();
            match step {
                86_400.. => text[5..10].to_owned(),
                60.. => text[11..16].to_owned(),
                _ => text[11..19].to_owned(),
            }
        };
        let first = start_us.div_ceil(step_us) * step_us;
        let all = (0..=MOST_LABELS + 1).map(|n| first + n * step_us).take_while(|at| *at <= start_us + span_us);
        let ticks = all.map(|at| ((at - start_us) as f64 / part_us, label(at))).collect();
        Axis { from: 0.0, to: parts, ticks, by_magnitude: false }
    }

    fn table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "<section><h2>All numbers</h2><div class=\"scroll\"><table><thead><tr><th></th><th>recorded</th><th>current, \
             modelled</th><th>candidate</th><th>difference</th><th>95 % confidence interval</th><th></th></tr></thead><tbody>\n",
        )?;
        for row in &self.0.rows {
            table_row(f, row)?;
        }
        f.write_str(
            "</tbody></table></div><p class=\"note\">± is half of the 95 % confidence interval over the simulations.</p></section>\n",
        )
    }

    fn caveats(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = if self.0.caveats.is_off() { "caveats off" } else { "caveats" };
        write!(f, "<section class=\"{class}\"><h2>What the model cannot know</h2><ul>")?;
        for sentence in self.0.caveats.sentences() {
            write!(f, "<li>{}</li>", escaped(&sentence))?;
        }
        f.write_str("</ul></section>\n")
    }

    fn backends(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "<section><h2>What was learned of the backends</h2><div class=\"scroll\"><table><thead><tr><th></th><th>tier</th>\
             <th>attempts</th><th>outages</th><th>429s that a limit explains</th><th class=\"words\">limit</th></tr></thead><tbody>\n",
        )?;
        for b in &self.0.backends {
            let load = if b.feels_load { "; slower under load" } else { "" };
            writeln!(
                f,
                "<tr><th>{}</th><td>{}</td><td>{}</td><td>{}</td><td>{} of {}</td><td class=\"words\">{}{load}</td></tr>",
                escaped(&b.id),
                b.tier.as_str(),
                b.tries,
                b.outages,
                b.refusals.0,
                b.refusals.1,
                escaped(&b.limit)
            )?;
        }
        f.write_str("</tbody></table></div></section>\n")
    }
}

fn table_row(f: &mut fmt::Formatter<'_>, row: &Row) -> fmt::Result {
    let (_, name, unit) = row.metric.names();
    let (class, verdict) = match (row.difference.is_not_zero(), row.is_better()) {
        (false, _) => ("same", ""),
        (true, None) => ("other", "differs"),
        (true, Some(true)) => ("better", "better"),
        (true, Some(false)) => ("worse", "worse"),
    };
    let with_reach =
        |e: super::super::stats::Estimate| format!("{} <small>±{}</small>", shown(unit, e.mean), shown_reach(unit, e));
    let d = row.difference;
    let most = d.low.abs().max(d.high.abs()).max(d.mean.abs());
    writeln!(
        f,
        "<tr><th>{name}</th><td>{}</td><td>{}</td><td>{}</td><td>{} <small>±{}</small></td><td>{}</td><td class=\"verdict \
         {class}\">{verdict}</td></tr>",
        shown(unit, row.recorded),
        with_reach(row.current),
        with_reach(row.candidate),
        shown_difference(unit, d.mean),
        shown_reach(unit, d),
        whisker(d.low, d.mean, d.high, most, class)
    )
}

fn figure(f: &mut fmt::Formatter<'_>, title: &str, legend: &[(&str, &str)], plot: &str) -> fmt::Result {
    write!(f, "<figure><figcaption><b>{title}</b><span class=\"legend\">")?;
    for (word, class) in legend {
        write!(f, "<span><i class=\"{class}\"></i>{word}</span>")?;
    }
    writeln!(f, "</span></figcaption>{plot}</figure>")
}

fn minute(at: Timestamp) -> String {
    Rfc3339(at).to_string()[..16].replace('T', " ") + " UTC"
}

/// Escapes text for HTML: names come from configurations and clients.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
