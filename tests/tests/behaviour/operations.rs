//! Faults as operators see them, and state that survives a restart.

use http::Method;
use pointsman_tests::{Proxy, backend, chat, proxy, run, soon, status, upstream};
use serde_json::{Value as Json, json};

async fn config(proxy: &Proxy) -> Json {
    proxy.admin("/api/config").send().await.json()
}

async fn wait_config(proxy: &Proxy, is_so: impl Fn(&Json) -> bool) -> Json {
    let seen = async {
        loop {
            let config = config(proxy).await;
            if is_so(&config) {
                return config;
            }
        }
    };
    soon("/api/config", seen).await
}

#[tokio::test]
async fn a_refused_configuration_is_shown_until_it_is_mended() {
    let up = upstream().start().await;
    let mut proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let before = config(&proxy).await;
    assert_eq!(
        (&before["refusal"], &before["backends"], &before["file"]),
        (&Json::Null, &1.into(), &"pointsman.toml".into())
    );
    assert_eq!(proxy.metric("pointsman_config_refused").await, 0.0);
    proxy.reconfigure("limits.queue_length", "many");
    let refused = wait_config(&proxy, |config| config["refusal"].is_object()).await;
    let error = refused["refusal"]["error"].as_str().unwrap();
    assert!(error.contains("queue_length"), "{error}");
    assert_eq!((&refused["refusal"]["source"], &refused["revision"]), (&"pointsman.toml".into(), &before["revision"]));
    assert!(
        refused["refusal"]["at"].as_str().is_some_and(|at| at >= before["loaded_at"].as_str().unwrap()),
        "{refused}"
    );
    assert_eq!(proxy.metric("pointsman_config_refused").await, 1.0);
    let ready = proxy.admin("/readyz").send().await;
    assert_eq!((ready.status.as_u16(), ready.text().contains("/api/config")), (200, true), "{}", ready.text());
    assert!(!refused.to_string().contains("key-of-p1"));
    proxy.reconfigure("limits.queue_length", 7);
    let mended = wait_config(&proxy, |config| config["revision"] != before["revision"]).await;
    assert_eq!(mended["refusal"], Json::Null);
    assert!(mended["loaded_at"].as_str() > before["loaded_at"].as_str(), "{mended}");
    assert_eq!(proxy.metric("pointsman_config_refused").await, 0.0);
}

#[tokio::test]
async fn a_refused_policy_is_shown_with_its_source_and_time() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    assert_eq!(proxy.policy().await["refusal"], Json::Null);
    assert_eq!(proxy.put_policy("not a component").await.status, 422);
    let refusal = proxy.policy().await["refusal"].clone();
    assert_eq!(refusal["source"], "upload");
    assert!(refusal["at"].is_string() && refusal["error"].as_str().is_some_and(|why| !why.is_empty()), "{refusal}");
}

async fn post(proxy: &Proxy, path: &str) {
    assert_eq!(proxy.admin_request(Method::POST, path).send().await.status, 200, "{path}");
}

async fn states(proxy: &Proxy) -> Vec<(String, String)> {
    let all = proxy.admin("/api/backends").send().await.json();
    let text = |value: &Json| value.as_str().unwrap().to_owned();
    all["backends"].as_array().unwrap().iter().map(|b| (text(&b["id"]), text(&b["state"]))).collect()
}

#[tokio::test]
async fn a_drain_survives_a_restart_until_it_is_resumed_or_its_backend_is_gone() {
    let (up, spare) = (upstream().reply(chat("p1")).start().await, upstream().reply(chat("p2")).start().await);
    let proxy = proxy!().backend(backend("p1").primary(&up)).backend(backend("p2").primary(&spare));
    let mut proxy = proxy.start().await;
    post(&proxy, "/api/backends/p1/drain").await;
    proxy.wait_rows(1, "SELECT backend FROM cooldowns WHERE reason = 'drained'").await;
    proxy.kill9().await;
    proxy.restart().await;
    assert_eq!(states(&proxy).await, [("p1".into(), "drained".into()), ("p2".into(), "ready".into())]);
    assert_eq!(proxy.chat().send().await.says(), "p2");
    assert_eq!(up.count(), 0);
    post(&proxy, "/api/backends/p1/resume").await;
    post(&proxy, "/api/backends/p2/drain").await;
    proxy.sigterm();
    assert!(proxy.wait_exit().await.success());
    // p2 is gone from the configuration for one start, and back with the next.
    for (backends, expected) in [
        (vec![backend("p1").primary(&up)], vec![("p1".to_owned(), "ready".to_owned())]),
        (
            vec![backend("p1").primary(&up), backend("p2").primary(&spare)],
            vec![("p1".to_owned(), "ready".to_owned()), ("p2".to_owned(), "ready".to_owned())],
        ),
    ] {
        proxy.reconfigure_backends(backends);
        proxy.restart().await;
        assert_eq!(states(&proxy).await, expected);
        proxy.sigterm();
        assert!(proxy.wait_exit().await.success());
    }
}

