//! Facts of a request's body, read without rebuilding it.
//!
//! A JSON object has facts, whatever its content type says, and so has a form (`multipart/form-data`). Any other body (binary,
//! none, or text that is not JSON despite its content type) has none: its model is unknown and it passes untouched, where it
//! may pass at all ([`crate::view::View::without_model`]).

mod members;
mod tokens;

use std::ops::Range;

use thiserror::Error;

pub use tokens::{BYTES_PER_TOKEN, TOKENS_PER_ATTACHMENT};

use members::{Key, Members, number, within_bound};

use crate::http::{json, multipart};
#[cfg(doc)]
use crate::text::MAX_NAME_BYTES;
use crate::usage::ServiceTier;

/// Facts of a body. They are the client's word, and trusted only for routing and counting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BodyFacts {
    /// The model asked for, at most [`MAX_NAME_BYTES`] long.
    pub model: Option<String>,
    /// The model asked for has a name that is longer than [`MAX_NAME_BYTES`]; it is not in `model`.
    pub has_long_model: bool,
    /// A stream is requested.
    pub stream: bool,
    /// The client itself asks for the usage at the stream's end (`stream_options.include_usage`).
    pub include_usage: bool,
    /// The most tokens the answer may have, by any of the names for it; 0: not said.
    pub max_tokens: u32,
    /// Number of answers requested (`n`), at least 1.
    pub answers: u32,
    /// The request offers tools to the model.
    pub has_tools: bool,
    /// Estimated tokens of the prompt, attachments included.
    pub prompt_tokens: u32,
    /// The client's session, by `session_id`, what agents write into `metadata`, or `prompt_cache_key`.
    pub session: Option<String>,
    /// The answer is to be made in the background, and asked for later.
    pub background: bool,
    /// The way in which it is to be served (`service_tier`, Anthropic's `speed`).
    pub service_tier: Option<ServiceTier>,
    /// Places that may be spliced; `None` when the body is neither a JSON object nor a form.
    pub(super) spans: Option<Spans>,
}

/// Places in the body that may be spliced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Spans {
    /// Spans of a JSON object.
    Object(ObjectSpans),
    /// The span of a form: the content of its field `model`.
    Form {
        /// Without the delimiters around it.
        model: Option<Range<usize>>,
    },
}

/// Offsets into a JSON object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ObjectSpans {
    /// Offset behind the opening brace.
    pub(super) open: usize,
    /// The value of `model`, quotes included.
    pub(super) model: Option<Range<usize>>,
    /// Span of the value of `stream_options`.
    pub(super) stream_options: Option<Range<usize>>,
    /// The object has at least one member.
    pub(super) any: bool,
}

/// The client's fault: a member stands twice, and the provider might read the other one. Answer 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the body has \"{member}\" twice, so it is not clear which one counts; send it once")]
pub struct Ambiguous {
    /// Name of the member that stands twice.
    pub member: &'static str,
}

impl BodyFacts {
    /// Reads a body: a form by its content type, else whatever is a JSON object.
    ///
    /// # Errors
    /// [`Ambiguous`] when `model`, `stream` or `stream_options` stands twice.
    pub fn read(body: &[u8], content_type: Option<&str>) -> Result<Self, Ambiguous> {
        if let Some(boundary) = content_type.and_then(multipart::boundary) {
            return Self::read_form(body, &boundary);
        }
        if body.get(json::skip_space(body, 0)) != Some(&b'{') {
            return Ok(Self::default());
        }
        let members = serde_json::from_slice::<Members<'_>>(body).ok().or_else(|| Members::lenient(body));
        match members {
            None => Ok(Self::default()),
            Some(Members { twice: Some(member), .. }) => Err(Ambiguous { member }),
            Some(members) => Ok(members.facts(body)),
        }
    }

