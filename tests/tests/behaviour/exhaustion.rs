//! The end of an exchange that nobody answers: what the client is told, and what its repetitions cost the providers.

use std::time::{Duration, Instant};

use pointsman_tests::{
    Answer, Proxy, ProxyBuilder, Reply, Upstream, backend, chat, json, proxy, silence, status, tokens, upstream,
};
use serde_json::json as value;

fn error(status: u16, code: &str, message: &str) -> Reply {
    json(value!({"error": {"message": message, "type": "their_type", "param": null, "code": code}})).with_status(status)
}

fn unknown_model() -> Reply {
    error(404, "model_not_found", "The model `m` does not exist")
}

/// Two primaries, or a primary and a fallback, whose answers are these.
async fn pair(first: Reply, second: Reply) -> (ProxyBuilder, [Upstream; 2]) {
    let ups = [upstream().reply(first).start().await, upstream().reply(second).start().await];
    let builder = proxy!()
        .backend(backend("p1").primary(&ups[0]))
        .backend(backend("f1").fallback(&ups[1]))
        .setting("primary_wait_ms", 50)
        .setting("primary_wait_max_retries", 1);
    (builder, ups)
}

fn count(ups: &[Upstream]) -> usize {
    ups.iter().map(Upstream::count).sum()
}

/// A refusal says when to come again, or not to come again, and never both.
fn is_told_one_thing(answer: &Answer) {
    let told = (answer.header("retry-after").is_empty(), answer.header("x-should-retry"));
    assert!(matches!(told, (false, "" | "true") | (true, "false" | "")), "{told:?}: {}", answer.text());
}

/// A client that repeats a request by itself and at once, as coding agents do, whatever it is told.
async fn repeat(proxy: &Proxy, times: usize) -> Vec<Answer> {
    let mut answers = Vec::new();
    for _ in 0..=times {
        answers.push(proxy.chat().send().await);
    }
    answers
}

// --- repetitions

#[tokio::test]
async fn repetitions_of_an_exhausted_request_do_not_multiply_its_attempts() {
    // Limits with and without a Retry-After, with one provider and with two.
    for (retry_after, fallback) in [(Some(40), false), (None, false), (Some(40), true), (None, true)] {
        let limited = || retry_after.map_or(status(429), |seconds| status(429).retry_after(seconds));
        let ups = [upstream().reply(limited()).start().await, upstream().reply(limited()).start().await];
        let mut builder = proxy!().backend(backend("p1").primary(&ups[0]));
        if fallback {
            builder = builder.backend(backend("f1").fallback(&ups[1]));
        }
        let proxy = builder.setting("primary_wait_ms", 1_000).setting("primary_wait_max_retries", 4).start().await;
        const TIMES: usize = 9;
        let answers = repeat(&proxy, TIMES).await;
        for answer in &answers {
            assert_eq!(answer.status, 503, "{}", answer.text());
            assert_eq!(answer.json()["error"]["type"], "AllPoolsExhausted");
            is_told_one_thing(answer);
            let retry_after: u64 = answer.header("retry-after").parse().expect("it says when to come again");
            assert!((1..=60).contains(&retry_after), "{retry_after}");
        }
        // A direct run would send each of them.
        let direct = TIMES + 1;
        assert!(count(&ups) * 10 <= direct * 12, "{} upstream for {direct} downstream", count(&ups));
        assert_eq!(answers[1].header("x-pointsman-attempts"), "0", "{}", answers[1].text());
        assert!(answers[1].text().contains("rate_limited"), "{}", answers[1].text());
        let rows = proxy.wait_rows(direct, "SELECT end, status FROM exchanges").await;
        assert!(rows.iter().all(|row| row["end"] == "rejected" && row["status"] == 503), "each is a record: {rows:?}");
    }
}

/// Cooldowns and waits of a hundredth or so of their usual lengths.
fn quick(builder: ProxyBuilder) -> ProxyBuilder {
    builder.set("cooldown.base_ms", 60).setting("primary_wait_ms", 300).setting("primary_wait_max_retries", 5)
}

