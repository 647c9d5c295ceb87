//! Answers in one piece, and what is passed on as it comes.

use super::*;
use crate::http::encoding::Encoding;
use crate::http::encoding::tests::encoded;

#[test]
fn a_whole_answer_is_committed_when_it_is_complete() {
    let (one, two) = COMPLETION.split_at(40);
    let run = Case::chat().run([(50, json_head()), (100, bytes(one)), (200, bytes(two)), (210, Input::End)]);
    assert_eq!(run.came_to(), (Some(210), 210, Kind::Answered));
    assert_eq!(run.text(), COMPLETION);
    let Ended { usage, first_byte, first_token, .. } = run.ended();
    assert_eq!((usage.input_tokens, usage.output_tokens, usage.estimated), (9, 2, false));
    assert_eq!((*first_byte, *first_token), (Some(50 * MS), None));
}

#[test]
fn the_last_bytes_end_it_without_a_further_look() {
    let last = || Input::LastBytes(COMPLETION.into());
    assert_eq!(Case::chat().run([(50, json_head()), (90, last())]).came_to(), (Some(90), 90, Kind::Answered));
    let file = Case::new("/v1/files/1", "");
    let run = file.run([(50, head(200, &[])), (60, bytes("a")), (90, Input::LastBytes("b".into())), (95, Input::End)]);
    assert_eq!(run.came_to(), (Some(50), 90, Kind::Answered));
    assert_eq!(run.text(), "ab");
}

#[test]
fn a_broken_whole_answer_is_only_a_failed_attempt() {
    let run = Case::chat().run([(50, json_head()), (60, bytes(&COMPLETION[..30])), (70, broken())]);
    assert_eq!(run.came_to(), (None, 70, Kind::Cut));
    // Its framing may be kept to all the same.
    let run = Case::chat().run([(50, json_head()), (60, bytes(&COMPLETION[..30])), (70, Input::End)]);
    assert_eq!(run.came_to(), (None, 70, Kind::Malformed));
    let run = Case::chat().run([(50, json_head()), (60, bytes("<html>")), (70, Input::End)]);
    assert_eq!(run.kind(), Kind::Malformed);
    let error = r#"{"error":{"message":"overloaded","code":"overloaded_error"}}"#;
    let run = Case::chat().run([(50, json_head()), (60, bytes(error)), (70, Input::End)]);
    assert_eq!((run.committed, run.kind() == Kind::Answered), (None, false));
}

