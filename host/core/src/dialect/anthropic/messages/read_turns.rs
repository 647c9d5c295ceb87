//! Reads the messages of a request for Anthropic's messages API.

use std::borrow::Cow;

use crate::dialect::format::neutral::{Call, PDF, Part, ToolResult, Turn};
use crate::dialect::format::read::{Field, Object};
use crate::dialect::format::{Api, Read};

/// Members of a block that make no difference to the answer.
const HARMLESS: &[&str] = &["cache_control"];

/// Text for a failed tool, for a model whose API has no flag for it.
const TOOL_FAILED: &str = "The tool call failed.";

/// An array of blocks; text alone stands for one block.
enum Content<'a> {
    Text(Cow<'a, str>),
    Blocks(Vec<Field<'a>>),
}

pub(super) fn read<'a>(messages: Field<'a>) -> Read<Vec<Turn<'a>>> {
    let whole = messages.clone();
    let mut turns = Vec::new();
    for field in messages.list()? {
        let mut message = field.clone().object()?;
        let role = message.need("role")?;
        let content = message.need("content")?;
        message.finish()?;
        match &*role.text()? {
            "user" => user(content, &mut turns)?,
            "assistant" => turns.push(assistant(content)?),
            "system" if field.target().takes_late_instructions => turns.push(Turn::System(texts(content)?)),
            _ => return Err(role.no_counterpart()),
        }
    }
    let Api { name, continues_the_assistant, .. } = whole.target();
    match turns.last() {
        None => Err(whole.wrong("is empty")),
        Some(Turn::Assistant { .. }) if !continues_the_assistant => {
            let why = format!("ends with the assistant, which {name} would answer instead of continuing");
            Err(whole.wrong(why))
        }
        Some(Turn::User(_) | Turn::Assistant { .. } | Turn::Results(_) | Turn::System(_)) => Ok(turns),
    }
}

/// A text, or an array of text blocks.
pub(super) fn texts<'a>(field: Field<'a>) -> Read<Vec<Cow<'a, str>>> {
    match content(field)? {
        Content::Text(text) => Ok(vec![text]),
        Content::Blocks(blocks) => blocks.into_iter().map(text_block).collect(),
    }
}

fn content<'a>(field: Field<'a>) -> Read<Content<'a>> {
    if field.is_string() { field.text().map(Content::Text) } else { field.list().map(Content::Blocks) }
}

fn text_block<'a>(field: Field<'a>) -> Read<Cow<'a, str>> {
    let (kind, mut block) = open(field)?;
    if !kind.is_one_of(&["text"]) {
        return Err(kind.no_counterpart());
    }
    let text = text(&mut block)?;
    block.finish()?;
    Ok(text)
}

fn text<'a>(block: &mut Object<'a>) -> Read<Cow<'a, str>> {
    block.only("citations", Field::is_empty)?;
    block.need("text")?.text()
}

/// A block's type, and the rest of it.
fn open<'a>(field: Field<'a>) -> Read<(Field<'a>, Object<'a>)> {
    let mut block = field.object()?;
    block.forget(HARMLESS);
    Ok((block.need("type")?, block))
}

/// Splits a user message: tool results come first, in a turn of their own, then the user's text.
fn user<'a>(field: Field<'a>, turns: &mut Vec<Turn<'a>>) -> Read<()> {
    let blocks = match content(field.clone())? {
        Content::Text(text) => {
            turns.push(Turn::User(vec![Part::Text(text)]));
            return Ok(());
        }
        Content::Blocks(blocks) => blocks,
    };
    let (mut results, mut parts) = (Vec::new(), Vec::new());
    for whole in blocks {
        let (kind, mut block) = open(whole.clone())?;
        match &*kind.text()? {
            "tool_result" if parts.is_empty() => results.push(result(&mut block)?),
            "tool_result" => return Err(whole.wrong("must come before what the user says")),
            "text" => parts.push(Part::Text(text(&mut block)?)),
            "image" => parts.push(image(&mut block)?),
            "document" => parts.push(document(&mut block)?),
            _ => return Err(kind.no_counterpart()),
        }
        block.finish()?;
    }
    if results.is_empty() && parts.is_empty() {
        return Err(field.wrong("is empty"));
    }
    if !results.is_empty() {
        turns.push(Turn::Results(results));
    }
    if !parts.is_empty() {
        turns.push(Turn::User(parts));
    }
    Ok(())
}

