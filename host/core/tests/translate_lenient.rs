//! Lenient translation: whatever order a conversation comes in, what is written is one that the other API takes, and no
//! text of it is lost; and the requests of coding agents and SDKs, as they were recorded, pass in either way.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use pointsman_core::dialect::translate::request::{Translated, translate};
use pointsman_core::dialect::translate::{Strictness, Translation};
use proptest::prelude::*;
use serde_json::{Value, json};

fn lenient(way: Translation, body: &Value) -> (Value, Vec<String>) {
    let translated = translate(way, Strictness::Lenient, body.to_string().as_bytes(), "m");
    let Translated { body, left_out, .. } = translated.unwrap_or_else(|e| panic!("{e}: {body}"));
    (serde_json::from_slice(&body).unwrap(), left_out.iter().map(|field| field.path.clone()).collect())
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn blocks(message: &Value, kind: &str) -> Vec<Value> {
    list(&message["content"]).into_iter().filter(|block| block["type"] == kind).collect()
}

fn ids(values: &[Value], member: &str) -> Vec<String> {
    values.iter().map(|value| value[member].as_str().unwrap().to_owned()).collect()
}

/// The rules of Anthropic's messages API about the order and content of a conversation.
fn broken_rule_of_messages(request: &Value) -> Option<String> {
    let messages = list(&request["messages"]);
    let role = |message: Option<&Value>| message.map(|m| m["role"].clone()).unwrap_or_default();
    if role(messages.first()) != "user" || role(messages.last()) != "user" {
        return Some("a user must come first and last".to_owned());
    }
    for (i, message) in messages.iter().enumerate() {
        let content = &message["content"];
        let texts: Vec<Value> = blocks(message, "text").iter().map(|block| block["text"].clone()).collect();
        if content == &json!([])
            || texts.iter().chain([content]).any(|t| t.as_str().is_some_and(|t| t.trim().is_empty()))
        {
            return Some(format!("messages[{i}] has an empty text"));
        }
        if !["user", "assistant"].map(Value::from).contains(&message["role"]) {
            return Some(format!("messages[{i}] is by {}", message["role"]));
        }
        let called = ids(&blocks(message, "tool_use"), "id");
        let next = messages.get(i + 1).cloned().unwrap_or_default();
        let answered = ids(&blocks(&next, "tool_result"), "tool_use_id");
        if called.iter().collect::<BTreeSet<_>>() != answered.iter().collect() || called.len() != answered.len() {
            return Some(format!("messages[{i}] calls {called:?} and is answered {answered:?}"));
        }
        let first = list(content).iter().take_while(|block| block["type"] == "tool_result").count();
        if first != blocks(message, "tool_result").len() {
            return Some(format!("messages[{i}] has a result behind something else"));
        }
    }
    list(&request["tools"])
        .iter()
        .any(|tool| tool["input_schema"]["type"].is_null())
        .then(|| "a schema has no type".to_owned())
}

/// The rules of OpenAI's chat completions API about the order of a conversation.
fn broken_rule_of_chat(request: &Value) -> Option<String> {
    let messages = list(&request["messages"]);
    let mut waiting: Vec<String> = Vec::new();
    for (i, message) in messages.iter().enumerate() {
        let id = message["tool_call_id"].as_str();
        match message["role"].as_str() {
            Some("tool") => match waiting.iter().position(|w| Some(&**w) == id) {
                Some(at) => drop(waiting.remove(at)),
                None => return Some(format!("messages[{i}] answers nothing")),
            },
            _ if !waiting.is_empty() => return Some(format!("messages[{i}] comes before the results of {waiting:?}")),
            Some("assistant") => waiting = ids(&list(&message["tool_calls"]), "id"),
            Some("system" | "user") => {}
            role => return Some(format!("messages[{i}] is by {role:?}")),
        }
        if message["role"] == "tool" && list(&message["content"]).iter().any(|part| part["type"] != "text") {
            return Some(format!("messages[{i}] has a picture in a result"));
        }
    }
    if list(&request["stop"]).len() > 4 {
        return Some("it has more than four stop sequences".to_owned());
    }
    (!waiting.is_empty()).then(|| format!("the results of {waiting:?} are missing"))
}

/// A text that cannot be taken for a part of another one.
fn mark(number: usize) -> String {
    format!("<{number}>")
}

#[derive(Clone, Debug)]
enum Said {
    User,
    Blank,
    Assistant,
    Calls(Vec<u8>),
    Result(u8),
    Picture(u8),
    System,
}

fn conversation() -> impl Strategy<Value = Vec<Said>> {
    let said = prop_oneof![
        Just(Said::User),
        Just(Said::Blank),
        Just(Said::Assistant),
        prop::collection::vec(0..4u8, 1..3).prop_map(|calls| Said::Calls(Vec::from_iter(BTreeSet::from_iter(calls)))),
        (0..4u8).prop_map(Said::Result),
        (0..4u8).prop_map(Said::Picture),
        Just(Said::System),
    ];
    prop::collection::vec(said, 1..12)
}

/// The conversation as a chat; a call's id is unique among those that wait for a result.
fn chat(said: &[Said]) -> Value {
    let message = |(i, said): (usize, &Said)| {
        let text = mark(i);
        match said {
            Said::User => json!({"role": "user", "content": text}),
            Said::Blank => json!({"role": "user", "content": " \n"}),
            Said::Assistant => json!({"role": "assistant", "content": text}),
            Said::Calls(calls) => {
                let call = |id| json!({"id": format!("c{i}_{id}"), "type": "function", "function": {"name": "f", "arguments": "{}"}});
                json!({"role": "assistant", "content": null, "tool_calls": calls.iter().map(call).collect::<Vec<_>>()})
            }
            Said::Result(id) => json!({"role": "tool", "tool_call_id": id_of(*id, i), "content": text}),
            Said::Picture(id) => {
                let image = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}});
                json!({"role": "tool", "tool_call_id": id_of(*id, i), "content": [image, {"type": "text", "text": text}]})
            }
            Said::System => json!({"role": "system", "content": text}),
        }
    };
    json!({"model": "m", "messages": said.iter().enumerate().map(message).collect::<Vec<_>>()})
}

