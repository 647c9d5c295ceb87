//! A byte that chooses the operation, then a body or the events of a stream.
#![no_main]

use bytes::Bytes;
use http::HeaderMap;
use libfuzzer_sys::fuzz_target;
use pointsman_core::contract::Operation;
use pointsman_core::dialect::as_stream::as_stream;
use pointsman_core::dialect::as_whole::as_whole;
use pointsman_core::dialect::classify::{WholeAnswer, classify_whole};
use pointsman_core::dialect::repair::{Repaired, is_unreadable, repair};
use pointsman_core::http::sse::Reader;
use pointsman_core::table::Dialect;
use pointsman_core::time::Timestamp;

fuzz_target!(|input: &[u8]| {
    let Some((choice, body)) = input.split_first() else { return };
    let operation = Operation::ALL[usize::from(*choice) % Operation::ALL.len()];
    let mut reader = Reader::default();
    reader.push(Bytes::copy_from_slice(body));
    while let Ok(Some(event)) = reader.next_event() {
        if is_unreadable(&event)
            && let Repaired::Events(events) = repair(&event)
        {
            let mut mended = Reader::default();
            mended.push(events.into());
            while let Ok(Some(event)) = mended.next_event() {
                assert!(!is_unreadable(&event), "what is mended can be read");
            }
            assert_eq!(mended.unfinished_bytes(), 0);
        }
    }
    let headers = HeaderMap::new();
    for dialect in [Dialect::OPENAI, Dialect::ANTHROPIC, Dialect::PLAIN] {
        let path = "/v1/moderations";
        let answer = WholeAnswer { operation, path, may_be_empty: false, status: 200, headers: &headers, body };
        drop(classify_whole(dialect, &answer, Timestamp::default()));
    }
    drop(as_stream(operation, body, true));
    if let Some(whole) = as_whole(operation, Bytes::copy_from_slice(body)) {
        assert!(serde_json::from_slice::<serde_json::Value>(&whole).is_ok_and(|answer| answer.is_object()));
    }
});