fn result<'a>(block: &mut Object<'a>) -> Read<ToolResult<'a>> {
    let call = block.need("tool_use_id")?.text()?;
    let mut texts = block.take("content").map_or(Ok(Vec::new()), texts)?;
    if block.take("is_error").map(|f| f.bool()).transpose()? == Some(true) {
        match texts.first_mut() {
            Some(first) => *first = format!("{TOOL_FAILED}\n{first}").into(),
            None => texts.push(TOOL_FAILED.into()),
        }
    }
    Ok(ToolResult { call, texts })
}

fn image<'a>(block: &mut Object<'a>) -> Read<Part<'a>> {
    block.only("transformations", Field::is_empty)?;
    let mut source = block.need("source")?.object()?;
    let kind = source.need("type")?;
    let part = match &*kind.text()? {
        "base64" => {
            Part::ImageData { media_type: source.need("media_type")?.text()?, base64: source.need("data")?.text()? }
        }
        "url" => Part::ImageUrl(source.need("url")?.text()?),
        _ => return Err(kind.no_counterpart()),
    };
    source.finish()?;
    Ok(part)
}

fn document<'a>(block: &mut Object<'a>) -> Read<Part<'a>> {
    if let Some(citations) = block.take("citations") {
        let mut citations = citations.object()?;
        citations.only("enabled", |f| f.bool() == Ok(false))?;
        citations.finish()?;
    }
    block.only("context", Field::is_empty)?;
    let name = block.take("title").map(|f| f.text()).transpose()?;
    let mut source = block.need("source")?.object()?;
    source.only("type", |f| f.is_one_of(&["base64"]))?;
    source.only("media_type", |f| f.is_one_of(&[PDF]))?;
    let base64 = source.need("data")?.text()?;
    source.finish()?;
    Ok(Part::Pdf { name, base64 })
}

/// Words, then calls. Thoughts are left out: they are signed for the model that had them, and no other can read them.
fn assistant<'a>(field: Field<'a>) -> Read<Turn<'a>> {
    let blocks = match content(field.clone())? {
        Content::Text(text) => return Ok(Turn::Assistant { texts: vec![text], calls: Vec::new() }),
        Content::Blocks(blocks) => blocks,
    };
    let (mut texts, mut calls) = (Vec::new(), Vec::new());
    for whole in blocks {
        let (kind, mut block) = open(whole.clone())?;
        match &*kind.text()? {
            "thinking" | "redacted_thinking" => continue,
            "text" if calls.is_empty() => texts.push(text(&mut block)?),
            "text" => {
                let name = whole.target().name;
                let why = format!("comes after a tool call, an order that has no counterpart in {name}");
                return Err(whole.wrong(why));
            }
            "tool_use" => calls.push(call(&mut block)?),
            _ => return Err(kind.no_counterpart()),
        }
        block.finish()?;
    }
    if texts.is_empty() && calls.is_empty() {
        return Err(field.wrong("has neither words nor tool calls"));
    }
    Ok(Turn::Assistant { texts, calls })
}

pub(super) fn call<'a>(block: &mut Object<'a>) -> Read<Call<'a>> {
    let id = block.need("id")?.text()?;
    let name = block.need("name")?.text()?;
    let input = block.need("input")?;
    input.clone().object()?;
    if let Some(caller) = block.take("caller") {
        caller.object()?.only("type", |f| f.is_one_of(&["direct"]))?;
    }
    Ok(Call { id, name, input: input.json() })
}
