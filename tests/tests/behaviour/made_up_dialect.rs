//! A dialect is a folder and a line: one that is not built in, with the model in the path, serves clients of chat completions.

use pointsman_tests::made_up_dialect::VARIABLE;
use pointsman_tests::{Backend, Proxy, Upstream, backend, bytes, chat, json, proxy, run, upstream};
use serde_json::json as value;

fn made_up(id: &str, up: &Upstream) -> Backend {
    backend(id).primary(up).set("dialect", "made-up").model("m", "parrot-1").price("parrot-1", 1.0, 10.0)
}

async fn in_front_of(backends: impl IntoIterator<Item = Backend>) -> Proxy {
    let proxy = backends.into_iter().fold(proxy!().env(VARIABLE, "1"), |proxy, backend| proxy.backend(backend));
    proxy.start().await
}

#[tokio::test]
async fn a_chat_is_answered_in_a_dialect_whose_model_stands_in_the_path() {
    let answer = value!({"name": "a1", "said": "well", "tokens": {"heard": 3, "said": 2}});
    let up = upstream().reply(json(answer)).start().await;
    let proxy = in_front_of([made_up("p1", &up)]).await;
    let body = value!({"model": "m", "max_tokens": 9, "messages": [
        {"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yes?"}, {"role": "user", "content": "how are you?"},
    ]});
    let answer = proxy.post("/v1/chat/completions").json(&body).send().await;
    assert_eq!((answer.status.as_u16(), answer.says().as_str()), (200, "well"), "{}", answer.text());
    let body = answer.json();
    assert_eq!((&body["object"], &body["model"]), (&value!("chat.completion"), &value!("parrot-1")));
    assert_eq!((&body["usage"]["prompt_tokens"], &body["usage"]["completion_tokens"]), (&value!(3), &value!(2)));

    let seen = up.only();
    assert_eq!(seen.target, "/v1/models/parrot-1:generate");
    assert_eq!((seen.header("x-made-up-key"), seen.header("authorization")), (Some("key=key-of-p1"), None));
    let talk = value!([
        {"by": "us", "said": "be brief"}, {"by": "them", "said": "hi"},
        {"by": "it", "said": "yes?"}, {"by": "them", "said": "how are you?"},
    ]);
    assert_eq!(seen.json(), value!({"talk": talk, "at_most": 9}));
    let rows = proxy.wait_rows(1, "SELECT input_tokens, output_tokens FROM exchanges").await;
    assert_eq!((&rows[0]["input_tokens"], &rows[0]["output_tokens"]), (&3.into(), &2.into()));
}

#[tokio::test]
async fn a_chat_stream_comes_from_a_stream_of_that_dialect() {
    let events = "data: {\"name\":\"a1\",\"said\":\"we\"}\n\ndata: {\"said\":\"ll\"}\n\n\
                  event: end\ndata: {\"heard\":3,\"said\":2}\n\n";
    let up = upstream().reply(bytes("text/event-stream", events)).start().await;
    let proxy = in_front_of([made_up("p1", &up)]).await;
    let body = value!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    let mut stream = proxy.post("/v1/chat/completions").json(&body).stream().await;
    let events = stream.rest().await;
    assert!(stream.ended_in_order());
    assert_eq!(events.iter().map(|e| e.content()).collect::<String>(), "well");
    assert_eq!(events.last().unwrap().data(), "[DONE]");
    assert_eq!(up.only().target, "/v1/models/parrot-1:generateStream");
    let rows = proxy.wait_rows(1, "SELECT input_tokens, output_tokens FROM exchanges").await;
    assert_eq!((&rows[0]["input_tokens"], &rows[0]["output_tokens"]), (&3.into(), &2.into()));
}

#[tokio::test]
async fn its_errors_are_told_apart_and_what_it_cannot_take_is_refused_by_name() {
    let hoarse = value!({"problem": {"what": "hoarse", "why": "no voice left"}});
    let (up, well) = (upstream().reply(json(hoarse)).start().await, upstream().reply(chat("well")).start().await);
    let second = backend("f1").fallback(&well).model("m", "gpt-x");
    let proxy = in_front_of([made_up("p1", &up), second]).await;
    let answer = proxy.chat().send().await;
    assert_eq!((answer.says().as_str(), answer.header("x-pointsman-backend")), ("well", "f1"));
    let rows = proxy.wait_rows(2, "SELECT outcome FROM attempts ORDER BY number").await;
    assert_eq!(rows[0]["outcome"], "overloaded");

    let alone = in_front_of([made_up("p1", &up)]).await;
    let picture = value!([{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]);
    let body = value!({"model": "m", "messages": [{"role": "user", "content": picture}]});
    let refused = alone.post("/v1/chat/completions").json(&body).send().await;
    assert_eq!(refused.status, 400);
    assert!(
        refused.text().contains("is no drawing of ours, and the made-up API takes no other picture"),
        "{}",
        refused.text()
    );
}

#[tokio::test]
async fn without_the_line_it_is_unknown() {
    let dir = tempfile::TempDir::new().unwrap();
    let text = "[[backend]]\nid = \"p1\"\nbase_url = \"http://127.0.0.1:1\"\ndialect = \"made-up\"\n";
    std::fs::write(dir.path().join("pointsman.toml"), text).unwrap();
    let check = ["config", "check", "pointsman.toml"];
    let refused = run(env!("CARGO_BIN_EXE_proxy-under-test"), dir.path(), &check, &[]).await;
    let known = "\"openai\" or \"anthropic\" or \"plain\"";
    assert!(refused.code != Some(0) && refused.stderr.contains(known), "{}", refused.stderr);
    let taken = run(env!("CARGO_BIN_EXE_proxy-under-test"), dir.path(), &check, &[(VARIABLE, "1")]).await;
    assert_eq!(taken.code, Some(0), "{}", taken.stderr);
}
