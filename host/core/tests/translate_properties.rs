//! Properties of translations: there and back is the same, a translated stream adds up to the translated answer, and
//! nothing makes it panic.

use bytes::{Bytes, BytesMut};
use pointsman_core::dialect::translate::request::translate;
use pointsman_core::dialect::translate::{Answers, LongNames, MadeUpIds, Strictness, Translation, error};
use pointsman_core::http::sse::{Event, Reader};
use pointsman_core::time::Timestamp;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

const TRANSLATIONS: [Translation; 2] = [Translation::CHAT_TO_MESSAGES, Translation::MESSAGES_TO_CHAT];

fn there(way: Translation, body: &Value) -> Value {
    there_as(way, Strictness::Strict, body)
}

fn there_as(way: Translation, strictness: Strictness, body: &Value) -> Value {
    let translated = translate(way, strictness, body.to_string().as_bytes(), body["model"].as_str().unwrap());
    serde_json::from_slice(&translated.unwrap_or_else(|e| panic!("{e}: {body}")).body).unwrap()
}

fn answers(way: Translation) -> Answers {
    Answers {
        translation: way,
        stream: true,
        include_usage: true,
        model: "asked".to_owned(),
        ids: MadeUpIds::default(),
        names: LongNames::default(),
    }
}

// Requests, in the one way that both writers write them.

fn text() -> impl Strategy<Value = String> {
    "[ -~\\n\u{e9}\u{4f60}\u{1f600}]{0,12}x"
}

fn word() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_-]{1,12}"
}

fn texts() -> impl Strategy<Value = Value> {
    let part = text().prop_map(|text| json!({"type": "text", "text": text}));
    prop_oneof![text().prop_map(Value::from), prop::collection::vec(part, 2..4).prop_map(Value::from)]
}

fn object() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text().prop_map(Value::from),
        prop::collection::vec(any::<u8>(), 0..3).prop_map(Value::from),
    ];
    prop::collection::btree_map(word(), leaf, 0..4).prop_map(Value::from_iter)
}

fn user() -> impl Strategy<Value = Value> {
    let image = prop_oneof![Just("data:image/png;base64,aGk="), Just("https://example.com/a.png")];
    let image = image.prop_map(|url| json!({"type": "image_url", "image_url": {"url": url}}));
    let file = word().prop_map(
        |name| json!({"type": "file", "file": {"filename": name, "file_data": "data:application/pdf;base64,aGk="}}),
    );
    let words = text().prop_map(|text| json!({"type": "text", "text": text}));
    let parts = prop::collection::vec(prop_oneof![words, image, file], 2..5).prop_map(Value::from);
    prop_oneof![text().prop_map(Value::from), parts].prop_map(|content| json!({"role": "user", "content": content}))
}

/// An assistant's message, and the results of its calls.
fn assistant() -> impl Strategy<Value = Vec<Value>> {
    let call = (word(), object(), texts());
    (prop::option::of(texts()), prop::collection::vec(call, 0..4)).prop_map(|(content, calls)| {
        if calls.is_empty() {
            return vec![json!({"role": "assistant", "content": content.unwrap_or_else(|| json!("yes"))})];
        }
        let id = |i: usize| format!("call_{i}");
        let said = |(i, (name, input, _)): (usize, &(String, Value, Value))| {
            json!({"id": id(i), "type": "function", "function": {"name": name, "arguments": input.to_string()}})
        };
        let tool_calls: Vec<Value> = calls.iter().enumerate().map(said).collect();
        let mut turns = vec![json!({"role": "assistant", "content": content, "tool_calls": tool_calls})];
        let result = |(i, (_, _, said))| json!({"role": "tool", "tool_call_id": id(i), "content": said});
        turns.extend(calls.into_iter().enumerate().map(result));
        turns
    })
}

