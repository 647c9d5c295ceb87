//! A configuration's cost in memory and time is bounded before it is paid, and large ones that are meant cost what they are.

use std::path::Path;

use pointsman_tests::{Finished, run, upstream};

const BINARY: &str = env!("CARGO_BIN_EXE_proxy-under-test");

async fn checked(dir: &Path, text: &str) -> Finished {
    std::fs::write(dir.join("p.toml"), text).unwrap();
    // So much address space would be gone at once by what a few bytes of TOML become.
    run("/bin/sh", dir, &["-c", &format!("ulimit -d 1500000; exec {BINARY} config check p.toml")], &[]).await
}

#[tokio::test]
async fn texts_that_take_gigabytes_are_refused_by_what_they_have_too_many_of() {
    let dir = tempfile::tempdir().unwrap();
    let backend = "[[backend]]\nid = \"a\"\nbase_url = \"http://127.0.0.1:9/v1\"\n";
    for (text, words) in [
        (format!("x = [{}]\n{backend}", "{a=1},".repeat(330_000)), "more than 60000 tables and lists"),
        (format!("x = [{}]\n{backend}", "[],".repeat(660_000)), "more than 60000 tables and lists"),
        (format!("{backend}{}", "[[backend]]\n".repeat(160_000)), "more than 60000 tables and lists"),
        (format!("{backend}{}", "1.1.1.1.1.1.1.1.1=1\n".repeat(90_000)), "more than 60000 tables and lists"),
        (format!("x = [{}]\n{backend}", "1,".repeat(900_000)), "more than 400000 values"),
        (format!("x = {}\n{backend}", "[".repeat(1_000_000)), "within each other"),
        (format!("x = {}\n{backend}", "{a=".repeat(600_000)), "within each other"),
        (format!("{backend}# {}\n", "x".repeat(5 << 20)), "larger than 4194304 bytes"),
        (format!("{backend}{}", "[[client]]\nname=\"c\"\n".repeat(20_100)), "more than 20000 clients"),
        (format!("{backend}{}", "[[backend]]\nid=\"b\"\n".repeat(20_000)), "backends are more than 1024"),
    ] {
        let done = checked(dir.path(), &text).await;
        assert_eq!(done.code, Some(1), "{words}: {}", &done.stderr[..done.stderr.len().min(2_000)]);
        assert!(done.stderr.contains(words), "{words}: {}", &done.stderr[..done.stderr.len().min(2_000)]);
        assert!(done.stderr.len() < 64 << 10, "{words}: {} bytes are told", done.stderr.len());
    }
}

#[tokio::test]
async fn many_models_prices_and_clients_take_no_longer_than_there_are_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let up = upstream().start().await;
    let backend = format!("[[backend]]\nid = \"a\"\ntier = \"fallback\"\nbase_url = \"{}\"\n", up.url());
    let names = |n: usize| (0..n).map(move |i| format!("model-{i}"));
    let prices: String = names(15_000)
        .map(|name| format!("[backend.price.\"{name}\"]\ninput_per_mtok = 1.0\noutput_per_mtok = 1.0\n"))
        .collect();
    let some: String = names(15_000).map(|name| format!("\"{name}\",")).collect();
    let clients: String =
        (0..10_000).map(|i| format!("[[client]]\nname = \"c{i}\"\nkey = \"key-of-client-number-{i}\"\n")).collect();
    let many: String = names(50_000).map(|name| format!("\"{name}\",")).collect();
    let began = std::time::Instant::now();
    for (text, words) in [
        (format!("{backend}models = [{many}]\n"), Some("the backends have 50000 models, more than 15000")),
        (format!("{backend}models = [{some}]\n{prices}"), None),
        (format!("{backend}{clients}"), None),
    ] {
        let done = checked(dir.path(), &text).await;
        let told = &done.stderr[..done.stderr.len().min(2_000)];
        assert_eq!(done.code, Some(i32::from(words.is_some())), "{told}");
        assert!(words.is_none_or(|words| done.stderr.contains(words)), "{told}");
    }
    // The squares of these numbers take minutes.
    assert!(began.elapsed().as_secs() < 90, "{:?}", began.elapsed());
}
