//! What both APIs can say: requests, answers and streams without the words of either.
//!
//! A reader of one API refuses what these types cannot hold, a writer of the other can write all that they hold.

use std::borrow::Cow;
use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// Valid JSON, byte for byte as somebody wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dialect) struct Json<'a>(Cow<'a, str>);

/// A request for an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::dialect) struct Request<'a> {
    pub(in crate::dialect) model: Cow<'a, str>,
    /// Instructions before the conversation, in pieces.
    pub(in crate::dialect) system: Vec<Cow<'a, str>>,
    pub(in crate::dialect) turns: Vec<Turn<'a>>,
    pub(in crate::dialect) tools: Vec<Tool<'a>>,
    pub(in crate::dialect) choice: Option<Choice<'a>>,
    /// At most one tool call at a time.
    pub(in crate::dialect) one_call: bool,
    /// The most tokens of the answer.
    pub(in crate::dialect) max_tokens: Option<u64>,
    pub(in crate::dialect) stop: Vec<Cow<'a, str>>,
    pub(in crate::dialect) temperature: Option<Json<'a>>,
    pub(in crate::dialect) top_p: Option<Json<'a>>,
    /// Who the client's user is, for the provider's abuse watch.
    pub(in crate::dialect) user: Option<Cow<'a, str>>,
    /// The JSON schema that the answer must keep to.
    pub(in crate::dialect) schema: Option<Json<'a>>,
    /// How hard to think.
    pub(in crate::dialect) effort: Option<Effort>,
    pub(in crate::dialect) stream: bool,
    /// The client of a chat stream asked for the usage.
    pub(in crate::dialect) include_usage: bool,
}

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::dialect) enum Turn<'a> {
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
pub(in crate::dialect) enum Part<'a> {
    Text(Cow<'a, str>),
    ImageData { media_type: Cow<'a, str>, base64: Cow<'a, str> },
    ImageUrl(Cow<'a, str>),
    Pdf { name: Option<Cow<'a, str>>, base64: Cow<'a, str> },
}

/// A tool call: `input` is an object.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::dialect) struct Call<'a> {
    pub(in crate::dialect) id: Cow<'a, str>,
    pub(in crate::dialect) name: Cow<'a, str>,
    pub(in crate::dialect) input: Json<'a>,
}

/// What a tool answered.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::dialect) struct ToolResult<'a> {
    pub(in crate::dialect) call: Cow<'a, str>,
    pub(in crate::dialect) texts: Vec<Cow<'a, str>>,
}

/// A tool the model may call.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::dialect) struct Tool<'a> {
    pub(in crate::dialect) name: Cow<'a, str>,
    pub(in crate::dialect) description: Option<Cow<'a, str>>,
    /// Its input's JSON schema.
    pub(in crate::dialect) schema: Json<'a>,
    pub(in crate::dialect) strict: Option<bool>,
}

/// Whether and which tools the model is to call.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::dialect) enum Choice<'a> {
    Auto,
    None,
    Any,
    Tool(Cow<'a, str>),
}

/// How hard to think; the words are the same in both APIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dialect) enum Effort {
    Low,
    Medium,
    High,
    XHigh,
    Max,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::dialect) struct Answer<'a> {
    pub(in crate::dialect) head: Head<'a>,
    /// Its text; none when it says nothing but tool calls.
    pub(in crate::dialect) text: Option<Cow<'a, str>>,
    pub(in crate::dialect) calls: Vec<Call<'a>>,
    pub(in crate::dialect) stop: Stop<'a>,
    pub(in crate::dialect) usage: Usage,
}

/// Who answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::dialect) struct Head<'a> {
    pub(in crate::dialect) id: Cow<'a, str>,
    /// The model that answered; empty when the upstream does not say.
    pub(in crate::dialect) model: Cow<'a, str>,
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dialect) enum Stop<'a> {
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
pub(in crate::dialect) struct Usage {
    pub(in crate::dialect) input: u64,
    pub(in crate::dialect) cached: u64,
    pub(in crate::dialect) written: u64,
    pub(in crate::dialect) output: u64,
    pub(in crate::dialect) reasoning: Option<u64>,
}

/// What an event of a stream says.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::dialect) enum News<'a> {
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
    pub(in crate::dialect) const fn verbatim(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// Reads text that may be JSON; none unless it is an object. A model that means "no arguments" may say nothing.
    pub(in crate::dialect) fn object(text: Cow<'a, str>) -> Option<Self> {
        if text.trim().is_empty() {
            return Some(Self(Cow::Borrowed("{}")));
        }
        let is_object = text.trim_start().starts_with('{') && serde_json::from_str::<&RawValue>(&text).is_ok();
        is_object.then_some(Self(text))
    }

    pub(in crate::dialect) fn text(&self) -> &str {
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
    pub(in crate::dialect) const ALL: [Effort; 5] =
        [Effort::Low, Effort::Medium, Effort::High, Effort::XHigh, Effort::Max];

    pub(in crate::dialect) const fn word(self) -> &'static str {
        match self {
            Effort::Low => "low",
            Effort::Medium => "medium",
            Effort::High => "high",
            Effort::XHigh => "xhigh",
            Effort::Max => "max",
        }
    }

    pub(in crate::dialect) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|effort| effort.word() == word)
    }
}

impl fmt::Display for Effort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