#[test]
fn a_long_whole_answer_is_passed_on_as_it_comes() {
    let long = format!(r#"{{"text":"{}","#, "x".repeat(whole::MAX_WHOLE_BYTES));
    let run = Case::chat().run([(50, json_head()), (60, bytes(&long)), (70, bytes(r#""a":1}"#)), (80, Input::End)]);
    assert_eq!(run.came_to(), (Some(60), 80, Kind::Answered));
    assert_eq!(run.delivered.len(), long.len() + 6);
    let whole = Input::LastBytes(long.into());
    assert_eq!(Case::chat().run([(50, json_head()), (60, whole)]).committed, None, "it is no JSON");
}

#[test]
fn what_no_model_answers_is_passed_on_at_its_head() {
    let run = Case::new("/v1/files/1", "").run([(50, head(200, &[])), (60, bytes("x")), (70, broken())]);
    assert_eq!(run.came_to(), (Some(50), 70, Kind::Cut));
    for (encoding, came_to) in [("aws-chunked", (Some(50), 70, Kind::Answered)), ("gzip", (None, 70, Kind::Malformed))]
    {
        let run = Case::chat().run([
            (50, head(200, &[("content-type", "application/json"), ("content-encoding", encoding)])),
            (60, bytes("\u{1}\u{2}")),
            (70, Input::End),
        ]);
        assert_eq!(run.came_to(), came_to, "{encoding}");
    }
}

#[test]
fn a_head_that_cannot_be_trusted_is_malformed() {
    for (status, headers) in [(101, &[][..]), (200, &[("transfer-encoding", "chunked"), ("content-length", "5")][..])] {
        let run = Case::chat().run([(50, head(status, headers)), (60, bytes(COMPLETION)), (70, Input::End)]);
        assert_eq!(run.came_to(), (None, 50, Kind::Malformed), "{status}");
        assert_eq!(run.ended().first_byte, None);
    }
}

#[test]
fn an_empty_body_is_an_answer_where_none_was_to_be_expected() {
    let empty = |case: Case, status| case.run([(50, Input::Head(parts(status, &[]), BodyKind::Empty))]).came_to();
    assert_eq!(empty(Case::chat(), 200), (None, 50, Kind::Malformed));
    // To a question it is none; what reads or manages things may have none.
    assert_eq!(empty(Case::chat(), 204), (None, 50, Kind::Malformed));
    assert_eq!(empty(Case::chat(), 304), (Some(50), 50, Kind::Answered));
    assert_eq!(empty(Case::new("/v1/files/1", ""), 204), (Some(50), 50, Kind::Answered));
    assert_eq!(empty(Case::new("/v1/files/1", ""), 304), (Some(50), 50, Kind::Answered));
    assert_eq!(empty(Case::chat().dialect(Dialect::PLAIN), 200), (Some(50), 50, Kind::Answered));
    assert_eq!(empty(Case::new("/v1/files/1", ""), 200), (Some(50), 50, Kind::Answered));
}

#[test]
fn json_in_answer_to_a_request_for_a_stream_is_told_as_one() {
    let run = Case::stream().run([(50, json_head()), (60, bytes(COMPLETION)), (70, Input::End)]);
    assert_eq!(run.came_to(), (Some(70), 70, Kind::Answered));
    assert!(run.text().starts_with("data: ") && run.text().ends_with(DONE), "{}", run.text());
    assert_eq!(run.head.as_ref().expect("a head").headers["content-type"], "text/event-stream");
    assert!(run.attempt.delivers_events());
    let run = Case::stream().run([(50, json_head()), (60, bytes(r#"{"a":1}"#)), (70, Input::End)]);
    assert_eq!(run.came_to(), (None, 70, Kind::Malformed));
}

#[test]
fn what_the_head_says_of_limits_is_kept() {
    let limits = [("x-ratelimit-remaining-requests", "3"), ("x-ratelimit-reset-requests", "1s")];
    let run = Case::chat().run([(50, head(200, &limits)), (60, bytes(COMPLETION)), (70, Input::End)]);
    let (requests, tokens) = run.attempt.limits_left();
    assert_eq!(requests, Some((3, START + 1_050 * MS)));
    assert_eq!(tokens, None);
}

#[test]
fn an_answer_in_another_dialect_is_translated() {
    let case = Case::new(
        "/v1/chat/completions",
        r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}"#,
    );
    let case = case.dialect(Dialect::ANTHROPIC);
    let answer = r#"{"id":"msg","type":"message","role":"assistant","model":"x","content":[{"type":"text","text":"Hello"}],"stop_reason":"end_turn","usage":{"input_tokens":9,"output_tokens":2}}"#;
    let run = case.run([(50, json_head()), (60, bytes(answer)), (70, Input::End)]);
    assert_eq!(run.came_to(), (Some(70), 70, Kind::Answered));
    assert!(run.text().contains("chat.completion") && run.text().contains("Hello"), "{}", run.text());
    let head_in =
        |encoding: &'static str| head(200, &[("content-type", "application/json"), ("content-encoding", encoding)]);
    assert_eq!(
        case.run([(50, head_in("compress"))]).came_to(),
        (None, 50, Kind::Malformed),
        "its inside cannot be seen"
    );
    let packed = Input::Bytes(encoded(Encoding::Gzip, answer.as_bytes()).into());
    let run = case.run([(50, head_in("gzip")), (60, packed), (70, Input::End)]);
    assert_eq!(run.came_to(), (Some(70), 70, Kind::Answered));
    assert!(run.text().contains("chat.completion") && run.text().contains("Hello"), "{}", run.text());
    let run = case.run([(50, head_in("gzip")), (60, bytes("nonsense")), (70, Input::End)]);
    assert_eq!(run.came_to(), (None, 70, Kind::Malformed));
}

#[test]
fn thoughts_and_cut_arguments_are_no_fault_of_a_translated_answer() {
    let body = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}"#;
    let thoughts = r#"{"id":"c","choices":[{"message":{"content":[{"type":"thinking","thinking":[]},{"type":"text","text":"Hi"}]},"finish_reason":"stop"}]}"#;
    let cut = r#"{"id":"c","choices":[{"message":{"content":null,"tool_calls":[{"id":"t","type":"function","function":{"name":"f","arguments":"{\"a"}}]},"finish_reason":"length"}]}"#;
    for (answer, expected) in [(thoughts, r#""text":"Hi""#), (cut, r#""stop_reason":"max_tokens""#)] {
        let run = Case::new("/v1/messages", body).run([(50, json_head()), (60, bytes(answer)), (70, Input::End)]);
        assert_eq!(run.kind(), Kind::Answered, "{:?}", run.ended());
        assert!(run.text().contains(expected), "{}", run.text());
    }
    let streaming = body.replace("\"max_tokens\"", "\"stream\":true,\"max_tokens\"");
    let thinking = HELLO.replace("\"Hello\"", r#"[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]}]"#);
    let script = format!("{thinking}{HELLO}{STOP}{DONE}");
    let run = Case::new("/v1/messages", &streaming).run([(50, stream_head()), (60, bytes(&script)), (70, Input::End)]);
    assert_eq!(run.kind(), Kind::Answered, "{:?}", run.ended());
    assert!(run.text().contains(r#""text":"Hello""#) && !run.text().contains("hm"), "{}", run.text());
}

#[test]
fn a_choice_without_tools_is_left_out_of_a_translated_request() {
    for (tools, choice) in
        [("", r#"{"type":"none"}"#), (r#""tools":[],"#, r#"{"type":"auto","disable_parallel_tool_use":true}"#)]
    {
        let body = format!(
            r#"{{"model":"m","max_tokens":9,{tools}"tool_choice":{choice},"messages":[{{"role":"user","content":"Hi"}}]}}"#
        );
        let case = Case::new("/v1/messages", &body);
        let sent = case.attempt().request(&case.client(), &case.endpoint, &case.sending.model).expect("it can be sent");
        let sent = String::from_utf8_lossy(sent.body()).into_owned();
        assert!(!sent.contains("tool"), "{sent}");
    }
}

#[test]
fn of_a_temperature_and_a_top_p_a_message_has_the_first() {
    for (top_p, is_left_out) in [("0.5", true), ("1", false)] {
        let body = format!(
            r#"{{"model":"m","temperature":0.2,"top_p":{top_p},"messages":[{{"role":"user","content":"Hi"}}]}}"#
        );
        let case = Case::new("/v1/chat/completions", &body).dialect(Dialect::ANTHROPIC);
        let attempt = case.attempt();
        let sent = attempt.request(&case.client(), &case.endpoint, &case.sending.model).expect("it can be sent");
        let sent = String::from_utf8_lossy(sent.body()).into_owned();
        assert!(sent.contains(r#""temperature":0.2"#) && !sent.contains("top_p"), "{sent}");
        assert_eq!(attempt.left_out().iter().any(|field| field.path == "top_p"), is_left_out);
    }
}
