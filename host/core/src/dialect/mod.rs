//! Providers' formats: facts out of requests, outcomes and usage out of responses, and the bytes we write ourselves.
//!
//! A dialect's differences are rows and arms in these files. Requests are read strictly (what we understand is what the
//! provider will understand); answers are read leniently, because a sloppy answer is still worth relaying.

mod anthropic;
pub mod as_stream;
pub mod classify;
pub mod envelope;
pub mod facts;
pub mod message;
mod openai;
pub mod resume;
pub mod splice;
pub mod translate;
pub mod usage;
