//! Small changes inside a body whose other bytes stay as the client wrote them.

use std::ops::Range;

use bytes::Bytes;

use super::facts::{BodyFacts, ObjectSpans, Spans};
use super::format::edit::{Text, apply, without_member};
use super::registry::Dialect;
use crate::contract::Operation;
use crate::http::{json, multipart};

/// Changes of a body that is otherwise sent as it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change<'a> {
    /// The name to send in place of the model asked for.
    pub model: Option<&'a str>,
    /// Ask for the usage at the stream's end.
    pub include_usage: bool,
}

/// Returns true if the usage must be asked for, and its event then be hidden from the client: where the dialect has an
/// option for it, a stream is wanted, and the client does not ask itself.
pub fn must_ask_usage(dialect: Dialect, operation: Operation, facts: &BodyFacts) -> bool {
    facts.stream && !facts.include_usage && facts.is_object() && dialect.format().has_usage_option(operation)
}

/// The body with the change made: one copy, or the very same bytes where nothing changes.
///
/// `facts` must be those read from `body`. A body that is neither a JSON object nor a form, and a model that was never named,
/// are left as they are; a form has no usage to ask for.
pub fn splice(body: &Bytes, facts: &BodyFacts, change: Change<'_>) -> Bytes {
    let sent = change.model.filter(|sent| facts.model.as_deref().is_some_and(|asked| asked != *sent));
    match (&facts.spans, sent) {
        (None, _) | (Some(Spans::Form { .. }), None) => body.clone(),
        (Some(Spans::Object(spans)), sent) => {
            splice_object(body, spans, sent, change.include_usage && !facts.include_usage)
        }
        (Some(Spans::Form { model }), Some(sent)) => {
            apply(body, &[model.clone().map(|span| (span, Text::Owned(sent.to_owned())))])
        }
    }
}

