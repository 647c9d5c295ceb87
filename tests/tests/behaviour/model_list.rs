//! The list of models: what providers say of their models, however they write it, is what clients are told.

use std::time::{Duration, Instant};

use pointsman_tests::{Gate, backend, bytes, json, proxy, silence, upstream};
use serde_json::{Value, json as value};

fn ids(list: &Value) -> Vec<String> {
    list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn every_shape_of_a_providers_list_is_read() {
    for body in [
        r#"{"object":"list","data":[{"id":"a"},{"id":null},{"id":"b/c"}]}"#,
        r#"[{"id":"a"},{"id":"b/c"}]"#,
        r#"{"models":[{"name":"a"},{"model":"b/c"}]}"#,
        "\u{feff}[\"a\",\"b/c\"]",
    ] {
        let up = upstream().reply(bytes("text/plain", body)).start().await;
        let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
        assert_eq!(ids(&proxy.get("/v1/models").send().await.json()), ["a", "b/c"], "{body}");
        let seen = up.only();
        assert_eq!((seen.target.as_str(), seen.header("authorization")), ("/v1/models", Some("Bearer key-of-p1")));
    }
}

#[tokio::test]
async fn owners_and_times_are_the_providers_where_it_tells_them() {
    let list = value!({"data": [{"id": "meta/a", "created": 1_700_000_000, "owned_by": "meta"}, {"id": "b"}]});
    let up = upstream().reply(json(list)).start().await;
    let one = backend("p1").primary(&up).model("short", "meta/a").model("*", "*");
    let proxy = proxy!().backend(one).start().await;
    let list = proxy.get("/v1/models").send().await.json();
    assert_eq!(ids(&list), ["b", "meta/a", "short"]);
    for index in [1, 2] {
        let entry = &list["data"][index];
        assert_eq!((&entry["created"], &entry["owned_by"]), (&value!(1_700_000_000), &value!("meta")), "{entry}");
    }
    assert_eq!((&list["data"][0]["created"], &list["data"][0]["owned_by"]), (&value!(0), &value!("p1")));
    let anthropic = proxy.get("/v1/models/short").header("anthropic-version", "2023-06-01").send().await.json();
    assert_eq!(anthropic["created_at"], "2023-11-14T22:13:20Z", "{anthropic}");
}

#[tokio::test]
async fn a_list_in_pages_is_read_to_its_end() {
    let up = upstream().handler(|seen, _| match seen.target.as_str() {
        "/v1/models" => json(value!({"data": [{"id": "a"}], "has_more": true, "last_id": "a/1"})),
        "/v1/models?limit=1000&after_id=a%2F1" => json(value!({"data": [{"id": "b"}], "has_more": false})),
        other => panic!("{other}"),
    });
    let up = up.start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up).set("dialect", "anthropic")).start().await;
    assert_eq!(ids(&proxy.get("/v1/models").send().await.json()), ["a", "b"]);
}

#[tokio::test]
async fn a_page_that_comes_again_ends_the_list() {
    let up = upstream().reply(json(value!({"data": [{"id": "a"}], "has_more": true, "last_id": "a"}))).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    assert_eq!(ids(&proxy.get("/v1/models").send().await.json()), ["a"]);
    assert_eq!(up.count(), 2);
}

#[tokio::test]
async fn a_name_that_a_backends_list_does_not_have_is_said_to_be_missing_there() {
    let up = upstream().reply(json(value!({"data": [{"id": "a/b c"}]}))).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let missing = proxy.get("/v1/models/nope").send().await;
    assert_eq!(missing.status, 404);
    let message = missing.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("p1 serves any model, and its own list of models does not have this one"), "{message}");
    for twice in ["a%252Fb%2520c", "a%2Fb%20c/"] {
        assert_eq!(proxy.get(&format!("/v1/models/{twice}")).send().await.json()["id"], "a/b c", "{twice}");
    }
}

#[tokio::test]
async fn a_name_is_found_in_every_percent_encoding() {
    let up = upstream().reply(json(value!({"data": [{"id": "meta/llama 3:8b"}]}))).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    for name in ["meta/llama%203:8b", "meta%2Fllama%203%3A8b", "meta%2fllama%203%3a8b", "%6Deta%2Fllama%203:8b"] {
        let found = proxy.get(&format!("/v1/models/{name}")).send().await;
        assert_eq!((found.status.as_u16(), &found.json()["id"]), (200, &value!("meta/llama 3:8b")), "{name}");
    }
    let missing = proxy.get("/v1/models/meta%252Fllama").send().await;
    assert_eq!(missing.status, 404);
    assert!(missing.text().contains("meta%2Fllama"), "{}", missing.text());
}

#[tokio::test]
async fn what_a_pattern_stands_for_is_retrieved_and_named_where_nothing_is_found() {
    let up = upstream().reply(json(value!({"data": [{"id": "gpt-4o"}]}))).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up).model("gpt-*", "gpt-*").model("o3", "o3")).start().await;
    for name in ["gpt-4o", "gpt-next", "gpt-*", "o3"] {
        let found = proxy.get(&format!("/v1/models/{name}")).send().await;
        assert_eq!((found.status.as_u16(), &found.json()["id"]), (200, &value!(name)));
    }
    let missing = proxy.get("/v1/models/llama").send().await;
    assert_eq!(missing.status, 404);
    let asked = proxy.chat_for("llama").send().await;
    for told in [missing.text(), asked.text()] {
        assert!(
            told.contains("No backend serves the model") && told.contains("gpt-*") && told.contains("o3"),
            "{told}"
        );
    }
}

#[tokio::test]
async fn names_are_listed_as_they_are_asked_for() {
    let up =
        upstream().reply(json(value!({"data": [{"id": "meta/llama-70b-instruct"}, {"id": "other"}]}))).start().await;
    let one = backend("p1").primary(&up).model("llama-*", "meta/llama-*-instruct");
    let proxy = proxy!().backend(one).start().await;
    assert_eq!(ids(&proxy.get("/v1/models").send().await.json()), ["llama-70b"]);
    proxy.chat_for("llama-70b").send().await;
    assert_eq!(up.seen()[1].json()["model"], "meta/llama-70b-instruct");
}

#[tokio::test]
async fn a_silent_provider_holds_the_list_up_once_and_not_the_others() {
    let mute = upstream().reply(silence()).start().await;
    let good = upstream().reply(json(value!({"data": [{"id": "a"}]}))).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&mute)).backend(backend("p2").primary(&good)).start().await;
    let first = Instant::now();
    assert_eq!(ids(&proxy.get("/v1/models").send().await.json()), ["a"]);
    let held_up = first.elapsed();
    let again = Instant::now();
    for _ in 0..20 {
        assert_eq!(ids(&proxy.get("/v1/models").send().await.json()), ["a"]);
    }
    // Each of twenty would wait as long as the first.
    assert!(again.elapsed() < held_up.max(Duration::from_secs(2)) * 10, "{:?} after {held_up:?}", again.elapsed());
    assert_eq!((mute.count(), good.count()), (1, 1));
}

#[tokio::test]
async fn clients_that_come_together_wait_for_one_request_to_the_provider() {
    let gate = Gate::new();
    let up = upstream().reply(json(value!({"data": [{"id": "a"}]})).gated_head(&gate)).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let ask = || async { ids(&proxy.get("/v1/models").send().await.json()) };
    let release = async {
        up.wait_seen(1).await;
        gate.open();
    };
    let (a, b, ()) = tokio::join!(ask(), ask(), release);
    assert_eq!((a, b), (vec!["a".to_owned()], vec!["a".to_owned()]));
    assert_eq!(up.count(), 1);
}
