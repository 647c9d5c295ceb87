//! Streams: the commit gate, what is left out, and what counts as an end.

use super::*;

fn answer() -> [(u64, Input); 6] {
    [
        (50, stream_head()),
        (100, bytes(HELLO)),
        (200, bytes(WORLD)),
        (300, bytes(&format!("{STOP}{USED}"))),
        (310, bytes(DONE)),
        (320, Input::End),
    ]
}

#[test]
fn the_gate_decides_when_a_stream_is_committed() {
    for (commit, at) in [
        (Commit::Headers, 50),
        (Commit::FirstContent, 100),
        (Commit::Tokens(2), 200),
        (Commit::Tokens(9), 300),
        (Commit::Complete, 320),
    ] {
        let run = Case::stream().commit(commit).run(answer());
        assert_eq!(run.came_to(), (Some(at), 320, Kind::Answered), "{commit:?}");
        assert_eq!(run.text(), format!("{HELLO}{WORLD}{STOP}{DONE}"), "the usage was asked for by us");
        let ended = run.ended();
        assert_eq!((ended.usage.input_tokens, ended.usage.output_tokens, ended.usage.estimated), (9, 2, false));
        assert_eq!((ended.first_byte, ended.first_token), (Some(50 * MS), Some(100 * MS)));
        assert!(run.attempt.delivers_events());
    }
}

#[test]
fn a_head_loses_its_length_where_events_may_be_left_out() {
    let head = head(200, &[("content-type", "text/event-stream"), ("content-length", "99")]);
    let run = Case::stream().run([(50, head), (60, bytes(HELLO)), (70, bytes(DONE)), (80, Input::End)]);
    assert!(!run.head.expect("it was committed").headers.contains_key("content-length"));
}

#[test]
fn a_break_before_the_gate_is_a_failed_attempt_and_after_it_a_broken_answer() {
    let cut = |commit| {
        let script = [(50, stream_head()), (100, bytes(HELLO)), (200, broken())];
        Case::stream().commit(commit).run(script)
    };
    assert_eq!(cut(Commit::FirstContent).came_to(), (Some(100), 200, Kind::Cut));
    assert_eq!(cut(Commit::Complete).came_to(), (None, 200, Kind::Cut));
    let usage = cut(Commit::FirstContent).ended().usage;
    assert_eq!((usage.input_tokens, usage.output_tokens, usage.estimated), (7, 2, true), "estimated");
    // The framing may be kept to all the same.
    let run = Case::stream().run([(50, stream_head()), (100, bytes(HELLO)), (200, Input::End)]);
    assert_eq!(run.came_to(), (Some(100), 200, Kind::Cut));
}

#[test]
fn nothing_takes_from_an_answer_whose_model_has_finished() {
    for end in [broken(), Input::Timer, bytes("data: {\"error\":{\"message\":\"late\"}}\n\n")] {
        let run = Case::stream().run([(50, stream_head()), (100, bytes(HELLO)), (200, bytes(STOP)), (210, end)]);
        assert_eq!(run.kind(), Kind::Answered);
        assert_eq!(run.text(), format!("{HELLO}{STOP}{DONE}"), "the end that clients wait for is added");
    }
    // While the connection lives, usage may follow; after the usage nobody waits as long as for a model that thinks.
    let mut slow = Case::stream();
    slow.sending.timeouts.idle = Duration::from_secs(30);
    slow.sending.timeouts.total = Duration::from_secs(60);
    let run = slow.run([(50, stream_head()), (100, bytes(HELLO)), (200, bytes(STOP))]);
    assert_eq!(run.came_to(), (Some(100), 30_200, Kind::Answered));
    let run = slow.run([(50, stream_head()), (100, bytes(HELLO)), (200, bytes(STOP)), (10_200, bytes(USED))]);
    assert_eq!(run.came_to(), (Some(100), 12_200, Kind::Answered));
    assert_eq!((run.ended().usage.output_tokens, run.ended().usage.estimated), (2, false));
}

#[test]
fn all_is_said_with_the_last_event() {
    let case = Case::stream();
    let mut attempt = case.attempt();
    for (input, all) in [(stream_head(), false), (bytes(HELLO), false), (bytes(STOP), false), (bytes(DONE), true)] {
        attempt.step(START, input);
        assert_eq!(attempt.has_said_all(), all);
    }
    let Output::Ended(last, ended) = attempt.step(START, Input::End) else { panic!("it is over") };
    assert_eq!((last.len(), ended.outcome.kind), (0, Kind::Answered));
}

