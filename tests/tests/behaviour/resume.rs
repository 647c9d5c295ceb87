//! Streams that break after they were begun: the client gets the whole answer, once and coherent, or an error in-band.

use std::time::Duration;

use pointsman_tests::{
    Backend, Event, EventStream, Gate, Proxy, ProxyBuilder, Reply, Request, Seen, Upstream, backend, bytes, chat,
    json as reply_json, proxy, silence, sse, status, tokens, upstream,
};
use serde_json::{Value, json};

const ATTEMPTS: &str = "SELECT * FROM attempts ORDER BY number";
const EXCHANGES: &str = "SELECT * FROM exchanges";

fn words(range: std::ops::Range<usize>) -> String {
    range.map(|i| format!("t{i} ")).collect()
}

fn text(events: &[Event]) -> String {
    events.iter().map(Event::content).collect()
}

/// Primary `p1`, fallback `f1`, and no waiting for the primary.
fn two(primary: &Upstream, fallback: &Upstream) -> ProxyBuilder {
    pair(backend("p1").primary(primary), backend("f1").fallback(fallback))
}

fn pair(primary: Backend, fallback: Backend) -> ProxyBuilder {
    proxy!().backend(primary.timeout("idle_ms", 300)).backend(fallback).setting("primary_wait_ms", 0)
}

/// One whole chat answer, told once: its text, one finish, one end.
fn assert_whole(stream: &EventStream, events: &[Event], expected: &str) {
    assert_eq!(text(events), expected);
    let finishes = events.iter().filter(|e| e.json()["choices"][0]["finish_reason"].is_string()).count();
    let ends = events.iter().filter(|e| e.data() == "[DONE]").count();
    assert_eq!((finishes, ends), (1, 1), "{events:?}");
    assert_eq!(events.last().unwrap().data(), "[DONE]");
    assert!(events.iter().all(|e| e.json().get("error").is_none()), "{events:?}");
    assert!(stream.ended_in_order());
}

/// An error in-band after this text and nothing else, and a body that ends in order behind it.
fn assert_broken(stream: &EventStream, events: &[Event], expected: &str) {
    assert_eq!(text(events), expected);
    let error = events.last().unwrap().json()["error"].clone();
    assert!(error["message"].as_str().is_some_and(|m| m.contains("broke off")), "{events:?}");
    assert!(events.iter().all(|e| e.data() != "[DONE]"), "{events:?}");
    assert!(stream.ended_in_order());
}

