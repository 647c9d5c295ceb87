//! Reads the messages of a chat completions request.

use std::borrow::Cow;

use base64::Engine as _;

use crate::dialect::format::neutral::{Call, Json, PDF, Part, ToolResult, Turn};
use crate::dialect::format::read::{Field, Object};
use crate::dialect::format::{Api, Read};

/// Fields of an assistant message that are dropped: reasoning that no other model can use, and what clients keep of an answer.
const THOUGHTS: &[&str] = &[
    "reasoning",
    "reasoning_content",
    "reasoning_details",
    "reasoning_text",
    "thinking",
    "thinking_blocks",
    "provider_specific_fields",
    "provider_metadata",
];

/// Marks of a prompt cache, on messages and parts.
const CACHE_MARKS: &[&str] = &["cache_control", "prompt_cache_breakpoint"];

/// The member that holds arguments that are no JSON object, as a model left them that was interrupted.
const UNREADABLE_ARGUMENTS: &str = "unreadable_arguments";

type Conversation<'a> = (Vec<Cow<'a, str>>, Vec<Turn<'a>>);

/// Instructions that come first, then the turns.
pub(super) fn read<'a>(messages: Field<'a>) -> Read<Conversation<'a>> {
    let whole = messages.clone();
    let (mut system, mut turns) = (Vec::new(), Vec::new());
    for field in messages.list()? {
        let mut message = field.clone().object()?;
        message.forget(CACHE_MARKS);
        let role = message.need("role")?;
        match &*role.text()? {
            "system" | "developer" if turns.is_empty() => system.extend(texts(message.need("content")?)?),
            "system" | "developer" => {
                if !field.target().takes_late_instructions {
                    let name = field.target().name;
                    let why = format!("is an instruction in the middle, which few models behind {name} take");
                    field.leave_out(why)?;
                }
                turns.push(Turn::System(texts(message.need("content")?)?));
            }
            "user" => turns.extend(user(&field, &mut message)?.map(Turn::User)),
            "assistant" => turns.extend(assistant(&field, &mut message)?),
            "tool" => {
                let result = result(&mut message)?;
                match turns.last_mut() {
                    Some(Turn::Results(results)) => results.push(result),
                    Some(_) | None => turns.push(Turn::Results(vec![result])),
                }
            }
            _ => return Err(role.no_counterpart()),
        }
        message.finish()?;
    }
    let Api { name, continues_the_assistant, .. } = whole.target();
    match turns.last() {
        // Only instructions, or nothing in any message.
        None if !whole.is_strict() && !whole.is_empty() => {}
        None => return Err(whole.wrong(format!("has no message of a user, and {name} needs one"))),
        Some(Turn::Assistant { calls, .. }) if *continues_the_assistant && calls.is_empty() => {
            whole.leave_out(format!("ends with the assistant, which {name} would continue instead of answering"))?;
        }
        Some(Turn::User(_) | Turn::Assistant { .. } | Turn::Results(_) | Turn::System(_)) => {}
    }
    Ok((system, turns))
}

/// Returns true if this text says nothing. Empty texts are left out everywhere; Anthropic refuses blank ones too.
fn is_nothing(text: &str, field: &Field<'_>) -> bool {
    text.is_empty() || (!field.is_strict() && !field.target().takes_empty_messages && text.trim().is_empty())
}

/// Leaves out an empty message, which says nothing.
///
/// # Errors
/// Strict reading refuses it.
fn leave_out_empty(field: &Field<'_>) -> Read<()> {
    field.leave_out(format!("is empty, and {} takes no empty message", field.target().name))
}

/// A text, or an array of text parts.
fn texts<'a>(content: Field<'a>) -> Read<Vec<Cow<'a, str>>> {
    let text = |part: Field<'a>| {
        let (kind, mut part) = open(part)?;
        if !kind.is_one_of(&["text"]) {
            return Err(kind.no_counterpart());
        }
        let text = part.need("text")?.text()?;
        part.finish()?;
        Ok(text)
    };
    let whole = content.clone();
    let mut texts = match content.is_string() {
        true => vec![content.text()?],
        false => content.list()?.into_iter().map(text).collect::<Read<Vec<_>>>()?,
    };
    texts.retain(|text| !is_nothing(text, &whole));
    Ok(texts)
}

