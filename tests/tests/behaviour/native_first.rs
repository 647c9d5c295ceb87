//! The order of native and translated backends: within a tier the native one first; a tier before the dialect.

use pointsman_tests::{Backend, Upstream, backend, chat, json, proxy, status, upstream};
use serde_json::json as value;

async fn anthropic() -> Upstream {
    let message =
        json(value!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "translated"}], "usage": {"input_tokens": 1, "output_tokens": 1}}));
    upstream().reply(message).start().await
}

fn foreign(id: &str, up: &Upstream) -> Backend {
    backend(id).primary(up).set("dialect", "anthropic").model("m", "claude")
}

#[tokio::test]
async fn a_native_backend_of_the_tier_is_asked_while_it_is_ready() {
    let (native, translated) = (upstream().reply(chat("native")).start().await, anthropic().await);
    let proxy = proxy!()
        .backend(foreign("a1", &translated).set("weight", 100))
        .backend(backend("o1").primary(&native).model("m", "m"))
        .start()
        .await;
    for _ in 0..8 {
        assert_eq!(proxy.chat().send().await.says(), "native");
    }
    assert_eq!((native.count(), translated.count()), (8, 0));
}

#[tokio::test]
async fn a_translated_primary_is_asked_before_a_native_fallback() {
    let busy = upstream().reply(status(429).retry_after(60)).start().await;
    let (translated, paid) = (anthropic().await, upstream().reply(chat("paid")).start().await);
    let proxy = proxy!()
        .backend(backend("o1").primary(&busy).model("m", "m"))
        .backend(foreign("a1", &translated))
        .backend(backend("f1").fallback(&paid).model("m", "m"))
        .start()
        .await;
    for _ in 0..3 {
        assert_eq!(proxy.chat().send().await.says(), "translated");
    }
    assert_eq!((busy.count(), translated.count(), paid.count()), (1, 3, 0));
}
