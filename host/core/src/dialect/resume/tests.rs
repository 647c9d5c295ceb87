//! Properties of resuming, for any cut at any place: the client gets the uncut text, or nothing of the other answer.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::contract::Operation;
use crate::http::sse::Reader;
use crate::table::Dialect;

/// An answer: what the model thinks, says and calls.
#[derive(Clone, Debug)]
struct Says {
    thinks: String,
    says: String,
    calls: Option<(String, String)>,
}

/// One stream: its name (ids of its own), and how its texts are cut into events.
struct Style<'a> {
    name: &'a str,
    sizes: &'a [usize],
    role: bool,
}

/// The text in pieces of these sizes (in characters), over and over.
fn pieces<'t>(text: &'t str, sizes: &[usize]) -> Vec<&'t str> {
    let mut rest = text;
    let mut pieces = Vec::new();
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let end = rest.char_indices().nth((*size).max(1)).map_or(rest.len(), |(at, _)| at);
        pieces.push(&rest[..end]);
        rest = &rest[end..];
    }
    pieces
}

fn event(name: Option<&str>, data: &Value) -> String {
    let name = name.map_or_else(String::new, |name| format!("event: {name}\n"));
    format!("{name}data: {data}\n\n")
}

fn chat(answer: &Says, style: &Style<'_>) -> Vec<String> {
    let chunk = |delta: Value, finish: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        event(None, &json!({"id": style.name, "created": 1, "model": style.name, "choices": [choice]}))
    };
    let mut events = Vec::new();
    if style.role {
        events.push(chunk(json!({"role": "assistant", "content": ""}), Value::Null));
    }
    for (member, text) in [("reasoning_content", &answer.thinks), ("content", &answer.says)] {
        events.extend(pieces(text, style.sizes).iter().map(|piece| chunk(json!({ (member): piece }), Value::Null)));
    }
    if let Some((tool, arguments)) = &answer.calls {
        let call = |call: Value| chunk(json!({"tool_calls": [call]}), Value::Null);
        let id = format!("call-{}", style.name);
        events
            .push(call(json!({"index": 0, "id": id, "type": "function", "function": {"name": tool, "arguments": ""}})));
        let more = |piece: &&str| call(json!({"index": 0, "function": {"arguments": piece}}));
        events.extend(pieces(arguments, style.sizes).iter().map(more));
    }
    events.push(chunk(json!({}), json!("stop")));
    events.push(event(
        None,
        &json!({"id": style.name, "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 9}}),
    ));
    events.push("data: [DONE]\n\n".to_owned());
    events
}

fn messages(answer: &Says, style: &Style<'_>) -> Vec<String> {
    let named = |data: Value| event(data["type"].as_str(), &data);
    let mut events = vec![named(json!({"type": "message_start", "message": {"id": style.name, "role": "assistant"}}))];
    let mut index = 0;
    let mut block = |begin: Value, delta: &str, member: &str, text: &str| {
        events.push(named(json!({"type": "content_block_start", "index": index, "content_block": begin})));
        for piece in pieces(text, style.sizes) {
            let delta = json!({"type": delta, (member): piece});
            events.push(named(json!({"type": "content_block_delta", "index": index, "delta": delta})));
        }
        events.push(named(json!({"type": "content_block_stop", "index": index})));
        index += 1;
    };
    if !answer.thinks.is_empty() {
        block(
            json!({"type": "thinking", "thinking": "", "signature": ""}),
            "thinking_delta",
            "thinking",
            &answer.thinks,
        );
    }
    block(json!({"type": "text", "text": ""}), "text_delta", "text", &answer.says);
    if let Some((tool, input)) = &answer.calls {
        let begin = json!({"type": "tool_use", "id": format!("toolu-{}", style.name), "name": tool, "input": {}});
        block(begin, "input_json_delta", "partial_json", input);
    }
    events.push("event: ping\ndata: {\"type\":\"ping\"}\n\n".to_owned());
    events.push(named(
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}),
    ));
    events.push(named(json!({"type": "message_stop"})));
    events
}

