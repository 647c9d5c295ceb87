//! Requests with fields that the other API has not: what only tunes the answer is left out and said, what changes its meaning
//! is refused by name, and a conversation in another order is written in the one that the other API takes.

use pointsman_tests::{Answer, Proxy, Upstream, backend, chat, json, proxy, sse, upstream};
use serde_json::{Value, json as value};

fn message() -> pointsman_tests::Reply {
    json(value!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "stop_reason": "end_turn",
        "stop_sequence": null, "content": [{"type": "text", "text": "well"}],
        "usage": {"input_tokens": 7, "output_tokens": 2},
    }))
}

/// A proxy whose one backend speaks messages, and that backend.
async fn to_messages(translation: &str) -> (Proxy, Upstream) {
    let claude = upstream().reply(message()).start().await;
    let foreign = backend("claude").primary(&claude).set("dialect", "anthropic").model("m", "claude-x");
    (proxy!().backend(foreign).set("server.translation", translation).start().await, claude)
}

/// A proxy whose one backend speaks chat completions, and that backend.
async fn to_chat(translation: &str) -> (Proxy, Upstream) {
    let gpt = upstream().reply(chat("well")).start().await;
    let foreign = backend("gpt").primary(&gpt).model("m", "gpt-x");
    (proxy!().backend(foreign).set("server.translation", translation).start().await, gpt)
}

