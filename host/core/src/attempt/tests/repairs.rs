//! Events that are not strict JSON: no text is left out, and what is mended is counted.

use super::*;
use crate::dialect::repair::Repairs;

fn content(text: &str) -> String {
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
}

fn with(event: &str) -> Run {
    let script = format!("{event}{WORLD}{STOP}{DONE}");
    Case::stream().run([(50, stream_head()), (90, bytes(HELLO)), (100, bytes(&script)), (110, Input::End)])
}

#[test]
fn a_text_that_is_not_strict_json_comes_through() {
    let logprob = HELLO.replace("}}]", "},\"logprobs\":{\"content\":[{\"logprob\":-Infinity}]}}]");
    let joined = content("one").trim_end().to_owned() + "\n" + &content("two");
    for (event, meant) in [
        (content("line one\nline two"), content("line one\\nline two")),
        (content("a\u{1}\tb"), content("a\\u0001\\tb")),
        (logprob.clone(), logprob.replace("-Infinity", "-9999.0")),
        (joined, content("one") + &content("two")),
    ] {
        let run = with(&event);
        assert_eq!((run.kind(), run.text()), (Kind::Answered, &*format!("{HELLO}{meant}{WORLD}{STOP}{DONE}")));
        assert_eq!(run.attempt.repairs(), Repairs { mended: 1, left_out: 0 });
        assert_eq!(run.ended().outcome.message, "1 event of the stream mended");
    }
}

#[test]
fn a_text_that_cannot_be_read_is_a_break() {
    for event in [content("x\n\ny"), "data: {\"choices\":[{\"delta\":{\"content\":\"x\n\n".to_owned()] {
        let run = with(&event);
        assert_eq!((run.kind(), run.text()), (Kind::Malformed, HELLO), "{event}");
    }
    // After the end it takes nothing from the answer.
    let script = format!("{HELLO}{STOP}data: {{\"content\":\"x\n\n{DONE}");
    let run = Case::stream().run([(50, stream_head()), (100, bytes(&script)), (110, Input::End)]);
    assert_eq!((run.kind(), run.text()), (Kind::Answered, &*format!("{HELLO}{STOP}{DONE}")));
    // A text that was begun as the last thing is cut, whatever came before.
    let script = format!("{HELLO}data: {{\"choices\":[{{\"delta\":{{\"content\":\"x");
    let run = Case::stream().run([(50, stream_head()), (100, bytes(&script)), (110, Input::End)]);
    assert_eq!(run.kind(), Kind::Cut);
}

#[test]
fn what_carries_nothing_is_left_out_and_counted() {
    for event in ["data: {nonsense\n\n", "data: {\"choices\": [{]}\n\n", "<html>\n<h1>502</h1>\n\n"] {
        let run = with(event);
        assert_eq!((run.kind(), run.text()), (Kind::Answered, &*format!("{HELLO}{WORLD}{STOP}{DONE}")));
        assert_eq!(run.ended().outcome.message, "1 event of the stream left out", "{event}");
    }
}

#[test]
fn a_translated_stream_is_mended_before_it_is_translated() {
    let body = r#"{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"Hi"}]}"#;
    let case = Case::new("/v1/messages", body);
    let script = format!("{HELLO}{}{STOP}{DONE}", content("a\nb"));
    let run = case.run([(50, stream_head()), (100, bytes(&script)), (110, Input::End)]);
    assert!(run.kind() == Kind::Answered && run.text().contains(r#""text":"a\nb""#), "{}", run.text());
    assert_eq!(run.attempt.repairs().mended, 1);
    let script = format!("{HELLO}data: {{\"choices\":[{{\"delta\":{{\"content\":\"x\n\n{STOP}{DONE}");
    let run = case.run([(50, stream_head()), (100, bytes(&script)), (110, Input::End)]);
    assert_eq!(run.kind(), Kind::Malformed);
}