/// Faults of every provider, each with its name.
fn failures() -> [(&'static str, Reply); 6] {
    [
        ("429", status(429)),
        ("429 with a Retry-After", status(429).header("retry-after-ms", 100)),
        ("500", status(500)),
        ("503", status(503)),
        ("cut", chat("a whole answer").cut_after(0)),
        ("reset", chat("").reset_before_head()),
    ]
}

#[tokio::test]
async fn an_exchange_tries_no_more_often_than_its_client_would() {
    // An SDK sends a request three times by itself, so 1.2 times of that is three.
    for (name, reply) in failures() {
        for fallback in [false, true] {
            let ups = [upstream().reply(reply.clone()).start().await, upstream().reply(reply.clone()).start().await];
            let mut builder = proxy!().backend(backend("p1").primary(&ups[0]));
            if fallback {
                builder = builder.backend(backend("f1").fallback(&ups[1]));
            }
            let proxy = quick(builder).start().await;
            let answers = repeat(&proxy, 3).await;
            let tries: Vec<usize> =
                answers.iter().map(|answer| answer.header("x-pointsman-attempts").parse().expect("a number")).collect();
            let most = if fallback { 4 } else { 3 };
            assert!((2..=most).contains(&tries[0]), "{name}, with a fallback: {fallback}: {tries:?}");
            assert!(tries[1..].iter().all(|tries| *tries <= 1), "one in all, if that: {name}: {tries:?}");
            assert_eq!(tries.iter().sum::<usize>(), count(&ups), "{name}");
            assert!(!fallback || ups[1].count() > 0, "{name}: the other one is asked");
            assert!(answers.iter().all(|answer| answer.status.is_server_error()), "{name}: {}", answers[0].text());
        }
    }
}

/// A client that repeats by itself, twice, when it is told to, as the official SDKs do: its answers.
async fn run(proxy: &Proxy, numbers: bool) -> Vec<Answer> {
    let mut answers = Vec::new();
    for n in 0..3 {
        let request =
            if numbers { proxy.chat().header("x-stainless-retry-count", &n.to_string()) } else { proxy.chat() };
        let answer = request.send().await;
        let is_over =
            !matches!(answer.status.as_u16(), 408 | 409 | 429 | 500..) || answer.header("x-should-retry") == "false";
        let wait: u64 = answer.header("retry-after").parse().unwrap_or(1);
        answers.push(answer);
        if is_over {
            break;
        }
        tokio::time::sleep(Duration::from_secs(wait.min(5))).await;
    }
    answers
}

#[tokio::test]
async fn a_run_of_a_client_that_repeats_costs_no_more_than_a_try_more_than_it_sent() {
    const DIRECT: usize = 3;
    for (name, reply) in failures().into_iter().step_by(2) {
        for (backends, numbers, most) in [(1, true, DIRECT), (1, false, DIRECT + 1), (2, true, DIRECT + 1)] {
            let mut ups = Vec::new();
            let mut builder = proxy!();
            for n in 0..backends {
                let up = upstream().reply(reply.clone()).start().await;
                let target = backend(["p1", "f1"][n]);
                builder = builder.backend(if n == 0 { target.primary(&up) } else { target.fallback(&up) });
                ups.push(up);
            }
            let proxy = quick(builder).start().await;
            let answers = run(&proxy, numbers).await;
            assert_eq!(answers.len(), DIRECT, "{name}: {}", answers[answers.len() - 1].text());
            assert!(answers.iter().all(|answer| answer.status.is_server_error()), "{name}");
            // A limit of a free backend is waited out once more before money is spent.
            let most = most + usize::from(backends > 1 && name.starts_with("429"));
            let sent = count(&ups);
            assert!((DIRECT..=most).contains(&sent), "{name}, {backends}, {numbers}: {sent} upstream");
        }
    }
}

#[tokio::test]
async fn a_repetition_finds_who_has_recovered() {
    // It fails as often as a direct run would bear, and then answers.
    for (name, reply) in failures().into_iter().skip(1).step_by(2) {
        let up = upstream().reply(reply.clone()).then(reply).then(chat("well again")).start().await;
        let proxy = quick(proxy!().backend(backend("p1").primary(&up))).start().await;
        let answers = run(&proxy, true).await;
        assert_eq!(answers.last().map(Answer::says).as_deref(), Some("well again"), "{name}");
        assert_eq!(up.count(), 3, "{name}");
    }
}

#[tokio::test]
async fn free_keys_at_their_limits_are_waited_for_before_money_is_spent() {
    let key = || upstream().reply(status(429)).then(status(429)).then(chat("free"));
    let keys = [key().start().await, key().start().await, key().start().await];
    let paid = upstream().reply(chat("paid")).start().await;
    let builder = keys.iter().zip(["p1", "p2", "p3"]).fold(proxy!(), |b, (up, id)| b.backend(backend(id).primary(up)));
    let proxy = quick(builder.backend(backend("f1").fallback(&paid))).start().await;
    assert_eq!(proxy.chat().send().await.says(), "free");
    assert_eq!(paid.count(), 0);
    assert!(count(&keys) <= 7, "{:?}", keys.each_ref().map(Upstream::count));
}

#[tokio::test]
async fn a_limit_that_lets_another_pass_is_over_for_who_ran_into_it_again_and_again() {
    let up = upstream().reply(status(429)).then(status(429)).then(status(429)).then(chat("well")).start().await;
    let proxy = quick(proxy!().backend(backend("p1").primary(&up))).start().await;
    let first = proxy.chat().send().await;
    assert_eq!((first.status.as_u16(), up.count()), (503, 3), "{}", first.text());
    let other = value!({"model": "m", "messages": [{"role": "user", "content": "something else"}]});
    assert_eq!(proxy.post("/v1/chat/completions").json(&other).send().await.says(), "well");
    let again = proxy.chat().send().await;
    assert_eq!(again.says(), "well", "{}", again.text());
}

#[tokio::test]
async fn a_stream_that_every_try_cuts_is_remembered_like_others() {
    let up = upstream().reply(tokens(9).cut_after(3)).start().await;
    let proxy = quick(proxy!().backend(backend("p1").primary(&up))).start().await;
    let first = proxy.chat_stream().send().await;
    assert!(first.text().contains("error"), "{}", first.text());
    let tries = up.count();
    assert!(tries <= 3, "{tries}");
    for _ in 0..3 {
        let again = proxy.chat_stream().send().await;
        assert!(again.text().contains("a moment ago"), "{}", again.text());
    }
    assert!(up.count() <= tries + 3, "{} after {tries}", up.count());
}

#[tokio::test]
async fn a_repetition_after_the_recovery_is_answered() {
    let up = upstream().reply(status(429).header("retry-after-ms", 1_500)).then(chat("well again")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).setting("primary_wait_max_retries", 0).start().await;
    let answers = repeat(&proxy, 3).await;
    assert!(answers.iter().all(|answer| answer.status == 503));
    assert_eq!(up.count(), 1);
    let begun = Instant::now();
    let back = loop {
        let answer = proxy.chat().send().await;
        if answer.status == 200 {
            break answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{}", answer.text());
    };
    assert_eq!(back.says(), "well again");
    let seen = up.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen[1].at - seen[0].at >= Duration::from_millis(1_490), "its Retry-After was kept");
}

#[tokio::test]
async fn another_request_is_not_taken_for_a_repetition() {
    let up = upstream().reply(status(429).header("retry-after-ms", 2_000)).then(chat("worth the wait")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).setting("primary_wait_max_retries", 0).start().await;
    assert_eq!(proxy.chat().send().await.status, 503);
    let other = value!({"model": "m", "messages": [{"role": "user", "content": "something else"}]});
    let answer = proxy.post("/v1/chat/completions").json(&other).send().await;
    assert!(!answer.text().contains("a moment ago"), "{}", answer.text());
}

// --- what all have in common

#[tokio::test]
async fn what_all_backends_say_is_what_the_client_is_told() {
    for (reply, told) in [
        (error(401, "invalid_api_key", "Incorrect API key provided"), (401, "invalid_api_key")),
        (error(403, "account_disabled", "Your account has been disabled"), (403, "account_disabled")),
        (unknown_model(), (404, "model_not_found")),
        (error(413, "request_too_large", "Request too large"), (413, "request_too_large")),
    ] {
        let (builder, ups) = pair(reply.clone(), reply).await;
        let proxy = builder.start().await;
        let answer = proxy.chat().send().await;
        let code = answer.json()["error"]["code"].as_str().map(str::to_owned);
        assert_eq!((answer.status.as_u16(), code.as_deref()), (told.0, Some(told.1)), "{}", answer.text());
        assert_eq!(count(&ups), 2, "each was asked once");
        is_told_one_thing(&answer);
        assert!(!answer.text().contains("key-of-"), "{}", answer.text());
    }
}

#[tokio::test]
async fn who_comes_after_a_refused_key_is_told_the_same() {
    let refused = || error(401, "invalid_api_key", "Incorrect API key provided");
    let (builder, _ups) = pair(refused(), refused()).await;
    let proxy = builder.start().await;
    for _ in 0..3 {
        let answer = proxy.chat().send().await;
        assert_eq!(answer.status, 401, "{}", answer.text());
        is_told_one_thing(&answer);
    }
}

#[tokio::test]
async fn what_they_do_not_have_in_common_is_a_503_with_every_reason() {
    let (builder, _ups) = pair(error(401, "invalid_api_key", "Incorrect API key"), status(429).retry_after(30)).await;
    let proxy = builder.start().await;
    let answer = proxy.chat().send().await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["error"]["type"], "AllPoolsExhausted");
    let message = answer.json()["error"]["message"].to_string();
    for words in ["p1", "unauthorised", "f1", "rate_limited"] {
        assert!(message.contains(words), "{words}: {message}");
    }
    is_told_one_thing(&answer);
}

