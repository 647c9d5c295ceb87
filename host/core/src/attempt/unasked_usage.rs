//! The `"usage": null` of a stream's chunks, which providers add once the usage is asked for: a client that did not ask for
//! it gets its chunks without.

use bytes::{Bytes, BytesMut};
use memchr::memmem;

use crate::http::json;

const NAME: &[u8] = b"\"usage\"";

/// An event without the member `usage` of its data, if that is null; none where there is no such member.
pub(super) fn without_null_usage(event: &[u8]) -> Option<Bytes> {
    memmem::find(event, NAME)?;
    let start = memmem::find(event, b"{")?;
    let data = &event[start..];
    let value = json::member(data, "usage").filter(|value| *value == b"null")?;
    let (from, to) = member_around(data, offset_in(data, value), value.len())?;
    let mut rest = BytesMut::with_capacity(event.len());
    rest.extend_from_slice(&event[..start + from]);
    rest.extend_from_slice(&data[to..]);
    Some(rest.freeze())
}

/// The place of a slice in the text that it is of.
fn offset_in(text: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr() - text.as_ptr().addr()
}

/// The range of a member with the comma that is one too many without it; its value stands at `value_at`.
fn member_around(data: &[u8], value_at: usize, value_length: usize) -> Option<(usize, usize)> {
    let name_at = value_at.checked_sub(NAME.len()).and_then(|_| memmem::rfind(&data[..value_at], NAME))?;
    let end = value_at + value_length;
    let before = data[..name_at].trim_ascii_end();
    if before.ends_with(b",") {
        return Some((before.len() - 1, end));
    }
    let behind = data[end..].trim_ascii_start();
    let comma = usize::from(behind.starts_with(b","));
    Some((name_at, data.len() - behind.len() + comma))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn without(event: &str) -> Option<String> {
        without_null_usage(event.as_bytes()).map(|event| String::from_utf8(event.to_vec()).unwrap())
    }

    #[test]
    fn a_null_usage_is_taken_out_wherever_it_stands() {
        for (event, expected) in [
            ("data: {\"a\":1,\"usage\":null}\n\n", "data: {\"a\":1}\n\n"),
            ("data: {\"usage\":null,\"a\":1}\n\n", "data: {\"a\":1}\n\n"),
            ("data: {\"a\":1 , \"usage\" : null , \"b\":2}\n\n", "data: {\"a\":1  , \"b\":2}\n\n"),
            ("data:{\"usage\":null}\r\n\r\n", "data:{}\r\n\r\n"),
            ("event: x\ndata: {\"a\":1,\"usage\":null}\n\n", "event: x\ndata: {\"a\":1}\n\n"),
        ] {
            assert_eq!(without(event).as_deref(), Some(expected), "{event}");
        }
    }

    #[test]
    fn any_other_usage_stays() {
        for event in [
            "data: {\"a\":1}\n\n",
            "data: {\"usage\":{\"total_tokens\":1}}\n\n",
            "data: {\"a\":\"\\\"usage\\\":null\"}\n\n",
            "data: {\"x\":{\"usage\":null}}\n\n",
            "data: [DONE]\n\n",
            ": \"usage\":null\n\n",
        ] {
            assert_eq!(without(event), None, "{event}");
        }
    }

    proptest! {
        #[test]
        fn what_is_left_is_the_same_without_the_member(
            names in prop::collection::btree_set("[a-z\"\\\\]{1,4}", 0..5),
            text in "\\PC{0,12}",
            at in 0usize..6,
        ) {
            let mut members: Vec<String> = names.iter().filter(|name| *name != "usage").map(|name| {
                format!("{}:{}", json!(name), json!({"v": text, "usage": null}))
            }).collect();
            let rest: Value = serde_json::from_str(&format!("{{{}}}", members.join(","))).unwrap();
            members.insert(at.min(members.len()), "\"usage\":null".to_owned());
            let event = without(&format!("data: {{{}}}\n\n", members.join(","))).unwrap();
            let data = event.strip_prefix("data: ").unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(data).unwrap(), rest);
        }
    }
}
