//! The first command of the README.

use std::process::Stdio;
use std::time::{Duration, Instant};

use pointsman_tests::{run, soon};
use tokio::io::{AsyncBufReadExt, BufReader};

const BINARY: &str = env!("CARGO_BIN_EXE_proxy-under-test");

/// The number behind this word in a line of progress.
fn count(line: &str, word: &str) -> Option<u64> {
    line.split(word).nth(1)?.split([' ', ',', ')']).next()?.parse().ok()
}

#[tokio::test]
async fn the_demo_shows_all_four_decisions_without_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = tokio::process::Command::new(BINARY);
    demo.current_dir(dir.path()).args(["demo", "--for", "100s"]).stdout(Stdio::piped()).kill_on_drop(true);
    let mut demo = demo.spawn().expect("the binary can be run");
    let mut lines = BufReader::new(demo.stdout.take().expect("it is piped")).lines();
    // How soon they are all seen depends on the machine's pace.
    let all_seen = async {
        let mut told = Vec::new();
        while let Some(line) = lines.next_line().await.expect("the demo's words are text") {
            let seen = |word: &&str| count(&line, word).is_some_and(|count| count > 0);
            if line.contains(" s  answered ") && ["primary ", "fallback ", "emergency ", "waited "].iter().all(seen) {
                return;
            }
            told.push(line);
        }
        panic!("it ended before all four were seen:\n{}", told.join("\n"));
    };
    soon("all four decisions", all_seen).await;
    demo.kill().await.expect("it is running");
}

#[tokio::test]
async fn the_demo_ends_when_it_says_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let done = run(BINARY, dir.path(), &["demo", "--for", "4s"], &[]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    assert!(began.elapsed() < Duration::from_secs(20), "4 s took {:?}", began.elapsed());
    assert!(done.stdout.trim_start().starts_with("Console: http://127.0.0.1:"), "{}", done.stdout);
    assert!(done.stdout.contains('$'), "{}", done.stdout);
    assert!(!done.stdout.contains("panicked") && !done.stderr.contains("panicked"), "{}", done.stderr);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the demo leaves nothing behind");
}
