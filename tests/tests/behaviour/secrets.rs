//! Keys are never written anywhere: not to the log, the store, the admin pages, nor to a client. Sealed ones are opened in
//! memory, and only with the private key.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pointsman_config::seal::{PrivateKey, SEALED};
use pointsman_tests::{
    Finished, Proxy, Upstream, backend, chat, proxy, raw, run, run_with_input, soon, status, upstream,
};

const BINARY: &str = env!("CARGO_BIN_EXE_proxy-under-test");

/// A pair, and a secret sealed for it by libsodium (PyNaCl 1.6.2).
const LIBSODIUM_KEY: &str = "seal-private:AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";
pub(super) const LIBSODIUM_SEALED: &str =
    "sealed:4kFsstsOroCFRuqeo7X0/C/PNfOJW3xgVD8GKuwcNgTJkT2jpkhEhe5uUjOj1MXsIcNFsyMiL1GCY0PRSSt8cg1fLPdfVQ==";

/// Fails in every way a provider can.
async fn failing() -> Upstream {
    let replies = [status(401), status(429).header("retry-after-ms", 1), status(500), raw("nonsense\r\n\r\n")];
    upstream().handler(move |_, i| replies[i % replies.len()].clone()).start().await
}

/// Everything the proxy shows anywhere while it serves a client, watched by an operator; at the end it has ended.
async fn all_it_tells(proxy: &mut Proxy, client: &str, operator: &str) -> String {
    let mut told = String::new();
    for _ in 0..8 {
        let answer = proxy.chat().bearer(client).send().await;
        told.push_str(&format!("{:?} {}", answer.headers, answer.text()));
        told.push_str(&proxy.chat().bearer(operator).send().await.text());
    }
    for path in ["/metrics", "/api/backends", "/api/policy", "/api/usage", "/api/exchanges", "/"] {
        told.push_str(&proxy.admin(path).bearer(operator).send().await.text());
    }
    proxy.sigterm();
    proxy.wait_exit().await;
    told.push_str(&proxy.output().join("\n"));
    for file in ["pointsman.db", "pointsman.db-wal"] {
        let bytes = std::fs::read(proxy.dir().join(file)).unwrap_or_default();
        told.push_str(&String::from_utf8_lossy(&bytes));
    }
    told
}

fn assert_untold(told: &str, secrets: &[&str]) {
    for secret in secrets {
        assert!(!told.contains(secret), "{secret} was written: {:?}", told.lines().find(|l| l.contains(secret)));
    }
}

#[tokio::test]
async fn no_key_is_ever_written() {
    let bad = failing().await;
    let good = upstream().reply(chat("hi")).start().await;
    let mut proxy = proxy!()
        .backend(backend("p1").primary(&bad))
        .backend(backend("f1").fallback(&good))
        .client("agent", "env:CLIENT")
        .set("admin.token", "env:ADMIN")
        .set("log.level", "trace")
        .set("cooldown.base_ms", 1)
        .set("cooldown.max_ms", 1)
        .setting("primary_wait_ms", 0)
        .env("CLIENT", "sesame-client")
        .env("ADMIN", "sesame-admin")
        .start()
        .await;
    let told = all_it_tells(&mut proxy, "sesame-client", "sesame-admin").await;
    assert_untold(&told, &["key-of-p1", "key-of-f1", "sesame-admin", "sesame-client"]);
}

