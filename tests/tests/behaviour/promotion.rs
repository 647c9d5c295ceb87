//! Guarded promotions: a candidate on a share of the traffic that takes over, or goes, by itself.

use std::collections::BTreeMap;
use std::process::Stdio;

use http::Method;
use pointsman_tests::{
    Answer, Finished, Proxy, ProxyBuilder, Upstream, backend, chat, proxy, revision_of, run, sends_to, soon, status,
    upstream,
};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// Three backends: one that answers, one that answers too and is dear, one that fails.
struct Scene {
    proxy: Proxy,
    live: Vec<u8>,
    dir: tempfile::TempDir,
    _upstreams: [Upstream; 3],
}

async fn scene(with: impl FnOnce(ProxyBuilder) -> ProxyBuilder) -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("live.wasm");
    let live = sends_to(0).build();
    std::fs::write(&file, &live).unwrap();
    let upstreams = [
        upstream().reply(chat("a")).start().await,
        upstream().reply(chat("b")).start().await,
        upstream().reply(status(400)).start().await,
    ];
    let builder = proxy!()
        .backend(backend("good").primary(&upstreams[0]).price("m", 1.0, 1.0))
        .backend(backend("dear").primary(&upstreams[1]).price("m", 50.0, 50.0))
        .backend(backend("bad").primary(&upstreams[2]))
        .set("log.exchanges", false)
        .policy_file(&file);
    Scene { proxy: with(builder).start().await, live, dir, _upstreams: upstreams }
}

impl Scene {
    async fn promote(&self, candidate: &[u8], query: &str) -> Answer {
        let path = format!("/api/policy/promote?{query}");
        self.proxy.admin_request(Method::POST, &path).body("application/wasm", candidate.to_vec()).send().await
    }

    async fn abort(&self) -> Answer {
        self.proxy.admin_request(Method::DELETE, "/api/policy/promote").send().await
    }

    /// Asks until the promotion has ended.
    async fn ask_until_over(&self) -> Value {
        let asked = async {
            loop {
                for _ in 0..10 {
                    self.proxy.chat().send().await;
                }
                let promotion = self.proxy.policy().await["promotion"].clone();
                if promotion["state"] != "running" {
                    return promotion;
                }
            }
        };
        soon("the end of the promotion", asked).await
    }

    async fn events(&self) -> Vec<String> {
        let events = self.proxy.admin("/api/policy/events").send().await.json();
        let words = |event: &Value| event["step"].as_str().unwrap().to_owned();
        events["events"].as_array().unwrap().iter().rev().map(words).collect()
    }
}