fn responses(answer: &Says, style: &Style<'_>) -> Vec<String> {
    let mut sequence = 0;
    let mut events = Vec::new();
    let mut push = |mut data: Value| {
        data["sequence_number"] = json!(sequence);
        sequence += 1;
        events.push(event(data["type"].as_str(), &data));
    };
    let response = |status: &str, output: Vec<Value>| json!({"type": format!("response.{status}"), "response": {"id": style.name, "output": output}});
    push(response("created", Vec::new()));
    push(response("in_progress", Vec::new()));
    let item = format!("item-{}", style.name);
    let message = json!({"type": "message", "id": item, "role": "assistant", "content": []});
    push(json!({"type": "response.output_item.added", "output_index": 0, "item": message}));
    let at = |kind: &str, member: &str, value: Value| json!({"type": kind, "output_index": 0, "content_index": 0, "item_id": item, (member): value});
    push(at("response.content_part.added", "part", json!({"type": "output_text", "text": ""})));
    for piece in pieces(&answer.says, style.sizes) {
        push(at("response.output_text.delta", "delta", json!(piece)));
    }
    push(at("response.output_text.done", "text", json!(answer.says)));
    push(at("response.content_part.done", "part", json!({"type": "output_text", "text": answer.says})));
    push(json!({"type": "response.output_item.done", "output_index": 0, "item": message}));
    if let Some((tool, arguments)) = &answer.calls {
        let item = format!("call-item-{}", style.name);
        let call_id = format!("call-{}", style.name);
        let call = json!({"type": "function_call", "id": item, "call_id": call_id, "name": tool, "arguments": ""});
        push(json!({"type": "response.output_item.added", "output_index": 1, "item": call}));
        for piece in pieces(arguments, style.sizes) {
            let kind = "response.function_call_arguments.delta";
            push(json!({"type": kind, "output_index": 1, "item_id": item, "delta": piece}));
        }
        push(json!({"type": "response.output_item.done", "output_index": 1, "item": call}));
    }
    push(response("completed", vec![message]));
    events
}

/// Finds the first event that ends the answer.
fn end_of(events: &[String]) -> usize {
    let is_end = |e: &String| ["\"stop\"", "message_delta", "response.completed"].iter().any(|word| e.contains(word));
    events.iter().position(is_end).expect("every answer ends")
}

