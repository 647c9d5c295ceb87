//! Keys are never written anywhere: not to the log, the store, the admin pages, nor to a client.

use pointsman_tests::{backend, chat, proxy, raw, status, upstream};

#[tokio::test]
async fn no_key_is_ever_written() {
    const KEYS: [&str; 4] = ["key-of-p1", "key-of-f1", "sesame-admin", "sesame-client"];
    let replies = [status(401), status(429).header("retry-after-ms", 1), status(500), raw("nonsense\r\n\r\n")];
    let bad = upstream().handler(move |_, i| replies[i % replies.len()].clone()).start().await;
    let good = upstream().reply(chat("hi")).start().await;
    let mut proxy = proxy!()
        .backend(backend("p1").primary(&bad))
        .backend(backend("f1").fallback(&good))
        .client("agent", "env:CLIENT")
        .set("admin.token", "env:ADMIN")
        .set("log.level", "trace")
        .set("cooldown.base_ms", 1)
        .set("cooldown.max_ms", 1)
        .setting("primary_wait_ms", 0)
        .env("CLIENT", "sesame-client")
        .env("ADMIN", "sesame-admin")
        .start()
        .await;
    let mut told = String::new();
    for _ in 0..8 {
        let answer = proxy.chat().bearer("sesame-client").send().await;
        told.push_str(&format!("{:?} {}", answer.headers, answer.text()));
        told.push_str(&proxy.chat().bearer("sesame-admin").send().await.text());
    }
    for path in ["/metrics", "/api/backends", "/api/policy", "/api/usage"] {
        told.push_str(&proxy.admin(path).bearer("sesame-admin").send().await.text());
    }
    proxy.sigterm();
    proxy.wait_exit().await;
    told.push_str(&proxy.output().join("\n"));
    for file in ["pointsman.db", "pointsman.db-wal"] {
        let bytes = std::fs::read(proxy.dir().join(file)).unwrap_or_default();
        told.push_str(&String::from_utf8_lossy(&bytes));
    }
    for key in KEYS {
        assert!(!told.contains(key), "{key} was written: {:?}", told.lines().find(|l| l.contains(key)));
    }
}
