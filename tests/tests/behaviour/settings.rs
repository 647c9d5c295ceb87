//! Settings of policies: by the configuration's policy, by the name of a table, or with an upload.

use std::path::Path;

use http::Method;
use pointsman_engine::named;
use pointsman_tests::{
    Proxy, ProxyBuilder, Upstream, WatPolicy, backend, chat, proxy, revision_of, run, sends_to, upstream,
};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_proxy-under-test");

/// As the README's first step has them.
fn of_the_readme(builder: ProxyBuilder) -> ProxyBuilder {
    builder.setting("primary_wait_ms", 5_000).setting("primary_wait_max_retries", 6)
}

/// Knows none of the default policy's settings.
fn another() -> WatPolicy {
    sends_to(0).knows_no("primary_wait")
}

fn default_component() -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/default/default.wasm")).unwrap()
}

async fn with_one_backend() -> (ProxyBuilder, Upstream) {
    let up = upstream().start().await;
    (proxy!().backend(backend("p").primary(&up)), up)
}

/// A proxy whose configuration names this component.
async fn decided_by(
    component: Vec<u8>,
    more: impl Fn(ProxyBuilder) -> ProxyBuilder,
) -> (Proxy, Upstream, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.wasm");
    std::fs::write(&file, component).unwrap();
    let (builder, up) = with_one_backend().await;
    (more(builder.policy_file(&file)).start().await, up, folder)
}

