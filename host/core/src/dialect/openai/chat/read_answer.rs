//! Reads a chat completion.

use std::borrow::Cow;

use super::read_turns::loose_call;
use crate::dialect::format::neutral::{Answer, Call, Stop, Usage};
use crate::dialect::format::read::{Field, Object, head};
use crate::dialect::format::{Api, Read};

pub(super) fn read<'a>(body: &'a [u8], target: &'static Api) -> Read<Answer<'a>> {
    let mut chat = Field::body(body, target)?.object()?;
    let choices = chat.need("choices")?;
    let first = choices.clone().list()?.into_iter().next();
    let mut choice = first.ok_or_else(|| choices.wrong("is empty"))?.object()?;
    let mut message = choice.need("message")?.object()?;
    let reason = choice.take("finish_reason").filter(Field::is_reason).map(|f| f.text()).transpose()?;
    let is_cut = reason.as_deref() == Some("length");
    let calls = match message.take("tool_calls") {
        Some(calls) => calls.list()?.into_iter().map(|field| call(field, is_cut)).collect::<Read<Vec<_>>>()?,
        None => Vec::new(),
    };
    message.only("function_call", |_| false)?;
    message.only("audio", |_| false)?;
    let refusal = message.take("refusal").map(|f| f.text()).transpose()?.filter(|text| !text.is_empty());
    let refused = refusal.is_some();
    let text = match message.take("content").map(content).transpose()? {
        Some(text) if !text.is_empty() => Some(refusal.map_or(text.clone(), |refusal| text + refusal)),
        Some(_) | None => refusal,
    };
    let stop = stop(reason.as_deref(), matched(&mut choice), !calls.is_empty(), refused);
    let counts = chat.take("usage").map(Field::object).transpose()?.map(usage).unwrap_or_default();
    Ok(Answer { head: head(&mut chat), text, calls, stop, usage: counts })
}

/// A call; some servers give it no id. The arguments of an answer that its limit cut need not be whole.
fn call<'a>(field: Field<'a>, is_cut: bool) -> Read<Call<'a>> {
    let mut call = field.object()?;
    let id = call.take("id").map(|f| f.text()).transpose()?.unwrap_or_default();
    loose_call(&mut call, id, is_cut).map(|(call, _)| call)
}

/// A text; some servers send an array of text parts, Mistral with thoughts and references among them.
pub(super) fn content<'a>(field: Field<'a>) -> Read<Cow<'a, str>> {
    if field.is_string() {
        return field.text();
    }
    let part = |part: Field<'a>| {
        let mut part = part.object()?;
        let kind = part.take("type");
        if kind.is_some_and(|kind| kind.is_one_of(&["thinking", "reasoning", "reference"])) {
            return Ok(Cow::Borrowed(""));
        }
        part.need("text")?.text()
    };
    field.list()?.into_iter().map(part).collect::<Read<Vec<_>>>().map(|texts| texts.concat().into())
}

/// The stop sequence that was met: vLLM's addition, a text then, else a number or null.
pub(super) fn matched<'a>(choice: &mut Object<'a>) -> Option<Cow<'a, str>> {
    choice.take("stop_reason").and_then(|f| f.text().ok())
}

/// Reads the finish reason of a chat answer. With a function chosen by the client, OpenAI says `stop` though a tool is
/// called.
pub(super) fn stop<'a>(reason: Option<&str>, matched: Option<Cow<'a, str>>, calls: bool, refused: bool) -> Stop<'a> {
    match reason {
        _ if refused => Stop::Refusal,
        Some("content_filter") => Stop::Refusal,
        Some("stop" | "tool_calls" | "function_call") | None if calls => Stop::Calls,
        Some("stop" | "tool_calls" | "function_call" | "eos") | None => matched.map_or(Stop::End, Stop::Sequence),
        // What is not known is not known to be complete.
        Some(_) => Stop::Length,
    }
}

pub(super) fn usage(mut told: Object<'_>) -> Usage {
    let mut details = told.take("prompt_tokens_details").and_then(|f| f.object().ok());
    let mut detail = |name| details.as_mut().and_then(|d| d.take(name)).and_then(|f| f.count().ok());
    let (cached, written) = (detail("cached_tokens"), detail("cache_write_tokens").unwrap_or(0));
    let thoughts = told.take("completion_tokens_details").and_then(|f| f.object().ok());
    let reasoning = thoughts.and_then(|mut d| d.take("reasoning_tokens")).and_then(|f| f.count().ok());
    let mut count = |name| told.take(name).and_then(|f| f.count().ok());
    // DeepSeek's name.
    let cached = cached.or_else(|| count("prompt_cache_hit_tokens")).unwrap_or(0);
    let input = count("prompt_tokens").unwrap_or(0).max(cached.saturating_add(written));
    Usage { input, cached, written, output: count("completion_tokens").unwrap_or(0), reasoning }
}