/// The same as messages.
fn messages(said: &[Said]) -> Value {
    let message = |(i, said): (usize, &Said)| {
        let text = json!({"type": "text", "text": mark(i)});
        let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}});
        match said {
            Said::User => json!({"role": "user", "content": [text]}),
            Said::Blank => json!({"role": "user", "content": []}),
            Said::Assistant => json!({"role": "assistant", "content": [text]}),
            Said::Calls(calls) => {
                let call = |id| json!({"type": "tool_use", "id": format!("c{i}_{id}"), "name": "f", "input": {}});
                json!({"role": "assistant", "content": calls.iter().map(call).collect::<Vec<_>>()})
            }
            Said::Result(id) => {
                json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": id_of(*id, i), "content": [text]}]})
            }
            Said::Picture(id) => {
                let result =
                    json!({"type": "tool_result", "tool_use_id": id_of(*id, i), "content": [image, text.clone()]});
                json!({"role": "user", "content": [text, result]})
            }
            Said::System => json!({"role": "system", "content": [text]}),
        }
    };
    json!({"model": "m", "max_tokens": 5, "messages": said.iter().enumerate().map(message).collect::<Vec<_>>()})
}

/// A call that a result may be of: often one of the turn before it, sometimes none.
fn id_of(id: u8, at: usize) -> String {
    format!("c{}_{id}", at.saturating_sub(1 + usize::from(id) % 2))
}

fn assert_texts_kept(said: &[Said], written: &Value) -> Result<(), TestCaseError> {
    let written = written.to_string();
    for (i, said) in said.iter().enumerate() {
        if !matches!(said, Said::Blank | Said::Calls(_)) {
            prop_assert!(written.contains(&mark(i)), "{i} is lost in {written}");
        }
    }
    let pictures = said.iter().filter(|said| matches!(said, Said::Picture(_))).count();
    prop_assert_eq!(written.matches("aGk=").count(), pictures);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_chat_becomes_messages_that_anthropic_takes(said in conversation()) {
        let says_something = |said: &Said| !matches!(said, Said::Blank);
        prop_assume!(said.iter().any(says_something));
        let (written, _) = lenient(Translation::CHAT_TO_MESSAGES, &chat(&said));
        prop_assert_eq!(broken_rule_of_messages(&written), None, "{}", written);
        assert_texts_kept(&said, &written)?;
    }

    #[test]
    fn any_messages_become_a_chat_that_openai_takes(said in conversation()) {
        // To go on with the assistant's own words is another request, and refused.
        prop_assume!(!matches!(said.last(), Some(Said::Assistant)));
        prop_assume!(said.iter().any(|said| !matches!(said, Said::Blank)));
        prop_assume!(said.iter().rfind(|said| !matches!(said, Said::Blank)).is_some_and(|last| !matches!(last, Said::Assistant)));
        let (written, _) = lenient(Translation::MESSAGES_TO_CHAT, &messages(&said));
        prop_assert_eq!(broken_rule_of_chat(&written), None, "{}", written);
        assert_texts_kept(&said, &written)?;
    }
}

/// The recorded requests: the body of each, and the way it goes.
fn recorded() -> Vec<(String, Translation, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/agents");
    let mut recorded = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let body: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let way = if name.starts_with("chat-") { Translation::CHAT_TO_MESSAGES } else { Translation::MESSAGES_TO_CHAT };
        recorded.push((name, way, body));
    }
    recorded
}

#[test]
fn what_coding_agents_and_sdks_send_passes_in_either_way() {
    let recorded = recorded();
    for (name, way, body) in &recorded {
        let (written, left_out) = lenient(*way, body);
        let (back, broken) = if *way == Translation::CHAT_TO_MESSAGES {
            (Translation::MESSAGES_TO_CHAT, broken_rule_of_messages(&written))
        } else {
            (Translation::CHAT_TO_MESSAGES, broken_rule_of_chat(&written))
        };
        assert_eq!(broken, None, "{name}: {written}");
        let expected: &[&str] = match &**name {
            "messages-claude-code" | "messages-claude-code-2" => &["context_management"],
            "chat-openai" | "chat-openai-plain" => &["seed"],
            _ => &[],
        };
        assert_eq!(left_out, expected, "{name}");
        // And back, as behind another proxy.
        let (again, _) = lenient(back, &written);
        for member in ["tools", "max_tokens", "stream"] {
            let size =
                |request: &Value| request[member].as_array().map_or(request[member].clone(), |list| json!(list.len()));
            assert_eq!(size(&again), size(&written), "{member} of {name}");
        }
    }
    assert!(recorded.len() >= 15, "only {} requests were found", recorded.len());
}
