//! Ends of streams: the connection's end and the dialect's end mark decide, and a finish reason only makes a later break
//! harmless. What is no answer, or an error in whatever form, never goes downstream.

use super::*;

fn chunk(index: u32, content: &str, finish: &str) -> String {
    let choice = format!(r#"{{"index":{index},"delta":{{"content":"{content}"}},"finish_reason":{finish}}}"#);
    format!("data: {{\"choices\":[{choice}]}}\n\n")
}

/// A stream whose limits are those of a default configuration.
fn patient(case: Case) -> Case {
    let mut case = case;
    case.sending.timeouts = Timeouts { total: Duration::from_secs(59), ..Timeouts::default() };
    case
}

fn two_choices() -> Case {
    patient(Case::new("/v1/chat/completions", r#"{"model":"m","n":2,"stream":true,"messages":[]}"#))
}

#[test]
fn a_choice_that_ends_cuts_no_other() {
    let (one, end_one, two) = (chunk(0, "a", "null"), chunk(0, "", "\"stop\""), chunk(1, "b", "\"stop\""));
    for first in [format!("{one}{end_one}"), format!("{}{one}{end_one}", chunk(1, "x", "null"))] {
        let run = two_choices().run([
            (50, stream_head()),
            (100, bytes(&first)),
            (9_100, bytes(&two)),
            (9_200, bytes(DONE)),
            (9_210, Input::End),
        ]);
        assert_eq!((run.came_to(), run.text()), ((Some(100), 9_210, Kind::Answered), &*format!("{first}{two}{DONE}")));
        // The other choice is missing, also where it never began.
        let run = two_choices().run([(50, stream_head()), (100, bytes(&first)), (200, broken())]);
        assert_eq!(run.kind(), Kind::Cut);
        let run = two_choices().run([(50, stream_head()), (100, bytes(&first)), (200, Input::End)]);
        assert_eq!(run.kind(), Kind::Cut);
    }
    let run = two_choices().run([(50, stream_head()), (100, bytes(&format!("{end_one}{two}"))), (200, broken())]);
    assert_eq!(run.kind(), Kind::Answered, "both have ended");
}

#[test]
fn completions_count_a_choice_for_every_prompt() {
    let body = r#"{"model":"m","stream":true,"prompt":["one","two"]}"#;
    let text = |index: u32| {
        format!("data: {{\"choices\":[{{\"index\":{index},\"text\":\"x\",\"finish_reason\":\"stop\"}}]}}\n\n")
    };
    for (script, kind) in [(text(0), Kind::Cut), (text(0) + &text(1), Kind::Answered)] {
        let run = Case::new("/v1/completions", body).run([(50, stream_head()), (60, bytes(&script)), (70, broken())]);
        assert_eq!(run.kind(), kind);
    }
}

#[test]
fn a_finish_reason_in_an_early_chunk_ends_nothing() {
    for early in ["\"stop\"", "\"null\"", "\"\"", "\"length\""] {
        let first = chunk(0, "a", early);
        let rest = chunk(0, "b", "\"stop\"");
        let run = patient(Case::stream()).run([
            (50, stream_head()),
            (100, bytes(&first)),
            (9_100, bytes(&rest)),
            (9_200, bytes(DONE)),
            (9_210, Input::End),
        ]);
        assert_eq!((run.kind(), run.text()), (Kind::Answered, &*format!("{first}{rest}{DONE}")), "{early}");
    }
    // More content withdraws it: what is missing then is missed.
    let script = format!("{}{}", chunk(0, "a", "\"stop\""), chunk(0, "b", "null"));
    let run = Case::stream().run([(50, stream_head()), (100, bytes(&script)), (200, broken())]);
    assert_eq!(run.kind(), Kind::Cut);
    let run = Case::stream().run([(50, stream_head()), (100, bytes(&chunk(0, "a", "\"null\""))), (200, Input::End)]);
    assert_eq!(run.kind(), Kind::Cut, "the word for none is none");
}

#[test]
fn usage_that_comes_late_is_read() {
    let mut case = patient(Case::stream());
    case.sending.timeouts.idle = Duration::from_secs(15);
    let run = case.run([
        (50, stream_head()),
        (100, bytes(&format!("{HELLO}{STOP}"))),
        (10_100, bytes(USED)),
        (10_110, bytes(DONE)),
        (10_120, Input::End),
    ]);
    assert_eq!(run.came_to(), (Some(100), 10_120, Kind::Answered));
    assert_eq!((run.ended().usage.input_tokens, run.ended().usage.estimated), (9, false));
}

#[test]
fn after_the_end_mark_nothing_is_torn() {
    for end in [broken(), Input::Broken(Outcome::new(Kind::Malformed, "no chunk")), Input::Timer, Input::End] {
        let run = Case::stream().run([(50, stream_head()), (100, bytes(&format!("{HELLO}{DONE}"))), (110, end)]);
        assert_eq!((run.kind(), run.text()), (Kind::Answered, &*format!("{HELLO}{DONE}")));
    }
}

#[test]
fn an_error_in_whatever_form_is_never_relayed() {
    let message = r#"{"model":"m","max_tokens":9,"stream":true,"messages":[]}"#;
    let start = "data: {\"type\":\"message_start\",\"message\":{\"id\":\"m\"}}\n\n";
    let text =
        "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n\n";
    let delta = "data: {\"type\":\"response.output_text.delta\",\"delta\":\"a\",\"sequence_number\":4}\n\n";
    let cases = || {
        [
            (Case::stream(), HELLO.to_owned()),
            (Case::new("/v1/completions", r#"{"model":"m","stream":true}"#), HELLO.replace("delta", "x")),
            (Case::new("/v1/responses", r#"{"model":"m","stream":true}"#), delta.to_owned()),
            (Case::new("/v1/messages", message).dialect(Dialect::ANTHROPIC), format!("{start}{text}")),
        ]
    };
    for error in [
        "data: {\"error\":{\"message\":\"m\"}}\n\n",
        "data: {\"error\":\"m\"}\n\n",
        "event: error\ndata: boom\n\n",
        "event: error\n\n",
        "data: {\"detail\":\"m\"}\n\n",
        "data: {\"code\":500,\"message\":\"m\",\"data\":null}\n\n",
        "data: [{\"error\":{\"code\":503,\"message\":\"m\"}}]\n\n",
        "{\"error\":{\"message\":\"m\"}}\n\n",
        "data: {\"type\":\"error\",\"message\":\"m\"}\n\n",
    ] {
        for (case, begun) in cases() {
            let run = case.commit(Commit::Headers).run([
                (50, stream_head()),
                (100, bytes(&begun)),
                (110, bytes(error)),
                (120, Input::End),
            ]);
            assert_eq!((run.text(), run.kind() == Kind::Answered), (&*begun, false), "{error}");
            assert_eq!(run.ended.as_ref().expect("it ended").0, 110, "{error}");
        }
    }
    for failed in [
        r#"{"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"error"}]}"#,
        r#"{"choices":[{"index":0,"delta":{},"error":{"message":"m"}}]}"#,
        r#"{"error":{"message":"m"},"choices":[{"index":0,"delta":{"content":"x"}}]}"#,
    ] {
        let script = format!("{HELLO}data: {failed}\n\n{DONE}");
        let run = Case::stream().run([(50, stream_head()), (100, bytes(&script)), (110, Input::End)]);
        assert_eq!((run.kind() == Kind::Answered, run.committed), (false, None), "{failed}");
    }
}

#[test]
fn a_whole_answer_must_show_its_success() {
    for (path, body, kind) in [
        ("/v1/chat/completions", r#"{"choices":[]}"#, Kind::Malformed),
        ("/v1/chat/completions", r#"{"choices":null}"#, Kind::Malformed),
        ("/v1/chat/completions", "{}", Kind::Malformed),
        ("/v1/chat/completions", r#"{"choices":[{"message":{"content":""},"finish_reason":"stop"}]}"#, Kind::Malformed),
        (
            "/v1/chat/completions",
            r#"{"choices":[{"message":{"content":"half"},"finish_reason":"error"}]}"#,
            Kind::ServerError,
        ),
        ("/v1/chat/completions", r#"{"choices":[{"error":{"code":429,"message":"slow down"}}]}"#, Kind::RateLimited),
        ("/v1/chat/completions", r#"{"detail":"m"}"#, Kind::ServerError),
        ("/v1/chat/completions", r#"{"code":500,"message":"m","data":null}"#, Kind::ServerError),
        ("/v1/completions", r#"{"choices":[{"text":""}],"usage":{"completion_tokens":0}}"#, Kind::Malformed),
        (
            "/v1/responses",
            r#"{"status":"failed","output":[],"error":{"code":"rate_limit_exceeded","message":"m"}}"#,
            Kind::RateLimited,
        ),
        ("/v1/responses", r#"{"id":"r"}"#, Kind::Malformed),
        ("/v1/embeddings", r#"{"data":[]}"#, Kind::Malformed),
        ("/v1/moderations", r#"{"results":null}"#, Kind::Malformed),
        ("/v1/images/generations", r#"{"created":1}"#, Kind::Malformed),
        ("/v1/audio/transcriptions", r#"{"error":{"message":"m"}}"#, Kind::ServerError),
        ("/v1/moderations", r#"{"results":[{"flagged":false}]}"#, Kind::Answered),
        ("/v1/images/generations", r#"{"data":[{"url":"u"}]}"#, Kind::Answered),
        ("/v1/embeddings", r#"{"data":[{"embedding":[0.5]}]}"#, Kind::Answered),
        ("/v1/files", "{}", Kind::Answered),
    ] {
        let run = Case::new(path, r#"{"model":"m"}"#).run([(50, json_head()), (60, bytes(body)), (70, Input::End)]);
        assert_eq!(run.kind(), kind, "{path} {body}: {:?}", run.ended());
        assert_eq!(run.committed.is_some(), kind == Kind::Answered, "{path} {body}");
    }
    let mut may_be_empty = Case::chat();
    may_be_empty.endpoint.may_be_empty = true;
    let body = r#"{"choices":[{"message":{"content":""},"finish_reason":"stop"}]}"#;
    assert_eq!(may_be_empty.run([(50, json_head()), (60, bytes(body)), (70, Input::End)]).kind(), Kind::Answered);
}

#[test]
fn an_error_of_ours_can_agree_with_what_was_told() {
    let case = Case::new("/v1/responses", r#"{"model":"m","stream":true}"#);
    let created = "data: {\"type\":\"response.created\",\"response\":{\"id\":\"r\"},\"sequence_number\":0}\n\n";
    let delta = "data: {\"type\":\"response.output_text.delta\",\"delta\":\"a\",\"sequence_number\":1}\n\n";
    let run = case.run([(50, stream_head()), (60, bytes(&format!("{created}{delta}"))), (70, broken())]);
    let opened = run.attempt.opened();
    assert_eq!((opened.sequence, opened.response.as_deref()), (Some(1), Some(&br#"{"id":"r"}"#[..])));
}

#[test]
fn a_translated_stream_ends_as_late_as_any() {
    let body = r#"{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"Hi"}]}"#;
    let case = || patient(Case::new("/v1/messages", body));
    let first = chunk(0, "a", "\"stop\"") + &chunk(0, "", "\"null\"");
    let rest = chunk(0, "b", "\"stop\"");
    let run = case().run([
        (50, stream_head()),
        (100, bytes(&first)),
        (9_100, bytes(&rest)),
        (9_200, bytes(&format!("{USED}{DONE}"))),
        (9_210, Input::End),
    ]);
    assert_eq!(run.kind(), Kind::Answered);
    assert_eq!((run.text().matches("text_delta").count(), run.text().matches("message_stop\"").count()), (2, 1));
    assert_eq!(run.ended().usage.output_tokens, 2);
    let script = format!("{first}{}", chunk(0, "b", "null"));
    let run = case().run([(50, stream_head()), (100, bytes(&script)), (200, broken())]);
    assert_eq!(run.kind(), Kind::Cut, "more text came, and then nothing");
    let run = case().run([(50, stream_head()), (100, bytes(&first)), (200, broken())]);
    assert_eq!(run.kind(), Kind::Answered);
}

#[test]
fn nothing_behind_the_finish_takes_from_a_translated_answer_or_keeps_it_waiting() {
    let body = r#"{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"Hi"}]}"#;
    let case = patient(Case::new("/v1/messages", body));
    let late = "data: {\"error\":{\"message\":\"late\"}}\n\n";
    let script = format!("{HELLO}{STOP}{late}");
    let run = case.run([(50, stream_head()), (100, bytes(&script)), (110, Input::End)]);
    assert_eq!(run.kind(), Kind::Answered);
    assert!(!run.text().contains("late") && run.text().contains("message_stop"), "{}", run.text());
    // Without the end mark nobody waits as long as for a model that thinks.
    let run = case.run([(50, stream_head()), (100, bytes(&format!("{HELLO}{STOP}{USED}")))]);
    assert_eq!(run.came_to(), (Some(100), 2_100, Kind::Answered));
    assert!(run.text().contains("message_stop"), "{}", run.text());
}
