//! Requests as they are sent to the backend.

use super::*;

fn sent(case: &Case) -> (String, HeaderMap, String) {
    let request = case.attempt().request(&case.client(), &case.endpoint, &case.sending.model).expect("it can be sent");
    let (head, body) = request.into_parts();
    (head.uri.to_string(), head.headers, String::from_utf8(body.to_vec()).expect("JSON is text"))
}

#[test]
fn the_body_is_the_clients_but_for_the_model_and_the_usage() {
    let mut case = Case::stream();
    case.headers.insert("x-client", HeaderValue::from_static("1"));
    case.endpoint.headers.push((HeaderName::from_static("x-own"), HeaderValue::from_static("2")));
    let (path, headers, body) = sent(&case);
    assert_eq!(path, "/v1/chat/completions");
    assert_eq!(body, r#"{"stream_options":{"include_usage":true},"model":"sent","stream":true,"messages":[]}"#);
    assert_eq!(
        (&headers["x-client"], &headers["x-own"], &headers["authorization"]),
        (&HeaderValue::from_static("1"), &HeaderValue::from_static("2"), &HeaderValue::from_static("Bearer sk-secret"))
    );
    assert_eq!(sent(&Case::chat()).2, r#"{"model":"sent","messages":[]}"#);
}

#[test]
fn a_body_that_is_no_json_is_sent_as_it_came() {
    assert_eq!(sent(&Case::new("/v1/files", "any text")).2, "any text");
}

#[test]
fn a_backend_of_another_dialect_gets_a_translation() {
    let body = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}"#;
    let mut case = Case::new("/v1/chat/completions", body).dialect(Dialect::ANTHROPIC);
    case.headers.insert("openai-organization", HeaderValue::from_static("o"));
    let (path, headers, body) = sent(&case);
    assert_eq!(path, "/v1/messages");
    assert!(!headers.contains_key("openai-organization") && body.contains(r#""model":"sent""#), "{body}");
    let bad = Case::new("/v1/chat/completions", r#"{"model":"m","n":2,"messages":[{"role":"user","content":"Hi"}]}"#);
    let bad = bad.dialect(Dialect::ANTHROPIC);
    let refused =
        bad.attempt().request(&bad.client(), &bad.endpoint, &bad.sending.model).expect_err("it says too much");
    assert_eq!(refused.kind, Kind::Refused);
}

#[test]
fn what_names_no_model_and_is_no_question_asks_none() {
    for (path, body, asks) in [
        ("/v1/chat/completions", r#"{"model":"m","messages":[]}"#, true),
        ("/v1/chat/completions", r#"{"messages":[]}"#, true),
        ("/v1/images/generations", r#"{"prompt":"a cat"}"#, true),
        ("/v1/chat/completions", "not to be read", true),
        ("/v1/chat/completions", "", false),
        ("/v1/assistants", r#"{"model":"m"}"#, true),
        ("/v1/moderations", r#"{"model":"m","input":"hi"}"#, true),
        ("/v1/moderations", r#"{"input":"hi"}"#, false),
        ("/v1/files", "", false),
        ("/v1/batches", r#"{"input_file_id":"f"}"#, false),
        ("/v1/responses/r1", "", false),
        ("/v1/responses/r1/cancel", "{}", false),
    ] {
        let mut case = Case::new(path, body);
        if !body.contains("model") {
            case.model = crate::table::UNKNOWN_MODEL.into();
        }
        assert_eq!(case.client().asks_model(), asks, "{path} {body}");
    }
}

#[test]
fn every_prompt_and_every_draft_of_a_completion_is_charged() {
    let prompts = vec!["p"; 100];
    let body = |more: &str| format!(r#"{{"model":"m","prompt":{prompts:?}{more}}}"#);
    for (path, body, answers) in [
        ("/v1/completions", body(""), 100),
        ("/v1/completions", body(r#","n":2"#), 200),
        ("/v1/completions", body(r#","n":2,"best_of":5"#), 500),
        ("/v1/completions", r#"{"model":"m","prompt":"p","best_of":99999999999}"#.to_owned(), 128),
        ("/v1/completions", r#"{"model":"m","prompt":[1,2,3]}"#.to_owned(), 1),
        ("/v1/completions", r#"{"model":"m","prompt":[[1],[2]]}"#.to_owned(), 2),
        ("/v1/chat/completions", r#"{"model":"m","messages":[],"n":3,"best_of":9}"#.to_owned(), 3),
    ] {
        assert_eq!(Case::new(path, &body).client().charged_answers(), answers, "{path} {body}");
    }
}
