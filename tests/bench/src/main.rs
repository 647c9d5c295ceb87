//! Runs the bare proxy, others and Pointsman in turns under the same load, and prints what each costs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;

use load::BODY;
use measures::{BODIES, IDLE, RATES};
use report::Measured;
use target::Target;
use upstream::{PACED, UNPACED};

mod load;
mod measures;
mod report;
mod swaps;
mod target;
mod upstream;
mod wire;

const USAGE: &str =
    "usage: pointsman-bench [--rounds N] [--seconds S] [--pointsman BINARY | --swaps BINARY | --growth BINARY]
Without --pointsman the bare proxy is compared with itself: what differs then is noise.
With --swaps Pointsman is compared with itself while its policy is being swapped.
With --growth Pointsman has one worker, then two, on all cores.
nginx and HAProxy are measured beside them where they are installed.";

/// Clients that ask as fast as they are answered.
const CONNECTIONS: usize = 64;
/// The same with large bodies.
const UPLOADS: usize = 16;
/// Streams at a time without a pause between their events.
const STREAMS: usize = 32;
/// Streams at a time that are paced, and while memory is measured.
const MANY_STREAMS: usize = 1_000;

struct Args {
    rounds: usize,
    seconds: Duration,
    what: What,
}

enum What {
    Bare,
    Pointsman(PathBuf),
    Swaps(PathBuf),
    Growth(PathBuf),
}

fn args() -> anyhow::Result<Args> {
    let mut args = Args { rounds: 5, seconds: Duration::from_secs(3), what: What::Bare };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().context(USAGE)?;
        match word.as_str() {
            "--rounds" => args.rounds = value.parse()?,
            "--seconds" => args.seconds = Duration::from_secs(value.parse()?),
            "--pointsman" => args.what = What::Pointsman(value.into()),
            "--swaps" => args.what = What::Swaps(value.into()),
            "--growth" => args.what = What::Growth(value.into()),
            _ => anyhow::bail!("{USAGE}"),
        }
    }
    Ok(args)
}

fn main() -> anyhow::Result<()> {
    let args = args()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let upstream = upstream::start().await?;
        match &args.what {
            What::Swaps(binary) => swaps::measure(binary, upstream, args.rounds, args.seconds).await,
            What::Growth(binary) => grow(binary, upstream, &args).await,
            What::Bare => compare(None, upstream, &args).await,
            What::Pointsman(binary) => compare(Some(binary), upstream, &args).await,
        }
    })
}

async fn compare(binary: Option<&Path>, upstream: SocketAddr, args: &Args) -> anyhow::Result<()> {
    let targets = targets(binary, upstream).await?;
    let mut all: Vec<Measured> = targets.iter().map(|target| Measured::new(target.name)).collect();
    for (target, measured) in targets.iter().zip(&mut all) {
        load::closed(target.addr, CONNECTIONS, BODY, Duration::from_secs(1)).await?;
        measured.rounds.reserve(args.rounds);
    }
    for number in 1..=args.rounds {
        for (target, measured) in targets.iter().zip(&mut all) {
            let round = round(target, args.seconds).await.with_context(|| format!("{} under load", target.name))?;
            eprintln!("round {number} {:10} {:6.2} µs/request {:7.0}/s", target.name, round[0], round[1]);
            measured.rounds.push(round);
        }
    }
    drop(targets);
    // Fresh processes, one after the other.
    for (index, measured) in all.iter_mut().enumerate() {
        let mut fresh = self::targets(binary, upstream).await?;
        measured.memory =
            memory(fresh.swap_remove(index)).await.with_context(|| format!("memory of {}", measured.name))?;
    }
    report::print(&all);
    Ok(())
}

/// Bare, whatever else is installed, and Pointsman, or bare again.
async fn targets(binary: Option<&Path>, upstream: SocketAddr) -> anyhow::Result<Vec<Target>> {
    let mut all = vec![Target::bare("bare", upstream).await?];
    match binary {
        Some(binary) => {
            all.extend(Target::nginx(upstream).await?);
            all.extend(Target::haproxy(upstream).await?);
            all.push(Target::pointsman(binary, upstream).await?);
        }
        None => all.push(Target::bare("bare again", upstream).await?),
    }
    Ok(all)
}

