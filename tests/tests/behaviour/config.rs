//! The command line and the configuration file: what is wrong, where, and what to write.

use pointsman_tests::{Finished, backend, chat, proxy, run, soon, upstream};

const BINARY: &str = env!("CARGO_BIN_EXE_proxy-under-test");

async fn check(config: &str) -> Finished {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("pointsman.toml"), config).unwrap();
    run(BINARY, dir.path(), &["config", "check", "pointsman.toml"], &[]).await
}

const GOOD: &str = "[[backend]]\nid = \"a\"\nbase_url = \"http://127.0.0.1:9/v1\"\napi_key = \"env:NO_KEY_NEEDED\"\n";

#[tokio::test]
async fn problems_are_told_with_file_line_and_column() {
    for (config, place, words) in [
        ("[server]\nlisten = 5\n", "pointsman.toml:2:10", &["listen"][..]),
        ("[server]\nlissten = \"127.0.0.1:1\"\n", "pointsman.toml:2:1", &["lissten", "listen"]),
        ("[server\n", "pointsman.toml:1:", &[]),
        ("[[backend]]\nid = \"a\"\nbase_url = \"nonsense\"\n", "pointsman.toml:3:12", &["base_url"]),
        ("[[backend]]\nid = \"a\"\nbase_url = \"http://a/v1\"\nrpm = -3\n", "pointsman.toml:4:7", &["rpm"]),
        (
            "[[backend]]\nid = \"a\"\nbase_url = \"http://a/v1\"\nmodels = [\"m\"]\nhealth_check = { model = \"x\" }\n",
            "pointsman.toml:5:",
            &["does not serve `x`"],
        ),
        (
            "[[backend]]\nid = \"a\"\nbase_url = \"http://a/v1\"\ntier = \"third\"\n",
            "pointsman.toml:4:8",
            &["primary", "fallback"],
        ),
    ] {
        let done = check(config).await;
        let said = done.stdout + &done.stderr;
        assert_eq!(done.code, Some(1), "{config}\n-> {said}");
        assert!(said.contains(place), "{config}\n-> {said}");
        assert!(words.iter().all(|w| said.contains(w)), "{config}\n-> {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[tokio::test]
async fn serve_refuses_a_bad_file_the_same_way() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("pointsman.toml"), "[server]\nlissten = 1\n").unwrap();
    let done = run(BINARY, dir.path(), &["serve", "--config", "pointsman.toml"], &[]).await;
    assert_eq!(done.code, Some(1));
    assert!(done.stderr.contains("pointsman.toml:2:1"), "{}", done.stderr);
    let missing = run(BINARY, dir.path(), &["serve", "--config", "not-there.toml"], &[]).await;
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.contains("not-there.toml"), "{}", missing.stderr);
}

#[tokio::test]
async fn a_good_file_passes_the_check() {
    let done = check(&GOOD.replace("env:NO_KEY_NEEDED", "k")).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
}

#[tokio::test]
async fn the_policy_the_store_and_the_listeners_are_looked_at_too() {
    let good = GOOD.replace("env:NO_KEY_NEEDED", "k");
    for (more, place, words) in [
        ("[policy]\nfile = \"mine.wasm\"\n", "pointsman.toml:2:8", "mine.wasm cannot be read"),
        ("[policy]\nfile = \"pointsman.toml\"\n", "pointsman.toml:2:8", "not WebAssembly"),
        ("[store]\npath = \"no/such/folder.db\"\n", "pointsman.toml:2:8", "is not there"),
        ("[server]\nlisten = \"127.0.0.1:9901\"\n", "pointsman.toml:2:10", "at the same address"),
    ] {
        let done = check(&format!("{more}{good}")).await;
        assert_eq!(done.code, Some(1), "{more}: {}{}", done.stdout, done.stderr);
        assert!(done.stderr.contains(place) && done.stderr.contains(words), "{more}: {}", done.stderr);
    }
}

#[tokio::test]
async fn a_key_that_is_not_in_the_environment_is_named() {
    let done = check(GOOD).await;
    assert_eq!(done.code, Some(1));
    let said = done.stdout + &done.stderr;
    assert!(said.contains("NO_KEY_NEEDED"), "{said}");
}

#[tokio::test]
async fn wrong_usage_is_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&["no-such-command"][..], &["serve", "--no-such-option"], &[]] {
        let done = run(BINARY, dir.path(), args, &[]).await;
        assert_eq!(done.code, Some(2), "{args:?}: {}{}", done.stdout, done.stderr);
    }
    let help = run(BINARY, dir.path(), &["--help"], &[]).await;
    assert_eq!(help.code, Some(0));
    assert!(["serve", "demo", "config"].iter().all(|c| help.stdout.contains(c)), "{}", help.stdout);
}

#[tokio::test]
async fn the_schema_is_json() {
    let dir = tempfile::tempdir().unwrap();
    let done = run(BINARY, dir.path(), &["config", "schema"], &[]).await;
    let schema: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert!(schema["properties"]["backend"].is_object(), "{schema}");
}

#[tokio::test]
async fn serve_without_any_provider_names_the_demo() {
    let dir = tempfile::tempdir().unwrap();
    let done = run(BINARY, dir.path(), &["serve"], &[]).await;
    assert_eq!(done.code, Some(1));
    assert!(done.stderr.contains("demo") && done.stderr.contains("OPENAI_API_KEY"), "{}", done.stderr);
}

