//! Parts of the events of the Responses API, compared when another answer continues a stream.

use serde_json::Value;

use crate::dialect::format::{Names, Part, Resumable, Unfit, Walker, restore};

/// Events of the Responses API.
#[derive(Debug)]
pub(super) struct ResponseParts;

impl Resumable for ResponseParts {
    fn walk(&self, walker: &mut Walker<'_>, event: &mut Value) -> Result<(), Unfit> {
        let kind = event["type"].as_str().unwrap_or_default().to_owned();
        let number = |member: &str| event[member].as_u64();
        let place = format!(
            "{}/{}",
            number("output_index").unwrap_or(0),
            number("content_index").or(number("summary_index")).unwrap_or(0)
        );
        match &*kind {
            "response.created" | "response.in_progress" | "response.queued" => walker.put(Part::Note(&kind)).map(drop),
            "response.completed" | "response.incomplete" => walker.put(Part::End(0)).map(drop),
            "response.output_item.added" => {
                let word = |member: &str| event["item"][member].as_str().unwrap_or_default();
                let mark = format!("{kind}/{place}/{}/{}", word("type"), word("name"));
                walker.put(Part::Mark(&mark)).map(drop)
            }
            _ => match (kind.strip_suffix(".delta"), event.get_mut("delta")) {
                (Some(what), Some(Value::String(text))) => {
                    walker.text(&format!("{what}/{place}"), text)?;
                    if walker.was_cut() && event.get("logprobs").is_some() {
                        event["logprobs"] = Value::Array(Vec::new());
                    }
                    Ok(())
                }
                (Some(_), _) => Err(Unfit::NotText),
                (None, _) if kind.is_empty() => Ok(()),
                (None, _) => walker.put(Part::Mark(&format!("{kind}/{place}"))).map(drop),
            },
        }
    }

    fn learn_names(&self, names: &mut Names, event: &Value) {
        names.sequence = event["sequence_number"].as_u64().or(names.sequence);
        names.id = names.id.take().or_else(|| event.get("response")?.get("id").cloned());
        if let (Some(index), Some(item)) = (event["output_index"].as_u64(), event.get("item")) {
            let item_names = || (short(&item["id"]), short(&item["call_id"]));
            names.items.entry(index).or_insert_with(item_names);
        }
    }

    fn restore_names(&self, names: &Names, event: &mut Value) {
        if let (Some(last), Some(number)) = (names.sequence, event.get_mut("sequence_number")) {
            *number = (last + 1).into();
        }
        let item_names = |index: u64| names.items.get(&index);
        if let Some((id, call_id)) = event["output_index"].as_u64().and_then(item_names) {
            restore(event, "item_id", Some(id));
            if let Some(item) = event.get_mut("item") {
                restore(item, "id", Some(id));
                restore(item, "call_id", Some(call_id));
            }
        }
        let Some(response) = event.get_mut("response") else { return };
        restore(response, "id", names.id.as_ref());
        let items = response.get_mut("output").and_then(Value::as_array_mut);
        for (index, item) in (0..).zip(items.into_iter().flatten()) {
            if let Some((id, call_id)) = item_names(index) {
                restore(item, "id", Some(id));
                restore(item, "call_id", Some(call_id));
            }
        }
    }
}

/// A name, unless it is longer than names are.
fn short(name: &Value) -> Value {
    const MAX_NAME_BYTES: usize = 256;
    if name.as_str().is_some_and(|name| name.len() <= MAX_NAME_BYTES) { name.clone() } else { Value::Null }
}
