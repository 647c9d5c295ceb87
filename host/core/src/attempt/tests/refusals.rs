//! Refusals: what they come to, what of them is kept, and what is never in them.

use super::*;

const WRONG: &str = r#"{"error":{"message":"no such tool","type":"invalid_request_error"}}"#;

fn refused(case: &Case, status: u16, body: &str) -> Run {
    case.run([(50, head(status, &[("content-length", "99")])), (60, bytes(body)), (70, Input::End)])
}

fn kept(run: &mut Run) -> Option<(u16, String)> {
    let KeptRefusal { head, body, .. } = run.attempt.take_refusal().filter(|kept| !kept.is_last_resort)?;
    Some((head.status.as_u16(), String::from_utf8(body.to_vec()).expect("these are text")))
}

#[test]
fn one_that_speaks_of_the_request_is_kept() {
    let mut run = refused(&Case::chat(), 400, WRONG);
    assert_eq!(run.came_to(), (None, 70, Kind::Refused));
    assert_eq!(run.ended().first_byte, None);
    assert_eq!(kept(&mut run), Some((400, WRONG.to_owned())));
    let mut run = refused(&Case::chat(), 503, "{}");
    assert_eq!((run.kind(), kept(&mut run)), (Kind::Overloaded, None));
}

#[test]
fn the_failure_of_what_must_not_be_repeated_is_kept() {
    assert_eq!(kept(&mut refused(&Case::chat(), 500, "{}")), None);
    let acts = Case::new("/v1/files", r#"{"a":1}"#);
    assert_eq!(kept(&mut refused(&acts, 500, "{}")), Some((500, "{}".to_owned())));
}

#[test]
fn one_about_the_backend_is_kept_as_a_last_resort() {
    let mut run = refused(&Case::chat(), 500, "{}");
    assert!(run.attempt.take_refusal().is_some_and(|kept| kept.is_last_resort));
    let words = r#"{"error":{"message":"requires more credits, or fewer max_tokens"}}"#;
    let mut run = refused(&Case::chat(), 402, words);
    assert_eq!(
        (run.kind(), kept(&mut run)),
        (Kind::OutOfCredit, Some((402, words.to_owned()))),
        "it is about the size"
    );
}

#[test]
fn half_an_explanation_is_better_than_a_long_wait() {
    let mut case = Case::chat();
    case.sending.timeouts.idle = Duration::from_secs(20);
    case.sending.timeouts.total = Duration::from_secs(30);
    let mut run = case.run([(50, head(400, &[("content-length", "99")])), (60, bytes("half"))]);
    assert_eq!(run.came_to(), (None, 2_050, Kind::Refused));
    let KeptRefusal { head, body, .. } = run.attempt.take_refusal().expect("it is kept");
    assert_eq!((head.headers.len(), &*body), (0, &b"half"[..]), "it promises no more than there is");
    let mut run = Case::chat().run([(50, self::head(400, &[])), (60, bytes("half")), (70, broken())]);
    assert_eq!((run.came_to(), kept(&mut run)), ((None, 70, Kind::Refused), Some((400, "half".to_owned()))));
}

#[test]
fn no_more_of_one_is_kept_than_fits() {
    let long = "x".repeat(refusal::MAX_REFUSAL_BYTES + 1);
    let mut run = Case::chat().run([(50, head(400, &[])), (60, bytes(&long)), (70, bytes("y"))]);
    assert_eq!(run.came_to(), (None, 60, Kind::Refused));
    assert_eq!(kept(&mut run).map(|(_, body)| body.len()), Some(long.len()));
}

#[test]
fn an_empty_one_is_read_with_its_head() {
    let run = Case::chat().run([(50, Input::Head(parts(404, &[]), BodyKind::Empty))]);
    assert_eq!((run.committed, run.ended.as_ref().expect("it ended").0), (None, 50));
}

#[test]
fn the_key_is_in_nothing_that_is_kept() {
    let says = r#"{"error":{"message":"the tool sk-secret is unknown to sk-secret"}}"#;
    let head = head(400, &[("x-echo", "you sent sk-secret"), ("x-kind", "strict"), ("content-length", "66")]);
    let mut run = Case::chat().run([(50, head), (60, bytes(says)), (70, Input::End)]);
    assert!(!run.ended().outcome.message.contains("sk-secret"), "{:?}", run.ended());
    let KeptRefusal { head, body, .. } = run.attempt.take_refusal().expect("it is kept");
    assert_eq!(&*body, says.replace("sk-secret", "***").as_bytes());
    assert_eq!(head.headers.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["x-kind"]);
}

#[test]
fn one_in_another_dialect_is_translated() {
    let body = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}"#;
    let case = Case::new("/v1/chat/completions", body).dialect(Dialect::ANTHROPIC);
    let says = r#"{"type":"error","error":{"type":"invalid_request_error","message":"no such tool"}}"#;
    let (status, body) = kept(&mut refused(&case, 400, says)).expect("it is kept");
    assert!(status == 400 && body.starts_with(r#"{"error":"#) && body.contains("no such tool"), "{body}");
}
