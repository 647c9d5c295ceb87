//! An event taken apart: the texts it adds to and the structure it makes, each of which can be kept, cut or dropped.

use serde_json::{Map, Value};
use thiserror::Error;

use crate::dialect::usage::Format;

/// Why a stream cannot be continued, or another answer cannot continue it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unfit {
    /// Several answers are woven into one stream.
    #[error("it has several choices")]
    SeveralChoices,
    /// It carries something that is neither text nor a tool call.
    #[error("it carries more than text and tool calls")]
    NotText,
    /// An event could not be read.
    #[error("one of its events could not be read")]
    Unreadable,
    /// More was delivered than is kept in mind.
    #[error("it is longer than what is kept of a stream")]
    TooLong,
    /// The streams of this dialect are not known.
    #[error("streams of this kind are passed on unread")]
    Unknown,
    /// The other answer says something else.
    #[error("the next answer goes another way than the one that was begun")]
    Differs,
    /// The other answer ends earlier.
    #[error("the next answer ends before what was already delivered")]
    Shorter,
}

/// A part of an event.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part<'a> {
    /// Adds to a text; what is added to one channel is one text.
    Text {
        /// Which text.
        channel: &'a str,
        /// What is added.
        text: &'a str,
    },
    /// Opens, names or closes something.
    Mark(&'a str),
    /// Structure that one provider sends and another leaves out; it is not to be repeated.
    Note(&'a str),
    /// Says why the answer ends, or that it ended.
    End,
}

/// What becomes of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It stays.
    Keep,
    /// The text loses so many bytes at its beginning.
    From(usize),
    /// Another text stands in its place.
    Instead(String),
    /// It goes.
    Drop,
}

/// What was found in an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Walked {
    /// Parts.
    pub(super) parts: usize,
    /// Those that stay, in whole or in part.
    pub(super) kept: usize,
}

/// Puts every part of an event to `judge`, and changes the event by its verdicts.
pub(super) fn walk(
    format: Format,
    event: &mut Value,
    judge: &mut dyn FnMut(Part<'_>) -> Result<Verdict, Unfit>,
) -> Result<Walked, Unfit> {
    let mut walker = Walker { judge, walked: Walked::default(), was_cut: false };
    match format {
        Format::Choices => walker.choices(event)?,
        Format::Responses => walker.responses(event)?,
        Format::Messages => walker.messages(event)?,
        Format::Plain => return Err(Unfit::Unknown),
    }
    Ok(walker.walked)
}

struct Walker<'j> {
    judge: &'j mut dyn FnMut(Part<'_>) -> Result<Verdict, Unfit>,
    walked: Walked,
    was_cut: bool,
}