    /// Reads the fields of a form.
    fn read_form(body: &[u8], boundary: &str) -> Result<Self, Ambiguous> {
        let Some(parts) = multipart::parts(body, boundary) else { return Ok(Self::default()) };
        let mut facts = Self { answers: 1, ..Self::default() };
        let (mut model, mut prompt_tokens) = (None, 0);
        for part in &parts {
            let content = &body[part.content.clone()];
            if part.is_file {
                prompt_tokens += TOKENS_PER_ATTACHMENT;
                continue;
            }
            let text = || std::str::from_utf8(content).ok().map(str::trim).filter(|text| !text.is_empty());
            match Key::of(&part.name) {
                Key::Model if model.is_some() => return Err(Ambiguous { member: "model" }),
                Key::Model => {
                    (facts.model, facts.has_long_model) = text().map_or((None, false), within_bound);
                    model = Some(part.content.clone());
                }
                Key::Stream => facts.stream = text().is_some_and(|text| text.eq_ignore_ascii_case("true")),
                Key::MaxTokens => facts.max_tokens = text().map_or(0, number),
                Key::N => facts.answers = text().map_or(1, number).max(1),
                Key::Prompt => prompt_tokens += content.len().div_ceil(BYTES_PER_TOKEN),
                Key::StreamOptions
                | Key::Tools
                | Key::Session
                | Key::Realtime
                | Key::Metadata
                | Key::PromptCache
                | Key::ServiceTier
                | Key::Background
                | Key::Other => {}
            }
        }
        facts.prompt_tokens = u32::try_from(prompt_tokens).unwrap_or(u32::MAX);
        facts.spans = Some(Spans::Form { model });
        Ok(facts)
    }

    /// Returns true if the body is a JSON object, so that a member can be changed.
    pub const fn is_object(&self) -> bool {
        matches!(self.spans, Some(Spans::Object(_)))
    }

    /// Returns true if the body was read, so that its model, if it names one, is known and can be renamed.
    pub const fn is_read(&self) -> bool {
        self.spans.is_some()
    }

    /// The model's name in logs and metrics.
    pub fn model_or_unknown(&self) -> &str {
        self.model.as_deref().unwrap_or("unknown")
    }
}

