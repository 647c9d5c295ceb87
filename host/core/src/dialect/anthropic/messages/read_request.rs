//! Reads a request for Anthropic's messages API: its parameters.

use std::borrow::Cow;

use super::{read_tools, read_turns};
use crate::dialect::format::neutral::{Choice, Effort, Json, Request};
use crate::dialect::format::read::{Field, Object};
use crate::dialect::format::{Api, Read};

/// Members that make no difference to the answer; the table in the module's documentation says why.
const HARMLESS: &[&str] = &["cache_control", "diagnostics"];

/// Members that stand in headers elsewhere, and in the body for the clouds that resell these models.
const HEADERS_IN_BODY: &[&str] = &["anthropic_beta", "anthropic_version", "betas"];

pub(super) fn read<'a>(body: Field<'a>) -> Read<Request<'a>> {
    let mut messages = body.object()?;
    messages.forget(HARMLESS);
    for name in HEADERS_IN_BODY {
        messages.hint(name, |_| false)?;
    }
    let mut request = Request {
        model: messages.need("model")?.text()?,
        system: messages.take("system").map_or(Ok(Vec::new()), read_turns::texts)?,
        turns: read_turns::read(messages.need("messages")?)?,
        max_tokens: Some(max_tokens(messages.need("max_tokens")?)?),
        stop: messages.take("stop_sequences").map_or(Ok(Vec::new()), stop)?,
        temperature: messages.take("temperature").map(|f| f.number().map(|_| f.json())).transpose()?,
        top_p: messages.take("top_p").map(|f| f.number().map(|_| f.json())).transpose()?,
        user: messages.take("metadata").map_or(Ok(None), user)?,
        stream: messages.take("stream").map(|f| f.bool()).transpose()? == Some(true),
        ..Request::default()
    };
    if let Some(choice) = messages.take("tool_choice") {
        (request.choice, request.one_call) = self::choice(choice)?;
    }
    if let Some(field) = messages.take("tools") {
        request.tools = read_tools::read(field, request.choice.as_ref())?;
    }
    if request.tools.is_empty() && matches!(request.choice, Some(Choice::Auto | Choice::None)) {
        // Nothing to choose from; OpenAI refuses a choice without tools.
        (request.choice, request.one_call) = (None, false);
    }
    if let Some(config) = messages.take("output_config") {
        (request.effort, request.schema) = output_config(config)?;
    }
    // Its name while it was in beta.
    if let Some(format) = messages.take("output_format") {
        request.schema = Some(self::format(format)?);
    }
    messages.take("thinking").map_or(Ok(()), thinking)?;
    only_as_usual(&mut messages)?;
    messages.finish()?;
    Ok(request)
}

/// Members that may stay only when they say what every API does anyhow: the first change what the answer is, or where it
/// may be made, the others how good it is.
fn only_as_usual(messages: &mut Object<'_>) -> Read<()> {
    messages.only("container", |_| false)?;
    messages.only("mcp_servers", |f| !f.is_strict() && f.is_empty())?;
    messages.only("inference_geo", |f| !f.is_strict() && f.is_one_of(&["global"]))?;
    messages.tuning("context_management", |f| !f.is_strict() && f.is_empty())?;
    messages.tuning("top_k", |_| false)?;
    messages.tuning("service_tier", |f| f.is_one_of(&["auto", "standard_only"]))?;
    messages.tuning("speed", |f| f.is_one_of(&["standard"]))
}

/// 0 asks for no answer at all, only to fill the prompt cache.
fn max_tokens(field: Field<'_>) -> Read<u64> {
    match field.count()? {
        0 => Err(field.no_counterpart()),
        count => Ok(count),
    }
}

/// A model that may think as it likes does so in either API; a budget, or a wish to read the thoughts, is more.
fn thinking(field: Field<'_>) -> Read<()> {
    let mut thinking = field.clone().object()?;
    let budget = thinking.take("type").filter(|kind| !kind.is_one_of(&["adaptive", "disabled"]));
    if let Some(kind) = budget {
        return if kind.is_strict() { Err(kind.no_counterpart()) } else { field.leave_out_without_counterpart() };
    }
    thinking.tuning("display", |f| f.is_one_of(&["omitted"]))?;
    thinking.finish()
}

/// As many sequences as the other API takes; an answer that should have ended at another one goes on.
fn stop<'a>(field: Field<'a>) -> Read<Vec<Cow<'a, str>>> {
    let Api { name, max_stop_sequences, .. } = field.target();
    let mut stop = Vec::new();
    for (i, sequence) in field.list()?.into_iter().enumerate() {
        if i < *max_stop_sequences {
            stop.push(sequence.text()?);
        } else {
            sequence.leave_out(format!("is more than the {max_stop_sequences} sequences that {name} takes"))?;
        }
    }
    Ok(stop)
}

/// A user's name, which is for the provider's books; one that is too long is left out, because it would be refused.
fn user<'a>(field: Field<'a>) -> Read<Option<Cow<'a, str>>> {
    let mut metadata = field.object()?;
    let id = metadata.take("user_id");
    let user = id.as_ref().map(|f| f.text()).transpose()?;
    metadata.finish()?;
    let takes =
        |user: &Cow<'_, str>| id.is_some_and(|f| f.is_strict() || user.chars().count() <= f.target().max_user_chars);
    Ok(user.filter(takes))
}

fn output_config<'a>(field: Field<'a>) -> Read<(Option<Effort>, Option<Json<'a>>)> {
    let mut config = field.object()?;
    let effort = config.take("effort").map_or(Ok(None), effort)?;
    let mut schema = None;
    if let Some(format) = config.take("format") {
        schema = Some(self::format(format)?);
    }
    config.finish()?;
    Ok((effort, schema))
}

/// The schema that the answer must keep to.
fn format<'a>(field: Field<'a>) -> Read<Json<'a>> {
    let mut format = field.object()?;
    format.only("type", |f| f.is_one_of(&["json_schema"]))?;
    let schema = format.need("schema")?.json();
    format.finish()?;
    Ok(schema)
}

fn effort(field: Field<'_>) -> Read<Option<Effort>> {
    match Effort::parse(&field.text()?) {
        Some(effort) => Ok(Some(effort)),
        None => field.leave_out_without_counterpart().map(|()| None),
    }
}

/// The choice, and whether at most one call may be made at a time.
fn choice<'a>(field: Field<'a>) -> Read<(Option<Choice<'a>>, bool)> {
    let mut choice = field.object()?;
    let kind = choice.need("type")?;
    let read = match &*kind.text()? {
        "auto" => Choice::Auto,
        "none" => Choice::None,
        "any" => Choice::Any,
        "tool" => Choice::Tool(choice.need("name")?.text()?),
        _ => return Err(kind.no_counterpart()),
    };
    let one_call = choice.take("disable_parallel_tool_use").map(|f| f.bool()).transpose()? == Some(true);
    choice.finish()?;
    Ok((Some(read), one_call))
}
