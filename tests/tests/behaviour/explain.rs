//! `pointsman explain`: how an exchange went, read beside the server that recorded it.

use std::path::Path;

use pointsman_tests::{Finished, Proxy, backend, chat, proxy, rough_day, run, status, tokens, upstream};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_proxy-under-test");

/// Waits until the journal has `n` exchanges.
async fn kept(proxy: &Proxy, n: usize) {
    proxy.wait_rows(n, "SELECT ended_us FROM trail").await;
}

async fn explain(dir: &Path, args: &[&str]) -> Finished {
    run(BINARY, dir, &[&["explain"], args].concat(), &[]).await
}

async fn told(proxy: &Proxy, args: &[&str]) -> String {
    let ended = explain(proxy.dir(), args).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
    ended.stdout
}

/// Writes the exchange as a scenario and plays it with the default policy; the file.
async fn replayed(proxy: &Proxy, id: &str) -> String {
    let text = told(proxy, &[id, "--as-scenario"]).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("incident.toml"), &text).unwrap();
    let ended = run(BINARY, folder.path(), &["policy", "test", "default", "incident.toml", "--explain"], &[]).await;
    assert_eq!(ended.code, Some(0), "{}{}\n{text}", ended.stdout, ended.stderr);
    text
}

/// One 429 with a Retry-After, then an answer of the same backend; a fallback stands by.
async fn after_one_429() -> (Proxy, String) {
    let free = upstream().reply(status(429).retry_after(1)).then(chat("hello")).start().await;
    let paid = upstream().reply(chat("dear")).start().await;
    let proxy = proxy!()
        .backend(backend("free").primary(&free).price("m", 1.0, 2.0))
        .backend(backend("paid").fallback(&paid).price("m", 10.0, 20.0))
        .start()
        .await;
    let answer =
        proxy.chat().header("x-pointsman-label-team", "blue").header("x-pointsman-session", "s 1").send().await;
    assert_eq!(answer.status, 200);
    kept(&proxy, 1).await;
    let id = answer.header("x-request-id").to_owned();
    (proxy, id)
}

#[tokio::test]
async fn an_exchange_is_told_as_a_story_with_its_reasons() {
    let (proxy, id) = after_one_429().await;
    let story = told(&proxy, &[&id]).await;
    for words in [
        format!("{id}: m, ").as_str(),
        "session s 1, team = blue",
        "asked    free is ready\n                       paid is ready\n",
        "decided  primary free, in ",
        "others   paid is ready, but a fallback; the decision was for the primary lane",
        "sent     to free in the primary lane, as m",
        "outcome  free: rate_limited (429) after ",
        "Retry-After 1 s",
        "asked    free cools for ",
        "noted    wait for a primary",
        "decided  wait primary, at most 5 s",
        "paid is ready, but a fallback; the policy chose to wait for the primary lane",
        "then got a permit of free",
        "as m, a probe after its cooldown",
        "begun    the answer's first byte went downstream",
        "end      delivered by free in the primary lane after 1.",
        "(2 attempts, 1 wait of ",
        "cost     $0.000025 for 11 tokens in, 7 out",
    ] {
        assert!(story.contains(words), "{words:?} in\n{story}");
    }
    let bars: Vec<&str> =
        story.lines().filter(|line| line.contains(" primary  ") || line.contains("  wait  ")).collect();
    assert_eq!(bars.len(), 3, "a bar for each attempt and the wait: {story}");
    assert!(story.is_ascii(), "no locale promised more: {story}");
    assert_eq!(told(&proxy, &["last"]).await, story);
    assert_eq!(told(&proxy, &[]).await, story, "without an id it is the latest");
    assert_eq!(told(&proxy, &[&id, "--store", "pointsman.db"]).await, story);
}

