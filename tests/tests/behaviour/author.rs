//! The author's commands, as an author runs them.

use std::path::Path;

use pointsman_tests::{Finished, Proxy, backend, proxy, run, upstream};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_proxy-under-test");

async fn policy(dir: &Path, args: &[&str]) -> Finished {
    let args: Vec<&str> = ["policy"].iter().chain(args).copied().collect();
    run(BINARY, dir, &args, &[]).await
}

fn component() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/default/default.wasm")
}

fn json(done: &Finished) -> Value {
    serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", done.stdout, done.stderr))
}

#[tokio::test]
async fn a_new_project_is_what_its_readme_says() {
    for (language, own) in [
        ("rust", &["Cargo.toml", "src/lib.rs", "sdk/Cargo.toml", "sdk/src/lib.rs"][..]),
        ("js", &["policy.js", "pointsman.js", "package.json"]),
        ("python", &["policy.py", "pointsman.py", "requirements.txt"]),
        ("c", &["policy.c", "pointsman/pointsman.h", "pointsman/pointsman.c"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let done = policy(dir.path(), &["new", "mine", "--lang", language]).await;
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        assert!(done.stdout.contains("pointsman policy build mine"), "{}", done.stdout);
        let common = ["README.md", ".gitignore", "wit/policy.wit", "scenarios/wait.toml"];
        for file in own.iter().chain(&common) {
            assert!(dir.path().join("mine").join(file).is_file(), "{language}: {file}");
        }
        let readme = std::fs::read_to_string(dir.path().join("mine/README.md")).unwrap();
        let first_of_table =
            |line: &str| line.strip_prefix("| `").and_then(|l| l.split_once("` |")).map(|(f, _)| f.to_owned());
        for named in readme.lines().filter_map(first_of_table).filter(|f| !f.contains([' ', '*'])) {
            assert!(dir.path().join("mine").join(&named).exists(), "{language}: the README names {named}");
        }
        for scenario in std::fs::read_dir(dir.path().join("mine/scenarios")).unwrap() {
            let text = std::fs::read_to_string(scenario.unwrap().path()).unwrap();
            text.parse::<toml::Table>().unwrap_or_else(|e| panic!("{language}: {e}"));
        }
    }
}

#[tokio::test]
async fn the_scenarios_of_a_new_project_fit_the_default_policy_too() {
    let dir = tempfile::tempdir().unwrap();
    policy(dir.path(), &["new", "mine", "--lang", "c"]).await;
    for scenario in ["calm", "wait"] {
        let done = policy(dir.path(), &["test", "default", &format!("mine/scenarios/{scenario}.toml")]).await;
        assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
        assert!(done.stdout.ends_with("1 passed, 0 failed\n"), "{}", done.stdout);
    }
}

#[tokio::test]
async fn a_new_project_touches_nothing_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("mine")).unwrap();
    std::fs::write(dir.path().join("mine/thesis.txt"), "years of work").unwrap();
    let done = policy(dir.path(), &["new", "mine", "--lang", "rust"]).await;
    assert_eq!(done.code, Some(1));
    assert_eq!(done.stderr.lines().count(), 1, "one sentence: {}", done.stderr);
    assert!(done.stderr.contains("mine is there, and is not empty"), "{}", done.stderr);
    assert_eq!(std::fs::read_dir(dir.path().join("mine")).unwrap().count(), 1);

    for (args, code, words) in [
        (&["new", "Über", "--lang", "rust"][..], 1, "only a-z, 0-9, - and _"),
        (&["new", "mine", "--lang", "cobol"], 2, "possible values: rust, js, python, c"),
        (&["new", "mine"], 2, "--lang"),
        (&["build", "nowhere"], 1, "there is no folder nowhere"),
        (&["build", "."], 1, "is no policy"),
    ] {
        let done = policy(dir.path(), args).await;
        assert_eq!(done.code, Some(code), "{args:?}: {}", done.stderr);
        assert!(done.stderr.contains(words), "{args:?}: {}", done.stderr);
    }
}

