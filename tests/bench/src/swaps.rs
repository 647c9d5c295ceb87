//! Cost of swapping policies for the requests under way: latencies without it, with uploads that change nothing, and
//! with swaps, in turns. The uploads alone show their part of the difference.

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

/// Uploads during the measurement.
#[derive(Clone, Copy)]
enum Uploads {
    /// The policy in force, again and again.
    Same,
    /// The default policy and one that differs from it in its bytes only, in turns, so that both decide in the same time.
    Swapped,
}

/// Uploads policies.
struct Uploader {
    stop: Arc<AtomicBool>,
    /// Thread that returns the duration of each upload.
    thread: JoinHandle<anyhow::Result<Vec<Duration>>>,
}

impl Uploader {
    fn start(admin: SocketAddr, uploads: Uploads) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut socket = TcpStream::connect(admin)?;
            socket.set_nodelay(true)?;
            let (requests, mut took) = (requests(uploads), Vec::new());
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
        self.thread.join().map_err(|_| anyhow::anyhow!("the uploader panicked"))?
    }
}

fn requests(uploads: Uploads) -> [Vec<u8>; 2] {
    let other = match uploads {
        Uploads::Same => POLICY.to_vec(),
        Uploads::Swapped => [POLICY, b"\0\x02\x01m"].concat(),
    };
    [POLICY.to_vec(), other].map(|component| {
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

/// Runs rounds without uploads, with uploads and with swaps in turns and prints their p99.
pub(crate) async fn measure(
    binary: &Path,
    upstream: SocketAddr,
    rounds: usize,
    length: Duration,
) -> anyhow::Result<()> {
    let target = Target::pointsman(binary, upstream).await?;
    let admin = target.admin.context("Pointsman has an admin listener")?;
    load::open(target.addr, PER_SECOND, length).await?;
    let p99 =
        async || anyhow::Ok(load::open(target.addr, PER_SECOND, length).await?.value_at_quantile(0.99) as f64 / 1e3);
    let with = async |uploads| {
        let uploader = Uploader::start(admin, uploads);
        let p99 = p99().await?;
        anyhow::Ok((p99, uploader.end()?))
    };
    with(Uploads::Swapped).await?;
    let (mut still, mut uploading, mut swapping, mut swaps) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for number in 1..=rounds {
        let a = p99().await?;
        let (b, _) = with(Uploads::Same).await?;
        let (c, took) = with(Uploads::Swapped).await?;
        swaps.extend(took);
        eprintln!(
            "round {number}: p99 {a:6.0} µs; {b:6.0} with uploads ({:.2} x); {c:6.0} with swaps ({:.2} x)",
            b / a,
            c / a
        );
        still.push(a);
        uploading.push(b);
        swapping.push(c);
    }
    let ratios = |of: &[f64]| median(of.iter().zip(&still).map(|(with, without)| with / without).collect());
    let (uploads, with_swaps) = (ratios(&uploading), ratios(&swapping));
    let took = median(swaps.iter().map(Duration::as_secs_f64).collect()) * 1e3;
    println!("{} swaps, {took:.1} ms each (median, upload to answer), one every {EVERY:?}", swaps.len());
    println!("p99 at {PER_SECOND} requests/s, medians of {rounds} rounds, µs:");
    println!("  without            {:6.0}", median(still));
    println!("  uploads, no swap   {:6.0}   {uploads:.2} x in a round", median(uploading));
    println!("  swaps              {:6.0}   {with_swaps:.2} x in a round (target {TARGET} x)", median(swapping));
    Ok(())
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_unstable_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
