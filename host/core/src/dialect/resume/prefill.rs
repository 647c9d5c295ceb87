//! The request that gives a backend what was delivered as the beginning of its answer.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::transcript::Transcript;
use crate::contract::Operation;
use crate::dialect::registry::Dialect;

/// A body whose answer continues what was delivered, and how many bytes of white space at the delivered text's end are
/// not in it. None where there is no such body: then the backend is asked from the beginning.
///
/// Chat completions and messages get an assistant's message at their end, completions a longer prompt. Anthropic refuses
/// white space at its end ("final assistant content cannot end with trailing whitespace"), and chat templates trim it.
/// Servers differ in the member that marks a message to be continued; a backend's capabilities name it:
/// `prefix` (DeepSeek, Mistral) and `partial` (Moonshot) are members of the message, `continue_final_message`
/// (vLLM, SGLang) is one of the body; without any, the message is last and that is enough (Anthropic, llama.cpp). A limit of the answer's tokens
/// stays as the client wrote it, and then counts what is added.
pub fn prefill(
    body: &Bytes,
    operation: Operation,
    told: &Transcript,
    capabilities: &BTreeMap<String, bool>,
) -> Option<(Bytes, usize)> {
    let text = told.only_text()?;
    let sent = text.trim_end();
    if sent.is_empty() {
        return None;
    }
    let can = |name: &str| capabilities.get(name).copied().unwrap_or(false);
    let unsent = text.len() - sent.len();
    let format = Dialect::of_operation(operation).format();
    format.prefill(operation, body, sent, &can).map(|body| (body, unsent))
}
