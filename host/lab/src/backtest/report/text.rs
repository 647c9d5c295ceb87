//! For a terminal.

use std::fmt;

use pointsman_core::rfc3339::Rfc3339;

use super::super::metrics::Row;
use super::super::stats::Estimate;
use super::{BacktestReport, Unit, grouped, shown, shown_difference, shown_reach};

/// The report for a terminal, 100 columns wide.
pub struct Terminal<'a>(pub &'a BacktestReport);

impl fmt::Display for Terminal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BacktestReport { policies: [(current, current_id), (candidate, candidate_id)], .. } = self.0;
        writeln!(f, "{candidate} ({candidate_id}) in the place of {current} ({current_id})")?;
        writeln!(
            f,
            "{} exchanges, {} to {}; {} simulations of each policy; {:.1} s\n",
            grouped(self.0.exchanges as f64),
            Rfc3339(self.0.face.start),
            Rfc3339(self.0.until),
            self.0.seeds,
            self.0.took.as_secs_f64()
        )?;
        writeln!(f, "{:<21}{:>12}{:>20}{:>20}{:>20}", "", "recorded", "current, modelled", "candidate", "difference")?;
        for row in &self.0.rows {
            self.row(f, row)?;
        }
        writeln!(
            f,
            "\n± is half of the 95 % confidence interval over the simulations; * marks a difference that is not chance.\n"
        )?;
        self.backends(f)?;
        writeln!(f, "\nWhat the model cannot know")?;
        for sentence in self.0.caveats.sentences() {
            wrapped(f, &sentence)?;
        }
        Ok(())
    }
}

impl Terminal<'_> {
    fn row(&self, f: &mut fmt::Formatter<'_>, row: &Row) -> fmt::Result {
        let (_, name, unit) = row.metric.names();
        let marks = match (row.difference.is_not_zero(), row.is_better()) {
            (false, _) => "",
            (true, None) => " *",
            (true, Some(true)) => " * better",
            (true, Some(false)) => " * worse",
        };
        let difference =
            format!("{} ±{}", shown_difference(unit, row.difference.mean), shown_reach(unit, row.difference));
        writeln!(
            f,
            "{name:<21}{:>12}{:>20}{:>20}{difference:>20}{marks}",
            shown(unit, row.recorded),
            with_reach(unit, row.current),
            with_reach(unit, row.candidate),
        )
    }

    fn backends(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<21}{:>9}{:>9}{:>15}  limit", "learned of", "attempts", "outages", "429s explained")?;
        for b in &self.0.backends {
            let (explained, all) = b.refusals;
            let load = if b.feels_load { "; slower under load" } else { "" };
            writeln!(
                f,
                "{:<21}{:>9}{:>9}{:>15}  {}{load}",
                b.id,
                b.tries,
                b.outages,
                format!("{explained} of {all}"),
                b.limit
            )?;
        }
        Ok(())
    }
}

fn with_reach(unit: Unit, estimate: Estimate) -> String {
    format!("{} ±{}", shown(unit, estimate.mean), shown_reach(unit, estimate))
}

/// A sentence with a dash before it, within 100 columns.
fn wrapped(f: &mut fmt::Formatter<'_>, sentence: &str) -> fmt::Result {
    const WIDTH: usize = 98;
    let mut width = 0;
    write!(f, "-")?;
    for word in sentence.split(' ') {
        if width + word.chars().count() + 1 > WIDTH {
            write!(f, "\n ")?;
            width = 0;
        }
        write!(f, " {word}")?;
        width += word.chars().count() + 1;
    }
    writeln!(f)
}