/// The type of a part of a content, and the rest of it.
fn open<'a>(part: Field<'a>) -> Read<(Field<'a>, Object<'a>)> {
    let mut part = part.object()?;
    part.forget(CACHE_MARKS);
    Ok((part.need("type")?, part))
}

/// Reads a user's message; none where it says nothing.
fn user<'a>(field: &Field<'a>, message: &mut Object<'a>) -> Read<Option<Vec<Part<'a>>>> {
    let Some(content) = message.take("content") else {
        return leave_out_empty(field).map(|()| None);
    };
    let parts = parts(content.clone())?;
    if parts.is_empty() {
        return leave_out_empty(&content).map(|()| None);
    }
    Ok(Some(parts))
}

fn result<'a>(message: &mut Object<'a>) -> Read<ToolResult<'a>> {
    let call = message.need("tool_call_id")?.text()?;
    // The tool's name stands at its call.
    message.hint("name", |_| false)?;
    Ok(ToolResult { call, parts: message.take("content").map_or(Ok(Vec::new()), parts)? })
}

/// A text, or an array of parts.
fn parts<'a>(content: Field<'a>) -> Read<Vec<Part<'a>>> {
    let whole = content.clone();
    let mut parts = match content.is_string() {
        true => vec![Part::Text(content.text()?)],
        false => content.list()?.into_iter().map(part).collect::<Read<Vec<_>>>()?,
    };
    parts.retain(|part| !matches!(part, Part::Text(text) if is_nothing(text, &whole)));
    Ok(parts)
}

fn part<'a>(part: Field<'a>) -> Read<Part<'a>> {
    let (kind, mut part) = open(part)?;
    let read = match &*kind.text()? {
        "text" => Part::Text(part.need("text")?.text()?),
        "image_url" => image(part.need("image_url")?)?,
        "file" => file(part.need("file")?)?,
        _ => return Err(kind.no_counterpart()),
    };
    part.finish()?;
    Ok(read)
}

fn image<'a>(field: Field<'a>) -> Read<Part<'a>> {
    let (field, image) = match field.is_string() && !field.is_strict() {
        // Some clients leave the object out.
        true => (field, None),
        false => {
            let mut image = field.object()?;
            (image.need("url")?, Some(image))
        }
    };
    if let Some(mut image) = image {
        // Anthropic has no such choice: it looks at all of a picture.
        image.tuning("detail", |f| f.is_one_of(&["auto", "high"]))?;
        image.finish()?;
    }
    let url = field.text()?;
    if url.starts_with("https://") || url.starts_with("http://") {
        return Ok(Part::ImageUrl(url));
    }
    let Some((media_type, base64)) = data_url(url) else {
        return Err(field.wrong("must be an http or https address, or a data URL in base64"));
    };
    let Api { name, pictures, .. } = field.target();
    if let Some((_, in_words)) = pictures.filter(|(types, _)| !types.contains(&&*media_type)) {
        return Err(field.wrong(format!("is no {in_words}, and {name} takes no other picture")));
    }
    Ok(Part::ImageData { media_type, base64 })
}

fn file<'a>(field: Field<'a>) -> Read<Part<'a>> {
    let mut file = field.object()?;
    file.only("file_id", |_| false)?;
    let name = file.take("filename").map(|f| f.text()).transpose()?;
    let data = file.need("file_data")?;
    file.finish()?;
    match data_url(data.text()?) {
        Some((media_type, base64)) if media_type == PDF => return Ok(Part::Pdf { name, base64 }),
        Some((media_type, base64)) if is_text(&media_type) && !data.is_strict() => {
            if let Some(text) = decoded_text(&base64) {
                return Ok(Part::Text(name.map_or(text.clone(), |name| format!("{name}\n\n{text}")).into()));
            }
        }
        Some(_) | None => {}
    }
    let name = data.target().name;
    Err(data.wrong(format!("is no data URL of a PDF or a text in base64, and {name} takes no other file so")))
}

/// Returns true for a media type whose content is text, parameters such as the charset aside.
fn is_text(media_type: &str) -> bool {
    const TEXTS: [&str; 5] =
        ["application/json", "application/xml", "application/yaml", "application/x-yaml", "application/javascript"];
    let essence = media_type.split(';').next().unwrap_or_default();
    essence.starts_with("text/") || TEXTS.contains(&essence)
}