type Maker = fn(&Says, &Style<'_>) -> Vec<String>;

const MAKERS: [(Dialect, Operation, Maker); 3] = [
    (Dialect::OPENAI, Operation::Chat, chat),
    (Dialect::ANTHROPIC, Operation::Message, messages),
    (Dialect::OPENAI, Operation::Response, responses),
];

/// The events of these bytes, cut anywhere, each put to `look`.
fn each_event(bytes: &[u8], cuts: &[usize], mut look: impl FnMut(&crate::http::sse::Event<'_>)) {
    let mut reader = Reader::default();
    let mut cuts: Vec<usize> = cuts.iter().map(|c| c % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    for w in cuts.windows(2) {
        reader.push(Bytes::copy_from_slice(&bytes[w[0]..w[1]]));
        while let Some(event) = reader.next_event().unwrap() {
            look(&event);
        }
        reader.take();
    }
}

fn transcript(dialect: Dialect, operation: Operation, events: &str) -> Transcript {
    let mut told = Transcript::new(dialect, operation);
    each_event(events.as_bytes(), &[], |event| told.see(event));
    told
}

/// Returns the part of the other answer that the client gets, and whether it was refused.
fn joined(joiner: &mut Joiner, events: &str, cuts: &[usize]) -> Result<String, Unfit> {
    let mut out = String::new();
    let mut end = Ok(());
    each_event(events.as_bytes(), cuts, |event| {
        if end.is_ok() {
            match joiner.take(event) {
                Ok(Emit::AsReceived) => out.push_str(std::str::from_utf8(event.raw).unwrap()),
                Ok(Emit::Instead(bytes)) => out.push_str(std::str::from_utf8(&bytes).unwrap()),
                Ok(Emit::Nothing) => {}
                Err(unfit) => end = Err(unfit),
            }
        }
    });
    assert!(end.is_ok() || out.is_empty(), "something of a refused answer was delivered: {out}");
    end.map(|()| out)
}

/// Reads a stream as a client does: every text whole, every structural event as often as it comes.
fn understood(
    dialect: Dialect,
    operation: Operation,
    stream: &str,
) -> (BTreeMap<String, String>, BTreeMap<String, usize>) {
    let (mut texts, mut structure) = (BTreeMap::<String, String>::new(), BTreeMap::new());
    let told = transcript(dialect, operation, stream);
    texts.extend(told.texts.iter().cloned());
    each_event(stream.as_bytes(), &[], |event| {
        let data: Value = serde_json::from_slice(event.data.unwrap_or(b"null")).unwrap_or(json!("[DONE]"));
        let name = match operation {
            Operation::Chat if data.is_string() => "[DONE]".to_owned(),
            Operation::Chat if data["choices"][0]["finish_reason"].is_string() => "finish".to_owned(),
            Operation::Chat if data["usage"].is_object() => "usage".to_owned(),
            Operation::Chat if data["choices"][0]["delta"]["role"].is_string() => "role".to_owned(),
            Operation::Chat if data["choices"][0]["delta"]["tool_calls"][0]["id"].is_string() => "call".to_owned(),
            Operation::Chat => return,
            _ if data["type"].as_str().unwrap().ends_with("delta") && data["type"] != "message_delta" => return,
            _ => format!("{}/{}", data["type"], data["index"].as_u64().or(data["output_index"].as_u64()).unwrap_or(0)),
        };
        *structure.entry(name).or_insert(0) += 1;
    });
    // Both may come or not, from one provider or the other.
    structure.remove("\"ping\"/0");
    assert!(structure.remove("role").unwrap_or(0) <= 1, "the role was repeated");
    (texts, structure)
}

fn says() -> impl Strategy<Value = Says> {
    let calls = prop::option::of(("[a-z]{1,8}", "\\{\"[a-z\\\\\"\u{e9}]{0,12}\\}"));
    ("[a-z \u{1f600}]{0,12}", "[a-z\"\\\\\n \u{e9}\u{4e2d}\u{1f600}]{1,60}", calls)
        .prop_map(|(thinks, says, calls)| Says { thinks, says, calls })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn splicing_at_any_cut_gives_the_uncut_answer(
        answer in says(), first in prop::collection::vec(1usize..9, 1..4), second in prop::collection::vec(1usize..9, 1..4),
        cut in 0usize..1_000, cuts in prop::collection::vec(0usize..10_000, 0..12), roles: (bool, bool),
    ) {
        for (dialect, operation, make) in MAKERS {
            let one = make(&answer, &Style { name: "one", sizes: &first, role: roles.0 });
            let other = make(&answer, &Style { name: "two", sizes: &second, role: roles.1 }).concat();
            let ends = end_of(&one);
            let delivered = one[..cut % (ends + 1)].concat();
            let told = transcript(dialect, operation, &delivered);
            prop_assert_eq!(told.unfit(), None);
            let mut joiner = Joiner::splice(told);
            let rest = joined(&mut joiner, &other, &cuts).expect("the same answer");
            let whole = delivered.clone() + &rest;
            let (texts, structure) = understood(dialect, operation, &whole);
            let (expected_texts, expected) = understood(dialect, operation, &one.concat());
            prop_assert_eq!(&texts, &expected_texts, "{}", whole);
            prop_assert_eq!(structure, expected, "{}", whole);
            if !delivered.is_empty() {
                prop_assert!(operation == Operation::Message || !rest.contains("\"id\":\"two\""), "{}", rest);
            }
        }
    }

    #[test]
    fn another_answer_is_refused_before_anything_of_it_is_delivered(
        answer in says(), other in says(), sizes in prop::collection::vec(1usize..9, 1..4), cut in 1usize..1_000,
    ) {
        for (dialect, operation, make) in MAKERS {
            let one = make(&answer, &Style { name: "one", sizes: &[3], role: true });
            let ends = end_of(&one);
            let delivered = one[..=cut % ends].concat();
            let second = make(&other, &Style { name: "two", sizes: &sizes, role: true }).concat();
            let told = transcript(dialect, operation, &delivered);
            let is_begun = told.texts.clone();
            let mut joiner = Joiner::splice(told);
            match joined(&mut joiner, &second, &[]) {
                Err(_) => prop_assert!(!joiner.has_joined()),
                Ok(rest) => {
                    // Then it agrees with all that was delivered.
                    let (texts, _) = understood(dialect, operation, &second);
                    for (channel, text) in is_begun {
                        prop_assert!(texts.get(&channel).is_some_and(|whole| whole.starts_with(&text)), "{}", rest);
                    }
                    let (whole, _) = understood(dialect, operation, &(delivered.clone() + &rest));
                    prop_assert_eq!(whole, texts);
                }
            }
        }
    }

    #[test]
    fn a_resumed_answer_can_break_and_be_resumed_again(
        answer in says(), sizes in prop::collection::vec(1usize..5, 1..4), cuts in prop::collection::vec(0usize..1_000, 1..5),
    ) {
        for (dialect, operation, make) in MAKERS {
            let one = make(&answer, &Style { name: "one", sizes: &[2], role: true });
            let expected = understood(dialect, operation, &one.concat()).0;
            let ends = end_of(&one);
            let mut client = one[..=cuts[0] % ends].concat();
            let mut told = transcript(dialect, operation, &client);
            for cut in &cuts {
                let next = make(&answer, &Style { name: "next", sizes: &sizes, role: true });
                let ends = end_of(&next);
                let mut joiner = Joiner::splice(told);
                client += &joined(&mut joiner, &next[..cut % ends].concat(), &[]).expect("it agrees");
                told = joiner.told().clone();
            }
            let last = make(&answer, &Style { name: "last", sizes: &[7], role: true }).concat();
            client += &joined(&mut Joiner::splice(told), &last, &[]).expect("it agrees");
            prop_assert_eq!(understood(dialect, operation, &client).0, expected);
        }
    }
}

fn say(says: &str) -> Says {
    Says { thinks: String::new(), says: says.to_owned(), calls: None }
}

const PLAIN: Style<'static> = Style { name: "one", sizes: &[4], role: true };

proptest! {
    #[test]
    fn the_quick_reading_of_a_piece_of_text_is_the_thorough_one(events in prop::collection::vec(odd_json(), 0..6), text in "\\PC{0,8}") {
        let piece = json!({"id": "c", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]});
        let block = json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}});
        for (dialect, operation, first) in [(Dialect::OPENAI, Operation::Chat, &piece), (Dialect::ANTHROPIC, Operation::Message, &block)] {
            let mut quick = Transcript::new(dialect, operation);
            let mut thorough = quick.clone();
            for data in [first].into_iter().chain(&events).chain([first]) {
                each_event(event(None, data).as_bytes(), &[], |event| quick.see(event));
                if thorough.unfit().is_none() {
                    thorough.see_value(&mut data.clone());
                }
            }
            prop_assert_eq!((quick.texts.clone(), quick.unfit()), (thorough.texts.clone(), thorough.unfit()));
        }
    }
}

