//! Requests refused before an exchange: each has an id, a record, a log line, a count and an explanation, and a flood
//! of them is bounded.

use std::time::Instant;

use pointsman_tests::{Answer, Gate, Proxy, RawConnection, backend, chat, proxy, run, upstream};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const BINARY: &str = env!("CARGO_BIN_EXE_proxy-under-test");

fn hashed(key: &str) -> String {
    let hex: String = Sha256::digest(key).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

async fn explained(proxy: &Proxy, args: &[&str]) -> String {
    let ended = run(BINARY, proxy.dir(), &[&["explain"], args].concat(), &[]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
    ended.stdout
}

/// The refusal is in the record, the log, the metrics, the API and `explain`, for this reason and with these words.
async fn leaves_a_trace(proxy: &Proxy, refused: &Answer, status: u16, reason: &str, words: &[&str]) {
    assert_eq!(refused.status, status, "{}", refused.text());
    is_traced(proxy, refused.header("x-request-id"), status, reason, words).await;
}

async fn is_traced(proxy: &Proxy, id: &str, status: u16, reason: &str, words: &[&str]) {
    assert!(!id.is_empty());
    let rows = proxy.wait_rows(1, &format!("SELECT * FROM exchanges WHERE id = '{id}'")).await;
    let row = &rows[0];
    assert_eq!((&row["end"], &row["denied"], &row["status"]), (&json!("denied"), &json!(reason), &json!(status)));
    assert_eq!((&row["attempts"], &row["lane"], &row["saved_usd"]), (&json!(0), &Value::Null, &Value::Null));
    let line = proxy.wait_log("the refusal's line", |l| (l["request_id"] == id).then(|| l.clone())).await;
    assert_eq!((&line["end"], &line["denied"]), (&json!("denied"), &json!(reason)));
    assert!(proxy.metric(&format!("pointsman_denied_total{{reason=\"{reason}\"}} ")).await >= 1.0);
    let listed = proxy.admin("/api/exchanges?end=denied").send().await;
    let found = listed.json()["exchanges"].as_array().unwrap().iter().any(|x| x["id"] == id && x["denied"] == reason);
    assert!(found, "{}", listed.text());
    let told = explained(proxy, &[id]).await;
    let head = format!("{id}: refused at the door with status {status} ({})\n", reason.replace('_', " "));
    assert!(told.starts_with(&head), "{told}");
    assert!(told.contains("what to do: ") && told.contains("No policy was asked"), "{told}");
    for words in words {
        assert!(told.contains(words), "{words:?} in\n{told}");
    }
    let report: Value = serde_json::from_str(&explained(proxy, &[id, "--json"]).await).unwrap();
    let denied = report["events"].as_array().unwrap().iter().find(|event| event["what"] == "denied").unwrap();
    assert_eq!((&denied["reason"], &report["end"]["status"]), (&json!(reason), &json!(status)));
    let shown = proxy.admin(&format!("/api/exchanges/{id}")).send().await;
    assert_eq!(shown.json()["story"], report);
    for text in [shown.text(), listed.text(), line.to_string(), report.to_string()] {
        assert!(!text.contains("-0.0"), "{text}");
    }
}

#[tokio::test]
async fn a_missing_and_a_wrong_key() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).client("a", &hashed("right")).start().await;
    let missing = proxy.chat().send().await;
    leaves_a_trace(&proxy, &missing, 401, "missing_key", &["limit: [[client]] key", "Authorization: Bearer KEY"]).await;
    let wrong = proxy.chat().bearer("not-the-right-key").send().await;
    leaves_a_trace(&proxy, &wrong, 401, "wrong_key", &["This client key is not known here", "never recorded"]).await;
    assert_eq!(proxy.told("not-the-right-key"), 0);
    let files = std::fs::read_dir(proxy.dir()).unwrap().flatten();
    for file in files.filter(|file| file.file_name().to_string_lossy().starts_with("pointsman.db")) {
        let bytes = std::fs::read(file.path()).unwrap();
        assert!(!bytes.windows(17).any(|window| window == b"not-the-right-key"), "{file:?} has the key");
    }
    assert_eq!(up.count(), 0);
}

