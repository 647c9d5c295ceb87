//! Requests that cannot succeed elsewhere are not tried elsewhere: the provider's own words reach the client.

use pointsman_tests::{backend, bytes, proxy, upstream};

#[tokio::test]
async fn a_400_is_passed_on_byte_for_byte_and_not_retried() {
    for code in [400, 422] {
        let words = " {\"error\": {\"message\":\"max_tokens is wrong\",\"type\":\"invalid_request_error\"}}\n";
        let refusal = bytes("application/json", words).with_status(code).header("x-detail", "kept");
        let (a, b) = (upstream().reply(refusal.clone()).start().await, upstream().reply(refusal).start().await);
        let spare = upstream().start().await;
        let proxy = proxy!().backend(backend("p1").primary(&a)).backend(backend("p2").primary(&b));
        let proxy = proxy.backend(backend("f1").fallback(&spare)).start().await;
        let answer = proxy.chat().send().await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (code, words));
        assert_eq!(answer.header("x-detail"), "kept");
        assert_eq!((a.count() + b.count(), spare.count()), (1, 0));
        let rows = proxy.wait_rows(1, "SELECT end, status, cost_usd FROM exchanges").await;
        assert_eq!((&rows[0]["end"], &rows[0]["status"]), (&"refused".into(), &code.into()));
    }
}

#[tokio::test]
async fn a_refusal_does_not_cool_the_backend() {
    let up = upstream().reply(pointsman_tests::status(400)).then(pointsman_tests::chat("well")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    assert_eq!(proxy.chat().send().await.status, 400);
    let answer = proxy.chat().send().await;
    assert_eq!((answer.says().as_str(), answer.header("x-pointsman-waited-ms")), ("well", "0"));
}
