//! Attempts that continue a broken answer.

use super::*;
use crate::exchange::Join;

/// Transcript of a stream that broke after its first content.
fn told() -> Transcript {
    let mut case = Case::stream();
    case.sending.resume = Resume::Splice;
    let run = case.run([(50, stream_head()), (100, bytes(HELLO)), (200, broken())]);
    assert_eq!(run.came_to(), (Some(100), 200, Kind::Cut));
    run.attempt.transcript().expect("it can be continued").clone()
}

fn joining(join: Join) -> Case {
    let body = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"Hi"}]}"#;
    let mut case = Case::new("/v1/chat/completions", body);
    case.sending.resume = Resume::Splice;
    case.sending.join = Some(join);
    case
}

#[test]
fn an_attempt_that_resumes_goes_downstream_with_what_is_new() {
    let attempt = joining(Join::Splice).joining(Some(&told()));
    let rest = format!("{STOP}{DONE}");
    let run = Run::of(
        attempt,
        [(50, stream_head()), (100, bytes(HELLO)), (200, bytes(WORLD)), (300, bytes(&rest)), (310, Input::End)],
    );
    assert_eq!(run.came_to(), (Some(200), 310, Kind::Answered));
    assert!(!run.text().contains("Hello") && run.text().contains("world"), "{}", run.text());
}

#[test]
fn what_differs_or_ends_earlier_is_never_delivered() {
    let other = HELLO.replace("Hello", "Howdy");
    for (script, kind) in [(other, Kind::NotResumed), (format!("{HELLO}{DONE}"), Kind::NotResumed)] {
        let attempt = joining(Join::Splice).joining(Some(&told()));
        let run = Run::of(attempt, [(50, stream_head()), (100, bytes(&script)), (110, Input::End)]);
        assert_eq!((run.committed, run.kind()), (None, kind));
    }
    let attempt = joining(Join::Splice).joining(Some(&told()));
    let run = Run::of(attempt, [(50, stream_head()), (100, bytes(HELLO)), (200, broken())]);
    assert_eq!(run.came_to(), (None, 200, Kind::Cut));
}

#[test]
fn an_answer_in_one_piece_is_joined_too() {
    let said = COMPLETION.replace("Hello", "Hello world");
    let attempt = joining(Join::Splice).joining(Some(&told()));
    let run = Run::of(attempt, [(50, json_head()), (100, bytes(&said)), (110, Input::End)]);
    assert_eq!(run.came_to(), (Some(110), 110, Kind::Answered));
    assert!(!run.text().contains("Hello") && run.text().contains(" world"), "{}", run.text());
    let attempt = joining(Join::Splice).joining(Some(&told()));
    // By its beginning, and not by its label, it is told to be none.
    let run = Run::of(attempt, [(50, head(200, &[("content-type", "text/plain")])), (100, bytes("x"))]);
    assert_eq!(run.came_to(), (None, 100, Kind::NotResumed));
    let attempt = joining(Join::Splice).joining(Some(&told()));
    let run = Run::of(attempt, [(50, Input::Head(parts(200, &[]), BodyKind::Empty))]);
    assert_eq!(run.came_to(), (None, 50, Kind::NotResumed));
}

#[test]
fn a_prefill_is_part_of_the_body_and_its_refusal_says_nothing_against_the_backend() {
    let mut case = joining(Join::Prefill);
    case.capabilities.insert("continue_final_message".to_owned(), true);
    let attempt = case.joining(Some(&told()));
    let sent = attempt.request(&case.client(), &case.endpoint, &case.sending.model).expect("it can be sent");
    assert!(String::from_utf8_lossy(sent.body()).contains(r#""content":"Hello""#), "{sent:?}");
    let wrong = r#"{"error":{"message":"no prefill here"}}"#;
    let run = Run::of(attempt, [(50, head(400, &[])), (60, bytes(wrong)), (70, Input::End)]);
    assert_eq!(run.kind(), Kind::NotResumed);
    assert!(run.ended().outcome.message.starts_with("the beginning of an answer was refused: "));
    let attempt = case.joining(Some(&told()));
    let rest = format!("{STOP}{DONE}");
    let run = Run::of(attempt, [(50, stream_head()), (100, bytes(WORLD)), (200, bytes(&rest)), (210, Input::End)]);
    assert_eq!(run.came_to(), (Some(100), 210, Kind::Answered));
}

#[test]
fn nothing_is_remembered_where_nothing_is_to_be_resumed() {
    let run = Case::stream().run([(50, stream_head()), (100, bytes(HELLO)), (200, broken())]);
    assert!(run.attempt.transcript().is_none());
}

#[test]
fn a_body_that_ends_anywhere_loses_no_text_to_the_next_attempt() {
    let content = |text: &str| serde_json::json!({"choices": [{"index": 0, "delta": {"content": text}}]});
    let event = |text: &str| format!("data: {}\n\n", content(text));
    // The second is not strict JSON, and is mended.
    let mended = event("b\u{1}").replace("\\u0001", "\u{1}");
    let all = format!("{}{mended}{}", event("a"), event("c"));
    let texts = |delivered: &str| -> String {
        let events = delivered.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
        let read = |data: &str| serde_json::from_str::<serde_json::Value>(data).ok();
        let text = |chunk: serde_json::Value| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned);
        events.filter_map(read).filter_map(text).collect()
    };
    for cut in event("a").len()..all.len() {
        let mut case = Case::stream();
        case.sending.resume = Resume::Splice;
        let first = case.run([(50, stream_head()), (100, bytes(&all[..cut])), (110, Input::End)]);
        assert_eq!((first.committed, first.kind()), (Some(100), Kind::Cut), "{cut}");
        let told = first.attempt.transcript().expect("it can be continued").clone();
        let attempt = joining(Join::Splice).joining(Some(&told));
        let script = format!("{all}{STOP}{DONE}");
        let second = Run::of(attempt, [(50, stream_head()), (100, bytes(&script)), (110, Input::End)]);
        assert_eq!(second.kind(), Kind::Answered, "{cut}");
        assert_eq!(texts(first.text()) + &texts(second.text()), "ab\u{1}c", "{cut}");
    }
}
