//! Texts of models, notes, bodies, upstreams and files are shown on a terminal and do nothing there.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use pointsman_tests::{Finished, Proxy, Reply, backend, chat, json, proxy, run, run_within, soon, upstream};
use serde_json::{Value, json as value};
use tokio::io::{AsyncBufReadExt, BufReader};

const BINARY: &str = env!("CARGO_BIN_EXE_proxy-under-test");

/// Copies to the clipboard (OSC 52), clears the screen, rings, begins a line, turns the order of reading, in C0 and C1.
const NASTY: &str =
    "\u{1b}]52;c;ZXZpbA==\u{7}\r\nFORGED\u{0}\u{1b}[2J\u{9b}2J\u{9d}0;t\u{9c}\u{202e}txt\u{2066}\u{7f}\u{85}\u{2028}";

fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Nothing of it acts on a terminal, and no line was begun by what came from outside.
fn is_harmless(what: &str, text: &str) {
    let unseen = text.chars().find(|c| is_unseen(*c) && !matches!(c, '\n' | '\t'));
    assert_eq!(unseen, None, "{what}: {text:?}");
    assert!(text.lines().all(|line| !line.trim_start().starts_with("FORGED")), "{what}: {text}");
}

fn both(what: &str, ended: &Finished) -> String {
    is_harmless(what, &ended.stdout);
    is_harmless(what, &ended.stderr);
    format!("{}{}", ended.stdout, ended.stderr)
}

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A refusal that says the nasty thing in its message, type and code.
fn nasty_refusal() -> Reply {
    json(value!({"error": {"message": NASTY, "type": NASTY, "code": NASTY}})).with_status(400)
}

/// Asks once for a nasty model under a policy that notes nasty things; an answer, a refusal, one that is not served.
async fn asked() -> (Proxy, Vec<String>) {
    let up = upstream().reply(chat(NASTY)).then(nasty_refusal()).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).set("journal.bodies", true);
    let proxy = proxy.policy_file(&fixture("hostile/hostile.wasm")).start().await;
    let mut ids = Vec::new();
    for model in [NASTY.to_owned(), format!("m{NASTY}")] {
        let body = value!({"model": model, "messages": [{"role": "user", "content": NASTY}]});
        let request =
            proxy.post("/v1/chat/completions").json(&body).header("x-pointsman-label-do", "control-characters");
        let answer = request.send().await;
        ids.push(answer.header("x-request-id").to_owned());
    }
    proxy.wait_rows(2, "SELECT id FROM exchanges").await;
    (proxy, ids)
}

