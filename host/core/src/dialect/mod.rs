//! Providers' formats, a folder each.
//!
//! A dialect is a folder that implements [`WireFormat`], and a line in the registry. All else here is shared by them: facts out
//! of requests, outcomes and usage out of answers, resuming, translation. Requests are read strictly (what we understand is
//! what the provider will understand); answers are read leniently, because a sloppy answer is still worth relaying.

mod anthropic;
mod openai;
mod plain;

pub mod as_stream;
pub mod classify;
pub mod envelope;
pub mod facts;
mod format;
pub mod headers;
pub mod message;
mod registry;
pub mod resume;
pub mod splice;
pub mod translate;
pub mod usage;

pub use format::{Resumable, StreamFormat, WireFormat};
pub use registry::{Dialect, is_idempotent_path, operation_at};
