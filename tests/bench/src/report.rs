//! The table: what was measured, beside what was aimed for.

use crate::measures::{Aim, Measure, of_memory, of_round};

/// The numbers of one proxy.
pub(crate) struct Measured {
    /// Its name.
    pub name: &'static str,
    /// Those of each round, in the order of [`of_round`].
    pub rounds: Vec<Vec<f64>>,
    /// Those of [`of_memory`].
    pub memory: Vec<f64>,
}

/// A median, with the quartiles around it.
#[derive(Clone, Copy)]
struct Middle {
    median: f64,
    lower: f64,
    upper: f64,
}

impl Measured {
    /// Nothing yet.
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, rounds: Vec::new(), memory: Vec::new() }
    }

    fn middle(&self, measure: usize) -> Middle {
        let mut values: Vec<f64> = self.rounds.iter().map(|round| round[measure]).collect();
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = (share * values.len().saturating_sub(1) as f64).round() as usize;
            values.get(index).copied().unwrap_or(f64::NAN)
        };
        Middle { median: at(0.5), lower: at(0.25), upper: at(0.75) }
    }
}

/// Prints all in one Markdown table. The first is bare, the last the one whose goals they are.
pub(crate) fn print(all: &[Measured]) {
    let [bare, .., subject] = all else { return };
    let names: Vec<&str> = all.iter().map(|measured| measured.name).collect();
    println!("\nMedians of {} rounds (quartiles), in turns, the proxy on one core.\n", bare.rounds.len());
    println!("| measure | {} | ratio | goal | met |", names.join(" | "));
    println!("|---|{}--:|---|---|", "--:|".repeat(all.len()));
    for (index, measure) in of_round().iter().enumerate() {
        let cells = all.iter().map(|measured| {
            let Middle { median, lower, upper } = measured.middle(index);
            format!("{median:.2} ({lower:.2}-{upper:.2})")
        });
        row(measure, cells, bare.middle(index).median, subject.middle(index).median);
    }
    for (index, measure) in of_memory().iter().enumerate() {
        let cells = all.iter().map(|measured| format!("{:.1}", measured.memory[index]));
        row(measure, cells, bare.memory[index], subject.memory[index]);
    }
}

fn row(measure: &Measure, cells: impl Iterator<Item = String>, bare: f64, subject: f64) {
    let ratio = subject / bare;
    let (goal, met) = match measure.aim {
        Aim::RatioAtMost(x) => (format!("≤ {x} × bare"), Some(ratio <= x)),
        Aim::MoreAtMost(x) => (format!("≤ bare + {x} (is {:+.1})", subject - bare), Some(subject - bare <= x)),
        Aim::AtMost(x) => (format!("≤ {x}"), Some(subject <= x)),
        Aim::None => (String::new(), None),
    };
    let met = met.map_or("", |met| if met { "yes" } else { "**no**" });
    println!("| {} | {} | {ratio:.2} | {goal} | {met} |", measure.what, cells.collect::<Vec<_>>().join(" | "));
}
