//! Reads the messages of a chat completions request.

use std::borrow::Cow;

use crate::dialect::format::neutral::{Call, Json, PDF, Part, ToolResult, Turn};
use crate::dialect::format::read::{Field, Object};
use crate::dialect::format::{Api, Read};

/// Fields of an assistant message that are dropped: reasoning that no other model can use.
const THOUGHTS: &[&str] = &["reasoning", "reasoning_content", "reasoning_details"];

type Conversation<'a> = (Vec<Cow<'a, str>>, Vec<Turn<'a>>);

/// Instructions that come first, then the turns.
pub(super) fn read<'a>(messages: Field<'a>) -> Read<Conversation<'a>> {
    let whole = messages.clone();
    let (mut system, mut turns) = (Vec::new(), Vec::new());
    for field in messages.list()? {
        let mut message = field.clone().object()?;
        let role = message.need("role")?;
        match &*role.text()? {
            "system" | "developer" if turns.is_empty() => system.extend(texts(message.need("content")?)?),
            "system" | "developer" if field.target().takes_late_instructions => {
                turns.push(Turn::System(texts(message.need("content")?)?));
            }
            "system" | "developer" => {
                let name = field.target().name;
                let why = format!("is an instruction in the middle, which few models behind {name} take");
                return Err(field.wrong(why));
            }
            "user" => turns.push(Turn::User(user(message.need("content")?)?)),
            "assistant" => turns.push(assistant(&field, &mut message)?),
            "tool" => {
                let call = message.need("tool_call_id")?.text()?;
                let result = ToolResult { call, texts: texts(message.need("content")?)? };
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
        None => Err(whole.wrong(format!("has no message of a user, and {name} needs one"))),
        Some(Turn::Assistant { .. }) if *continues_the_assistant => {
            let why = format!("ends with the assistant, which {name} would continue instead of answering");
            Err(whole.wrong(why))
        }
        Some(Turn::User(_) | Turn::Assistant { .. } | Turn::Results(_) | Turn::System(_)) => Ok((system, turns)),
    }
}

fn no_empty_message(target: &Api) -> String {
    format!("is empty, and {} takes no empty message", target.name)
}

/// A text, or an array of text parts. Empty ones say nothing, and Anthropic refuses them.
fn texts<'a>(content: Field<'a>) -> Read<Vec<Cow<'a, str>>> {
    if content.is_string() {
        return Ok(Vec::from_iter(Some(content.text()?).filter(|text| !text.is_empty())));
    }
    let mut texts = Vec::new();
    for part in content.list()? {
        let mut object = part.object()?;
        object.forget(&["prompt_cache_breakpoint"]);
        let kind = object.need("type")?;
        if !kind.is_one_of(&["text"]) {
            return Err(kind.no_counterpart());
        }
        let text = object.need("text")?.text()?;
        object.finish()?;
        texts.extend(Some(text).filter(|text| !text.is_empty()));
    }
    Ok(texts)
}

fn user<'a>(content: Field<'a>) -> Read<Vec<Part<'a>>> {
    let mut parts = Vec::new();
    if content.is_string() {
        parts.push(Part::Text(content.text()?));
    } else {
        for part in content.clone().list()? {
            parts.push(user_part(part)?);
        }
    }
    parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
    if parts.is_empty() { Err(content.wrong(no_empty_message(content.target()))) } else { Ok(parts) }
}

fn user_part<'a>(part: Field<'a>) -> Read<Part<'a>> {
    let mut object = part.object()?;
    object.forget(&["prompt_cache_breakpoint"]);
    let kind = object.need("type")?;
    let read = match &*kind.text()? {
        "text" => Part::Text(object.need("text")?.text()?),
        "image_url" => image(object.need("image_url")?)?,
        "file" => file(object.need("file")?)?,
        _ => return Err(kind.no_counterpart()),
    };
    object.finish()?;
    Ok(read)
}