fn decoded_text(base64: &str) -> Option<String> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(base64).ok()?;
    String::from_utf8(bytes).ok()
}

/// Media type and payload of a `data:` URL in base64 (RFC 2397).
fn data_url(url: Cow<'_, str>) -> Option<(Cow<'_, str>, Cow<'_, str>)> {
    const MARK: &str = ";base64,";
    let at = url.find(MARK).filter(|_| url.starts_with("data:"))?;
    let media_type = match url["data:".len()..at].to_ascii_lowercase() {
        // A name that is not registered, and that everybody writes.
        jpg if jpg == "image/jpg" => "image/jpeg".to_owned(),
        media_type => media_type,
    };
    let payload = at + MARK.len();
    let base64 = match url {
        Cow::Borrowed(url) => Cow::Borrowed(&url[payload..]),
        Cow::Owned(url) => Cow::Owned(url[payload..].to_owned()),
    };
    Some((Cow::Owned(media_type), base64))
}

/// Reads an assistant's message; none where it says nothing.
fn assistant<'a>(field: &Field<'a>, message: &mut Object<'a>) -> Read<Option<Turn<'a>>> {
    message.forget(THOUGHTS);
    message.hint("annotations", Field::is_empty)?;
    message.only("function_call", |_| false)?;
    message.only("audio", |_| false)?;
    let mut texts = message.take("content").map_or(Ok(Vec::new()), said)?;
    // A refusal is what the assistant said instead.
    if let Some(refusal) = message.take("refusal") {
        texts.extend(Some(refusal.text()?).filter(|text| !text.is_empty()));
    }
    let calls = message.take("tool_calls").map_or(Ok(Vec::new()), calls)?;
    if texts.is_empty() && calls.is_empty() {
        return leave_out_empty(field).map(|()| None);
    }
    Ok(Some(Turn::Assistant { texts, calls }))
}

/// Reads an assistant's content: a text, or an array of text and refusal parts.
fn said<'a>(content: Field<'a>) -> Read<Vec<Cow<'a, str>>> {
    if content.is_string() {
        return texts(content);
    }
    let whole = content.clone();
    let mut texts = Vec::new();
    for part in content.list()? {
        let (kind, mut part) = open(part)?;
        match &*kind.text()? {
            "text" => texts.push(part.need("text")?.text()?),
            "refusal" => texts.push(part.need("refusal")?.text()?),
            "thinking" | "redacted_thinking" | "reasoning" if !kind.is_strict() => continue,
            "image_url" => {
                kind.leave_out_without_counterpart()?;
                continue;
            }
            _ => return Err(kind.no_counterpart()),
        }
        part.finish()?;
    }
    texts.retain(|text| !is_nothing(text, &whole));
    Ok(texts)
}

fn calls<'a>(field: Field<'a>) -> Read<Vec<Call<'a>>> {
    field.list()?.into_iter().map(call).collect()
}

fn call<'a>(field: Field<'a>) -> Read<Call<'a>> {
    let mut call = field.object()?;
    // Some providers number the calls of a whole answer as they do in a stream.
    call.forget(&["index"]);
    let id = call.need("id")?.text()?;
    let (read, function) = loose_call(&mut call, id, false)?;
    function.finish()?;
    call.finish()?;
    Ok(read)
}

/// A call with this id, and its function with what else is in it. Arguments that are no JSON object are wrapped in one, with a
/// word about it unless the answer was cut in them.
pub(super) fn loose_call<'a>(call: &mut Object<'a>, id: Cow<'a, str>, is_cut: bool) -> Read<(Call<'a>, Object<'a>)> {
    call.only("type", |f| f.is_one_of(&["function"]))?;
    let mut function = call.need("function")?.object()?;
    let name = function.need("name")?.text()?;
    let arguments = function.need("arguments")?;
    if arguments.is_object() {
        // Some servers leave out to write it as a text.
        let input = arguments.json();
        return Ok((Call { id, name, input }, function));
    }
    let text = arguments.text()?;
    let input = match Json::object(text.clone()) {
        Some(input) => input,
        None => {
            if !is_cut {
                let name = arguments.target().name;
                arguments.leave_out(format!("is no JSON object, which a tool's input must be in {name}"))?;
            }
            Json::wrapped(UNREADABLE_ARGUMENTS, &text)
        }
    };
    Ok((Call { id, name, input }, function))
}
