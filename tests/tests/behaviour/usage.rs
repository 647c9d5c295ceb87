//! Tokens and money: from bodies, from streams, and never for what failed.

use pointsman_tests::{backend, chat, embeddings, proxy, status, tokens, upstream};
use serde_json::json;

const EXCHANGES: &str = "SELECT * FROM exchanges ORDER BY ended_us";

#[tokio::test]
async fn a_chat_is_booked_with_its_tokens_and_cost() {
    let up = upstream().reply(chat("hi")).start().await;
    let target = backend("p1").primary(&up).model("m", "meta/m").price("meta/m", 1.0, 10.0);
    let proxy = proxy!().backend(target).start().await;
    let answer = proxy.chat().header("x-pointsman-session", "s-1").send().await;
    let rows = proxy.wait_rows(1, EXCHANGES).await;
    let row = &rows[0];
    assert_eq!(row["id"], answer.header("x-request-id"));
    assert_eq!((&row["model"], &row["operation"], &row["session"]), (&json!("m"), &json!("chat"), &json!("s-1")));
    assert_eq!((&row["status"], &row["end"], &row["lane"]), (&json!(200), &json!("delivered"), &json!("primary")));
    assert_eq!((&row["input_tokens"], &row["output_tokens"], &row["estimated"]), (&json!(11), &json!(7), &json!(0)));
    let cost = row["cost_usd"].as_f64().unwrap();
    assert!((cost - (11.0 + 70.0) / 1e6).abs() < 1e-12, "{cost}");
    let attempts = proxy.rows("SELECT * FROM attempts");
    assert_eq!(attempts[0]["model_sent"], "meta/m");
}

#[tokio::test]
async fn embeddings_are_booked() {
    let up = upstream().reply(embeddings()).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up).price("*", 2.0, 0.0)).start().await;
    proxy.post("/v1/embeddings").json(&json!({"model": "e", "input": "a"})).send().await;
    let rows = proxy.wait_rows(1, EXCHANGES).await;
    assert_eq!((&rows[0]["operation"], &rows[0]["input_tokens"]), (&json!("embedding"), &json!(5)));
    assert!((rows[0]["cost_usd"].as_f64().unwrap() - 10.0 / 1e6).abs() < 1e-12);
}

#[tokio::test]
async fn a_streams_usage_is_asked_for_and_hidden_from_a_client_that_did_not_ask() {
    let up = upstream().reply(tokens(4)).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let events = proxy.chat_stream().stream().await.rest().await;
    assert_eq!(up.only().json()["stream_options"]["include_usage"], true);
    assert_eq!(events.len(), 4 + 1 + 1, "content, finish and [DONE], no usage: {events:?}");
    assert!(events.iter().all(|e| e.json().get("usage").is_none_or(serde_json::Value::is_null)), "{events:?}");
    let rows = proxy.wait_rows(1, EXCHANGES).await;
    assert_eq!(
        (&rows[0]["input_tokens"], &rows[0]["output_tokens"], &rows[0]["estimated"]),
        (&json!(11), &json!(4), &json!(0))
    );
    assert_eq!(rows[0]["streaming"], 1);
}

#[tokio::test]
async fn a_client_that_asked_for_usage_gets_it_and_its_body_stays_as_it_was() {
    let up = upstream().reply(tokens(4)).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let body = "{\"model\":\"m\", \"stream\":true,\"stream_options\" : {\"include_usage\":true}, \"messages\":[]}";
    let request = proxy.post("/v1/chat/completions").body("application/json", body);
    let events = request.stream().await.rest().await;
    assert_eq!(up.only().body, body);
    let usage = events.iter().rev().nth(1).unwrap().json();
    assert_eq!((&usage["usage"]["completion_tokens"], &usage["choices"]), (&json!(4), &json!([])));
    proxy.wait_rows(1, EXCHANGES).await;
}

#[tokio::test]
async fn stream_options_are_spliced_and_every_other_byte_stays() {
    let up = upstream().reply(tokens(1)).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let body = "{ \"stream\" : true, \"model\":\"m\",\"t\":1.0e0,\"messages\":[ {\"content\":\"\\u00e9\"} ]}\n";
    proxy.post("/v1/chat/completions").body("application/json", body).stream().await.rest().await;
    let sent = String::from_utf8(up.only().body.to_vec()).unwrap();
    assert_eq!(up.only().json()["stream_options"]["include_usage"], true);
    let start = sent.find("\"stream_options\"").unwrap();
    let end = sent[start..].find('}').unwrap() + start + 1;
    let without = format!("{}{}", &sent[..start], &sent[end..]);
    let squeeze = |s: &str| s.replace([',', ' ', '\n'], "");
    assert_eq!(squeeze(&without), squeeze(body), "sent {sent}");
}

#[tokio::test]
async fn failed_attempts_are_recorded_and_cost_nothing() {
    let up = upstream().reply(status(429).header("retry-after-ms", 100)).then(chat("hi")).start().await;
    let target = backend("p1").primary(&up).price("m", 1.0, 1.0);
    let proxy = proxy!().backend(target).start().await;
    proxy.chat().send().await;
    let attempts = proxy.wait_rows(2, "SELECT * FROM attempts ORDER BY number").await;
    assert_eq!((&attempts[0]["outcome"], &attempts[0]["status"]), (&json!("rate_limited"), &json!(429)));
    assert_eq!((&attempts[0]["cost_usd"], &attempts[0]["input_tokens"]), (&json!(0.0), &json!(0)));
    assert_eq!(attempts[0]["retry_after_ms"], 100);
    assert!(attempts[1]["cost_usd"].as_f64().unwrap() > 0.0);
    let rows = proxy.rows(EXCHANGES);
    assert_eq!((rows.len(), &rows[0]["attempts"], &rows[0]["waits"]), (1, &json!(2), &json!(1)));
}

#[tokio::test]
async fn the_store_is_an_ordinary_sqlite_file_in_wal_mode() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    proxy.chat().send().await;
    proxy.wait_rows(1, EXCHANGES).await;
    assert_eq!(proxy.rows("PRAGMA journal_mode")[0]["journal_mode"], "wal");
    assert!(proxy.rows(EXCHANGES)[0]["started"].as_str().unwrap().ends_with('Z'));
}
