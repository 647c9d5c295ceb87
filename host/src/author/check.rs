//! Checks of a policy, aspect by aspect, by the code that the proxy loads policies with.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::table::Table;
use pointsman_engine::clock::Stopwatch;
use pointsman_engine::{
    Engine, EngineError, EngineLimits, Fault, LoadError, Revision, SettingsOffer, Texts, contract, left_out_words,
    probes,
};
use serde::Serialize;

use super::format;

/// Decisions that are timed. They also show whether the policy's memory grows.
const TIMED_DECISIONS: usize = 600;

/// Under which a policy is judged.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// Limits of the policy engine.
    pub limits: EngineLimits,
    /// Settings that the policy is offered.
    pub settings: SettingsOffer,
    /// Backend table for the trial.
    pub table: Arc<Table>,
    /// Description of the source of settings and table.
    pub origin: String,
}

pointsman_core::vocabulary! {
    /// Result of one aspect.
    pub enum Mark: serde {
        /// No fault was found.
        Ok = "ok",
        /// The policy would be taken, but its author should look at this.
        Warn = "warn",
        /// The policy would be refused for this.
        No = "no",
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Aspect {
    /// Name of the aspect, as it is printed.
    pub aspect: &'static str,
    /// Result of the aspect: good, doubtful or bad.
    pub mark: Mark,
    /// Remarks, one a line.
    pub says: Vec<String>,
}

/// Measurements of a policy that runs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figures {
    /// To compile it, in ms, or to load it when it had been compiled before.
    pub compile_ms: f64,
    /// Half of the decisions took at most so long, in µs.
    pub decision_p50_us: f64,
    /// 99 of 100 decisions took at most so long, in µs.
    pub decision_p99_us: f64,
    /// Linear memory of an instance that was configured and not asked yet, in bytes.
    pub fresh_memory_bytes: usize,
    /// The same after the decisions, in bytes.
    pub used_memory_bytes: usize,
}

/// Results of all aspects, and measurements of a policy that runs.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    /// Would the proxy take it?
    pub accepted: bool,
    /// The name of its revision, once it is a component.
    pub revision: Option<String>,
    /// Description of the settings and table used.
    pub origin: String,
    /// In the order in which the proxy looks; the last one is the reason of a refusal.
    pub aspects: Vec<Aspect>,
    /// None when it was refused.
    pub figures: Option<Figures>,
}

/// Checks a component under these conditions.
///
/// # Errors
/// Only when this machine cannot run policies at all.
pub fn check(bytes: &[u8], conditions: &Conditions) -> Result<CheckReport, EngineError> {
    let engine = Engine::new(conditions.limits)?;
    let origin = conditions.origin.clone();
    let mut report = CheckReport { accepted: false, revision: None, origin, aspects: Vec::new(), figures: None };
    match judge(&engine, bytes, conditions, &mut report) {
        Ok(figures) => {
            report.accepted = true;
            report.figures = Some(figures);
        }
        Err(error) => report.say(aspect_of(&error), Mark::No, [error.to_string()]),
    }
    Ok(report)
}

/// The aspect a refusal is about.
fn aspect_of(error: &LoadError) -> &'static str {
    match error {
        LoadError::Empty | LoadError::TooLarge { .. } | LoadError::TooBig(_) => "size",
        LoadError::NotWasm(_) | LoadError::CoreModule | LoadError::Truncated(_) | LoadError::Broken(_) => "compile",
        LoadError::CompileTime { .. }
        | LoadError::CompileMemory { .. }
        | LoadError::CompilerKilled { .. }
        | LoadError::Cancelled
        | LoadError::Displaced
        | LoadError::CompilerBusy => "compile",
        LoadError::Version { .. } | LoadError::Shape(_) => "contract",
        LoadError::Imports(_) => "imports",
        LoadError::MissingExport(_) => "exports",
        LoadError::Refused(_) | LoadError::Start(_) | LoadError::Configure(_) => "configure",
        LoadError::Probe { .. } => "probes",
    }
}

