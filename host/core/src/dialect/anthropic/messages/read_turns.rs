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
            "assistant" => turns.extend(assistant(content)?),
            "system" if field.target().takes_late_instructions => turns.push(Turn::System(texts(content)?)),
            _ => return Err(role.no_counterpart()),
        }
    }
    let Api { name, continues_the_assistant, .. } = whole.target();
    match turns.last() {
        None if whole.is_strict() || whole.is_empty() => Err(whole.wrong("is empty")),
        // Calls without results are an interrupted turn, which can be mended; a text is meant to be gone on with.
        Some(Turn::Assistant { calls, .. }) if !continues_the_assistant && (whole.is_strict() || calls.is_empty()) => {
            let why = format!("ends with the assistant, which {name} would answer instead of continuing");
            Err(whole.wrong(why))
        }
        None | Some(Turn::User(_) | Turn::Assistant { .. } | Turn::Results(_) | Turn::System(_)) => Ok(turns),
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
    block.hint("citations", Field::is_empty)?;
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
            // Anthropic wants them first, and so does OpenAI; other servers take them anywhere.
            "tool_result" if parts.is_empty() || !whole.is_strict() => results.push(result(&mut block)?),
            "tool_result" => return Err(whole.wrong("must come before what the user says")),
            _ => parts.extend(part(&kind, &mut block)?),
        }
        block.finish()?;
    }
    if results.is_empty() && parts.is_empty() {
        return field.leave_out("is empty");
    }
    if !results.is_empty() {
        turns.push(Turn::Results(results));
    }
    if !parts.is_empty() {
        turns.push(Turn::User(parts));
    }
    Ok(())
}

/// The parts that a block of a user's message, or of a result, is.
fn part<'a>(kind: &Field<'a>, block: &mut Object<'a>) -> Read<Vec<Part<'a>>> {
    Ok(match &*kind.text()? {
        "text" => vec![Part::Text(text(block)?)],
        "image" => vec![image(block)?],
        "document" => document(block)?,
        "search_result" if !kind.is_strict() => search_result(block)?,
        // A tool that a search for tools has found; all of them are told to the model.
        "tool_reference" if !kind.is_strict() => vec![Part::Text(block.need("tool_name")?.text()?)],
        _ => return Err(kind.no_counterpart()),
    })
}

fn result<'a>(block: &mut Object<'a>) -> Read<ToolResult<'a>> {
    let call = block.need("tool_use_id")?.text()?;
    let mut parts = Vec::new();
    match block.take("content").map(content).transpose()? {
        Some(Content::Text(text)) => parts.push(Part::Text(text)),
        Some(Content::Blocks(blocks)) => {
            for block in blocks {
                let (kind, mut block) = open(block)?;
                if kind.is_strict() && !kind.target().takes_pictures_in_results && !kind.is_one_of(&["text"]) {
                    return Err(kind.no_counterpart());
                }
                parts.extend(part(&kind, &mut block)?);
                block.finish()?;
            }
        }
        None => {}
    }
    if block.take("is_error").map(|f| f.bool()).transpose()? == Some(true) {
        match parts.first_mut() {
            Some(Part::Text(first)) => *first = format!("{TOOL_FAILED}\n{first}").into(),
            Some(_) | None => parts.insert(0, Part::Text(TOOL_FAILED.into())),
        }
    }
    Ok(ToolResult { call, parts })
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

/// A document: a PDF as it is, text as text.
fn document<'a>(block: &mut Object<'a>) -> Read<Vec<Part<'a>>> {
    citations(block)?;
    let context = block.take("context").filter(|f| !f.is_empty());
    let name = block.take("title").map(|f| f.text()).transpose()?;
    let mut source = block.need("source")?.object()?;
    let kind = source.need("type")?;
    let word = kind.text()?;
    if kind.is_strict() && (&*word != "base64" || context.is_some()) {
        return Err(context.unwrap_or(kind).no_counterpart());
    }
    let mut parts = Vec::new();
    if let Some(context) = context {
        parts.push(Part::Text(context.text()?));
    }
    match &*word {
        "base64" => {
            source.only("media_type", |f| f.is_one_of(&[PDF]))?;
            parts.push(Part::Pdf { name, base64: source.need("data")?.text()? });
        }
        "text" => {
            source.only("media_type", |f| f.is_one_of(&["text/plain"]))?;
            parts.extend(name.map(Part::Text));
            parts.push(Part::Text(source.need("data")?.text()?));
        }
        "content" => {
            parts.extend(name.map(Part::Text));
            parts.extend(nested(source.need("content")?)?);
        }
        _ => return Err(kind.no_counterpart()),
    }
    source.finish()?;
    Ok(parts)
}