fn with(mut body: Value, more: Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

async fn ask_chat(proxy: &Proxy, more: Value) -> Answer {
    let body = value!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    proxy.post("/v1/chat/completions").json(&with(body, more)).send().await
}

async fn ask_message(proxy: &Proxy, more: Value) -> Answer {
    let body = value!({"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]});
    let request = proxy.post("/v1/messages").header("anthropic-version", "2023-06-01");
    request.json(&with(body, more)).send().await
}

#[tokio::test]
async fn a_chat_that_asks_for_more_than_messages_have_is_answered_and_told_what_was_left_out() {
    let (proxy, claude) = to_messages("lenient").await;
    let answer = ask_chat(
        &proxy,
        value!({
            "seed": 7, "temperature": 1.7, "frequency_penalty": 0.5, "presence_penalty": 0, "verbosity": "low",
            "reasoning_effort": "minimal", "response_format": {"type": "json_object"}, "stop": ["\n", "END"],
            "max_tokens": 9, "max_completion_tokens": 8, "metadata": {"a": "b"}, "brand_new": {"x": 1},
        }),
    )
    .await;
    assert_eq!((answer.status.as_u16(), answer.says().as_str()), (200, "well"), "{}", answer.text());
    let left_out = answer.header("x-pointsman-left-out");
    let mut paths: Vec<&str> = left_out.split(", ").collect();
    paths.sort_unstable();
    let expected = [
        "brand_new",
        "frequency_penalty",
        "max_tokens",
        "reasoning_effort",
        "response_format.type",
        "seed",
        "stop[0]",
        "temperature",
        "verbosity",
    ];
    assert_eq!(paths, expected);
    let seen = claude.only().json();
    assert_eq!((&seen["max_tokens"], &seen["stop_sequences"]), (&value!(8), &value!(["END"])));
    assert_eq!(seen["output_config"], value!({"effort": "low"}));
    assert!(seen["system"].to_string().contains("one valid JSON object"), "{seen}");
    for gone in ["seed", "temperature", "brand_new", "verbosity", "frequency_penalty", "response_format", "metadata"] {
        assert!(seen.get(gone).is_none(), "{gone} in {seen}");
    }
    let rows = proxy.wait_rows(1, "SELECT notes FROM exchanges").await;
    let notes = rows[0]["notes"].to_string();
    assert!(
        notes.contains("left out or said otherwise for claude") && notes.contains("`seed` has no counterpart"),
        "{notes}"
    );
}

#[tokio::test]
async fn a_message_that_asks_for_more_than_chats_have_is_answered_and_told_what_was_left_out() {
    let (proxy, gpt) = to_chat("lenient").await;
    let answer = ask_message(
        &proxy,
        value!({
            "thinking": {"type": "enabled", "budget_tokens": 2048}, "top_k": 5, "speed": "fast",
            "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
            "stop_sequences": ["a", "b", "c", "d", "e", "f"], "metadata": {"user_id": "u".repeat(150)},
            "tools": [
                {"name": "f", "input_schema": {"type": "object"}, "defer_loading": true, "input_examples": [{}]},
                {"type": "web_search_20250305", "name": "web_search", "max_uses": 5},
                {"type": "bash_20250124", "name": "bash"},
            ],
        }),
    )
    .await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
    let left_out = answer.header("x-pointsman-left-out");
    let mut paths: Vec<&str> = left_out.split(", ").collect();
    paths.sort_unstable();
    let expected = [
        "context_management",
        "speed",
        "stop_sequences[4]",
        "stop_sequences[5]",
        "thinking",
        "tools[0].input_examples",
        "tools[1].type",
        "top_k",
    ];
    assert_eq!(paths, expected);
    let seen = gpt.only().json();
    assert_eq!((&seen["stop"], seen.get("user")), (&value!(["a", "b", "c", "d"]), None));
    let tools: Vec<&Value> = seen["tools"].as_array().unwrap().iter().map(|t| &t["function"]["name"]).collect();
    assert_eq!(tools, ["f", "bash"]);
    assert!(seen["tools"][1]["function"]["parameters"]["properties"]["command"].is_object(), "{seen}");
}

#[tokio::test]
async fn files_and_calls_without_tools_are_said_in_the_way_that_anthropic_takes() {
    let (proxy, claude) = to_messages("lenient").await;
    let call = value!({"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let answer = ask_chat(
        &proxy,
        value!({"messages": [
            {"role": "user", "content": [
                {"type": "file", "file": {"filename": "a.txt", "file_data": "data:text/plain;base64,aGVsbG8="}},
                {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,QUJD"}},
            ]},
            {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "done"},
            {"role": "user", "content": "and?"},
        ]}),
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let sent: Value = serde_json::from_slice(&claude.only().body).unwrap();
    assert_eq!(sent["messages"][0]["content"][0], value!({"type": "text", "text": "a.txt\n\nhello"}));
    assert_eq!(sent["messages"][0]["content"][1]["source"]["media_type"], "image/jpeg");
    assert_eq!(sent["tools"], value!([{"name": "f", "input_schema": {"type": "object"}}]));
    assert_eq!(sent["tool_choice"], value!({"type": "none"}));
}

#[tokio::test]
async fn a_tools_long_name_and_an_early_output_format_are_said_in_openais_way() {
    let long = format!("mcp__server__{}__create", "x".repeat(80));
    let gpt = upstream().handler(|seen, _| {
        let asked: Value = serde_json::from_slice(&seen.body).unwrap();
        let name = &asked["tools"][0]["function"]["name"];
        let call =
            value!({"index": 0, "id": "c1", "type": "function", "function": {"name": name, "arguments": "{\"a\":1}"}});
        if asked["stream"] == true {
            let chunk = |delta: Value, reason: Value| {
                value!({"id": "c", "object": "chat.completion.chunk", "created": 1,
                "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})
                .to_string()
            };
            let calls = chunk(value!({"tool_calls": [call]}), Value::Null);
            return sse([calls, chunk(value!({}), value!("tool_calls")), "[DONE]".to_owned()]);
        }
        let mut call = call;
        // Some servers do not write the arguments as a text.
        call["function"]["arguments"] = value!({"a": 1});
        json(value!({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [{"index": 0,
            "message": {"role": "assistant", "content": null, "tool_calls": [call]}, "finish_reason": "tool_calls"}]}))
    });
    let gpt = gpt.start().await;
    let proxy = proxy!().backend(backend("gpt").primary(&gpt).model("m", "gpt-x")).start().await;
    let more = |stream: bool| {
        value!({"stream": stream, "tools": [{"name": long, "input_schema": {"type": "object"}}],
            "output_format": {"type": "json_schema", "schema": {"type": "object"}}})
    };
    let answer = ask_message(&proxy, more(false)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let used = &answer.json()["content"][0];
    assert_eq!((&used["name"], &used["input"]), (&value!(long), &value!({"a": 1})));
    let sent: Value = serde_json::from_slice(&gpt.seen().pop().unwrap().body).unwrap();
    let name = sent["tools"][0]["function"]["name"].as_str().unwrap();
    assert!(name.len() == 64 && name.starts_with("mcp__server__xx") && name.ends_with("__create"), "{name}");
    assert_eq!(sent["response_format"]["json_schema"]["schema"], value!({"type": "object"}));
    let streamed = ask_message(&proxy, more(true)).await.text();
    assert!(streamed.contains(&format!("\"name\":\"{long}\"")), "{streamed}");
}

#[tokio::test]
async fn what_changes_the_meaning_is_refused_by_name_however_lenient() {
    let (proxy, claude) = to_messages("lenient").await;
    for (field, wish) in [
        ("n", value!(2)),
        ("logprobs", value!(true)),
        ("logit_bias", value!({"1": -100})),
        ("modalities", value!(["text", "audio"])),
        ("web_search_options", value!({})),
        ("functions", value!([{"name": "f"}])),
    ] {
        let answer = ask_chat(&proxy, value!({field: wish})).await;
        let words = answer.json()["error"]["message"].to_string();
        assert_eq!(answer.status.as_u16(), 400, "{field}: {words}");
        assert!(words.contains(&format!("`{field}` has no counterpart in Anthropic's messages API")), "{words}");
    }
    let (other, gpt) = to_chat("lenient").await;
    let search = value!([{"type": "web_search_20250305", "name": "web_search"}]);
    let prefill = value!([{"role": "user", "content": "JSON?"}, {"role": "assistant", "content": "{"}]);
    for (field, more) in [
        ("container", value!({"container": "c1"})),
        ("mcp_servers", value!({"mcp_servers": [{"type": "url", "url": "https://example.com", "name": "x"}]})),
        ("max_tokens", value!({"max_tokens": 0})),
        ("tools[0].type", value!({"tools": search})),
        ("messages", value!({"messages": prefill})),
    ] {
        let answer = ask_message(&other, more).await;
        let words = answer.json()["error"]["message"].to_string();
        assert_eq!(answer.status.as_u16(), 400, "{field}: {words}");
        assert!(words.contains(&format!("`{field}`")), "{words}");
    }
    assert_eq!((claude.count(), gpt.count()), (0, 0));
}

#[tokio::test]
async fn a_strict_translation_refuses_what_only_tunes_too() {
    let (proxy, claude) = to_messages("strict").await;
    for (field, wish) in [("seed", value!(7)), ("temperature", value!(1.5)), ("brand_new", value!(1))] {
        let answer = ask_chat(&proxy, value!({field: wish})).await;
        assert_eq!(answer.status.as_u16(), 400);
        assert!(answer.text().contains(&format!("`{field}`")), "{}", answer.text());
    }
    let (other, gpt) = to_chat("strict").await;
    for (field, wish) in [("top_k", value!(5)), ("thinking.type", value!({"type": "enabled", "budget_tokens": 2048}))] {
        let answer = ask_message(&other, value!({field.split('.').next().unwrap(): wish})).await;
        assert_eq!(answer.status.as_u16(), 400);
        assert!(answer.text().contains(&format!("`{field}`")), "{}", answer.text());
    }
    assert_eq!((claude.count(), gpt.count()), (0, 0));
}

#[tokio::test]
async fn an_interrupted_turn_and_a_late_instruction_become_messages_in_an_order_that_anthropic_takes() {
    let (proxy, claude) = to_messages("lenient").await;
    let call = |id: &str| value!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let answer = ask_chat(
        &proxy,
        value!({"messages": [
            {"role": "assistant", "content": "Hello, ask me."},
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": null, "tool_calls": [call("a"), call("b")]},
            {"role": "system", "content": "Be brief."},
            {"role": "tool", "tool_call_id": "b", "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}, {"type": "text", "text": "seen"},
            ]},
            {"role": "user", "content": ""},
            {"role": "user", "content": "stop that"},
        ]}),
    )
    .await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
    assert_ne!(answer.header("x-pointsman-left-out"), "");
    let image = value!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}});
    let no_result = "The tool call was interrupted and has no result.";
    let expected = value!([
        {"role": "user", "content": "(no content)"},
        {"role": "assistant", "content": "Hello, ask me."},
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": [
            {"type": "tool_use", "id": "a", "name": "f", "input": {}}, {"type": "tool_use", "id": "b", "name": "f", "input": {}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "b", "content": [image, {"type": "text", "text": "seen"}]},
            {"type": "tool_result", "tool_use_id": "a", "content": no_result},
        ]},
        {"role": "user", "content": "<system-reminder>\nBe brief.\n</system-reminder>"},
        {"role": "user", "content": "stop that"},
    ]);
    assert_eq!(claude.only().json()["messages"], expected);
}

#[tokio::test]
async fn pictures_in_results_and_words_behind_calls_become_a_chat_in_an_order_that_openai_takes() {
    let (proxy, gpt) = to_chat("lenient").await;
    let image = value!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}});
    let answer = ask_message(
        &proxy,
        value!({"messages": [
            {"role": "user", "content": "look"},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "a", "name": "f", "input": {}}, {"type": "text", "text": "Looking."},
                {"type": "tool_use", "id": "b", "name": "f", "input": {}},
            ]},
            {"role": "user", "content": [
                {"type": "text", "text": "and?"},
                {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "this:"}, image],
                 "cache_control": {"type": "ephemeral"}},
            ]},
        ]}),
    )
    .await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
    let call = |id: &str| value!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let text = |text: &str| value!({"type": "text", "text": text});
    let expected = value!([
        {"role": "user", "content": "look"},
        {"role": "assistant", "content": "Looking.", "tool_calls": [call("a"), call("b")]},
        {"role": "tool", "tool_call_id": "a", "content": [text("this:"), text("(attachment 1: see the next message)")]},
        {"role": "tool", "tool_call_id": "b", "content": "The tool call was interrupted and has no result."},
        {"role": "user", "content": [
            text("Attachment 1, from the result of the tool call a:"),
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        ]},
        {"role": "user", "content": "and?"},
    ]);
    assert_eq!(gpt.only().json()["messages"], expected);
}