fn judge(
    engine: &Engine,
    bytes: &[u8],
    conditions: &Conditions,
    report: &mut CheckReport,
) -> Result<Figures, LoadError> {
    let watch = Stopwatch::start();
    let compiled = engine.compile(bytes);
    let compile = watch.elapsed();
    let most = format::bytes(conditions.limits.max_component_bytes);
    let is_size = |error: &LoadError| aspect_of(error) == "size";
    if !compiled.as_ref().is_err_and(is_size) {
        report.say("size", Mark::Ok, [format!("{} of at most {most}", format::bytes(bytes.len()))]);
    }
    let compiled = compiled?;
    report.revision = Some(compiled.id().to_string());
    let how = if compiled.is_from_cache() { " (compiled before; `policy bench` compiles again)" } else { "" };
    report.say("compile", Mark::Ok, [format!("{}{how}", format::time(compile))]);
    report.say("contract", Mark::Ok, [format!("pointsman:policy@{}", contract())]);
    report.say("imports", Mark::Ok, imports(compiled.imports()));
    report.say("exports", Mark::Ok, ["configure, decide".to_owned()]);
    let watch = Stopwatch::start();
    let revision = compiled.configure(&conditions.settings, conditions.table.clone())?;
    let backends = conditions.table.backends.len();
    let (took, settings) = (format::time(watch.elapsed()), revision.settings());
    report.say(
        "configure",
        Mark::Ok,
        [format!("{} ({backends} backends), settings {settings}, {took}", conditions.origin)],
    );
    if let Some(words) = left_out_words(revision.left_out()) {
        report.say("settings", Mark::Warn, [words]);
    }
    report.say("probes", Mark::Ok, probe_words(&revision));
    let fresh_memory_bytes = revision.try_start().map_err(LoadError::Configure)?;
    let timed = Timed::measure(&revision);
    timed.say(conditions, report);
    let used_memory_bytes = revision.memory_bytes();
    say_memory(fresh_memory_bytes, used_memory_bytes, conditions, report);
    Ok(Figures {
        compile_ms: format::micros(compile) / 1_000.0,
        decision_p50_us: format::micros(timed.p50),
        decision_p99_us: format::micros(timed.p99),
        fresh_memory_bytes,
        used_memory_bytes,
    })
}

/// The contract's own, and WASI, which is there but says nothing of the world.
fn imports(names: &[String]) -> Vec<String> {
    let list = |prefix: &str, until: [char; 2]| {
        let of = |name: &String| name.strip_prefix(prefix).map(|n| n.split(until).next().unwrap_or(n).to_owned());
        let found: BTreeSet<String> = names.iter().filter_map(of).collect();
        if found.is_empty() { "nothing".to_owned() } else { Vec::from_iter(found).join(", ") }
    };
    vec![
        format!("of the contract: {}", list("pointsman:policy/", ['@', '@'])),
        format!("of WASI, all inert: {}", list("wasi:", ['/', '@'])),
    ]
}

fn probe_words(revision: &Revision) -> Vec<String> {
    let answer = |(question, query)| {
        let verdict = revision.decide(&query, &Arc::default());
        let notes: String = verdict.notes.iter().map(|note| format!(" ({note})")).collect();
        format!("{question}: {}{notes}", format::decision(&verdict.decision, revision.table()))
    };
    probes(revision.table()).into_iter().map(answer).collect()
}

/// Durations of a few hundred decisions.
struct Timed {
    p50: Duration,
    p99: Duration,
    fault: Option<Fault>,
}

impl Timed {
    fn measure(revision: &Revision) -> Self {
        let mut queries = probes(revision.table()).map(|(_, query)| query);
        let texts = Arc::new(Texts { model: "model".into(), path: "/v1/chat/completions".into(), ..Texts::default() });
        let (mut times, mut fault) = (Vec::with_capacity(TIMED_DECISIONS), None);
        for i in 0..TIMED_DECISIONS {
            let place = i % queries.len();
            let query = &mut queries[place];
            query.seed = i as u64;
            query.now_ms += 10;
            let watch = Stopwatch::start();
            let verdict = revision.decide(query, &texts);
            times.push(watch.elapsed());
            fault = fault.or(verdict.fault);
        }
        times.sort_unstable();
        Self { p50: format::percentile(&times, 50), p99: format::percentile(&times, 99), fault }
    }

    fn say(&self, conditions: &Conditions, report: &mut CheckReport) {
        let deadline = Duration::from_millis(conditions.limits.decide_ms.into());
        let (p50, p99) = (format::time(self.p50), format::time(self.p99));
        let mut says = vec![format!("median {p50}, p99 {p99}, of at most {} ms", deadline.as_millis())];
        let mut mark = Mark::Ok;
        if self.p99 > deadline / 2 {
            mark = Mark::Warn;
            says.push("on a slower or busier machine some decisions would be the default policy's".to_owned());
        }
        if let Some(fault) = &self.fault {
            mark = Mark::Warn;
            says.push(format!("of {TIMED_DECISIONS} decisions at least one failed: {fault}"));
        }
        report.say("time", mark, says);
    }
}