#[tokio::test]
async fn an_unknown_model_is_a_404_while_a_backend_breaks() {
    for broken in [status(500), status(503), chat("").reset_before_head()] {
        let (builder, ups) = pair(broken, unknown_model()).await;
        let proxy = builder.setting("primary_wait_ms", 2_000).setting("primary_wait_max_retries", 6).start().await;
        let answer = proxy.chat().send().await;
        assert_eq!(answer.status, 404, "{}", answer.text());
        assert_eq!(answer.json()["error"]["code"], "model_not_found");
        assert!(ups[1].count() == 1 && count(&ups) <= 6, "{:?}", ups.each_ref().map(Upstream::count));
        let again = proxy.chat().send().await;
        assert_eq!(again.status, 404, "{}", again.text());
        is_told_one_thing(&again);
    }
}

#[tokio::test]
async fn exhaustion_by_limits_is_a_rate_limit_error_where_that_is_asked_for() {
    let limited = || status(429).retry_after(30);
    let (builder, _ups) = pair(limited(), limited()).await;
    let own = [("exhausted_status", "503")];
    let proxy = builder
        .set("server.exhausted_status", "common")
        .client("sdk", "key-1")
        .client_with("agent", "key-2", &own)
        .start()
        .await;
    let answer = proxy.chat().bearer("key-1").send().await;
    assert_eq!(answer.status, 429, "{}", answer.text());
    assert_eq!(answer.json()["error"]["type"], "rate_limit_error");
    is_told_one_thing(&answer);
    let retry_after: u64 = answer.header("retry-after").parse().expect("it says when to come again");
    assert!((1..=31).contains(&retry_after), "{retry_after}");
    let body = value!({"model": "c", "max_tokens": 1, "messages": []});
    let agent = proxy.chat().bearer("key-2").send().await;
    assert_eq!((agent.status.as_u16(), &agent.json()["error"]["type"]), (503, &value!("AllPoolsExhausted")));

    let up = upstream().reply(status(429).retry_after(30)).start().await;
    let claude = backend("a1").primary(&up).set("dialect", "anthropic");
    let proxy = proxy!().backend(claude).set("server.exhausted_status", "common").start().await;
    let answer = proxy.post("/v1/messages").json(&body).send().await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["type"]), (429, &value!("rate_limit_error")));
}

