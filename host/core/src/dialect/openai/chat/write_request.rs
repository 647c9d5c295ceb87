//! Writes a chat completions request.

use std::borrow::Cow;

use serde::Serialize;
use serde::ser::Serializer;
use sha2::{Digest, Sha256};

use crate::dialect::format::neutral::{Call, Choice, Effort, Json, PDF, Part, Request, Tool, ToolResult, Turn};

/// OpenAI wants a name for a file and a schema; this is it where Anthropic's client gave none.
const FILE_NAME: &str = "document.pdf";
const SCHEMA_NAME: &str = "answer";

#[derive(Serialize)]
pub(super) struct Chat<'a> {
    model: &'a str,
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tools: Vec<ToolOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<ChoiceOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    stop: &'a [Cow<'a, str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<&'a Json<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<&'a Json<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<Format<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_effort: Option<&'static str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
}

#[derive(Serialize)]
#[serde(tag = "role", rename_all = "snake_case")]
enum Message<'a> {
    System {
        content: Content<'a>,
    },
    User {
        content: Content<'a>,
    },
    Assistant {
        /// OpenAI wants the member even when there is nothing to say.
        content: Option<Content<'a>>,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        tool_calls: Vec<CallOut<'a>>,
    },
    Tool {
        tool_call_id: Cow<'a, str>,
        content: Content<'a>,
    },
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(&'a str),
    Parts(Vec<PartOut<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum PartOut<'a> {
    Text { text: &'a str },
    ImageUrl { image_url: Image<'a> },
    File { file: File<'a> },
}

#[derive(Serialize)]
struct Image<'a> {
    url: Url<'a>,
}

#[derive(Serialize)]
struct File<'a> {
    filename: &'a str,
    file_data: Url<'a>,
}

/// An address, or a `data:` URL that is put together as it is written.
enum Url<'a> {
    Address(&'a str),
    Data { media_type: &'a str, base64: &'a str },
}

/// A tool call as both a request and an answer have it.
#[derive(Serialize)]
pub(super) struct CallOut<'a> {
    id: Cow<'a, str>,
    r#type: &'static str,
    function: CalledFunction<'a>,
}

#[derive(Serialize)]
struct CalledFunction<'a> {
    name: &'a str,
    arguments: &'a str,
}

#[derive(Serialize)]
struct ToolOut<'a> {
    r#type: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    parameters: &'a Json<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ChoiceOut<'a> {
    Word(&'static str),
    Function { r#type: &'static str, function: FunctionName<'a> },
}

#[derive(Serialize)]
struct FunctionName<'a> {
    name: &'a str,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Format<'a> {
    JsonObject,
    JsonSchema { json_schema: NamedSchema<'a> },
}

#[derive(Serialize)]
struct NamedSchema<'a> {
    name: &'static str,
    strict: bool,
    schema: &'a Json<'a>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

pub(super) fn write<'a>(request: &'a Request<'a>) -> Chat<'a> {
    let system = (!request.system.is_empty()).then(|| Message::System { content: texts(&request.system) });
    let by_schema =
        |schema| Format::JsonSchema { json_schema: NamedSchema { name: SCHEMA_NAME, strict: true, schema } };
    let format = request.schema.as_ref().map(by_schema);
    Chat {
        model: &request.model,
        messages: system.into_iter().chain(request.turns.iter().flat_map(messages)).collect(),
        tools: request.tools.iter().map(tool).collect(),
        tool_choice: request.choice.as_ref().map(choice),
        parallel_tool_calls: request.one_call.then_some(false),
        max_tokens: request.max_tokens,
        stop: &request.stop,
        temperature: request.temperature.as_ref(),
        top_p: request.top_p.as_ref(),
        user: request.user.as_deref(),
        response_format: format.or(request.json_only.then_some(Format::JsonObject)),
        reasoning_effort: request.effort.map(Effort::as_str),
        stream: request.stream,
        // The usage is always counted, whoever the client is.
        stream_options: request.stream.then_some(StreamOptions { include_usage: true }),
    }
}

fn messages<'a>(turn: &'a Turn<'a>) -> Vec<Message<'a>> {
    match turn {
        Turn::User(parts) => vec![Message::User { content: user(parts) }],
        Turn::Assistant { texts: said, calls } => {
            let content = (!said.is_empty()).then(|| texts(said));
            let sent = |c: &'a Call<'a>| CallOut { id: call_id(&c.id), ..call(c) };
            vec![Message::Assistant { content, tool_calls: calls.iter().map(sent).collect() }]
        }
        Turn::Results(results) => {
            let tool =
                |r: &'a ToolResult<'a>| Message::Tool { tool_call_id: call_id(&r.call), content: user(&r.parts) };
            results.iter().map(tool).collect()
        }
        Turn::System(said) => vec![Message::System { content: texts(said) }],
    }
}

/// A call's id. OpenAI takes 40 characters; of a longer one the beginning and a hash stand for it, wherever it stands.
fn call_id(id: &str) -> Cow<'_, str> {
    const MAX_CHARS: usize = 40;
    if id.chars().count() <= MAX_CHARS {
        return Cow::Borrowed(id);
    }
    let hash: String = Sha256::digest(id).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let beginning: String = id.chars().take(MAX_CHARS - 1 - hash.len()).collect();
    Cow::Owned(format!("{beginning}_{hash}"))
}

fn texts<'a>(texts: &'a [Cow<'a, str>]) -> Content<'a> {
    match texts {
        [] => Content::Text(""),
        [text] => Content::Text(text),
        texts => Content::Parts(texts.iter().map(|text| PartOut::Text { text }).collect()),
    }
}

fn user<'a>(parts: &'a [Part<'a>]) -> Content<'a> {
    match parts {
        [] => Content::Text(""),
        [Part::Text(text)] => Content::Text(text),
        parts => Content::Parts(parts.iter().map(part).collect()),
    }
}

fn part<'a>(part: &'a Part<'a>) -> PartOut<'a> {
    match part {
        Part::Text(text) => PartOut::Text { text },
        Part::ImageData { media_type, base64 } => {
            PartOut::ImageUrl { image_url: Image { url: Url::Data { media_type, base64 } } }
        }
        Part::ImageUrl(url) => PartOut::ImageUrl { image_url: Image { url: Url::Address(url) } },
        Part::Pdf { name, base64 } => {
            let filename = name.as_deref().unwrap_or(FILE_NAME);
            PartOut::File { file: File { filename, file_data: Url::Data { media_type: PDF, base64 } } }
        }
    }
}

pub(super) fn call<'a>(call: &'a Call<'a>) -> CallOut<'a> {
    let function = CalledFunction { name: &call.name, arguments: call.input.text() };
    CallOut { id: Cow::Borrowed(&call.id), r#type: "function", function }
}

fn tool<'a>(tool: &'a Tool<'a>) -> ToolOut<'a> {
    let Tool { name, description, schema, strict } = tool;
    let function = Function { name, description: description.as_deref(), parameters: schema, strict: *strict };
    ToolOut { r#type: "function", function }
}

fn choice<'a>(choice: &'a Choice<'a>) -> ChoiceOut<'a> {
    match choice {
        Choice::Auto => ChoiceOut::Word("auto"),
        Choice::None => ChoiceOut::Word("none"),
        Choice::Any => ChoiceOut::Word("required"),
        Choice::Tool(name) => ChoiceOut::Function { r#type: "function", function: FunctionName { name } },
    }
}

impl Serialize for Url<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Url::Address(url) => to.serialize_str(url),
            Url::Data { media_type, base64 } => to.collect_str(&format_args!("data:{media_type};base64,{base64}")),
        }
    }
}