fn say_memory(fresh: usize, used: usize, conditions: &Conditions, report: &mut CheckReport) {
    let most = conditions.limits.memory_bytes;
    let mut says = vec![format!(
        "{} configured, {} after {TIMED_DECISIONS} decisions, of at most {}",
        format::bytes(fresh),
        format::bytes(used),
        format::bytes(most)
    )];
    if used > most / 2 {
        says.push("more than half of what it may have: it should not keep what it sees without a bound".to_owned());
    }
    report.say("memory", if says.len() == 1 { Mark::Ok } else { Mark::Warn }, says);
}

impl CheckReport {
    fn say(&mut self, aspect: &'static str, mark: Mark, says: impl Into<Vec<String>>) {
        self.aspects.push(Aspect { aspect, mark, says: says.into() });
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Aspect { aspect, mark, says } in &self.aspects {
            let mut says = says.iter();
            let first = says.next().map(String::as_str).unwrap_or_default();
            writeln!(f, "{:<5}{aspect:<11}{first}", mark.as_str())?;
            for more in says {
                writeln!(f, "{:16}{more}", "")?;
            }
        }
        match (&self.revision, self.accepted) {
            (Some(revision), true) => write!(f, "accepted: revision {revision}"),
            (Some(_) | None, _) => write!(f, "refused"),
        }
    }
}

#[cfg(test)]
mod tests {
    use pointsman_engine::sample;

    use super::*;

    fn conditions(settings: &str) -> Conditions {
        let limits = EngineLimits { max_instances: 8, ..EngineLimits::default() };
        let table = Arc::new(sample::table(4));
        Conditions { limits, settings: settings.into(), table, origin: "an example table".into() }
    }

    fn refused(bytes: &[u8], settings: &str) -> Aspect {
        let report = check(bytes, &conditions(settings)).unwrap();
        assert!(!report.accepted && report.figures.is_none());
        assert!(report.to_string().ends_with("\nrefused"), "{report}");
        let last = report.aspects.last().unwrap();
        assert_eq!(last.mark, Mark::No);
        last.clone()
    }

    #[test]
    fn the_embedded_policy_is_accepted_aspect_by_aspect() {
        let report = check(Engine::embedded_bytes(), &conditions("{}")).unwrap();
        assert!(report.accepted, "{report}");
        let names: Vec<&str> = report.aspects.iter().map(|a| a.aspect).collect();
        let all = ["size", "compile", "contract", "imports", "exports", "configure", "probes", "time", "memory"];
        assert_eq!(names, all);
        let text = report.to_string();
        for words in ["of the contract: ", "all backends ready: primary backend-", "accepted: revision "] {
            assert!(text.contains(words), "{words:?} in {text}");
        }
        let figures = report.figures.unwrap();
        assert!(figures.decision_p50_us > 0.0 && figures.decision_p50_us <= figures.decision_p99_us);
        assert!((1 << 16..8 << 20).contains(&figures.fresh_memory_bytes), "{figures:?}");
        assert!(figures.used_memory_bytes >= figures.fresh_memory_bytes);
    }

    #[test]
    fn a_refusal_names_the_aspect_and_the_reason() {
        let whole = Engine::embedded_bytes();
        for (bytes, aspect, words) in [
            (&b""[..], "size", "is empty"),
            (b"#!/bin/sh", "compile", "not WebAssembly"),
            (b"\0asm\x01\0\0\0", "compile", "core WebAssembly module"),
            (&whole[..whole.len() / 2], "compile", "cut off"),
            (&wat::parse_str("(component)").unwrap(), "exports", "`configure`"),
            (
                &wat::parse_str(r#"(component (import "acme:db/query@1.0.0" (instance)))"#).unwrap(),
                "imports",
                "acme:db/query@1.0.0",
            ),
            (
                &wat::parse_str(r#"(component (import "pointsman:policy/log@2.0.0" (instance)))"#).unwrap(),
                "contract",
                "@2.0.0",
            ),
        ] {
            let last = refused(bytes, "{}");
            assert_eq!(last.aspect, aspect, "{last:?}");
            assert!(last.says[0].contains(words), "{last:?}");
        }
    }

    #[test]
    fn the_policys_own_refusal_of_its_settings_is_told() {
        let last = refused(Engine::embedded_bytes(), r#"{"primary_wait": 1}"#);
        assert_eq!(last.aspect, "configure");
        assert!(last.says[0].contains("`primary_wait`"), "{last:?}");
    }
}
