//! Chunks put together into the whole answer that they tell, for a client that asked for no stream.

use serde_json::{Map, Value, json};

use crate::dialect::format::Finish;

/// More choices than this are not put together.
const MAX_CHOICES: usize = 128;

/// The whole answer that these chunks tell; none where no choice is in them.
pub(super) fn join(chunks: Vec<Value>) -> Option<Value> {
    let mut answer = Map::new();
    let mut choices: Vec<Map<String, Value>> = Vec::new();
    for chunk in chunks {
        let Value::Object(chunk) = chunk else { continue };
        for (name, value) in chunk {
            match (&*name, value) {
                ("choices", Value::Array(pieces)) => {
                    for (position, piece) in pieces.into_iter().enumerate() {
                        add_choice(&mut choices, position, piece)?;
                    }
                }
                ("choices", _) => {}
                // The last usage is the whole answer's.
                ("usage", usage) if usage.is_object() => _ = answer.insert(name, usage),
                ("usage", _) => {}
                (_, value) => _ = answer.entry(name).or_insert(value),
            }
        }
    }
    if choices.is_empty() {
        return None;
    }
    choices.sort_by_key(|choice| choice["index"].as_u64());
    if answer.get("object").is_some_and(|object| object == "chat.completion.chunk") {
        answer.insert("object".to_owned(), json!("chat.completion"));
    }
    answer.insert("choices".to_owned(), choices.into_iter().map(whole).collect());
    Some(Value::Object(answer))
}

/// A choice as a whole answer has it.
fn whole(mut choice: Map<String, Value>) -> Value {
    let calls =
        choice.get_mut("message").and_then(|message| message.get_mut("tool_calls")).and_then(Value::as_array_mut);
    for call in calls.into_iter().flatten().filter_map(Value::as_object_mut) {
        call.remove("index");
    }
    choice.entry("finish_reason").or_insert(Value::Null);
    Value::Object(choice)
}

fn add_choice(choices: &mut Vec<Map<String, Value>>, position: usize, piece: Value) -> Option<()> {
    let Value::Object(piece) = piece else { return Some(()) };
    let index = piece.get("index").and_then(Value::as_u64).unwrap_or(position as u64);
    let at = match choices.iter().position(|choice| choice["index"].as_u64() == Some(index)) {
        Some(at) => at,
        None if choices.len() == MAX_CHOICES => return None,
        None => {
            choices.push(Map::from_iter([("index".to_owned(), json!(index))]));
            choices.len() - 1
        }
    };
    let choice = &mut choices[at];
    // Perplexity repeats the whole message so far beside each piece of it.
    let has_delta = piece.get("delta").is_some_and(Value::is_object);
    for (name, value) in piece {
        match (&*name, value) {
            ("index", _) => {}
            ("message", _) if has_delta => {}
            ("delta" | "message", Value::Object(delta)) => {
                let message = choice.entry("message").or_insert_with(|| json!({"role": "assistant", "content": null}));
                add_members(message.as_object_mut()?, delta);
            }
            ("delta" | "message", _) => {}
            ("finish_reason", reason) => {
                if Finish::read(reason.to_string().as_bytes()) == Finish::Complete {
                    choice.insert(name, reason);
                }
            }
            (_, value) => add(choice, name, value),
        }
    }
    Some(())
}

fn add_members(to: &mut Map<String, Value>, from: Map<String, Value>) {
    for (name, value) in from {
        match &*name {
            // Said once, however often it is repeated.
            "role" | "id" | "type" => {
                if value.as_str().is_some_and(|text| !text.is_empty()) {
                    to.insert(name, value);
                }
            }
            _ => add(to, name, value),
        }
    }
}

/// Adds a piece to a member: texts and lists grow, objects member by member; of anything else the last counts.
fn add(to: &mut Map<String, Value>, name: String, piece: Value) {
    match (to.get_mut(&name), piece) {
        (Some(Value::String(text)), Value::String(more)) => text.push_str(&more),
        (Some(Value::Array(list)), Value::Array(more)) if name == "tool_calls" => add_calls(list, more),
        (Some(Value::Array(list)), Value::Array(more)) => list.extend(more),
        (Some(Value::Object(members)), Value::Object(more)) => add_members(members, more),
        (Some(_), Value::Null) => {}
        (_, Value::Array(more)) if name == "tool_calls" => {
            let mut list = Vec::new();
            add_calls(&mut list, more);
            to.insert(name, Value::Array(list));
        }
        (_, piece) => _ = to.insert(name, piece),
    }
}

/// Adds pieces of tool calls. A piece is of a call under way if their indices agree, and their ids where it has one.
fn add_calls(calls: &mut Vec<Value>, pieces: Vec<Value>) {
    for piece in pieces {
        let id = piece["id"].as_str().filter(|id| !id.is_empty());
        let same = |call: &Value| {
            (piece["index"].is_null() || call["index"] == piece["index"]) && id.is_none_or(|id| call["id"] == id)
        };
        let known = calls.iter().rposition(same);
        match (known, piece) {
            (Some(at), Value::Object(piece)) => {
                if let Some(call) = calls[at].as_object_mut() {
                    add_call(call, piece);
                }
            }
            (_, piece) => calls.push(piece),
        }
    }
}

fn add_call(call: &mut Map<String, Value>, piece: Map<String, Value>) {
    for (name, value) in piece {
        match (&*name, value) {
            ("index", _) => {}
            ("function", Value::Object(mut function)) => {
                let known = call.entry("function").or_insert_with(|| json!({}));
                let Some(known) = known.as_object_mut() else { continue };
                // Some servers repeat the name with every piece.
                if known.get("name").is_some_and(|name| Some(name) == function.get("name")) {
                    function.remove("name");
                }
                add_members(known, function);
            }
            ("id" | "type", value) => {
                if value.as_str().is_some_and(|text| !text.is_empty()) {
                    call.insert(name, value);
                }
            }
            (_, value) => add(call, name, value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_beside_its_piece_is_not_added_to_it() {
        let chunk = |piece: &str, whole: &str| json!({"choices": [{"index": 0, "delta": {"content": piece}, "message": {"role": "assistant", "content": whole}}]});
        let answer = join(vec![chunk("Hel", "Hel"), chunk("lo", "Hello"), chunk("", "Hello")]).expect("a choice");
        assert_eq!(answer["choices"][0]["message"]["content"], "Hello");
        let alone = json!({"choices": [{"message": {"content": "Hello"}}]});
        assert_eq!(join(vec![alone]).expect("a choice")["choices"][0]["message"]["content"], "Hello");
    }
}
