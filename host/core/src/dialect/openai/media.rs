//! Streams of sound and pictures: `transcript.text.*`, `speech.audio.*`, `image_generation.*`, `image_edit.*`.

use crate::dialect::format::{Sight, StreamFormat, Tally, is_error};
use crate::http::json;

/// Events that carry their usage at the top, with the last of them.
#[derive(Debug)]
pub(super) struct Media;

impl StreamFormat for Media {
    fn see(&self, tally: &mut Tally, name: Option<&[u8]>, data: &[u8]) -> Sight {
        if data.trim_ascii() == b"[DONE]" {
            return tally.end();
        }
        if name == Some(b"error") || is_error(data) {
            return Sight::Error;
        }
        let mut sight = Sight::Other;
        for (member, value) in json::members(data) {
            match member {
                b"usage" => tally.read_usage(value),
                // Text; sound and pictures are no text of a known length.
                b"delta" if json::is_filled(value) => sight = tally.content(value.len().saturating_sub(2)),
                _ => {}
            }
        }
        sight
    }
}

#[cfg(test)]
mod tests {
    use crate::contract::Operation;
    use crate::dialect::Dialect;
    use crate::dialect::usage::{Asked, StreamTap};
    use crate::http::sse::Event;

    #[test]
    fn the_last_event_tells_the_usage() {
        for (operation, last) in [
            (Operation::Audio, "transcript.text.done"),
            (Operation::Audio, "speech.audio.done"),
            (Operation::Image, "image_generation.completed"),
            (Operation::Image, "image_edit.completed"),
        ] {
            let mut tap = StreamTap::new(Dialect::OPENAI, operation);
            let usage = r#"{"input_tokens":14,"output_tokens":45,"total_tokens":59}"#;
            for data in [
                r#"{"type":"transcript.text.delta","delta":"hello"}"#.to_owned(),
                r#"{"type":"speech.audio.delta","audio":"AAAA"}"#.to_owned(),
                r#"{"type":"image_generation.partial_image","b64_json":"AAAA"}"#.to_owned(),
                format!(r#"{{"type":"{last}","usage":{usage}}}"#),
            ] {
                tap.see(&Event { raw: b"", name: None, data: Some(data.as_bytes()) });
            }
            let used = tap.usage(&Asked::default());
            assert_eq!((used.input_tokens, used.output_tokens, used.estimated), (14, 45, false), "{last}");
        }
    }
}
