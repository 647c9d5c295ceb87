//! Conversations of one dialect in another.
//!
//! A request is read into a neutral form ([`neutral`]) and written again; so are the answer, its stream and its errors on the
//! way back. Each dialect has one reader and one writer of each ([`Conversation`]). Facts are those of both APIs' references and
//! of the types in their official SDKs (openai 3.54 and anthropic 2.12 for Python). A translated request is meant for
//! `anthropic-version: 2023-06-01`.
//!
//! # Fields without a counterpart
//!
//! | kind | [lenient](Strictness::Lenient) | [strict](Strictness::Strict) |
//! |---|---|---|
//! | changes the meaning: whether there is an answer, what of it the client reads, what it must contain, what the model is shown | refused by name ([`Untranslatable`]) | refused by name |
//! | tunes the answer, or orders it in a way that the other API has not | left out or said otherwise, and named in [`LeftOut`] | refused by name |
//! | a hint about price, speed or books | left out | left out; some are refused by name |
//!
//! A member that nobody knows tunes; a kind of message, part or tool that nobody knows is meaning.
//!
//! | changes the meaning | tunes |
//! |---|---|
//! | `n` above 1, `logprobs`, `top_logprobs`, `logit_bias`, `modalities` and `audio`, `functions`, `moderation`, `web_search_options` | `seed`, penalties, `verbosity`, `service_tier`, `store`, `top_k`, `speed` |
//! | a tool that the provider runs, if there is no other or if it is chosen; a custom tool of chat | one among others; `input_examples` |
//! | `container`, `mcp_servers`, `inference_geo`, `max_tokens: 0` | `thinking` with a budget or a wish to read it, `context_management`, an effort without a word there |
//! | audio, files by id, kinds of pictures that Anthropic cannot see | an image's `detail` `low`, citations, a participant's `name` |
//! | messages that end with the assistant's own words, to be gone on with | a temperature beyond the range (the highest), further or blank stop sequences, the older of two limits that differ |
//!
//! # Said in other words
//!
//! | chat completions | messages |
//! |---|---|
//! | `system` and `developer` messages that come first | `system` |
//! | `system` messages where they stand | `system` messages in the middle |
//! | `system` and `developer` messages in the middle, which few models take there | lenient: a user's text in `<system-reminder>` |
//! | `tool` messages, one for each result | `tool_result` blocks of one user message |
//! | lenient: a user's message behind the results | pictures and files in results |
//! | `refusal` of an assistant's message | a text |
//! | a text "The tool call failed." before the result | `is_error: true` |
//! | lenient: the assistant's words, then its calls | words behind calls |
//! | `data:` URL in base64, or address | `base64` or `url` source |
//! | `file` with a PDF as `data:` URL, `filename` ("document.pdf" if there is none) | `document` with a `base64` source, `title` |
//! | lenient: texts | documents in plain text, search results, summaries of compacted context |
//! | lenient: functions with the schemas of the reference | the bash, text editor and memory tools |
//! | `max_completion_tokens`, `max_tokens` (left out: [`DEFAULT_MAX_TOKENS`](request::DEFAULT_MAX_TOKENS)) | `max_tokens` |
//! | `tool_choice` `auto`, `none`, `required`, a function | `auto`, `none`, `any`, `tool` |
//! | lenient: a choice of several tools | only those tools |
//! | `parallel_tool_calls: false` | `disable_parallel_tool_use: true` |
//! | `response_format` `json_schema`, named "answer" on the way from messages | `output_config.format`, once `output_format` |
//! | earlier calls without tools, which it refuses | the tools that were called, and `tool_choice` `none` |
//! | lenient: `response_format` `json_object` | an instruction to answer with nothing but JSON |
//! | `reasoning_effort` `low` to `max`; lenient: `minimal` | `output_config.effort`; `low` |
//! | `user` | `metadata.user_id` |
//! | `prompt_tokens`, in which `cached_tokens` and `cache_write_tokens` are counted | `input_tokens`, `cache_read_input_tokens` and `cache_creation_input_tokens` beside each other |
//! | `stop` | `end_turn`; `tool_use` if tools are called; `stop_sequence` if the backend says which |
//! | `length` | `max_tokens`, `model_context_window_exceeded`, `pause_turn`, and any reason not known: not complete |
//! | `tool_calls` | `tool_use` |
//! | `content_filter`, or a `refusal` | `refusal` |
//! | a tool's name; of more than 64 characters, beginning and end with a hash between them, undone in the answer | the same |
//! | lenient: `file` with a text as `data:` URL | a text |
//! | a tool call's id; of more than 40 characters, the beginning and a hash | the same; signs that Anthropic refuses are written as `_x` and two hex digits |
//!
//! An effort is left out, and named, for models that are known to refuse one ([`Conversation::takes_effort`]).
//!
//! Lenient translation also mends the conversation ([`mend`]): a call without a result gets one that says so, a result
//! without a call is told by the user, messages that say nothing are left out, and where Anthropic's API wants a user to begin
//! or to end, one does.
//!
//! # Left out, because it makes no difference to the answer
//!
//! | field | why |
//! |---|---|
//! | any member that is `null` | it says nothing |
//! | `metadata`, `safety_identifier` (chat), `diagnostics` (messages) | for the provider's books |
//! | a `user` that is longer than the other API takes (lenient) | for the provider's books |
//! | `store: false`, `n: 1`, `logprobs: false`, penalties of 0, an empty `logit_bias`, `service_tier` `auto` or `default`, `verbosity: medium`, `modalities: ["text"]` | what the other API does anyhow |
//! | `temperature: 1` and `top_p: 1` on the way to messages | the same; the newest models take no such member |
//! | a `top_p` beside a `temperature` on the way to messages (lenient, and told) | newer models refuse the two together |
//! | `service_tier` `auto` or `standard_only`, `speed: standard`, `thinking` that is `disabled`, or `adaptive` without a wish to read it (messages) | the same |
//! | `prediction`, `prompt_cache_*`, `cache_control`, `stream_options.include_obfuscation`, `eager_input_streaming`, `defer_loading` (lenient) | price, speed, or the size of packets |
//! | an image's `detail` `auto` or `high` | Anthropic looks at all of a picture |
//! | the `name` of a JSON schema, and its `strict` | Anthropic wants no name, and always keeps to the schema |
//! | `parallel_tool_calls` and a `tool_choice` of `auto` or `none` without tools | there is nothing to choose |
//! | empty texts on the way to messages | they say nothing, and Anthropic refuses them |
//! | `thinking`, `redacted_thinking`, `reasoning`, `reasoning_content`, `reasoning_details`, in requests and answers | thoughts are signed for, and of use to, the one model that had them; OpenAI's API shows none either. Their tokens are told in the usage |
//!
//! The newest models behind Anthropic's API refuse any `temperature` and `top_p`; which, only they know, and their own
//! 400 names the field. `anthropic-*` and `openai-*` headers are left out on the way to the other.
//!
//! # Known losses in answers
//!
//! OpenAI's `stop` does not tell a stop sequence from an end, unless the backend adds `stop_reason` (vLLM does). A text
//! behind a tool call is joined to the text before it on the way to chat, which has no such order. Citations, and
//! annotations, are left out should they come.