/// A result of a search that the client made: where it is from, then its text.
fn search_result<'a>(block: &mut Object<'a>) -> Read<Vec<Part<'a>>> {
    citations(block)?;
    let (title, source) = (block.need("title")?.text()?, block.need("source")?.text()?);
    let mut parts = vec![Part::Text(format!("{title} ({source})").into())];
    parts.extend(nested(block.need("content")?)?);
    Ok(parts)
}

/// The parts of a content inside a block.
fn nested<'a>(field: Field<'a>) -> Read<Vec<Part<'a>>> {
    let blocks = match content(field)? {
        Content::Text(text) => return Ok(vec![Part::Text(text)]),
        Content::Blocks(blocks) => blocks,
    };
    let mut parts = Vec::new();
    for block in blocks {
        let (kind, mut block) = open(block)?;
        match &*kind.text()? {
            "text" => parts.push(Part::Text(text(&mut block)?)),
            "image" => parts.push(image(&mut block)?),
            _ => return Err(kind.no_counterpart()),
        }
        block.finish()?;
    }
    Ok(parts)
}

/// The wish that the answer cites this block.
fn citations(block: &mut Object<'_>) -> Read<()> {
    let Some(citations) = block.take("citations") else { return Ok(()) };
    let mut citations = citations.object()?;
    citations.tuning("enabled", |f| f.bool() == Ok(false))?;
    citations.finish()
}

/// Words, then calls; none where there are neither. Thoughts are left out: they are signed for the model that had them, and
/// no other can read them.
fn assistant<'a>(field: Field<'a>) -> Read<Option<Turn<'a>>> {
    let blocks = match content(field.clone())? {
        Content::Text(text) => return Ok(Some(Turn::Assistant { texts: vec![text], calls: Vec::new() })),
        Content::Blocks(blocks) => blocks,
    };
    let (mut texts, mut calls) = (Vec::new(), Vec::new());
    for whole in blocks {
        let (kind, mut block) = open(whole.clone())?;
        match &*kind.text()? {
            "thinking" | "redacted_thinking" => continue,
            "text" => {
                if !calls.is_empty() {
                    let name = whole.target().name;
                    let why = format!("comes after a tool call, an order that has no counterpart in {name}");
                    whole.leave_out(why)?;
                }
                texts.push(text(&mut block)?);
            }
            "tool_use" => calls.push(call(&mut block)?),
            // The provider's summary of what was said before.
            "compaction" if !kind.is_strict() => {
                texts.extend(block.take("content").map(|f| f.text()).transpose()?);
            }
            // What the provider's own tools did; what came of it, the assistant said.
            word if word.ends_with("_tool_use") || word.ends_with("_tool_result") => {
                kind.leave_out_without_counterpart()?;
                continue;
            }
            _ => return Err(kind.no_counterpart()),
        }
        block.finish()?;
    }
    if texts.is_empty() && calls.is_empty() {
        return field.leave_out("has neither words nor tool calls").map(|()| None);
    }
    Ok(Some(Turn::Assistant { texts, calls }))
}

pub(super) fn call<'a>(block: &mut Object<'a>) -> Read<Call<'a>> {
    let id = block.need("id")?.text()?;
    call_under(block, id)
}

/// A call with this id.
pub(super) fn call_under<'a>(block: &mut Object<'a>, id: Cow<'a, str>) -> Read<Call<'a>> {
    let name = block.need("name")?.text()?;
    let input = block.need("input")?;
    input.clone().object()?;
    if let Some(caller) = block.take("caller").filter(Field::is_strict) {
        caller.object()?.only("type", |f| f.is_one_of(&["direct"]))?;
    }
    Ok(Call { id, name, input: input.json() })
}
