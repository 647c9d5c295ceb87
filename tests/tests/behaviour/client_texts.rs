//! Texts by which clients name things: what is kept of them is bounded, in the store, the log, the metrics and the API.

use std::sync::Arc;

use pointsman_core::record::{End, ExchangeRecord};
use pointsman_core::time::Timestamp;
use pointsman_store::{Store, StoreLimits, StorePath};
use pointsman_tests::{Proxy, Upstream, backend, chat, echo, proxy, upstream};
use serde_json::{Value, json};

/// Bytes of all files of the store.
fn stored_bytes(proxy: &Proxy) -> u64 {
    let files = std::fs::read_dir(proxy.dir()).unwrap().flatten();
    let of_store = files.filter(|file| file.file_name().to_string_lossy().starts_with("pointsman.db"));
    of_store.map(|file| file.metadata().unwrap().len()).sum()
}

fn chat_for(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hi"}]})
}

#[tokio::test]
async fn a_model_of_20_mib_is_refused_by_name_and_kept_nowhere() {
    let up = upstream().reply(chat("hello")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    assert_eq!(proxy.chat().send().await.status, 200);
    proxy.wait_rows(1, "SELECT id FROM exchanges").await;
    let before = stored_bytes(&proxy);
    let huge = "x".repeat(20 << 20);
    for path in ["/v1/chat/completions", "/v1/embeddings", "/v1/messages", "/v1/responses"] {
        let answer = proxy.post(path).json(&chat_for(&huge)).send().await;
        assert_eq!(answer.status, 400, "{path}");
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("\"model\" is longer than 256 bytes") && message.len() < 200, "{message}");
    }
    let rows = proxy.wait_rows(5, "SELECT length(model) AS model, denied FROM exchanges ORDER BY started").await;
    assert_eq!(rows[4], json!({"model": 7, "denied": "bad_request"}));
    assert!(
        stored_bytes(&proxy) - before < 256 << 10,
        "4 requests of 20 MiB took {} bytes",
        stored_bytes(&proxy) - before
    );
    assert!(proxy.output().iter().all(|line| line.len() < 2_000));
    assert!(proxy.admin("/api/exchanges").send().await.body.len() < 16 << 10);
    assert!(proxy.admin("/metrics").send().await.body.len() < 256 << 10);
    assert_eq!(up.count(), 1);
}

#[tokio::test]
async fn a_model_of_256_bytes_is_served_in_every_spelling_and_one_of_257_is_not() {
    let up = upstream().reply(chat("hello")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    for (letter, bytes) in [("m", 1), ("é", 2), ("模", 4 - 1), ("😀", 4)] {
        let longest = format!("{}{}", letter.repeat(256 / bytes), "m".repeat(256 % bytes));
        assert_eq!(proxy.post("/v1/chat/completions").json(&chat_for(&longest)).send().await.status, 200, "{letter}");
        assert_eq!(up.seen().pop().unwrap().json()["model"], longest);
        let longer = chat_for(&format!("{longest}m"));
        assert_eq!(proxy.post("/v1/chat/completions").json(&longer).send().await.status, 400, "{letter}");
    }
    let escaped = format!(r#"{{"model":"{}","messages":[]}}"#, "\\u006d".repeat(256));
    let request = proxy.post("/v1/chat/completions").body("application/json", escaped);
    assert_eq!(request.send().await.status, 200);
    assert_eq!(up.count(), 5);
}

#[tokio::test]
async fn what_else_a_client_names_is_cut_where_it_is_kept_and_goes_out_whole() {
    let up = upstream().handler(|seen, _| echo(seen)).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let long = "y".repeat(8_000);
    let path = format!("/v1/{long}");
    let request = proxy.post(&path).json(&json!({"model": "m"})).header("x-request-id", &long);
    let request = request.header("x-pointsman-session", &long).header("user-agent", &long);
    let answer =
        request.header("x-pointsman-label-team", &long).header(&format!("x-pointsman-label-{long}"), "v").send().await;
    assert_eq!((answer.status.as_u16(), &answer.json()["target"]), (200, &json!(path)));
    let id = answer.header("x-request-id");
    assert!(id.len() <= 128);
    let sql = "SELECT length(path) AS path, length(session) AS session, length(id) < 129 AS id FROM exchanges";
    assert_eq!(proxy.wait_rows(1, sql).await, [json!({"path": 256, "session": 256, "id": 1})]);
    let shown = proxy.admin(&format!("/api/exchanges/{id}")).send().await;
    assert!(shown.body.len() < 16 << 10, "{} bytes", shown.body.len());
    assert!(!shown.text().contains(&"y".repeat(257)));
    assert!(proxy.output().iter().all(|line| !line.contains(&"y".repeat(257))));
}

#[tokio::test]
async fn members_and_roles_without_an_end_are_named_by_their_beginning() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("c").primary(&up).set("dialect", "anthropic")).start().await;
    let huge = "w".repeat(5 << 20);
    let mut member = chat_for("m");
    member[&huge] = json!(1);
    let role = json!({"model": "m", "messages": [{"role": huge, "content": "hi"}]});
    let part = json!({"model": "m", "messages": [{"role": "user", "content": [{"type": huge, "a": 1}]}]});
    for body in [member, role, part] {
        let answer = proxy.post("/v1/chat/completions").json(&body).send().await;
        assert!(
            answer.body.len() < 4_000 && answer.headers.values().all(|value| value.len() < 1_000),
            "{}",
            answer.status
        );
    }
    let sql = "SELECT length(coalesce(notes, '')) AS notes, length(coalesce(error, '')) AS error FROM exchanges";
    for row in proxy.wait_rows(3, sql).await {
        assert!(row["notes"].as_u64().unwrap() < 4_000 && row["error"].as_u64().unwrap() < 4_000, "{row}");
    }
    assert!(stored_bytes(&proxy) < 2 << 20, "{} bytes", stored_bytes(&proxy));
    assert!(proxy.output().iter().all(|line| line.len() < 4_000));
}