// --- peculiar refusals

#[tokio::test]
async fn an_endpoint_that_one_backend_lacks_is_asked_of_the_next() {
    for status_code in [404, 405] {
        let lacking = error(status_code, "not_found", "no such endpoint here");
        let (builder, ups) = pair(lacking.clone(), chat("it is here")).await;
        let proxy = builder.start().await;
        assert_eq!(proxy.chat().send().await.says(), "it is here");
        assert_eq!(ups.each_ref().map(Upstream::count), [1, 1]);
        let (builder, ups) = pair(lacking.clone(), lacking).await;
        let proxy = builder.start().await;
        let answer = proxy.chat().send().await;
        assert_eq!(answer.status.as_u16(), status_code, "what all refuse is passed on: {}", answer.text());
        assert_eq!(answer.json()["error"]["message"], "no such endpoint here");
        assert_eq!(count(&ups), 2);
    }
}

#[tokio::test]
async fn what_only_one_host_or_account_refuses_is_asked_of_the_next() {
    for (status_code, code, message) in [
        (400, "invalid_request_error", "This organization has been disabled."),
        (401, "account_deactivated", "The OpenAI account associated with this API key has been deactivated"),
        (403, "forbidden", "Forbidden: region not supported"),
        (400, "failed_precondition", "User location is not supported for the API use."),
        (400, "previous_response_not_found", "Previous response with id 'resp_1' not found."),
        (400, "tools", "registry.ollama.ai/library/gemma does not support tools"),
    ] {
        let lacking = error(status_code, code, message);
        let (builder, ups) = pair(lacking.clone(), chat("it is here")).await;
        let proxy = builder.start().await;
        let answer = proxy.chat().send().await;
        assert_eq!(answer.says(), "it is here", "{message}: {}", answer.text());
        assert_eq!(ups.each_ref().map(Upstream::count), [1, 1], "{message}");
        let (builder, _ups) = pair(lacking.clone(), lacking).await;
        let proxy = builder.start().await;
        let answer = proxy.chat().send().await;
        // A key that is told to be bad as a bad request is told as what it is.
        let is_key = status_code == 400 && !matches!(code, "previous_response_not_found" | "tools");
        let told = if is_key { 401 } else { status_code };
        assert_eq!(answer.status.as_u16(), told, "what all refuse is told: {}", answer.text());
        assert!(is_key || answer.json()["error"]["message"] == message, "{}", answer.text());
    }
}

