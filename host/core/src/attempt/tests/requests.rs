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
