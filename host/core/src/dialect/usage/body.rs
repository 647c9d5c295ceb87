//! A body that is no stream: its top-level `usage`, caught as it goes by, so that nothing need be held back for it.

use crate::dialect::format::Counts;
use crate::dialect::registry::Dialect;
use crate::usage::Usage;

/// The longest `usage` object that is read, in bytes.
const MAX_USAGE_BYTES: usize = 4 * 1024;

/// Watches a JSON body go by in chunks for its top-level usage, keeping nothing else.
#[derive(Clone, Debug)]
pub struct BodyTap {
    dialect: Dialect,
    /// The name of the member that holds the usage.
    usage_member: &'static [u8],
    at: Place,
    depth: u32,
    /// The next string at depth 1 is a member's name.
    name_next: bool,
    /// Length of the usage's name that the current name has matched; `None` after a mismatch.
    matched: Option<usize>,
    /// The value that begins is the usage.
    wanted: bool,
    kept: Vec<u8>,
    keeping: bool,
    bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Between,
    InString,
    AfterBackslash,
    /// Not a JSON object, or its end is past.
    Over,
}

/// Most usages are no longer than this.
const USUAL_USAGE_BYTES: usize = 256;

impl BodyTap {
    /// A tap; for a dialect whose answers pass unread one that sees nothing.
    pub fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            usage_member: dialect.format().usage_member(),
            at: if dialect.is_opaque() { Place::Over } else { Place::Between },
            depth: 0,
            name_next: false,
            matched: None,
            wanted: false,
            kept: Vec::new(),
            keeping: false,
            bytes: 0,
        }
    }

    /// Looks at the body's next bytes.
    pub fn push(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len() as u64;
        let mut i = 0;
        while i < chunk.len() {
            i = match self.at {
                Place::Over => return,
                Place::Between => self.between(chunk, i),
                Place::InString => self.in_string(chunk, i),
                Place::AfterBackslash => {
                    self.keep(&chunk[i..=i]);
                    self.at = Place::InString;
                    i + 1
                }
            };
        }
    }

    /// Bytes seen.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The usage the body told; none when it told none (yet).
    pub fn usage(&self) -> Option<Usage> {
        if self.keeping || self.kept.is_empty() {
            return None;
        }
        let mut counts = Counts::default();
        self.dialect.format().read_usage(&self.kept, &mut counts);
        Some(counts.usage())
    }

    fn between(&mut self, chunk: &[u8], i: usize) -> usize {
        let byte = chunk[i];
        match byte {
            b'"' => {
                self.matched = (self.depth == 1 && self.name_next).then_some(0);
                self.at = Place::InString;
            }
            b'{' | b'[' => {
                if self.depth == 0 && byte == b'[' {
                    self.at = Place::Over;
                }
                self.depth = self.depth.saturating_add(1);
                self.name_next = self.depth == 1;
                if self.wanted && byte == b'{' {
                    self.kept.clear();
                    self.kept.reserve(USUAL_USAGE_BYTES);
                    self.keeping = true;
                }
                self.wanted = false;
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.keep(&chunk[i..=i]);
                if self.depth <= 1 {
                    self.keeping = false;
                }
                if self.depth == 0 {
                    self.at = Place::Over;
                }
                return i + 1;
            }
            b',' => {
                self.name_next = self.depth == 1;
                self.wanted = false;
            }
            b':' => self.name_next = false,
            _ => {}
        }
        self.keep(&chunk[i..=i]);
        i + 1
    }

    fn in_string(&mut self, chunk: &[u8], i: usize) -> usize {
        let rest = &chunk[i..];
        let end = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
        let text = &rest[..end];
        let name = self.usage_member;
        self.matched = self.matched.filter(|from| name[*from..].starts_with(text)).map(|from| from + text.len());
        let Some(byte) = rest.get(end) else {
            self.keep(rest);
            return chunk.len();
        };
        self.keep(&rest[..=end]);
        if *byte == b'\\' {
            self.matched = None;
            self.at = Place::AfterBackslash;
        } else {
            self.wanted |= self.matched.take() == Some(self.usage_member.len());
            self.at = Place::Between;
        }
        i + end + 1
    }

    fn keep(&mut self, bytes: &[u8]) {
        if !self.keeping {
            return;
        }
        if self.kept.len() + bytes.len() > MAX_USAGE_BYTES {
            self.kept.clear();
            self.at = Place::Over;
            self.keeping = false;
            return;
        }
        self.kept.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(input: u64, output: u64, cached: u64) -> Usage {
        Usage { input_tokens: input, output_tokens: output, cached_input_tokens: cached, estimated: false }
    }

    fn tapped(chunks: &[&[u8]]) -> Option<Usage> {
        let mut tap = BodyTap::new(Dialect::OPENAI);
        for chunk in chunks {
            tap.push(chunk);
        }
        tap.usage()
    }

    #[test]
    fn a_bodys_usage_is_its_top_level_member_only() {
        for (body, expected) in [
            (
                r#"{"choices":[{"usage":{"prompt_tokens":5}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
                Some(told(1, 2, 0)),
            ),
            (
                r#" {"usage" : {"input_tokens":7,"x":{"y":[1]},"output_tokens":2}, "z":{"usage":{}}} "#,
                Some(told(7, 2, 0)),
            ),
            (r#"{"x":"usage","y":{"input_tokens":7}}"#, None),
            (r#"{"x":"{\"usage\":{\"input_tokens\":7}}"}"#, None),
            (r#"{"usage":null,"a":{"input_tokens":7}}"#, None),
            (r#"{"usage":"none","a":{"input_tokens":7}}"#, None),
            (r#"{"usage":{"input_tokens":7"#, None),
            (r#"[{"usage":{"input_tokens":7}}]"#, None),
            ("", None),
            ("usage", None),
        ] {
            assert_eq!(tapped(&[body.as_bytes()]), expected, "{body}");
        }
        let mut plain = BodyTap::new(Dialect::PLAIN);
        plain.push(br#"{"usage":{"prompt_tokens":1}}"#);
        assert_eq!((plain.usage(), plain.bytes()), (None, 29));
    }

    #[test]
    fn an_endless_usage_is_given_up() {
        let body = format!(r#"{{"usage":{{"a":"{}"}}}}"#, "x".repeat(5_000));
        assert_eq!(tapped(&[body.as_bytes()]), None);
    }

    proptest! {
        #[test]
        fn any_split_of_a_body_tells_the_same_usage(
            text in "\\PC{0,20}", input in 0u64..1_000_000, output in 0u64..1_000_000, cuts in prop::collection::vec(0usize..400, 0..8),
        ) {
            let body = serde_json::json!({
                "a": {"usage": {"prompt_tokens": 1}}, (text.as_str()): [text, {"x": "usage\\"}],
                "usage": {"prompt_tokens": input, "completion_tokens": output, "prompt_tokens_details": {"cached_tokens": 3}},
                "z": "usage",
            });
            let expected = body["usage"].is_object().then(|| told(input, output, 3));
            let body = body.to_string().into_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(body.len())).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|w| &body[w[0]..w[1]]).collect();
            prop_assert_eq!(tapped(&chunks), expected);
        }
    }
}