#[tokio::test]
async fn an_explanation_escapes_models_notes_bodies_and_errors() {
    let (proxy, ids) = asked().await;
    for id in &ids {
        for more in [&[][..], &["--bodies"], &["--as-scenario"]] {
            let args = [&["explain", id.as_str()], more].concat();
            let ended = run(BINARY, proxy.dir(), &args, &[]).await;
            assert_eq!(ended.code, Some(0), "{args:?} {}", ended.stderr);
            let told = both(&format!("{args:?}"), &ended);
            if more.is_empty() {
                assert!(told.contains(r"\u001b]52;c;ZXZpbA==\u0007\r\nFORGED\u0000"), "it is shown: {told}");
                assert!(told.contains(r#"one\n{"level":"ERROR"}\u001b[2J\u0000two"#), "{told}");
            }
        }
        let ended = run(BINARY, proxy.dir(), &["explain", id, "--json", "--bodies"], &[]).await;
        both("explain --json", &ended);
        let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {}", ended.stdout));
        assert!(report["request"]["model"].as_str().unwrap().ends_with(NASTY), "JSON has what was said");
        assert!(report["bodies"]["request"]["text"].as_str().unwrap().contains("FORGED"));
    }
    let unknown =
        run(BINARY, proxy.dir(), &["explain", NASTY.trim_end_matches('\0').split('\0').next().unwrap()], &[]).await;
    assert_eq!(unknown.code, Some(1));
    let unseen = |c: char| is_unseen(c) && !matches!(c, '\n' | '\t');
    assert!(!unknown.stderr.contains(unseen), "{:?}", unknown.stderr);
}

#[tokio::test]
async fn replays_and_their_examples_escape_what_policies_and_models_say() {
    let (proxy, _) = asked().await;
    let default = fixture("../policies/default/default.wasm");
    for more in [&["--json"][..], &[], &["--policy", default.to_str().unwrap()]] {
        let args = [&["replay", "--store", "pointsman.db"], more].concat();
        let ended = run_within(std::time::Duration::from_secs(120), BINARY, proxy.dir(), &args, &[]).await;
        both(&format!("{args:?}"), &ended);
        if more == ["--json"] {
            serde_json::from_str::<Value>(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {}", ended.stdout));
        }
    }
}

#[tokio::test]
async fn scenarios_policies_and_configurations_escape_what_their_files_say() {
    let dir = tempfile::tempdir().unwrap();
    let quoted = value!(NASTY).to_string().replace('\u{7f}', "\\u007f");
    let scenario = std::fs::read_to_string(fixture("../policies/default/scenarios/01-one-429.toml")).unwrap();
    let (_, rest) = scenario.split_once('\n').unwrap();
    let failing = rest.replace("delivered by free", "delivered by paid");
    std::fs::write(dir.path().join("nasty.toml"), format!("title = {quoted}\n{failing}")).unwrap();
    let policy = fixture("../policies/default/default.wasm");
    for json in [&[][..], &["--json"]] {
        let args = [&["policy", "test", "--policy", policy.to_str().unwrap(), "nasty.toml"], json].concat();
        let ended = run(BINARY, dir.path(), &args, &[]).await;
        let unseen = |c: char| is_unseen(c) && !matches!(c, '\n' | '\t');
        assert!(!ended.stdout.contains(unseen) && !ended.stderr.contains(unseen), "{}{}", ended.stdout, ended.stderr);
    }
    let backend = |id: &str| format!("[[backend]]\nid = {id}\nbase_url = \"http://127.0.0.1:1/v1\"\napi_key = \"k\"\n");
    for content in [
        backend(&quoted),
        format!("{}[log]\nlevel = {quoted}\n", backend("\"a\"")),
        format!("{}[policy]\nfile = {quoted}\n", backend("\"a\"")),
        format!("{}tier = {quoted}\n", backend("\"a\"")),
        format!("{}{quoted} = 1\n", backend("\"a\"")),
        format!("# {}\n{}tier = \"x\" # \u{202e}\u{9b}2J\n", "c", backend("\"a\"")),
        "id = \u{1b}]52;c;eA==\u{7}\n".to_owned(),
        NASTY.to_owned(),
    ] {
        std::fs::write(dir.path().join("pointsman.toml"), &content).unwrap();
        for args in [&["config", "check", "pointsman.toml"][..], &["serve", "--config", "pointsman.toml"]] {
            let ended = run(BINARY, dir.path(), args, &[]).await;
            assert_ne!(ended.code, Some(0), "{content:?}");
            let unseen = |c: char| is_unseen(c) && !matches!(c, '\n' | '\t');
            assert!(
                !ended.stdout.contains(unseen) && !ended.stderr.contains(unseen),
                "{}{}",
                ended.stdout,
                ended.stderr
            );
        }
    }
}

#[tokio::test]
async fn logs_escape_in_text_and_in_json() {
    let up = upstream().reply(chat("hello")).then(nasty_refusal()).start().await;
    for format in ["pretty", "json"] {
        let dir = tempfile::tempdir().unwrap();
        let policy = fixture("hostile/hostile.wasm");
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"{format}\"\n[policy]\nfile = {}\n\
             [[backend]]\nid = \"p1\"\nbase_url = \"{}\"\napi_key = \"key-of-p1\"\n",
            value!(policy.display().to_string()),
            up.url()
        );
        std::fs::write(dir.path().join("pointsman.toml"), config).unwrap();
        let mut serving = tokio::process::Command::new(BINARY);
        serving
            .args(["serve", "--config", "pointsman.toml"])
            .current_dir(dir.path())
            .env_clear()
            .env("HOME", dir.path());
        serving.env("XDG_CACHE_HOME", std::env::temp_dir().join("pointsman-tests-cache"));
        let mut child = serving.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut all = Vec::new();
        let mut until = async |words: &str| loop {
            let line = soon("a log line", lines.next_line()).await.unwrap().expect("it goes on logging");
            all.push(line.clone());
            if line.contains(words) {
                return (line, all.clone());
            }
        };
        let (line, _) = until("listening").await;
        let at = line.find("addr").unwrap();
        let addr = line[at..].find("127.0.0.1:").map(|from| &line[at + from..]).unwrap();
        let addr: String = addr.chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect();
        let ask = async |model: String| {
            let body = value!({"model": model, "messages": []});
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let request = client.post(format!("http://{addr}/v1/chat/completions")).body(body.to_string());
            let request = request.header("content-type", "application/json");
            request.header("x-pointsman-label-do", "control-characters").send().await.unwrap().status().as_u16()
        };
        ask(format!("first{NASTY}")).await;
        ask(format!("second{NASTY}")).await;
        ask("the-last".to_owned()).await;
        let (_, all) = until("the-last").await;
        assert!(all.iter().any(|line| line.contains("FORGED")), "{all:?}");
        for line in &all {
            is_harmless(format, line);
            if format == "json" && line.starts_with('{') {
                serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            }
        }
    }
}

#[tokio::test]
async fn a_command_line_that_is_wrong_is_repeated_without_control_characters() {
    let dir = tempfile::tempdir().unwrap();
    // No argument holds a NUL.
    let nasty = &*NASTY.replace('\0', "");
    for args in
        [&[nasty][..], &["serve", nasty], &["explain", "--json", nasty, nasty], &["policy", nasty], &["--\u{9b}31m"]]
    {
        let ended = run(BINARY, dir.path(), args, &[]).await;
        assert_eq!(ended.code, Some(2), "{args:?}");
        let unseen = |c: char| is_unseen(c) && !matches!(c, '\n' | '\t');
        assert!(ended.stdout.is_empty() && !ended.stderr.contains(unseen), "{args:?}: {:?}", ended.stderr);
        assert!(ended.stderr.contains("Usage:"), "{args:?}: {}", ended.stderr);
    }
    let help = run(BINARY, dir.path(), &["--help"], &[]).await;
    assert!(help.code == Some(0) && help.stdout.contains("Usage:") && help.stderr.is_empty());
}
