//! `pointsman simulate`.

use std::collections::VecDeque;
use std::io::{self, Write};

use pointsman_config::{self as config, Config, Env};
use pointsman_engine::LoadError;
use pointsman_engine::clock::Stopwatch;

use super::args::SimulateArgs;
use super::report::Report;
use super::{Plan, Policy, Run, Tally, days, live};
use crate::command::compile;

/// Result of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Simulated {
    /// Every rule held.
    Held,
    /// One was broken, or the policy could not be loaded.
    Broken,
    /// The configuration is no good.
    WrongUsage,
}

/// Runs it: results go to `out`, complaints to `err`.
pub fn run(args: &SimulateArgs, env: &dyn Env, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<Simulated> {
    let config = match args.config.as_deref().map(|file| config::load(Some(file), env)).transpose() {
        Ok(loaded) => loaded.map(|loaded| loaded.config),
        Err(error) => {
            writeln!(err, "{error}")?;
            return Ok(Simulated::WrongUsage);
        }
    };
    let (name, policy) = match policy(args, config.as_ref()) {
        Ok(named) => named,
        Err(why) => {
            writeln!(err, "error: {why}")?;
            return Ok(Simulated::Broken);
        }
    };
    if let Some(days) = args.days {
        return run_days(args, days, name, &policy, out, err);
    }
    let watch = Stopwatch::start();
    let mut report =
        Report { args, policy: name, tally: Tally::default(), runs: 0, breach: None, real: watch.elapsed() };
    let plan = |seed| Plan { seed, exchanges: args.exchanges, policy: &policy, config: config.as_ref() };
    for (seed, lived) in Worlds::new(args.seed, args.runs, plan) {
        match lived {
            Ok(Run { tally, breach }) => {
                report.tally.add(&tally);
                report.runs += 1;
                report.breach = breach.map(|(breach, story)| (seed, breach, story));
            }
            Err(why) => {
                writeln!(err, "error: the policy refuses the backends or settings of seed {seed}: {why}")?;
                return Ok(Simulated::Broken);
            }
        }
        if report.breach.is_some() {
            break;
        }
    }
    report.real = watch.elapsed();
    if args.json {
        writeln!(out, "{:#}", report.json())?
    } else {
        write!(out, "{report}")?
    }
    Ok(if report.breach.is_none() { Simulated::Held } else { Simulated::Broken })
}

/// Compares the policy with the fixed rule; broken where a day is worse in money and time.
fn run_days(
    args: &SimulateArgs,
    days: u64,
    name: String,
    policy: &Policy,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<Simulated> {
    let mut report = days::Report { policy: name, days: Vec::new() };
    for seed in (0..days).map(|n| args.seed.wrapping_add(n)) {
        match days::compare(seed, policy) {
            Ok(compared) => report.days.push(compared),
            Err(why) => {
                writeln!(err, "error: the policy refuses the table of day {seed}: {why}")?;
                return Ok(Simulated::Broken);
            }
        }
    }
    if args.json {
        writeln!(out, "{:#}", report.json())?
    } else {
        write!(out, "{report}")?
    }
    Ok(if report.worse_in_both() == 0 { Simulated::Held } else { Simulated::Broken })
}

/// Worlds lived through side by side, as many at a time as there are processors, and told in the order of their seeds.
struct Worlds<P> {
    plan: P,
    next: u64,
    left: u64,
    lived: VecDeque<(u64, Result<Run, LoadError>)>,
}

impl<'a, P: Fn(u64) -> Plan<'a>> Worlds<P> {
    fn new(first: u64, number: u64, plan: P) -> Self {
        Self { plan, next: first, left: number, lived: VecDeque::new() }
    }

    fn live_through_some(&mut self) {
        let at_a_time = std::thread::available_parallelism().map_or(1, |n| n.get() as u64).min(self.left);
        let seeds: Vec<u64> = (0..at_a_time).map(|n| self.next.wrapping_add(n)).collect();
        let plans: Vec<_> = seeds.iter().map(|seed| (self.plan)(*seed)).collect();
        std::thread::scope(|scope| {
            let threads: Vec<_> = plans.iter().map(|plan| scope.spawn(|| live(plan))).collect();
            for (seed, thread) in seeds.iter().zip(threads) {
                // A panic in there is one of ours.
                let lived = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                self.lived.push_back((*seed, lived));
            }
        });
        self.next = self.next.wrapping_add(at_a_time);
        self.left -= at_a_time;
    }
}

impl<'a, P: Fn(u64) -> Plan<'a>> Iterator for Worlds<P> {
    type Item = (u64, Result<Run, LoadError>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.lived.is_empty() && self.left > 0 {
            self.live_through_some();
        }
        self.lived.pop_front()
    }
}

/// Loads the policy to simulate, and its name.
fn policy(args: &SimulateArgs, config: Option<&Config>) -> Result<(String, Policy), String> {
    let configured = || config.and_then(|config| config.policy.file.clone());
    let Some(file) = args.policy.clone().or_else(configured) else {
        return Ok(("default".to_owned(), Policy::Native));
    };
    let name = file.display().to_string();
    let policy = match name.as_str() {
        "default" => Policy::Native,
        "random" => Policy::Random,
        _ => {
            let stem = file.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
            Policy::Component { compiled: compile(&file)?, name: stem }
        }
    };
    Ok((name, policy))
}