#[test]
fn the_border_lies_inside_an_event_of_the_other_answer() {
    let delivered = chat(&say("Hello, wo"), &PLAIN)[..4].concat();
    let mut joiner = Joiner::splice(transcript(Dialect::OPENAI, Operation::Chat, &delivered));
    let other = chat(&say("Hello, world"), &Style { name: "two", sizes: &[6], role: false }).concat();
    let rest = joined(&mut joiner, &other, &[]).unwrap();
    let first: Value = serde_json::from_str(rest.lines().next().unwrap().strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(first["choices"][0]["delta"], json!({"content": "rld"}));
    assert_eq!((&first["id"], &first["model"]), (&json!("one"), &json!("two")), "one answer, by who answers now");
}

#[test]
fn a_shorter_answer_is_no_continuation() {
    for (dialect, operation, make) in MAKERS {
        let mut told = make(&say("Hello, world"), &PLAIN);
        told.truncate(end_of(&told));
        let mut joiner = Joiner::splice(transcript(dialect, operation, &told.concat()));
        let short = make(&say("Hell"), &Style { name: "two", sizes: &[2], role: true }).concat();
        assert!(joined(&mut joiner, &short, &[]).is_err(), "{operation:?}");
    }
}

#[test]
fn what_is_not_one_text_cannot_be_continued() {
    let chunk = |choices: Value| format!("data: {}\n\n", json!({ "choices": choices }));
    for (events, unfit) in [
        (chunk(json!([{"index": 0, "delta": {"audio": {"data": "x"}}}])), Unfit::NotText),
        ("data: {\"choices\": [{\"delta\": {\"content\": \"\\ud800\"}}]}\n\n".to_owned(), Unfit::Unreadable),
    ] {
        let first = chunk(json!([{"index": 0, "delta": {"content": "x"}}]));
        for events in [events.clone(), first + &events] {
            assert_eq!(transcript(Dialect::OPENAI, Operation::Chat, &events).unfit(), Some(unfit), "{events}");
        }
    }
    let long = chunk(json!([{"delta": {"content": "x".repeat(600_000)}}]));
    assert_eq!(transcript(Dialect::OPENAI, Operation::Chat, &long.repeat(2)).unfit(), Some(Unfit::TooLong));
    assert_eq!(transcript(Dialect::PLAIN, Operation::Other, "").unfit(), Some(Unfit::Unknown));
}

fn prefilled(body: &str, operation: Operation, told: &Transcript, can: &[&str]) -> Option<(Value, usize)> {
    let can = can.iter().map(|name| ((*name).to_owned(), true)).collect();
    let (body, unsent) = prefill(&Bytes::copy_from_slice(body.as_bytes()), operation, told, &can)?;
    Some((serde_json::from_slice(&body).unwrap(), unsent))
}

#[test]
fn a_prefill_is_the_delivered_text_without_white_space_at_its_end() {
    let told = transcript(Dialect::OPENAI, Operation::Chat, &chat(&say("He said \"hi\"\n "), &PLAIN)[..5].concat());
    let body = r#"{"model":"m", "messages": [ {"role":"user","content":"x"} ] ,"stream":true}"#;
    let (sent, unsent) = prefilled(body, Operation::Chat, &told, &[]).unwrap();
    assert_eq!(sent["messages"][1], json!({"role": "assistant", "content": "He said \"hi\""}));
    assert_eq!((unsent, sent["messages"].as_array().unwrap().len()), (2, 2));
    let (sent, _) = prefilled(body, Operation::Chat, &told, &["prefix"]).unwrap();
    assert_eq!(sent["messages"][1]["prefix"], true);
    let (sent, _) = prefilled(body, Operation::Chat, &told, &["continue_final_message"]).unwrap();
    assert_eq!((&sent["continue_final_message"], &sent["add_generation_prompt"]), (&json!(true), &json!(false)));
    let own = r#"{"messages":[{"role":"user"},{"role":"assistant","content":"He"}]}"#;
    assert_eq!(prefilled(own, Operation::Chat, &told, &[]), None, "the client's own prefill stays the last");
    let told = transcript(Dialect::ANTHROPIC, Operation::Message, &messages(&say("Hello"), &PLAIN)[..3].concat());
    let (sent, unsent) = prefilled(body, Operation::Message, &told, &[]).unwrap();
    assert_eq!((&sent["messages"][1]["content"], unsent), (&json!("Hell"), 0));
    let text = "data: {\"choices\":[{\"text\":\"a\\\"b\"}]}\n\n";
    let told = transcript(Dialect::OPENAI, Operation::Completion, text);
    let (sent, _) = prefilled(r#"{"prompt":"Once \"","stream":true}"#, Operation::Completion, &told, &[]).unwrap();
    assert_eq!(sent["prompt"], "Once \"a\"b");
}

#[test]
fn only_one_open_text_can_be_prefilled() {
    let body = r#"{"messages":[{"role":"user","content":"x"}]}"#;
    let thought = Says { thinks: "hm".into(), ..say("Hello") };
    for events in [chat(&thought, &PLAIN), chat(&say(" "), &PLAIN)[..2].to_vec()] {
        let told = transcript(Dialect::OPENAI, Operation::Chat, &events.concat());
        assert_eq!(prefilled(body, Operation::Chat, &told, &[]), None);
    }
    let closed = messages(&say("Hello"), &PLAIN)[..5].concat();
    let told = transcript(Dialect::ANTHROPIC, Operation::Message, &closed);
    assert_eq!(prefilled(body, Operation::Message, &told, &[]), None, "its block is closed");
    let told = transcript(Dialect::OPENAI, Operation::Response, &responses(&say("Hello"), &PLAIN)[..5].concat());
    assert_eq!(prefilled(body, Operation::Response, &told, &[]), None);
}

#[test]
fn a_continuation_is_relayed_as_it_comes_but_for_white_space_said_twice() {
    for (told, continues, whole) in [
        ("Hello,", " world", "Hello, world"),
        ("Hello, ", " world", "Hello, world"),
        ("Hello, ", "world", "Hello, world"),
        ("f():\n", "\n    return", "f():\n    return"),
        ("ha ", "ha ha", "ha ha ha"),
    ] {
        for (dialect, operation, make, tail) in [
            (Dialect::OPENAI, Operation::Chat, chat as Maker, 0),
            (Dialect::ANTHROPIC, Operation::Message, messages, 2),
        ] {
            let first = make(&say(told), &PLAIN);
            // Without the block's end, and the ping after it.
            let delivered = first[..end_of(&first) - tail].concat();
            let told_so_far = transcript(dialect, operation, &delivered);
            let unsent = told.len() - told.trim_end().len();
            let mut joiner = Joiner::continued(told_so_far, unsent);
            let next = make(&say(continues), &Style { name: "two", sizes: &[1], role: true }).concat();
            let rest = joined(&mut joiner, &next, &[]).expect("a continuation is never refused");
            let (texts, structure) = understood(dialect, operation, &(delivered.clone() + &rest));
            assert_eq!(texts.values().next().unwrap(), whole, "{operation:?} {delivered}{rest}");
            assert!(structure.values().all(|times| *times == 1), "{structure:?}");
        }
    }
}

#[test]
fn a_server_that_says_its_prefill_again_is_understood() {
    let told = "A sentence that is longer than a coincidence,";
    let first = chat(&say(told), &PLAIN);
    let delivered = first[..end_of(&first)].concat();
    for (next, rest, whole) in [
        (format!("{told} is an echo."), Ok(()), format!("{told} is an echo.")),
        ("A sentence is no echo.".to_owned(), Ok(()), format!("{told}A sentence is no echo.")),
        (" and goes on.".to_owned(), Ok(()), format!("{told} and goes on.")),
        ("A sentence".to_owned(), Err(Unfit::Shorter), told.to_owned()),
    ] {
        for size in [1, 5, 400] {
            let mut joiner = Joiner::continued(transcript(Dialect::OPENAI, Operation::Chat, &delivered), 0);
            let other = chat(&say(&next), &Style { name: "two", sizes: &[size], role: true }).concat();
            let got = joined(&mut joiner, &other, &[]);
            assert_eq!(got.clone().map(drop), rest, "{next:?}");
            let client = delivered.clone() + &got.unwrap_or_default();
            assert_eq!(understood(Dialect::OPENAI, Operation::Chat, &client).0["content"], whole);
        }
    }
}

proptest! {
    #[test]
    fn no_event_makes_it_panic(events in prop::collection::vec(odd_json(), 0..12), others in prop::collection::vec(odd_json(), 0..12)) {
        for (dialect, operation, _) in MAKERS {
            let text = |events: &[Value]| events.iter().map(|e| event(e["type"].as_str(), e)).collect::<String>();
            let told = transcript(dialect, operation, &text(&events));
            for mut joiner in [Joiner::splice(told.clone()), Joiner::continued(told, 3)] {
                each_event(text(&others).as_bytes(), &[], |event| _ = joiner.take(event));
            }
        }
    }
}

/// Trees of the names that matter, in no order that means anything.
fn odd_json() -> impl Strategy<Value = Value> {
    let names = vec![
        "choices",
        "delta",
        "index",
        "content",
        "tool_calls",
        "function",
        "arguments",
        "name",
        "id",
        "type",
        "response",
        "output",
        "output_index",
        "item",
        "content_block",
        "usage",
        "text",
        "role",
        "finish_reason",
        "logprobs",
    ];
    let words = vec!["a", "ab", "", "response.output_text.delta", "content_block_delta", "content_block_start", "text"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0u64..3).prop_map(Value::from),
        prop::sample::select(words).prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(names.clone()), inner, 0..5)
                .prop_map(|map| Value::from_iter(map.into_iter().map(|(name, value)| (name.to_owned(), value)))),
        ]
    })
}

#[test]
fn the_usage_of_a_continuation_is_that_of_what_the_client_got() {
    let delivered = chat(&say("Hello, wo"), &PLAIN)[..4].concat();
    let told = transcript(Dialect::OPENAI, Operation::Chat, &delivered);
    assert_eq!(told.tokens(), 3);
    let mut joiner = Joiner::continued(told, 0);
    let rest = joined(&mut joiner, &chat(&say("rld"), &PLAIN).concat(), &[]).unwrap();
    let usage = rest.lines().find(|l| l.contains("\"usage\"")).and_then(|l| l.strip_prefix("data: ")).unwrap();
    let usage: Value = serde_json::from_str(usage).unwrap();
    assert_eq!(usage["usage"], json!({"prompt_tokens": 2, "completion_tokens": 12}));
}

#[test]
fn an_answer_after_nothing_passes_as_it_is() {
    let mut joiner = Joiner::splice(Transcript::new(Dialect::OPENAI, Operation::Chat));
    let other = chat(&say("Hello"), &PLAIN).concat();
    assert_eq!(joined(&mut joiner, &other, &[3, 50]).unwrap(), other);
    assert_eq!(joiner.told().texts[0].1, "Hello");
}
