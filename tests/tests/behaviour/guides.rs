//! The README's tour and the page of the first rule, as they are written. Here no language's tools are needed: a component that
//! does not know all of the default policy's settings stands for what `policy build` makes. `tests/author/run` builds for real, in all languages.

use std::path::{Path, PathBuf};

use pointsman_tests::{Block, Guide, Walk, blocks, run, sends_to};

const BINARY: &str = env!("CARGO_BIN_EXE_proxy-under-test");

fn page(path: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

async fn walk(folder: &Path) -> Walk {
    let prebuilt = folder.join("prebuilt.wasm");
    std::fs::write(&prebuilt, sends_to(0).knows_no("primary_wait_max").build()).unwrap();
    Walk::begin(Guide { pointsman: PathBuf::from(BINARY), prebuilt: Some(prebuilt), instead: Vec::new() }).await
}

#[tokio::test]
async fn the_tour_of_the_readme_runs_as_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut walk = walk(folder.path()).await;
    let told = pointsman_tests::tour(&mut walk, &page("README.md")).await.unwrap_or_else(|why| panic!("{why}"));
    for words in ["answered (200)", "\"settings_left_out\"", "asked again in", "current, modelled"] {
        assert!(told.contains(words), "{words} in {told}");
    }
    assert!(walk.folder().join("backtest.html").is_file());
}

#[tokio::test]
async fn a_tour_whose_words_do_not_work_fails() {
    for (word, instead, words) in [
        ("primary_wait_ms = 5000", "primary_waits_ms = 5000", "did you mean `primary_wait_ms`?"),
        ("pointsman policy new mine --lang rust", "pointsman policy new mine", "--lang"),
        (
            "curl -T mine/policy.wasm http://127.0.0.1:9901/api/policy",
            "curl -T mine/policy.wasm http://127.0.0.1:9901/api/policies",
            "404",
        ),
        (
            "--policy mine/policy.wasm --since 24h --html",
            "--policy mine/policy.wasm --since yesterday --html",
            "is not understood",
        ),
    ] {
        let page = page("README.md");
        assert!(page.contains(word), "the README has {word:?} no more");
        let folder = tempfile::tempdir().unwrap();
        let mut walk = walk(folder.path()).await;
        let why = pointsman_tests::tour(&mut walk, &page.replace(word, instead)).await.expect_err(word);
        assert!(why.contains(words), "{word:?}: {why}");
    }
}

/// Without a compiler the rule cannot be tried, but what is to be written can, and the commands are looked at.
#[tokio::test]
async fn the_first_rule_fits_the_project_that_it_begins_with() {
    let folder = tempfile::tempdir().unwrap();
    let mut walk = walk(folder.path()).await;
    let page = page("policies/FIRST_RULE.md");
    let all = blocks(&page);
    let new = Block { text: "pointsman policy new patience --lang rust\n".to_owned(), ..all[0].clone() };
    assert!(all[0].text.starts_with(&new.text), "{}", all[0].text);
    walk.follow(&new).await.unwrap();
    for block in all.iter().filter(|block| block.language != "sh") {
        walk.follow(block).await.unwrap_or_else(|why| panic!("{why}"));
    }
    let source = std::fs::read_to_string(walk.folder().join("patience/src/lib.rs")).unwrap();
    assert!(source.contains("request::label(\"kind\")"), "{source}");
    // The default policy waits for neither, so it is the person that goes as expected, and the agent that does not.
    let done = run(BINARY, walk.folder(), &["policy", "test", "default", "patience/scenarios/agents.toml"], &[]).await;
    assert_eq!(done.code, Some(1), "{}{}", done.stdout, done.stderr);
    assert!(done.stdout.contains("request 1: "), "{}", done.stdout);
    let shadow = walk.folder().join("pointsman.toml");
    let text = std::fs::read_to_string(shadow).unwrap();
    assert!(text.parse::<toml::Table>().is_ok_and(|table| table["policy"]["shadow"]["file"].is_str()), "{text}");
}

#[tokio::test]
async fn the_guide_is_in_the_binary() {
    let folder = tempfile::tempdir().unwrap();
    let guide = async |args: &[&str]| {
        let done = run(BINARY, folder.path(), &[&["policy", "guide"], args].concat(), &[]).await;
        assert_eq!(done.code, Some(0), "{args:?}: {}", done.stderr);
        done.stdout
    };
    for (topic, file) in [
        ("policies", "policies/README.md"),
        ("first-rule", "policies/FIRST_RULE.md"),
        ("scenarios", "policies/SCENARIOS.md"),
        ("languages", "policies/LANGUAGES.md"),
        ("contract", "wit/policy.wit"),
    ] {
        assert_eq!(guide(&[topic]).await, page(file), "{topic}");
        assert!(guide(&[]).await.contains(&format!("pointsman policy guide {topic}")), "{topic}");
    }
    let wrong = run(BINARY, folder.path(), &["policy", "guide", "poetry"], &[]).await;
    assert!(wrong.code == Some(2) && wrong.stderr.contains("first-rule"), "{}", wrong.stderr);
}

#[tokio::test]
async fn a_folder_says_what_is_tested() {
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path);
    let test = async |args: &[&str]| {
        let done = run(BINARY, folder.path(), &[&["policy", "test"], args].concat(), &[]).await;
        (done.code, done.stdout + &done.stderr)
    };
    run(BINARY, folder.path(), &["policy", "new", "mine", "--lang", "c"], &[]).await;
    let (code, told) = test(&["mine"]).await;
    assert!(
        code == Some(2) && told.contains("has no policy.wasm yet; make it with `pointsman policy build mine`"),
        "{told}"
    );
    std::fs::copy(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/default/default.wasm"),
        at("mine/policy.wasm"),
    )
    .unwrap();
    let (_, told) = test(&["mine"]).await;
    let first = told.lines().next().unwrap();
    assert!(
        first.starts_with("mine/policy.wasm (revision ") && first.ends_with("3 scenarios of mine/scenarios"),
        "{first}"
    );
    let (code, told) = test(&["mine/scenarios", "--only", "One 429"]).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("3 scenarios of mine/scenarios") && told.ends_with("1 passed, 0 failed\n"), "{told}");
    std::fs::create_dir(at("empty")).unwrap();
    let (code, told) = test(&["empty"]).await;
    assert!(code == Some(2) && told.contains("empty is no policy's project"), "{told}");
}
