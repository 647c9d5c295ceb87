//! Requests, answers and streams in a form that is no dialect's own.
//!
//! Readers refuse what these types cannot hold; writers can write all that they hold.

use std::borrow::Cow;
use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// The media type of the only files that a conversation can hold.
pub const PDF: &str = "application/pdf";

/// Valid JSON, byte for byte as somebody wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json<'a>(Cow<'a, str>);

/// A request for an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request<'a> {
    /// The model that is asked for.
    pub model: Cow<'a, str>,
    /// Instructions before the conversation, in pieces.
    pub system: Vec<Cow<'a, str>>,
    /// The conversation, which ends with something to answer.
    pub turns: Vec<Turn<'a>>,
    /// Tools that the model may call.
    pub tools: Vec<Tool<'a>>,
    /// Rule by which the model calls tools; none: not said.
    pub choice: Option<Choice<'a>>,
    /// At most one tool call at a time.
    pub one_call: bool,
    /// The most tokens of the answer.
    pub max_tokens: Option<u64>,
    /// Sequences that end the answer.
    pub stop: Vec<Cow<'a, str>>,
    /// The sampling temperature, a number.
    pub temperature: Option<Json<'a>>,
    /// The sampling nucleus, a number.
    pub top_p: Option<Json<'a>>,
    /// User of the client, for the provider's abuse detection.
    pub user: Option<Cow<'a, str>>,
    /// The JSON schema that the answer must keep to.
    pub schema: Option<Json<'a>>,
    /// The answer must be a JSON object, whichever.
    pub json_only: bool,
    /// Effort that the model is to put into reasoning; none: not said.
    pub effort: Option<Effort>,
    /// True if a stream is asked for.
    pub stream: bool,
    /// The client of a chat stream asked for the usage.
    pub include_usage: bool,
}

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub enum Turn<'a> {
    /// A message of the user, in parts.
    User(Vec<Part<'a>>),
    /// A message of the assistant, with its tool calls.
    Assistant {
        /// Text of the message, in pieces.
        texts: Vec<Cow<'a, str>>,
        /// Its tool calls, which come after the text.
        calls: Vec<Call<'a>>,
    },
    /// The results of tools; together, because Anthropic wants all results of one turn in one message.
    Results(Vec<ToolResult<'a>>),
    /// Instructions between two messages.
    System(Vec<Cow<'a, str>>),
}

/// A piece of a user's message, or of a tool's result.
#[derive(Clone, Debug, PartialEq)]
pub enum Part<'a> {
    /// A piece of text.
    Text(Cow<'a, str>),
    /// A picture in the request itself.
    ImageData {
        /// Media type, such as `image/png`.
        media_type: Cow<'a, str>,
        /// Content, in base64.
        base64: Cow<'a, str>,
    },
    /// The address of a picture.
    ImageUrl(Cow<'a, str>),
    /// A PDF in the request itself.
    Pdf {
        /// Name of the file, if it has one.
        name: Option<Cow<'a, str>>,
        /// Content, in base64.
        base64: Cow<'a, str>,
    },
}

/// A tool call: `input` is an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Call<'a> {
    /// Id that the result refers to.
    pub id: Cow<'a, str>,
    /// Name of the tool.
    pub name: Cow<'a, str>,
    /// Arguments of the call, as a JSON object.
    pub input: Json<'a>,
}

/// The result of a tool call.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolResult<'a> {
    /// The id of the call.
    pub call: Cow<'a, str>,
    /// The result, in parts.
    pub parts: Vec<Part<'a>>,
}

/// A tool the model may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// Its description for the model.
    pub description: Option<Cow<'a, str>>,
    /// JSON schema of its arguments.
    pub schema: Json<'a>,
    /// True if calls must keep to the schema.
    pub strict: Option<bool>,
}

/// Tools that the model must, may or must not call.
#[derive(Clone, Debug, PartialEq)]
pub enum Choice<'a> {
    /// The model calls tools or not.
    Auto,
    /// The model calls no tool.
    None,
    /// The model calls at least one tool.
    Any,
    /// The model calls this tool.
    Tool(Cow<'a, str>),
}

