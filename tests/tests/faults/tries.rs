//! Failures before the answer has begun: who is tried again, how often, and how soon.

use std::time::{Duration, Instant};

use pointsman_tests::{Reply, backend, chat, json, proxy, silence, status};
use serde_json::json as value;

use crate::{Pair, pair, primary_that_gives, timed};

fn secs(s: f64) -> Duration {
    Duration::from_secs_f64(s)
}

fn error(code: &str, message: &str) -> Reply {
    json(value!({"error": {"message": message, "type": "invalid_request_error", "param": "messages", "code": code}}))
        .with_status(400)
}

#[tokio::test]
async fn a_429_once_with_retry_after_2_s_is_waited_for_and_costs_nothing() {
    let p = primary_that_gives(|i| if i == 0 { status(429).retry_after(2) } else { chat("primary") }).await;
    let (answer, took) = timed(p.proxy.chat().send()).await;
    assert_eq!(answer.says(), "primary");
    assert_eq!(p.tries(), (2, 0));
    let seen = p.primary.seen();
    assert!(seen[1].at - seen[0].at >= secs(1.8), "came back after {:?}", seen[1].at - seen[0].at);
    assert!(took < secs(4.0), "{took:?}");
}

#[tokio::test]
async fn a_429_for_ever_without_retry_after_is_not_hammered_and_ends_at_the_fallback() {
    let p = primary_that_gives(|_| status(429)).await;
    let (answer, took) = timed(p.proxy.chat().patience(secs(60.0)).send()).await;
    assert_eq!(answer.says(), "fallback");
    let (tries, paid) = p.tries();
    assert!(tries <= 6, "{tries} tries");
    assert!(p.primary_tries_within(secs(3.0)) <= 4);
    assert_eq!(paid, 1);
    assert!(took < secs(40.0), "{took:?}");
    let gaps: Vec<_> = p.primary.seen().windows(2).map(|s| s[1].at - s[0].at).collect();
    assert!(gaps.windows(2).all(|g| g[1] > g[0]), "no backoff: {gaps:?}");
}

#[tokio::test]
async fn a_500_once_is_tried_again_at_the_same_provider() {
    let p = primary_that_gives(|i| if i == 0 { status(500) } else { chat("primary") }).await;
    let (answer, took) = timed(p.proxy.chat().send()).await;
    assert_eq!(answer.says(), "primary");
    assert_eq!(p.tries(), (2, 0));
    assert!(took < secs(4.0), "{took:?}");
}

async fn ends_at_the_fallback_in_at_most(reply: fn() -> Reply, most_tries: usize, within: Duration) -> Pair {
    let p = primary_that_gives(move |_| reply()).await;
    let (answer, took) = timed(p.proxy.chat().patience(within).send()).await;
    assert_eq!(answer.says(), "fallback", "{}", answer.text());
    assert!(p.primary.count() <= most_tries, "{} tries", p.primary.count());
    assert!(took < within, "{took:?}");
    p
}

#[tokio::test]
async fn a_503_for_ever_ends_at_the_fallback() {
    ends_at_the_fallback_in_at_most(|| status(503), 6, secs(40.0)).await;
}

#[tokio::test]
async fn a_reset_before_the_head_for_ever_ends_at_the_fallback() {
    ends_at_the_fallback_in_at_most(|| chat("").reset_before_head(), 6, secs(40.0)).await;
}

#[tokio::test]
async fn a_reset_before_the_head_once_is_tried_again_at_the_same_provider() {
    let p = primary_that_gives(|i| if i == 0 { chat("").reset_before_head() } else { chat("primary") }).await;
    assert_eq!(p.proxy.chat().send().await.says(), "primary");
    assert_eq!(p.tries(), (2, 0));
}

#[tokio::test]
async fn a_provider_that_accepts_and_says_nothing_is_tried_once() {
    let p = ends_at_the_fallback_in_at_most(silence, 1, secs(35.0)).await;
    assert_eq!(p.tries(), (1, 1));
}

#[tokio::test]
async fn a_context_too_long_goes_to_the_larger_model_at_once() {
    let p =
        primary_that_gives(|_| error("context_length_exceeded", "This model's maximum context length is 8192 tokens"));
    let Pair { primary, fallback, .. } = p.await;
    let proxy = proxy!()
        .backend(backend("small").primary(&primary).model("m", "maker/small-8k"))
        .backend(backend("large").fallback(&fallback).model("m", "maker/large-1m"))
        .start()
        .await;
    let (answer, took) = timed(proxy.chat().send()).await;
    assert_eq!(answer.says(), "fallback");
    assert_eq!((primary.count(), fallback.count()), (1, 1));
    assert_eq!(fallback.only().json()["model"], "maker/large-1m");
    assert!(took < secs(2.0), "{took:?}");
}

#[tokio::test]
async fn a_content_refusal_is_passed_on_as_it_came() {
    let p = primary_that_gives(|_| error("content_policy_violation", "Your request was rejected by our safety system"));
    let p = p.await;
    let answer = p.proxy.chat().send().await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["error"]["message"], "Your request was rejected by our safety system");
    assert_eq!(answer.json()["error"]["code"], "content_policy_violation");
    assert_eq!(p.tries(), (1, 0));
}

/// A request every 4 s while the primary is down for 60 s, and after.
#[tokio::test]
async fn an_outage_of_60_s_is_served_by_the_fallback_and_left_within_30_s_of_its_end() {
    let begun = Instant::now();
    let outage = secs(60.0);
    let p = primary_that_gives(move |_| if begun.elapsed() < outage { status(503) } else { chat("primary") }).await;
    let mut ticks = tokio::time::interval(secs(4.0));
    let mut back_after = None;
    for _ in 0..24 {
        ticks.tick().await;
        let asked_at = begun.elapsed();
        let answer = p.proxy.chat().send().await;
        assert_eq!(answer.status, 200, "at {asked_at:?}: {}", answer.text());
        match answer.says().as_str() {
            "primary" => back_after = back_after.or(Some(begun.elapsed().saturating_sub(outage))),
            _ => assert!(back_after.is_none(), "left the recovered primary again at {asked_at:?}"),
        }
    }
    let back_after = back_after.expect("never back on the primary");
    assert!(back_after < secs(30.0), "back only after {back_after:?}");
    let during = p.primary.seen().iter().filter(|s| s.at - begun < outage).count();
    // The first exchange's tries, then one probe after each cooldown (doubled from half a second up to 20 s).
    assert!(during <= 12, "{during} tries at a dead primary");
}

#[tokio::test]
async fn who_answered_is_named_and_billed_and_nobody_else() {
    let p = pair(|_| status(500), |_, _| chat("fallback")).await;
    let answer = p.proxy.chat().send().await;
    assert_eq!(answer.header("x-pointsman-backend"), "paid");
    let exchange = &p.proxy.wait_rows(1, "SELECT * FROM exchanges").await[0];
    assert_eq!((&exchange["backend"], &exchange["lane"]), (&value!("paid"), &value!("fallback")));
    assert_eq!((&exchange["input_tokens"], &exchange["output_tokens"]), (&value!(11), &value!(7)));
    let attempts = p.proxy.rows("SELECT backend, outcome, cost_usd, input_tokens FROM attempts ORDER BY number");
    let (last, failed) = attempts.split_last().unwrap();
    assert!(failed.iter().all(|a| a["cost_usd"] == 0.0 && a["input_tokens"] == 0), "{failed:?}");
    assert!((last["cost_usd"].as_f64().unwrap() - 81e-6).abs() < 1e-12, "{last}");
    assert_eq!(exchange["cost_usd"], last["cost_usd"]);
}
