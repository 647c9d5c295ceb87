//! Events put together into the whole message that they tell, for a client that asked for no stream.

use serde_json::{Map, Value, json};

/// More blocks than this are not put together.
const MAX_BLOCKS: usize = 4_096;

/// The whole message that these events tell; none where they open none.
pub(super) fn join(events: Vec<Value>) -> Option<Value> {
    let mut message = None;
    let mut blocks: Vec<(u64, Block)> = Vec::new();
    for mut event in events {
        let index = event["index"].as_u64().unwrap_or(0);
        match event["type"].as_str().unwrap_or_default() {
            "message_start" => message = event.get_mut("message").map(Value::take),
            "content_block_start" => {
                if blocks.len() == MAX_BLOCKS {
                    return None;
                }
                let value = event.get_mut("content_block").map(Value::take).unwrap_or_default();
                blocks.push((index, Block { value, input: String::new() }));
            }
            "content_block_delta" => {
                let delta = event.get_mut("delta").map(Value::take).unwrap_or_default();
                if let Some((_, block)) = blocks.iter_mut().rfind(|(of, _)| *of == index) {
                    block.add(delta);
                }
            }
            "message_delta" => end(message.as_mut()?.as_object_mut()?, event),
            _ => {}
        }
    }
    let mut message = message?;
    message.as_object_mut()?.insert("content".to_owned(), blocks.into_iter().map(|(_, block)| block.whole()).collect());
    Some(message)
}

/// A content block under way.
struct Block {
    value: Value,
    /// Its input as it came, in pieces of JSON.
    input: String,
}

impl Block {
    fn add(&mut self, delta: Value) {
        let (Value::Object(delta), Some(block)) = (delta, self.value.as_object_mut()) else { return };
        for (name, piece) in delta {
            match (&*name, piece) {
                ("type", _) => {}
                ("partial_json", Value::String(piece)) => self.input.push_str(&piece),
                ("citation", citation) => {
                    if let Some(list) = block.entry("citations").or_insert_with(|| json!([])).as_array_mut() {
                        list.push(citation);
                    }
                }
                (_, Value::String(piece)) => match block.get_mut(&name) {
                    Some(Value::String(text)) => text.push_str(&piece),
                    Some(_) | None => _ = block.insert(name, Value::String(piece)),
                },
                (_, piece) => _ = block.insert(name, piece),
            }
        }
    }

    fn whole(mut self) -> Value {
        if !self.input.is_empty()
            && let (Ok(input), Some(block)) = (serde_json::from_str(&self.input), self.value.as_object_mut())
        {
            block.insert("input".to_owned(), input);
        }
        self.value
    }
}

/// Takes over why the message ended, and its usage; a count that is not told again stays.
fn end(message: &mut Map<String, Value>, mut event: Value) {
    if let Some(Value::Object(delta)) = event.get_mut("delta").map(Value::take) {
        message.extend(delta);
    }
    if let Some(Value::Object(told)) = event.get_mut("usage").map(Value::take) {
        let usage = message.entry("usage").or_insert_with(|| json!({}));
        if let Some(usage) = usage.as_object_mut() {
            usage.extend(told.into_iter().filter(|(_, count)| !count.is_null()));
        }
    }
}