#[tokio::test]
async fn sealed_secrets_are_what_the_upstream_sees_and_nobody_else() {
    let key = PrivateKey::parse(LIBSODIUM_KEY).unwrap();
    let seal = |secret: &str| key.public().seal(secret.as_bytes()).to_string();
    let (team, client, admin) = (seal("team-sealed"), seal("client-sealed"), seal("admin-sealed"));
    let bad = failing().await;
    let good = upstream().reply(chat("hi")).start().await;
    let mut proxy = proxy!()
        .backend(backend("p1").primary(&bad).set("api_key", seal("key-sealed-for-p1")))
        .backend(backend("f1").fallback(&good).set("api_key", LIBSODIUM_SEALED).set("headers.x-team", team.as_str()))
        .client("agent", &client)
        .set("admin.token", admin.as_str())
        .set("log.level", "trace")
        .set("cooldown.base_ms", 1)
        .set("cooldown.max_ms", 1)
        .setting("primary_wait_ms", 0)
        .env("POINTSMAN_SEAL_KEY", LIBSODIUM_KEY)
        .start()
        .await;
    assert_eq!(proxy.chat().bearer(&client).send().await.status, 401, "the text itself opens nothing");
    let told = all_it_tells(&mut proxy, "client-sealed", "admin-sealed").await;
    assert_eq!(bad.seen()[0].header("authorization"), Some("Bearer key-sealed-for-p1"));
    for seen in good.seen() {
        assert_eq!(seen.header("authorization"), Some("Bearer sk-sealed-by-libsodium"));
        assert_eq!(seen.header("x-team"), Some("team-sealed"));
    }
    assert!(good.count() > 0 && told.contains("\"p1\""), "it answered, and told of it");
    let private = &LIBSODIUM_KEY["seal-private:".len()..];
    assert_untold(
        &told,
        &["key-sealed-for-p1", "sk-sealed-by-libsodium", "team-sealed", "client-sealed", "admin-sealed"],
    );
    assert_untold(&told, &[private, &LIBSODIUM_SEALED[SEALED.len()..], &team, &client, &admin]);
}

/// Runs `pointsman config ...`.
async fn config(dir: &Path, args: &[&str], env: &[(&str, &str)], input: &str) -> Finished {
    run_with_input(BINARY, dir, &[&["config"], args].concat(), env, input).await
}

#[tokio::test]
async fn a_pair_is_made_a_key_is_sealed_and_the_proxy_uses_it() {
    let dir = tempfile::tempdir().unwrap();
    let made = config(dir.path(), &["seal-key", "--out", "seal.key"], &[], "").await;
    assert_eq!((made.code, made.stderr.as_str()), (Some(0), ""));
    let file = dir.path().join("seal.key");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let private = std::fs::read_to_string(&file).unwrap();
    assert_untold(&made.stdout, &[private.trim()]);
    let command = made.stdout.lines().find_map(|l| l.trim().strip_prefix("pointsman config ")).unwrap();
    let sealed = config(dir.path(), &command.split(' ').collect::<Vec<_>>(), &[], "sk-by-hand\n").await;
    assert_eq!((sealed.code, sealed.stderr.as_str()), (Some(0), ""), "the command it printed does it");
    let up = upstream().start().await;
    let text = sealed.stdout.trim_end();
    let proxy = proxy!()
        .backend(backend("p1").primary(&up).set("api_key", text))
        .set("secrets.key", format!("file:{}", file.display()))
        .start()
        .await;
    assert_eq!(proxy.chat().send().await.status, 200);
    assert_eq!(up.only().header("authorization"), Some("Bearer sk-by-hand"));
    assert_untold(&proxy.output().join("\n"), &["sk-by-hand", private.trim(), text]);
    // The same pair by way of the configuration, and of the environment.
    let here = proxy.dir();
    let again = config(here, &["seal"], &[], "sk-2").await;
    assert!(again.code == Some(0) && again.stdout.starts_with("sealed:"), "{}", again.stderr);
    let again = config(dir.path(), &["seal"], &[("POINTSMAN_SEAL_KEY", private.trim())], "sk-2").await;
    assert!(again.code == Some(0) && again.stdout.starts_with("sealed:"), "{}", again.stderr);
    let checked = run(BINARY, here, &["config", "check"], &[]).await;
    assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""), "no warning of a secret in plain text");
}

#[tokio::test]
async fn a_key_for_the_environment_is_made_as_it_is_exported() {
    let dir = tempfile::tempdir().unwrap();
    let made = config(dir.path(), &["seal-key"], &[], "").await;
    let (name, private) = made.stdout.trim_end().split_once('=').unwrap();
    assert_eq!((made.code, name), (Some(0), "POINTSMAN_SEAL_KEY"));
    let public = PrivateKey::parse(private).unwrap().public();
    assert!(made.stderr.contains(&format!("config seal --to {public}\n")), "{}", made.stderr);
    assert_untold(&made.stderr, &[private]);
}