#[tokio::test]
async fn a_model_that_the_key_may_not_ask_for_and_one_that_nobody_serves() {
    let up = upstream().start().await;
    let client = toml::toml! {
        name = "a"
        models = ["m", "unserved"]
    };
    let mut client = client;
    client.insert("key".to_owned(), hashed("right").into());
    let proxy = proxy!()
        .backend(backend("p1").primary(&up).model("m", "m").model("other", "other"))
        .set("client", toml::Value::Array(vec![toml::Value::Table(client)]))
        .start()
        .await;
    let denied = proxy.chat_for("other").bearer("right").send().await;
    let words = ["client a, model other", "limit: [[client]] models", "may not ask for the model \"other\""];
    leaves_a_trace(&proxy, &denied, 404, "model_not_allowed", &words).await;
    let unknown = proxy.chat_for("unserved").bearer("right").send().await;
    let words = ["No backend serves the model \"unserved\"", "limit: [[backend]] models", "client a"];
    leaves_a_trace(&proxy, &unknown, 404, "unknown_model", &words).await;
    assert_eq!(proxy.rows("SELECT * FROM trail").len(), 0, "no policy was asked");
    assert_eq!(up.count(), 0);
}

#[tokio::test]
async fn a_clients_rate_concurrency_and_budget() {
    let gate = Gate::new();
    let up = upstream().reply(chat("hi").gated_head(&gate)).start().await;
    let free = upstream().start().await;
    let mut spender = toml::Table::new();
    spender.insert("name".to_owned(), "spender".into());
    spender.insert("key".to_owned(), hashed("three").into());
    spender.insert("budget_usd_per_day".to_owned(), 0.000_001.into());
    let client = |name: &str, key: &str, limit: &str| {
        let mut table = toml::Table::new();
        table.insert("name".to_owned(), name.into());
        table.insert("key".to_owned(), hashed(key).into());
        table.insert(limit.to_owned(), 1.into());
        toml::Value::Table(table)
    };
    let clients = vec![client("busy", "one", "rpm"), client("wide", "two", "max_concurrency"), spender.into()];
    let proxy = proxy!()
        .backend(backend("gated").primary(&up).model("g", "g"))
        .backend(backend("open").primary(&free).model("m", "m").price("m", 1.0, 1.0))
        .set("client", toml::Value::Array(clients))
        .start()
        .await;

    assert_eq!(proxy.chat().bearer("one").send().await.status, 200);
    let denied = proxy.chat().bearer("one").send().await;
    assert!(!denied.header("retry-after").is_empty());
    let words = ["client busy", "(1 requests a minute, client.rpm)", "limit: [[client]] rpm, tpm"];
    leaves_a_trace(&proxy, &denied, 429, "client_rate", &words).await;

    let first = tokio::spawn(proxy.chat_for("g").bearer("two").send());
    up.wait_seen(1).await;
    let denied = proxy.chat_for("g").bearer("two").send().await;
    let words = ["has 1 requests under way", "limit: [[client]] max_concurrency"];
    leaves_a_trace(&proxy, &denied, 429, "client_concurrency", &words).await;
    gate.open();
    assert_eq!(first.await.unwrap().status, 200);

    assert_eq!(proxy.chat().bearer("three").send().await.status, 200);
    // What an exchange cost counts once it is recorded, which is before its row is written.
    proxy.wait_rows(1, "SELECT id FROM exchanges WHERE client = 'spender'").await;
    let denied = proxy.chat().bearer("three").send().await;
    let words = ["0.000001 USD for today", "limit: [[client]] budget_usd_per_day", "midnight UTC"];
    leaves_a_trace(&proxy, &denied, denied.status.as_u16(), "client_budget", &words).await;

    let usage = proxy.admin("/api/usage?group=client").send().await;
    let of = |name: &str| usage.json()["rows"].as_array().unwrap().iter().find(|row| row["key"] == name).cloned();
    let busy = of("busy").unwrap();
    assert_eq!((&busy["requests"], &busy["denied"], &busy["failures"]), (&json!(1), &json!(1), &json!(0)));
    assert_eq!(usage.json()["total"]["denied"], 3);
    assert!(!usage.text().contains("-0.0"), "{}", usage.text());
    assert_eq!(explained(&proxy, &["last"]).await, explained(&proxy, &[denied.header("x-request-id")]).await);
    let scenario = run(BINARY, proxy.dir(), &["explain", "last", "--as-scenario"], &[]).await;
    assert!(scenario.code == Some(1) && scenario.stderr.contains("no policy was asked"), "{}", scenario.stderr);
}

