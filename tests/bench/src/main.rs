//! Runs the bare proxy and Pointsman in turns under the same load, and prints what each costs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;

use report::{Measured, Round};
use target::Target;
use upstream::Pace;

mod load;
mod report;
mod swaps;
mod target;
mod upstream;
mod wire;

const USAGE: &str = "usage: pointsman-bench [--rounds N] [--seconds S] [--pointsman BINARY | --swaps BINARY]
Without --pointsman the bare proxy is compared with itself: what differs then is noise.
With --swaps Pointsman is compared with itself while its policy is being swapped.";

/// Clients that ask as fast as they are answered.
const CONNECTIONS: usize = 64;
/// Streams at a time while the cost of an event is measured.
const STREAMS: usize = 32;
/// Streams at a time while memory is measured.
const MANY_STREAMS: usize = 1_000;
const EVENTS: Pace = Pace { events: 500, gap: Duration::from_millis(3) };
const LONG: Pace = Pace { events: 600, gap: Duration::from_millis(500) };

struct Args {
    rounds: usize,
    seconds: Duration,
    pointsman: Option<PathBuf>,
    swaps: Option<PathBuf>,
}

fn args() -> anyhow::Result<Args> {
    let mut args = Args { rounds: 5, seconds: Duration::from_secs(3), pointsman: None, swaps: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().context(USAGE)?;
        match word.as_str() {
            "--rounds" => args.rounds = value.parse()?,
            "--seconds" => args.seconds = Duration::from_secs(value.parse()?),
            "--pointsman" => args.pointsman = Some(value.into()),
            "--swaps" => args.swaps = Some(value.into()),
            _ => anyhow::bail!("{USAGE}"),
        }
    }
    Ok(args)
}

fn main() -> anyhow::Result<()> {
    let args = args()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    match &args.swaps {
        Some(binary) => local.block_on(&runtime, async {
            let upstream = upstream::start(EVENTS).await?;
            swaps::measure(binary, upstream, args.rounds, args.seconds).await
        }),
        None => local.block_on(&runtime, compare(&args)),
    }
}

async fn compare(args: &Args) -> anyhow::Result<()> {
    let (upstream, slow) = (upstream::start(EVENTS).await?, upstream::start(LONG).await?);
    let mut bare = memory(Target::bare("bare", slow).await?).await?;
    let mut subject = memory(subject(args, slow).await?).await?;
    let pair = [Target::bare("bare", upstream).await?, self::subject(args, upstream).await?];
    for target in &pair {
        load::closed(target.addr, CONNECTIONS, Duration::from_secs(1)).await?;
    }
    for number in 1..=args.rounds {
        for (target, measured) in pair.iter().zip([&mut bare, &mut subject]) {
            let round = round(target, args.seconds).await.with_context(|| format!("{} under load", target.name))?;
            eprintln!(
                "round {number} {:10} {:6.2} µs/request {:7.0}/s  p50 {:5.0} {:5.0} µs  {:5.2} µs/event",
                target.name, round.cpu_us, round.per_second, round.p50_2k, round.p50_8k, round.event_us
            );
            measured.rounds.push(round);
        }
    }
    report::print(&bare, &subject);
    Ok(())
}

async fn subject(args: &Args, upstream: SocketAddr) -> anyhow::Result<Target> {
    match &args.pointsman {
        Some(binary) => Target::pointsman(binary, upstream).await,
        None => Target::bare("bare again", upstream).await,
    }
}

/// Memory of a fresh process, idle and with many streams.
async fn memory(target: Target) -> anyhow::Result<Measured> {
    let idle_mib = target.resident_mib()?;
    let with_streams = load::held(target.addr, MANY_STREAMS, || target.resident_mib()).await??;
    Ok(Measured { name: target.name, idle_mib, streams_mib: with_streams - idle_mib, rounds: Vec::new() })
}

async fn round(target: &Target, length: Duration) -> anyhow::Result<Round> {
    let before = target.cpu()?;
    let done = load::closed(target.addr, CONNECTIONS, length).await?;
    let used = target.cpu()? - before;
    let (at_2k, at_8k) = (load::open(target.addr, 2_000, length).await?, load::open(target.addr, 8_000, length).await?);

    let (before, began, mut streams) = (target.cpu()?, Instant::now(), 0);
    while began.elapsed() < length {
        load::streams(target.addr, STREAMS).await?;
        streams += STREAMS;
    }
    let used_by_events = target.cpu()? - before;
    let micros = |ns: u64| ns as f64 / 1e3;
    Ok(Round {
        cpu_us: used.as_secs_f64() * 1e6 / done.requests as f64,
        per_second: done.requests as f64 / done.elapsed.as_secs_f64(),
        busy: used.as_secs_f64() / done.elapsed.as_secs_f64(),
        p50_2k: micros(at_2k.value_at_quantile(0.5)),
        p99_2k: micros(at_2k.value_at_quantile(0.99)),
        p50_8k: micros(at_8k.value_at_quantile(0.5)),
        p99_8k: micros(at_8k.value_at_quantile(0.99)),
        event_us: used_by_events.as_secs_f64() * 1e6 / (streams * EVENTS.events) as f64,
    })
}