#[test]
fn an_error_inside_a_stream_is_not_delivered() {
    let error = "data: {\"error\":{\"message\":\"the key sk-secret is overloaded\",\"code\":\"overloaded_error\"}}\n\n";
    let run = Case::stream().run([(50, stream_head()), (100, bytes(HELLO)), (200, bytes(&format!("{WORLD}{error}")))]);
    assert_eq!((run.committed, run.text()), (Some(100), &*format!("{HELLO}{WORLD}")));
    assert!(run.kind() != Kind::Answered && !run.ended().outcome.message.contains("sk-secret"), "{:?}", run.ended());
    let run = Case::stream().run([(50, stream_head()), (100, bytes(error))]);
    assert_eq!(run.committed, None);
}

#[test]
fn what_no_client_could_read_is_left_out() {
    let run = Case::stream().run([
        (50, stream_head()),
        (100, bytes(&format!(": ping\n\n{HELLO}data: {{nonsense\n\n{WORLD}"))),
        (200, bytes(&format!("{STOP}{DONE}"))),
        (210, Input::End),
    ]);
    assert_eq!(run.text(), format!(": ping\n\n{HELLO}{WORLD}{STOP}{DONE}"));
}

#[test]
fn a_stream_without_an_answer_in_it_is_malformed() {
    let run = Case::stream().run([(50, stream_head()), (100, bytes(DONE)), (110, Input::End)]);
    assert_eq!(run.came_to(), (None, 110, Kind::Malformed));
    let finish_only = || [(50, stream_head()), (100, bytes(&format!("{STOP}{DONE}"))), (110, Input::End)];
    assert_eq!(Case::stream().run(finish_only()).came_to(), (None, 110, Kind::Malformed));
    let mut may_be_empty = Case::stream();
    may_be_empty.endpoint.may_be_empty = true;
    assert_eq!(may_be_empty.run(finish_only()).came_to(), (Some(100), 110, Kind::Answered), "the model said why");
    // Tokens that the provider counted are an answer: thoughts that it does not show.
    let counted = [(50, stream_head()), (100, bytes(STOP)), (105, bytes(&format!("{USED}{DONE}"))), (110, Input::End)];
    assert_eq!(Case::stream().run(counted).came_to(), (Some(105), 110, Kind::Answered));
}

#[test]
fn no_more_is_held_back_than_fits() {
    let comment = format!(": {}\n\n", "x".repeat(1024 * 1024));
    let script = (0..5).map(|i| (60 + i, bytes(&comment)));
    let run = Case::stream().run([(50, stream_head())].into_iter().chain(script));
    assert_eq!(run.committed, Some(63), "with the fourth MiB");
}

#[test]
fn the_last_event_may_lack_its_blank_line() {
    let unfinished = format!("{HELLO}{STOP}data: [DONE]");
    let run = Case::stream().run([(50, stream_head()), (100, bytes(&unfinished)), (110, Input::End)]);
    assert_eq!((run.kind(), run.text()), (Kind::Answered, &*format!("{HELLO}{STOP}{DONE}")));
    // Its content counts also where it is the first.
    let only = HELLO.trim_end().replace("}}]", "},\"finish_reason\":\"stop\"}]");
    let run = Case::stream().commit(Commit::Headers).run([(50, stream_head()), (100, bytes(&only)), (110, Input::End)]);
    assert_eq!((run.kind(), run.ended().first_token), (Kind::Answered, Some(110 * MS)));
}

#[test]
fn a_stream_in_another_dialect_is_translated_as_it_comes() {
    let body = r#"{"model":"m","stream":true,"max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}"#;
    let case = Case::new("/v1/chat/completions", body).dialect(Dialect::ANTHROPIC);
    let event = |data: &str| {
        let name = data.split('"').nth(3).expect("its type comes first");
        bytes(&format!("event: {name}\ndata: {data}\n\n"))
    };
    let run = case.run([
        (50, stream_head()),
        (60, event(r#"{"type":"message_start","message":{"id":"m1","type":"message","role":"assistant","model":"x","content":[],"usage":{"input_tokens":9,"output_tokens":1}}}"#)),
        (70, event(r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#)),
        (80, event(r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}"#)),
        (90, event(r#"{"type":"content_block_stop","index":0}"#)),
        (100, event(r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}}"#)),
        (110, event(r#"{"type":"message_stop"}"#)),
        (120, Input::End),
    ]);
    assert_eq!(run.came_to(), (Some(80), 120, Kind::Answered));
    assert!(run.text().contains("chat.completion.chunk") && run.text().ends_with(DONE), "{}", run.text());
    assert_eq!((run.ended().usage.input_tokens, run.ended().usage.output_tokens), (9, 2));
}
