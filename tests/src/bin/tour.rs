//! Walks through pages of documentation as they are written, with the languages' own tools: the README's tour in each language, and the
//! page of the first rule. The last line is "N passed, N failed".
//!
//! `tour [LANGUAGE...]` (rust, js, python, c; default: all), with the tools on the PATH; `first-rule` stands for that page.
//! `POINTSMAN_BINARY` is the proxy, else `proxy-under-test` beside this binary.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use pointsman_tests::{Guide, Walk, blocks, tour};

/// Guides that are followed where none is named.
const ALL: [&str; 5] = ["rust", "js", "python", "c", FIRST_RULE];

/// Stands for the page of that name.
const FIRST_RULE: &str = "first-rule";

#[tokio::main]
async fn main() -> ExitCode {
    let named: Vec<String> = std::env::args().skip(1).collect();
    let named = if named.is_empty() { ALL.map(str::to_owned).to_vec() } else { named };
    if let Some(unknown) = named.iter().find(|name| !ALL.contains(&name.as_str())) {
        eprintln!("{unknown} is none of {}", ALL.join(", "));
        return ExitCode::from(2);
    }
    let (mut passed, mut failed) = (0, 0);
    for name in &named {
        let begun = Instant::now();
        let walked = match name.as_str() {
            FIRST_RULE => first_rule().await,
            language => tour_in(language).await,
        };
        match walked {
            Ok(()) => {
                passed += 1;
                println!("ok      {name:<12} {:.1} s", begun.elapsed().as_secs_f64());
            }
            Err(why) => {
                failed += 1;
                println!("FAILED  {name}: {why}");
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn walk(instead: &[(&str, &str)]) -> Walk {
    let beside = std::env::current_exe().expect("this program has a path").with_file_name("proxy-under-test");
    let pointsman = std::env::var_os("POINTSMAN_BINARY").map_or(beside, PathBuf::from);
    let instead = instead.iter().map(|(word, other)| ((*word).to_owned(), (*other).to_owned())).collect();
    Walk::begin(Guide { pointsman, prebuilt: None, instead }).await
}

fn page(path: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The tour, its fourth step in this language.
async fn tour_in(language: &str) -> Result<(), String> {
    let lang = format!("--lang {language}");
    let readme = page("README.md");
    if !readme.contains("--lang rust") {
        return Err("the README makes no policy in Rust".to_owned());
    }
    let mut walk = walk(&[("--lang rust", &lang)]).await;
    let told = tour(&mut walk, &readme).await?;
    let expected = ["settings_left_out", "primary_wait_max_retries belongs to another policy", "current, modelled"];
    match expected.into_iter().find(|words| !told.contains(words)) {
        Some(words) => Err(format!("nothing said {words:?}:\n{told}")),
        None => Ok(()),
    }
}

/// The page of the first rule, after the tour's first two steps, which it begins with.
async fn first_rule() -> Result<(), String> {
    let mut walk = walk(&[]).await;
    let readme = page("README.md");
    let (_, steps) = readme.split_once("\n**1. ").ok_or("the tour has no first step")?;
    let configuration = blocks(steps).into_iter().find(|block| block.language == "toml").ok_or("it has no file")?;
    walk.follow(&configuration).await?;
    walk.serve().await?;
    walk.ask("llama-70b").await?;
    let mut told = String::new();
    for block in blocks(&page("policies/FIRST_RULE.md")) {
        told += &walk.follow(&block).await?;
    }
    let expected = ["0 passed, 1 failed", "4 passed, 0 failed", "accepted: revision", "has 20% of the exchanges"];
    match expected.into_iter().find(|words| !told.contains(words)) {
        Some(words) => Err(format!("nothing said {words:?}:\n{told}")),
        None => Ok(()),
    }
}
