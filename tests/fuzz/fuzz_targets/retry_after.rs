//! Lines `name: value` until a blank one, then a body.
#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use pointsman_core::time::Timestamp;
use pointsman_core::http::retry_after::{LONGEST_HINT, RateHints, RetryAfter};

fuzz_target!(|input: &[u8]| {
    let mut headers = HeaderMap::new();
    let mut rest = input;
    while let Some(end) = rest.iter().position(|b| *b == b'\n') {
        let (line, tail) = (&rest[..end], &rest[end + 1..]);
        rest = tail;
        let Some(colon) = line.iter().position(|b| *b == b':') else { break };
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(&line[colon + 1..]))
        {
            headers.append(name, value);
        }
    }
    for now in [0, 1_738_324_800_000_000, u64::MAX] {
        let now = Timestamp::from_micros(now);
        for status in [200, 429, 503] {
            let hint = RetryAfter::parse(status, &headers, Some(rest), now);
            assert!(hint.is_none_or(|hint| hint < LONGEST_HINT));
        }
        let hints = RateHints::parse(&headers, now);
        assert!(hints.wait(true).is_none_or(|hint| hint < LONGEST_HINT));
    }
});
