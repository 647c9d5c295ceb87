//! The differences between dialects, as traits that each folder implements, and what the implementations share. Nothing here
//! depends on a dialect or on the registry.

mod api;
mod conversation;
pub(in crate::dialect) mod edit;
mod ends;
mod error_kind;
mod error_scope;
mod error_types;
mod error_words;
mod events;
mod failure;
mod finish;
mod inability;
mod listing;
pub mod message;
pub mod neutral;
mod opened;
mod parts;
mod prefill;
pub(in crate::dialect) mod read;
mod shown;
mod usage;

pub use api::Api;
pub use conversation::{Conversation, DEFAULT_MAX_TOKENS, StreamReader, StreamWriter};
pub(in crate::dialect) use conversation::{MAX_CALLS, json};
pub use error_kind::ErrorKind;
pub use error_scope::narrowed;
use error_scope::scope_by_words;
pub use error_words::{by_status, by_words};
pub use events::{EventWriter, write_event};
pub use failure::is_error;
pub(in crate::dialect) use failure::{is_failed_status, says_something};
pub(in crate::dialect) use finish::{Finish, explains_empty};
pub use listing::{ListedModel, ModelPage};
pub(in crate::dialect) use message::ErrorDetails;
pub use opened::{Opened, Told};
pub use parts::{Names, Part, Unfit, Verdict, Walker};
pub(in crate::dialect) use parts::{Walked, choice_of, in_choice, is_filled, restore};
pub(in crate::dialect) use prefill::{append_to_prompt, with_assistant_message};
pub use read::{LeftOut, Read, Untranslatable};
pub use shown::Shown;
pub(in crate::dialect) use shown::{elements_of, filled_or_empty, holds_content};
pub use usage::{Counts, Sight, Tally};
pub(in crate::dialect) use usage::{Delta, filled_length};

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName};
use serde_json::{Value, json};

use crate::contract::Operation;
use crate::http::sse::Event;
use crate::http::url::percent_encoded;
use crate::outcome::{Kind, Scope};

/// A provider's wire format. Most methods have a default, which is the behaviour that most providers share.
pub trait WireFormat: fmt::Debug + Send + Sync {
    /// Its name in settings, records and labels.
    fn name(&self) -> &'static str;

    /// Its operations, each with the end of its path. The first match counts.
    fn operations(&self) -> &'static [(&'static str, Operation)];

    /// The operation of requests about things that its providers store, and the first segments of their paths.
    fn collections(&self) -> Option<(Operation, &'static [&'static str])> {
        None
    }

    /// Returns true if the operation is one of this dialect's own.
    fn owns(&self, operation: Operation) -> bool {
        self.operations().iter().any(|(_, own)| *own == operation)
            || self.collections().is_some_and(|(own, _)| own == operation)
    }

    /// Returns true if requests and answers pass unread: any operation, no models, no usage, judged by status alone.
    fn is_opaque(&self) -> bool {
        false
    }

    /// Returns true if requests of this operation can be sent as they are.
    fn takes(&self, operation: Operation) -> bool {
        operation == Operation::Other || self.owns(operation)
    }

    /// Returns true if tokens are counted in answers of this operation.
    fn reads_usage(&self, operation: Operation) -> bool {
        !self.is_opaque() && operation.is_read()
    }

    /// The header that holds the backend's key.
    fn key_header(&self) -> HeaderName {
        AUTHORIZATION
    }

    /// The beginning of that header's value, before the key.
    fn key_prefix(&self) -> &'static str {
        "Bearer "
    }

    /// Adds headers that every request must have, where the client did not send them.
    fn add_headers(&self, _headers: &mut HeaderMap) {}

    /// The beginning of headers that only this dialect's providers understand; they are removed from translated requests.
    fn own_header_prefix(&self) -> Option<&'static str> {
        None
    }

    /// Returns true if a client with these headers speaks this dialect, where its path does not tell.
    fn is_spoken_by(&self, _headers: &HeaderMap) -> bool {
        false
    }

    /// The header in which this dialect's clients look for the id of their request, beside `x-request-id`.
    fn request_id_header(&self) -> Option<HeaderName> {
        None
    }

    /// Returns true if a stream of this operation tells its usage only if asked to (`stream_options`).
    fn has_usage_option(&self, _operation: Operation) -> bool {
        false
    }

    /// The member of a whole answer that holds its usage.
    fn usage_member(&self) -> &'static [u8] {
        b"usage"
    }

    /// Reads a usage object: takes over the counts that it has and leaves the others.
    fn read_usage(&self, usage: &[u8], counts: &mut Counts) {
        counts.read(usage);
    }

    /// The format of the streams of this operation.
    fn stream(&self, operation: Operation) -> &'static dyn StreamFormat;

    /// The request that continues an answer whose beginning is `text`; none where this operation has no such request.
    /// `can` tells the backend's capabilities by name.
    fn prefill(&self, _operation: Operation, _body: &Bytes, _text: &str, _can: &dyn Fn(&str) -> bool) -> Option<Bytes> {
        None
    }

    /// Requests and answers of conversations in neutral form; none where nothing is translated from or to this dialect.
    fn conversation(&self) -> Option<&'static dyn Conversation> {
        None
    }

    /// Bytes that every error body has, so that most answers need not be read for one.
    fn error_mark(&self) -> &'static [u8] {
        b"\"error\""
    }

    /// Returns true if the body of a success is an error.
    fn is_error(&self, body: &[u8]) -> bool {
        is_error(body)
    }

    /// Returns true if answers at this path have a shape that [`shows`](Self::shows) knows, though the path has no operation
    /// of its own.
    fn is_shaped(&self, _path: &str) -> bool {
        false
    }

    /// Reads the body of a success, a whole JSON answer to a request of this operation at this path: success must be
    /// shown by the shape that an answer has.
    fn shows<'a>(&self, _operation: Operation, _path: &str, _body: &'a [u8]) -> Shown<'a> {
        Shown::Answer
    }

    /// The message, type and code of an error body.
    fn error_details<'a>(&self, body: &'a [u8]) -> ErrorDetails<'a> {
        ErrorDetails::read(body)
    }

    /// The class of an error with this status (0: unknown) and these details. `is_dated`: it says when to come again.
    fn error_kind(&self, status: u16, details: &ErrorDetails<'_>, is_dated: bool) -> Kind {
        by_words(status, details, is_dated)
    }

    /// The smallest part that explains such an error.
    fn error_scope(&self, kind: Kind, status: u16, details: &ErrorDetails<'_>) -> Scope {
        scope_by_words(kind, status, details)
    }

    /// The error inside an event of a stream.
    fn error_in_event<'a>(&self, event: &Event<'a>) -> Option<&'a [u8]>;

    /// The `type` that an error of ours has; by default in OpenAI's words.
    fn error_type(&self, kind: ErrorKind) -> &'static str {
        error_types::error_type(kind)
    }

    /// The `type` and `code` that an upstream's error has, once it is translated to this dialect; by default in OpenAI's words.
    fn translated_error(&self, kind: Kind, status: u16) -> (&'static str, Option<&'static str>) {
        error_types::translated_error(kind, status)
    }

    /// The status of an overloaded provider.
    fn overloaded_status(&self) -> u16 {
        503
    }

    /// Returns the body of an error of ours in this format.
    fn error_body(&self, kind: &str, code: Option<&str>, message: &str, request_id: &str) -> Value;

    /// The event that ends a broken stream with this error body, so that no client takes it for a whole answer: the
    /// dialect's own last event, in the names and numbers of the stream that was begun.
    fn error_event(&self, operation: Operation, body: Value, told: &Told<'_>) -> Bytes;

    /// The answer to a request to count tokens; none where the operation asks for no count.
    fn token_count(&self, _operation: Operation, _tokens: u32) -> Option<Value> {
        None
    }

    /// The path of a provider's list of models, under a base URL.
    fn models_path(&self) -> &'static str {
        "/v1/models"
    }

    /// The path and query of the page behind this id, in a list that has several.
    fn next_models_path(&self, last_id: &str) -> String {
        format!("{}?limit=1000&after_id={}", self.models_path(), percent_encoded(last_id))
    }

    /// The models in a provider's list; none where it is no such list.
    fn listed_models(&self, body: &[u8]) -> Option<ModelPage> {
        listing::read_models(body)
    }

    /// A model as this dialect's clients read it.
    fn model_entry(&self, model: &ListedModel) -> Value {
        let ListedModel { id, created, owner, display_name: _ } = model;
        json!({"id": id, "object": "model", "created": created.unwrap_or(0), "owned_by": owner})
    }

    /// The list of these entries as this dialect's clients read it.
    fn model_list(&self, _models: &[ListedModel], entries: Vec<Value>) -> Value {
        json!({"object": "list", "data": entries})
    }
}

