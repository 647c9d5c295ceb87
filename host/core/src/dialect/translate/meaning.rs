//! What both APIs can say: requests, answers and streams without the words of either.
//!
//! A reader of one API refuses what these types cannot hold, a writer of the other can write all that they hold.

use std::borrow::Cow;
use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// Valid JSON, byte for byte as somebody wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Json<'a>(Cow<'a, str>);

/// A request for an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Request<'a> {
    pub(super) model: Cow<'a, str>,
    /// Instructions before the conversation, in pieces.
    pub(super) system: Vec<Cow<'a, str>>,
    pub(super) turns: Vec<Turn<'a>>,
    pub(super) tools: Vec<Tool<'a>>,
    pub(super) choice: Option<Choice<'a>>,
    /// At most one tool call at a time.
    pub(super) one_call: bool,
    /// The most tokens of the answer.
    pub(super) max_tokens: Option<u64>,
    pub(super) stop: Vec<Cow<'a, str>>,
    pub(super) temperature: Option<Json<'a>>,
    pub(super) top_p: Option<Json<'a>>,
    /// Who the client's user is, for the provider's abuse watch.
    pub(super) user: Option<Cow<'a, str>>,
    /// The JSON schema that the answer must keep to.
    pub(super) schema: Option<Json<'a>>,
    /// How hard to think.
    pub(super) effort: Option<Effort>,
    pub(super) stream: bool,
    /// The client of a chat stream asked for the usage.
    pub(super) include_usage: bool,
}

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Turn<'a> {
    User(Vec<Part<'a>>),
    Assistant {
        texts: Vec<Cow<'a, str>>,
        calls: Vec<Call<'a>>,
    },
    /// What tools answered; together, because Anthropic wants all answers to one turn in one message.
    Results(Vec<ToolResult<'a>>),
    /// Instructions in the middle.
    System(Vec<Cow<'a, str>>),
}

/// A piece of what a user says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part<'a> {
    Text(Cow<'a, str>),
    ImageData { media_type: Cow<'a, str>, base64: Cow<'a, str> },
    ImageUrl(Cow<'a, str>),
    Pdf { name: Option<Cow<'a, str>>, base64: Cow<'a, str> },
}

/// A tool call: `input` is an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) name: Cow<'a, str>,
    pub(super) input: Json<'a>,
}

/// What a tool answered.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ToolResult<'a> {
    pub(super) call: Cow<'a, str>,
    pub(super) texts: Vec<Cow<'a, str>>,
}

/// A tool the model may call.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tool<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) description: Option<Cow<'a, str>>,
    /// Its input's JSON schema.
    pub(super) schema: Json<'a>,
    pub(super) strict: Option<bool>,
}

/// Whether and which tools the model is to call.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Choice<'a> {
    Auto,
    None,
    Any,
    Tool(Cow<'a, str>),
}

/// How hard to think; the words are the same in both APIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effort {
    Low,
    Medium,
    High,
    XHigh,
    Max,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer<'a> {
    pub(super) head: Head<'a>,
    /// Its text; none when it says nothing but tool calls.
    pub(super) text: Option<Cow<'a, str>>,
    pub(super) calls: Vec<Call<'a>>,
    pub(super) stop: Stop<'a>,
    pub(super) usage: Usage,
}

/// Who answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head<'a> {
    pub(super) id: Cow<'a, str>,
    /// The model that answered; empty when the upstream does not say.
    pub(super) model: Cow<'a, str>,
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop<'a> {
    End,
    /// A stop sequence, if it is known which.
    Sequence(Cow<'a, str>),
    /// It is not complete.
    Length,
    Calls,
    Refusal,
}

/// Tokens used; `input` counts all of the prompt, cached or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) input: u64,
    pub(super) cached: u64,
    pub(super) written: u64,
    pub(super) output: u64,
    pub(super) reasoning: Option<u64>,
}

/// What an event of a stream says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum News<'a> {
    Start(Head<'a>),
    Text(Cow<'a, str>),
    /// A tool call begins; calls are told apart by their number, counted from 0.
    Call {
        number: usize,
        id: Cow<'a, str>,
        name: Cow<'a, str>,
    },
    /// A piece of that call's input.
    Input {
        number: usize,
        json: Cow<'a, str>,
    },
    /// That call is complete.
    CallEnd {
        number: usize,
    },
    Stop(Stop<'a>),
    /// Replaces what was told before.
    Usage(Usage),
    /// Nothing, but the upstream is alive.
    Ping,
    /// The stream's own end.
    End,
}

impl<'a> Json<'a> {
    /// Takes over text that is known to be JSON.
    pub(super) const fn verbatim(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// Reads text that may be JSON; none unless it is an object. A model that means "no arguments" may say nothing.
    pub(super) fn object(text: Cow<'a, str>) -> Option<Self> {
        if text.trim().is_empty() {
            return Some(Self(Cow::Borrowed("{}")));
        }
        let is_object = text.trim_start().starts_with('{') && serde_json::from_str::<&RawValue>(&text).is_ok();
        is_object.then_some(Self(text))
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(to)
    }
}

impl Effort {
    pub(super) const ALL: [Effort; 5] = [Effort::Low, Effort::Medium, Effort::High, Effort::XHigh, Effort::Max];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Effort::Low => "low",
            Effort::Medium => "medium",
            Effort::High => "high",
            Effort::XHigh => "xhigh",
            Effort::Max => "max",
        }
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|effort| effort.word() == word)
    }
}

impl fmt::Display for Effort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
