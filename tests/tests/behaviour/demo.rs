//! The first command of the README.

use std::time::{Duration, Instant};

use pointsman_tests::run_within;

#[tokio::test]
async fn the_demo_shows_lanes_waits_and_spend_without_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let done = run_within(
        Duration::from_secs(60),
        env!("CARGO_BIN_EXE_proxy-under-test"),
        dir.path(),
        &["demo", "--for", "12s"],
        &[],
    )
    .await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    assert!(began.elapsed() < Duration::from_secs(20), "12 s took {:?}", began.elapsed());
    assert!(done.stdout.trim_start().starts_with("Console: http://127.0.0.1:"), "{}", done.stdout);
    for decision in ["primary ", "fallback ", "emergency ", "waited "] {
        let last = done.stdout.lines().rfind(|line| line.contains(" s  answered ")).unwrap();
        let count =
            last.split(decision).nth(1).and_then(|rest| rest.split([' ', ',', ')']).next()?.parse::<u64>().ok());
        assert!(count.is_some_and(|count| count > 0), "no {decision}in {last}\n{}", done.stdout);
    }
    assert!(done.stdout.contains('$'), "{}", done.stdout);
    assert!(!done.stdout.contains("panicked") && !done.stderr.contains("panicked"), "{}", done.stderr);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the demo leaves nothing behind");
}