/// The format of a stream: what its events mean.
pub trait StreamFormat: fmt::Debug + Send + Sync {
    /// Reads an event, and adds what it carries to the tally. It allocates at most once a stream, and reads each byte at most
    /// twice.
    fn see(&self, tally: &mut Tally, name: Option<&[u8]>, data: &[u8]) -> Sight;

    /// Returns true if events pass unread: no usage, and the end of the body is the end of the stream.
    fn is_opaque(&self) -> bool {
        false
    }

    /// The end that clients wait for, where a stream stops without it although the model had finished.
    fn missing_end(&self) -> &'static [u8] {
        b""
    }

    /// Writes a whole answer as a stream; none where it is no answer.
    fn split(&self, _answer: Value, _include_usage: bool, _events: &mut EventWriter) -> Option<()> {
        None
    }

    /// Puts the events of a whole stream together into the answer that they tell; none where they tell none.
    fn join(&self, _events: Vec<Value>) -> Option<Value> {
        None
    }

    /// Streams that can be continued; none where nothing is known of their parts.
    fn resumable(&self) -> Option<&'static dyn Resumable> {
        None
    }
}

/// The parts of a stream's events, so that another answer can continue it.
pub trait Resumable: fmt::Debug + Send + Sync {
    /// Puts every part of an event to the walker.
    ///
    /// # Errors
    /// The event has a part that cannot be compared.
    fn walk(&self, walker: &mut Walker<'_>, event: &mut Value) -> Result<(), Unfit>;

    /// The channel and the raw string of an event that adds to a text and does nothing else, read without a tree; none
    /// where it is another event. `is_role_known`: the role was delivered before.
    fn only_text<'a>(&self, _data: &'a [u8], _is_role_known: bool) -> Option<(Cow<'static, str>, &'a [u8])> {
        None
    }

    /// Channels whose text an assistant's message can hold.
    fn prefill_channels(&self) -> &'static [&'static str] {
        &[]
    }

    /// The mark that opens such a text.
    fn prefill_mark(&self) -> Option<&'static str> {
        None
    }

    /// Returns true if this mark opens something in the place of a text that was given as the beginning of the answer.
    fn opens_instead_of_prefill(&self, _mark: &str) -> bool {
        false
    }

    /// Learns the names that the client knows: ids, times, sequence numbers.
    fn learn_names(&self, _names: &mut Names, _event: &Value) {}

    /// Writes an event of another answer in the names that the client knows.
    fn restore_names(&self, _names: &Names, _event: &mut Value) {}

    /// The members of `usage` with the tokens of the answer and of the prompt.
    fn usage_names(&self) -> Option<(&'static str, &'static str)> {
        None
    }
}
