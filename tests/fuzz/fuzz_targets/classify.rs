//! Two bytes of status, then a body.
#![no_main]

use http::HeaderMap;
use libfuzzer_sys::fuzz_target;
use pointsman_core::outcome::Kind;
use pointsman_core::table::Dialect;
use pointsman_core::time::Timestamp;
use pointsman_core::dialect::classify::{classify, classify_event};
use pointsman_core::dialect::message::MAX_MESSAGE_CHARS;
use pointsman_core::http::sse::Event;

fuzz_target!(|input: &[u8]| {
    let [high, low, body @ ..] = input else { return };
    let status = u16::from_be_bytes([*high, *low]) % 600;
    for dialect in [Dialect::OPENAI, Dialect::ANTHROPIC, Dialect::PLAIN] {
        let outcome = classify(dialect, status, &HeaderMap::new(), body, Timestamp::default());
        assert!(status < 400 || outcome.kind != Kind::Answered);
        assert!(outcome.message.chars().count() <= MAX_MESSAGE_CHARS);
        assert!(!outcome.message.chars().any(char::is_control));
        for name in [None, Some(&b"error"[..]), Some(b"response.failed")] {
            let event = Event { raw: b"", name, data: Some(body) };
            let outcome = classify_event(dialect, &event);
            assert!(outcome.is_none_or(|outcome| outcome.kind != Kind::Answered));
        }
    }
});
