//! Overrun of the deadline by a policy that does not answer, in wall time: from the question to the native fallback's
//! answer.
//!
//! `cargo bench -p pointsman-engine --bench deadline`, on a machine with nothing else to do. Ends with an error when one call in a
//! hundred takes longer than the deadline and 2 ms.

#![expect(clippy::disallowed_methods, reason = "real time is what is measured")]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman_engine::sample::{query, table};
use pointsman_engine::{Engine, EngineLimits, FaultKind, Texts};

/// Behaviour of the hostile policy on request: an endless loop of its own, and endless calls of the host.
const LOOPS: [&str; 3] = ["loop", "state-loop", "log-loop"];

const CALLS: usize = 500;

/// The default deadline, and what it may be overstepped by.
const LIMIT: Duration = Duration::from_millis(5 + 2);

fn main() -> ExitCode {
    let engine = Engine::new(EngineLimits::default()).expect("the engine starts");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/hostile/hostile.wasm");
    let hostile = std::fs::read(file).expect("the fixture is there");
    let policy = engine.load(&hostile, "{}", Arc::new(table(16))).expect("it loads");
    let mut is_kept = true;
    for what in LOOPS {
        let texts = Arc::new(Texts { labels: vec![("do".into(), what.into())], ..Texts::default() });
        let mut query = query(16, Vec::new());
        let mut took: Vec<Duration> = Vec::with_capacity(CALLS);
        for _ in 0..CALLS {
            // Long enough after the one before that it is asked, and not left aside for its failures.
            query.now_ms += 30_000;
            let asked = Instant::now();
            let verdict = policy.decide(&query, &texts);
            took.push(asked.elapsed());
            let fault = verdict.fault.expect("it does not answer");
            assert_eq!(fault.kind, FaultKind::Deadline, "{what}: {fault}");
        }
        took.sort_unstable();
        let at = |share: f64| took[((CALLS - 1) as f64 * share) as usize];
        let (median, p99, max) = (at(0.5), at(0.99), at(1.0));
        println!(
            "{what:18} {CALLS} calls: median {median:.2?}, p99 {p99:.2?}, longest {max:.2?} (p99 at most {LIMIT:?})"
        );
        is_kept &= p99 <= LIMIT;
    }
    if is_kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
