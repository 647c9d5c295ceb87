//! The first command of the README.

use pointsman_tests::run;

#[tokio::test]
async fn the_demo_shows_lanes_waits_and_spend_without_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let done = run(env!("CARGO_BIN_EXE_proxy-under-test"), dir.path(), &["demo", "--for", "5s"], &[]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    for word in ["primary", "fallback", "wait", "$"] {
        assert!(done.stdout.contains(word), "no {word} in\n{}", done.stdout);
    }
    assert!(!done.stdout.contains("panicked") && !done.stderr.contains("panicked"), "{}", done.stderr);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the demo leaves nothing behind");
}
