//! Exactness of replay. For every component given: the real proxy records a rough day under it, then `pointsman replay`
//! must find the same decisions again, bit for bit. The last line is "N passed, N failed".
//!
//! `replay-policies [--exchanges N] COMPONENT...`; `proxy-under-test` beside this binary is the proxy.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use pointsman_tests::{ProxyBuilder, rough_day, run_within};
use serde_json::Value as Json;

/// The issue's number.
const EXCHANGES: usize = 10_000;

/// The longest that a command may take, on a machine that has other work.
const PATIENCE: Duration = Duration::from_secs(900);

/// Settings under which a policy has something to decide on a rough day, by the component's name.
const SETTINGS: [(&str, &str); 2] = [
    ("long-context", "long_tokens = 100"),
    ("off-peak", r#"windows = [{ from = "06:00", until = "18:00" }, { from = "18:00", until = "06:00" }]"#),
];

#[tokio::main]
async fn main() -> ExitCode {
    let Some((exchanges, components)) = arguments() else {
        eprintln!("usage: replay-policies [--exchanges N] COMPONENT...");
        return ExitCode::from(2);
    };
    let (mut passed, mut failed) = (0, 0);
    for component in &components {
        let begun = Instant::now();
        let name = component.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match is_exact(&name, component, exchanges).await {
            Ok(told) => {
                passed += 1;
                println!("ok      {name:<14} {told}, {:.1} s", begun.elapsed().as_secs_f64());
            }
            Err(why) => {
                failed += 1;
                println!("FAILED  {name}: {why}");
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn arguments() -> Option<(usize, Vec<PathBuf>)> {
    let mut exchanges = EXCHANGES;
    let mut components = Vec::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--exchanges" => exchanges = words.next()?.parse().ok()?,
            _ => components.push(PathBuf::from(word)),
        }
    }
    (!components.is_empty()).then_some((exchanges, components))
}

/// Records and replays; what was replayed, or what is wrong.
async fn is_exact(name: &str, component: &Path, exchanges: usize) -> Result<String, String> {
    let component = component.canonicalize().map_err(|error| format!("{}: {error}", component.display()))?;
    let binary = std::env::current_exe().map_err(|error| error.to_string())?.with_file_name("proxy-under-test");
    // Compiled now, it is there at once when the proxy starts.
    let args = ["policy", "check", &component.display().to_string()];
    run_within(PATIENCE, &binary, &std::env::temp_dir(), &args, &[]).await;
    let settings = SETTINGS.iter().filter(|(of, _)| *of == name).filter_map(|(_, text)| text.parse().ok());
    let settings = settings.flat_map(|table: toml::Table| table);
    let proxy = ProxyBuilder::new(&binary).policy_file(&component);
    let proxy = settings.fold(proxy, |proxy, (key, value)| proxy.setting(&key, value));
    let day = rough_day(proxy, exchanges).await;
    let args = ["replay", "--store", "pointsman.db", "--json"];
    let finished = run_within(PATIENCE, &binary, day.proxy.dir(), &args, &[]).await;
    let report: Json = serde_json::from_str(&finished.stdout).map_err(|_| finished.stderr.clone())?;
    let revision = &report["revisions"][0];
    let number = |value: &Json| value.as_u64().unwrap_or_default();
    let questions = number(&revision["questions"]);
    let timed = number(&revision["not_compared"]["time"]);
    let are_all = revision["exchanges"] == exchanges && number(&revision["not_compared"]["state"]) == 0;
    // On a busy machine a debug build misses a deadline or lacks an instance now and then; enough is left to compare.
    let are_compared = questions - timed >= exchanges as u64;
    match finished.code == Some(0) && are_all && are_compared {
        true => Ok(format!(
            "{exchanges} exchanges, {questions} questions the same, {} of them by fresh instances too, {timed} not compared, {} failed",
            revision["fresh"]["questions"], revision["failed_again"],
        )),
        false => Err(format!("exit {:?} {} {report:#}", finished.code, finished.stderr)),
    }
}