#[tokio::test]
async fn readiness_says_whether_anything_can_serve_and_why_not() {
    let dead = upstream().reply(status(401)).start().await;
    let busy = upstream().reply(status(429).retry_after(60)).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&dead)).backend(backend("p2").primary(&busy));
    let proxy = proxy.setting("primary_wait_ms", 0).setting("emergency_rpm_fraction", 0.0).start().await;
    proxy.chat().send().await;
    let ready = proxy.admin("/readyz").send().await;
    let counts = json!({"configured": 2, "serving": 1, "drained": 0, "excluded": 1});
    assert_eq!((ready.status.as_u16(), &ready.json()["backends"]), (200, &counts), "who is rate-limited comes back");
    assert_eq!(ready.header("content-type"), "application/json");
    post(&proxy, "/api/backends/p2/drain").await;
    let ready = proxy.admin("/readyz").send().await;
    assert_eq!((ready.status.as_u16(), &ready.json()["ready"]), (503, &false.into()));
    assert!(ready.json()["reason"].as_str().unwrap().contains("no backend can serve"), "{}", ready.text());
    assert!(!ready.text().contains("p1"), "anyone may read it: {}", ready.text());
    post(&proxy, "/api/backends/p2/resume").await;
    assert_eq!(proxy.admin("/readyz").send().await.status, 200);
}

#[tokio::test]
async fn a_wrong_value_in_the_environment_is_an_error_that_names_it() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let binary = env!("CARGO_BIN_EXE_proxy-under-test");
    for (variable, value, code, words) in [
        ("POINTSMAN_WORKERS", "zero", 2, "a whole number from 1 to 512"),
        ("POINTSMAN_WORKERS", "0", 2, "a whole number from 1 to 512"),
        ("POINTSMAN_CACHE_DIR", "pointsman.toml", 2, "not a folder"),
        ("POINTSMAN_LOG", "inof", 1, "did you mean `info`?"),
        ("POINTSMAN_LOG", "info,hyper=loud", 1, "write error, warn, info"),
        ("SIDECAR_PRIMARY_WAIT_MS", "5s", 1, "not a whole number"),
    ] {
        let started = run(binary, proxy.dir(), &["serve", "--config", "pointsman.toml"], &[(variable, value)]).await;
        assert_eq!(started.code, Some(code), "{variable}={value}: {}", started.stderr);
        for words in [variable, value.rsplit(',').next().unwrap(), words] {
            assert!(started.stderr.contains(words), "{variable}={value}: {words}: {}", started.stderr);
        }
    }
}

#[tokio::test]
async fn every_documented_path_answers_and_takes_its_parameters_and_no_others() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("nvidia-1").primary(&up)).start().await;
    let document = proxy.admin("/api/openapi.json").send().await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let mut asked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let parameters = operation["parameters"].as_array().unwrap();
            let example = |p: &Json| p["example"].as_str().map_or_else(|| p["example"].to_string(), str::to_owned);
            let mut url = path.clone();
            let mut query = Vec::new();
            for p in parameters {
                match p["in"].as_str() {
                    Some("path") => url = url.replace(&format!("{{{}}}", p["name"].as_str().unwrap()), &example(p)),
                    Some("query") if p["schema"]["type"] != "array" => {
                        query.push(format!("{}={}", p["name"].as_str().unwrap(), encoded(&example(p))))
                    }
                    _ => {}
                }
            }
            let method: Method = method.to_uppercase().parse().unwrap();
            let known = operation["responses"].as_object().unwrap();
            if url != "/api/events" {
                let answer = proxy.admin_request(method.clone(), &format!("{url}?{}", query.join("&"))).send().await;
                let status = answer.status.as_u16().to_string();
                assert!(
                    known.contains_key(&status) || status == "400" && operation.get("requestBody").is_some(),
                    "{method} {url}: {status} {}",
                    answer.text()
                );
                assert!(!answer.text().contains("there is nothing at this path"), "{method} {url}");
                asked += 1;
            }
            if url.starts_with("/api/") {
                let typo = proxy.admin_request(method.clone(), &format!("{url}?limt=5")).send().await;
                assert_eq!(typo.status, 400, "{method} {url}");
                assert!(typo.json()["error"]["message"].as_str().unwrap().contains("`limt`"), "{}", typo.text());
            }
        }
    }
    assert!(asked >= 18, "{asked} of the paths were asked");
    assert_eq!(proxy.admin("/metrics?limt=5").send().await.status, 200, "a scraper may add what it likes");
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}