vocabulary! {
    /// Reasoning effort; most APIs have the same names.
    pub enum Effort {
        /// `low`
        Low = "low",
        /// `medium`
        Medium = "medium",
        /// `high`
        High = "high",
        /// `xhigh`
        XHigh = "xhigh",
        /// `max`
        Max = "max",
    }
}

/// A whole answer, in no provider's format.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer<'a> {
    /// Id and model as the provider names them.
    pub head: Head<'a>,
    /// Its text; none when it says nothing but tool calls.
    pub text: Option<Cow<'a, str>>,
    /// Tool calls, in their order.
    pub calls: Vec<Call<'a>>,
    /// Finish reason of the answer.
    pub stop: Stop<'a>,
    /// Tokens of the prompt and the answer.
    pub usage: Usage,
}

/// The answer's id and model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head<'a> {
    /// Id that the provider gave the answer.
    pub id: Cow<'a, str>,
    /// The model that answered; empty when the upstream does not say.
    pub model: Cow<'a, str>,
}

/// Finish reason of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop<'a> {
    /// The model came to its end.
    End,
    /// A stop sequence, if it is known which.
    Sequence(Cow<'a, str>),
    /// The limit of tokens was reached.
    Length,
    /// The model calls tools and waits for their results.
    Calls,
    /// The model or a filter refused.
    Refusal,
}

/// Tokens used; `input` counts all of the prompt, cached or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt, cached or not.
    pub input: u64,
    /// Those of them that came from a cache.
    pub cached: u64,
    /// Those of them that were written to a cache.
    pub written: u64,
    /// Tokens of the answer.
    pub output: u64,
    /// Those of them that were thoughts, where it is known.
    pub reasoning: Option<u64>,
}

/// An event of a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum News<'a> {
    /// The stream begins.
    Start(Head<'a>),
    /// A piece of its text.
    Text(Cow<'a, str>),
    /// A tool call begins; calls are told apart by their number, counted from 0.
    Call {
        /// Number of the call in the answer, from 0.
        number: usize,
        /// Id of the call.
        id: Cow<'a, str>,
        /// Name of the tool.
        name: Cow<'a, str>,
    },
    /// A piece of that call's input.
    Input {
        /// Number of the call in the answer, from 0.
        number: usize,
        /// A piece of the arguments' JSON.
        json: Cow<'a, str>,
    },
    /// The arguments of that call are complete.
    CallEnd {
        /// Number of the call in the answer, from 0.
        number: usize,
    },
    /// The model says why it stops.
    Stop(Stop<'a>),
    /// Replaces what was told before.
    Usage(Usage),
    /// Nothing, but the upstream is alive.
    Ping,
    /// The format's own last event.
    End,
}

impl<'a> Json<'a> {
    /// Takes over text that is known to be JSON.
    pub const fn verbatim(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// A number as JSON writes it.
    pub fn number(number: f64) -> Self {
        Self(Cow::Owned(number.to_string()))
    }

    /// The JSON schema of an object with these members besides its type, which are JSON without the outer braces.
    pub fn schema_of_object(members: &str) -> Self {
        Self(Cow::Owned(format!(r#"{{"type":"object",{members}}}"#)))
    }

    /// An object whose one member is this text.
    pub fn wrapped(name: &str, text: &str) -> Self {
        Self(Cow::Owned(serde_json::json!({ name: text }).to_string()))
    }

    /// Reads text that may be JSON; none unless it is an object. A model that means "no arguments" may say nothing.
    pub fn object(text: Cow<'a, str>) -> Option<Self> {
        if text.trim().is_empty() {
            return Some(Self(Cow::Borrowed("{}")));
        }
        let is_object = text.trim_start().starts_with('{') && serde_json::from_str::<&RawValue>(&text).is_ok();
        is_object.then_some(Self(text))
    }

    /// Returns the JSON as it stands.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(to)
    }
}

impl fmt::Display for Effort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