fn splice_object(body: &Bytes, spans: &ObjectSpans, sent: Option<&str>, include_usage: bool) -> Bytes {
    let mut edits: [Option<(Range<usize>, Text)>; 2] = [None, None];
    if let (Some(span), Some(sent)) = (&spans.model, sent) {
        let quoted = serde_json::to_string(sent).expect("a string is always JSON");
        edits[0] = Some((span.clone(), Text::Owned(quoted)));
    }
    if include_usage {
        edits[1] = match &spans.stream_options {
            None if spans.any => {
                Some((spans.open..spans.open, Text::Known(r#""stream_options":{"include_usage":true},"#)))
            }
            None => Some((spans.open..spans.open, Text::Known(r#""stream_options":{"include_usage":true}"#))),
            Some(span) => inside_options(&body[span.clone()], span.start),
        };
    }
    edits.sort_by_key(|edit| edit.as_ref().map_or(usize::MAX, |(span, _)| span.start));
    apply(body, &edits)
}

/// The body with this model named in it, where it names none; none where it is neither a JSON object nor a form, or a form
/// whose delimiters are not known.
pub(super) fn with_model(body: &Bytes, facts: &BodyFacts, model: &str, content_type: Option<&str>) -> Option<Bytes> {
    let edit = match facts.spans.as_ref()? {
        Spans::Object(spans) => {
            let quoted = serde_json::to_string(model).expect("a string is always JSON");
            match &spans.model {
                Some(span) => (span.clone(), Text::Owned(quoted)),
                None => {
                    let comma = if spans.any { "," } else { "" };
                    (spans.open..spans.open, Text::Owned(format!("\"model\":{quoted}{comma}")))
                }
            }
        }
        Spans::Form { model: Some(span) } => (span.clone(), Text::Owned(model.to_owned())),
        Spans::Form { model: None } => {
            let delimiter = format!("--{}", multipart::boundary(content_type?)?);
            let at = memchr::memmem::find(body, delimiter.as_bytes())?;
            let field = "Content-Disposition: form-data; name=\"model\"";
            (at..at, Text::Owned(format!("{delimiter}\r\n{field}\r\n\r\n{model}\r\n")))
        }
    };
    Some(apply(body, &[Some(edit)]))
}

/// The body without its `stream_options`; the very same bytes where it has none, or is no JSON object.
pub fn without_stream_options(body: &Bytes) -> Bytes {
    without_member(body, &["stream_options"]).unwrap_or_else(|| body.clone())
}

/// The body with this number in place of a member's value; the very same bytes where it has no such member.
pub fn with_number(body: &Bytes, name: &str, number: u64) -> Bytes {
    let Some(value) = json::member(body, name) else { return body.clone() };
    let start = value.as_ptr() as usize - body.as_ptr() as usize;
    apply(body, &[Some((start..start + value.len(), Text::Owned(number.to_string())))])
}

/// The edit that makes these options ask for the usage; none where they are something that is not ours to mend.
fn inside_options(options: &[u8], base: usize) -> Option<(Range<usize>, Text)> {
    if options == b"null" {
        return Some((base..base + options.len(), Text::Known(r#"{"include_usage":true}"#)));
    }
    if options.first() != Some(&b'{') {
        return None;
    }
    // The last one counts where a member stands twice, as in most parsers.
    if let Some((_, value)) = json::members(options).filter(|(key, _)| key == b"include_usage").last() {
        let start = base + (value.as_ptr() as usize - options.as_ptr() as usize);
        return Some((start..start + value.len(), Text::Known("true")));
    }
    // At the end: should the name stand there already, written with escapes, then ours is the last.
    let end = base + options.len() - 1;
    let text = if json::is_filled(options) { r#","include_usage":true"# } else { r#""include_usage":true"# };
    Some((end..end, Text::Known(text)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn spliced(body: &str, change: Change<'_>) -> String {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let facts = BodyFacts::read(&body, None).unwrap();
        String::from_utf8(splice(&body, &facts, change).to_vec()).unwrap()
    }

    fn model(name: &str) -> Change<'_> {
        Change { model: Some(name), include_usage: false }
    }

    const USAGE: Change<'static> = Change { model: None, include_usage: true };

    #[test]
    fn only_the_models_name_changes() {
        let body = "{ \"x\" : 1.50,\n \"model\" :\t\"a\" , \"y\":\"\\u0041\" }";
        assert_eq!(spliced(body, model("b/c")), body.replace("\"a\"", "\"b/c\""));
        assert_eq!(spliced(body, model("q\"\n")), body.replace("\"a\"", "\"q\\\"\\n\""));
    }

    #[test]
    fn both_changes_are_made_in_whatever_order_they_stand() {
        let both = Change { model: Some("bb"), include_usage: true };
        let expected = r#"{"stream_options":{"include_usage":true},"x":1,"model":"bb","y":2}"#;
        assert_eq!(spliced(r#"{"stream_options":null,"x":1,"model":"a","y":2}"#, both), expected);
        let expected = r#"{"model":"bb","x":1,"stream_options":{"include_usage":true}}"#;
        assert_eq!(spliced(r#"{"model":"a","x":1,"stream_options":{}}"#, both), expected);
    }

    #[test]
    fn a_model_that_only_the_path_names_is_named_in_the_body_too() {
        let named = |body: &str, content_type: Option<&str>| {
            let body = Bytes::copy_from_slice(body.as_bytes());
            let facts = BodyFacts::read(&body, content_type).unwrap();
            let named = with_model(&body, &facts, "a\"b", content_type)?;
            let model = BodyFacts::read(&named, content_type).unwrap().model;
            Some((String::from_utf8(named.to_vec()).unwrap(), model))
        };
        for (body, expected) in [
            (r#"{"x":1}"#, r#"{"model":"a\"b","x":1}"#),
            ("{ }", r#"{"model":"a\"b" }"#),
            (r#"{"model":null,"x":1}"#, r#"{"model":"a\"b","x":1}"#),
        ] {
            assert_eq!(named(body, None), Some((expected.to_owned(), Some("a\"b".to_owned()))), "{body}");
        }
        let file = "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n\0\r\n--B--\r\n";
        let (form, model) = named(file, Some("multipart/form-data; boundary=B")).unwrap();
        assert_eq!(model.as_deref(), Some("a\"b"));
        assert!(form.ends_with(file), "{form}");
        assert_eq!(named("RIFF", Some("audio/wav")), None);
    }

    #[test]
    fn a_forms_model_changes_in_its_place() {
        let form = |model: &str| {
            format!(
                "--B\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n\0\r\n--B--\r\n"
            )
        };
        let body = Bytes::from(form("whisper-1"));
        let facts = BodyFacts::read(&body, Some("multipart/form-data; boundary=B")).unwrap();
        let both = Change { model: Some("openai/whisper"), include_usage: true };
        assert_eq!(splice(&body, &facts, both), form("openai/whisper"));
        let same = splice(&body, &facts, Change { model: Some("whisper-1"), include_usage: true });
        assert_eq!(same.as_ptr(), body.as_ptr());
    }

    #[test]
    fn nothing_to_change_is_the_same_allocation() {
        let body = Bytes::from_static(br#"{"model":"a","stream_options":{"include_usage":true}}"#);
        let facts = BodyFacts::read(&body, None).unwrap();
        let same = splice(&body, &facts, Change { model: Some("a"), include_usage: true });
        assert_eq!(same.as_ptr(), body.as_ptr());
        let binary = Bytes::from_static(b"\x00\x01");
        let same = splice(&binary, &BodyFacts::default(), Change { model: Some("a"), include_usage: true });
        assert_eq!(same.as_ptr(), binary.as_ptr());
    }

    #[test]
    fn a_model_that_was_not_named_is_not_added() {
        assert_eq!(spliced(r#"{"messages":[]}"#, model("b")), r#"{"messages":[]}"#);
        assert_eq!(spliced(r#"{"model":7}"#, model("b")), r#"{"model":7}"#);
    }

    #[test]
    fn usage_is_asked_for_whatever_stands_there() {
        for (body, expected) in [
            (r#" {"a":1}"#, r#" {"stream_options":{"include_usage":true},"a":1}"#),
            (r#"{}"#, r#"{"stream_options":{"include_usage":true}}"#),
            (r#"{"stream_options":null,"a":1}"#, r#"{"stream_options":{"include_usage":true},"a":1}"#),
            (r#"{"stream_options":{}}"#, r#"{"stream_options":{"include_usage":true}}"#),
            (r#"{"stream_options":{ }}"#, r#"{"stream_options":{ "include_usage":true}}"#),
            (r#"{"stream_options":{"b":2}}"#, r#"{"stream_options":{"b":2,"include_usage":true}}"#),
            (r#"{"stream_options":{"include_usage": false }}"#, r#"{"stream_options":{"include_usage": true }}"#),
            (
                r#"{"stream_options":{"include_usage":null,"b":2}}"#,
                r#"{"stream_options":{"include_usage":true,"b":2}}"#,
            ),
            (r#"{"stream_options":"odd"}"#, r#"{"stream_options":"odd"}"#),
        ] {
            assert_eq!(spliced(body, USAGE), expected);
        }
    }

    #[test]
    fn usage_is_asked_for_only_where_it_can_be_and_the_client_does_not() {
        let facts = |body: &str| BodyFacts::read(body.as_bytes(), None).unwrap();
        let streamed = facts(r#"{"stream":true}"#);
        assert!(must_ask_usage(Dialect::OPENAI, Operation::Chat, &streamed));
        assert!(!must_ask_usage(Dialect::OPENAI, Operation::Response, &streamed));
        assert!(!must_ask_usage(Dialect::ANTHROPIC, Operation::Message, &streamed));
        assert!(!must_ask_usage(Dialect::OPENAI, Operation::Chat, &facts("{}")));
        let own = facts(r#"{"stream":true,"stream_options":{"include_usage":true}}"#);
        assert!(!must_ask_usage(Dialect::OPENAI, Operation::Chat, &own));
    }

    #[test]
    fn stream_options_are_left_out_and_nothing_else() {
        for (body, expected) in [
            (r#"{"stream_options":{"include_usage":true},"a":1}"#, r#"{"a":1}"#),
            (r#"{"a":1 , "stream_options" : {"include_usage":true} }"#, r#"{"a":1  }"#),
            (
                r#"{"a":1,"stream_options":{"include_usage":true},"b":"stream_options"}"#,
                r#"{"a":1,"b":"stream_options"}"#,
            ),
            (r#"{"stream_options":{}}"#, "{}"),
            (r#"{"a":{"stream_options":1}}"#, r#"{"a":{"stream_options":1}}"#),
            ("[1]", "[1]"),
        ] {
            assert_eq!(without_stream_options(&Bytes::copy_from_slice(body.as_bytes())), expected, "{body}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z\"\\\\]{0,4}", inner, 0..4).prop_map(Value::from_iter),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_result_parses_to_the_same_but_for_the_change(
            others in prop::collection::btree_map("[a-z]{0,3}", any_json(), 0..5),
            asked in prop::option::of("\\PC{0,12}"),
            sent in "\\PC{0,12}",
            options in prop::option::of(prop_oneof![
                Just(json!(null)), Just(json!({})), Just(json!({"include_usage": false})),
                Just(json!({"include_usage": true, "z": [1]})), Just(json!({"z": {"include_usage": false}})),
            ]),
            include_usage: bool,
            pretty: bool,
        ) {
            let mut before = Value::from_iter(others);
            if let Some(asked) = asked { before["model"] = json!(asked); }
            if let Some(options) = options { before["stream_options"] = options; }
            let text = if pretty { serde_json::to_string_pretty(&before) } else { serde_json::to_string(&before) }.unwrap();
            let after = spliced(&text, Change { model: Some(&sent), include_usage });
            let after: Value = serde_json::from_str(&after).unwrap();
            if before.get("model").is_some() { before["model"] = json!(sent); }
            if include_usage {
                if !before["stream_options"].is_object() { before["stream_options"] = json!({}); }
                before["stream_options"]["include_usage"] = json!(true);
            }
            prop_assert_eq!(after, before);
        }
    }
}