#[tokio::test]
async fn a_native_backend_gets_the_request_as_it_came_and_nothing_is_left_out() {
    let gpt = upstream().reply(chat("well")).start().await;
    let proxy = proxy!().backend(backend("gpt").primary(&gpt).model("m", "m")).start().await;
    let answer = ask_chat(&proxy, value!({"seed": 7, "n": 2, "brand_new": 1})).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-pointsman-left-out")), (200, ""));
    assert_eq!((&gpt.only().json()["seed"], &gpt.only().json()["n"]), (&value!(7), &value!(2)));
}

#[tokio::test]
async fn the_head_of_a_stream_names_what_was_left_out_too() {
    let events = [
        value!({"type": "message_start", "message": {"id": "m", "model": "c", "usage": {"input_tokens": 1, "output_tokens": 1}}}),
        value!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        value!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "well"}}),
        value!({"type": "content_block_stop", "index": 0}),
        value!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}),
        value!({"type": "message_stop"}),
    ];
    let claude = upstream().reply(sse(events.iter().map(Value::to_string))).start().await;
    let foreign = backend("claude").primary(&claude).set("dialect", "anthropic").model("m", "claude-x");
    let proxy = proxy!().backend(foreign).start().await;
    let messages = value!([{"role": "user", "content": "hi"}]);
    let body = value!({"model": "m", "stream": true, "seed": 7, "messages": messages});
    let mut stream = proxy.post("/v1/chat/completions").json(&body).stream().await;
    assert_eq!(stream.header("x-pointsman-left-out"), "seed");
    assert_eq!(stream.rest().await.iter().map(|e| e.content()).collect::<String>(), "well");
}