fn why(promotion: &Value) -> &str {
    promotion["why"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn one_that_fails_is_rolled_back_by_itself() {
    let s = scene(|builder| builder).await;
    let bad = sends_to(2).build();
    let begun = s.promote(&bad, "canary=20%25&for=1h").await;
    assert_eq!(begun.status, 200, "{}", begun.text());
    assert_eq!(begun.json()["promotion"]["state"], "running");
    assert_eq!(s.proxy.metric("pointsman_policy_canary_share").await, 0.2);
    let over = s.ask_until_over().await;
    assert_eq!(over["state"], "rolled_back");
    assert!(why(&over).starts_with("error_rate<=+0.5% is violated: "), "{over}");
    assert_eq!(over["sides"]["candidate"]["failed"], over["sides"]["candidate"]["exchanges"]);
    assert_eq!(over["sides"]["control"]["failed"], 0);
    assert_eq!(over["guards"][0]["standing"], "violated");
    for _ in 0..20 {
        let answer = s.proxy.chat().send().await;
        assert_eq!((answer.status.as_u16(), answer.header("x-pointsman-policy")), (200, revision_of(&s.live).as_str()));
    }
    assert_eq!(s.events().await, ["started", "rolled_back"]);
    assert_eq!(s.proxy.metric("pointsman_policy_promotions_total{step=\"rolled_back\"}").await, 1.0);
    assert_eq!(s.proxy.metric("pointsman_policy_canary_share").await, 0.0);
    let told = |l: &Value| (l["step"] == "rolled_back").then(|| l["why"].as_str().unwrap().to_owned());
    assert_eq!(s.proxy.wait_log("the step", told).await, why(&over));
    let policy = s.proxy.policy().await;
    assert_eq!((&policy["last_error"], policy["history"].as_array().unwrap().len()), (&Value::Null, 1));
}

#[tokio::test]
async fn one_that_is_dear_is_rolled_back() {
    let s = scene(|builder| builder).await;
    s.promote(&sends_to(1).build(), "canary=50%25&for=1h&guard=spend%3C=%2B5%25").await;
    let over = s.ask_until_over().await;
    assert_eq!(over["state"], "rolled_back");
    assert!(why(&over).starts_with("spend<=+5% is violated: mean cost per request: candidate $"), "{over}");
}

#[tokio::test]
async fn one_that_is_no_worse_is_promoted_and_a_restart_comes_up_with_it() {
    let mut s = scene(|builder| builder).await;
    let candidate = sends_to(0).then("nop").build();
    let revision = revision_of(&candidate);
    let begun = s.promote(&candidate, "canary=50%25&for=2s&guard=error_rate%3C=%2B1%25&guard=spend%3C=5%25").await;
    assert_eq!(begun.status, 200, "{}", begun.text());
    let over = s.ask_until_over().await;
    assert_eq!((&over["state"], &over["candidate"]), (&"promoted".into(), &revision.clone().into()), "{over}");
    assert!(
        why(&over).starts_with("no guard is violated: error_rate<=+1%: failed requests: candidate 0 of "),
        "{over}"
    );
    let answer = s.proxy.chat().send().await;
    assert_eq!((answer.says().as_str(), answer.header("x-pointsman-policy")), ("a", revision.as_str()));
    let policy = s.proxy.policy().await;
    assert_eq!((&policy["revision"], &policy["origin"]), (&revision.clone().into(), &"upload".into()));
    let left = policy["history"][1]["why"].as_str().unwrap();
    assert!(left.starts_with(&format!("revision {revision} was promoted: no guard is violated")), "{left}");
    let written = async {
        loop {
            let steps = s.events().await;
            if steps.last().is_some_and(|step| step == "promoted") {
                return steps;
            }
        }
    };
    let steps = soon("the step is written", written).await;
    assert_eq!(steps[0], "started");
    s.proxy.kill9().await;
    s.proxy.restart().await;
    assert_eq!(s.proxy.policy().await["revision"], *revision);
    assert_eq!(s.events().await, steps, "they are kept");
    assert_eq!(s.proxy.rollback(None).await.json()["to"], *revision_of(&s.live));
}

#[tokio::test]
async fn a_session_is_on_one_side_and_both_are_told_apart() {
    let s = scene(|builder| builder).await;
    let candidate = sends_to(1).build();
    s.promote(&candidate, "canary=30%25&for=1h&guard=error_rate%3C=5%25").await;
    let mut sides: BTreeMap<String, usize> = BTreeMap::new();
    for session in 0..40 {
        let mut first = None;
        for _ in 0..3 {
            let answer = s.proxy.chat().header("x-pointsman-session", &format!("s{session}")).send().await;
            let policy = answer.header("x-pointsman-policy").to_owned();
            let says = if policy == revision_of(&candidate) { "b" } else { "a" };
            assert_eq!(answer.says(), says, "it decides for its own");
            assert_eq!(*first.get_or_insert(policy.clone()), policy, "session {session} changed sides");
        }
        *sides.entry(first.unwrap()).or_default() += 1;
    }
    // 40 draws of 30 %: fewer than 2 or more than 28 would happen once in 100,000.
    assert!((2..=28).contains(&sides[&revision_of(&candidate)]), "{sides:?}");
    let promotion = s.proxy.wait_policy("all of them", |policy| {
        let of = |side: &str| policy["promotion"]["sides"][side]["exchanges"].as_u64().unwrap();
        of("control") + of("candidate") == 120
    });
    promotion.await;
}

#[tokio::test]
async fn thin_evidence_is_told_and_given_as_much_time_again() {
    let s = scene(|builder| builder).await;
    s.promote(&sends_to(1).build(), "canary=5%25&for=1s&guard=error_rate%3C=1%25").await;
    s.proxy.chat().send().await;
    let over = s.proxy.wait_policy("the end", |policy| policy["promotion"]["state"] != "running").await;
    let over = &over["promotion"];
    assert_eq!((&over["state"], &over["extended"]), (&"rolled_back".into(), &true.into()), "{over}");
    assert!(
        why(over).contains("too few requests to judge") && why(over).ends_with("the time was extended once already"),
        "{over}"
    );
    assert_eq!(s.events().await, ["started", "extended", "rolled_back"]);
}

#[tokio::test]
async fn the_operator_ends_it_and_what_cannot_be_done_is_said_in_a_sentence() {
    let s = scene(|builder| builder).await;
    let [candidate, other] = [sends_to(1).build(), sends_to(1).then("nop").build()];
    let said = |answer: &Answer| answer.json()["error"]["message"].as_str().unwrap().to_owned();
    let none = s.abort().await;
    assert_eq!((none.status.as_u16(), said(&none).as_str()), (409, "no promotion is under way"));
    for (component, query, status, words) in [
        (&candidate, "canary=0%25", 400, "canary=\"0%\" is not a share of the exchanges; write a percentage above 0%"),
        (&candidate, "canary=100%25", 400, "canary=\"100%\" is not a share"),
        (&candidate, "guard=speed%3C=1%25", 400, "guard=\"speed<=1%\" is no guard; write error_rate<=+0.5%"),
        (&candidate, "for=1y", 400, "for=\"1y\" is not a time for a promotion; write 1s to 7d"),
        (&s.live, "canary=5%25", 409, "is in force already"),
        (&b"nonsense".to_vec(), "canary=5%25", 422, "the candidate is refused: "),
    ] {
        let refused = s.promote(component, query).await;
        assert_eq!(refused.status.as_u16(), status, "{query}: {}", refused.text());
        assert!(said(&refused).contains(words), "{query}: {}", refused.text());
    }
    assert_eq!(s.promote(&candidate, "canary=5%25").await.status, 200);
    let second = s.promote(&other, "canary=5%25").await;
    let words =
        format!("the promotion of revision {} is under way; DELETE /api/policy/promote", revision_of(&candidate));
    assert!(second.status == 409 && said(&second).starts_with(&words), "{}", second.text());
    let ended = s.abort().await.json();
    assert_eq!((&ended["promotion"]["state"], &ended["revision"]), (&"aborted".into(), &revision_of(&s.live).into()));
    assert_eq!(s.events().await, ["started", "aborted"], "what was refused is no step");
}

#[tokio::test]
async fn a_candidate_that_faults_goes_at_once() {
    let s = scene(|builder| builder.set("policy.rollback.first_decisions", 40)).await;
    // The default policy would try it as well.
    assert_eq!(s.proxy.admin_request(Method::POST, "/api/backends/bad/drain").send().await.status, 200);
    s.promote(&sends_to(0).faulty().build(), "canary=50%25&for=1h").await;
    let over = s.ask_until_over().await;
    assert!(why(&over).starts_with("the candidate failed too often: 5 of its first 5 decisions failed"), "{over}");
    assert_eq!(over["sides"]["candidate"]["failed"], 0, "the default policy decided for it");
    assert_eq!(s.proxy.policy().await["revision"], *revision_of(&s.live));
}

#[tokio::test]
async fn whatever_else_is_wanted_ends_it() {
    let mut s = scene(|builder| builder).await;
    let [candidate, upload] = [sends_to(1).build(), sends_to(0).then("nop").build()];
    s.promote(&candidate, "canary=50%25&for=1h").await;
    let put = s.proxy.put_policy(upload.clone()).await.json();
    assert_eq!(put["promotion"]["state"], "overtaken");
    let words = format!("revision {} came into force: another policy was uploaded", revision_of(&upload));
    assert_eq!(why(&put["promotion"]), words);
    s.promote(&candidate, "canary=50%25&for=1h").await;
    assert_eq!(s.proxy.rollback(None).await.json()["promotion"]["state"], "overtaken");

    s.promote(&candidate, "canary=50%25&for=1h").await;
    s.proxy.kill9().await;
    s.proxy.restart().await;
    s.proxy.wait_log("the interruption", |l| (l["step"] == "interrupted").then_some(())).await;
    let policy = s.proxy.policy().await;
    assert_eq!((&policy["promotion"], &policy["revision"]), (&Value::Null, &revision_of(&s.live).into()));
    let steps = s.events().await;
    assert_eq!(steps, ["started", "overtaken", "started", "overtaken", "started", "interrupted"]);
}

#[tokio::test]
async fn a_bad_policy_file_leaves_it_alone_and_a_good_one_ends_it() {
    let s = scene(|builder| builder).await;
    let (candidate, changed) = (sends_to(1).build(), sends_to(0).then("nop").build());
    s.promote(&candidate, "canary=50%25&for=1h&guard=error_rate%3C=5%25").await;
    let file = s.dir.path().join("live.wasm");
    std::fs::write(&file, "nonsense").unwrap();
    let refused = s.proxy.wait_policy("a refusal", |policy| policy["last_error"].is_string()).await;
    assert_eq!(
        (&refused["promotion"]["state"], &refused["revision"]),
        (&"running".into(), &revision_of(&s.live).into())
    );
    std::fs::write(&file, &changed).unwrap();
    let over = s.proxy.wait_policy("the end", |policy| policy["promotion"]["state"] != "running").await;
    assert_eq!((&over["promotion"]["state"], &over["revision"]), (&"overtaken".into(), &revision_of(&changed).into()));
    let words = format!("revision {} came into force: ", revision_of(&changed));
    assert!(why(&over["promotion"]).starts_with(&words), "{over}");
    for _ in 0..20 {
        let answer = s.proxy.chat().send().await;
        assert_eq!(answer.header("x-pointsman-policy"), revision_of(&changed));
    }
    assert_eq!(s.events().await, ["started", "overtaken"]);
}

#[tokio::test]
async fn another_configuration_goes_to_both_and_one_that_the_candidate_refuses_ends_it() {
    let mut s = scene(|builder| builder.setting("long", "enough")).await;
    let candidate = sends_to(1).wants_settings_of(12).build();
    s.promote(&candidate, "canary=50%25&for=1h&guard=error_rate%3C=5%25").await;
    s.proxy.reconfigure("limits.max_attempts", 5);
    s.proxy.wait_log("the configuration", |l| (l["message"] == "configuration reloaded").then_some(())).await;
    assert_eq!(s.proxy.policy().await["promotion"]["state"], "running");
    let mut said = Vec::new();
    while !["a", "b"].iter().all(|one| said.iter().any(|word| word == one)) {
        said.push(s.proxy.chat().send().await.says());
        assert!(said.len() < 200, "both sides go on");
    }
    s.proxy.reconfigure("policy.settings", toml::Table::new());
    let over = s.proxy.wait_policy("the end", |policy| policy["promotion"]["state"] != "running").await;
    let over = &over["promotion"];
    assert_eq!(over["state"], "overtaken");
    assert!(why(over).starts_with("the candidate refuses the new configuration: "), "{over}");
    assert_eq!(s.proxy.chat().send().await.says(), "a");
}

async fn command(s: &Scene, component: &[u8], args: &[&str]) -> Finished {
    let file = s.proxy.dir().join("candidate.wasm");
    std::fs::write(&file, component).unwrap();
    let admin = format!("http://{}", s.proxy.admin_addr());
    let args = [&["policy", "promote", "candidate.wasm", "--admin", admin.as_str()], args].concat();
    run(env!("CARGO_BIN_EXE_proxy-under-test"), s.proxy.dir(), &args, &[("TOKEN", "secret")]).await
}

/// One that goes on when its time is over says so, and why.
#[tokio::test]
async fn the_command_line_says_why_it_takes_longer_than_asked() {
    let s = scene(|builder| builder).await;
    let ended = command(&s, &sends_to(1).build(), &["--for", "1s", "--guard", "error_rate<=1%"]).await;
    assert_eq!(ended.code, Some(1), "{}{}", ended.stdout, ended.stderr);
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert!(lines[0].ends_with("; once as long again if that is too little to judge"), "{lines:#?}");
    let extended = lines.iter().position(|line| line.starts_with("extended to ")).expect("it says that it goes on");
    let too_few =
        "too few requests to judge: 0 of the candidate and 0 of the policy in force have ended, and 100 of each are";
    assert!(lines[extended].contains(too_few), "{lines:#?}");
    assert!(
        extended + 1 < lines.len() && lines.last().unwrap().starts_with("rolled back: too few requests"),
        "{lines:#?}"
    );
}

#[tokio::test]
async fn the_command_line_follows_it_to_its_end() {
    let s = scene(|builder| builder.set("admin.token", "secret")).await;
    let token = ["--token", "env:TOKEN"];
    let guards = ["--guard", "error_rate<=+1%"];
    let ask = async {
        loop {
            s.proxy.chat().send().await;
        }
    };
    let both = async {
        let bad = command(&s, &sends_to(2).build(), &[&token[..], &["--canary", "30%"]].concat()).await;
        assert_eq!(bad.code, Some(1), "{}{}", bad.stdout, bad.stderr);
        assert!(bad.stdout.contains("rolled back: error_rate<=+0.5% is violated: "), "{}", bad.stdout);
        let good = sends_to(0).then("nop").build();
        let well = command(&s, &good, &[&token[..], &guards, &["--canary", "50%", "--for", "2s"]].concat()).await;
        assert_eq!(well.code, Some(0), "{}{}", well.stdout, well.stderr);
        assert!(well.stdout.contains("promoted: no guard is violated"), "{}", well.stdout);
        let again = command(&s, &good, &token).await;
        assert_eq!(again.code, Some(1));
        assert!(again.stderr.contains("is in force already"), "{}", again.stderr);
    };
    tokio::select! {
        () = both => {}
        () = ask => {}
    }
    let detached = command(&s, &sends_to(1).build(), &[&token[..], &["--detach"]].concat()).await;
    assert_eq!(detached.code, Some(0), "{}", detached.stderr);
    assert!(
        detached.stdout.contains("pointsman policy promote --abort --admin http://127.0.0.1:"),
        "{}",
        detached.stdout
    );
    let admin = format!("http://{}", s.proxy.admin_addr());
    let abort = ["policy", "promote", "--abort", "--admin", admin.as_str(), "--token", "secret"];
    let aborted = run(env!("CARGO_BIN_EXE_proxy-under-test"), s.proxy.dir(), &abort, &[]).await;
    assert_eq!(aborted.code, Some(0), "{}", aborted.stderr);
    let wrong = command(&s, &sends_to(1).build(), &["--canary", "0%"]).await;
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.starts_with("error: --canary=\"0%\" is not a share"), "{}", wrong.stderr);
    let unknown = command(&s, &sends_to(1).build(), &[]).await;
    assert!(unknown.code == Some(1) && unknown.stderr.contains("wants a token"), "{}", unknown.stderr);
}

#[tokio::test]
async fn ctrl_c_leaves_it_running_and_says_how_to_end_it() {
    let s = scene(|builder| builder).await;
    std::fs::write(s.proxy.dir().join("candidate.wasm"), sends_to(1).build()).unwrap();
    let admin = format!("http://{}", s.proxy.admin_addr());
    let mut child = Command::new(env!("CARGO_BIN_EXE_proxy-under-test"))
        .current_dir(s.proxy.dir())
        .args(["policy", "promote", "candidate.wasm", "--for", "1h", "--admin", &admin])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let begun = soon("the begin", lines.next_line()).await.unwrap().unwrap();
    assert!(begun.contains("has 5% of the exchanges beside"), "{begun}");
    let interrupt = format!("kill -INT {}", child.id().unwrap());
    assert!(std::process::Command::new("sh").args(["-c", &interrupt]).status().unwrap().success());
    assert_eq!(soon("its end", child.wait()).await.unwrap().code(), Some(130));
    let mut said = String::new();
    while let Some(line) = soon("the rest", lines.next_line()).await.unwrap() {
        said += &line;
    }
    assert!(said.contains("The promotion goes on. To end it:  pointsman policy promote --abort --admin"), "{said}");
    assert_eq!(s.proxy.policy().await["promotion"]["state"], "running");
}
