//! Blame: after a refusal that one request, one client, one model or one endpoint explains, an ordinary request is served by
//! the same backend; what nobody could explain otherwise is confirmed before it lasts.

use pointsman_tests::{Proxy, Reply, Request, Upstream, backend, bytes, chat, json, proxy, raw, status, upstream};
use serde_json::{Value as Json, json as value};

/// The word in a request that its provider refuses.
const CULPRIT: &str = "culprit";

/// A provider that refuses what is marked, or goes to a path or carries a header that is, and serves everything else.
async fn provider(refusal: Reply) -> Upstream {
    let answer = move |seen: &pointsman_tests::Seen, _: usize| {
        let is_marked = String::from_utf8_lossy(&seen.body).contains(CULPRIT);
        let is_ordinary = seen.target.ends_with("/chat/completions") && !is_marked && seen.header("x-marked").is_none();
        if is_ordinary { chat("well") } else { refusal.clone() }
    };
    upstream().handler(answer).start().await
}

/// A chat request with further members that the provider refuses.
fn marked(proxy: &Proxy, more: Json) -> Request {
    let mut body = value!({"model": "m", "messages": [{"role": "user", "content": CULPRIT}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    proxy.post("/v1/chat/completions").json(&body)
}

fn marked_at(proxy: &Proxy, path: &str) -> Request {
    proxy.post(path).json(&value!({"model": "m", "input": CULPRIT, "messages": []}))
}

fn refused(code: u16, body: Json) -> Reply {
    json(body).with_status(code)
}

fn says(code: u16, message: &str) -> Reply {
    refused(code, value!({"error": {"message": message, "type": "invalid_request_error", "param": null, "code": null}}))
}

/// The effect of a refusal on the backend as a whole.
#[derive(Clone, Copy, PartialEq)]
enum Held {
    /// None.
    Nothing,
    /// Held back for about a second, until another request finds out.
    Suspected,
}

/// The culprit is refused by p1; an ordinary request right after it is served by p1, and nothing is held against p1 as a
/// whole unless only the key can explain the refusal.
async fn ordinary_is_served(culprit: impl Fn(&Proxy) -> Request, refusal: Reply, held: Held) {
    let p1 = provider(refusal).await;
    let f1 = upstream().reply(chat("paid")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&p1)).backend(backend("f1").fallback(&f1));
    let proxy = if held == Held::Nothing { proxy.set("cooldown.base_ms", 100) } else { proxy };
    let proxy = proxy.start().await;
    culprit(&proxy).send().await;
    let asked = p1.count();
    assert!(asked > 0, "p1 was not asked");
    let p1_row = proxy.admin("/api/backends").send().await.json()["backends"][0].clone();
    let cooldown_ms = p1_row["cooldown_ms"].as_u64().unwrap();
    assert!(cooldown_ms == 0 || held == Held::Suspected && cooldown_ms <= 1_200, "{p1_row}");
    let answer = proxy.chat().send().await;
    assert_eq!((answer.says().as_str(), answer.header("x-pointsman-backend")), ("well", "p1"), "{}", answer.text());
    assert_eq!(answer.header("x-pointsman-attempts"), "1");
    assert_eq!(p1.count(), asked + 1, "p1 saw the ordinary request once");
}

/// One test per line: name, the request that is refused, the refusal.
macro_rules! ordinary_is_served_after {
    ($held:expr; $($name:ident: $culprit:expr => $refusal:expr;)*) => {
        $(#[tokio::test]
        async fn $name() {
            ordinary_is_served($culprit, $refusal, $held).await;
        })*
    };
}

ordinary_is_served_after! { Held::Nothing;
    a_402_that_names_fewer_max_tokens: |p: &Proxy| marked(p, value!({"max_tokens": 32_000})) => refused(402, value!({"error": {
        "message": "This request requires more credits, or fewer max_tokens. You requested up to 32000 tokens, but can only afford 2412.",
        "code": 402}}));
    a_429_of_more_than_a_minutes_tokens: |p: &Proxy| marked(p, value!({"max_tokens": 52_000})) => refused(429, value!({"error": {
        "message": "Request too large for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, Requested 52000. The input or output tokens must be reduced in order to run successfully.",
        "type": "tokens", "param": null, "code": "rate_limit_exceeded"}}));
    a_413_of_more_than_a_minutes_tokens: |p: &Proxy| marked(p, value!({})) => refused(413, value!({"error": {
        "message": "Request too large for model `m` on tokens per minute (TPM): Limit 6000, Requested 9120, please reduce your message size and try again.",
        "type": "tokens", "code": "rate_limit_exceeded"}}));
    a_429_of_a_long_context: |p: &Proxy| marked(p, value!({})) => says(429, "Extra usage is required for long context requests.");
    a_413_page: |p: &Proxy| marked(p, value!({})) => bytes("text/html", "<html><head><title>413 Request Entity Too Large</title></head></html>").with_status(413);
    a_prompt_longer_than_the_context: |p: &Proxy| marked(p, value!({})) => refused(400, value!({"error": {
        "message": "This model's maximum context length is 8192 tokens.", "code": "context_length_exceeded"}}));
    a_beta_header_that_is_not_allowed: |p: &Proxy| p.chat().header("openai-beta", "x=v9").header("x-marked", "1") => says(403, "The beta header x=v9 is not available for your account");
    a_header_that_the_refusal_names: |p: &Proxy| p.chat().header("x-tenant-id", "7").header("x-marked", "1") => says(401, "Unknown X-Tenant-Id for this key");
}

ordinary_is_served_after! { Held::Nothing;
    files_without_the_scope: |p: &Proxy| p.get("/v1/files") => says(401, "You have insufficient permissions for this operation. Missing scopes: api.files.read.");
    files_with_a_bare_403: |p: &Proxy| p.get("/v1/files") => status(403);
    files_with_a_bare_401: |p: &Proxy| p.get("/v1/files?limit=2") => bytes("text/plain", "").with_status(401);
    files_that_say_the_key_is_wrong: |p: &Proxy| p.get("/v1/files/file-1/content") => refused(401, value!({"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}));
    an_upload_that_is_not_paid_for: |p: &Proxy| p.post("/v1/files").body("text/plain", "x") => status(402);
    speech_that_is_not_paid_for: |p: &Proxy| marked_at(p, "/v1/audio/speech") => says(402, "Insufficient balance");
    images_of_an_organization_that_is_not_verified: |p: &Proxy| marked_at(p, "/v1/images/generations") => says(403, "Your organization must be verified to use the model `m`.");
    an_administrators_path: |p: &Proxy| p.get("/v1/organization/usage/completions") => says(401, "Missing scopes: api.usage.read");
    responses_without_the_scope: |p: &Proxy| marked_at(p, "/v1/responses") => says(401, "You have insufficient permissions for this operation. Missing scopes: api.responses.write.");
    embeddings_that_are_not_allowed: |p: &Proxy| marked_at(p, "/v1/embeddings") => says(403, "This API key is not allowed to access this endpoint");
    an_endpoint_that_is_not_there: |p: &Proxy| marked_at(p, "/v1/responses") => refused(404, value!({"detail": "Not Found"}));
    an_endpoint_of_another_method: |p: &Proxy| marked_at(p, "/v1/embeddings") => refused(405, value!({"detail": "Method Not Allowed"}));
}

ordinary_is_served_after! { Held::Nothing;
    a_model_that_the_key_may_not_use: |p: &Proxy| marked(p, value!({"model": "big"})) => says(403, "Project `proj_1` does not have access to model `big`");
    a_model_of_a_paid_plan: |p: &Proxy| marked(p, value!({"model": "big"})) => says(402, "The model big requires a paid plan");
    a_model_that_is_gated: |p: &Proxy| marked(p, value!({"model": "big"})) => says(403, "Access to model big is restricted and you are not in the authorized list");
    a_model_that_is_missing: |p: &Proxy| marked(p, value!({"model": "big"})) => refused(404, value!({"error": {"message": "The model `big` does not exist", "code": "model_not_found"}}));
    tools_that_no_endpoint_supports: |p: &Proxy| marked(p, value!({"tools": []})) => refused(404, value!({"error": {"message": "No endpoints found that support tool use.", "code": 404}}));
    a_tool_call_that_was_not_generated: |p: &Proxy| marked(p, value!({"tools": []})) => refused(400, value!({"error": {"message": "Failed to call a function.", "code": "tool_use_failed"}}));
    a_firewalls_page: |p: &Proxy| marked(p, value!({})) => bytes("text/html", "<!DOCTYPE html><html><title>Attention Required!</title></html>").with_status(403);
    a_prompt_that_was_flagged: |p: &Proxy| marked(p, value!({})) => says(403, "Your input was flagged by moderation");
    a_parameter_out_of_range: |p: &Proxy| marked(p, value!({"temperature": 9})) => says(400, "temperature must be at most 2");
    a_member_that_is_unknown: |p: &Proxy| marked(p, value!({"brand_new": 1})) => refused(422, value!({"detail": [{"msg": "extra fields not permitted"}]}));
    a_verdict_of_the_law: |p: &Proxy| marked(p, value!({})) => says(451, "Unavailable for legal reasons");
}

// The request fails at one backend only, and nothing tells whether it or the backend is to blame: the first ordinary one
// after it finds out, at once.
ordinary_is_served_after! { Held::Suspected;
    a_401_without_a_word: |p: &Proxy| marked(p, value!({})) => bytes("text/plain", "").with_status(401);
    a_402_without_a_word: |p: &Proxy| marked(p, value!({})) => status(402);
    credit_that_is_gone_for_one_request: |p: &Proxy| marked(p, value!({})) => refused(429, value!({"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}));
    a_region_that_is_blocked_for_one_request: |p: &Proxy| marked(p, value!({})) => refused(403, value!({"error": {"message": "Country, region, or territory not supported", "code": "unsupported_country_region_territory"}}));
    a_reset_for_one_request: |p: &Proxy| marked(p, value!({})) => chat("").reset_before_head();
}

ordinary_is_served_after! { Held::Nothing;
    a_500_for_one_request: |p: &Proxy| marked(p, value!({})) => status(500);
    an_answer_that_is_garbage_for_one_request: |p: &Proxy| marked(p, value!({})) => raw("SSH-2.0\r\n\r\n");
    an_answer_that_is_cut_for_one_request: |p: &Proxy| marked(p, value!({})) => chat("never whole").end_after(0);
}

#[tokio::test]
async fn a_prompt_that_every_backend_fails_at_takes_none_of_them_from_the_others() {
    let ups = [provider(says(500, "boom")).await, provider(says(500, "boom")).await];
    let proxy = proxy!().backend(backend("p1").primary(&ups[0])).backend(backend("p2").primary(&ups[1]));
    let proxy = proxy.setting("primary_wait_ms", 20).setting("primary_wait_max_retries", 1).start().await;
    for round in 0..5 {
        let poisoned = marked(&proxy, value!({"user": format!("u{round}")})).send().await;
        assert_eq!(poisoned.status, 500, "{}", poisoned.text());
        assert_eq!(poisoned.json()["error"]["message"], "boom", "the provider's own explanation");
        let backends = proxy.admin("/api/backends").send().await.json()["backends"].clone();
        let cooling: Vec<_> = backends.as_array().unwrap().iter().map(|b| b["models_cooling"].clone()).collect();
        assert_eq!(cooling, [value!(0), value!(0)], "both failed alike, so neither is to blame");
        for _ in 0..3 {
            let answer = proxy.chat().send().await;
            assert_eq!((answer.says().as_str(), answer.header("x-pointsman-attempts")), ("well", "1"));
            assert_eq!(answer.header("x-pointsman-waited-ms"), "0");
        }
    }
}

#[tokio::test]
async fn a_402_of_every_backend_that_names_fewer_max_tokens_is_told_as_it_is() {
    let words = "This request requires more credits, or fewer max_tokens. You requested up to 32000 tokens.";
    let ups = [provider(says(402, words)).await, provider(says(402, words)).await];
    let proxy = proxy!().backend(backend("p1").primary(&ups[0])).backend(backend("p2").primary(&ups[1]));
    let proxy = proxy.setting("primary_wait_ms", 20).setting("primary_wait_max_retries", 1).start().await;
    let answer = marked(&proxy, value!({"max_tokens": 32_000})).send().await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["message"]), (402, &words.into()), "{}", answer.text());
    assert_eq!((ups[0].count(), ups[1].count()), (1, 1));
    assert_eq!(proxy.chat().send().await.says(), "well");
}

#[tokio::test]
async fn an_outage_that_every_request_meets_cools_the_backends() {
    let ups = [upstream().reply(status(500)).start().await, upstream().reply(status(500)).start().await];
    let paid = upstream().reply(chat("paid")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&ups[0])).backend(backend("p2").primary(&ups[1]));
    let proxy = proxy.backend(backend("f1").fallback(&paid)).set("cooldown.base_ms", 20_000);
    let proxy = proxy.setting("primary_wait_ms", 0).start().await;
    for text in ["a", "b"] {
        let body = value!({"model": "m", "messages": [{"role": "user", "content": text}]});
        assert_eq!(proxy.post("/v1/chat/completions").json(&body).send().await.says(), "paid");
    }
    let asked = ups[0].count() + ups[1].count();
    for _ in 0..3 {
        assert_eq!(proxy.chat().send().await.says(), "paid");
    }
    assert_eq!(ups[0].count() + ups[1].count(), asked, "nothing more is sent to them");
}

#[tokio::test]
async fn a_second_different_request_confirms_that_the_key_is_refused() {
    for refusal in [status(401), status(402)] {
        let up = upstream().reply(refusal).start().await;
        let paid = upstream().reply(chat("paid")).start().await;
        let proxy = proxy!().backend(backend("p1").primary(&up)).backend(backend("f1").fallback(&paid)).start().await;
        let cooldown_ms =
            async || proxy.admin("/api/backends").send().await.json()["backends"][0]["cooldown_ms"].as_u64().unwrap();
        assert_eq!(proxy.chat().send().await.says(), "paid");
        assert!(cooldown_ms().await <= 1_200, "one request alone");
        assert_eq!(proxy.chat().send().await.says(), "paid");
        assert!(cooldown_ms().await <= 1_200, "the same request is not sent there again");
        assert_eq!(up.count(), 1);
        // The next different one is the probe.
        assert_eq!(marked(&proxy, value!({})).send().await.says(), "paid");
        assert_eq!(up.count(), 2);
        let minutes = cooldown_ms().await;
        assert!(minutes > 600_000, "{minutes}");
    }
}

#[tokio::test]
async fn larger_requests_go_elsewhere_and_smaller_ones_are_served() {
    let too_large = |seen: &pointsman_tests::Seen, _: usize| {
        let max_tokens = seen.json()["max_tokens"].as_u64().unwrap_or(0);
        if max_tokens < 30_000 {
            return chat("well");
        }
        let message = format!("Request too large on tokens per min (TPM): Limit 30000, Requested {max_tokens}.");
        refused(429, value!({"error": {"message": message, "type": "tokens", "code": "rate_limit_exceeded"}}))
    };
    let p1 = upstream().handler(too_large).start().await;
    let f1 = upstream().reply(chat("paid")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&p1)).backend(backend("f1").fallback(&f1)).start().await;
    let ask = async |text: &str, max_tokens: u32| {
        let messages = value!([{"role": "user", "content": text}]);
        let body = value!({"model": "m", "max_tokens": max_tokens, "messages": messages});
        proxy.post("/v1/chat/completions").json(&body).send().await.says()
    };
    assert_eq!((ask("a", 52_000).await.as_str(), p1.count()), ("paid", 1), "asked once, and not again");
    assert_eq!((ask("b", 60_000).await.as_str(), p1.count()), ("paid", 1), "what is larger is not tried");
    assert_eq!((ask("c", 40_000).await.as_str(), p1.count()), ("paid", 2), "what is smaller may be served");
    assert_eq!((ask("d", 45_000).await.as_str(), p1.count()), ("paid", 2), "and is not");
    assert_eq!((ask("e", 1_000).await.as_str(), p1.count()), ("well", 3));
}

#[tokio::test]
async fn a_clients_account_headers_never_go_out_under_the_backends_key() {
    let up = upstream().start().await;
    let fixed = backend("a1").primary(&up).set("headers.openai-organization", "org-ours");
    let proxy = proxy!().backend(fixed).start().await;
    let answer = proxy
        .chat()
        .header("openai-organization", "org-theirs")
        .header("openai-project", "proj-theirs")
        .header("x-goog-user-project", "theirs")
        .header("chatgpt-account-id", "theirs")
        .header("x-litellm-api-key", "theirs")
        .header("anthropic-beta", "claude-code-20250219,oauth-2025-04-20")
        .header("openai-beta", "assistants=v2")
        .header("x-custom", "kept")
        .send()
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = up.only();
    assert!(seen.headers.iter().all(|(_, value)| !value.contains("theirs")), "{:?}", seen.headers);
    assert_eq!(seen.header("openai-organization"), Some("org-ours"), "the operator's own goes out");
    assert_eq!(seen.header("anthropic-beta"), Some("claude-code-20250219"));
    assert_eq!((seen.header("openai-beta"), seen.header("x-custom")), (Some("assistants=v2"), Some("kept")));
    assert_eq!(seen.header("authorization"), Some("Bearer key-of-a1"));
}

#[tokio::test]
async fn an_operation_that_the_key_may_not_use_is_told_and_left_alone() {
    let refusal = says(401, "Missing scopes: api.files.read");
    let up = provider(refusal).await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).set("cooldown.base_ms", 20_000);
    let proxy = proxy.set("cooldown.max_ms", 1_200_000);
    let proxy = proxy.setting("primary_wait_ms", 20).setting("primary_wait_max_retries", 1).start().await;
    proxy.get("/v1/files").send().await;
    let p1 = proxy.admin("/api/backends").send().await.json()["backends"][0].clone();
    assert_eq!((&p1["state"], &p1["cooldown_ms"]), (&"ready".into(), &0.into()), "{p1}");
    let cooling = &p1["operation_cooldowns"][0];
    assert_eq!((&cooling["operation"], &cooling["reason"]), (&"GET files".into(), &"unauthorised".into()), "{p1}");
    let asked = up.count();
    proxy.get("/v1/files?limit=5").send().await;
    assert_eq!(up.count(), asked, "it is not asked for files again");
    assert_eq!(proxy.chat().send().await.says(), "well");
}

#[tokio::test]
async fn the_record_says_what_a_failure_is_held_against() {
    for (status, message, scope) in [
        (402, "This request requires more credits, or fewer max_tokens. You can only afford 300.", "answer_size"),
        (400, "temperature must be below 2", "request"),
        (429, "slow down", "model"),
        (401, "Incorrect API key provided", "backend"),
        (403, "Missing scopes: model.request", "operation"),
    ] {
        let up = provider(says(status, message)).await;
        let proxy = proxy!().backend(backend("p1").primary(&up)).set("limits.max_attempts", 1);
        let proxy = proxy.setting("primary_wait_max_retries", 0).start().await;
        marked(&proxy, value!({})).send().await;
        let row = proxy.wait_rows(1, "SELECT scope FROM attempts").await[0].clone();
        assert_eq!(row["scope"], scope, "{message}");
        let exchange = proxy.admin("/api/exchanges").send().await.json()["exchanges"][0].clone();
        let whole = proxy.admin(&format!("/api/exchanges/{}", exchange["id"].as_str().unwrap())).send().await;
        assert!(whole.text().contains(&format!("\"scope\":\"{scope}\"")), "{}", whole.text());
    }
}