#[tokio::test]
async fn an_effort_is_left_out_for_models_that_refuse_one_and_kept_for_others() {
    let gpt = upstream().reply(chat("well")).start().await;
    let models =
        backend("gpt").primary(&gpt).model("plain", "gpt-4.1-mini").model("llama", "meta/llama-3.1-70b-instruct");
    let proxy = proxy!().backend(models.model("thinker", "gpt-5.2")).start().await;
    for (model, kept) in [("plain", false), ("llama", false), ("thinker", true)] {
        let answer = ask_message(&proxy, value!({"model": model, "output_config": {"effort": "high"}})).await;
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
        assert_eq!(answer.header("x-pointsman-left-out"), if kept { "" } else { "output_config.effort" });
    }
    let seen: Vec<Value> = gpt.seen().iter().map(|seen| seen.json()["reasoning_effort"].clone()).collect();
    assert_eq!(seen, [Value::Null, Value::Null, value!("high")]);

    let claude = upstream().reply(message()).start().await;
    let foreign = backend("claude").primary(&claude).set("dialect", "anthropic").model("m", "claude-haiku-4-5");
    let proxy = proxy!().backend(foreign).start().await;
    let answer = ask_chat(&proxy, value!({"reasoning_effort": "low"})).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-pointsman-left-out")), (200, "reasoning_effort"));
    assert_eq!(claude.only().json().get("output_config"), None);
}