fn tools() -> impl Strategy<Value = Vec<Value>> {
    let tool = (word(), prop::option::of(text()), object(), prop::option::of(any::<bool>()));
    let tool = tool.prop_map(|(name, description, parameters, strict)| {
        let mut function = json!({"name": name, "parameters": parameters});
        if let Some(description) = description {
            function["description"] = json!(description);
        }
        if let Some(strict) = strict {
            function["strict"] = json!(strict);
        }
        json!({"type": "function", "function": function})
    });
    prop::collection::vec(tool, 1..4)
}

fn choice() -> impl Strategy<Value = Value> {
    let named = word().prop_map(|name| json!({"type": "function", "function": {"name": name}}));
    prop_oneof![Just(json!("auto")), Just(json!("none")), Just(json!("required")), named]
}

fn messages() -> impl Strategy<Value = Vec<Value>> {
    let rounds = prop::collection::vec((user(), assistant()), 0..4);
    (prop::option::of(texts()), rounds, user()).prop_map(|(system, rounds, last)| {
        let mut messages = Vec::from_iter(system.map(|content| json!({"role": "system", "content": content})));
        for (user, assistant) in rounds {
            messages.push(user);
            messages.extend(assistant);
        }
        messages.push(last);
        messages
    })
}

fn chat() -> impl Strategy<Value = Value> {
    let tools = prop::option::of((tools(), prop::option::of(choice()), any::<bool>()));
    let sampling = (prop::option::of(0..1000u32), prop::option::of(0..1000u32), 1..100_000u64);
    let rest = (prop::option::of(word()), prop::collection::vec(text(), 0..4), prop::option::of(object()));
    let effort = prop::option::of(prop::sample::select(vec!["low", "medium", "high", "xhigh", "max"]));
    (messages(), tools, sampling, rest, effort, any::<bool>()).prop_map(
        |(messages, tools, (temperature, top_p, max_tokens), (user, stop, schema), effort, stream)| {
            let mut chat = json!({"model": "m", "messages": messages, "max_tokens": max_tokens});
            let mut set = |name: &str, value: Option<Value>| {
                if let Some(value) = value {
                    chat[name] = value;
                }
            };
            set("temperature", temperature.map(|t| json!(f64::from(t) / 1000.0)));
            set("top_p", top_p.map(|t| json!(f64::from(t) / 1000.0)));
            set("user", user.map(Value::from));
            set("stop", (!stop.is_empty()).then(|| json!(stop)));
            set("response_format", schema.map(|schema| {
                json!({"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema": schema}})
            }));
            set("reasoning_effort", effort.map(Value::from));
            if let Some((tools, choice, one_call)) = tools {
                set("tools", Some(json!(tools)));
                // Where nothing is chosen, `auto` is what comes back with a ban on parallel calls.
                let one_call = one_call && choice.as_ref().is_some_and(|c| c != "none");
                set("tool_choice", choice);
                set("parallel_tool_calls", one_call.then_some(json!(false)));
            }
            if stream {
                set("stream", Some(json!(true)));
                set("stream_options", Some(json!({"include_usage": true})));
            }
            chat
        },
    )
}

// Answers and their streams.

#[derive(Clone, Debug)]
struct Said {
    text: Option<String>,
    calls: Vec<(String, Value)>,
    stop: Index,
    counts: [u64; 4],
    cuts: Vec<Index>,
}

fn said() -> impl Strategy<Value = Said> {
    let calls = prop::collection::vec((word(), object()), 0..4);
    (
        prop::option::of(text()),
        calls,
        any::<Index>(),
        [0..9999u64, 0..9999, 0..9999, 0..9999],
        prop::collection::vec(any::<Index>(), 1..6),
    )
        .prop_map(|(text, calls, stop, counts, cuts)| Said { text, calls, stop, counts, cuts })
}