fn image<'a>(field: Field<'a>) -> Read<Part<'a>> {
    let mut image = field.object()?;
    let field = image.need("url")?;
    // Anthropic has no such choice: it looks at all of a picture.
    image.only("detail", |f| f.is_one_of(&["auto", "high"]))?;
    image.finish()?;
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
        Some((media_type, base64)) if media_type == PDF => Ok(Part::Pdf { name, base64 }),
        Some(_) | None => {
            let name = data.target().name;
            Err(data.wrong(format!("is no data URL of a PDF in base64, and {name} takes no other file so")))
        }
    }
}

/// Media type and payload of a `data:` URL in base64 (RFC 2397).
fn data_url(url: Cow<'_, str>) -> Option<(Cow<'_, str>, Cow<'_, str>)> {
    const MARK: &str = ";base64,";
    let at = url.find(MARK).filter(|_| url.starts_with("data:"))?;
    let media_type = url["data:".len()..at].to_ascii_lowercase();
    let payload = at + MARK.len();
    let base64 = match url {
        Cow::Borrowed(url) => Cow::Borrowed(&url[payload..]),
        Cow::Owned(url) => Cow::Owned(url[payload..].to_owned()),
    };
    Some((Cow::Owned(media_type), base64))
}

fn assistant<'a>(field: &Field<'a>, message: &mut Object<'a>) -> Read<Turn<'a>> {
    message.forget(THOUGHTS);
    message.only("annotations", Field::is_empty)?;
    let mut texts = message.take("content").map_or(Ok(Vec::new()), said)?;
    // A refusal is what the assistant said instead.
    if let Some(refusal) = message.take("refusal") {
        texts.extend(Some(refusal.text()?).filter(|text| !text.is_empty()));
    }
    let calls = message.take("tool_calls").map_or(Ok(Vec::new()), calls)?;
    if texts.is_empty() && calls.is_empty() {
        return Err(field.wrong(no_empty_message(field.target())));
    }
    Ok(Turn::Assistant { texts, calls })
}

/// Reads an assistant's content: a text, or an array of text and refusal parts.
fn said<'a>(content: Field<'a>) -> Read<Vec<Cow<'a, str>>> {
    if content.is_string() {
        return texts(content);
    }
    let mut texts = Vec::new();
    for part in content.list()? {
        let mut object = part.object()?;
        object.forget(&["prompt_cache_breakpoint"]);
        let kind = object.need("type")?;
        let text = match &*kind.text()? {
            "text" => object.need("text")?.text()?,
            "refusal" => object.need("refusal")?.text()?,
            _ => return Err(kind.no_counterpart()),
        };
        object.finish()?;
        texts.extend(Some(text).filter(|text| !text.is_empty()));
    }
    Ok(texts)
}

fn calls<'a>(field: Field<'a>) -> Read<Vec<Call<'a>>> {
    field.list()?.into_iter().map(call).collect()
}

fn call<'a>(field: Field<'a>) -> Read<Call<'a>> {
    let mut call = field.object()?;
    // Some providers number the calls of a whole answer as they do in a stream.
    call.forget(&["index"]);
    let (read, function) = loose_call(&mut call)?;
    function.finish()?;
    call.finish()?;
    Ok(read)
}

/// A call, and its function with what else is in it.
pub(super) fn loose_call<'a>(call: &mut Object<'a>) -> Read<(Call<'a>, Object<'a>)> {
    call.only("type", |f| f.is_one_of(&["function"]))?;
    let id = call.need("id")?.text()?;
    let mut function = call.need("function")?.object()?;
    let name = function.need("name")?.text()?;
    let arguments = function.need("arguments")?;
    let input = Json::object(arguments.text()?);
    let name_of_target = arguments.target().name;
    let why = || format!("is no JSON object, which a tool's input must be in {name_of_target}");
    let input = input.ok_or_else(|| arguments.wrong(why()))?;
    Ok((Call { id, name, input }, function))
}
