//! The form of an answer: what was asked for, both ways, whatever the label says.

use super::*;

fn labelled(label: &'static str) -> Input {
    head(200, &[("content-type", label), ("content-length", "9999")])
}

#[test]
fn a_stream_under_any_label_is_read_as_one() {
    let text = format!("{HELLO}{WORLD}{STOP}{USED}{DONE}");
    let heads: [fn() -> Input; 5] = [
        || labelled("text/plain"),
        || labelled("application/json"),
        || labelled("application/octet-stream"),
        || labelled("text/html; charset=utf-8"),
        || head(200, &[]),
    ];
    for head in heads {
        for begin in ["", "\u{feff}", "\n", ": ping\n\n", "event: message\n"] {
            let run = Case::stream().run([(50, head()), (100, bytes(begin)), (110, bytes(&text)), (120, Input::End)]);
            let expected = format!("{begin}{HELLO}{WORLD}{STOP}{DONE}");
            assert_eq!((run.came_to(), run.text()), ((Some(110), 120, Kind::Answered), &*expected));
            let headers = &run.head.as_ref().expect("a head").headers;
            assert_eq!(headers["content-type"], "text/event-stream");
            assert!(!headers.contains_key("content-length") && run.attempt.delivers_events());
            assert_eq!(run.ended().usage.output_tokens, 2);
        }
        let cut = Case::stream().run([(50, head()), (100, bytes(HELLO)), (110, Input::End)]);
        assert_eq!(cut.came_to(), (Some(100), 110, Kind::Cut), "and is broken like one");
    }
    // Also where the gate opens with the head, and where it comes byte by byte.
    let bytewise = text.bytes().map(|byte| (100, Input::Bytes(Bytes::copy_from_slice(&[byte]))));
    let script = [(50, head(200, &[]))].into_iter().chain(bytewise).chain([(120, Input::End)]);
    let run = Case::stream().commit(Commit::Headers).run(script);
    assert_eq!((run.kind(), run.text()), (Kind::Answered, &*format!("{HELLO}{WORLD}{STOP}{DONE}")));
}

#[test]
fn json_labelled_as_a_stream_is_json() {
    let run = Case::stream().run([(50, stream_head()), (60, bytes(COMPLETION)), (70, Input::End)]);
    assert_eq!(run.came_to(), (Some(70), 70, Kind::Answered));
    assert!(run.text().starts_with("data: ") && run.text().ends_with(DONE), "{}", run.text());
    let run = Case::chat().run([(50, stream_head()), (60, bytes(COMPLETION)), (70, Input::End)]);
    assert_eq!((run.kind(), run.text()), (Kind::Answered, COMPLETION));
    let error = r#"{"error":{"message":"slow down","code":429}}"#;
    let run = Case::stream().run([(50, stream_head()), (60, bytes(error)), (70, Input::End)]);
    assert_eq!((run.kind(), run.committed), (Kind::RateLimited, None));
}

#[test]
fn a_stream_becomes_the_json_that_was_asked_for() {
    for head in [stream_head, json_head] {
        let script = format!("{HELLO}{WORLD}{STOP}{USED}{DONE}");
        let run = Case::chat().run([(50, head()), (100, bytes(&script)), (110, Input::End)]);
        assert_eq!(run.came_to(), (Some(110), 110, Kind::Answered));
        let answer: serde_json::Value = serde_json::from_slice(&run.delivered).expect("JSON");
        assert_eq!(answer["choices"][0]["message"]["content"], "Hello world");
        assert_eq!((&answer["id"], &answer["usage"]["prompt_tokens"]), (&"c1".into(), &9.into()));
        assert_eq!(run.head.as_ref().expect("a head").headers["content-type"], "application/json");
        assert!(!run.attempt.delivers_events());
        assert_eq!(run.ended().usage.output_tokens, 2);
    }
    // A cut one is a failed attempt, like a cut body.
    let run = Case::chat().run([(50, stream_head()), (100, bytes(HELLO)), (110, broken())]);
    assert_eq!(run.came_to(), (None, 110, Kind::Cut));
    let run = Case::chat().run([(50, stream_head()), (100, bytes("data: {\"error\":\"m\"}\n\n")), (110, Input::End)]);
    assert_eq!((run.committed, run.kind()), (None, Kind::ServerError));
    // The stream's end is the answer's, whatever the connection does.
    let run = Case::chat().run([(50, stream_head()), (100, bytes(&format!("{HELLO}{DONE}"))), (110, broken())]);
    assert_eq!(run.kind(), Kind::Answered);
}

#[test]
fn messages_and_responses_become_json_too() {
    let event = |data: &str| format!("data: {data}\n\n");
    let message = [
        r#"{"type":"message_start","message":{"id":"m","type":"message","role":"assistant","content":[],"usage":{"input_tokens":3}}}"#,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}}"#,
        r#"{"type":"message_stop"}"#,
    ];
    let response = [
        r#"{"type":"response.output_text.delta","delta":"Hello"}"#,
        r#"{"type":"response.completed","response":{"id":"r","output":[{"type":"message"}],"usage":{"output_tokens":2}}}"#,
    ];
    let body = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}"#;
    let direct = Case::new("/v1/messages", body).dialect(Dialect::ANTHROPIC);
    let run = direct.run([(50, stream_head()), (60, bytes(&message.map(event).concat())), (70, Input::End)]);
    assert!(run.kind() == Kind::Answered && run.text().contains(r#""text":"Hello""#), "{}", run.text());
    let translated = Case::new("/v1/chat/completions", body).dialect(Dialect::ANTHROPIC);
    let run = translated.run([(50, stream_head()), (60, bytes(&message.map(event).concat())), (70, Input::End)]);
    assert!(run.kind() == Kind::Answered && run.text().contains(r#""content":"Hello""#), "{}", run.text());
    let asked = Case::new("/v1/responses", r#"{"model":"m","input":"Hi"}"#);
    let run = asked.run([(50, stream_head()), (60, bytes(&response.map(event).concat())), (70, Input::End)]);
    assert!(run.kind() == Kind::Answered && run.text().contains(r#""id":"r""#), "{}", run.text());
}

#[test]
fn what_is_neither_is_malformed() {
    for body in ["<html>", "no", "d", ""] {
        let run = Case::stream().run([(50, labelled("text/plain")), (60, bytes(body)), (70, Input::End)]);
        assert_eq!(run.came_to(), (None, 70, Kind::Malformed), "{body}");
    }
}
