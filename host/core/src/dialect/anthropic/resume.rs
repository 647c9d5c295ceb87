//! Parts of the events of messages, compared when another answer continues a stream.

use std::borrow::Cow;

use serde_json::Value;

use crate::dialect::format::{Part, Resumable, Unfit, Walker, is_filled};
use crate::http::json::{self, Cursor};

/// Events of the messages API.
#[derive(Debug)]
pub(super) struct MessageParts;

impl Resumable for MessageParts {
    fn walk(&self, walker: &mut Walker<'_>, event: &mut Value) -> Result<(), Unfit> {
        let kind = event["type"].as_str().unwrap_or_default().to_owned();
        let index = event["index"].as_u64().unwrap_or(0);
        match &*kind {
            "message_start" => walker.put(Part::Note("message_start")).map(drop),
            "content_block_start" => {
                let block = &event["content_block"];
                let is_text = |name: &str| !matches!(name, "type" | "id" | "name");
                let begins_filled =
                    block.as_object().is_some_and(|b| b.iter().any(|(n, v)| is_text(n) && is_filled(v)));
                if begins_filled {
                    return Err(Unfit::NotText);
                }
                let word = |member: &str| block[member].as_str().unwrap_or_default();
                let mark = format!("start/{index}/{}/{}", word("type"), word("name"));
                walker.put(Part::Mark(&mark)).map(drop)
            }
            "content_block_delta" => {
                let Some(delta) = event.get_mut("delta").and_then(Value::as_object_mut) else { return Ok(()) };
                for (name, value) in delta.iter_mut().filter(|(name, _)| *name != "type") {
                    match value {
                        Value::String(text) => walker.text(&format!("{index}/{name}"), text)?,
                        value if is_filled(value) => return Err(Unfit::NotText),
                        _ => {}
                    }
                }
                Ok(())
            }
            "content_block_stop" => walker.put(Part::Mark(&format!("stop/{index}"))).map(drop),
            "message_delta" | "message_stop" => walker.put(Part::End(0)).map(drop),
            _ => Ok(()),
        }
    }

    fn only_text<'a>(&self, data: &'a [u8], _is_role_known: bool) -> Option<(Cow<'static, str>, &'a [u8])> {
        match text_of_block(data)? {
            (0, raw) => Some(("0/text".into(), raw)),
            (index, raw) => Some((format!("{index}/text").into(), raw)),
        }
    }

    fn prefill_channels(&self) -> &'static [&'static str] {
        &["0/text"]
    }

    fn prefill_mark(&self) -> Option<&'static str> {
        Some("start/0/text/")
    }

    fn opens_instead_of_prefill(&self, mark: &str) -> bool {
        mark.starts_with("start/0/")
    }

    fn usage_names(&self) -> Option<(&'static str, &'static str)> {
        Some(("output_tokens", "input_tokens"))
    }
}

/// The block's index and the raw text of an Anthropic text delta.
fn text_of_block(data: &[u8]) -> Option<(u64, &[u8])> {
    let (mut index, mut text) = (None, None);
    let mut at = Cursor::new(data);
    if !at.enter(b'{') {
        return None;
    }
    while let Some(name) = at.name() {
        if name == b"delta" && at.enter(b'{') {
            while let Some(name) = at.name() {
                let value = at.value();
                match name {
                    b"type" if value == b"\"text_delta\"" => {}
                    b"text" if value.first() == Some(&b'"') => text = Some(value),
                    _ => return None,
                }
            }
            continue;
        }
        let value = at.value();
        match name {
            b"type" if value != b"\"content_block_delta\"" => return None,
            b"index" => index = json::count(value),
            _ => {}
        }
    }
    Some((index?, text?))
}
