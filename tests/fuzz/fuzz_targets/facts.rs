//! A body, read lazily and read whole.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pointsman_core::table::Dialect;
use pointsman_core::dialect::facts::BodyFacts;
use pointsman_core::dialect::splice::{Change, splice};
use pointsman_core::dialect::usage::{Asked, BodyTap};
use pointsman_core::text::MAX_NAME_BYTES;
use serde_json::{Value, json};

fuzz_target!(|input: &[u8]| {
    let mut tap = BodyTap::new(Dialect::OPENAI);
    let mut split = BodyTap::new(Dialect::OPENAI);
    tap.push(input);
    input.chunks(3).for_each(|chunk| split.push(chunk));
    assert_eq!(tap.counts(), split.counts());
    let asked = Asked { prompt_tokens: 9, body: input, ..Asked::default() };
    assert_eq!(tap.usage(&asked, true), split.usage(&asked, true));

    let Ok(facts) = BodyFacts::read(input, None) else { return };
    let body = Bytes::copy_from_slice(input);
    let sent = splice(&body, &facts, Change { model: Some("sent/\"model\""), include_usage: true });
    if !facts.is_read() {
        assert_eq!(sent, body);
        return;
    }
    // A full parse refuses some bodies that need not be read so far (depth, numbers, text inside).
    let Ok(mut before) = serde_json::from_slice::<Value>(input) else { return };
    let after: Value = serde_json::from_slice(&sent).expect("a spliced body is as good as the original");
    let name = before.get("model").and_then(Value::as_str);
    let is_long = name.is_some_and(|name| name.len() > MAX_NAME_BYTES);
    assert_eq!((facts.model.as_deref(), facts.has_long_model), (name.filter(|_| !is_long), is_long));
    if is_long {
        // It is refused.
        return;
    }
    assert_eq!(facts.stream, before.get("stream") == Some(&json!(true)));
    if facts.model.is_some() {
        before["model"] = json!("sent/\"model\"");
    }
    match before.get_mut("stream_options") {
        None | Some(Value::Null) => before["stream_options"] = json!({"include_usage": true}),
        Some(Value::Object(options)) => drop(options.insert("include_usage".into(), json!(true))),
        Some(_) => {}
    }
    assert_eq!(after, before);
});