#[tokio::test]
async fn machines_get_the_same_from_the_command_and_from_the_api() {
    let (proxy, id) = after_one_429().await;
    let report: Value = serde_json::from_str(&told(&proxy, &[&id, "--json"]).await).unwrap();
    assert_eq!(report["id"], json!(id));
    assert_eq!(report["decisions"], json!(["primary free", "wait primary", "primary free"]));
    assert_eq!(report["end"]["end"], "delivered");
    assert_eq!(report["request"]["labels"], json!({"team": "blue"}));
    assert_eq!(report["cost"]["output_tokens"], 7);
    let events = report["events"].as_array().unwrap();
    let first =
        |what: &str| events.iter().find(|event| event["what"] == what).unwrap_or_else(|| panic!("{what}: {report}"));
    assert_eq!(first("asked")["backends"][0]["state"], "ready");
    assert_eq!(first("asked")["backends"][0]["requests_left"], Value::Null, "no limit is no number");
    assert_eq!(first("passed_over")["backends"][0]["why"], "other_lane");
    assert_eq!(first("outcome")["retry_after_ms"], 1_000.0);
    assert_eq!(first("waited")["backend"], "free");
    assert!(events.iter().all(|event| event["at_ms"].is_number() && event["text"].is_string()));

    let recorded = proxy.admin(&format!("/api/exchanges/{id}")).send().await.json();
    assert_eq!(recorded["story"], report);
    assert_eq!((&recorded["id"], &recorded["attempts"][1]["outcome"]), (&json!(id), &json!("answered")));
}

#[tokio::test]
async fn what_cannot_be_told_is_said_in_a_sentence_with_what_to_do() {
    let well = upstream().reply(chat("hello")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&well)).set("journal.sample", 0.0).start().await;
    let answer = proxy.chat().send().await;
    proxy.wait_rows(1, "SELECT id FROM exchanges").await;
    let id = answer.header("x-request-id");
    let refused = async |args: &[&str]| {
        let ended = explain(proxy.dir(), args).await;
        assert_eq!(
            (ended.code, ended.stdout.as_str(), ended.stderr.lines().count()),
            (Some(1), "", 1),
            "{}",
            ended.stderr
        );
        ended.stderr
    };
    let sampled_out = refused(&[id]).await;
    assert!(sampled_out.contains("is recorded (delivered with status 200") && sampled_out.contains("set sample = 1.0"));
    assert!(refused(&["nobody"]).await.contains("no exchange nobody is in pointsman.db"));
    assert!(refused(&["last"]).await.contains("is empty"));
    assert!(refused(&["last", "--store", "other.db"]).await.contains("there is no store other.db"));
    let none = proxy.admin(&format!("/api/exchanges/{id}")).send().await.json();
    assert_eq!((&none["id"], &none["story"]), (&json!(id), &Value::Null));

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("memory.toml"), "[store]\npath = \":memory:\"\n").unwrap();
    let ended = explain(folder.path(), &["last", "--config", "memory.toml"]).await;
    assert!(ended.code == Some(1) && ended.stderr.contains("only its own process can read"), "{}", ended.stderr);
    let ended = explain(folder.path(), &["last", "--json", "--as-scenario"]).await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
}

