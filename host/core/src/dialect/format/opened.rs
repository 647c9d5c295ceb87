//! The part of a stream that an error event of ours must agree with: names and numbers that the client has seen.

use serde_json::{Map, Value};

use crate::http::json;

/// The most that is kept of the object that opens a stream, in bytes; of a larger one only its names are.
const MAX_OPENING_BYTES: usize = 64 * 1024;

/// Names and numbers of a stream that the client has the beginning of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Opened {
    /// The object that opened the stream, as JSON: `response` of the Responses API.
    pub response: Option<Box<[u8]>>,
    /// The last sequence number that was delivered.
    pub sequence: Option<u64>,
}

/// The request that an error event answers.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// Request id, which the error names.
    pub request_id: &'a str,
    /// The model as the client asked for it.
    pub model: &'a str,
    /// Time of the event, in seconds since 1970.
    pub now_s: u64,
    /// Parts of the stream that were delivered and are still open.
    pub opened: &'a Opened,
}

impl Opened {
    /// Takes over the object that opens the stream; the first counts.
    pub fn open(&mut self, response: &[u8]) {
        if self.response.is_some() {
            return;
        }
        self.response = Some(if response.len() <= MAX_OPENING_BYTES { response.into() } else { names_of(response) });
    }

    /// Takes over what a further attempt has delivered of the same stream.
    pub fn go_on(&mut self, later: Opened) {
        self.response = self.response.take().or(later.response);
        self.sequence = later.sequence.or(self.sequence);
    }

    pub(in crate::dialect) fn response(&self) -> Option<Value> {
        serde_json::from_slice(self.response.as_ref()?).ok().filter(Value::is_object)
    }
}

impl Told<'_> {
    pub(in crate::dialect) fn next_sequence(&self) -> u64 {
        self.opened.sequence.map_or(0, |last| last.saturating_add(1))
    }
}

/// The names alone of an object that opens a stream.
fn names_of(response: &[u8]) -> Box<[u8]> {
    let is_name = |name: &[u8]| matches!(name, b"id" | b"object" | b"created_at" | b"model");
    let named = |(name, value): (&[u8], &[u8])| {
        let name = String::from_utf8_lossy(name).into_owned();
        serde_json::from_slice::<Value>(value).ok().map(|value| (name, value))
    };
    let names: Map<String, Value> = json::members(response)
        .filter(|(name, value)| is_name(name) && value.len() < 1_024)
        .filter_map(named)
        .collect();
    Value::Object(names).to_string().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_large_opening_the_names_stay() {
        let large = format!(r#"{{"id":"r","tools":["{}"],"model":"m","output":[]}}"#, "x".repeat(MAX_OPENING_BYTES));
        let mut opened = Opened::default();
        opened.open(large.as_bytes());
        opened.open(b"{}");
        assert_eq!(opened.response(), Some(serde_json::json!({"id": "r", "model": "m"})));
    }
}