#[tokio::test]
async fn the_environment_overrides_the_file() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).set("server.max_body_bytes", 1_000_000);
    let proxy = proxy.env("POINTSMAN__SERVER__MAX_BODY_BYTES", "10").start().await;
    assert_eq!(proxy.chat().send().await.status, 413);
}

#[tokio::test]
async fn an_open_proxy_beyond_loopback_is_refused_unless_it_is_meant() {
    let config = format!("[server]\nlisten = \"0.0.0.0:0\"\n{}", GOOD.replace("env:NO_KEY_NEEDED", "k"));
    let done = check(&config).await;
    let said = done.stdout + &done.stderr;
    assert_eq!(done.code, Some(1), "{said}");
    assert!(said.contains("client") && said.contains("allow_open"), "{said}");
}

#[tokio::test]
async fn a_missing_price_is_warned_of_by_the_check_at_a_start_and_at_a_reload() {
    let up = upstream().reply(chat("well")).start().await;
    let paid = |sent: &str| backend("f1").fallback(&up).model("m", sent).price("gpt-4.1-mni", 0.4, 1.6);
    let mut proxy = proxy!().backend(paid("gpt-4.1-mini")).start().await;
    let typo = "there is a price for `gpt-4.1-mni`, which `f1` never sends";
    assert_eq!(proxy.told(typo), 1, "{:#?}", proxy.output());
    assert_eq!(proxy.chat().send().await.status, 200);

    let file = proxy.dir().join("pointsman.toml").display().to_string();
    let elsewhere = tempfile::tempdir().unwrap();
    let check = ["config", "check"];
    let done = run(BINARY, elsewhere.path(), &check, &[("POINTSMAN_CONFIG", &file)]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(
        done.stderr.contains(typo) && done.stderr.contains("write [backend.price.\"gpt-4.1-mini\"]"),
        "{}",
        done.stderr
    );
    assert!(done.stdout.contains("serves m"), "the file of the variable: {}", done.stdout);

    proxy.reconfigure_backends([paid("gpt-4.1-mn")]);
    let warned = |l: &serde_json::Value| (l["level"] == "WARN" && l["message"] == typo).then(|| l.clone());
    let warning = proxy.wait_log("the warning", warned).await;
    assert!(warning["help"].as_str().unwrap().contains("[backend.price.\"gpt-4.1-mn\"]"), "{warning}");
    assert!(warning["at"].as_str().unwrap().starts_with("pointsman.toml:"), "{warning}");
}

#[tokio::test]
async fn promote_finds_the_admin_listener_and_its_token_in_the_configuration() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).set("admin.token", "t0ken").start().await;
    // The file that the proxy was started with has port 0; an operator's has the port.
    let file = proxy.dir().join("operator.toml");
    let admin = proxy.admin_addr();
    std::fs::write(&file, format!("[admin]\nlisten = \"{admin}\"\ntoken = \"env:T\"\n")).unwrap();
    let file = file.display().to_string();
    let abort = ["policy", "promote", "--abort"];
    for (env, words) in [
        ([("POINTSMAN_CONFIG", file.as_str()), ("T", "t0ken")], "no promotion is under way"),
        ([("POINTSMAN_CONFIG", file.as_str()), ("T", "other")], "does not take this token"),
        ([("POINTSMAN_CONFIG", file.as_str()), ("U", "")], "variable T, which is not set"),
    ] {
        let done = run(BINARY, proxy.dir(), &abort, &env).await;
        assert!(done.code != Some(0) && done.stderr.contains(words), "{words}: {}{}", done.stdout, done.stderr);
    }
    // An address that is given gets the token only of a file that is given with it.
    let (url, env) = (format!("http://{admin}"), [("POINTSMAN_CONFIG", file.as_str()), ("T", "t0ken")]);
    for (more, words) in [(&[][..], "wants a token"), (&["--config", file.as_str()][..], "no promotion is under way")] {
        let done = run(BINARY, proxy.dir(), &[&abort[..], &["--admin", url.as_str()], more].concat(), &env).await;
        assert!(done.code != Some(0) && done.stderr.contains(words), "{words}: {}{}", done.stdout, done.stderr);
    }
}

#[tokio::test]
async fn a_changed_file_is_taken_and_a_bad_one_is_not() {
    let (old, new) = (upstream().reply(chat("old")).start().await, upstream().reply(chat("new")).start().await);
    let mut proxy = proxy!().backend(backend("p1").primary(&old)).start().await;
    assert_eq!(proxy.chat().send().await.says(), "old");
    proxy.reconfigure_backends([backend("p1").set("base_url", "not a url").set("api_key", "k-in-plain-text")]);
    proxy.wait_log("the refusal", |l| l.to_string().contains("pointsman.toml:").then_some(())).await;
    assert_eq!(proxy.chat().send().await.says(), "old");
    let refusal = proxy.admin("/api/config").send().await.json()["refusal"]["error"].as_str().unwrap().to_owned();
    assert!(refusal.starts_with("error: `base_url` must begin"), "what has to be corrected, first: {refusal}");
    assert!(!refusal.contains("warning"), "{refusal}");
    proxy.reconfigure_backends([backend("p1").primary(&new)]);
    let taken = async { while proxy.chat().send().await.says() != "new" {} };
    soon("the new table", taken).await;
}