#[tokio::test]
async fn no_key_is_needed_to_read_a_store() {
    let (proxy, id) = after_one_429().await;
    let config = std::fs::read_to_string(proxy.dir().join("pointsman.toml")).unwrap();
    let config = config.replace("\"key-of-free\"", "\"env:NOT_SET_HERE\"");
    std::fs::write(proxy.dir().join("other.toml"), config).unwrap();
    let ended = explain(proxy.dir(), &[&id, "--config", "other.toml"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[tokio::test]
async fn a_429_and_a_wait_become_a_scenario() {
    let (proxy, id) = after_one_429().await;
    let text = replayed(&proxy, &id).await;
    assert!(text.contains("decisions = [\"primary free\", \"wait primary\", \"primary free\"]"), "{text}");
    assert!(text.contains("end = \"delivered by free\"") && !text.contains("key-of"), "{text}");
    assert!(text.contains("It was not tried"), "{text}");
}

#[tokio::test]
async fn a_wait_for_what_cooled_on_arrival_becomes_a_scenario() {
    let free = upstream().reply(status(429).retry_after(1)).then(chat("hello")).start().await;
    let proxy = proxy!().backend(backend("free").primary(&free)).start().await;
    let first = proxy.chat();
    let first = tokio::spawn(first.send());
    proxy.wait_backends("\"models_cooling\":1").await;
    let second = proxy.chat().send().await;
    assert_eq!((first.await.unwrap().status.as_u16(), second.status.as_u16()), (200, 200));
    kept(&proxy, 2).await;
    let text = replayed(&proxy, second.header("x-request-id")).await;
    assert!(text.contains("before = { cooling = ") && text.contains("reason = \"rate_limited\""), "{text}");
    assert!(text.contains("decisions = [\"wait primary\", \"primary free\"]"), "{text}");
}

#[tokio::test]
async fn a_fallback_and_an_emergency_become_scenarios() {
    let free = upstream().reply(status(429).retry_after(60)).start().await;
    let paid = upstream().reply(chat("dear")).then(status(500)).then(chat("again")).start().await;
    let proxy = proxy!().backend(backend("free").primary(&free)).backend(backend("paid").fallback(&paid)).start().await;
    let fallback = proxy.chat().send().await;
    assert_eq!((fallback.status.as_u16(), fallback.header("x-pointsman-lane")), (200, "fallback"));
    let emergency = proxy.chat().send().await;
    assert_eq!((emergency.status.as_u16(), emergency.header("x-pointsman-lane")), (200, "emergency"));
    kept(&proxy, 2).await;
    let text = replayed(&proxy, fallback.header("x-request-id")).await;
    assert!(text.contains("\"fallback paid\"") && text.contains("end = \"delivered by paid\""), "{text}");
    let text = replayed(&proxy, emergency.header("x-request-id")).await;
    assert!(text.contains("\"emergency ") && text.contains("answer = 500"), "{text}");
}

#[tokio::test]
async fn a_rejection_and_a_refusal_become_scenarios() {
    let free = upstream().reply(status(401)).start().await;
    let paid = upstream().reply(status(400)).then(status(401)).start().await;
    let proxy = proxy!().backend(backend("free").primary(&free)).backend(backend("paid").fallback(&paid)).start().await;
    let refused = proxy.chat().send().await;
    assert_eq!(refused.status, 400);
    let keys = proxy.chat().send().await;
    assert_eq!(keys.status, 401, "all refuse their keys");
    let rejected = proxy.chat().send().await;
    assert_eq!(rejected.status, 401, "{}", rejected.text());
    kept(&proxy, 3).await;
    let text = replayed(&proxy, keys.header("x-request-id")).await;
    assert!(text.contains("end = \"refused 401 by paid\""), "{text}");
    let text = replayed(&proxy, refused.header("x-request-id")).await;
    assert!(text.contains("end = \"refused 400 by paid\"") && text.contains("the provider says 400"), "{text}");
    let text = replayed(&proxy, rejected.header("x-request-id")).await;
    assert!(text.contains("end = \"rejected 401\"") && text.contains("reason = \"unauthorised\""), "{text}");
}

#[tokio::test]
async fn a_cut_stream_that_was_resumed_becomes_a_scenario() {
    let cut = upstream().reply(tokens(60).end_after(40)).start().await;
    let well = upstream().reply(tokens(60)).start().await;
    let proxy = proxy!()
        .backend(backend("p1").primary(&cut))
        .backend(backend("f1").fallback(&well))
        .setting("primary_wait_ms", 0)
        .start()
        .await;
    let mut stream = proxy.chat_stream().stream().await;
    assert!(!stream.rest().await.is_empty());
    kept(&proxy, 1).await;
    let id = stream.header("x-request-id").to_owned();
    let story = told(&proxy, &[&id]).await;
    assert!(story.contains("outcome  p1: cut") && story.contains("to continue the answer that broke off"), "{story}");
    let text = replayed(&proxy, &id).await;
    assert!(text.contains("answer = \"cut\"") && text.contains("end = \"delivered by f1\""), "{text}");
}

/// Exchanges of each kind that are written down.
const OF_A_KIND: usize = 30;

#[tokio::test]
async fn exchanges_of_a_rough_day_are_written_down_exactly() {
    let day = rough_day(proxy!(), 300).await;
    let of_kind = |which: &str| {
        let sql = format!("SELECT id FROM exchanges JOIN trail USING (ended_us) WHERE {which} LIMIT {OF_A_KIND}");
        let ids = day.proxy.rows(&sql).into_iter().map(|row| row["id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<String>>()
    };
    let kinds = ["waits = 0", "waits > 0", "attempts > 1"];
    let folder = tempfile::tempdir().unwrap();
    let kinds = kinds.map(|which| (of_kind(which), which));
    for id in kinds.iter().flat_map(|(ids, _)| ids) {
        std::fs::write(folder.path().join(format!("{id}.toml")), told(&day.proxy, &[id, "--as-scenario"]).await)
            .unwrap();
    }
    let ended = run(BINARY, folder.path(), &["policy", "test", "default", ".", "--json"], &[]).await;
    let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{}", ended.stderr));
    let scenarios = report["scenarios"].as_array().unwrap();
    let failed =
        |id: &str| scenarios.iter().find(|s| s["file"].as_str().unwrap().contains(id)).filter(|s| s["passed"] == false);
    for (ids, which) in kinds {
        let failures: Vec<_> = ids.iter().filter_map(|id| failed(id)).map(|s| (&s["title"], &s["failures"])).collect();
        assert!(ids.len() >= 3, "only {} exchanges with {which}", ids.len());
        assert!(failures.len() * 20 <= ids.len(), "{which}: {} of {}: {failures:#?}", failures.len(), ids.len());
    }
}

const CARD: &str = "4111 1111 1111 1111";

/// Every byte of the store, its write-ahead log among them.
fn store_bytes(proxy: &Proxy) -> Vec<u8> {
    let files = std::fs::read_dir(proxy.dir()).unwrap().flatten().map(|entry| entry.path());
    let of_store = files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("pointsman.db"));
    of_store.flat_map(|path| std::fs::read(path).unwrap()).collect()
}

fn holds(bytes: &[u8], words: &str) -> bool {
    bytes.windows(words.len()).any(|window| window == words.as_bytes())
}

#[tokio::test]
async fn prompts_and_answers_are_kept_only_when_asked_redacted_and_removed_on_demand() {
    let provider = || {
        upstream().handler(|seen, _| match seen.json()["stream"].as_bool() {
            Some(true) => tokens(5),
            _ => chat("the number 4111 1111 1111 1111 is key-of-p1"),
        })
    };
    let quiet = provider().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&quiet)).start().await;
    let ask = |proxy: &Proxy| {
        let body =
            json!({"model": "m", "messages": [{"role": "user", "content": format!("my card {CARD} and a whisper")}]});
        proxy.post("/v1/chat/completions").json(&body)
    };
    let id = ask(&proxy).send().await.header("x-request-id").to_owned();
    kept(&proxy, 1).await;
    assert!(!holds(&store_bytes(&proxy), "whisper"), "nobody asked for it");
    assert!(told(&proxy, &[&id, "--bodies"]).await.contains("bodies = true keeps those to come"));
    let nothing = run(BINARY, proxy.dir(), &["journal", "redact", &id], &[]).await;
    assert!(nothing.code == Some(1) && nothing.stderr.contains("nothing to remove"), "{}", nothing.stderr);

    let well = provider().start().await;
    let proxy = proxy!()
        .backend(backend("p1").primary(&well))
        .set("journal.bodies", true)
        .set("journal.redact", toml::Value::Array(vec![r"\b(?:\d[ -]?){13,16}\b".into()]))
        .start()
        .await;
    let id = ask(&proxy).send().await.header("x-request-id").to_owned();
    let mut stream = proxy.chat_stream().stream().await;
    stream.rest().await;
    kept(&proxy, 2).await;
    let story = told(&proxy, &[&id, "--bodies"]).await;
    assert!(story.contains("my card [redacted]") && story.contains("and a whisper"), "{story}");
    assert!(story.contains("the number [redacted]is ***") || story.contains("is ***"), "{story}");
    assert!(told(&proxy, &[stream.header("x-request-id"), "--bodies"]).await.contains("t0 t1 t2 t3 t4"));
    let report: Value = serde_json::from_str(&told(&proxy, &[&id, "--bodies", "--json"]).await).unwrap();
    assert!(report["bodies"]["answer"]["text"].as_str().unwrap().contains("[redacted]"), "{report}");
    for never in
        [told(&proxy, &[&id]).await, told(&proxy, &[&id, "--json"]).await, told(&proxy, &[&id, "--as-scenario"]).await]
    {
        assert!(!never.contains("whisper"), "{never}");
    }
    let bytes = store_bytes(&proxy);
    assert!(holds(&bytes, "whisper") && !holds(&bytes, "1111 1111") && !holds(&bytes, "key-of-p1"));

    let done = run(BINARY, proxy.dir(), &["journal", "redact", &id], &[]).await;
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{}", done.stdout);
    assert!(!holds(&store_bytes(&proxy), "whisper"), "nothing of it is left in the file");
    assert!(told(&proxy, &[&id, "--bodies"]).await.contains("were not kept"));
    assert!(told(&proxy, &[&id]).await.contains("delivered by p1"), "how it went stays");
}

#[tokio::test]
async fn what_was_mended_in_a_stream_is_told() {
    let odd = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"one\ntwo\"}}]}\n\n";
    let up = upstream().reply(tokens(2).with_bytes_after(1, odd)).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let answer = proxy.chat_stream().send().await;
    kept(&proxy, 1).await;
    let story = told(&proxy, &[answer.header("x-request-id")]).await;
    assert!(story.contains("1 event of the stream mended"), "{story}");
}
