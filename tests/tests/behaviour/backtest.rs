//! `pointsman backtest` on a journal that the real server recorded over real sockets.

use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use pointsman_tests::{
    Finished, Proxy, Reply, Seen, backend, chat, eventually, proxy, revision_of, run, sends_to, status, takes_turns,
    upstream,
};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_proxy-under-test");
const EXCHANGES: usize = 2_400;

/// Held by each of those that live through worlds: the times of one are not to be those of a machine that is busy with another.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A provider that refuses 4 of each 10 requests in the order of their arrival, whatever the pace of the machine.
fn refuses_four_of_ten() -> impl Fn(&Seen, usize) -> Reply + Send + Sync {
    |_, index| match index % 10 {
        0..6 => chat("hello").slow_head(Duration::from_millis(15)),
        _ => status(429).header("retry-after-ms", 150),
    }
}

/// Requests at a steady pace, all of which are answered.
async fn traffic(proxy: &Proxy, requests: usize, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    let mut under_way = Vec::new();
    for _ in 0..requests {
        ticks.tick().await;
        under_way.push(tokio::spawn(proxy.chat().send()));
    }
    for answer in join_all(under_way).await {
        assert_eq!(answer.expect("no panic").status, 200);
    }
}

/// Without the harness's patience: two worlds of thousands of exchanges take their time in a debug build.
async fn backtest(dir: &Path, args: &[&str]) -> Value {
    let mut command = tokio::process::Command::new(BINARY);
    command.current_dir(dir).args(["backtest", "--json"]).args(args);
    let output = command.output().await.expect("it can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn number(report: &Value, metric: &str, of: &str) -> f64 {
    let value = &report["metrics"][metric][of];
    value.as_f64().or(value["mean"].as_f64()).unwrap_or_else(|| panic!("no {metric} {of}: {report:#}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_policy_that_ran_comes_to_what_the_server_recorded() {
    let _alone = ALONE.lock().await;
    let (free_1, free_2) = (
        upstream().handler(refuses_four_of_ten()).start().await,
        upstream().handler(refuses_four_of_ten()).start().await,
    );
    let paid = upstream().reply(chat("hello").slow_head(Duration::from_millis(25))).start().await;
    let proxy = proxy!()
        .backend(backend("free-1").primary(&free_1))
        .backend(backend("free-2").primary(&free_2))
        .backend(backend("paid").fallback(&paid).price("m", 1.0, 4.0))
        .set("cooldown.base_ms", 50)
        .setting("primary_wait_ms", 120)
        .setting("primary_wait_max_retries", 2)
        .start()
        .await;
    traffic(&proxy, EXCHANGES, Duration::from_millis(6)).await;
    let journaled = || proxy.rows("SELECT count(*) AS n FROM trail").first().and_then(|row| row["n"].as_u64());
    eventually("the whole journal", || journaled().filter(|n| *n == EXCHANGES as u64)).await;

    let page = proxy.dir().join("report.html");
    let page_name = page.display().to_string();
    let args = ["--policy", "default", "--set", "primary_wait_max_retries=0", "--seeds", "4", "--html", &page_name];
    let report = backtest(proxy.dir(), &args).await;
    eprintln!("{:#}\n{:#}\n{:#}", report["metrics"], report["backends"], report["calibration"]);
    assert_eq!(report["journal"]["exchanges"].as_u64(), Some(EXCHANGES as u64));
    // The recorded side is what the store says. How near the model comes is held by the lab, in virtual time.
    let stored = |sql: &str| proxy.rows(sql)[0]["n"].as_f64().unwrap_or_else(|| panic!("no number: {sql}"));
    for lane in ["primary", "fallback", "emergency"] {
        let share = stored(&format!("SELECT count(*) AS n FROM exchanges WHERE lane = '{lane}'")) / EXCHANGES as f64;
        let recorded = number(&report, &format!("lane_{lane}_share"), "recorded");
        assert!((recorded - share).abs() < 1e-9, "{lane}: {recorded} was recorded, the store says {share}");
    }
    assert_eq!(number(&report, "lane_none_share", "recorded"), 0.0);
    let (spent, recorded) =
        (stored("SELECT sum(cost_usd) AS n FROM exchanges"), number(&report, "spend_usd", "recorded"));
    assert!(spent > 0.0 && (recorded - spent).abs() <= 1e-6 * spent, "{recorded} was recorded, the store says {spent}");
    // The candidate never waits.
    let waiting = &report["metrics"]["waiting_share"]["difference"];
    assert!(waiting["significant"] == true && waiting["better"] == true, "{waiting}");
    assert_eq!(number(&report, "waiting_share", "candidate"), 0.0);

    let page = std::fs::read_to_string(page).expect("the page is written");
    assert!(
        page.contains("<svg") && !page.contains("<script") && !page.contains("http://") && !page.contains("https://")
    );
}

async fn refused(dir: &Path, args: &[&str], code: i32, words: &str) {
    let Finished { code: found, stdout, stderr } = run(BINARY, dir, &[&["backtest"], args].concat(), &[]).await;
    assert!(found == Some(code) && stdout.is_empty() && stderr.contains(words), "{found:?}\n{stdout}\n{stderr}");
}

#[tokio::test]
async fn what_cannot_be_told_is_refused_in_a_sentence() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let dir = proxy.dir();
    refused(dir, &["--policy", "default"], 1, "the journal in pointsman.db is empty").await;
    for _ in 0..3 {
        proxy.chat().send().await;
    }
    proxy.wait_rows(3, "SELECT ended_us FROM trail").await;
    refused(dir, &["--policy", "default"], 1, "has 3 exchanges of its sample").await;
    refused(dir, &["--policy", "default", "--since", "2001-01-01", "--until", "2001-01-02"], 1, "at least 100").await;
    refused(dir, &["--policy", "none.wasm"], 1, "cannot read none.wasm").await;
    refused(dir, &["--policy", "default", "--store", "none.db"], 2, "there is no store none.db").await;
    refused(dir, &["--policy", "default", "--since", "soon"], 2, "--since: `soon`").await;
    refused(dir, &["--policy", "default", "--since", "1h", "--until", "2h"], 2, "--since must be before --until").await;
    refused(dir, &["--policy", "default", "--config", "none.toml"], 2, "none.toml").await;
    refused(dir, &[], 2, "--policy").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_is_held_against_the_policy_that_ran_or_against_one_that_is_named() {
    let _alone = ALONE.lock().await;
    let (ran, dear, turns) = (sends_to(0).build(), sends_to(1).build(), takes_turns(2).build());
    let (first, second) = (upstream().start().await, upstream().start().await);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ran.wasm");
    std::fs::write(&file, &ran).expect("a file");
    let proxy = proxy!()
        .backend(backend("cheap").primary(&first))
        .backend(backend("dear").primary(&second).price("m", 1.0, 4.0))
        .policy_file(&file)
        .start()
        .await;
    for _ in 0..6 {
        join_all((0..20).map(|_| proxy.chat().send())).await;
    }
    proxy.wait_rows(120, "SELECT ended_us FROM trail").await;
    let write = |name: &str, bytes: &[u8]| std::fs::write(proxy.dir().join(name), bytes).expect("a file");
    write("dear.wasm", &dear);
    write("turns.wasm", &turns);
    write("demanding.wasm", &sends_to(1).wants_settings_of(10).build());

    let revision = revision_of(&ran);
    let that_ran = format!("revision {revision}");
    for (against, name) in [
        (None, that_ran.as_str()),
        (Some(revision.as_str()), that_ran.as_str()),
        (Some("turns.wasm"), "turns.wasm"),
        (Some("default"), "default"),
    ] {
        let mut args = vec!["--policy", "dear.wasm", "--seeds", "2"];
        args.extend(against.iter().flat_map(|against| ["--against", against]));
        let report = backtest(proxy.dir(), &args).await;
        assert_eq!(report["policies"]["current"]["name"], name);
        assert_eq!(report["policies"]["candidate"]["revision"], revision_of(&dear));
        let [recorded, current, candidate] =
            ["recorded", "current", "candidate"].map(|of| number(&report, "spend_usd", of));
        assert_eq!(recorded, 0.0);
        assert!(candidate > 0.0 && current < candidate, "{name}: {current} against {candidate}");
        match name {
            "turns.wasm" => assert!((current / candidate - 0.5).abs() < 0.05, "{current} of {candidate}"),
            _ if name == that_ran => assert_eq!(current, 0.0),
            _ => {}
        }
    }

    let dir = proxy.dir();
    let against = |name: &'static str| ["--policy", "dear.wasm", "--against", name];
    refused(
        dir,
        &against("none.wasm"),
        1,
        "there is no file none.wasm; give a component file, `default`, or a revision",
    )
    .await;
    refused(dir, &against("0123456789ab"), 1, "the store does not keep the component of revision 0123456789ab").await;
    refused(dir, &["--policy", "demanding.wasm"], 1, "the candidate demanding.wasm refuses the recorded backends")
        .await;
}