impl Said {
    /// This text in pieces.
    fn pieces(&self, text: &str) -> Vec<String> {
        let chars: Vec<char> = text.chars().collect();
        let mut at: Vec<usize> = self.cuts.iter().map(|cut| cut.index(chars.len() + 1)).collect();
        at.extend([0, chars.len()]);
        at.sort_unstable();
        at.windows(2).map(|w| chars[w[0]..w[1]].iter().collect()).collect()
    }

    fn messages_whole(&self) -> Value {
        let [input, output, cached, written] = self.counts;
        let mut content = Vec::from_iter(self.text.iter().map(|text| json!({"type": "text", "text": text})));
        for (i, (name, input)) in self.calls.iter().enumerate() {
            content.push(json!({"type": "tool_use", "id": format!("toolu_{i}"), "name": name, "input": input}));
        }
        let usage = json!({
            "input_tokens": input, "cache_read_input_tokens": cached, "cache_creation_input_tokens": written,
            "output_tokens": output,
        });
        let reasons = ["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal", "pause_turn"];
        json!({
            "id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": content,
            "stop_reason": self.stop.get(&reasons), "stop_sequence": null, "usage": usage,
        })
    }

    fn messages_events(&self) -> Vec<Value> {
        let whole = self.messages_whole();
        let mut usage = whole["usage"].clone();
        usage["output_tokens"] = json!(1);
        let message = json!({"id": "msg_1", "model": "claude", "content": [], "usage": usage});
        let mut events = vec![json!({"type": "message_start", "message": message}), json!({"type": "ping"})];
        for (index, block) in whole["content"].as_array().unwrap().iter().enumerate() {
            let mut begun = block.clone();
            let delta = match block["type"].as_str() {
                Some("text") => {
                    begun["text"] = json!("");
                    self.pieces(block["text"].as_str().unwrap())
                        .into_iter()
                        .map(|p| json!({"type": "text_delta", "text": p}))
                        .collect()
                }
                _ if block["input"] == json!({}) => Vec::new(),
                _ => {
                    begun["input"] = json!({});
                    let input = block["input"].to_string();
                    self.pieces(&input)
                        .into_iter()
                        .map(|p| json!({"type": "input_json_delta", "partial_json": p}))
                        .collect()
                }
            };
            events.push(json!({"type": "content_block_start", "index": index, "content_block": begun}));
            events
                .extend(delta.into_iter().map(|d| json!({"type": "content_block_delta", "index": index, "delta": d})));
            events.push(json!({"type": "content_block_stop", "index": index}));
        }
        let usage = json!({"output_tokens": whole["usage"]["output_tokens"]});
        let delta = json!({"stop_reason": whole["stop_reason"], "stop_sequence": null});
        events.push(json!({"type": "message_delta", "delta": delta, "usage": usage}));
        events.push(json!({"type": "message_stop"}));
        events
    }

