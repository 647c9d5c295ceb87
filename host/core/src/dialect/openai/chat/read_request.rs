//! Reads a chat completions request: its parameters and tools.

use std::borrow::Cow;

use super::read_turns;
use crate::dialect::format::neutral::{Choice, Effort, Json, Request, Tool};
use crate::dialect::format::read::{Field, Object};
use crate::dialect::format::{Api, Read};

/// Members that make no difference to the answer; the table in the module's documentation says why.
const HARMLESS: &[&str] = &[
    "cache_control",
    "metadata",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
];

/// The schema of a function without parameters.
const NO_PARAMETERS: &str = r#"{"type":"object","properties":{}}"#;

pub(super) fn read<'a>(body: Field<'a>) -> Read<Request<'a>> {
    let mut chat = body.object()?;
    chat.forget(HARMLESS);
    let (system, turns) = read_turns::read(chat.need("messages")?)?;
    let mut tools = chat.take("tools").map_or(Ok(Vec::new()), tools)?;
    let (schema, json_only) = chat.take("response_format").map_or(Ok((None, false)), response_format)?;
    let mut request = Request {
        model: chat.need("model")?.text()?,
        system,
        turns,
        choice: chat.take("tool_choice").map(|field| choice(field, &mut tools)).transpose()?,
        one_call: chat.take("parallel_tool_calls").map(|f| f.bool()).transpose()? == Some(false) && !tools.is_empty(),
        tools,
        max_tokens: max_tokens(&mut chat)?,
        stop: chat.take("stop").map_or(Ok(Vec::new()), stop)?,
        top_p: top_p(&mut chat)?,
        temperature: chat.take("temperature").map(temperature).transpose()?,
        user: chat.take("user").map_or(Ok(None), user)?,
        schema,
        json_only,
        effort: chat.take("reasoning_effort").map_or(Ok(None), effort)?,
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

/// Members that may stay only when they say what every API does anyhow: the first change what the answer is, the others
/// how good it is.
fn only_as_usual(chat: &mut Object<'_>) -> Read<()> {
    let zero = |f: &Field<'_>| f.number() == Ok(0.0);
    let off = |f: &Field<'_>| f.bool() == Ok(false);
    chat.only("n", |f| f.count() == Ok(1))?;
    chat.only("logit_bias", Field::is_empty)?;
    chat.only("logprobs", off)?;
    chat.only("top_logprobs", |f| f.count() == Ok(0))?;
    chat.only("functions", Field::is_empty)?;
    chat.only("function_call", |f| f.is_one_of(&["auto", "none"]))?;
    chat.only("modalities", |f| f.json().text().split_whitespace().collect::<String>() == r#"["text"]"#)?;
    for name in ["audio", "moderation", "web_search_options"] {
        chat.only(name, |_| false)?;
    }
    chat.tuning("frequency_penalty", zero)?;
    chat.tuning("presence_penalty", zero)?;
    chat.tuning("store", off)?;
    chat.tuning("service_tier", |f| f.is_one_of(&["auto", "default"]))?;
    chat.tuning("verbosity", |f| f.is_one_of(&["medium"]))
}

/// Left out beside a temperature where newer models take only one of the two; a number of 1 says nothing.
fn top_p<'a>(chat: &mut Object<'a>) -> Read<Option<Json<'a>>> {
    let Some(field) = chat.take("top_p") else { return Ok(None) };
    let tunes = |number: Read<f64>| number.is_ok_and(|number| number != 1.0);
    let number = field.number()?;
    let is_beside = tunes(Ok(number)) && chat.get("temperature").is_some_and(|f| tunes(f.number()));
    if is_beside && !field.is_strict() && !field.target().takes_top_p_beside_temperature {
        let why = format!("stands beside a temperature, which newer models of {} refuse", field.target().name);
        return field.leave_out(why).map(|()| None);
    }
    Ok(Some(field.json()))
}

/// Both names for the same limit; `max_tokens` is the older one.
fn max_tokens(chat: &mut Object<'_>) -> Read<Option<u64>> {
    let new = chat.take("max_completion_tokens").map(|f| f.count()).transpose()?;
    let Some(field) = chat.take("max_tokens") else { return Ok(new) };
    let old = field.count()?;
    match new {
        Some(new) if new != old => {
            field.leave_out("says something else than `max_completion_tokens`")?;
            Ok(Some(new))
        }
        Some(_) | None => Ok(Some(old)),
    }
}

fn temperature<'a>(field: Field<'a>) -> Read<Json<'a>> {
    let Api { name, max_temperature, .. } = field.target();
    let why = || format!("is beyond 0 to {max_temperature}, the range of {name}");
    match field.number()? {
        number if (0.0..=*max_temperature).contains(&number) => Ok(field.json()),
        number if number > *max_temperature => field.leave_out(why()).map(|()| Json::number(*max_temperature)),
        _ => Err(field.wrong(why())),
    }
}

/// As many sequences as the other API takes; an answer that should have ended at another one goes on.
fn stop<'a>(field: Field<'a>) -> Read<Vec<Cow<'a, str>>> {
    let Api { name, max_stop_sequences, takes_blank_stop_sequences, .. } = field.target();
    let fields = if field.is_string() { vec![field] } else { field.list()? };
    let mut stop = Vec::new();
    for field in fields {
        let text = field.text()?;
        if text.trim().is_empty() && !takes_blank_stop_sequences {
            field.leave_out(format!("is blank, and {name} takes no blank stop sequence"))?;
        } else if stop.len() == *max_stop_sequences {
            field.leave_out(format!("is more than the {max_stop_sequences} sequences that {name} takes"))?;
        } else {
            stop.push(text);
        }
    }
    Ok(stop)
}

