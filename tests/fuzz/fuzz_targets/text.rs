//! Texts from outside, as they are kept and shown.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pointsman_core::text::{OneLine, beginning, escape, is_unseen};

fuzz_target!(|input: (&str, u16)| {
    let (text, most) = input;
    let kept = beginning(text, most.into());
    assert!(text.starts_with(kept) && kept.len() <= most.into());
    let shown = OneLine(text).to_string();
    assert!(!shown.contains(is_unseen));
    if !text.contains(['"', '\\']) {
        let read: String = serde_json::from_str(&format!("\"{shown}\"")).expect("the escapes are JSON's");
        assert_eq!(read, text);
    }
    let mut lines = String::new();
    escape(text, |c| c == '\n', &mut lines).expect("a String takes every text");
    assert_eq!(lines.matches('\n').count(), text.matches('\n').count());
});