#[tokio::test]
async fn what_cannot_be_sealed_or_opened_is_refused_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("seal.key"), "mine").unwrap();
    for (args, input, code, words) in [
        (&["seal-key", "--out", "seal.key"][..], "", 1, "seal.key is there already"),
        (&["seal-key", "--out", "no/such/folder.key"], "", 1, "cannot write"),
        (&["seal", "--to", LIBSODIUM_KEY], "sk-live", 2, "is a private key"),
        (&["seal", "--to", "seal-public:AAAA"], "sk-live", 2, "not of 32 bytes"),
        (&["seal", "sk-live"], "", 2, "on standard input"),
        (&["seal", "--in", "file"], "", 2, "unexpected argument"),
        (&["seal"], "sk-live", 1, "POINTSMAN_SEAL_KEY, which should hold the private key, is not set"),
        (&["seal", "--config", "gone.toml"], "sk-live", 1, "gone.toml"),
    ] {
        let done = config(dir.path(), args, &[], input).await;
        assert_eq!((done.code, done.stdout.as_str()), (Some(code), ""), "{args:?}: {}", done.stderr);
        assert!(done.stderr.contains(words), "{args:?}: {}", done.stderr);
        assert_untold(&done.stderr, &["sk-live", LIBSODIUM_KEY]);
    }
    assert_eq!(std::fs::read_to_string(dir.path().join("seal.key")).unwrap(), "mine");
    let empty = config(dir.path(), &["seal"], &[("POINTSMAN_SEAL_KEY", LIBSODIUM_KEY)], "\n").await;
    assert!(empty.code == Some(1) && empty.stderr.contains("is empty"), "{}", empty.stderr);

    let file =
        format!("[[backend]]\nid = \"a\"\nbase_url = \"http://127.0.0.1:9/v1\"\napi_key = \"{LIBSODIUM_SEALED}\"\n");
    std::fs::write(dir.path().join("pointsman.toml"), file).unwrap();
    let other = PrivateKey::generate();
    let (private, public) = (other.to_text(), other.public().to_string());
    for (key, words) in [
        ("", &["POINTSMAN_SEAL_KEY, which should hold", "export POINTSMAN_SEAL_KEY="][..]),
        (private.as_str(), &["was sealed for another key, or is damaged", &public]),
        (&public, &["it is a public key"]),
    ] {
        for args in [&["config", "check"][..], &["serve"]] {
            let done = run(BINARY, dir.path(), args, &[("POINTSMAN_SEAL_KEY", key)]).await;
            assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""), "{args:?}: {}", done.stderr);
            assert!(done.stderr.contains("pointsman.toml:4:11"), "{}", done.stderr);
            assert!(words.iter().all(|w| done.stderr.contains(w)), "{}", done.stderr);
            assert_untold(&done.stderr, &[&private, &LIBSODIUM_SEALED[..16], "sk-sealed"]);
        }
    }
}

#[tokio::test]
async fn another_sealed_key_is_taken_while_running_and_one_that_does_not_open_is_not() {
    let keys = tempfile::tempdir().unwrap();
    let file = keys.path().join("seal.key");
    let pair = || {
        let key = PrivateKey::generate();
        std::fs::write(&file, key.to_text().as_bytes()).unwrap();
        key
    };
    let up = upstream().start().await;
    let p1 = |key: &PrivateKey, secret: &str| {
        backend("p1").primary(&up).set("api_key", key.public().seal(secret.as_bytes()).to_string())
    };
    let old = pair();
    let proxy = proxy!().backend(p1(&old, "sk-1")).set("secrets.key", format!("file:{}", file.display()));
    let mut proxy = proxy.start().await;
    let sent = async |proxy: &Proxy| {
        proxy.chat().send().await;
        up.seen().last().unwrap().header("authorization").unwrap().to_owned()
    };
    assert_eq!(sent(&proxy).await, "Bearer sk-1");
    proxy.reconfigure_backends([p1(&PrivateKey::generate(), "sk-2")]);
    proxy.wait_log("the refusal", |l| l.to_string().contains("was sealed for another key").then_some(())).await;
    assert_eq!(sent(&proxy).await, "Bearer sk-1");
    proxy.reconfigure_backends([p1(&old, "sk-3")]);
    soon("the new secret", async { while sent(&proxy).await != "Bearer sk-3" {} }).await;
    let new = pair();
    proxy.reconfigure_backends([p1(&new, "sk-4")]);
    soon("the new pair", async { while sent(&proxy).await != "Bearer sk-4" {} }).await;
    assert_untold(&proxy.output().join("\n"), &["sk-1", "sk-2", "sk-3", "sk-4", &old.to_text(), &new.to_text()]);
}

