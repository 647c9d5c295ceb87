//! A request's body under any head: decoded within its bounds, and read as what is forwarded.
#![no_main]

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use pointsman_core::contract::Operation;
use pointsman_core::dialect::request_body::RequestBody;
use pointsman_core::dialect::splice::{Change, splice};

const MAX_BYTES: u64 = 1 << 20;

fuzz_target!(|input: (u8, &[u8])| {
    let (kind, body) = input;
    let mut head = HeaderMap::new();
    let encodings = ["", "gzip", "deflate", "zstd", "br", "gzip, zstd"];
    let types = ["application/json", "text/plain", "multipart/form-data; boundary=B"];
    let (encoding, content_type) = (encodings[usize::from(kind) % 6], types[usize::from(kind / 6) % 3]);
    if !encoding.is_empty() {
        head.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    head.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    let Ok(read) = RequestBody::read(Bytes::copy_from_slice(body), &head, Operation::Chat, MAX_BYTES) else { return };
    assert!(read.body.len() as u64 <= MAX_BYTES.max(body.len() as u64));
    if read.facts.model.is_none() {
        return;
    }
    // What is forwarded is read again as the same, with the other name.
    read.relabel(&mut head);
    let renamed = splice(&read.body, &read.facts, Change { model: Some("sent-model"), include_usage: false });
    let again = RequestBody::read(renamed, &head, Operation::Chat, u64::MAX).expect("it was read before");
    assert_eq!(again.facts.model.as_deref(), Some("sent-model"));
});
