//! The output of `pointsman simulate --days`.

use std::fmt;

use serde_json::{Value, json};

use super::{Compared, DayResult};

/// The days, in the order of their seeds.
pub struct DaysReport {
    /// The policy's name.
    pub(in crate::simulate) policy: String,
    pub(in crate::simulate) days: Vec<Compared>,
}

impl DaysReport {
    /// Days on which the policy paid for more and let clients wait longer.
    pub fn worse_in_both(&self) -> usize {
        self.days.iter().filter(|day| day.is_worse_in_both()).count()
    }

    /// Returns the report as JSON, in the shape that `--json` prints.
    pub fn json(&self) -> Value {
        let result = |r: &DayResult| {
            json!({
                "paid": r.paid,
                "failed": r.failed,
                "p50_ms": r.quantile_ms(0.5),
                "p95_ms": r.quantile_ms(0.95),
                "mean_ms": r.mean_ms().round(),
            })
        };
        let day = |d: &Compared| {
            json!({
                "seed": d.seed,
                "requests": d.policy.requests,
                "policy": result(&d.policy),
                "fixed_rule": result(&d.fixed),
                "worse_in_both": d.is_worse_in_both(),
            })
        };
        json!({
            "policy": self.policy,
            "days": self.days.iter().map(day).collect::<Vec<_>>(),
            "worse_in_both": self.worse_in_both(),
        })
    }
}

impl fmt::Display for DaysReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Made-up days with free keys and a paid fallback: the policy {}, and beside it the fixed rule",
            self.policy
        )?;
        writeln!(f, "(6 waits of 5 s, then the fallback). Paid: answered by the fallback. Times: arrival to end.")?;
        writeln!(f)?;
        let one = |name: &str| format!("{name:>8}  {:>6} {:>6} {:>6}", "p50 s", "p95 s", "mean s");
        writeln!(f, "{:>6} {:>9}   {}   {}", "seed", "requests", one("paid"), one("fixed"))?;
        for day in &self.days {
            write!(f, "{:>6} {:>9}", day.seed, day.policy.requests)?;
            for result in [&day.policy, &day.fixed] {
                let seconds = |ms: u32| f64::from(ms) / 1_000.0;
                let (p50, p95) = (seconds(result.quantile_ms(0.5)), seconds(result.quantile_ms(0.95)));
                let paid = 100.0 * result.paid_share();
                write!(f, "   {paid:>6.1} %  {p50:>6.1} {p95:>6.1} {:>6.1}", result.mean_ms() / 1_000.0)?;
            }
            writeln!(f, "{}", if day.is_worse_in_both() { "   worse in both" } else { "" })?;
        }
        writeln!(f)?;
        match self.worse_in_both() {
            0 => writeln!(f, "No day was worse than the fixed rule in both: more paid, and longer waits."),
            n => writeln!(
                f,
                "{n} of {} days were worse than the fixed rule in both: more paid, and longer waits.",
                self.days.len()
            ),
        }
    }
}
