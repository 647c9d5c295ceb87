//! Additions of ours that a backend refuses: the request is sent once more without them.

use super::*;

const REFUSAL: &str = r#"{"detail":[{"loc":["body","stream_options"],"msg":"Extra inputs are not permitted"}]}"#;

/// The body that is sent, and the one that is sent again.
fn bodies(case: &Case, attempt: &mut Attempt) -> [String; 2] {
    let sent = |attempt: &Attempt| {
        let request = attempt.request(&case.client(), &case.endpoint, &case.sending.model).expect("it can be sent");
        String::from_utf8(request.into_body().to_vec()).expect("JSON is text")
    };
    let first = sent(attempt);
    attempt.step(START, head(422, &[]));
    assert!(matches!(attempt.step(START, Input::LastBytes(REFUSAL.into())), Output::SendAgain));
    attempt.leave_out(&case.client(), &case.endpoint, &case.sending.model);
    [first, sent(attempt)]
}

#[test]
fn a_refused_addition_is_left_out_and_the_answer_delivered() {
    let case = Case::stream();
    let mut attempt = case.attempt();
    let [first, second] = bodies(&case, &mut attempt);
    assert!(first.contains("stream_options") && !second.contains("stream_options"), "{first} {second}");
    assert_eq!(second, r#"{"model":"sent","stream":true,"messages":[]}"#);
    let script = [(60, stream_head()), (70, bytes(&format!("{HELLO}{STOP}{DONE}"))), (80, Input::End)];
    let run = Run::of(attempt, script);
    assert_eq!((run.kind(), run.text()), (Kind::Answered, &*format!("{HELLO}{STOP}{DONE}")));
    assert!(run.attempt.has_left_out() && run.ended().usage.estimated);
}

#[test]
fn what_the_client_wrote_itself_stays() {
    let body = r#"{"model":"m","stream":true,"stream_options":{"x":1},"messages":[]}"#;
    let case = Case::new("/v1/chat/completions", body);
    let [first, second] = bodies(&case, &mut case.attempt());
    assert!(first.contains(r#""stream_options":{"x":1,"include_usage":true}"#), "{first}");
    assert!(second.contains(r#""stream_options":{"x":1}"#), "{second}");
}

#[test]
fn a_translated_request_loses_it_too() {
    let body = r#"{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"Hi"}]}"#;
    let case = Case::new("/v1/messages", body);
    let [first, second] = bodies(&case, &mut case.attempt());
    assert!(first.contains("stream_options") && !second.contains("stream_options"), "{first} {second}");
    assert!(second.contains(r#""stream":true"#), "{second}");
}

#[test]
fn every_form_of_the_refusal_is_known_and_no_other() {
    let error = "data: {\"error\":{\"message\":\"Unsupported: stream_options\"}}\n\n";
    for (head, body) in [
        (head(400, &[]), r#"{"error":{"message":"Unknown parameter: 'stream_options'."}}"#),
        (head(400, &[]), r#"{"message":"json: unknown field"}"#),
        (head(422, &[]), ""),
        (head(501, &[]), "include_usage is not implemented"),
        (json_head(), r#"{"error":{"message":"stream_options is not allowed"}}"#),
        (stream_head(), error),
    ] {
        let run = Case::stream().run([(50, head), (60, bytes(body)), (70, Input::End), (80, Input::End)]);
        assert_eq!(run.sent_again, 1, "{body}");
    }
    let refused = r#"{"error":{"message":"messages must not be empty"}}"#;
    for (case, head, body) in [
        (Case::stream(), head(400, &[]), refused),
        (Case::stream(), head(500, &[]), "unknown field"),
        (Case::chat(), head(422, &[]), REFUSAL),
    ] {
        assert_eq!(case.run([(50, head), (60, bytes(body)), (70, Input::End)]).sent_again, 0, "{body}");
    }
}

#[test]
fn it_is_sent_again_once_only() {
    let script = || [(50, head(422, &[])), (60, bytes(REFUSAL)), (70, Input::End)];
    let run = Case::stream().run(script().into_iter().chain(script()));
    assert_eq!((run.sent_again, run.kind()), (1, Kind::Refused));
}

#[test]
fn a_backend_is_remembered_by_its_model_or_told_by_the_operator() {
    let asks = |case: &Case| {
        let request =
            case.attempt().request(&case.client(), &case.endpoint, &case.sending.model).expect("it can be sent");
        String::from_utf8_lossy(request.body()).contains("stream_options")
    };
    let mut case = Case::stream();
    assert!(asks(&case));
    let mut attempt = case.attempt();
    bodies(&case, &mut attempt);
    case.endpoint.additions.remember_refusal("other", &attempt);
    assert!(asks(&case));
    case.endpoint.additions.remember_refusal("sent", &attempt);
    assert!(!asks(&case));
    case.endpoint.additions = Arc::new(Additions::new(Some(false)));
    assert!(!asks(&case));
    case.endpoint.additions = Arc::new(Additions::new(Some(true)));
    assert!(asks(&case));
    let run = case.run([(50, head(422, &[])), (60, bytes(REFUSAL)), (70, Input::End)]);
    assert_eq!((run.sent_again, run.kind()), (0, Kind::Refused), "the operator wants it");
}

#[test]
fn a_limit_of_ours_that_is_too_high_is_lowered_to_the_one_that_is_told() {
    let sent = |case: &Case, attempt: &Attempt| -> serde_json::Value {
        let request = attempt.request(&case.client(), &case.endpoint, &case.sending.model).expect("it can be sent");
        serde_json::from_slice(request.body()).expect("JSON")
    };
    let says = r#"{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: 8192 > 4096, which is the maximum allowed number of output tokens for claude-3-haiku-20240307"}}"#;
    let refuse = |attempt: &mut Attempt| {
        attempt.step(START, head(400, &[]));
        attempt.step(START, Input::LastBytes(says.into()))
    };
    let body = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}]}"#;
    let case = Case::new("/v1/chat/completions", body).dialect(Dialect::ANTHROPIC);
    let mut attempt = case.attempt();
    assert_eq!(sent(&case, &attempt)["max_tokens"], 8_192);
    assert!(matches!(refuse(&mut attempt), Output::SendAgain));
    attempt.leave_out(&case.client(), &case.endpoint, &case.sending.model);
    assert_eq!(sent(&case, &attempt)["max_tokens"], 4_096);
    case.endpoint.additions.remember_refusal("sent", &attempt);
    assert_eq!(sent(&case, &case.attempt())["max_tokens"], 4_096);
    // The client's own limit is the client's.
    let body = r#"{"model":"m","max_tokens":8192,"messages":[{"role":"user","content":"Hi"}]}"#;
    let own = Case::new("/v1/chat/completions", body).dialect(Dialect::ANTHROPIC);
    assert!(matches!(refuse(&mut own.attempt()), Output::Ended(..)));
}

const MESSAGE: &str = r#"{"model":"m","max_tokens":32000,"messages":[{"role":"user","content":"Hi"}]}"#;

fn limit_sent(case: &Case, attempt: &Attempt) -> serde_json::Value {
    let request = attempt.request(&case.client(), &case.endpoint, &case.sending.model).expect("it can be sent");
    let body: serde_json::Value = serde_json::from_slice(request.body()).expect("JSON");
    body.get("max_tokens").or_else(|| body.get("max_completion_tokens")).cloned().unwrap_or_default()
}

/// The limit that is sent after this refusal; none where it is final.
fn lowered_to(case: &Case, attempt: &mut Attempt, says: &str) -> Option<serde_json::Value> {
    attempt.step(START, head(400, &[]));
    if !matches!(attempt.step(START, Input::LastBytes(Bytes::copy_from_slice(says.as_bytes()))), Output::SendAgain) {
        return None;
    }
    attempt.leave_out(&case.client(), &case.endpoint, &case.sending.model);
    Some(limit_sent(case, attempt))
}

#[test]
fn a_limit_that_the_clients_api_demands_is_lowered_and_the_client_told() {
    let says = r#"{"error":{"message":"max_tokens is too large: 32000. This model supports at most 16384 completion tokens, whereas you provided 32000.","param":"max_tokens"}}"#;
    for host in ["http://upstream.test/v1", "https://api.openai.com/v1"] {
        let mut case = Case::new("/v1/messages", MESSAGE);
        case.endpoint.base = BaseUrl::parse(host).expect("a base URL");
        let mut attempt = case.attempt();
        assert_eq!((limit_sent(&case, &attempt), attempt.left_out().len()), (32_000.into(), 0));
        assert_eq!(lowered_to(&case, &mut attempt, says), Some(16_384.into()));
        assert!(attempt.left_out()[0].to_string().contains("16384"), "{:?}", attempt.left_out());
        case.endpoint.additions.remember_refusal("sent", &attempt);
        let next = case.attempt();
        assert_eq!((limit_sent(&case, &next), next.left_out().len()), (16_384.into(), 1));
    }
    let mut strict = Case::new("/v1/messages", MESSAGE);
    strict.translations = crate::dialect::translate::Translations::new(crate::dialect::translate::Strictness::Strict);
    assert_eq!(lowered_to(&strict, &mut strict.attempt(), says), None);
}

#[test]
fn a_limit_of_one_prompt_is_not_remembered() {
    for (says, limit) in [
        (
            "max_tokens is too large: 32000. This model's maximum context length is 8192 tokens and your request has 1200 input tokens",
            Some(6_992),
        ),
        (
            "This model's maximum context length is 8192 tokens. However, you requested 33200 tokens (1200 in the messages, 32000 in the completion). Please reduce max_tokens.",
            Some(6_992),
        ),
        ("max_tokens and your prompt are more than 8192 together", None),
        ("maximum context length is 1000 tokens and your request has 1200 input tokens; max_tokens is 32000", None),
    ] {
        let case = Case::new("/v1/messages", MESSAGE);
        let mut attempt = case.attempt();
        let refusal = serde_json::json!({"error": {"message": says}, "request": {"size": 4096}}).to_string();
        assert_eq!(lowered_to(&case, &mut attempt, &refusal), limit.map(Into::into), "{says}");
        case.endpoint.additions.remember_refusal("sent", &attempt);
        assert_eq!(limit_sent(&case, &case.attempt()), 32_000, "{says}");
    }
}

#[test]
fn a_refusal_that_names_another_member_is_final() {
    for refused in [
        r#"{"error":{"message":"Unknown parameter: 'foo'.","param":"foo"}}"#,
        r#"{"detail":[{"loc":["body","foo"],"msg":"Extra inputs are not permitted","input":{"stream_options":{}}}]}"#,
    ] {
        let run = Case::stream().run([(50, head(400, &[])), (60, bytes(refused)), (70, Input::End)]);
        assert_eq!(run.sent_again, 0, "{refused}");
    }
    let ours = r#"{"error":{"message":"Unknown parameter.","param":"stream_options"}}"#;
    let run = Case::stream().run([(50, head(400, &[])), (60, bytes(ours)), (70, Input::End)]);
    assert_eq!(run.sent_again, 1);
}