async fn outcomes(proxy: &Proxy, n: usize) -> Vec<(String, String)> {
    let word = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let rows = proxy.wait_rows(n, ATTEMPTS).await;
    rows.iter().map(|r| (word(&r["backend"]), word(&r["outcome"]))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[tokio::test]
async fn a_stream_cut_after_40_of_60_tokens_is_whole() {
    let (cut, well) =
        (upstream().reply(tokens(60).end_after(40)).start().await, upstream().reply(tokens(60)).start().await);
    let target = backend("f1").fallback(&well).price("m", 1.0, 10.0);
    let proxy = pair(backend("p1").primary(&cut).price("m", 1.0, 10.0), target).start().await;
    let mut stream = proxy.chat_stream().stream().await;
    assert_eq!(stream.header("x-pointsman-backend"), "p1", "the head was out when it broke");
    let events = stream.rest().await;
    assert_whole(&stream, &events, &words(0..60));
    assert!(events.iter().any(|e| e.text == ": pointsman resumed by f1"), "{events:?}");
    assert_eq!((cut.count(), well.count()), (1, 1));
    assert_eq!(cut.only().json(), well.only().json(), "the same question");
    let rows = proxy.wait_rows(1, EXCHANGES).await;
    assert_eq!(
        (&rows[0]["end"], &rows[0]["backend"], &rows[0]["lane"]),
        (&json!("delivered"), &json!("f1"), &json!("fallback"))
    );
    assert_eq!((&rows[0]["status"], &rows[0]["error"]), (&json!(200), &Value::Null));
    let attempts = proxy.rows(ATTEMPTS);
    assert_eq!((&attempts[0]["outcome"], &attempts[1]["outcome"]), (&json!("cut"), &json!("answered")));
    assert_eq!((&attempts[0]["estimated"], &attempts[1]["estimated"]), (&json!(1), &json!(0)), "both are recorded");
    assert!(attempts[0]["output_tokens"].as_u64().unwrap() >= 40);
    assert_eq!((&attempts[1]["input_tokens"], &attempts[1]["output_tokens"]), (&json!(11), &json!(60)));
}

#[tokio::test]
async fn a_stream_that_falls_silent_is_whole_by_another_backend_of_its_tier() {
    let up = upstream().reply(tokens(60).stall_after(40)).start().await;
    let other = upstream().reply(tokens(60)).start().await;
    let target = backend("p1").primary(&up).timeout("idle_ms", 200).set("weight", 1_000_000);
    let proxy = proxy!().backend(target).backend(backend("p2").primary(&other)).start().await;
    let mut stream = proxy.chat_stream().stream().await;
    let events = stream.rest().await;
    assert_whole(&stream, &events, &words(0..60));
    assert_eq!(outcomes(&proxy, 2).await, pairs(&[("p1", "stalled"), ("p2", "answered")]));
    up.wait_hung_up(1).await;
}

#[tokio::test]
async fn a_reset_a_polite_end_and_an_error_inside_are_resumed_too() {
    let boom = "data: {\"error\":{\"message\":\"boom\",\"type\":\"server_error\"}}\n\n";
    // A reset may take with it what was sent before; how much was delivered does not matter.
    for broken in [
        tokens(9).cut_after(3).pace(Duration::from_millis(20)),
        tokens(9).only_content(3),
        tokens(9).then_bytes(3, boom),
    ] {
        let (cut, well) = (upstream().reply(broken).start().await, upstream().reply(tokens(9)).start().await);
        let proxy = two(&cut, &well).start().await;
        let mut stream = proxy.chat_stream().stream().await;
        let events = stream.rest().await;
        assert_whole(&stream, &events, &words(0..9));
    }
}

#[tokio::test]
async fn an_answer_in_other_pieces_goes_on_under_the_first_ones_id() {
    let chunk = |text: &str| json!({"id": "other", "model": "other-model", "choices": [{"index": 0, "delta": {"content": text}}]});
    let role = json!({"id": "other", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]});
    let stop = json!({"id": "other", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    let list = [role, chunk("t0 t"), chunk("1 t2"), chunk(" t3 "), chunk("t4 "), stop].map(|v| v.to_string());
    let other = sse(list.into_iter().chain(["[DONE]".to_owned()]));
    let (cut, well) = (upstream().reply(tokens(5).end_after(3)).start().await, upstream().reply(other).start().await);
    let proxy = two(&cut, &well).start().await;
    let mut stream = proxy.chat_stream().stream().await;
    let events = stream.rest().await;
    assert_whole(&stream, &events, &words(0..5));
    let chunks: Vec<Value> = events.iter().map(Event::json).filter(Value::is_object).collect();
    assert!(chunks.iter().all(|c| c["id"] == "chatcmpl-1"), "{chunks:?}");
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "stop");
    assert_eq!(chunks[3]["model"], "other-model", "who answers is named");
    assert!(chunks.iter().all(|c| c["choices"][0]["delta"].get("role").is_none()), "{chunks:?}");
}

#[tokio::test]
async fn usage_is_told_once_and_is_the_whole_answers() {
    let (cut, well) =
        (upstream().reply(tokens(6).end_after(4)).start().await, upstream().reply(tokens(6)).start().await);
    let proxy = two(&cut, &well).start().await;
    let body = json!({"model": "m", "stream": true, "stream_options": {"include_usage": true}, "messages": []});
    let mut stream = proxy.post("/v1/chat/completions").json(&body).stream().await;
    let events = stream.rest().await;
    assert_whole(&stream, &events, &words(0..6));
    let usages: Vec<Value> = events.iter().map(|e| e.json()["usage"].clone()).filter(Value::is_object).collect();
    assert_eq!(usages, [json!({"prompt_tokens": 11, "completion_tokens": 6, "total_tokens": 17})]);
}

#[tokio::test]
async fn another_answer_is_never_mixed_in() {
    let other =
        sse(["t0 ", "t1 ", "else ", "t3 "]
            .map(|t| json!({"choices": [{"index": 0, "delta": {"content": t}}]}).to_string()));
    let (cut, wrong) = (upstream().reply(tokens(9).end_after(4)).start().await, upstream().reply(other).start().await);
    let proxy = two(&cut, &wrong).set("limits.max_attempts", 2).start().await;
    let mut stream = proxy.chat_stream().stream().await;
    let events = stream.rest().await;
    assert_broken(&stream, &events, &words(0..4));
    assert_eq!(outcomes(&proxy, 2).await, pairs(&[("p1", "cut"), ("f1", "not_resumed")]));
    assert_eq!(proxy.wait_rows(1, EXCHANGES).await[0]["end"], "broken");
}

#[tokio::test]
async fn after_another_answer_a_further_one_may_fit() {
    let other = sse(["else "].map(|t| json!({"choices": [{"index": 0, "delta": {"content": t}}]}).to_string()));
    let cut = upstream().reply(tokens(9).end_after(4)).start().await;
    let well = upstream().reply(other).then(tokens(9)).start().await;
    let further = upstream().reply(tokens(9).end_after(7)).start().await;
    let cheap = backend("f1").fallback(&well).price("*", 0.1, 0.1);
    let dear = backend("f2").fallback(&further).price("*", 1.0, 1.0);
    let proxy = pair(backend("p1").primary(&cut), cheap).backend(dear).start().await;
    let mut stream = proxy.chat_stream().stream().await;
    let events = stream.rest().await;
    assert_whole(&stream, &events, &words(0..9));
    let outcomes = outcomes(&proxy, 4).await;
    // Which of the fallbacks is asked first is drawn.
    for expected in pairs(&[("p1", "cut"), ("f1", "not_resumed"), ("f2", "cut"), ("f1", "answered")]) {
        assert!(outcomes.contains(&expected), "{expected:?} is not in {outcomes:?}");
    }
}

#[tokio::test]
async fn a_shorter_answer_is_no_continuation() {
    let (cut, short) =
        (upstream().reply(tokens(9).end_after(4)).start().await, upstream().reply(tokens(2)).start().await);
    let proxy = two(&cut, &short).set("limits.max_attempts", 2).start().await;
    let mut stream = proxy.chat_stream().stream().await;
    let events = stream.rest().await;
    assert_broken(&stream, &events, &words(0..4));
}

/// Returns the text given as an assistant prefill in this chat or messages request; `None` when it ends with the
/// user's.
fn put_into_its_mouth(seen: &Seen) -> Option<String> {
    let last = seen.json()["messages"].as_array().and_then(|m| m.last().cloned()).unwrap_or_default();
    (last["role"] == "assistant").then(|| last["content"].as_str().unwrap_or_default().to_owned())
}

/// Continues what it is given; the rest of `n` tokens.
fn continues(n: usize) -> impl Fn(&Seen, usize) -> Reply + Send + Sync {
    move |seen, _| {
        let told = put_into_its_mouth(seen).map_or(0, |text| text.split(' ').count());
        let chunk =
            |text: String| json!({"id": "next", "choices": [{"index": 0, "delta": {"content": text}}]}).to_string();
        let stop = json!({"id": "next", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}).to_string();
        sse((told..n).map(|i| chunk(format!("t{i} "))).chain([stop, "[DONE]".to_owned()]))
    }
}

#[tokio::test]
async fn a_backend_that_can_continues_what_was_delivered() {
    for broken in [tokens(60).end_after(40), tokens(60).stall_after(40)] {
        let (cut, able) = (upstream().reply(broken).start().await, upstream().handler(continues(60)).start().await);
        let target = backend("f1").fallback(&able).set("capabilities.prefill", true);
        let proxy = pair(backend("p1").primary(&cut), target).set("stream.resume", "prefill").start().await;
        let mut stream = proxy.chat_stream().stream().await;
        let events = stream.rest().await;
        assert_whole(&stream, &events, &words(0..60));
        let mut asked = able.only().json();
        assert_eq!(
            put_into_its_mouth(&able.only()).as_deref(),
            Some(words(0..40).trim_end()),
            "no white space at its end"
        );
        asked["messages"].as_array_mut().unwrap().pop();
        assert_eq!(asked, cut.only().json(), "all else as the client wrote it");
    }
}

#[tokio::test]
async fn a_refused_prefill_falls_back_to_a_splice() {
    let refuses = |seen: &Seen, _: usize| if put_into_its_mouth(seen).is_some() { status(400) } else { tokens(60) };
    let (cut, unable) =
        (upstream().reply(tokens(60).end_after(40)).start().await, upstream().handler(refuses).start().await);
    let target = backend("f1").fallback(&unable).set("capabilities.prefill", true);
    let proxy = pair(backend("p1").primary(&cut), target).set("stream.resume", "prefill").start().await;
    let mut stream = proxy.chat_stream().stream().await;
    let events = stream.rest().await;
    assert_whole(&stream, &events, &words(0..60));
    let mouths: Vec<bool> = unable.seen().iter().map(|s| put_into_its_mouth(s).is_some()).collect();
    assert_eq!(mouths, [true, false], "once, and then from the beginning");
    assert_eq!(outcomes(&proxy, 3).await, pairs(&[("p1", "cut"), ("f1", "not_resumed"), ("f1", "answered")]));
}

#[tokio::test]
async fn a_backend_without_the_capability_is_never_sent_a_prefill() {
    let (cut, well) =
        (upstream().reply(tokens(9).end_after(4)).start().await, upstream().reply(tokens(9)).start().await);
    let proxy = two(&cut, &well).set("stream.resume", "prefill").start().await;
    let mut stream = proxy.chat_stream().stream().await;
    let events = stream.rest().await;
    assert_whole(&stream, &events, &words(0..9));
    assert_eq!(put_into_its_mouth(&well.only()), None);
}

/// A tool call whose arguments come in these pieces.
#[tokio::test]
async fn a_continuation_may_begin_with_the_same_byte_as_the_white_space_that_was_not_sent() {
    // U+00A0 is C2 A0 and U+00BB is C2 BB: they agree in half a character.
    let chunk = |text: &str, finish: Value| {
        json!({"id": "x", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}).to_string()
    };
    for first in ["« mot\u{a0}", "a text of more than thirty-two bytes, « mot\u{a0}"] {
        let cut = upstream().reply(sse([chunk(first, Value::Null)]).cut_after(1)).start().await;
        let able = upstream().reply(sse([chunk("»", json!("stop")), "[DONE]".to_owned()])).start().await;
        let target = backend("f1").fallback(&able).set("capabilities.prefill", true);
        let proxy = pair(backend("p1").primary(&cut), target).set("stream.resume", "prefill").start().await;
        let mut stream = proxy.chat_stream().stream().await;
        let events = stream.rest().await;
        assert_eq!(text(&events), format!("{first}»"), "{events:?}");
        assert!(stream.ended_in_order());
    }
}

#[tokio::test]
async fn an_error_after_the_last_word_takes_nothing_from_the_answer() {
    let error = "data: {\"error\":{\"message\":\"boom\",\"type\":\"server_error\"}}\n\n";
    // Three words, the reason to stop, the error; then [DONE], or nothing, not even the blank line that ends an event.
    for broken in [tokens(3).with_bytes_after(4, error), tokens(3).then_bytes(4, error.trim_end())] {
        let up = upstream().reply(broken).start().await;
        let paid = upstream().reply(tokens(3)).start().await;
        let proxy = two(&up, &paid).start().await;
        let mut stream = proxy.chat_stream().stream().await;
        let events = stream.rest().await;
        assert_whole(&stream, &events, &words(0..3));
        assert_eq!((up.count(), paid.count()), (1, 0), "nothing was left to resume");
    }
}

fn tool_call(id: &str, arguments: &[&str]) -> Reply {
    let chunk = |call: Value| json!({"id": id, "choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}).to_string();
    let begin = json!({"index": 0, "id": format!("call-{id}"), "type": "function", "function": {"name": "look", "arguments": ""}});
    let pieces = arguments.iter().map(|piece| chunk(json!({"index": 0, "function": {"arguments": piece}})));
    let stop = json!({"id": id, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}).to_string();
    sse([chunk(begin)].into_iter().chain(pieces).chain([stop, "[DONE]".to_owned()]))
}

fn arguments(events: &[Event]) -> String {
    let piece = |e: &Event| {
        e.json()["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"].as_str().map(str::to_owned)
    };
    events.iter().filter_map(piece).collect()
}

#[tokio::test]
async fn a_tool_call_is_resumed_where_it_is_the_same_and_never_mixed() {
    let first = || tool_call("one", &["{\"city\":", " \"Par", "is\"}"]).end_after(3);
    for (second, expected) in [
        (tool_call("two", &["{\"city\": \"P", "aris", "\"}"]), "{\"city\": \"Paris\"}"),
        (tool_call("two", &["{\"city\": \"Rome\"}"]), "{\"city\": \"Par"),
    ] {
        let (cut, other) = (upstream().reply(first()).start().await, upstream().reply(second).start().await);
        let proxy = two(&cut, &other).set("limits.max_attempts", 2).start().await;
        let mut stream = proxy.chat_stream().stream().await;
        let events = stream.rest().await;
        assert_eq!(arguments(&events), expected, "{events:?}");
        let ids: Vec<Value> =
            events.iter().map(|e| e.json()["choices"][0]["delta"]["tool_calls"][0]["id"].clone()).collect();
        assert_eq!(
            ids.iter().filter(|id| id.is_string()).collect::<Vec<_>>(),
            [&json!("call-one")],
            "one call, one id"
        );
        let is_whole = expected.ends_with('}');
        assert!(stream.ended_in_order());
        assert_eq!(events.last().unwrap().json().get("error").is_none(), is_whole, "{events:?}");
    }
}

fn chunk(choice: usize, text: &str) -> String {
    json!({"id": "c", "choices": [{"index": choice, "delta": {"content": text}, "finish_reason": null}]}).to_string()
}

fn finish(choice: usize) -> String {
    json!({"id": "c", "choices": [{"index": choice, "delta": {}, "finish_reason": "stop"}]}).to_string()
}

/// The texts of two choices, and how often each ended.
fn two_choices(events: &[Event]) -> [(String, usize); 2] {
    let mut choices = [(String::new(), 0), (String::new(), 0)];
    for choice in events.iter().flat_map(|e| e.json()["choices"].as_array().cloned().unwrap_or_default()) {
        let (text, ends) = &mut choices[choice["index"].as_u64().unwrap() as usize];
        text.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        *ends += usize::from(choice["finish_reason"].is_string());
    }
    choices
}

async fn ask_for_two(proxy: &Proxy) -> (Vec<Event>, bool) {
    let body = json!({"model": "m", "stream": true, "n": 2, "messages": []});
    let mut stream = proxy.post("/v1/chat/completions").json(&body).stream().await;
    let events = stream.rest().await;
    (events, stream.ended_in_order())
}

#[tokio::test]
async fn each_of_several_choices_is_resumed_where_it_broke_off() {
    let both = json!({"id": "c", "choices": [
        {"index": 0, "delta": {"content": "e"}, "finish_reason": "stop"},
        {"index": 1, "delta": {"content": "2"}, "finish_reason": null}]});
    let whole =
        || sse([chunk(0, "on"), chunk(1, "1"), both.to_string(), chunk(1, "3"), finish(1), "[DONE]".to_owned()]);
    let all = [chunk(0, "o"), chunk(1, "12"), chunk(0, "ne"), finish(0), chunk(1, "3")];
    for delivered in 1..=all.len() {
        let broken = sse(all[..delivered].to_vec());
        let (cut, well) = (upstream().reply(broken).start().await, upstream().reply(whole()).start().await);
        let proxy = two(&cut, &well).start().await;
        let (events, in_order) = ask_for_two(&proxy).await;
        let expected = [("one".to_owned(), 1), ("123".to_owned(), 1)];
        assert_eq!((two_choices(&events), in_order), (expected, true), "after {delivered}: {events:?}");
        assert_eq!(events.last().unwrap().data(), "[DONE]", "after {delivered}");
        assert_eq!(well.count(), 1);
    }
}

#[tokio::test]
async fn a_choice_that_goes_another_way_is_never_mixed_in() {
    let broken = || sse([chunk(0, "o"), chunk(1, "12")]);
    for other in [
        vec![chunk(0, "one"), finish(0), chunk(1, "x"), finish(1)],
        vec![chunk(0, "one"), finish(0), chunk(1, "1"), finish(1)],
        vec![chunk(1, "123"), finish(1), chunk(0, "x"), finish(0)],
        vec![chunk(1, "123"), finish(1), "[DONE]".to_owned()],
    ] {
        let (cut, well) =
            (upstream().reply(broken()).start().await, upstream().reply(sse(other.clone())).start().await);
        let proxy = two(&cut, &well).start().await;
        let (events, in_order) = ask_for_two(&proxy).await;
        let [(first, _), (second, _)] = two_choices(&events);
        assert!("one".starts_with(&first) && "123".starts_with(&second), "{other:?}: {events:?}");
        assert!(in_order && !events.last().unwrap().json()["error"].is_null(), "{other:?}: {events:?}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_during_a_resume_takes_it_along() {
    let (cut, mute) =
        (upstream().reply(tokens(9).end_after(2)).start().await, upstream().reply(silence()).start().await);
    let target = backend("f1").fallback(&mute).max_concurrency(1);
    let proxy = pair(backend("p1").primary(&cut), target).start().await;
    let mut stream = proxy.chat_stream().stream().await;
    stream.next().await.unwrap();
    mute.wait_seen(1).await;
    drop(stream);
    mute.wait_hung_up(1).await;
    let rows = proxy.wait_rows(1, EXCHANGES).await;
    assert_eq!((&rows[0]["end"], &rows[0]["attempts"]), (&json!("client_gone"), &json!(2)));
    proxy.wait_backends("\"in_flight\":0").await;
}

/// Named events, as Anthropic and the Responses API send them.
fn named(events: &[Value]) -> Reply {
    let write = |e: &Value| format!("event: {}\ndata: {e}\n\n", e["type"].as_str().unwrap());
    events.iter().fold(sse(["x"; 0]), |reply, event| reply.and_bytes(write(event)))
}

fn message(id: &str, words: &[&str]) -> Vec<Value> {
    let start = json!({"type": "message_start", "message": {"id": id, "role": "assistant", "content": [], "model": "claude", "usage": {"input_tokens": 9, "output_tokens": 1}}});
    let block = json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}});
    let delta =
        |text: &&str| json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}});
    let end =
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": words.len()}});
    let mut events = vec![start, block];
    events.extend(words.iter().map(delta));
    events.extend([json!({"type": "content_block_stop", "index": 0}), end, json!({"type": "message_stop"})]);
    events
}

