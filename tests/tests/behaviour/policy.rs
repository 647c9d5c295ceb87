//! The policy as a file that may change at any time.

use std::path::{Path, PathBuf};

use pointsman_tests::{Proxy, ProxyBuilder, backend, proxy, upstream};

/// The default policy as it is committed.
fn component() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/default/default.wasm");
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The same policy as other bytes: a custom section says nothing to the engine and changes the hash.
fn marked(mark: &str) -> Vec<u8> {
    let mut bytes = component();
    bytes.extend([0, u8::try_from(mark.len() + 1).unwrap(), u8::try_from(mark.len()).unwrap()]);
    bytes.extend(mark.as_bytes());
    bytes
}

struct Swapping {
    proxy: Proxy,
    file: PathBuf,
    _dir: tempfile::TempDir,
    _up: pointsman_tests::Upstream,
}

async fn swapping(first: &[u8]) -> Swapping {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mine.wasm");
    std::fs::write(&file, first).unwrap();
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).policy_file(&file).start().await;
    Swapping { proxy, file, _dir: dir, _up: up }
}

impl Swapping {
    async fn revision(&self) -> String {
        let answer = self.proxy.chat().send().await;
        assert_eq!(answer.status, 200);
        answer.header("x-pointsman-policy").to_owned()
    }

    /// Asks until the revision is not `old`.
    async fn next_revision(&self, old: &str) -> String {
        let changed = async {
            loop {
                let revision = self.revision().await;
                if revision != old {
                    return revision;
                }
            }
        };
        pointsman_tests::soon("another revision", changed).await
    }
}

#[tokio::test]
async fn a_changed_file_decides_the_next_request() {
    let s = swapping(&component()).await;
    let first = s.revision().await;
    std::fs::write(&s.file, marked("one")).unwrap();
    let second = s.next_revision(&first).await;
    let beside = s.file.with_extension("new");
    std::fs::write(&beside, marked("two")).unwrap();
    std::fs::rename(&beside, &s.file).unwrap();
    let third = s.next_revision(&second).await;
    assert_ne!(third, first);
    std::fs::write(&s.file, component()).unwrap();
    assert_eq!(s.next_revision(&third).await, first, "the same bytes are the same revision");
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_the_reason_is_told() {
    let s = swapping(&component()).await;
    let first = s.revision().await;
    let cut = component();
    for bad in [&b"not wasm"[..], b"", &cut[..cut.len() / 2], b"\0asm\x01\0\0\0"] {
        let said = s.proxy.output().len();
        std::fs::write(&s.file, bad).unwrap();
        let told = async {
            while !s.proxy.output()[said..].iter().any(|l| l.contains("mine.wasm") || l.contains("policy")) {
                assert_eq!(s.revision().await, first);
            }
        };
        pointsman_tests::soon("a word about the bad file", told).await;
        assert_eq!(s.revision().await, first);
    }
    std::fs::write(&s.file, marked("good again")).unwrap();
    s.next_revision(&first).await;
}

#[tokio::test]
async fn swapping_fails_no_request() {
    let s = swapping(&component()).await;
    for round in 0..20 {
        std::fs::write(&s.file, if round % 2 == 0 { marked("a") } else { marked("b") }).unwrap();
        let answers = futures_util::future::join_all((0..16).map(|_| s.proxy.chat().send())).await;
        assert!(answers.iter().all(|a| a.status == 200), "{answers:?}");
    }
}

#[tokio::test]
async fn settings_reach_the_policy() {
    let (busy, paid) =
        (upstream().reply(pointsman_tests::status(429).retry_after(30)).start().await, upstream().start().await);
    let proxy = proxy!().backend(backend("p1").primary(&busy)).backend(backend("f1").fallback(&paid));
    let proxy = proxy.setting("primary_wait_ms", 0).start().await;
    let answer = proxy.chat().send().await;
    assert_eq!((answer.header("x-pointsman-lane"), answer.header("x-pointsman-waited-ms")), ("fallback", "0"));
}

/// Far below the TiB of address space that the engine likes to reserve, in KiB for `ulimit -v`.
const LITTLE_ADDRESS_SPACE_KIB: u64 = 6 << 20;

#[tokio::test]
async fn the_engine_starts_where_address_space_is_scarce() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().expect("a folder");
    let limited = dir.path().join("limited");
    let binary = env!("CARGO_BIN_EXE_proxy-under-test");
    let script = format!("#!/bin/sh\nulimit -v {LITTLE_ADDRESS_SPACE_KIB}\nexec '{binary}' \"$@\"\n");
    std::fs::write(&limited, script).expect("a script can be written");
    std::fs::set_permissions(&limited, std::fs::Permissions::from_mode(0o700)).expect("it is ours");
    let up = upstream().start().await;
    let proxy = ProxyBuilder::new(limited).backend(backend("p1").primary(&up)).start().await;
    let said = |line: &serde_json::Value| {
        line["message"].as_str().filter(|text| text.contains("ulimit -v")).map(str::to_owned)
    };
    proxy.wait_log("less address space", said).await;
    let answer = proxy.chat().send().await;
    assert_eq!((answer.status.as_u16(), up.count()), (200, 1));
    assert_eq!(proxy.policy().await["faults"], 0, "the component decides, not what stands in for it");
}