/// Memory of a fresh process: idle, and over that with idle connections and with streams.
async fn memory(target: Target) -> anyhow::Result<Vec<f64>> {
    let idle = target.resident_mib()?;
    let mut all = vec![idle];
    for count in IDLE {
        all.push(load::idle(target.addr, count, || target.resident_mib()).await?? - idle);
    }
    all.push(load::held(target.addr, MANY_STREAMS, || target.resident_mib()).await?? - idle);
    Ok(all)
}

/// A round, in the order of [`measures::of_round`].
async fn round(target: &Target, length: Duration) -> anyhow::Result<Vec<f64>> {
    let micros = |ns: u64| ns as f64 / 1e3;
    let before = target.cpu()?;
    let done = load::closed(target.addr, CONNECTIONS, BODY, length).await?;
    let used = (target.cpu()? - before).as_secs_f64();
    let elapsed = done.elapsed.as_secs_f64();
    let mut all = vec![used * 1e6 / done.requests as f64, done.requests as f64 / elapsed, used / elapsed];
    for rate in RATES {
        let before = target.cpu()?;
        let latencies = load::open(target.addr, rate, length).await?;
        let used = (target.cpu()? - before).as_secs_f64();
        all.push(used * 1e6 / latencies.len() as f64);
        all.extend([0.5, 0.99, 0.999].map(|quantile| micros(latencies.value_at_quantile(quantile))));
    }
    for (body, _) in BODIES {
        let before = target.cpu()?;
        let done = load::closed(target.addr, UPLOADS, body, length).await?;
        all.push((target.cpu()? - before).as_secs_f64() * 1e6 / done.requests as f64);
    }
    let before = target.cpu()?;
    let paced = load::streams(target.addr, MANY_STREAMS, PACED).await?;
    let used = (target.cpu()? - before).as_secs_f64();
    all.push(used * 1e6 / paced.events as f64);
    all.extend([micros(paced.first.value_at_quantile(0.5)), micros(paced.transit.value_at_quantile(0.99))]);
    let (before, began, mut events) = (target.cpu()?, Instant::now(), 0);
    while began.elapsed() < length {
        events += load::streams(target.addr, STREAMS, UNPACED).await?.events;
    }
    all.push((target.cpu()? - before).as_secs_f64() * 1e6 / events as f64);
    Ok(all)
}

/// One worker and two in turns, on all cores, which they share with the load.
async fn grow(binary: &Path, upstream: SocketAddr, args: &Args) -> anyhow::Result<()> {
    const WORKERS: [usize; 2] = [1, 2];
    let mut rounds = WORKERS.map(|_| Vec::new());
    let mut targets = Vec::new();
    for workers in WORKERS {
        let target = Target::pointsman_with(binary, upstream, workers).await?;
        target.move_to("0,1")?;
        load::closed(target.addr, CONNECTIONS, BODY, Duration::from_secs(1)).await?;
        targets.push(target);
    }
    for _ in 0..args.rounds {
        for (target, rounds) in targets.iter().zip(&mut rounds) {
            let before = target.cpu()?;
            let done = load::closed(target.addr, CONNECTIONS, BODY, args.seconds).await?;
            let used = (target.cpu()? - before).as_secs_f64();
            rounds.push((done.requests as f64 / done.elapsed.as_secs_f64(), used * 1e6 / done.requests as f64));
        }
    }
    println!("\n| workers | requests/s | CPU per request, µs |\n|--:|--:|--:|");
    for (workers, rounds) in WORKERS.iter().zip(&mut rounds) {
        rounds.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let (per_second, each) = rounds.get(rounds.len() / 2).copied().unwrap_or_default();
        println!("| {workers} | {per_second:.0} | {each:.1} |");
    }
    Ok(())
}