/// Refusals of one server or model: it cannot do it, does not know it, is not set up for it, or failed to make it.
const PECULIAR: &[(u16, &str, &str)] = &[
    (400, "unsupported_parameter", "Unsupported parameter: 'max_tokens' is not supported with this model."),
    (400, "unsupported_value", "'temperature' does not support 0.2 with this model."),
    (400, "invalid_request_error", "'response_format' of type 'json_schema' is not supported with this model."),
    (400, "bad_request", "logprobs are not supported"),
    (400, "bad_request", "System role not supported"),
    (400, "bad_request", "This model does not support audio input"),
    (400, "bad_request", "Unrecognized request argument supplied: reasoning_effort"),
    (400, "bad_request", "\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set"),
    (422, "unprocessable", "Extra inputs are not permitted"),
    (400, "bad_request", "max_tokens is too large: 100000. It supports at most 16384 completion tokens"),
    (400, "bad_request", "Provider returned error"),
    (400, "json_validate_failed", "Failed to generate JSON. Please adjust your prompt."),
    (400, "bad_request", "No models loaded. Please load a model"),
    (400, "bad_request", "Your organization must be verified to stream this model."),
    (403, "forbidden", "RBAC: access denied"),
    (407, "proxy", "Proxy Authentication Required"),
    (409, "conflict", "The model is warming up"),
    (410, "gone", "It has left"),
    (415, "media", "Unsupported Media Type"),
    (421, "misdirected", "Misdirected Request"),
    (426, "upgrade", "Upgrade Required"),
    (451, "legal", "Unavailable For Legal Reasons"),
];