/// Returns true for a content type of JSON (`application/json`, `application/vnd.x+json`, `text/json`).
pub fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let subtype = essence.rsplit('/').next().unwrap_or_default();
    subtype.eq_ignore_ascii_case("json")
        || subtype.len() > 5 && subtype.as_bytes()[subtype.len() - 5..].eq_ignore_ascii_case(b"+json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> BodyFacts {
        BodyFacts::read(body.as_bytes(), Some("application/json")).unwrap()
    }

    #[test]
    fn a_name_of_a_model_has_at_most_256_bytes_however_it_is_written() {
        let named = |name: &str| read(&format!(r#"{{"model":"{name}","stream":true}}"#));
        for (written, bytes) in [("a", 1), ("é", 2), ("\\u0061", 1), ("\\ud83d\\ude00", 4), ("\\n", 1)] {
            let fits = named(&written.repeat(256 / bytes));
            assert_eq!((fits.model.map(|name| name.len()), fits.has_long_model), (Some(256), false), "{written}");
            let long = named(&format!("{}b", written.repeat(256 / bytes)));
            assert_eq!((long.model, long.has_long_model, long.stream), (None, true, true), "{written}");
        }
        let huge = named(&"x".repeat(20 << 20));
        assert_eq!((huge.model, huge.has_long_model), (None, true));
        let no_text = read(&format!(r#"{{"model":[{}0]}}"#, "0,".repeat(4_000)));
        assert_eq!((no_text.model, no_text.has_long_model), (None, false), "the provider says what it is");
        let form =
            format!("--B\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\n{}\r\n--B--\r\n", "x".repeat(257));
        let form = BodyFacts::read(form.as_bytes(), Some("multipart/form-data; boundary=B")).unwrap();
        assert_eq!((form.model, form.has_long_model), (None, true));
    }

    #[test]
    fn facts_of_a_chat_request() {
        let body = r#"{"model":"llama-70b","messages":[{"role":"user","content":"hi"}],"stream":true,
            "stream_options":{"include_usage":true},"max_tokens":20,"n":2,"tools":[{"type":"function"}],"user":"me"}"#;
        let facts = read(body);
        assert_eq!(facts.model.as_deref(), Some("llama-70b"));
        assert!(facts.stream && facts.include_usage && facts.has_tools);
        assert_eq!((facts.max_tokens, facts.answers), (20, 2));
        assert_eq!(facts.prompt_tokens, 8 + 6);
        let Some(Spans::Object(spans)) = facts.spans else { panic!("it is an object") };
        assert_eq!(&body[spans.model.unwrap()], "\"llama-70b\"");
    }

    #[test]
    fn every_name_for_the_longest_answer_is_known() {
        for name in ["max_tokens", "max_completion_tokens", "max_output_tokens"] {
            assert_eq!(read(&format!("{{\"{name}\":7}}")).max_tokens, 7);
        }
        assert_eq!(read(r#"{"max_tokens":null}"#).max_tokens, 0);
        assert_eq!(read(r#"{"max_tokens":-4}"#).max_tokens, 0);
        assert_eq!(read(r#"{"max_tokens":1e99}"#).max_tokens, u32::MAX);
    }

    #[test]
    fn a_session_is_told_by_agents_in_many_places() {
        for (body, session) in [
            (r#"{"session_id":"s","prompt_cache_key":"k"}"#, Some("s")),
            (r#"{"litellm_session_id":"s"}"#, Some("s")),
            (r#"{"metadata":{"session_id":"s","user_id":"u_session_x"}}"#, Some("s")),
            (r#"{"metadata":{"user_id":"user_1_account_2_session_s"}}"#, Some("s")),
            (r#"{"metadata":{"user_id":"{\"session_id\":\"s\"}"},"prompt_cache_key":"k"}"#, Some("s")),
            (r#"{"metadata":{"user_id":"u"},"prompt_cache_key":"k"}"#, Some("k")),
            (r#"{"metadata":null,"prompt_cache_key":""}"#, None),
            (r#"{"metadata":"text","session_id":7}"#, None),
        ] {
            assert_eq!(read(body).session.as_deref(), session, "{body}");
        }
    }

    #[test]
    fn escapes_in_names_and_values_are_resolved() {
        let facts = read(r#"{"mod\u0065l":"a\/b\"c"}"#);
        assert_eq!(facts.model.as_deref(), Some("a/b\"c"));
    }

    #[test]
    fn a_model_or_stream_of_another_type_counts_as_absent() {
        let facts = read(r#"{"model":7,"stream":"true"}"#);
        assert_eq!((facts.model.as_deref(), facts.stream), (None, false));
        assert_eq!(facts.model_or_unknown(), "unknown");
        assert!(!read(r#"{"model":null,"stream":null}"#).stream);
    }

    #[test]
    fn a_member_twice_is_ambiguous() {
        for member in ["model", "stream", "stream_options"] {
            let body = format!("{{\"{member}\":\"a\",\"x\":0,\"{member}\":\"a\"}}");
            assert_eq!(BodyFacts::read(body.as_bytes(), None), Err(Ambiguous { member }));
        }
        let hidden = br#"{"model":"a","m\u006fdel":"b"}"#;
        assert_eq!(BodyFacts::read(hidden, None), Err(Ambiguous { member: "model" }));
        let nested = br#"{"model":"a","metadata":{"model":"b","stream":1}}"#;
        assert_eq!(BodyFacts::read(nested, None).unwrap().model.as_deref(), Some("a"));
    }

    #[test]
    fn what_is_not_a_json_object_has_no_facts() {
        for body in ["", "[1]", "\"model\"", "{\"model\":\"a\"", "{\"model\":\"a\"} x", "--boundary", "{'model':'a'}"] {
            assert_eq!(read(body), BodyFacts::default(), "{body}");
        }
        let multipart = BodyFacts::read(br#"{"model":"a"}"#, Some("multipart/form-data; boundary=x")).unwrap();
        assert!(!multipart.is_read());
        assert!(BodyFacts::read(b"\xff\xfe{\"model\":\"a\"}", None).unwrap().model.is_none());
    }

    #[test]
    fn json_is_read_whatever_its_label_says() {
        for content_type in
            ["text/plain", "application/x-www-form-urlencoded", "application/octet-stream", "", "nonsense"]
        {
            let facts = BodyFacts::read(br#"{"model":"a"}"#, Some(content_type)).unwrap();
            assert_eq!(facts.model.as_deref(), Some("a"), "{content_type}");
        }
        assert!(!BodyFacts::read(b"model=a&prompt=b", Some("application/x-www-form-urlencoded")).unwrap().is_read());
    }

    #[test]
    fn what_providers_parsers_take_is_read_too() {
        for body in [
            &b"{\"temperature\":NaN,\"model\":\"a\"}"[..],
            b"{\"messages\":[{\"content\":\"caf\xe9\"}],\"model\":\"a\"}",
            b"{\"prompt\":\"two\nlines\tand\x01\",\"mod\\u0065l\":\"a\"}\n",
            b"{\"x\":-Infinity,\"model\":\"a\",\"stream\":true}",
        ] {
            let facts = BodyFacts::read(body, None).unwrap();
            assert_eq!(facts.model.as_deref(), Some("a"), "{}", String::from_utf8_lossy(body));
            assert!(facts.is_object());
        }
        let twice = b"{\"x\":NaN,\"model\":\"a\",\"mod\\u0065l\":\"b\"}";
        assert_eq!(BodyFacts::read(twice, None), Err(Ambiguous { member: "model" }));
        for body in [
            r#"{"x":NaN,"model":"a""#,
            r#"{"x":NaN,"model":"a"} {}"#,
            r#"{"x":NaN,"model":"a"]}"#,
            r#"{"x":NaN,"model"}"#,
        ] {
            assert!(!read(body).is_read(), "{body}");
        }
    }

    #[test]
    fn a_form_has_its_model_in_a_field() {
        let body = b"--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\n\r\n\xff\xd8\r\n--B\r\n\
            Content-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--B\r\nContent-Disposition: form-data; name=\"stream\"\r\n\r\nTrue\r\n--B--\r\n";
        let form = Some("multipart/form-data; boundary=B");
        let facts = BodyFacts::read(body, form).unwrap();
        assert_eq!((facts.model.as_deref(), facts.stream, facts.answers), (Some("whisper-1"), true, 1));
        assert_eq!(facts.prompt_tokens as usize, TOKENS_PER_ATTACHMENT);
        assert!(facts.is_read() && !facts.is_object());
        let twice =
            [&body[..body.len() - 7], &b"--B\r\nContent-Disposition: form-data; name=model\r\n\r\nb\r\n--B--\r\n"[..]]
                .concat();
        assert_eq!(BodyFacts::read(&twice, form), Err(Ambiguous { member: "model" }));
    }

    #[test]
    fn json_content_types() {
        for (content_type, json) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/problem+json", true),
            ("text/plain", false),
            ("application/jsonlines", false),
            ("", false),
        ] {
            assert_eq!(is_json(content_type), json, "{content_type}");
        }
    }

    #[test]
    fn deep_nesting_does_not_use_the_stack() {
        let deep = "[".repeat(1_000_000);
        let body = format!("{{\"messages\":{deep}");
        assert!(!read(&body).is_object());
        let body = format!("{{\"x\":{deep}{},\"model\":\"a\"}}", "]".repeat(1_000_000));
        assert_eq!(read(&body).model.as_deref(), Some("a"));
    }

    #[test]
    fn a_picture_counts_by_the_piece_and_text_by_its_length() {
        let picture = format!(r#"{{"input":["data:image/png;base64,{}"]}}"#, "iVBORw0KGgo".repeat(10_000));
        assert!(read(&picture).prompt_tokens < 1_010);
        let bare = format!(r#"{{"input":[{{"data":"{}"}}]}}"#, "iVBORw0KGgo".repeat(10_000));
        assert!(read(&bare).prompt_tokens < 1_010);
        let english = format!(r#"{{"prompt":"{}"}}"#, "word of text ".repeat(1_000));
        assert_eq!(read(&english).prompt_tokens, (13_000 + 2u32).div_ceil(4));
        let chinese = format!(r#"{{"prompt":"{}"}}"#, "\u{4f60}".repeat(1_000));
        assert_eq!(read(&chinese).prompt_tokens, (3_000 + 2u32).div_ceil(4));
    }
}