fn types(events: &[Event]) -> Vec<String> {
    events.iter().filter_map(|e| e.json()["type"].as_str().map(str::to_owned)).collect()
}

fn message_request(proxy: &Proxy) -> Request {
    let body =
        json!({"model": "m", "stream": true, "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]});
    proxy.post("/v1/messages").json(&body)
}

fn anthropic(id: &str) -> Backend {
    backend(id).set("dialect", "anthropic")
}

#[tokio::test]
async fn a_message_is_spliced_under_one_start_and_one_stop() {
    let cut = upstream().reply(named(&message("one", &["Hello", ", ", "wor", "ld"])).end_after(5)).start().await;
    let well = upstream().reply(named(&message("two", &["Hel", "lo, world", "!"]))).start().await;
    let proxy = pair(anthropic("p1").primary(&cut), anthropic("f1").fallback(&well)).start().await;
    let mut stream = message_request(&proxy).stream().await;
    let events = stream.rest().await;
    let said: String = events.iter().filter_map(|e| e.json()["delta"]["text"].as_str().map(str::to_owned)).collect();
    assert_eq!(said, "Hello, world!");
    let once = |kind: &str| types(&events).iter().filter(|t| *t == kind).count();
    for kind in ["message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop"] {
        assert_eq!(once(kind), 1, "{kind} in {events:?}");
    }
    assert_eq!(types(&events).last().unwrap(), "message_stop");
    assert!(stream.ended_in_order());
}

#[tokio::test]
async fn a_message_is_prefilled_without_white_space_at_its_end() {
    let cut = upstream().reply(named(&message("one", &["Hello", ", ", "world"])).end_after(4)).start().await;
    let able = upstream().reply(named(&message("two", &[" wor", "ld"]))).start().await;
    let target = anthropic("f1").fallback(&able).set("capabilities.prefill", true);
    let proxy = pair(anthropic("p1").primary(&cut), target).set("stream.resume", "prefill").start().await;
    let mut stream = message_request(&proxy).stream().await;
    let events = stream.rest().await;
    let said: String = events.iter().filter_map(|e| e.json()["delta"]["text"].as_str().map(str::to_owned)).collect();
    assert_eq!(said, "Hello, world");
    assert_eq!(put_into_its_mouth(&able.only()).as_deref(), Some("Hello,"));
    assert_eq!(types(&events).iter().filter(|t| *t == "message_start").count(), 1);
    assert!(stream.ended_in_order());
    let usage = events.iter().find(|e| e.json()["type"] == "message_delta").unwrap().json();
    assert_eq!(usage["usage"]["output_tokens"], 4, "what was delivered and what was added");
}

#[tokio::test]
async fn a_message_that_cannot_be_resumed_ends_with_an_error_event() {
    let cut = upstream().reply(named(&message("one", &["Hello", ", ", "world"])).end_after(4)).start().await;
    let wrong = upstream().reply(named(&message("two", &["Good", "bye"]))).start().await;
    let proxy = pair(anthropic("p1").primary(&cut), anthropic("f1").fallback(&wrong)).set("limits.max_attempts", 2);
    let proxy = proxy.start().await;
    let mut stream = message_request(&proxy).stream().await;
    let events = stream.rest().await;
    let last = events.last().unwrap();
    assert!(last.text.starts_with("event: error\n") && last.json()["error"]["message"].is_string(), "{last:?}");
    assert!(!types(&events).contains(&"message_stop".to_owned()) && stream.ended_in_order());
}

/// A response whose text comes in these pieces.
fn response(id: &str, pieces: &[&str]) -> Vec<Value> {
    let item = json!({"type": "message", "id": format!("item-{id}"), "role": "assistant", "content": []});
    let at = |kind: &str, member: &str, value: Value| json!({"type": kind, "output_index": 0, "content_index": 0, "item_id": format!("item-{id}"), (member): value});
    let mut events = vec![
        json!({"type": "response.created", "response": {"id": id, "output": []}}),
        json!({"type": "response.output_item.added", "output_index": 0, "item": item}),
        at("response.content_part.added", "part", json!({"type": "output_text", "text": ""})),
    ];
    events.extend(pieces.iter().map(|piece| at("response.output_text.delta", "delta", json!(piece))));
    events.push(at("response.output_text.done", "text", json!(pieces.concat())));
    events.push(json!({"type": "response.output_item.done", "output_index": 0, "item": item}));
    let usage = json!({"input_tokens": 4, "output_tokens": pieces.len()});
    events.push(json!({"type": "response.completed", "response": {"id": id, "output": [item], "usage": usage}}));
    for (number, event) in events.iter_mut().enumerate() {
        event["sequence_number"] = json!(number);
    }
    events
}

#[tokio::test]
async fn a_response_is_spliced_in_its_own_numbers_and_names() {
    let cut = upstream().reply(named(&response("one", &["Hello", ", ", "world"])).end_after(5)).start().await;
    let well = upstream().reply(named(&response("two", &["Hel", "lo, wor", "ld"]))).start().await;
    let proxy = two(&cut, &well).set("stream.resume", "prefill").start().await;
    let body = json!({"model": "m", "stream": true, "input": "hi"});
    let mut stream = proxy.post("/v1/responses").json(&body).stream().await;
    let events: Vec<Event> = stream.rest().await.into_iter().filter(|e| e.json().is_object()).collect();
    let said: String = events.iter().filter_map(|e| e.json()["delta"].as_str().map(str::to_owned)).collect();
    assert_eq!(said, "Hello, world");
    for (number, event) in events.iter().map(Event::json).enumerate() {
        assert_eq!(event["sequence_number"], json!(number), "{event}");
        assert!(event.get("item_id").is_none_or(|id| id == "item-one"), "{event}");
    }
    let last = events.last().unwrap().json();
    assert_eq!((&last["type"], &last["response"]["id"]), (&json!("response.completed"), &json!("one")));
    assert_eq!(last["response"]["output"][0]["id"], "item-one");
    assert!(stream.ended_in_order());
}

#[tokio::test]
async fn a_missing_end_is_added_at_once_even_if_the_connection_stays_open() {
    // Content, the finish, the usage; then nothing: closed, cut, or just silent.
    for reply in [tokens(3).only_content(5), tokens(3).end_after(5), tokens(3).stall_after(5)] {
        let up = upstream().reply(reply).start().await;
        let proxy = proxy!().backend(backend("p1").primary(&up).timeout("idle_ms", 15_000)).start().await;
        let mut stream = proxy.chat_stream().stream().await;
        let events = tokio::time::timeout(Duration::from_secs(8), stream.rest()).await.expect("it ends at once");
        assert_whole(&stream, &events, &words(0..3));
        let rows = proxy.wait_rows(1, EXCHANGES).await;
        assert_eq!((&rows[0]["end"], &rows[0]["output_tokens"]), (&json!("delivered"), &json!(3)));
        assert_eq!(up.count(), 1);
    }
}

#[tokio::test]
async fn a_malformed_event_that_carries_nothing_is_left_out_and_counted() {
    let reply = tokens(3).with_bytes_after(1, "data: {\"choices\": [{]}\n\n").with_bytes_after(2, "data: hello\n\n");
    let up = upstream().reply(reply).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let mut stream = proxy.chat_stream().stream().await;
    let events = stream.rest().await;
    assert_whole(&stream, &events, &words(0..3));
    assert!(events.iter().all(|e| e.data() == "[DONE]" || e.json().is_object()), "{events:?}");
    let rows = proxy.wait_rows(1, ATTEMPTS).await;
    assert_eq!(
        (&rows[0]["outcome"], &rows[0]["message"]),
        (&json!("answered"), &json!("2 events of the stream left out"))
    );
    assert_eq!(proxy.metric("pointsman_stream_repairs_total{what=\"left_out\"}").await, 2.0);
    assert_eq!(up.count(), 1);
}

#[tokio::test]
async fn json_in_place_of_a_stream_is_told_as_one() {
    let up = upstream().reply(chat("hello")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let mut stream = proxy.chat_stream().stream().await;
    assert!(stream.header("content-type").starts_with("text/event-stream"));
    let events = stream.rest().await;
    assert_whole(&stream, &events, "hello");
    let rows = proxy.wait_rows(1, EXCHANGES).await;
    assert_eq!((&rows[0]["end"], &rows[0]["output_tokens"]), (&json!("delivered"), &json!(7)));
}

#[tokio::test]
async fn json_in_place_of_a_stream_continues_a_broken_one() {
    let (cut, whole) =
        (upstream().reply(tokens(9).end_after(4)).start().await, upstream().reply(chat(&words(0..9))).start().await);
    let proxy = two(&cut, &whole).start().await;
    let mut stream = proxy.chat_stream().stream().await;
    let events = stream.rest().await;
    assert_whole(&stream, &events, &words(0..9));
}

#[tokio::test]
async fn json_that_is_no_answer_is_a_failed_attempt() {
    let (odd, well) = (
        upstream().reply(reply_json(json!({"status": "fine"}))).start().await,
        upstream().reply(tokens(3)).start().await,
    );
    let proxy = two(&odd, &well).start().await;
    let mut stream = proxy.chat_stream().stream().await;
    let events = stream.rest().await;
    assert_whole(&stream, &events, &words(0..3));
}

#[tokio::test]
async fn an_error_in_the_first_event_is_a_failed_attempt() {
    let boom = sse([json!({"error": {"message": "boom", "type": "server_error"}}).to_string()]);
    let (broken, well) = (upstream().reply(boom).start().await, upstream().reply(tokens(3)).start().await);
    let proxy = two(&broken, &well).start().await;
    let mut stream = proxy.chat_stream().stream().await;
    assert_eq!(stream.header("x-pointsman-backend"), "f1");
    let events = stream.rest().await;
    assert_whole(&stream, &events, &words(0..3));
}

#[tokio::test]
async fn with_the_gate_at_the_headers_even_a_first_event_that_fails_is_mended() {
    let boom = sse([json!({"error": {"message": "boom", "type": "server_error"}}).to_string()]);
    let (broken, well) = (upstream().reply(boom).start().await, upstream().reply(tokens(3)).start().await);
    let proxy = two(&broken, &well).set("stream.commit", "headers").start().await;
    let mut stream = proxy.chat_stream().stream().await;
    let events = stream.rest().await;
    assert_whole(&stream, &events, &words(0..3));
}

#[tokio::test]
async fn a_waiting_client_gets_comments_and_then_the_answer() {
    let gate = Gate::new();
    let up = upstream().reply(tokens(3).gated_head(&gate)).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).set("stream.keepalive_ms", 50).start().await;
    let mut stream = proxy.chat_stream().stream().await;
    assert_eq!(stream.status, 200);
    assert!(stream.header("content-type").starts_with("text/event-stream"));
    assert_eq!((stream.header("x-pointsman-backend"), stream.header("x-request-id").is_empty()), ("", false));
    for _ in 0..3 {
        assert!(stream.next().await.unwrap().text.starts_with(": "), "a comment");
    }
    gate.open();
    let events = stream.rest().await;
    assert_whole(&stream, &events, &words(0..3));
    assert!(events.iter().any(|e| e.text == ": pointsman answered by p1"), "{events:?}");
    let rows = proxy.wait_rows(1, EXCHANGES).await;
    assert_eq!((&rows[0]["status"], &rows[0]["end"]), (&json!(200), &json!("delivered")));
}

#[tokio::test]
async fn a_failure_after_the_first_comment_is_told_in_band() {
    let up = upstream().reply(status(500).slow_head(Duration::from_millis(300))).start().await;
    let proxy =
        proxy!().backend(backend("p1").primary(&up)).set("stream.keepalive_ms", 50).set("limits.max_attempts", 1);
    let proxy = proxy.start().await;
    let mut stream = proxy.chat_stream().stream().await;
    assert_eq!(stream.status, 200);
    let events = stream.rest().await;
    let error = events.last().unwrap().json()["error"].clone();
    assert_eq!(error["type"], "AllPoolsExhausted", "{events:?}");
    assert!(stream.ended_in_order());
    let rows = proxy.wait_rows(1, EXCHANGES).await;
    assert_eq!((&rows[0]["status"], &rows[0]["end"]), (&json!(200), &json!("rejected")));
}

#[tokio::test]
async fn fast_failures_and_whole_answers_keep_their_status() {
    let up = upstream().reply(status(400)).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).set("stream.keepalive_ms", 5_000).start().await;
    assert_eq!(proxy.chat_stream().send().await.status, 400);
    let slow = upstream().reply(chat("late").slow_head(Duration::from_millis(200))).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&slow)).set("stream.keepalive_ms", 20).start().await;
    let answer = proxy.chat().send().await;
    assert_eq!(
        (answer.says().as_str(), answer.header("content-type")),
        ("late", "application/json"),
        "it asked for no stream"
    );
}

