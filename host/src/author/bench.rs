//! Benchmark of a policy's decisions beside the default policy's, in one run.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::contract::{AttemptFacts, Query};
use pointsman_engine::clock::Stopwatch;
use pointsman_engine::sample;
use pointsman_engine::{Engine, EngineError, EngineLimits, Fault, LoadError, Revision, SettingsOffer, Texts};
use serde::Serialize;

use super::format;

/// Sizes of the table that decisions are measured at.
const BACKENDS: [usize; 5] = [1, 4, 16, 64, 256];

/// Calls before the first that counts.
const WARM_UP_CALLS: usize = 64;

/// Calls of one policy before it is the other's turn.
const BLOCK_CALLS: usize = 32;

/// One line is measured with at most so many calls of each policy ...
const MAX_CALLS: usize = 20_000;

/// ... or for so long, both policies together.
const MAX_TIME: Duration = Duration::from_millis(400);

/// Fresh instances that are started to see how long it takes.
const STARTS: usize = 50;

pointsman_core::vocabulary! {
    /// The question that is asked repeatedly.
    pub enum Question: serde {
        /// The first one about an exchange.
        First = "first",
        /// One after a 429: the policy asks for the past.
        Past = "past",
    }
}

impl Question {
    fn attempts(self) -> Vec<AttemptFacts> {
        match self {
            Question::First => Vec::new(),
            Question::Past => vec![sample::rate_limited()],
        }
    }
}

/// Decision times of one policy.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Times {
    /// Half of the calls took at most so long, in µs.
    pub p50_us: f64,
    /// 99 of 100 calls took at most so long, in µs.
    pub p99_us: f64,
    /// Calls that failed, so that the default policy's native fallback decided.
    pub faults: usize,
}

/// One question at one size of the table.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Measurement {
    /// Number of backends in the table.
    pub backends: usize,
    /// Question whose time was measured.
    pub question: Question,
    /// Times of the policy's decisions.
    pub policy: Times,
    /// The default policy's, measured in turns with it.
    pub default: Times,
    /// The policy's median as a multiple of the default policy's.
    pub ratio: f64,
}

/// Size and start-up times of a component.
#[derive(Clone, Debug, Serialize)]
pub struct Costs {
    /// The name of its revision.
    pub revision: String,
    /// Size of its file in bytes.
    pub bytes: usize,
    /// To compile it, in ms.
    pub compile_ms: f64,
    /// To start and configure a fresh instance, in µs (median).
    pub start_us: f64,
    /// Linear memory of a fresh instance, in bytes.
    pub memory_bytes: usize,
}

/// Results of the benchmark, beside those of the default policy.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// True if measured by an optimised build of Pointsman.
    pub optimised: bool,
    /// Costs of the policy measured.
    pub policy: Costs,
    /// Costs of the default policy.
    pub default: Costs,
    /// Times by table size and question.
    pub decisions: Vec<Measurement>,
}

/// The reason why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// This machine cannot run policies.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The file is not a policy.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A fresh instance did not start.
    #[error("a fresh instance did not start: {0}")]
    Start(#[from] Fault),
}

/// Measures a component and the default policy in turns. Takes a few seconds.
pub fn bench(bytes: &[u8], settings: &SettingsOffer, limits: EngineLimits) -> Result<BenchReport, BenchError> {
    let engine = Engine::without_cache(limits)?;
    let measured = |bytes: &[u8], settings: &SettingsOffer| Measured::new(&engine, bytes, settings);
    let (policy, default) = (measured(bytes, settings)?, measured(Engine::embedded_bytes(), &"{}".into())?);
    let lines = policy.revisions.iter().zip(&default.revisions);
    let decisions = lines.flat_map(|(a, b)| Question::ALL.map(|question| line(a, b, question))).collect();
    let optimised = !cfg!(debug_assertions);
    Ok(BenchReport { optimised, policy: policy.costs, default: default.costs, decisions })
}

/// One component, compiled once and configured for every size.
struct Measured {
    costs: Costs,
    revisions: Vec<Revision>,
}

impl Measured {
    fn new(engine: &Engine, bytes: &[u8], settings: &SettingsOffer) -> Result<Self, BenchError> {
        let watch = Stopwatch::start();
        let compiled = engine.compile(bytes)?;
        let compile = watch.elapsed();
        let sized = |backends| compiled.configure(settings, Arc::new(sample::table(backends)));
        let revisions = BACKENDS.into_iter().map(sized).collect::<Result<Vec<_>, _>>()?;
        let (start, memory_bytes) = starts(&revisions[1])?;
        let costs = Costs {
            revision: compiled.id().to_string(),
            bytes: bytes.len(),
            compile_ms: format::micros(compile) / 1_000.0,
            start_us: format::micros(start),
            memory_bytes,
        };
        Ok(Self { costs, revisions })
    }
}

