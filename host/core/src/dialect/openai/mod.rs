//! OpenAI's API and everything compatible with it.

pub(super) mod chat;