#[tokio::test]
async fn comments_go_on_while_a_stream_is_resumed() {
    let gate = Gate::new();
    let (cut, slow) = (
        upstream().reply(tokens(4).end_after(2)).start().await,
        upstream().reply(tokens(4).gated_head(&gate)).start().await,
    );
    let proxy = two(&cut, &slow).set("stream.keepalive_ms", 50).start().await;
    let mut stream = proxy.chat_stream().stream().await;
    let mut comments = 0;
    let mut events = Vec::new();
    while comments < 3 {
        let event = stream.next().await.unwrap();
        comments += usize::from(event.text.starts_with(": "));
        events.push(event);
    }
    gate.open();
    events.extend(stream.rest().await);
    assert_whole(&stream, &events, &words(0..4));
}

#[tokio::test]
async fn an_answer_that_is_no_stream_cannot_follow_an_early_head() {
    let page = bytes("text/html", "<p>hello").slow_head(Duration::from_millis(300));
    let up = upstream().reply(page).start().await;
    let proxy =
        proxy!().backend(backend("p1").primary(&up)).set("stream.keepalive_ms", 50).set("limits.max_attempts", 1);
    let proxy = proxy.start().await;
    let mut stream = proxy.chat_stream().stream().await;
    let events = stream.rest().await;
    assert!(events.last().unwrap().json()["error"]["message"].is_string(), "{events:?}");
    assert!(stream.ended_in_order());
}