#[tokio::test]
async fn files_that_hold_secrets_are_watched_and_trimmed() {
    let up = upstream().start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let reference = |name: &str| format!("file:{}", file(name).display());
    std::fs::write(file("key"), "\u{feff}  sk-before-1 \r\n").unwrap();
    std::fs::write(file("client"), "client-before\n").unwrap();
    std::fs::write(file("admin"), "admin-before\n").unwrap();
    let proxy = proxy!()
        .backend(backend("p1").primary(&up).set("api_key", reference("key")))
        .client("agent", &reference("client"))
        .set("admin.token", reference("admin"))
        .start()
        .await;
    assert_eq!(proxy.chat().bearer("client-before").send().await.status, 200);
    assert_eq!(up.seen()[0].header("authorization"), Some("Bearer sk-before-1"));
    std::fs::write(file("key"), "sk-after-2\n").unwrap();
    proxy.wait_log("the new key", |l| (l["message"] == "configuration reloaded").then_some(())).await;
    assert_eq!(proxy.chat().bearer("client-before").send().await.status, 200);
    assert_eq!(up.seen()[1].header("authorization"), Some("Bearer sk-after-2"));
    std::fs::write(file("client"), "client-after\n").unwrap();
    std::fs::write(file("admin"), "admin-after\n").unwrap();
    pointsman_tests::eventually("three reloads", || (proxy.told("configuration reloaded") >= 2).then_some(())).await;
    let is_in = |key: &'static str| proxy.chat().bearer(key).send();
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(10));
    soon("the new client key and token", async {
        while is_in("client-after").await.status != 200
            || proxy.admin("/api/backends").bearer("admin-after").send().await.status != 200
        {
            ticks.tick().await;
        }
    })
    .await;
    assert_eq!(is_in("client-before").await.status, 401);
    assert_eq!(proxy.admin("/api/backends").bearer("admin-before").send().await.status, 401);
}

#[tokio::test]
async fn what_is_wrong_with_a_key_is_told_and_no_value_of_an_unknown_key_or_a_url() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[[backend]]\nid = \"a\"\nbase_url = \"https://user:pa55word@h/v1\"\napikey = \"sk-mislaid-7\"\n";
    std::fs::write(dir.path().join("pointsman.toml"), text).unwrap();
    let checked = run(BINARY, dir.path(), &["config", "check"], &[]).await;
    let told = checked.stdout + &checked.stderr;
    assert!(told.contains("unknown key `apikey`") && told.contains("must not hold a user name or password"), "{told}");
    assert_untold(&told, &["pa55word", "sk-mislaid-7"]);
    for (key, complaint) in [
        ("\"sk-quoted-1\"", "quotation marks"),
        ("Bearer sk-schemed-1", "scheme"),
        ("YOUR_API_KEY_HERE", "placeholder"),
        ("sk-****abcd", "placeholder"),
        ("OPENAI_API_KEY=sk-line-1", "variable's name, as a line"),
        ("export NVIDIA_API_KEY=nvapi-line-1", "variable's name, as a line"),
        ("${NVIDIA_API_KEY}", "variable's name"),
        ("sk-one sk-two", "space"),
    ] {
        let good = "[[backend]]\nid = \"a\"\nbase_url = \"https://h/v1\"\napi_key = \"env:K\"\n";
        std::fs::write(dir.path().join("pointsman.toml"), good).unwrap();
        let checked = run(BINARY, dir.path(), &["config", "check"], &[("K", key)]).await;
        let told = checked.stdout + &checked.stderr;
        assert!(checked.code == Some(0) && told.contains(complaint), "{key}: {told}");
    }
}
