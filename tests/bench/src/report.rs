//! The table: what was measured, beside what was aimed for.

/// One round's numbers of one proxy.
#[derive(Clone, Copy, Default)]
pub(crate) struct Round {
    /// CPU of a request with an answer of 1 KiB, in µs.
    pub cpu_us: f64,
    /// Requests a second, as many as it takes.
    pub per_second: f64,
    /// Share of its core that it used meanwhile.
    pub busy: f64,
    /// Latencies in µs: p50 and p99 at 2,000 and at 8,000 requests a second.
    pub p50_2k: f64,
    pub p99_2k: f64,
    pub p50_8k: f64,
    pub p99_8k: f64,
    /// CPU of a relayed stream event, in µs.
    pub event_us: f64,
}

/// Everything about one proxy.
pub(crate) struct Measured {
    /// Its name.
    pub name: &'static str,
    /// Memory before the first request, in MiB.
    pub idle_mib: f64,
    /// Memory with 1,000 streams over that, in MiB.
    pub streams_mib: f64,
    /// The rounds.
    pub rounds: Vec<Round>,
}

impl Measured {
    fn median(&self, pick: fn(&Round) -> f64) -> f64 {
        let mut values: Vec<f64> = self.rounds.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

enum Aim {
    /// At most this many times bare.
    RatioAtMost(f64),
    /// At least this many times bare.
    RatioAtLeast(f64),
    /// At most this much more than bare.
    MoreAtMost(f64),
    /// At most this.
    AtMost(f64),
    /// Only told.
    None,
}

/// Prints the medians of both in one Markdown table, each ratio beside its target.
pub(crate) fn print(bare: &Measured, subject: &Measured) {
    let of = |pick: fn(&Round) -> f64| (bare.median(pick), subject.median(pick));
    println!("\nMedians of {} rounds, in turns, the proxy on one core.\n", bare.rounds.len());
    println!("| measure | {} | {} | ratio | target | met |", bare.name, subject.name);
    println!("|---|--:|--:|--:|---|---|");
    row("CPU per 1 KiB request, µs", of(|r| r.cpu_us), Aim::RatioAtMost(1.25));
    row("requests/s, 64 connections", of(|r| r.per_second), Aim::RatioAtLeast(0.8));
    row("share of its core used meanwhile", of(|r| r.busy), Aim::None);
    row("p50 at 2,000 requests/s, µs", of(|r| r.p50_2k), Aim::MoreAtMost(15.0));
    row("p99 at 2,000 requests/s, µs", of(|r| r.p99_2k), Aim::None);
    row("p50 at 8,000 requests/s, µs", of(|r| r.p50_8k), Aim::MoreAtMost(15.0));
    row("p99 at 8,000 requests/s, µs", of(|r| r.p99_8k), Aim::None);
    row("CPU per relayed stream event, µs", of(|r| r.event_us), Aim::RatioAtMost(1.15));
    row("idle memory, MiB", (bare.idle_mib, subject.idle_mib), Aim::AtMost(25.0));
    row("1,000 streams, MiB over idle", (bare.streams_mib, subject.streams_mib), Aim::AtMost(40.0));
}

fn row(what: &str, (bare, subject): (f64, f64), aim: Aim) {
    let ratio = subject / bare;
    let (target, met) = match aim {
        Aim::RatioAtMost(x) => (format!("≤ {x} × bare"), Some(ratio <= x)),
        Aim::RatioAtLeast(x) => (format!("≥ {x} × bare"), Some(ratio >= x)),
        Aim::MoreAtMost(x) => (format!("≤ bare + {x} (is {:+.1})", subject - bare), Some(subject - bare <= x)),
        Aim::AtMost(x) => (format!("≤ {x}"), Some(subject <= x)),
        Aim::None => (String::new(), None),
    };
    let met = met.map_or("", |met| if met { "yes" } else { "NO" });
    println!("| {what} | {bare:.2} | {subject:.2} | {ratio:.2} | {target} | {met} |");
}
