//! Resuming a stream that broke after it was begun: what was delivered, and how another answer joins it.
//!
//! The [`Transcript`] is kept while a stream is relayed: its texts and its structure, not its bytes. When it breaks, a
//! [`Joiner`] reads the next answer and drops what was delivered already while it agrees byte for byte, wherever
//! the events begin and end; the first that is new goes on, inside a rewritten event. An answer that goes another
//! way is [`Unfit`], never mixed in. With a prefill (see [`prefill`]) the next answer begins where the first ended.
//!
//! What the client sees is one answer: the first stream's `id` and `created` stay, so do the items' ids and call ids
//! (Responses) and the sequence numbers go on; roles and openings are not repeated. The `model` of the events is that of
//! who answers.

mod join;
mod prefill;
mod transcript;

pub use join::{Emit, Joiner};
pub use prefill::prefill;
pub use transcript::Transcript;

pub use super::format::{Names, Part, Unfit, Verdict, Walker};

#[cfg(test)]
mod tests;
