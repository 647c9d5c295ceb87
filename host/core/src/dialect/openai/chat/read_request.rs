//! Reads a chat completions request: its parameters and tools.

use std::borrow::Cow;

use super::read_turns;
use crate::dialect::format::neutral::{Choice, Effort, Json, Request, Tool};
use crate::dialect::format::read::{Field, Object};
use crate::dialect::format::{Api, Read};

/// Members that make no difference to the answer; the table in the module's documentation says why.
const HARMLESS: &[&str] = &[
    "metadata",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
];

/// The schema of a function without parameters.
const NO_PARAMETERS: &str = r#"{"type":"object","properties":{}}"#;

pub(super) fn read<'a>(body: &'a [u8], target: &'static Api) -> Read<Request<'a>> {
    let mut chat = Field::body(body, target)?.object()?;
    chat.forget(HARMLESS);
    let (system, turns) = read_turns::read(chat.need("messages")?)?;
    let tools = chat.take("tools").map_or(Ok(Vec::new()), tools)?;
    let mut request = Request {
        model: chat.need("model")?.text()?,
        system,
        turns,
        choice: chat.take("tool_choice").map(choice).transpose()?,
        one_call: chat.take("parallel_tool_calls").map(|f| f.bool()).transpose()? == Some(false) && !tools.is_empty(),
        tools,
        max_tokens: max_tokens(&mut chat)?,
        stop: chat.take("stop").map_or(Ok(Vec::new()), stop)?,
        temperature: chat.take("temperature").map(temperature).transpose()?,
        top_p: chat.take("top_p").map(|f| f.number().map(|_| f.json())).transpose()?,
        user: chat.take("user").map(|f| f.text()).transpose()?,
        schema: chat.take("response_format").map_or(Ok(None), response_format)?,
        effort: chat.take("reasoning_effort").map(effort).transpose()?,
        stream: chat.take("stream").map(|f| f.bool()).transpose()? == Some(true),
        include_usage: false,
    };
    if let Some(options) = chat.take("stream_options") {
        let mut options = options.object()?;
        options.forget(&["include_obfuscation"]);
        request.include_usage = options.take("include_usage").map(|f| f.bool()).transpose()? == Some(true);
        options.finish()?;
    }
    if request.tools.is_empty() && matches!(request.choice, Some(Choice::Auto | Choice::None)) {
        // Nothing to choose from; Anthropic refuses a choice without tools.
        request.choice = None;
    }
    only_as_usual(&mut chat)?;
    chat.finish()?;
    Ok(request)
}

/// Members that may stay only when they say what every API does anyhow.
fn only_as_usual(chat: &mut Object<'_>) -> Read<()> {
    let zero = |f: &Field<'_>| f.number() == Ok(0.0);
    let off = |f: &Field<'_>| f.bool() == Ok(false);
    chat.only("n", |f| f.count() == Ok(1))?;
    chat.only("frequency_penalty", zero)?;
    chat.only("presence_penalty", zero)?;
    chat.only("logit_bias", Field::is_empty)?;
    chat.only("logprobs", off)?;
    chat.only("store", off)?;
    chat.only("service_tier", |f| f.is_one_of(&["auto", "default"]))?;
    chat.only("verbosity", |f| f.is_one_of(&["medium"]))?;
    chat.only("modalities", |f| f.json().text().split_whitespace().collect::<String>() == r#"["text"]"#)
}

/// Both names for the same limit; `max_tokens` is the older one.
fn max_tokens(chat: &mut Object<'_>) -> Read<Option<u64>> {
    let new = chat.take("max_completion_tokens").map(|f| f.count()).transpose()?;
    let Some(field) = chat.take("max_tokens") else { return Ok(new) };
    let old = field.count()?;
    match new {
        Some(new) if new != old => Err(field.wrong("says something else than `max_completion_tokens`")),
        Some(_) | None => Ok(Some(old)),
    }
}

fn temperature<'a>(field: Field<'a>) -> Read<Json<'a>> {
    let Api { name, max_temperature, .. } = field.target();
    if (0.0..=*max_temperature).contains(&field.number()?) {
        Ok(field.json())
    } else {
        Err(field.wrong(format!("is beyond 0 to {max_temperature}, the range of {name}")))
    }
}

fn stop<'a>(field: Field<'a>) -> Read<Vec<Cow<'a, str>>> {
    let Api { name, max_stop_sequences, takes_blank_stop_sequences, .. } = field.target();
    let fields = if field.is_string() { vec![field.clone()] } else { field.clone().list()? };
    if fields.len() > *max_stop_sequences {
        return Err(field.wrong(format!("has more than the {max_stop_sequences} sequences that {name} takes")));
    }
    let text = |field: Field<'a>| {
        let text = field.text()?;
        if text.trim().is_empty() && !takes_blank_stop_sequences {
            Err(field.wrong(format!("is blank, and {name} takes no blank stop sequence")))
        } else {
            Ok(text)
        }
    };
    fields.into_iter().map(text).collect()
}

fn effort(field: Field<'_>) -> Read<Effort> {
    Effort::parse(&field.text()?).ok_or_else(|| field.no_counterpart())
}

fn response_format<'a>(field: Field<'a>) -> Read<Option<Json<'a>>> {
    let mut format = field.clone().object()?;
    let kind = format.need("type")?;
    match &*kind.text()? {
        "text" => format.finish().map(|()| None),
        "json_schema" => {
            let mut named = format.need("json_schema")?.object()?;
            named.forget(&["name"]);
            let schema = named.need("schema")?.json();
            // Anthropic always keeps to the schema, which is more than was asked for without `strict`.
            named.only("strict", |f| f.bool().is_ok())?;
            named.finish()?;
            format.finish()?;
            Ok(Some(schema))
        }
        _ => Err(kind.no_counterpart()),
    }
}

fn tools<'a>(field: Field<'a>) -> Read<Vec<Tool<'a>>> {
    field.list()?.into_iter().map(tool).collect()
}

fn tool<'a>(field: Field<'a>) -> Read<Tool<'a>> {
    let mut tool = field.object()?;
    tool.only("type", |f| f.is_one_of(&["function"]))?;
    let mut function = tool.need("function")?.object()?;
    tool.finish()?;
    let read = Tool {
        name: function.need("name")?.text()?,
        description: function.take("description").map(|f| f.text()).transpose()?,
        schema: function.take("parameters").map_or(Json::verbatim(NO_PARAMETERS), |f| f.json()),
        strict: function.take("strict").map(|f| f.bool()).transpose()?,
    };
    function.finish()?;
    Ok(read)
}

fn choice<'a>(field: Field<'a>) -> Read<Choice<'a>> {
    if field.is_string() {
        return match &*field.text()? {
            "auto" => Ok(Choice::Auto),
            "none" => Ok(Choice::None),
            "required" => Ok(Choice::Any),
            _ => Err(field.no_counterpart()),
        };
    }
    let mut choice = field.object()?;
    choice.only("type", |f| f.is_one_of(&["function"]))?;
    let mut function = choice.need("function")?.object()?;
    let name = function.need("name")?.text()?;
    function.finish()?;
    choice.finish()?;
    Ok(Choice::Tool(name))
}