/// The median of some starts, and the memory of one.
fn starts(revision: &Revision) -> Result<(Duration, usize), Fault> {
    let (mut times, mut memory, whole) = (Vec::with_capacity(STARTS), 0, Stopwatch::start());
    while times.len() < STARTS && (times.is_empty() || whole.elapsed() < MAX_TIME) {
        let watch = Stopwatch::start();
        memory = revision.try_start()?;
        times.push(watch.elapsed());
    }
    times.sort_unstable();
    Ok((format::percentile(&times, 50), memory))
}

/// Both policies in turns, so that what disturbs one disturbs the other.
fn line(policy: &Revision, default: &Revision, question: Question) -> Measurement {
    let backends = policy.table().backends.len();
    let mut asking = [policy, default].map(|revision| Asking::new(revision, question));
    for one in &mut asking {
        one.ask(WARM_UP_CALLS);
        one.forget();
    }
    let watch = Stopwatch::start();
    while asking[0].times.len() < MAX_CALLS && watch.elapsed() < MAX_TIME {
        for one in &mut asking {
            one.ask(BLOCK_CALLS);
        }
    }
    let reading = reading_time();
    let [policy, default] = asking.map(|one| one.times(reading));
    Measurement { backends, question, policy, default, ratio: policy.p50_us / default.p50_us.max(0.001) }
}

/// Measures the time to read the clock twice, which is subtracted from every call.
fn reading_time() -> Duration {
    let mut times: Vec<Duration> = (0..1_000).map(|_| Stopwatch::start().elapsed()).collect();
    times.sort_unstable();
    format::percentile(&times, 50)
}

/// A policy with the query it is asked.
struct Asking<'a> {
    revision: &'a Revision,
    query: Query,
    texts: Arc<Texts>,
    times: Vec<Duration>,
    faults: usize,
}

impl<'a> Asking<'a> {
    fn new(revision: &'a Revision, question: Question) -> Self {
        let query = sample::query(revision.table().backends.len(), question.attempts());
        let texts = Texts { model: "llama-70b".into(), path: "/v1/chat/completions".into(), ..Texts::default() };
        Self { revision, query, texts: Arc::new(texts), times: Vec::with_capacity(MAX_CALLS), faults: 0 }
    }

    fn ask(&mut self, calls: usize) {
        for _ in 0..calls {
            self.query.seed = self.query.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let watch = Stopwatch::start();
            let verdict = self.revision.decide(&self.query, &self.texts);
            self.times.push(watch.elapsed());
            self.faults += usize::from(verdict.fault.is_some());
        }
    }

    fn forget(&mut self) {
        self.times.clear();
        self.faults = 0;
    }

    fn times(mut self, reading: Duration) -> Times {
        self.times.sort_unstable();
        let percentile = |percent| format::micros(format::percentile(&self.times, percent).saturating_sub(reading));
        Times { p50_us: percentile(50), p99_us: percentile(99), faults: self.faults }
    }
}

impl fmt::Display for BenchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.optimised {
            writeln!(f, "This Pointsman is a debug build: a release build decides several times faster.\n")?;
        }
        writeln!(f, "{:26}{:>12}{:>12}", "", "policy", "default")?;
        let costs = [&self.policy, &self.default];
        let mut row = |name: &str, cell: fn(&Costs) -> String| {
            writeln!(f, "{name:26}{:>12}{:>12}", cell(costs[0]), cell(costs[1]))
        };
        row("size of the file", |c| format::bytes(c.bytes))?;
        row("compiled in", |c| format::time(Duration::from_secs_f64(c.compile_ms / 1_000.0)))?;
        row("a fresh instance starts in", |c| format::time(Duration::from_secs_f64(c.start_us / 1_000_000.0)))?;
        row("memory of an instance", |c| format::bytes(c.memory_bytes))?;
        writeln!(f, "\ntime of a decision, in µs       policy            default")?;
        write!(f, "backends  question        p50       p99       p50       p99     ratio")?;
        for line in &self.decisions {
            let Measurement { backends, question, policy, default, ratio } = line;
            write!(f, "\n{backends:>8}  {:<8}  {:>9.2} {:>9.2}", question.as_str(), policy.p50_us, policy.p99_us)?;
            write!(f, " {:>9.2} {:>9.2} {ratio:>9.2}", default.p50_us, default.p99_us)?;
            if policy.faults > 0 {
                write!(f, "  {} calls failed", policy.faults)?;
            }
        }
        Ok(())
    }
}
