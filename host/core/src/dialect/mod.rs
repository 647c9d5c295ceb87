//! Providers' formats, a folder each.
//!
//! A dialect is a folder that implements [`WireFormat`], and a line in the registry. It imports of this module only
//! `format`, which has the traits and what their implementations share. Everything else imports the registry: facts out of
//! requests, outcomes and usage out of answers, resuming, translation. Nothing of a request is lost unseen (what we do not understand, the
//! provider might); answers are read leniently, because a sloppy answer is still worth relaying.

mod anthropic;
mod openai;
mod plain;

pub mod as_stream;
pub mod as_whole;
pub mod classify;
pub mod envelope;
pub mod facts;
mod format;
pub mod headers;
mod registry;
pub mod repair;
pub mod request_body;
pub mod resume;
pub mod splice;
pub mod translate;
pub mod usage;

pub use format::{ListedModel, ModelPage, Resumable, Shown, StreamFormat, WireFormat, message};
pub use registry::{ApiPath, Dialect, operation_at};