/// A user's name, which is for the provider's books; one that is too long is left out, because it would be refused.
fn user<'a>(field: Field<'a>) -> Read<Option<Cow<'a, str>>> {
    let user = field.text()?;
    let is_too_long = !field.is_strict() && user.chars().count() > field.target().max_user_chars;
    Ok(Some(user).filter(|_| !is_too_long))
}

fn effort(field: Field<'_>) -> Read<Option<Effort>> {
    match &*field.text()? {
        // A model that is not told to think does not.
        "none" if !field.is_strict() => Ok(None),
        "minimal" => field.leave_out_without_counterpart().map(|()| Some(Effort::Low)),
        word => match Effort::parse(word) {
            Some(effort) => Ok(Some(effort)),
            None => field.leave_out_without_counterpart().map(|()| None),
        },
    }
}

/// The schema of the answer, or that it must be JSON.
fn response_format<'a>(field: Field<'a>) -> Read<(Option<Json<'a>>, bool)> {
    let mut format = field.object()?;
    let kind = format.need("type")?;
    let read = match &*kind.text()? {
        "text" => (None, false),
        "json_object" => {
            if !kind.target().has_json_mode {
                kind.leave_out_without_counterpart()?;
            }
            (None, true)
        }
        "json_schema" => {
            let mut named = format.need("json_schema")?.object()?;
            named.forget(&["name"]);
            let schema = named.need("schema")?.json();
            // Anthropic always keeps to the schema, which is more than was asked for without `strict`.
            named.only("strict", |f| f.bool().is_ok())?;
            named.finish()?;
            (Some(schema), false)
        }
        _ => return Err(kind.no_counterpart()),
    };
    format.finish()?;
    Ok(read)
}

fn tools<'a>(field: Field<'a>) -> Read<Vec<Tool<'a>>> {
    field.list()?.into_iter().map(tool).collect()
}

fn tool<'a>(field: Field<'a>) -> Read<Tool<'a>> {
    let mut tool = field.object()?;
    tool.forget(&["cache_control"]);
    tool.only("type", |f| f.is_one_of(&["function"]))?;
    let mut function = tool.need("function")?.object()?;
    function.forget(&["cache_control"]);
    tool.finish()?;
    let read = Tool {
        name: function.need("name")?.text()?,
        description: function.take("description").map(|f| f.text()).transpose()?,
        schema: function.take("parameters").map_or(Ok(Json::verbatim(NO_PARAMETERS)), parameters)?,
        strict: function.take("strict").map(|f| f.bool()).transpose()?,
    };
    function.finish()?;
    Ok(read)
}

/// A schema of parameters. They are an object whether it says so or not, and Anthropic wants it said.
fn parameters<'a>(field: Field<'a>) -> Read<Json<'a>> {
    if field.is_strict() {
        return Ok(field.json());
    }
    let is_typed = field.clone().object()?.take("type").is_some();
    if is_typed {
        return Ok(field.json());
    }
    let schema = field.json();
    let members = schema.text().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_default();
    Ok(if field.is_empty() { Json::verbatim(NO_PARAMETERS) } else { Json::schema_of_object(members) })
}

/// The choice among these tools; where it leaves only some of them, the others go.
fn choice<'a>(field: Field<'a>, tools: &mut Vec<Tool<'a>>) -> Read<Choice<'a>> {
    if field.is_string() {
        return match &*field.text()? {
            "auto" => Ok(Choice::Auto),
            "none" => Ok(Choice::None),
            // Mistral's word.
            "required" | "any" => Ok(Choice::Any),
            _ => Err(field.no_counterpart()),
        };
    }
    let mut choice = field.object()?;
    let kind = choice.take("type");
    if let Some(kind) = kind.filter(|f| !f.is_one_of(&["function"])) {
        if kind.is_strict() || !kind.is_one_of(&["allowed_tools"]) {
            return Err(kind.no_counterpart());
        }
        return allowed(choice, tools);
    }
    // The Responses API has the name outside.
    let name = match choice.take("function") {
        Some(function) => {
            let mut function = function.object()?;
            let name = function.need("name")?.text()?;
            function.finish()?;
            name
        }
        None => choice.need("name")?.text()?,
    };
    choice.finish()?;
    Ok(Choice::Tool(name))
}

/// A choice of several tools: as if the others were not there.
fn allowed<'a>(mut choice: Object<'a>, tools: &mut Vec<Tool<'a>>) -> Read<Choice<'a>> {
    let mut allowed = choice.need("allowed_tools")?.object()?;
    let mut names = Vec::new();
    for tool in allowed.need("tools")?.list()? {
        let mut tool = tool.object()?;
        tool.only("type", |f| f.is_one_of(&["function"]))?;
        names.push(tool.need("function")?.object()?.need("name")?.text()?);
    }
    tools.retain(|tool| names.contains(&tool.name));
    let mode = allowed.need("mode")?;
    let choice = if mode.is_one_of(&["required"]) { Choice::Any } else { Choice::Auto };
    Ok(choice)
}