#[tokio::test]
async fn a_body_too_large_and_a_malformed_request() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).set("server.max_body_bytes", 1_000).start().await;
    let denied = proxy.post("/v1/chat/completions").body("application/json", vec![b' '; 1_001]).send().await;
    let words = ["larger than 1000 bytes", "limit: [server] max_body_bytes", "/v1/chat/completions"];
    leaves_a_trace(&proxy, &denied, 413, "body_too_large", &words).await;
    let twice = proxy.post("/v1/chat/completions").body("application/json", "{\"model\":\"a\",\"model\":\"b\"}");
    leaves_a_trace(&proxy, &twice.send().await, 400, "bad_request", &["correct the request at the client"]).await;
    let request = b"GET /v1/../files HTTP/1.1\r\nhost: x\r\nx-request-id: dotted\r\n\r\n";
    let answer = RawConnection::open(proxy.addr()).await.write(request).await.answer().await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("x-request-id: dotted"), "{answer}");
    is_traced(&proxy, "dotted", 400, "bad_request", &["\"..\" segment"]).await;
    let request = b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello";
    let answer = RawConnection::open(proxy.addr()).await.write(request).await.answer().await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap().trim().to_owned();
    is_traced(&proxy, &id, 400, "bad_request", &[]).await;
    assert_eq!(up.count(), 0);
}

#[tokio::test]
async fn a_flood_of_wrong_keys_is_counted_and_neither_fills_the_record_nor_the_log() {
    const FLOOD: usize = 300;
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).client("a", &hashed("right")).start().await;
    let mut watched = proxy.admin("/api/events").stream().await;
    let begun = Instant::now();
    for _ in 0..FLOOD {
        assert_eq!(proxy.chat().bearer("wrong").send().await.status, 401);
    }
    let most = 21.0 + 2.0 * begun.elapsed().as_secs_f64();
    assert_eq!(proxy.chat().bearer("right").send().await.status, 200);
    proxy.wait_rows(1, "SELECT id FROM exchanges WHERE end = 'delivered'").await;
    let kept = proxy.rows("SELECT id FROM exchanges WHERE end = 'denied'").len();
    assert!(kept >= 20 && kept as f64 <= most, "{kept} of at most {most}");
    assert_eq!(proxy.metric("pointsman_denied_total{reason=\"wrong_key\"} ").await, FLOOD as f64);
    assert_eq!(proxy.metric("pointsman_denied_unrecorded_total ").await, (FLOOD - kept) as f64);
    let warned = proxy.wait_log("a warning", |l| {
        let is_it =
            l["level"] == "WARN" && l["message"].as_str().is_some_and(|m| m.contains("refused at the door faster"));
        is_it.then(|| l.clone())
    });
    assert_eq!(warned.await["reason"], "wrong_key");
    assert_eq!(proxy.told("refused at the door faster"), 1, "once a minute at most");
    assert_eq!(proxy.told("\"denied\":\"wrong_key\""), kept, "a line for each that is recorded");
    let first = watched.next().await.unwrap();
    assert_eq!((&first.json()["end"], &first.json()["denied"]), (&json!("denied"), &json!("wrong_key")));
}

#[tokio::test]
async fn ends_can_be_asked_for_by_their_words() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up).model("m", "m")).start().await;
    let answered = proxy.chat().send().await;
    let denied = proxy.chat_for("unserved").send().await;
    proxy.wait_rows(2, "SELECT id FROM exchanges").await;
    let ids = async |query: &str| -> Vec<String> {
        let listed = proxy.admin(&format!("/api/exchanges?{query}")).send().await.json();
        listed["exchanges"].as_array().unwrap().iter().map(|x| x["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids("end=denied").await, [denied.header("x-request-id")]);
    assert_eq!(ids("end=delivered,broken").await, [answered.header("x-request-id")]);
    assert_eq!(ids("").await.len(), 2);
    let wrong = proxy.admin("/api/exchanges?end=lost").send().await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.text().contains("delivered, refused, rejected, broken, client_gone, denied"), "{}", wrong.text());
}
