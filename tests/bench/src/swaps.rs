//! What swapping policies costs those who are being served: latencies with and without it, in turns.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::load;
use crate::target::Target;

/// Requests a second meanwhile.
const PER_SECOND: u32 = 2_000;
/// Between two swaps.
const EVERY: Duration = Duration::from_millis(100);
/// A round's p99 may be so many times that of the round without.
const TARGET: f64 = 1.2;

const POLICY: &[u8] = include_bytes!("../../../policies/default/default.wasm");

/// Swaps the default policy and one that differs from it in its bytes only, so that both decide in the same time.
struct Swapper {
    stop: Arc<AtomicBool>,
    /// How long each swap took.
    thread: JoinHandle<anyhow::Result<Vec<Duration>>>,
}

impl Swapper {
    fn start(admin: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut socket = TcpStream::connect(admin)?;
            socket.set_nodelay(true)?;
            let (requests, mut took) = (requests(), Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                put(&mut socket, &requests[took.len() % 2])?;
                took.push(began.elapsed());
                std::thread::sleep(EVERY.saturating_sub(began.elapsed()));
            }
            Ok(took)
        });
        Self { stop, thread }
    }

    fn end(self) -> anyhow::Result<Vec<Duration>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the swapper panicked"))?
    }
}

fn requests() -> [Vec<u8>; 2] {
    let marked = [POLICY, b"\0\x02\x01m"].concat();
    [POLICY.to_vec(), marked].map(|component| {
        let head =
            format!("PUT /api/policy HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", component.len());
        [head.into_bytes(), component].concat()
    })
}

fn put(socket: &mut TcpStream, request: &[u8]) -> anyhow::Result<()> {
    socket.write_all(request)?;
    let (mut answer, mut part) = (Vec::new(), [0; 16 << 10]);
    loop {
        let read = socket.read(&mut part)?;
        answer.extend_from_slice(&part[..read]);
        if read == 0 || !answer.starts_with(&b"HTTP/1.1 200"[..answer.len().min(12)]) {
            bail!("a swap was not taken: {}", String::from_utf8_lossy(&answer));
        }
        let Some((head, _)) = crate::wire::message(&answer) else { continue };
        if crate::wire::content_length(&answer[..head]).is_some_and(|length| answer.len() >= head + length) {
            return Ok(());
        }
    }
}

/// Runs rounds with and without swaps in turns and prints both, and their ratio.
pub async fn measure(binary: &Path, upstream: SocketAddr, rounds: usize, length: Duration) -> anyhow::Result<()> {
    let target = Target::pointsman(binary, upstream).await?;
    let admin = target.admin.context("Pointsman has an admin listener")?;
    load::open(target.addr, PER_SECOND, length).await?;
    Swapper::start(admin).end()?;
    let (mut still, mut swapping, mut swaps) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=rounds {
        let without = load::open(target.addr, PER_SECOND, length).await?;
        let swapper = Swapper::start(admin);
        let with = load::open(target.addr, PER_SECOND, length).await?;
        swaps.extend(swapper.end()?);
        let micros = |ns: u64| ns as f64 / 1e3;
        let (a, b) = (micros(without.value_at_quantile(0.99)), micros(with.value_at_quantile(0.99)));
        eprintln!("round {number}: p99 {a:7.0} µs without, {b:7.0} µs with swaps ({:.2} x)", b / a);
        still.push(a);
        swapping.push(b);
    }
    let took = median(swaps.iter().map(Duration::as_secs_f64).collect()) * 1e3;
    let (a, b) = (median(still), median(swapping));
    println!("{} swaps, {took:.1} ms each (median, upload to answer)", swaps.len());
    println!(
        "p99 at {PER_SECOND} requests/s: {a:.0} µs without swaps, {b:.0} µs with one every {EVERY:?}: {:.2} x (target {TARGET} x)",
        b / a
    );
    Ok(())
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_unstable_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