impl Walker<'_> {
    /// Does the part stay?
    fn put(&mut self, part: Part<'_>) -> Result<bool, Unfit> {
        self.walked.parts += 1;
        let stays = (self.judge)(part)? != Verdict::Drop;
        self.walked.kept += usize::from(stays);
        Ok(stays)
    }

    fn text(&mut self, channel: &str, text: &mut String) -> Result<(), Unfit> {
        if text.is_empty() {
            return Ok(());
        }
        self.walked.parts += 1;
        match (self.judge)(Part::Text { channel, text })? {
            Verdict::Keep => self.walked.kept += 1,
            Verdict::From(at) => {
                text.drain(..at);
                self.walked.kept += 1;
                self.was_cut = true;
            }
            Verdict::Instead(other) => {
                *text = other;
                self.walked.kept += 1;
                self.was_cut = true;
            }
            Verdict::Drop => text.clear(),
        }
        Ok(())
    }

    fn choices(&mut self, event: &mut Value) -> Result<(), Unfit> {
        let Some(choices) = event.get_mut("choices").and_then(Value::as_array_mut) else { return Ok(()) };
        for choice in choices.iter_mut() {
            if choice["index"].as_u64().unwrap_or(0) != 0 {
                return Err(Unfit::SeveralChoices);
            }
            if let Some(Value::String(text)) = choice.get_mut("text") {
                self.text("text", text)?;
            }
            if let Some(Value::Object(delta)) = choice.get_mut("delta") {
                self.delta(delta)?;
            }
            if self.was_cut && choice.get("logprobs").is_some() {
                choice["logprobs"] = Value::Null;
            }
            if is_filled(&choice["finish_reason"]) {
                self.put(Part::End)?;
            }
        }
        if choices.len() > 1 { Err(Unfit::SeveralChoices) } else { Ok(()) }
    }

    /// Any text member of a delta is a text of its own, so that reasoning, refusals and what is invented next year
    /// are compared like the content.
    fn delta(&mut self, delta: &mut Map<String, Value>) -> Result<(), Unfit> {
        if delta.contains_key("role") && !self.put(Part::Note("role"))? {
            delta.remove("role");
        }
        for (name, value) in delta.iter_mut() {
            match value {
                _ if name == "role" => {}
                Value::String(text) => self.text(name, text)?,
                Value::Array(calls) if name == "tool_calls" => {
                    for (position, call) in calls.iter_mut().enumerate() {
                        self.tool_call(position, call)?;
                    }
                    calls.retain(|call| call.get("id").is_some() || call.get("function").is_some_and(has_text));
                }
                value if is_filled(value) => return Err(Unfit::NotText),
                _ => {}
            }
        }
        if delta.get("tool_calls").is_some_and(|calls| !is_filled(calls)) {
            delta.remove("tool_calls");
        }
        Ok(())
    }

    fn tool_call(&mut self, position: usize, call: &mut Value) -> Result<(), Unfit> {
        let index = call["index"].as_u64().unwrap_or(position as u64);
        let Value::Object(call) = call else { return Err(Unfit::NotText) };
        if call.get("id").is_some_and(is_filled) && !self.put(Part::Mark(&format!("tool/{index}")))? {
            // Its id was told; the other answer's own means nothing to the client.
            call.remove("id");
            call.remove("type");
        }
        let Some(Value::Object(function)) = call.get_mut("function") else { return Ok(()) };
        for (name, value) in function.iter_mut() {
            match value {
                Value::String(text) => self.text(&format!("tool/{index}/{name}"), text)?,
                value if is_filled(value) => return Err(Unfit::NotText),
                _ => {}
            }
        }
        if function.get("name").is_some_and(|name| !is_filled(name)) {
            function.remove("name");
        }
        Ok(())
    }

    fn messages(&mut self, event: &mut Value) -> Result<(), Unfit> {
        let kind = event["type"].as_str().unwrap_or_default().to_owned();
        let index = event["index"].as_u64().unwrap_or(0);
        match &*kind {
            "message_start" => self.put(Part::Note("message_start")).map(drop),
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
                self.put(Part::Mark(&mark)).map(drop)
            }
            "content_block_delta" => {
                let Some(delta) = event.get_mut("delta").and_then(Value::as_object_mut) else { return Ok(()) };
                for (name, value) in delta.iter_mut().filter(|(name, _)| *name != "type") {
                    match value {
                        Value::String(text) => self.text(&format!("{index}/{name}"), text)?,
                        value if is_filled(value) => return Err(Unfit::NotText),
                        _ => {}
                    }
                }
                Ok(())
            }
            "content_block_stop" => self.put(Part::Mark(&format!("stop/{index}"))).map(drop),
            "message_delta" | "message_stop" => self.put(Part::End).map(drop),
            _ => Ok(()),
        }
    }

    fn responses(&mut self, event: &mut Value) -> Result<(), Unfit> {
        let kind = event["type"].as_str().unwrap_or_default().to_owned();
        let number = |member: &str| event[member].as_u64();
        let place = format!(
            "{}/{}",
            number("output_index").unwrap_or(0),
            number("content_index").or(number("summary_index")).unwrap_or(0)
        );
        match &*kind {
            "response.created" | "response.in_progress" | "response.queued" => self.put(Part::Note(&kind)).map(drop),
            "response.completed" | "response.incomplete" => self.put(Part::End).map(drop),
            "response.output_item.added" => {
                let word = |member: &str| event["item"][member].as_str().unwrap_or_default();
                let mark = format!("{kind}/{place}/{}/{}", word("type"), word("name"));
                self.put(Part::Mark(&mark)).map(drop)
            }
            _ => match (kind.strip_suffix(".delta"), event.get_mut("delta")) {
                (Some(what), Some(Value::String(text))) => {
                    self.text(&format!("{what}/{place}"), text)?;
                    if self.was_cut && event.get("logprobs").is_some() {
                        event["logprobs"] = Value::Array(Vec::new());
                    }
                    Ok(())
                }
                (Some(_), _) => Err(Unfit::NotText),
                (None, _) if kind.is_empty() => Ok(()),
                (None, _) => self.put(Part::Mark(&format!("{kind}/{place}"))).map(drop),
            },
        }
    }
}

fn has_text(function: &Value) -> bool {
    function.as_object().is_some_and(|members| members.values().any(is_filled))
}

fn is_filled(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Bool(yes) => *yes,
        Value::Number(_) => true,
    }
}