#[tokio::test]
async fn what_one_backend_cannot_do_is_asked_of_the_next_and_holds_no_other_request_back() {
    for (status_code, code, message) in PECULIAR {
        let up = upstream().reply(error(*status_code, code, message)).then(chat("ordinary")).start().await;
        let well = upstream().reply(chat("it can")).start().await;
        let proxy = proxy!().backend(backend("p1").primary(&up)).backend(backend("f1").fallback(&well)).start().await;
        let answer = proxy.chat().send().await;
        assert_eq!(answer.says(), "it can", "{message}: {}", answer.text());
        assert_eq!((up.count(), well.count()), (1, 1), "{message}");
        let other = value!({"model": "m", "messages": [{"role": "user", "content": "something else"}]});
        assert_eq!(proxy.post("/v1/chat/completions").json(&other).send().await.says(), "ordinary", "{message}");

        let refusal = error(*status_code, code, message);
        let (builder, ups) = pair(refusal.clone(), refusal).await;
        let answer = builder.start().await.chat().send().await;
        assert_eq!(answer.status.as_u16(), *status_code, "what all refuse is passed on: {}", answer.text());
        assert_eq!((answer.json()["error"]["message"].as_str(), count(&ups)), (Some(*message), 2));
    }
}

#[tokio::test]
async fn a_verdict_on_what_a_request_says_and_a_request_that_is_wrong_are_final() {
    for (status_code, code, message) in [
        (400, "content_policy_violation", "Your request was rejected by our safety system"),
        (403, "moderation", "The input was flagged"),
        (400, "invalid_request_error", "Invalid type for 'messages': expected an array"),
        (422, "unprocessable", "messages: Field required"),
    ] {
        let (builder, ups) = pair(error(status_code, code, message), chat("well")).await;
        let answer = builder.start().await.chat().send().await;
        assert_eq!((answer.status.as_u16(), count(&ups)), (status_code, 1), "{message}: {}", answer.text());
    }
}

// --- hung backends

#[tokio::test]
async fn each_hung_backend_is_tried_once_before_a_ready_fallback_answers() {
    let hung = [upstream().reply(silence()).start().await, upstream().reply(silence()).start().await];
    let well = upstream().reply(chat("well")).start().await;
    let target = |id: &str, up: &Upstream| backend(id).primary(up).timeout("first_byte_ms", 400);
    let proxy = proxy!()
        .backend(target("p1", &hung[0]))
        .backend(target("p2", &hung[1]))
        .backend(backend("f1").fallback(&well))
        .setting("primary_wait_ms", 200)
        .start()
        .await;
    let begun = Instant::now();
    let answer = proxy.chat().send().await;
    assert_eq!(answer.says(), "well");
    assert_eq!(hung.each_ref().map(Upstream::count), [1, 1], "one try at each");
    assert_eq!(answer.header("x-pointsman-attempts"), "3");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

// --- the emergency lane, and providers that do not mean what they say

#[tokio::test]
async fn the_emergency_lane_keeps_a_retry_after() {
    let up = upstream().reply(status(429).header("retry-after-ms", 2_000)).then(chat("after all")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).setting("primary_wait_max_retries", 0).start().await;
    let first = proxy.chat().send().await;
    assert_eq!((first.status.as_u16(), up.count()), (503, 1), "{}", first.text());
    let other = value!({"model": "m", "messages": [{"role": "user", "content": "something else"}]});
    let second = proxy.post("/v1/chat/completions").json(&other).send().await;
    assert_eq!(second.says(), "after all", "{}", second.text());
    let seen = up.seen();
    assert!(seen[1].at - seen[0].at >= Duration::from_millis(1_990), "{:?}", seen[1].at - seen[0].at);
}

#[tokio::test]
async fn a_429_that_says_that_requests_are_left_cools_longer_each_time() {
    let up = upstream()
        .handler(|_, _| {
            status(429)
                .header("x-ratelimit-limit-requests", 100)
                .header("x-ratelimit-remaining-requests", 99)
                .header("x-ratelimit-reset-requests", "1s")
        })
        .start()
        .await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let answer = proxy.chat().send().await;
    assert_eq!(answer.status, 503);
    let gaps: Vec<Duration> = up.seen().windows(2).map(|s| s[1].at - s[0].at).collect();
    assert!(gaps.len() <= 6, "{gaps:?}");
    let last = gaps.last().expect("it was tried again");
    assert!(*last >= Duration::from_millis(3_900), "{gaps:?}");
}