#[tokio::test]
async fn a_good_component_is_accepted_aspect_by_aspect() {
    let dir = tempfile::tempdir().unwrap();
    let file = component();
    let done = policy(dir.path(), &["check", file.to_str().unwrap()]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    for words in
        ["size", "pointsman:policy@1.0.0", "configure, decide", "all backends drained: ", "accepted: revision "]
    {
        assert!(done.stdout.contains(words), "{words:?} in {}", done.stdout);
    }
    let report = json(&policy(dir.path(), &["check", file.to_str().unwrap(), "--json"]).await);
    assert_eq!(report["accepted"], true);
    assert!(report["figures"]["decision_p50_us"].as_f64().unwrap() > 0.0, "{report}");
    assert!(report["figures"]["fresh_memory_bytes"].as_u64().unwrap() > 65_536, "{report}");
}

#[tokio::test]
async fn a_bad_component_is_refused_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let whole = std::fs::read(component()).unwrap();
    for (bytes, words) in [
        (&b""[..], "is empty"),
        (b"fn main() {}", "is not WebAssembly"),
        (b"(component)", "its text form"),
        (b"\0asm\x01\0\0\0", "a core WebAssembly module, not a component"),
        (&whole[..whole.len() / 3], "cut off"),
        (b"\0asm\x0d\0\x01\0", "does not export `configure`"),
    ] {
        std::fs::write(dir.path().join("bad.wasm"), bytes).unwrap();
        let done = policy(dir.path(), &["check", "bad.wasm"]).await;
        assert_eq!(done.code, Some(1), "{words}: {}", done.stdout);
        assert!(done.stdout.contains(words) && done.stdout.ends_with("refused\n"), "{words}: {}", done.stdout);
        let report = json(&policy(dir.path(), &["check", "bad.wasm", "--json"]).await);
        assert_eq!(report["accepted"], false);
    }
    // So large that nobody could read it whole.
    std::fs::File::create(dir.path().join("huge.wasm")).unwrap().set_len(1 << 36).unwrap();
    let huge = policy(dir.path(), &["check", "huge.wasm"]).await;
    assert_eq!(huge.code, Some(1), "{}", huge.stderr);
    assert!(huge.stdout.contains("has more than 67108864 bytes"), "{}", huge.stdout);
    let missing = policy(dir.path(), &["check", "missing.wasm"]).await;
    assert_eq!(missing.code, Some(2));
    assert!(missing.stderr.contains("missing.wasm"), "{}", missing.stderr);
}

#[tokio::test]
async fn a_component_is_checked_for_a_configuration_as_the_proxy_would() {
    let dir = tempfile::tempdir().unwrap();
    let config = "[[backend]]\nid = \"only-one\"\nbase_url = \"http://127.0.0.1:9/v1\"\n";
    let check = |settings: &str| {
        std::fs::write(dir.path().join("pointsman.toml"), format!("[policy.settings]\n{settings}\n{config}")).unwrap();
        policy(dir.path(), &["check", "default", "--config", "pointsman.toml"])
    };
    let good = check("primary_wait_ms = 1234").await;
    assert_eq!(good.code, Some(0), "{}", good.stdout);
    for words in ["the table of pointsman.toml (1 backends)", "\"primary_wait_ms\":1234", "primary only-one"] {
        assert!(good.stdout.contains(words), "{words:?} in {}", good.stdout);
    }
    let bad = check("primary_wait = 1234").await;
    assert_eq!(bad.code, Some(1), "{}", bad.stdout);
    assert!(bad.stdout.contains("no   configure") && bad.stdout.contains("`primary_wait`"), "{}", bad.stdout);
    let worse = check("primary_wait_ms = ").await;
    assert_eq!(worse.code, Some(2), "{}", worse.stdout);
    assert!(worse.stderr.contains("pointsman.toml:2"), "{}", worse.stderr);
}

#[tokio::test]
async fn a_bench_has_sane_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let report = json(&policy(dir.path(), &["bench", "default", "--json"]).await);
    let lines = report["decisions"].as_array().unwrap();
    assert_eq!(lines.len(), 10, "five sizes, two questions");
    for line in lines {
        for policy in ["policy", "default"] {
            let (p50, p99) = (&line[policy]["p50_us"], &line[policy]["p99_us"]);
            let (p50, p99) = (p50.as_f64().unwrap(), p99.as_f64().unwrap());
            assert!(0.0 < p50 && p50 <= p99 && p50 < 5_000.0, "{line}");
        }
        // The same policy twice, measured in turns.
        assert!((0.2..5.0).contains(&line["ratio"].as_f64().unwrap()), "{line}");
    }
    assert!(report["policy"]["compile_ms"].as_f64().unwrap() > 1.0, "the cache was not used: {report}");
    assert!(report["policy"]["start_us"].as_f64().unwrap() > 1.0, "{report}");
    assert_eq!(report["policy"]["memory_bytes"], report["default"]["memory_bytes"]);
    assert_eq!(policy(dir.path(), &["bench", "missing.wasm"]).await.code, Some(2));
}

async fn any_proxy() -> (Proxy, pointsman_tests::Upstream) {
    let up = upstream().start().await;
    (proxy!().backend(backend("p1").primary(&up)).start().await, up)
}

#[tokio::test]
async fn check_and_proxy_name_the_same_revision() {
    let (proxy, _up) = any_proxy().await;
    let in_force = proxy.chat().send().await.header("x-pointsman-policy").to_owned();
    let dir = tempfile::tempdir().unwrap();
    let report = json(&policy(dir.path(), &["check", "default", "--json"]).await);
    assert_eq!(report["revision"], in_force.as_str());
}

#[tokio::test]
async fn the_help_of_every_command_has_an_example() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["new", "build", "check", "test", "bench"] {
        let done = policy(dir.path(), &[command, "--help"]).await;
        assert_eq!(done.code, Some(0));
        assert!(done.stdout.contains(&format!("pointsman policy {command} ")), "{}", done.stdout);
    }
}