    fn chat_whole(&self) -> Value {
        let call = |(i, (name, input)): (usize, &(String, Value))| json!({"id": format!("call_{i}"), "type": "function", "function": {"name": name, "arguments": input.to_string()}});
        let mut message = json!({"role": "assistant", "content": self.text});
        if !self.calls.is_empty() {
            message["tool_calls"] = self.calls.iter().enumerate().map(call).collect();
        }
        let [input, output, cached, written] = self.counts;
        let input = input + cached + written;
        let usage = json!({
            "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
            "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        });
        let reasons = ["stop", "length", "tool_calls", "content_filter", "strange"];
        let choice = json!({"index": 0, "message": message, "finish_reason": self.stop.get(&reasons)});
        json!({"id": "c", "object": "chat.completion", "created": 1, "model": "gpt", "choices": [choice], "usage": usage})
    }

    fn chat_events(&self) -> Vec<Value> {
        let whole = self.chat_whole();
        let chunk = |choices: Value| json!({"id": "c", "model": "gpt", "choices": choices});
        let delta = |delta: Value| chunk(json!([{"index": 0, "delta": delta, "finish_reason": null}]));
        let mut events = vec![delta(json!({"role": "assistant", "content": ""}))];
        for piece in self.text.iter().flat_map(|text| self.pieces(text)) {
            events.push(delta(json!({"content": piece})));
        }
        for (i, (name, input)) in self.calls.iter().enumerate() {
            let mut call = json!({"index": i, "id": format!("call_{i}"), "type": "function", "function": {"name": name, "arguments": ""}});
            events.push(delta(json!({"tool_calls": [call.take()]})));
            for piece in self.pieces(&input.to_string()) {
                events.push(delta(json!({"tool_calls": [{"index": i, "function": {"arguments": piece}}]})));
            }
        }
        events.push(chunk(json!([{"index": 0, "delta": {}, "finish_reason": whole["choices"][0]["finish_reason"]}])));
        let mut last = chunk(json!([]));
        last["usage"] = whole["usage"].clone();
        events.push(last);
        events.push(json!("[DONE]"));
        events
    }
}

/// The translated stream's events.
fn streamed(way: Translation, events: &[Value]) -> Vec<(Option<String>, String)> {
    let mut stream = answers(way).stream(NOW);
    let mut out = BytesMut::new();
    for event in events {
        let data = event.as_str().map_or_else(|| event.to_string(), str::to_owned);
        let event = Event { raw: b"", name: None, data: Some(data.as_bytes()) };
        stream.event(&event, &mut out).unwrap();
    }
    let written = out.len();
    stream.finish(&mut out);
    assert_eq!(out.len(), written, "the stream had its end");
    let mut reader = Reader::default();
    reader.push(out.freeze());
    let mut found = Vec::new();
    while let Some(event) = reader.next_event().unwrap() {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        found.extend(event.data.map(|data| (event.name.map(text), text(data))));
    }
    found
}

/// Reads a stream as a chat client does.
fn add_up_chat(events: &[(Option<String>, String)]) -> Value {
    let (last, chunks) = events.split_last().unwrap();
    assert_eq!(last.1, "[DONE]");
    let (mut content, mut calls, mut finish, mut usage) =
        (String::new(), Vec::<Value>::new(), Value::Null, Value::Null);
    let mut head = Value::Null;
    for (i, (name, data)) in chunks.iter().enumerate() {
        assert_eq!(name, &None);
        let chunk: Value = serde_json::from_str(data).unwrap();
        head = json!({"id": chunk["id"], "created": chunk["created"], "model": chunk["model"], "object": "chat.completion"});
        if chunk["choices"] == json!([]) {
            assert_eq!(i, chunks.len() - 1, "the usage comes last");
            usage = chunk["usage"].clone();
            continue;
        }
        assert!(chunk["usage"].is_null() && finish.is_null());
        let choice = &chunk["choices"][0];
        assert_eq!(choice["delta"].get("role").is_some(), i == 0, "the role comes first");
        content.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        for call in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            let index = call["index"].as_u64().unwrap() as usize;
            if index == calls.len() {
                calls.push(json!({"id": call["id"], "type": call["type"], "function": call["function"]}));
            } else {
                let so_far = calls[index]["function"]["arguments"].as_str().unwrap().to_owned();
                let piece = call["function"]["arguments"].as_str().unwrap();
                calls[index]["function"]["arguments"] = json!(so_far + piece);
            }
        }
        finish = choice["finish_reason"].clone();
    }
    let content = if content.is_empty() && !calls.is_empty() { Value::Null } else { json!(content) };
    let mut message = json!({"role": "assistant", "content": content, "refusal": null});
    if !calls.is_empty() {
        message["tool_calls"] = json!(calls);
    }
    head["choices"] = json!([{"index": 0, "message": message, "logprobs": null, "finish_reason": finish}]);
    head["usage"] = usage;
    head
}

/// Reads a stream as Anthropic's client does: one block at a time, started, filled and stopped.
fn add_up_messages(events: &[(Option<String>, String)]) -> Value {
    let (mut message, mut open, mut input) = (Value::Null, false, String::new());
    let mut over = false;
    for (name, data) in events {
        let event: Value = serde_json::from_str(data).unwrap();
        assert_eq!(name.as_deref(), event["type"].as_str());
        assert!(!over);
        let at = message["content"].as_array().map_or(0, Vec::len);
        match event["type"].as_str().unwrap() {
            "message_start" => message = event["message"].clone(),
            "ping" => {}
            "content_block_start" => {
                assert!(!open && event["index"] == at);
                open = true;
                input.clear();
                message["content"].as_array_mut().unwrap().push(event["content_block"].clone());
            }
            "content_block_delta" => {
                assert!(open && event["index"] == at - 1);
                let block = &mut message["content"][at - 1];
                match event["delta"]["type"].as_str().unwrap() {
                    "text_delta" => {
                        let so_far = block["text"].as_str().unwrap().to_owned();
                        block["text"] = json!(so_far + event["delta"]["text"].as_str().unwrap());
                    }
                    "input_json_delta" => input.push_str(event["delta"]["partial_json"].as_str().unwrap()),
                    other => panic!("{other}"),
                }
            }
            "content_block_stop" => {
                assert!(open && event["index"] == at - 1);
                open = false;
                if !input.is_empty() {
                    message["content"][at - 1]["input"] = serde_json::from_str(&input).unwrap();
                }
            }
            "message_delta" => {
                assert!(!open);
                message["stop_reason"] = event["delta"]["stop_reason"].clone();
                message["stop_sequence"] = event["delta"]["stop_sequence"].clone();
                message["usage"] = event["usage"].clone();
            }
            "message_stop" => over = true,
            other => panic!("{other}"),
        }
    }
    assert!(over);
    message
}

fn whole(way: Translation, body: &Value) -> Value {
    serde_json::from_slice(&answers(way).whole(body.to_string().as_bytes(), NOW).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_request_there_and_back_is_the_same(chat in chat()) {
        let messages = there(Translation::CHAT_TO_MESSAGES, &chat);
        let back = there(Translation::MESSAGES_TO_CHAT, &messages);
        prop_assert_eq!(&back, &chat);
        prop_assert_eq!(there(Translation::CHAT_TO_MESSAGES, &back), messages);
    }

    #[test]
    fn an_unknown_member_anywhere_is_named(chat in chat(), place in any::<Index>()) {
        for way in TRANSLATIONS {
            let mut request = if way == Translation::CHAT_TO_MESSAGES { chat.clone() } else { there(Translation::CHAT_TO_MESSAGES, &chat) };
            let last = request["messages"].as_array().unwrap().len() - 1;
            let objects = ["", "/messages/0", &format!("/messages/{last}"), "/tools/0", "/metadata", "/output_config"];
            let objects: Vec<_> = objects.into_iter().filter(|at| request.pointer(at).is_some()).collect();
            let at = *place.get(&objects);
            request.pointer_mut(at).unwrap()["zz"] = json!(1);
            let body = request.to_string();
            let refused = translate(way, Strictness::Strict, body.as_bytes(), "m").unwrap_err();
            prop_assert!(refused.path.ends_with("zz"), "{}", refused);
            let lenient = translate(way, Strictness::Lenient, body.as_bytes(), "m").unwrap();
            prop_assert!(lenient.left_out.iter().any(|field| field.path == refused.path), "{:?}", lenient.left_out);
        }
    }

    #[test]
    fn a_translated_stream_adds_up_to_the_translated_answer(said in said()) {
        let chat = add_up_chat(&streamed(Translation::CHAT_TO_MESSAGES, &said.messages_events()));
        prop_assert_eq!(chat, whole(Translation::CHAT_TO_MESSAGES, &said.messages_whole()));
        let message = add_up_messages(&streamed(Translation::MESSAGES_TO_CHAT, &said.chat_events()));
        prop_assert_eq!(message, whole(Translation::MESSAGES_TO_CHAT, &said.chat_whole()));
    }

    #[test]
    fn an_answer_there_and_back_says_the_same(said in said()) {
        let message = said.messages_whole();
        let back = whole(Translation::MESSAGES_TO_CHAT, &whole(Translation::CHAT_TO_MESSAGES, &message));
        let usage = &back["usage"];
        prop_assert_eq!(&usage["input_tokens"], &message["usage"]["input_tokens"]);
        prop_assert_eq!(&usage["cache_creation_input_tokens"], &message["usage"]["cache_creation_input_tokens"]);
        prop_assert_eq!(&back["content"], &message["content"]);
        prop_assert_eq!((&back["id"], &back["model"]), (&message["id"], &message["model"]));
    }

    #[test]
    fn nothing_makes_it_panic(body in "\\PC{0,60}", json in object(), said in said(), hurt in any::<Index>(), with in object()) {
        for way in TRANSLATIONS {
            for body in [body.as_bytes(), json.to_string().as_bytes()] {
                for strictness in Strictness::ALL {
                    let _ = translate(way, strictness, body, "m");
                }
                let _ = answers(way).whole(body, NOW);
                let _ = error::refusal(way, 500, body, "r");
            }
            // A stream in which one event is something else, or comes twice.
            let mut events = if way == Translation::CHAT_TO_MESSAGES { said.messages_events() } else { said.chat_events() };
            let at = hurt.index(events.len());
            let twice = events[at].clone();
            events.insert(at, twice);
            if let Some(event) = events[at].as_object_mut() {
                event.extend(with.as_object().unwrap().clone());
            }
            let mut stream = answers(way).stream(NOW);
            let mut out = BytesMut::new();
            for event in events {
                let data = event.as_str().map_or_else(|| event.to_string(), str::to_owned);
                if stream.event(&Event { raw: b"", name: None, data: Some(data.as_bytes()) }, &mut out).is_err() {
                    break;
                }
            }
            stream.finish(&mut out);
        }
    }
}

#[test]
fn schemas_and_inputs_keep_their_bytes() {
    let schema = r#"{"type":"object","properties":{"z":{"type":"number","maximum":1.50},"a":{}}}"#;
    let body = format!(
        r#"{{"model":"m","max_tokens":1,"messages":[{{"role":"user","content":"x"}},{{"role":"assistant","content":null,"tool_calls":[{{"id":"i","type":"function","function":{{"name":"f","arguments":"{{\"z\": 1.0, \"a\":1e3}}"}}}}]}},{{"role":"tool","tool_call_id":"i","content":"y"}}],"tools":[{{"type":"function","function":{{"name":"f","parameters":{schema}}}}}]}}"#
    );
    let sent = translate(Translation::CHAT_TO_MESSAGES, Strictness::Strict, body.as_bytes(), "m").unwrap().body;
    let text = std::str::from_utf8(&sent).unwrap();
    assert!(text.contains(schema), "{text}");
    assert!(text.contains(r#""input":{"z": 1.0, "a":1e3}"#), "{text}");
    let back = translate(Translation::MESSAGES_TO_CHAT, Strictness::Strict, &sent, "m").unwrap().body;
    let text = std::str::from_utf8(&back).unwrap();
    assert!(text.contains(schema) && text.contains(r#""arguments":"{\"z\": 1.0, \"a\":1e3}""#), "{text}");
}

#[test]
fn the_model_that_is_sent_stands_in_the_body() {
    let body = Bytes::from_static(br#"{"model":"asked","messages":[{"role":"user","content":"x"}]}"#);
    let sent = translate(Translation::CHAT_TO_MESSAGES, Strictness::Strict, &body, "claude-x").unwrap();
    let value: Value = serde_json::from_slice(&sent.body).unwrap();
    assert_eq!((&value["model"], &*sent.answers.model), (&json!("claude-x"), "claude-x"));
}