#[tokio::test]
async fn a_member_called_model_of_a_plain_request_may_be_long() {
    let up = upstream().handler(|seen, _| echo(seen)).start().await;
    let plain = backend("plain").set("base_url", format!("http://{}", up.addr())).set("dialect", "plain");
    let proxy = proxy!().backend(plain).start().await;
    let body = json!({"model": "z".repeat(5_000)});
    assert_eq!(proxy.post("/anything").json(&body).send().await.status, 200);
    assert_eq!(up.only().json(), body);
    assert_eq!(proxy.wait_rows(1, "SELECT model FROM exchanges").await, [json!({"model": "unknown"})]);
}

#[tokio::test]
async fn usage_by_a_flood_of_models_comes_in_pages_and_is_summed_whole() {
    const MODELS: u64 = 12_000;
    let of_model = |n| {
        let mut record = wordy(n);
        record.notes.clear();
        record.model = format!("{n:0>256}");
        record
    };
    let (_up, proxy) = with_records((0..MODELS).map(of_model)).await;
    let (mut models, mut pages) = (Vec::new(), 0);
    for page in pages_of(&proxy, "/api/usage?group=model&since=36500d&after=").await {
        assert_eq!(page["total"]["requests"], MODELS);
        models.extend(page["rows"].as_array().unwrap().iter().map(|row| row["key"].as_str().unwrap().to_owned()));
        pages += 1;
    }
    assert_eq!(models, (0..MODELS).map(|n| format!("{n:0>256}")).collect::<Vec<_>>());
    assert!((2..5).contains(&pages), "{pages} pages");
    assert_eq!(proxy.admin("/api/usage?after=x").send().await.status, 400);
}

/// A proxy whose store has these records; its upstream lives as long as the first of the two.
async fn with_records(records: impl Iterator<Item = Box<ExchangeRecord>>) -> (Upstream, Proxy) {
    let up = upstream().reply(chat("hello")).start().await;
    let mut proxy = proxy!().backend(backend("p1").primary(&up)).set("store.retention_days", 36_500).start().await;
    proxy.kill9().await;
    let limits = StoreLimits { retention_days: None, ..StoreLimits::default() };
    let store =
        Store::open(StorePath::File(proxy.store_path()), limits, Arc::new(|| Timestamp::from_millis(0))).unwrap();
    records.for_each(|record| store.handle().record(record, None));
    store.close().unwrap();
    proxy.restart().await;
    (up, proxy)
}

/// Follows `next` from page to page of the API, each of at most 4 MiB; the path ends where its value belongs.
async fn pages_of(proxy: &Proxy, path: &str) -> Vec<Value> {
    let (mut pages, mut next) = (Vec::new(), String::new());
    loop {
        let page = proxy.admin(&format!("{path}{next}")).send().await;
        assert!(page.body.len() <= (4 << 20) + 1_000, "{} bytes", page.body.len());
        pages.push(page.json());
        match pages.last().and_then(|page| page["next"].as_str()) {
            Some(key) => next = key.to_owned(),
            None => return pages,
        }
    }
}

/// One exchange, with as much text as one may have.
fn wordy(n: u64) -> Box<ExchangeRecord> {
    let started = Timestamp::from_millis(1_790_000_000_000 + n);
    Box::new(ExchangeRecord {
        id: format!("r{n}"),
        started,
        elapsed: std::time::Duration::ZERO,
        client: None,
        session: None,
        operation: pointsman_core::contract::Operation::Chat,
        path: "/v1/chat/completions".to_owned(),
        model: "m".to_owned(),
        streaming: false,
        status: 200,
        end: End::Delivered,
        lane: None,
        backend: None,
        waits: 0,
        waited: std::time::Duration::ZERO,
        first_byte: None,
        policy: "p".into(),
        policy_faults: 0,
        attempts: Vec::new(),
        notes: vec!["note".repeat(125); 100],
        error: None,
        denied: None,
        saved_usd: None,
    })
}

#[tokio::test]
async fn a_page_of_exchanges_is_at_most_4_mib_and_none_is_lost() {
    let (_up, proxy) = with_records((0..300).map(wordy)).await;
    let (mut ids, mut pages) = (Vec::new(), 0);
    for page in pages_of(&proxy, "/api/exchanges?limit=1000&before=").await {
        ids.extend(page["exchanges"].as_array().unwrap().iter().map(|x| x["id"].as_str().unwrap().to_owned()));
        pages += 1;
    }
    assert_eq!(ids, (0..300).rev().map(|n| format!("r{n}")).collect::<Vec<_>>());
    assert!((4..10).contains(&pages), "{pages} pages");
    let wrong = proxy.admin("/api/exchanges?before=yesterday").send().await;
    assert_eq!(wrong.status, 400);
}