mod answer;
pub mod error;
mod ids;
pub mod left_out;
mod mend;
mod names;
mod prepared;
pub mod request;
pub mod stream;

pub use ids::MadeUpIds;
pub use names::LongNames;
pub use prepared::Translations;

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

pub use super::format::{Api, Conversation, LeftOut, Read, StreamReader, StreamWriter, Untranslatable, neutral};
use super::registry::Dialect;
use crate::contract::Operation;
use crate::time::Timestamp;

vocabulary! {
    /// The treatment of fields that have no counterpart and only tune the answer, or ask for it in another order.
    #[derive(Default)]
    pub enum Strictness {
        /// They are left out, and the client and the record are told; what changes the meaning is refused by name.
        #[default]
        Lenient = "lenient",
        /// They are refused by name.
        Strict = "strict",
    }
}

/// The way a request is translated; its answer goes back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    from: Dialect,
    to: Dialect,
}

/// Facts for translating the answer of a translated request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// The way its request went.
    pub translation: Translation,
    /// The client wants a stream.
    pub stream: bool,
    /// The client of a chat stream asked for the usage.
    pub include_usage: bool,
    /// The model that was asked for upstream, should the answer not name its own.
    pub model: String,
    /// Ids, should the answer have none.
    pub ids: MadeUpIds,
    /// Names of tools that were shortened.
    pub names: LongNames,
}

impl Translation {
    /// Chat completions to messages.
    pub const CHAT_TO_MESSAGES: Self = Self { from: Dialect::OPENAI, to: Dialect::ANTHROPIC };

    /// Messages to chat completions.
    pub const MESSAGES_TO_CHAT: Self = Self { from: Dialect::ANTHROPIC, to: Dialect::OPENAI };

    /// The way a request of this operation goes to a backend of this dialect; none when no translation is needed, or
    /// there is none.
    pub fn of(operation: Operation, dialect: Dialect) -> Option<Self> {
        let from = Dialect::of_operation(operation);
        let translates = || from.format().conversation().is_some_and(|own| own.operation() == operation);
        let is_translated = from != dialect && dialect.format().conversation().is_some() && translates();
        is_translated.then_some(Self { from, to: dialect })
    }

    /// The dialect of the client.
    pub const fn downstream(self) -> Dialect {
        self.from
    }

    /// The dialect of the backend, and the operation that it is asked for.
    pub fn upstream(self) -> (Dialect, Operation) {
        (self.to, self.target().operation())
    }

    /// The path that the translated request goes to, under the backend's base URL.
    pub fn path(self, model: &str, stream: bool) -> Cow<'static, str> {
        self.target().path(model, stream)
    }

    pub(super) fn source(self) -> &'static dyn Conversation {
        self.from.format().conversation().expect("a translation is between dialects with conversations")
    }

    pub(super) fn target(self) -> &'static dyn Conversation {
        self.to.format().conversation().expect("a translation is between dialects with conversations")
    }
}

/// The path and body of a request for one token, in this dialect's own words; none where it has no conversations.
pub fn ping(dialect: Dialect, model: &str) -> Option<(Cow<'static, str>, Bytes)> {
    let conversation = dialect.format().conversation()?;
    let request = neutral::Request {
        model: model.into(),
        turns: vec![neutral::Turn::User(vec![neutral::Part::Text("ping".into())])],
        max_tokens: Some(1),
        ..neutral::Request::default()
    };
    Some((conversation.path(model, false), conversation.write_request(&request)))
}

impl fmt::Debug for Translation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} -> {:?}", self.from, self.to)
    }
}

impl Answers {
    /// Translates a whole answer, made now.
    ///
    /// # Errors
    /// [`Untranslatable`]: the upstream's fault, or something that was not asked for.
    pub fn whole(&self, body: &[u8], now: Timestamp) -> Result<Bytes, Untranslatable> {
        answer::translate(self, body, now)
    }

    /// A translator for the events of a stream that begins now.
    pub fn stream(&self, now: Timestamp) -> stream::Stream {
        stream::Stream::new(self, now)
    }
}
