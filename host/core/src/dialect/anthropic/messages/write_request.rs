//! Writes a request for Anthropic's messages API.

use std::borrow::Cow;

use serde::Serialize;

use super::call_id::call_id;
use crate::dialect::format::DEFAULT_MAX_TOKENS;
use crate::dialect::format::neutral::{Call, Choice, Effort, Json, PDF, Part, Request, Tool, ToolResult, Turn};

/// Asks for what OpenAI calls JSON mode.
const JSON_ONLY: &str =
    "Answer with one valid JSON object and nothing else: no words before or after it and no code fence around it.";

#[derive(Serialize)]
pub(super) struct Messages<'a> {
    model: &'a str,
    max_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<Content<'a>>,
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tools: Vec<ToolOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<ChoiceOut<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    stop_sequences: &'a [Cow<'a, str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<&'a Json<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<&'a Json<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<OutputConfig<'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stream: bool,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Content<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(&'a str),
    Blocks(Vec<Block<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block<'a> {
    Text {
        text: &'a str,
    },
    Image {
        source: Source<'a>,
    },
    Document {
        source: Source<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<&'a str>,
    },
    ToolUse {
        id: Cow<'a, str>,
        name: &'a str,
        input: &'a Json<'a>,
    },
    ToolResult {
        tool_use_id: Cow<'a, str>,
        content: Content<'a>,
    },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Source<'a> {
    Base64 { media_type: &'a str, data: &'a str },
    Url { url: &'a str },
}

#[derive(Serialize)]
struct ToolOut<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    input_schema: &'a Json<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

#[derive(Serialize)]
struct ChoiceOut<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    disable_parallel_tool_use: bool,
}

#[derive(Serialize)]
struct Metadata<'a> {
    user_id: &'a str,
}

#[derive(Serialize)]
struct OutputConfig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    effort: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<Format<'a>>,
}

#[derive(Serialize)]
struct Format<'a> {
    r#type: &'static str,
    schema: &'a Json<'a>,
}

pub(super) fn write<'a>(request: &'a Request<'a>) -> Messages<'a> {
    let usual = |json: &&Json<'_>| json.text().parse::<f64>() != Ok(1.0);
    let output_config = OutputConfig {
        effort: request.effort.map(Effort::as_str),
        format: request.schema.as_ref().map(|schema| Format { r#type: "json_schema", schema }),
    };
    Messages {
        model: &request.model,
        max_tokens: request.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS),
        system: system(request),
        messages: request.turns.iter().map(message).collect(),
        tools: request.tools.iter().map(tool).collect(),
        tool_choice: choice(request),
        stop_sequences: &request.stop,
        // 1 is what it is anyhow, and the newest models take no such member at all.
        temperature: request.temperature.as_ref().filter(usual),
        top_p: request.top_p.as_ref().filter(usual),
        metadata: request.user.as_deref().map(|user_id| Metadata { user_id }),
        output_config: (request.effort.is_some() || request.schema.is_some()).then_some(output_config),
        stream: request.stream,
    }
}

/// The system prompt, which also asks for what the API has no member for.
fn system<'a>(request: &'a Request<'a>) -> Option<Content<'a>> {
    if !request.json_only {
        return (!request.system.is_empty()).then(|| texts(&request.system));
    }
    let said = request.system.iter().map(|text| &**text).chain([JSON_ONLY]);
    Some(Content::Blocks(said.map(|text| Block::Text { text }).collect()))
}

fn message<'a>(turn: &'a Turn<'a>) -> Message<'a> {
    match turn {
        Turn::User(parts) => Message { role: "user", content: user(parts) },
        Turn::Assistant { texts: said, calls } if calls.is_empty() => {
            Message { role: "assistant", content: texts(said) }
        }
        Turn::Assistant { texts, calls } => {
            let said = texts.iter().map(|text| Block::Text { text });
            Message { role: "assistant", content: Content::Blocks(said.chain(calls.iter().map(call)).collect()) }
        }
        Turn::Results(results) => {
            Message { role: "user", content: Content::Blocks(results.iter().map(result).collect()) }
        }
        Turn::System(said) => Message { role: "system", content: texts(said) },
    }
}

fn texts<'a>(texts: &'a [Cow<'a, str>]) -> Content<'a> {
    match texts {
        [] => Content::Text(""),
        [text] => Content::Text(text),
        texts => Content::Blocks(texts.iter().map(|text| Block::Text { text }).collect()),
    }
}

fn user<'a>(parts: &'a [Part<'a>]) -> Content<'a> {
    match parts {
        [] => Content::Text(""),
        [Part::Text(text)] => Content::Text(text),
        parts => Content::Blocks(parts.iter().map(part).collect()),
    }
}

fn part<'a>(part: &'a Part<'a>) -> Block<'a> {
    match part {
        Part::Text(text) => Block::Text { text },
        Part::ImageData { media_type, base64 } => Block::Image { source: Source::Base64 { media_type, data: base64 } },
        Part::ImageUrl(url) => Block::Image { source: Source::Url { url } },
        Part::Pdf { name, base64 } => {
            let source = Source::Base64 { media_type: PDF, data: base64 };
            Block::Document { source, title: name.as_deref() }
        }
    }
}

fn call<'a>(call: &'a Call<'a>) -> Block<'a> {
    Block::ToolUse { id: call_id(&call.id), name: &call.name, input: &call.input }
}

fn result<'a>(result: &'a ToolResult<'a>) -> Block<'a> {
    Block::ToolResult { tool_use_id: call_id(&result.call), content: user(&result.parts) }
}

fn tool<'a>(tool: &'a Tool<'a>) -> ToolOut<'a> {
    let Tool { name, description, schema, strict } = tool;
    ToolOut { name, description: description.as_deref(), input_schema: schema, strict: *strict }
}

/// Writes `tool_choice`. Where parallel calls are forbidden but nothing is chosen, the choice is the model's.
fn choice<'a>(request: &'a Request<'a>) -> Option<ChoiceOut<'a>> {
    let (kind, name) = match (&request.choice, request.one_call) {
        (None, false) => return None,
        (None, true) | (Some(Choice::Auto), _) => ("auto", None),
        (Some(Choice::None), _) => ("none", None),
        (Some(Choice::Any), _) => ("any", None),
        (Some(Choice::Tool(name)), _) => ("tool", Some(&**name)),
    };
    Some(ChoiceOut { r#type: kind, name, disable_parallel_tool_use: request.one_call && kind != "none" })
}