#[tokio::test]
async fn settings_of_another_policy_are_a_warning_and_no_refusal() {
    let (builder, _up) = with_one_backend().await;
    let proxy = of_the_readme(builder).start().await;
    let component = another().build();
    let answer = proxy.put_policy(component.clone()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let policy: Value = answer.json();
    assert_eq!(policy["settings"], json!({}));
    assert_eq!(policy["settings_left_out"], json!(["primary_wait_max_retries", "primary_wait_ms"]));
    let warning = policy["warning"].as_str().unwrap().to_owned();
    assert!(warning.contains("primary_wait_max_retries, primary_wait_ms belong to another policy"), "{warning}");
    proxy.wait_log("the warning", |l| (l["level"] == "WARN" && l["message"] == *warning).then_some(())).await;
    assert_eq!(proxy.chat().send().await.header("x-pointsman-policy"), revision_of(&component));
    // Back under the policy that they belong to.
    assert_eq!(proxy.rollback(None).await.status, 200);
    let policy = proxy.policy().await;
    assert_eq!(policy["settings"], json!({ "primary_wait_ms": 5_000, "primary_wait_max_retries": 6 }));
    assert_eq!((&policy["settings_left_out"], &policy["warning"]), (&json!([]), &Value::Null));
}

/// A form with these fields and, as `policy`, a component.
fn form(fields: &[(&str, &str)], component: &[u8]) -> Vec<u8> {
    let mut form = Vec::new();
    for (name, value) in fields {
        let field = format!("--B\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        form.extend_from_slice(field.as_bytes());
    }
    let head = "--B\r\ncontent-disposition: form-data; name=\"policy\"; filename=\"p.wasm\"\r\n\
                content-type: application/wasm\r\n\r\n";
    form.extend_from_slice(head.as_bytes());
    form.extend_from_slice(component);
    form.extend_from_slice(b"\r\n--B--\r\n");
    form
}

#[tokio::test]
async fn a_form_brings_a_component_and_its_settings() {
    const TYPE: &str = "multipart/form-data; boundary=B";
    let (builder, _up) = with_one_backend().await;
    let proxy = builder.start().await;
    let put = async |fields: &[(&str, &str)]| {
        let body = form(fields, &default_component());
        proxy.admin_request(Method::PUT, "/api/policy").body(TYPE, body).send().await
    };
    let answer = put(&[("settings", r#"{"primary_wait_ms":70}"#), ("name", "mine")]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let policy: Value = answer.json();
    assert_eq!(policy["settings"], json!({ "primary_wait_ms": 70 }));
    assert_eq!(policy["revision"], revision_of(&default_component()));
    assert_eq!(policy["history"][0]["name"], "mine");
    for (fields, status, words) in [
        (&[("setings", "{}")][..], 400, "it may have policy, the component, and name, settings, set"),
        (&[("settings", "{}"), ("settings", "{}")], 400, "settings is given twice"),
        (&[("settings", r#"{"primary_wait":1}"#)], 422, "`primary_wait` is no setting"),
    ] {
        let answer = put(fields).await;
        assert_eq!(answer.status, status, "{fields:?}: {}", answer.text());
        assert!(answer.text().contains(words), "{fields:?}: {}", answer.text());
    }
    assert_eq!(proxy.policy().await["settings"], json!({ "primary_wait_ms": 70 }), "what is refused changes nothing");
}

#[tokio::test]
async fn a_wrong_value_of_a_setting_that_the_other_policy_knows_stays_a_refusal() {
    let more = |builder: ProxyBuilder| builder.setting("primary_wait_ms", -1).setting("patience", 3);
    let (proxy, _up, _folder) = decided_by(sends_to(0).build(), more).await;
    let answer = proxy.put_policy(default_component()).await;
    let told = answer.text();
    assert_eq!(answer.status, 422, "{told}");
    for words in ["`primary_wait_ms` must be a whole number", "pointsman.toml:", "?settings="] {
        assert!(told.contains(words), "{words}: {told}");
    }
    proxy.put_policy_with(default_component(), &[("settings", r#"{"primary_wait_ms":1}"#)]).await;
    assert_eq!(proxy.policy().await["settings"], json!({ "primary_wait_ms": 1 }));
}

#[tokio::test]
async fn the_policy_that_the_configuration_names_must_know_its_settings() {
    let (builder, _up) = with_one_backend().await;
    let mut proxy = of_the_readme(builder).start().await;
    let misspelt = toml::Table::from_iter([("primary_wait_max_retry".to_owned(), toml::Value::Integer(6))]);
    proxy.reconfigure("policy.settings", misspelt);
    let told =
        |l: &Value| l["error"].as_str().filter(|error| error.contains("primary_wait_max_retry")).map(str::to_owned);
    let error = proxy.wait_log("the refusal", told).await;
    let text = std::fs::read_to_string(proxy.dir().join("pointsman.toml")).unwrap();
    let line = text.lines().position(|line| line.starts_with("primary_wait_max_retry =")).unwrap() + 1;
    assert!(error.contains(&format!("pointsman.toml:{line}:1; did you mean `primary_wait_max_retries`?")), "{error}");

    let done = run(BINARY, proxy.dir(), &["config", "check", "pointsman.toml"], &[]).await;
    let told = done.stdout + &done.stderr;
    assert_eq!(done.code, Some(1), "{told}");
    for words in [format!("pointsman.toml:{line}:1"), "help: did you mean `primary_wait_max_retries`?".to_owned()] {
        assert!(told.contains(&words), "{words}: {told}");
    }
    let done = run(BINARY, proxy.dir(), &["serve"], &[]).await;
    assert_eq!(done.code, Some(1), "it does not start with them");
    let words = format!("pointsman.toml:{line}:1; did you mean `primary_wait_max_retries`?");
    assert!(done.stderr.contains(&words), "{}", done.stderr);
}

#[tokio::test]
async fn a_policy_is_checked_with_settings_that_are_given() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("own.json"), r#"{"primary_wait_ms": 70}"#).unwrap();
    std::fs::write(folder.path().join("another.wasm"), another().build()).unwrap();
    std::fs::create_dir(folder.path().join("project")).unwrap();
    std::fs::write(folder.path().join("project/policy.wasm"), another().build()).unwrap();
    let config = "[policy.settings]\nprimary_wait_ms = 1\n[policy.settings.another]\nown = 2\n\
                  [[backend]]\nid = \"a\"\nbase_url = \"http://127.0.0.1:9/v1\"\n";
    std::fs::write(folder.path().join("pointsman.toml"), config).unwrap();
    let check = async |args: &[&str]| {
        let done = run(BINARY, folder.path(), &[&["policy", "check"], args].concat(), &[]).await;
        (done.code, done.stdout + &done.stderr)
    };
    for (args, code, words) in [
        (&["default", "--set", "primary_wait_ms=50"][..], 0, r#"settings {"primary_wait_ms":50}"#),
        (
            &["default", "--settings", "own.json", "--set", "max_pool_retries=1"],
            0,
            r#"{"max_pool_retries":1,"primary_wait_ms":70}"#,
        ),
        (&["default", "--set", "primary_wait=50"], 1, "`primary_wait` is no setting"),
        (&["default", "--set", "primary_wait"], 2, "write --set KEY=VALUE"),
        (&["another.wasm", "--config", "pointsman.toml"], 0, r#"settings {"own":2}"#),
        (&["default", "--config", "pointsman.toml"], 0, r#"settings {"primary_wait_ms":1}"#),
        (&["project"], 0, "accepted: revision"),
        (&["nowhere"], 2, "give a component file, a project that is built, or `default`"),
    ] {
        let (ended, told) = check(args).await;
        assert_eq!(ended, Some(code), "{args:?}: {told}");
        assert!(told.contains(words), "{args:?}: {told}");
    }
    std::fs::rename(folder.path().join("another.wasm"), folder.path().join("third.wasm")).unwrap();
    let (ended, told) = check(&["third.wasm", "--config", "pointsman.toml"]).await;
    assert_eq!(ended, Some(0), "{told}");
    assert!(
        told.contains("warn settings") && told.contains("the setting primary_wait_ms belongs to another policy"),
        "{told}"
    );
}

#[tokio::test]
async fn a_table_belongs_to_the_policy_of_its_name() {
    let (builder, _up) = with_one_backend().await;
    let builder = of_the_readme(builder).set("policy.settings.mine.a_long_word", "and another");
    let mut proxy = builder.start().await;
    assert_eq!(proxy.policy().await["settings"], json!({ "primary_wait_ms": 5_000, "primary_wait_max_retries": 6 }));
    let mine = another().wants_settings_of(20).build();
    let refused = proxy.put_policy_with(mine.clone(), &[("name", "other")]).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    let taken = proxy.put_policy_with(mine.clone(), &[("name", "mine")]).await;
    assert_eq!(taken.status, 200, "{}", taken.text());
    let policy: Value = taken.json();
    assert_eq!(policy["settings"], json!({ "a_long_word": "and another" }));
    assert_eq!((&policy["warning"], &policy["history"][0]["name"]), (&Value::Null, &"mine".into()));
    // It follows the configuration, and keeps its name over a restart.
    proxy.reconfigure("policy.settings.mine.a_long_word", "and another one");
    proxy.wait_policy("its settings", |policy| policy["settings"]["a_long_word"] == "and another one").await;
    proxy.kill9().await;
    proxy.restart().await;
    let policy = proxy.policy().await;
    assert_eq!(policy["revision"], revision_of(&mine));
    assert_eq!(policy["settings"], json!({ "a_long_word": "and another one" }));
}

#[tokio::test]
async fn a_file_has_the_table_of_its_name_and_a_setting_may_be_a_table() {
    let more = |builder: ProxyBuilder| {
        let builder = builder.set("policy.settings.mine.own", 1).set("policy.settings.weights.a", 2);
        builder.set("policy.settings.default.primary_wait_ms", 250).set("policy.settings.plain", 3)
    };
    let (proxy, _up, _folder) = decided_by(another().build(), more).await;
    let policy = proxy.policy().await;
    assert_eq!(
        policy["settings"],
        json!({ "own": 1, "plain": 3, "weights": { "a": 2 } }),
        "and not the default policy's"
    );
    // The default policy's table is the default policy's, whoever decides.
    proxy.put_policy(default_component()).await;
    assert_eq!(proxy.policy().await["settings"], json!({ "primary_wait_ms": 250 }));

    // A table that the configured policy does not know is for a policy that is still to come.
    let more = |builder: ProxyBuilder| builder.set("policy.settings.primary_waiter.a", 1).setting("plain", 3);
    let (proxy, _up, _folder) = decided_by(another().build(), more).await;
    assert_eq!(proxy.policy().await["settings"], json!({ "plain": 3 }));
    let done = run(BINARY, proxy.dir(), &["config", "check", "pointsman.toml"], &[]).await;
    let told = done.stdout + &done.stderr;
    assert_eq!(done.code, Some(0), "{told}");
    assert!(told.contains("[policy.settings.primary_waiter] is for a policy called primary_waiter"), "{told}");
}

#[tokio::test]
async fn settings_that_came_with_an_upload_stay_with_it() {
    let (builder, _up) = with_one_backend().await;
    let mut proxy = of_the_readme(builder).start().await;
    let (mine, other) = (another().wants_settings_of(20).build(), sends_to(0).then("nop").build());
    let own = json!({ "a_long_word": { "and": ["a", "list"] } });
    let taken = proxy.put_policy_with(mine.clone(), &[("settings", &own.to_string())]).await;
    assert_eq!(taken.status, 200, "{}", taken.text());
    let policy: Value = taken.json();
    assert_eq!((&policy["settings"], &policy["history"][0]["settings"]), (&own, &own));
    proxy.reconfigure("policy.settings.primary_wait_ms", 100);
    proxy.wait_log("the configuration", |l| (l["message"] == "configuration reloaded").then_some(())).await;
    assert_eq!(proxy.policy().await["settings"], own, "they are not the configuration's");
    proxy.kill9().await;
    proxy.restart().await;
    let policy = proxy.policy().await;
    assert_eq!((&policy["revision"], &policy["settings"]), (&revision_of(&mine).into(), &own), "after a restart");
    proxy.put_policy(other).await;
    assert_eq!(proxy.rollback(None).await.json()["to"], revision_of(&mine));
    assert_eq!(proxy.policy().await["settings"], own, "after a rollback");
}

#[tokio::test]
async fn the_same_component_with_other_settings_is_another_revision_to_go_back_to() {
    let (builder, _up) = with_one_backend().await;
    let proxy = builder.start().await;
    let mine = another().build();
    for n in [1, 2] {
        let settings = json!({ "n": n }).to_string();
        assert_eq!(proxy.put_policy_with(mine.clone(), &[("settings", &settings)]).await.status, 200);
    }
    assert_eq!(proxy.policy().await["settings"], json!({ "n": 2 }));
    assert_eq!(proxy.rollback(None).await.status, 200);
    let policy = proxy.policy().await;
    assert_eq!((&policy["revision"], &policy["settings"]), (&revision_of(&mine).into(), &json!({ "n": 1 })));
}

#[tokio::test]
async fn what_comes_with_an_upload_is_read_strictly() {
    let (builder, _up) = with_one_backend().await;
    let proxy = builder.start().await;
    for (options, words) in [
        (&[("settings", "[1]")][..], "is no JSON object"),
        (&[("setting", "{}")], "`setting` is not a parameter"),
        (&[("settings", "{}"), ("settings", "{}")], "settings is given twice"),
        (&[("name", "")], "is no name"),
    ] {
        let answer = proxy.put_policy_with(another().build(), options).await;
        assert_eq!(answer.status, 400, "{options:?}");
        let told = answer.text();
        let changed_nothing =
            ["the policy in force stays", "nothing is changed"].iter().any(|words| told.contains(words));
        assert!(told.contains(words) && changed_nothing, "{told}");
    }
    let unknown = [("settings", r#"{"primary_wait_ms":1}"#)];
    let answer = proxy.put_policy_with(another().build(), &unknown).await;
    assert_eq!(answer.status, 422, "what comes with it is its own: {}", answer.text());
}

#[tokio::test]
async fn a_promotion_brings_settings_along() {
    let (builder, _up) = with_one_backend().await;
    let proxy = of_the_readme(builder).start().await;
    std::fs::write(proxy.dir().join("candidate.wasm"), default_component()).unwrap();
    let admin = format!("http://{}", proxy.admin_addr());
    let promote = async |args: &[&str]| {
        let all = [&["policy", "promote", "candidate.wasm", "--admin", admin.as_str(), "--detach"], args].concat();
        let done = run(BINARY, proxy.dir(), &all, &[]).await;
        (done.code, done.stdout + &done.stderr)
    };
    let same = promote(&[]).await;
    assert!(same.1.contains("is in force already"), "{}", same.1);
    let other = promote(&["--set", "primary_wait_ms=20000", "--for", "1h"]).await;
    assert_eq!(other.0, Some(0), "{}", other.1);
    assert_eq!(proxy.policy().await["promotion"]["state"], "running");
    assert_eq!(proxy.admin_request(http::Method::DELETE, "/api/policy/promote").send().await.status, 200);

    std::fs::write(proxy.dir().join("candidate.wasm"), another().build()).unwrap();
    let foreign = promote(&["--for", "1h"]).await;
    assert_eq!(foreign.0, Some(0), "{}", foreign.1);
    assert!(
        foreign.1.contains("warning: the settings primary_wait_max_retries, primary_wait_ms belong"),
        "{}",
        foreign.1
    );
}

#[tokio::test]
async fn the_shadow_is_told_the_settings_that_are_its_own() {
    let (builder, _up) = with_one_backend().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("watcher.wasm");
    std::fs::write(&file, another().wants_settings_of(20).build()).unwrap();
    let builder = of_the_readme(builder).set("policy.shadow.file", file.display().to_string());
    let mut proxy = builder.start().await;
    proxy.wait_policy("the refusal", |policy| policy["shadow"]["error"].is_string()).await;
    proxy.reconfigure("policy.settings.watcher.a_long_word", "and another");
    proxy.wait_policy("the shadow", |policy| policy["shadow"]["revision"].is_string()).await;
    assert_eq!(proxy.policy().await["settings"]["watcher"], Value::Null);
}

#[tokio::test]
async fn the_record_of_one_policy_is_put_to_another() {
    let up = upstream().reply(chat("well")).start().await;
    let proxy = of_the_readme(proxy!().backend(backend("p").primary(&up))).start().await;
    for _ in 0..110 {
        proxy.chat().send().await;
    }
    proxy.wait_rows(110, "SELECT ended_us FROM trail").await;
    std::fs::write(proxy.dir().join("another.wasm"), another().build()).unwrap();
    std::fs::write(proxy.dir().join("own.toml"), "a = 1\n").unwrap();
    std::fs::write(proxy.dir().join("wrong.toml"), "primary_wait_ms = 1\n").unwrap();
    let at = |command: &'static str, more: &'static [&'static str]| {
        let store = ["--store", "pointsman.db", "--policy", "another.wasm", "--json"];
        [&[command][..], &store, more].concat()
    };
    let left_out = json!(["primary_wait_max_retries", "primary_wait_ms"]);
    for command in ["replay", "backtest"] {
        let more: &[&str] = if command == "backtest" { &["--seeds", "2"] } else { &[] };
        let done = run(BINARY, proxy.dir(), &[&at(command, &[]), more].concat(), &[]).await;
        assert_eq!(done.code, Some(0), "{command}: {}", done.stderr);
        assert!(
            done.stderr.contains("warning: of what was recorded, the settings primary_wait_max"),
            "{}",
            done.stderr
        );
        let report: Value = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!(report["settings_left_out"], left_out, "{command}");
        // What is given is for it.
        let done =
            run(BINARY, proxy.dir(), &[&at(command, &["--settings", "own.toml", "--set", "b=2"]), more].concat(), &[])
                .await;
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{command}");
        for wrong in [&["--settings", "wrong.toml"], &["--set", "primary_wait_ms=1"]] {
            let done = run(BINARY, proxy.dir(), &[&at(command, &[]), more, wrong].concat(), &[]).await;
            assert_eq!(done.code, Some(1), "{command} {wrong:?}: {}", done.stdout);
            assert!(done.stderr.contains("refuse") || done.stderr.contains("cannot be asked"), "{}", done.stderr);
        }
    }
    // As the README has it: the same policy with other settings.
    let args = [
        "backtest",
        "--store",
        "pointsman.db",
        "--policy",
        "default",
        "--set",
        "primary_wait_ms=20000",
        "--seeds",
        "2",
    ];
    let done = run(BINARY, proxy.dir(), &args, &[]).await;
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{}", done.stdout);

    let scenario =
        run(BINARY, proxy.dir(), &["explain", "last", "--store", "pointsman.db", "--as-scenario"], &[]).await;
    std::fs::write(proxy.dir().join("incident.toml"), &scenario.stdout).unwrap();
    let test = run(BINARY, proxy.dir(), &["policy", "test", "another.wasm", "incident.toml"], &[]).await;
    assert_eq!(test.code, Some(0), "{}{}", test.stdout, test.stderr);
    assert!(
        test.stdout.contains("warning: in incident.toml, the settings primary_wait_max_retries"),
        "{}",
        test.stdout
    );
}

#[tokio::test]
async fn the_policy_that_decided_takes_its_own_scenario() {
    let up = upstream().reply(chat("well")).start().await;
    let builder = of_the_readme(proxy!().backend(backend("p").primary(&up)));
    let proxy = builder.set("policy.settings.patience.a", 1).start().await;
    let mine = another().build();
    std::fs::write(proxy.dir().join("mine.wasm"), &mine).unwrap();
    for (policy, rows) in [("default", 1), ("mine.wasm", 2)] {
        proxy.chat().send().await;
        proxy.wait_rows(rows, "SELECT ended_us FROM trail").await;
        let args = ["explain", "last", "--store", "pointsman.db", "--as-scenario"];
        let scenario = run(BINARY, proxy.dir(), &args, &[]).await.stdout;
        std::fs::write(proxy.dir().join("own.toml"), &scenario).unwrap();
        let test = run(BINARY, proxy.dir(), &["policy", "test", policy, "own.toml"], &[]).await;
        assert_eq!(test.code, Some(0), "{policy}: {}{}\n{scenario}", test.stdout, test.stderr);
        proxy.put_policy(mine.clone()).await;
    }
}

#[tokio::test]
async fn a_new_build_of_the_configured_policy_keeps_its_settings() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.wasm");
    std::fs::write(&file, named(another().build(), "mine")).unwrap();
    let (builder, _up) = with_one_backend().await;
    let builder = builder.policy_file(&file).set("policy.settings.mine.own", 1).setting("patience", 3);
    let mut proxy = builder.start().await;
    let settings = json!({ "own": 1, "patience": 3 });
    assert_eq!(proxy.policy().await["settings"], settings);
    let build = named(another().then("nop").build(), "mine");
    assert_eq!(proxy.put_policy(build.clone()).await.status, 200);
    assert_eq!(proxy.policy().await["settings"], settings, "uploaded");
    // A component of another project is another policy, also where a file of it has the same name.
    assert_eq!(proxy.put_policy(named(another().build(), "other")).await.status, 200);
    assert_eq!(proxy.policy().await["settings"], json!({ "patience": 3 }));
    std::fs::remove_file(&file).unwrap();
    proxy.reconfigure("policy.settings.patience", 4);
    proxy.wait_policy("the configuration", |policy| policy["settings"]["patience"] == 4).await;
    assert_eq!(proxy.put_policy(build).await.status, 200);
    assert_eq!(proxy.policy().await["settings"], json!({ "own": 1, "patience": 4 }), "the file is gone");
}

#[tokio::test]
async fn a_single_setting_replaces_one_and_leaves_the_others() {
    let (builder, _up) = with_one_backend().await;
    let mut proxy = of_the_readme(builder).start().await;
    let settings = json!({ "primary_wait_ms": 70, "primary_wait_max_retries": 6 });
    let answer = proxy.put_policy_with(default_component(), &[("set", r#"{"primary_wait_ms":70}"#)]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["settings"], settings);
    proxy.kill9().await;
    proxy.restart().await;
    assert_eq!(proxy.policy().await["settings"], settings, "after a restart");

    // A candidate that is content with all of the configuration's only.
    std::fs::write(proxy.dir().join("candidate.wasm"), sends_to(0).wants_settings_of(50).build()).unwrap();
    let admin = format!("http://{}", proxy.admin_addr());
    let args = ["policy", "promote", "candidate.wasm", "--admin", &admin, "--detach", "--set", "patience=1"];
    let done = run(BINARY, proxy.dir(), &args, &[]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    assert_eq!(proxy.policy().await["promotion"]["state"], "running");
}

#[tokio::test]
async fn the_policy_file_that_takes_over_an_upload_makes_it_the_files() {
    let (mut proxy, _up, folder) = decided_by(sends_to(0).build(), |builder| builder.setting("plain", 1)).await;
    let file = folder.path().join("mine.wasm");
    let origin = file.display().to_string();
    let [b, c] = [another().build(), another().then("nop").build()];
    let own = [("settings", r#"{"own":2}"#)];
    assert_eq!(proxy.put_policy_with(b.clone(), &own).await.json()["settings"], json!({ "own": 2 }));
    std::fs::write(&file, &b).unwrap();
    let policy = proxy.wait_policy("the file's", |policy| policy["origin"] == *origin).await;
    assert_eq!((&policy["revision"], &policy["settings"]), (&revision_of(&b).into(), &json!({ "plain": 1 })));
    assert_eq!(policy["history"][0]["settings"], Value::Null);
    // Also where it came with nothing, and while Pointsman is stopped.
    assert_eq!(proxy.put_policy(c.clone()).await.status, 200);
    assert_eq!(proxy.policy().await["origin"], "upload");
    proxy.kill9().await;
    std::fs::write(&file, &c).unwrap();
    proxy.restart().await;
    let policy = proxy.policy().await;
    assert_eq!((&policy["revision"], &policy["origin"]), (&revision_of(&c).into(), &origin.into()));
}

#[tokio::test]
async fn the_same_component_with_other_settings_is_reached_by_its_name() {
    let (builder, _up) = with_one_backend().await;
    let proxy = builder.start().await;
    let mine = another().build();
    for n in [1, 2] {
        let settings = json!({ "n": n }).to_string();
        assert_eq!(proxy.put_policy_with(mine.clone(), &[("settings", &settings)]).await.status, 200);
    }
    for n in [1, 2] {
        let back = proxy.rollback(Some(&revision_of(&mine))).await;
        assert_eq!(back.status, 200, "{}", back.text());
        assert_eq!(proxy.policy().await["settings"], json!({ "n": n }));
    }
}

#[tokio::test]
async fn a_candidate_is_tried_with_the_settings_that_it_would_have_in_force() {
    // It is content with the plain key and its table together, and does not know the host's own key.
    let mine = sends_to(0).wants_settings_of(24).knows_no("emergency").build();
    let more = |builder: ProxyBuilder| {
        let builder = builder.set("policy.settings.mine.own", 1).setting("a_plain_key", 2);
        builder.set("policy.settings.mine.emergency_rpm_fraction", 0.5)
    };
    let (proxy, _up, folder) = decided_by(mine.clone(), more).await;
    for _ in 0..110 {
        proxy.chat().send().await;
    }
    proxy.wait_rows(110, "SELECT ended_us FROM trail").await;
    let build = folder.path().join("mine.wasm");
    for command in [&["replay"][..], &["backtest", "--seeds", "2"]] {
        let args = [command, &["--config", "pointsman.toml", "--policy", build.to_str().unwrap(), "--json"]].concat();
        let done = run(BINARY, proxy.dir(), &args, &[]).await;
        assert_eq!(done.code, Some(0), "{command:?}: {}", done.stderr);
        assert!(!done.stderr.contains("warning: of what was recorded"), "{}", done.stderr);
    }
}
