//! Events of a stream, as text.

use bytes::{Bytes, BytesMut};
use serde_json::Value;

/// Writes the events of a stream.
#[derive(Debug, Default)]
pub struct EventWriter {
    text: String,
    sequence: u64,
}

impl EventWriter {
    /// An event without a name.
    pub fn data(&mut self, data: &Value) {
        self.text.push_str(&format!("data: {data}\n\n"));
    }

    /// An event that is named like its `type`.
    pub fn named(&mut self, data: &Value) {
        let name = data["type"].as_str().unwrap_or_default();
        self.text.push_str(&format!("event: {name}\ndata: {data}\n\n"));
    }

    /// The same with its place in the stream as `sequence_number`.
    pub fn numbered(&mut self, mut data: Value) {
        data["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        self.named(&data);
    }

    /// An event as it is to be sent, its blank line included.
    pub fn raw(&mut self, event: &str) {
        self.text.push_str(event);
    }

    /// The stream that was written.
    pub(in crate::dialect) fn into_bytes(self) -> Bytes {
        self.text.into()
    }
}

/// Writes a server-sent event with JSON data.
pub fn write_event(name: Option<&str>, data: &Value, out: &mut BytesMut) {
    if let Some(name) = name {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\n");
    }
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(data.to_string().as_bytes());
    out.extend_from_slice(b"\n\n");
}
