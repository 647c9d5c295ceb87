//! Every file that is read is a plain file of bounded size: pipes, sockets, devices and folders are refused with a word, and
//! never waited for.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use super::secrets::LIBSODIUM_SEALED;
use pointsman_tests::{Upstream, backend, eventually, proxy, run, upstream};

const BINARY: &str = env!("CARGO_BIN_EXE_proxy-under-test");

/// Things that stand where a file should, by the words that they are refused with.
fn no_plain_files(dir: &Path) -> Vec<(PathBuf, &'static str)> {
    let (pipe, socket, folder, endless) = (dir.join("pipe"), dir.join("socket"), dir.join("folder"), dir.join("link"));
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.is_ok_and(|made| made.success()), "a pipe can be made");
    // The socket's file stays when nobody listens any more.
    drop(UnixListener::bind(&socket).expect("a socket can be made"));
    std::fs::create_dir(&folder).expect("a folder can be made");
    symlink("/dev/zero", &endless).expect("a link can be made");
    let huge = dir.join("huge");
    std::fs::File::create(&huge).and_then(|file| file.set_len(1 << 40)).expect("a file can be made");
    vec![
        (pipe, "a named pipe"),
        (socket, "a socket"),
        (folder, "a directory"),
        (endless, "a device"),
        (huge, "1099511627776 bytes"),
    ]
}

fn config(up: &Upstream, more: &str) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n{more}\n[[backend]]\nid = \"p1\"\nbase_url = \"{}\"\n",
        up.url()
    )
}

#[tokio::test]
async fn no_file_that_a_configuration_names_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let up = upstream().start().await;
    let files = no_plain_files(dir.path());
    let cert = dir.path().join("cert.pem");
    std::fs::write(&cert, "none").unwrap();
    for (file, words) in &files {
        let shown = file.display();
        let of_backend = |key: &str| format!("{}{key}\n", config(&up, ""));
        let configs = [
            config(&up, &format!("[policy]\nfile = \"{shown}\"")),
            config(&up, &format!("[policy.shadow]\nfile = \"{shown}\"")),
            config(&up, "").replace("[admin]", &format!("[admin]\ntoken = \"file:{shown}\"")),
            of_backend(&format!("api_key = \"file:{shown}\"")),
            of_backend(&format!("headers = {{ x-key = \"file:{shown}\" }}")),
            of_backend(&format!("ca_file = \"{shown}\"")),
            of_backend(&format!("client_cert = \"{shown}\"\nclient_key = \"file:{shown}\"")),
            of_backend(&format!("[[client]]\nname = \"c\"\nkey = \"file:{shown}\"")),
            config(&up, &format!("[secrets]\nkey = \"file:{shown}\"")) + &format!("api_key = \"{LIBSODIUM_SEALED}\"\n"),
        ];
        for text in configs {
            std::fs::write(dir.path().join("p.toml"), &text).unwrap();
            let done = run(BINARY, dir.path(), &["config", "check", "p.toml"], &[]).await;
            let told = done.stdout + &done.stderr;
            let is_told = told.contains(words) || told.contains("not a file") || told.contains("larger than");
            assert!(done.code == Some(1) && is_told, "{text}\n{told}");
        }
        let done = run(BINARY, dir.path(), &["serve", "--config", &shown.to_string()], &[]).await;
        assert_eq!(done.code, Some(1));
        assert!(done.stderr.contains(words) || done.stderr.contains("larger than"), "{}", done.stderr);
        for command in [&["policy", "check"][..], &["policy", "test"], &["config", "import-litellm"]] {
            let done = run(BINARY, dir.path(), &[command, &[&*shown.to_string()]].concat(), &[]).await;
            assert!(done.code.is_some_and(|code| code != 0), "{command:?} {shown}: {}{}", done.stdout, done.stderr);
        }
    }
}

#[tokio::test]
async fn a_pipe_in_the_place_of_a_watched_file_changes_nothing_and_holds_up_no_end() {
    let up = upstream().start().await;
    let dir = tempfile::tempdir().unwrap();
    let (key, policy) = (dir.path().join("key"), dir.path().join("mine.wasm"));
    std::fs::write(&key, "sk-of-the-file-1").unwrap();
    std::fs::write(&policy, pointsman_tests::sends_to(0).build()).unwrap();
    let with_key = backend("p1").primary(&up).set("api_key", format!("file:{}", key.display()));
    let mut proxy = proxy!().backend(with_key).policy_file(&policy).start().await;
    let before = proxy.policy().await["revision"].clone();
    for (file, refused) in [(&policy, "policy refused"), (&key, "configuration refused")] {
        std::fs::remove_file(file).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(file).status().unwrap().success());
        proxy.sighup();
        let told = || proxy.output().into_iter().find(|l| l.contains(refused) && l.contains("a named pipe"));
        eventually(refused, told).await;
    }
    let config = proxy.dir().join("pointsman.toml");
    std::fs::remove_file(&config).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&config).status().unwrap().success());
    proxy.sighup();
    let told = || proxy.output().into_iter().find(|l| l.contains("pointsman.toml") && l.contains("a named pipe"));
    eventually("the refusal of the configuration", told).await;
    assert_eq!(proxy.chat().send().await.status, 200);
    assert_eq!(proxy.policy().await["revision"], before);
    assert_eq!(up.seen()[0].header("authorization"), Some("Bearer sk-of-the-file-1"));
    proxy.sigterm();
    assert!(proxy.wait_exit().await.success());
}

#[tokio::test]
async fn links_to_secrets_and_files_of_the_kernel_are_read() {
    let up = upstream().start().await;
    let dir = tempfile::tempdir().unwrap();
    // As Kubernetes mounts a secret.
    std::fs::create_dir(dir.path().join("..2026")).unwrap();
    std::fs::write(dir.path().join("..2026/key"), "sk-mounted-12345\n").unwrap();
    symlink("..2026", dir.path().join("..data")).unwrap();
    symlink("..data/key", dir.path().join("key")).unwrap();
    for (file, key) in [(dir.path().join("key"), "sk-mounted-12345"), ("/proc/sys/kernel/ostype".into(), "Linux")] {
        let one = backend("p1").primary(&up).set("api_key", format!("file:{}", file.display()));
        let proxy = proxy!().backend(one).start().await;
        assert_eq!(proxy.chat().send().await.status, 200);
        assert_eq!(up.seen().last().unwrap().header("authorization"), Some(&*format!("Bearer {key}")));
    }
}
