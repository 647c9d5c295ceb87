//! Reads a request for Anthropic's messages API: its parameters and tools.

use std::borrow::Cow;

use super::read_turns;
use crate::dialect::format::neutral::{Choice, Effort, Json, Request, Tool};
use crate::dialect::format::read::Field;
use crate::dialect::format::{Api, Read};

/// Members that make no difference to the answer; the table in the module's documentation says why.
const HARMLESS: &[&str] = &["cache_control", "diagnostics"];

/// The same of a tool.
const HARMLESS_IN_TOOLS: &[&str] = &["cache_control", "eager_input_streaming"];

pub(super) fn read<'a>(body: &'a [u8], target: &'static Api) -> Read<Request<'a>> {
    let mut messages = Field::body(body, target)?.object()?;
    messages.forget(HARMLESS);
    let mut request = Request {
        model: messages.need("model")?.text()?,
        system: messages.take("system").map_or(Ok(Vec::new()), read_turns::texts)?,
        turns: read_turns::read(messages.need("messages")?)?,
        tools: messages.take("tools").map_or(Ok(Vec::new()), tools)?,
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
    if let Some(config) = messages.take("output_config") {
        (request.effort, request.schema) = output_config(config)?;
    }
    messages.take("thinking").map_or(Ok(()), thinking)?;
    messages.only("service_tier", |f| f.is_one_of(&["auto", "standard_only"]))?;
    messages.only("speed", |f| f.is_one_of(&["standard"]))?;
    messages.finish()?;
    Ok(request)
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
    let mut thinking = field.object()?;
    thinking.only("type", |f| f.is_one_of(&["adaptive", "disabled"]))?;
    thinking.only("display", |f| f.is_one_of(&["omitted"]))?;
    thinking.finish()
}

fn stop<'a>(field: Field<'a>) -> Read<Vec<Cow<'a, str>>> {
    let stop = field.clone().list()?.into_iter().map(|f| f.text()).collect::<Read<Vec<_>>>()?;
    let Api { name, max_stop_sequences, .. } = field.target();
    if stop.len() > *max_stop_sequences {
        return Err(field.wrong(format!("has more than the {max_stop_sequences} sequences that {name} takes")));
    }
    Ok(stop)
}

fn user<'a>(field: Field<'a>) -> Read<Option<Cow<'a, str>>> {
    let mut metadata = field.object()?;
    let user = metadata.take("user_id").map(|f| f.text()).transpose()?;
    metadata.finish()?;
    Ok(user)
}

fn output_config<'a>(field: Field<'a>) -> Read<(Option<Effort>, Option<Json<'a>>)> {
    let mut config = field.object()?;
    let effort = match config.take("effort") {
        Some(field) => Some(Effort::parse(&field.text()?).ok_or_else(|| field.no_counterpart())?),
        None => None,
    };
    let mut schema = None;
    if let Some(format) = config.take("format") {
        let mut format = format.object()?;
        format.only("type", |f| f.is_one_of(&["json_schema"]))?;
        schema = Some(format.need("schema")?.json());
        format.finish()?;
    }
    config.finish()?;
    Ok((effort, schema))
}

fn tools<'a>(field: Field<'a>) -> Read<Vec<Tool<'a>>> {
    field.list()?.into_iter().map(tool).collect()
}

fn tool<'a>(field: Field<'a>) -> Read<Tool<'a>> {
    let mut tool = field.object()?;
    tool.forget(HARMLESS_IN_TOOLS);
    // Any other type is a tool that Anthropic itself runs, or has taught its models.
    tool.only("type", |f| f.is_one_of(&["custom"]))?;
    tool.only("defer_loading", |f| f.bool() == Ok(false))?;
    tool.only("allowed_callers", |f| f.json().text().split_whitespace().collect::<String>() == r#"["direct"]"#)?;
    tool.only("input_examples", Field::is_empty)?;
    let read = Tool {
        name: tool.need("name")?.text()?,
        description: tool.take("description").map(|f| f.text()).transpose()?,
        schema: tool.need("input_schema")?.json(),
        strict: tool.take("strict").map(|f| f.bool()).transpose()?,
    };
    tool.finish()?;
    Ok(read)
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
