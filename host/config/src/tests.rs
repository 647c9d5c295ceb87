//! Checking configurations: accepted files, and the problems reported of others.

use std::time::Duration;

use pointsman_core::contract::{Commit, OnFault, Resume};
use pointsman_core::dialect::translate::Strictness;
use pointsman_core::table::{Dialect, Tier};
use proptest::prelude::*;

use super::*;

mod advice;

/// The file of the documentation, whole.
const EXAMPLE: &str = r#"
[server]
listen = "127.0.0.1:8080"
[admin]
listen = "127.0.0.1:9901"
token = "env:POINTSMAN_ADMIN_TOKEN"      # without one: loopback only
[store]
path = "pointsman.db"                     # SQLite; ":memory:" allowed
[policy]
file = "policies/mine.wasm"               # left out: the embedded default policy
[policy.settings]                         # handed to the policy as JSON
primary_wait_ms = 5000                    # longest single wait for a primary
primary_wait_max_retries = 6
max_pool_retries = 3
emergency_rpm_fraction = 0.1
[stream]
commit = "first-content"                  # headers | first-content | complete | { tokens = 20 }
resume = "splice"                         # none | splice | prefill
keepalive_ms = 10000
[[backend]]
id = "nvidia-1"
tier = "primary"                          # primary | fallback
base_url = "https://integrate.api.nvidia.com/v1"
dialect = "openai"                        # openai | anthropic | plain
api_key = "env:NVIDIA_API_KEY"            # env:NAME | file:PATH | sealed:... | literal (warned about)
rpm = 40
tpm = 100000
max_concurrency = 16
weight = 1
labels = { region = "us" }
capabilities = { prefill = false }
models = { "llama-70b" = "meta/llama-3.1-70b-instruct", "*" = "*" }   # asked = sent; globs; or a plain list
timeouts = { connect_ms = 3000, first_byte_ms = 30000, first_token_ms = 12000, idle_ms = 15000, total_ms = 600000 }
[backend.price."meta/llama-3.1-70b-instruct"]
input_per_mtok = 0.12
output_per_mtok = 0.30
[[client]]
name = "agent-1"
key = "sha256:2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90"
rpm = 120
budget_usd_per_day = 2.5
"#;

const ENV: [(&str, &str); 2] = [("POINTSMAN_ADMIN_TOKEN", "t0ken"), ("NVIDIA_API_KEY", "nv-1")];

const ONE: &str = "[[backend]]\nid = \"a\"\nbase_url = \"http://127.0.0.1:1/v1\"\n";

fn checked(text: &str, env: &dyn Env) -> Loaded {
    parse(text, "pointsman.toml", env).unwrap_or_else(|error| panic!("{error}"))
}

/// Everything the operator is told about a file that is refused.
fn refusal(text: &str) -> String {
    refusal_with(text, &[])
}

fn refusal_with(text: &str, env: &dyn Env) -> String {
    parse(text, "pointsman.toml", env).expect_err("this must be refused").to_string()
}

/// The file is refused, for one reason, which is told with all of these words.
fn refused(text: &str, words: &[&str]) {
    let told = refusal(text);
    for word in words {
        assert!(told.contains(word), "no {word:?} in:\n{told}");
    }
    assert!(told.ends_with(": 1 problem"), "{told}");
}

#[test]
fn the_documented_file_says_what_it_says() {
    let Loaded { config, warnings, .. } = checked(EXAMPLE, &ENV);
    assert_eq!(warnings, []);
    assert_eq!(config.admin.token.as_ref().unwrap().expose(), "t0ken");
    assert_eq!(config.store.path.as_deref(), Some(Path::new("pointsman.db")));
    assert_eq!(config.policy.settings["emergency_rpm_fraction"], 0.1);
    assert_eq!((config.stream.commit, config.stream.resume), (Commit::FirstContent, Resume::Splice));
    let BackendConfig { backend, base_url, api_key, .. } = &config.backends[0];
    assert_eq!((&*backend.id, backend.tier, backend.dialect), ("nvidia-1", Tier::Primary, Dialect::OPENAI));
    assert_eq!((base_url.host(), base_url.path()), (Some("integrate.api.nvidia.com"), "/v1"));
    assert_eq!(api_key.as_ref().unwrap().expose(), "nv-1");
    assert_eq!(backend.sent_model("llama-70b").as_deref(), Some("meta/llama-3.1-70b-instruct"));
    assert_eq!(backend.sent_model("other").as_deref(), Some("other"));
    assert_eq!(backend.price("meta/llama-3.1-70b-instruct").unwrap().output_per_mtok, 0.30);
    assert_eq!(backend.timeouts.first_token, Duration::from_secs(12));
    assert_eq!(config.table().models, ["llama-70b"]);
    assert_eq!(config.table().clients, ["agent-1"]);
    assert_eq!((config.client_of("alice"), config.client_of("bob")), (Some(0), None));
}

#[test]
fn one_backend_is_enough_and_the_rest_has_defaults() {
    let config = checked(ONE, &[]).config;
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.limits.max_wait, Duration::from_secs(120));
    assert_eq!(config.policy.deadline, Duration::from_millis(5));
    assert_eq!(config.backends[0].backend.weight, 1);
    assert!(config.policy.file.is_none() && config.clients.is_empty());
}

#[test]
fn a_stream_may_be_held_for_some_tokens() {
    let config =
        checked(&format!("stream = {{ commit = {{ tokens = 20 }}, resume = \"none\", keepalive_ms = 0 }}\n{ONE}"), &[])
            .config;
    assert_eq!((config.stream.commit, config.stream.resume), (Commit::Tokens(20), Resume::None));
    assert_eq!(config.stream.keepalive, None);
}

#[test]
fn the_nearest_key_is_named_at_its_line() {
    refused(
        &format!("{ONE}rmp = 40\n"),
        &[
            "error: unknown key `rmp`",
            "--> pointsman.toml:4:1",
            "4 | rmp = 40\n  | ^^^ not a key of [[backend]]",
            "help: write `rpm`",
        ],
    );
    refused(&format!("[servr]\n{ONE}"), &["unknown key `servr`", ":1:2", "write `server`"]);
    refused(&format!("{ONE}zzzzzzz = 1\n"), &["unknown key `zzzzzzz`", "known here: id, tier, base_url"]);
}

#[test]
fn a_wrong_type_says_what_was_expected() {
    refused(&format!("{ONE}rpm = \"forty\"\n"), &["`rpm` must be a whole number", ":4:7", "this is text"]);
    refused(&format!("{ONE}rpm = -3\n"), &["`rpm` must be a whole number, 0 or more", "this is a negative number"]);
    refused(&format!("{ONE}rpm = 1.5\n"), &["whole number", "a number with a fraction"]);
    refused(&format!("{ONE}rpm = 99999999999\n"), &["`rpm` must be a whole number"]);
    refused(&format!("{ONE}models = 5\n"), &["`models`", "a table of names asked = names sent, or a list of names"]);
    refused(&format!("server = 5\n{ONE}"), &["`server` must be a table", ":1:10"]);
    refused("backend = 7\n", &["`backend` must be a list"]);
    refused("[[backend]]\nid = \"a\"\nbase_url = 7\n", &["`base_url` must be text", "this is a number"]);
    refused(&format!("{ONE}weight = 99999999999999999999999\n"), &["this number is too large"]);
}

#[test]
fn a_wrong_word_lists_the_right_ones() {
    refused(
        &format!("{ONE}tier = \"primry\"\n"),
        &["`tier` cannot be \"primry\"", "\"primary\" or \"fallback\"", "write `primary`", ":4:8"],
    );
    refused(&format!("{ONE}dialect = \"gemini\"\n"), &["\"openai\" or \"anthropic\" or \"plain\""]);
    refused(&format!("{ONE}[stream]\ncommit = \"first-contnt\"\n"), &["write `first-content`"]);
}

#[test]
fn prompts_and_answers_are_kept_only_when_asked_by_rules_that_can_be_read() {
    let kept = |text: &str| parse(&format!("{ONE}{text}"), "p.toml", &[("K", "k")]).unwrap().config.journal.bodies;
    assert!(kept("").is_none() && kept("[journal]\nredact = ['x']\n").is_none());
    let rules = kept("[journal]\nbodies = true\nmax_body_kb = 8\nredact = ['\\d{16}', 'b']\n").unwrap();
    assert_eq!((rules.max_body_kb, rules.redact.len()), (8, 2));
    assert_eq!(kept("[journal]\nbodies = true\n").unwrap().max_body_kb, 64);
    refused(
        &format!("{ONE}[journal]\nredact = [\"fine\", \"(\"]\n"),
        &["this is no regular expression: unclosed group", ":5:19", "single quotes"],
    );
    refused(&format!("{ONE}[journal]\nmax_body_kb = 5000\n"), &["`max_body_kb` must be at most 4096"]);
}

#[test]
fn meaningless_values_are_refused() {
    refused(&format!("{ONE}rpm = 0\n"), &["`rpm` of 0 would let nothing through", ":4:7"]);
    refused(&format!("{ONE}weight = 0\n"), &["`weight` must be at least 1"]);
    refused(&format!("{ONE}[policy.settings]\nemergency_rpm_fraction = 10\n"), &["between 0 and 1", "write 0.1"]);
    refused(&format!("{ONE}[cooldown]\njitter = -0.1\n"), &["`jitter`", "between 0 and 1"]);
    refused(&format!("{ONE}[cooldown]\nbase_ms = 90000\n"), &["`base_ms` (90000) is above `max_ms` (60000)", ":5:11"]);
    refused(&format!("{ONE}models = []\n"), &["would serve no model"]);
    refused(&format!("{ONE}models = {{ \"a*b*\" = \"c\" }}\n"), &["`a*b*` is not a model name", "at most one *"]);
    refused(&format!("{ONE}models = {{ \"a\" = \"*\" }}\n"), &["`a` cannot be sent as `*`"]);
    refused(&format!("{ONE}price = {{ x = {{ input_per_mtok = -1.0 }} }}\n"), &["must be 0 or more"]);
    refused(&format!("{ONE}headers = {{ Host = \"x\" }}\n"), &["set by the proxy itself"]);
    refused(&format!("{ONE}[log]\nlevel = \"a=loud\"\n"), &["`a=loud` is not a log level", ":5:9"]);
    refused(&format!("{ONE}[log]\nlevel = \"inof\"\n"), &["`inof` is not a log level; did you mean `info`?", ":5:9"]);
    refused(&format!("{ONE}[limits]\nmax_exchange_ms = 99999999999999\n"), &["longer than 100 days"]);
}

#[test]
fn over_its_budget_a_client_may_use_what_costs_nothing_unless_it_is_told_otherwise() {
    let client = |more: &str| {
        let key = "0".repeat(64);
        let text = format!("{ONE}[[client]]\nname = \"c\"\nkey = \"sha256:{key}\"\n{more}");
        parse(&text, "p.toml", &[("K", "k")]).unwrap().config.clients.remove(0)
    };
    assert!(client("budget_usd_per_day = 1.0\n").free_when_over_budget);
    assert!(!client("budget_usd_per_day = 1.0\nfree_when_over_budget = false\n").free_when_over_budget);
}

#[test]
fn a_burst_is_a_part_of_rpm() {
    let limits = |text: &str| {
        let loaded = parse(&format!("{ONE}{text}"), "p.toml", &[("K", "k")]).unwrap();
        (loaded.config.backends[0].backend.limits, loaded.warnings.iter().map(ToString::to_string).collect::<String>())
    };
    assert_eq!(limits("rpm = 20\n").0.burst, None);
    let (found, warnings) = limits("rpm = 20\nburst = 2\n");
    assert_eq!((found.rpm, found.burst, warnings.contains("burst")), (Some(20), Some(2), false));
    assert!(limits("rpm = 20\nburst = 20\n").1.contains("a `burst` of 20 changes nothing"));
    refused(&format!("{ONE}rpm = 20\nburst = 0\n"), &["`burst` of 0 would let nothing through", ":5:9"]);
    refused(&format!("{ONE}burst = 2\n"), &["has a `burst` and no `rpm`", ":4:9", "add rpm"]);
    let of_client = format!("{ONE}[[client]]\nname = \"c\"\nkey = \"sha256:{}\"\nburst = 2\n", "0".repeat(64));
    refused(&of_client, &["unknown key `burst`"]);
}

#[test]
fn an_address_is_checked_and_the_right_form_offered() {
    refused(&format!("{ONE}[server]\nlisten = \":8080\"\n"), &["not an address", "127.0.0.1:8080", "0.0.0.0:8080"]);
    refused(&format!("{ONE}[server]\nlisten = \"everywhere\"\n"), &["not an address", ":5:10"]);
    assert!(
        checked(&format!("{ONE}[server]\nlisten = \"localhost:0\"\n"), &[]).config.server.listen.ip().is_loopback()
    );
    for (url, words) in [
        ("api.openai.com/v1", "write \"https://api.openai.com/v1\""),
        ("ftp://x", "must begin with http:// or https://"),
        ("https://user:pw@x/v1", "user name or password"),
        ("https://x/v1?k=1", "write \"https://x/v1\""),
        ("https://", "base_url"),
        ("https:///v1", "base_url"),
        ("http://a b/", "is not a URL"),
        ("", "must begin with"),
    ] {
        refused(&format!("[[backend]]\nid = \"a\"\nbase_url = \"{url}\"\n"), &[words, ":3:12"]);
    }
}

#[test]
fn nothing_is_open_to_the_world_by_accident() {
    let open = format!("{ONE}[server]\nlisten = \"0.0.0.0:8080\"\n");
    refused(&open, &["could spend your keys", "allow_open = true", ":5:10"]);
    checked(&format!("{open}allow_open = true\n"), &[]);
    checked(&format!("{open}[[client]]\nname = \"a\"\nkey = \"env:K\"\n"), &[("K", "k")]);
    refused(&format!("{ONE}[admin]\nlisten = \"0.0.0.0:9901\"\n"), &["admin listener would be open to everyone"]);
}

#[test]
fn duplicates_point_to_both() {
    let told = refusal(&format!("{ONE}{ONE}"));
    assert!(told.contains("two backends have the id `a`"), "{told}");
    assert!(told.contains("--> pointsman.toml:5:6") && told.contains("::: pointsman.toml:2:6"), "{told}");
    let two = "[[client]]\nname = \"x\"\nkey = \"env:K\"\n[[client]]\nname = \"y\"\nkey = \"env:K\"\n";
    assert!(refusal_with(&format!("{ONE}{two}"), &[("K", "k")]).contains("two clients have the same key"));
}

#[test]
fn a_missing_key_is_named_with_its_variable_and_the_way_out() {
    refused(
        &format!("{ONE}api_key = \"env:NVIDIA_API_KEY\"\n"),
        &[
            "backend `a` needs the environment variable NVIDIA_API_KEY, which is not set",
            "export NVIDIA_API_KEY=",
            ":4:11",
        ],
    );
    refused(&format!("{ONE}[admin]\ntoken = \"env:T\"\n"), &["the admin listener needs", "take this line out"]);
    refused(&format!("{ONE}api_key = \"file:/nowhere/at/all\"\n"), &["cannot read /nowhere/at/all"]);
    refused(&format!("{ONE}[[client]]\nname = \"c\"\nkey = \"sha256:abc\"\n"), &["64 hexadecimal digits"]);
    assert!(
        refusal_with(&format!("{ONE}api_key = \"env:K\"\n"), &[("K", "a\nb")]).contains("cannot stand in a header")
    );
}

#[test]
fn one_of_several_keys_is_picked_by_its_number_and_a_list_is_never_sent_as_one() {
    let api_key = |reference: &str| format!("{ONE}api_key = \"{reference}\"\n");
    let key_of = |reference: &str, value: &str| {
        let config = checked(&api_key(reference), &[("K", value)]).config;
        config.backends[0].api_key.as_ref().unwrap().expose().to_owned()
    };
    assert_eq!(["env:K#1", "env:K#2"].map(|reference| key_of(reference, "nv-1, nv-2,")), ["nv-1", "nv-2"]);
    assert_eq!([key_of("env:K", "nv-1"), key_of("env:K#1", "nv-1")], ["nv-1", "nv-1"]);
    for (reference, value, words) in [
        (
            "env:K",
            "nv-1,nv-2",
            ["holds a list of 2 keys", "\"env:K#1\" here, and a [[backend]]", "\"env:K#2\"", ":4:11"],
        ),
        ("env:K", "nv-1,nv-2,nv-3", ["holds a list of 3 keys", "not one key", "\"env:K#2\" to \"env:K#3\"", ":4:11"]),
        ("env:K", "nv-1,", ["holds a list of 1 key,", "not one key", "write \"env:K#1\" for the first", ":4:11"]),
        ("env:K#3", "nv-1,nv-2", ["env:K has no entry number 3", "it has 2", "separated by commas", ":4:11"]),
        ("env:K#0", "nv-1,nv-2", ["`#` must be followed by a number", "1 or more", "backend `a`", ":4:11"]),
        ("nv-1,nv-2", "", ["this is a list", "a backend has one key", "env:NAME#1", ":4:11"]),
    ] {
        let told = refusal_with(&api_key(reference), &[("K", value)]);
        assert!(words.iter().all(|word| told.contains(word)) && !told.contains("nv-"), "{reference} {value}: {told}");
    }
    let client = format!("{ONE}[[client]]\nname = \"c\"\nkey = \"env:K\"\n");
    assert!(refusal_with(&client, &[("K", "a,b")]).contains("a [[client]] of its own"));
    let admin = format!("{ONE}[admin]\ntoken = \"env:K\"\n");
    assert!(refusal_with(&admin, &[("K", "a,b")]).contains("write \"env:K#1\" for the first"));
    // A header's value may be a list of its own.
    let header = checked(&format!("{ONE}headers = {{ X-Teams = \"env:K\" }}\n"), &[("K", "a, b")]).config;
    assert_eq!(header.backends[0].headers[0].1, "a, b");
}

#[test]
fn one_line_of_a_file_of_keys_is_picked_by_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.toml");
    let loaded = |reference: &str| {
        std::fs::write(&file, format!("{ONE}api_key = \"file:{reference}\"\n")).unwrap();
        load(Some(&file), &[])
    };
    let key =
        |reference: &str| loaded(reference).unwrap().config.backends[0].api_key.as_ref().unwrap().expose().to_owned();
    std::fs::write(folder.path().join("keys"), "nv-1\n\n nv-2\n").unwrap();
    std::fs::write(folder.path().join("keys#2"), "nv-of-its-own\n").unwrap();
    std::fs::write(folder.path().join("one"), "nv-3\n").unwrap();
    assert_eq!(["keys#1", "keys#2", "one", "one#1"].map(key), ["nv-1", "nv-of-its-own", "nv-3", "nv-3"]);
    std::fs::remove_file(folder.path().join("keys#2")).unwrap();
    assert_eq!(key("keys#2"), "nv-2");
    for (reference, words) in [
        ("keys", "file:keys holds a list of 2 keys, one on each line, and not one key"),
        ("keys#3", "file:keys has no entry number 3, it has 2"),
        ("keys#x", "`#` must be followed by a number"),
        ("gone#1", "cannot read"),
    ] {
        let told = loaded(reference).unwrap_err().to_string();
        assert!(told.contains(words) && told.contains("p.toml:4:11"), "{told}");
    }
}

#[test]
fn a_literal_key_is_taken_with_a_warning_that_does_not_repeat_it() {
    let loaded = checked(&format!("{ONE}api_key = \"sk-live-1\"\n"), &[]);
    assert_eq!(loaded.config.backends[0].api_key.as_ref().unwrap().expose(), "sk-live-1");
    let told = loaded.warnings[0].to_string();
    assert!(told.starts_with("warning: `api_key` holds a secret in plain text"), "{told}");
    assert!(!told.contains("sk-live") && !format!("{loaded:?}").contains("sk-live"));
}

#[test]
fn a_secret_may_come_from_a_file_beside_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), "sk-from-file\n").unwrap();
    let file = folder.path().join("p.toml");
    std::fs::write(&file, format!("{ONE}api_key = \"file:key\"\n[store]\npath = \"s.db\"\n")).unwrap();
    let loaded = load(Some(&file), &[]).unwrap();
    assert_eq!(loaded.config.backends[0].api_key.as_ref().unwrap().expose(), "sk-from-file");
    assert_eq!(loaded.config.store.path.unwrap(), folder.path().join("s.db"));
    assert_eq!(loaded.path.unwrap(), file);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.toml");
    let told = |file: &Path| load(Some(file), &[]).unwrap_err().to_string();
    assert!(told(&file).contains("cannot read") && told(&file).contains("p.toml"));
    std::fs::write(&file, b"a = 1\nb = \"\xff\"\n").unwrap();
    assert!(told(&file).contains("p.toml:2: this is not UTF-8 text"));
    std::fs::write(&file, vec![b' '; MAX_FILE_BYTES as usize + 1]).unwrap();
    assert!(told(&file).contains("larger than"));
}

/// The warnings of a file that is taken, as they are told.
fn warned(text: &str, env: &dyn Env) -> Vec<String> {
    checked(text, env).warnings.iter().map(ToString::to_string).collect()
}

/// The file is taken with one warning, which is told with all of these words.
fn warned_once(text: &str, env: &dyn Env, words: &[&str]) {
    let told = warned(text, env);
    assert_eq!(told.len(), 1, "{text}\n{told:#?}");
    assert!(words.iter().all(|word| told[0].contains(word)), "{words:?} in\n{}", told[0]);
}

/// A fallback that serves these models at these prices.
fn fallback(models: &str, prices: &[&str]) -> String {
    let price = |model: &&str| format!("[backend.price.\"{model}\"]\ninput_per_mtok = 1.0\noutput_per_mtok = 2.0\n");
    let prices: String = prices.iter().map(price).collect();
    format!("[[backend]]\nid = \"f\"\ntier = \"fallback\"\nbase_url = \"http://127.0.0.1:2/v1\"\n{models}{prices}")
}

#[test]
fn a_fallback_without_a_price_is_warned_of_and_a_price_that_is_nobodys() {
    let with = |models: &str, prices: &[&str]| format!("{ONE}{}", fallback(models, prices));
    let gpt = "models = { \"*\" = \"gpt-4.1-mini\" }\n";
    for fine in [
        with(gpt, &["gpt-4.1-mini"]),
        with(gpt, &["*"]),
        with("", &["*"]),
        with("", &["anything"]),
        with("models = { \"*\" = \"gpt-4.1-mini\", \"gpt-*\" = true }\n", &["gpt-4.1-mini"]),
        with("models = { \"*\" = \"gpt-4.1-mini\", \"gpt-*\" = false }\n", &["gpt-4.1-mini"]),
    ] {
        assert_eq!(warned(&fine, &[]), Vec::<String>::new(), "{fine}");
    }
    let free = "the fallback `f` has no price for";
    warned_once(
        &with(gpt, &[]),
        &[],
        &[free, "`gpt-4.1-mini`: its spend counts as $0", ":8:", "[backend.price.\"gpt-4.1-mini\"]"],
    );
    warned_once(&with("", &[]), &[], &[free, "`*`", "[backend.price.\"*\"]"]);
    let nobodys = "there is a price for `gpt-4.1-mni`, which `f` never sends";
    warned_once(&with(gpt, &["gpt-4.1-mni"]), &[], &[nobodys, ":9:", "write [backend.price.\"gpt-4.1-mini\"]"]);
    let open = "models = { m = \"gpt-4.1-mini\", \"*\" = \"*\" }\n";
    warned_once(&with(open, &["gpt-4.1-mni"]), &[], &[nobodys, "write [backend.price.\"gpt-4.1-mini\"]"]);
    let asked = "models = { m = \"gpt-4.1-mini\", \"*\" = \"gpt-4.1-mini\" }\n";
    warned_once(&with(asked, &["m"]), &[], &["a price for `m`, which `f` never sends", "by the name that is sent"]);
    warned_once(
        &with(gpt, &["gpt-4.1-mini", "claude"]),
        &[],
        &["`claude`, which `f` never sends", "it sends `gpt-4.1-mini`"],
    );
    let client = "[[client]]\nname = \"c\"\nkey = \"env:K\"\nbudget_usd_per_day = 1.0\n";
    warned_once(
        &format!("{ONE}{client}"),
        &[("K", "k")],
        &["client `c` has a budget", "no backend has a price", ":7:22"],
    );
    // Primaries are often free.
    assert_eq!(warned(&format!("{ONE}models = [\"m\"]\n"), &[]), Vec::<String>::new());
}

#[test]
fn a_key_that_is_none_is_warned_of_and_not_shown() {
    let api_key = |text: &str| format!("{ONE}api_key = \"{text}\"\n");
    for meant in [
        "$NV_KEY",
        "${NV_KEY}",
        "${env:NV_KEY}",
        "os.environ/NV_KEY",
        "process.env.NV_KEY",
        "{{ NV_KEY }}",
        "%NV_KEY%",
        "NV_KEY",
        "ENV:NV_KEY",
    ] {
        warned_once(&api_key(meant), &[], &["a variable's name", "did you mean \"env:NV_KEY\"?", ":4:11"]);
    }
    for placeholder in ["sk-...", "nvapi-...", "YOUR_API_KEY_HERE", "your-key", "<key>", "sk-xxxxxxxx", "changeme"] {
        warned_once(&api_key(placeholder), &[], &["backend `a`: the key is a placeholder", ":4:11"]);
        warned_once(&api_key("env:K"), &[("K", placeholder)], &["the key is a placeholder", ":4:11"]);
    }
    assert_eq!(warned(&api_key("env:K"), &[("K", "sk-proj-4f3a")]), Vec::<String>::new());
    assert_eq!(warned(&format!("{ONE}headers = {{ X-Team = \"$TEAM\" }}\n"), &[]), Vec::<String>::new());
}

#[test]
fn a_backend_may_have_a_query_and_a_template_of_its_paths() {
    let merged = |more: &str| {
        let config = checked(&format!("{ONE}{more}\n"), &[("K", "s3")]).config;
        config.backends[0].query.merge(Some("a=1")).map(|query| query.into_owned())
    };
    assert_eq!(merged("").as_deref(), Some("a=1"));
    assert_eq!(merged("query = { api-version = \"1\" }").as_deref(), Some("a=1&api-version=1"));
    assert_eq!(merged("query = \"?api-version=1&b=%20\"").as_deref(), Some("a=1&api-version=1&b=%20"));
    assert_eq!(merged("query = { key = \"env:K\" }").as_deref(), Some("a=1&key=s3"));
    refused(&format!("{ONE}query = {{ key = \"env:K\" }}\n"), &["environment variable K"]);
    let template = checked(&format!("{ONE}path_template = \"/d/{{model}}/{{path}}\"\n"), &[]).config;
    assert_eq!(template.backends[0].path_template.as_ref().unwrap().expand("m", "/chat"), "/d/m/chat");
    refused(&format!("{ONE}path_template = \"/d/{{name}}\"\n"), &["`{name}`", "{model} and {path}", ":4:17"]);
    refused("[[backend]]\nid = \"a\"\nbase_url = \"https://x/v1?api-version=1\"\n", &["query = { name"]);
}

#[test]
fn an_origin_is_checked() {
    let origins = |list: &str| format!("[server]\nallowed_origins = {list}\n{ONE}");
    let config = checked(&origins("[\"https://app.example\"]"), &[]).config;
    assert!(config.server.allowed_origins.allow(&http::HeaderValue::from_static("https://app.example")));
    refused(&origins("[\"*\", \"app.example\"]"), &["`app.example` is not an origin", ":2:25"]);
}

#[test]
fn an_address_that_is_most_likely_not_meant_is_warned_of() {
    let at = |url: &str| format!("[[backend]]\nid = \"a\"\nbase_url = \"{url}\"\n");
    for (url, base) in [
        ("https://api.openai.com/v1/chat/completions", "https://api.openai.com/v1"),
        ("https://api.anthropic.com/v1/messages/", "https://api.anthropic.com/v1"),
        ("http://127.0.0.1:11434/api/chat", "http://127.0.0.1:11434"),
    ] {
        warned_once(&at(url), &[], &["`base_url` ends in an operation", &format!("write \"{base}\""), ":3:12"]);
    }
    assert_eq!(warned(&format!("{}dialect = \"plain\"\n", at("http://x/v1/messages")), &[]), Vec::<String>::new());
    for url in ["http://127.0.0.1:8080/v1", "http://localhost:8080"] {
        warned_once(&at(url), &[], &["where Pointsman itself listens", "in circles", ":3:12"]);
    }
}

#[test]
fn one_key_in_two_backends_is_one_limit() {
    let one = |id: &str, more: &str| {
        format!("[[backend]]\nid = \"{id}\"\nbase_url = \"http://x/v1\"\napi_key = \"env:K\"\n{more}")
    };
    let two = format!("{}{}", one("a", "rpm = 40\nmodels = [\"m\"]\n"), one("b", "rpm = 40\nmodels = [\"n\"]\n"));
    let words = [
        "`a` and `b` have the same key",
        "--> pointsman.toml:10:11",
        "::: pointsman.toml:4:11",
        "one backend with both",
    ];
    warned_once(&two, &[("K", "sk-1")], &words);
    assert_eq!(warned(&two.replacen("env:K", "env:L", 1), &[("K", "sk-1"), ("L", "sk-2")]), Vec::<String>::new());
    assert_eq!(
        warned(&two.replacen("http://x", "http://y", 1), &[("K", "sk-1")]),
        Vec::<String>::new(),
        "other providers"
    );
    let without_limits = format!("{}{}", one("a", "models = [\"m\"]\n"), one("b", "models = [\"n\"]\n"));
    assert_eq!(warned(&without_limits, &[("K", "sk-1")]), Vec::<String>::new(), "no limits, and other models");
}

#[test]
fn a_model_without_a_fallback_is_warned_of_where_there_are_fallbacks() {
    let with = |primary: &str, models: &str| format!("{ONE}{primary}{}", fallback(models, &["*"]));
    let paid = "models = [\"m\", \"gpt-*\"]\n";
    for (primary, models) in [
        ("models = [\"m\"]\n", paid),
        ("models = { m = \"x/m\", \"*\" = \"*\" }\n", paid),
        ("", "models = { \"*\" = \"one\" }\n"),
        ("", ""),
    ] {
        assert_eq!(warned(&with(primary, models), &[]), Vec::<String>::new(), "{primary} {models}");
    }
    warned_once(
        &with("models = [\"m\", \"n\"]\n", paid),
        &[],
        &["`a` serves a model that no fallback serves: `n`", ":4:10", "`f` serves gpt-*, m"],
    );
    warned_once(
        &with("", paid),
        &[],
        &["`a` serves any model, and no fallback does", "`f` serves gpt-*, m", "\"*\" ="],
    );
    assert_eq!(warned(&format!("{ONE}models = [\"n\"]\n"), &[]), Vec::<String>::new(), "no fallback is wanted");
}

#[test]
fn limits_that_contradict_one_another_are_warned_of() {
    let timeouts = |text: &str| format!("{ONE}timeouts = {{ {text} }}\n");
    for (text, words) in [
        (
            timeouts("first_byte_ms = 9000, total_ms = 5000"),
            ["`first_byte_ms` (9000) is longer than `total_ms` (5000)", ":4:30"],
        ),
        (timeouts("idle_ms = 9000, total_ms = 5000"), ["`idle_ms` (9000) is longer", "at most 5000"]),
        (timeouts("connect_ms = 9000, first_byte_ms = 5000"), ["`connect_ms` (9000) is longer", "first_byte_ms"]),
        (
            format!("{}[limits]\nmax_exchange_ms = 4000\n", timeouts("total_ms = 5000")),
            ["`total_ms` (5000)", "limits.max_exchange_ms"],
        ),
        (format!("{ONE}[limits]\nmax_wait_ms = 9000\nmax_exchange_ms = 4000\n"), ["`max_wait_ms` (9000)", ":5:15"]),
        (format!("{ONE}tpm = 500\n"), ["`tpm` of 500 is less than what one request", ":4:7"]),
        (format!("{ONE}[policy.settings]\nemergency_rpm_fraction = 0\n"), ["`emergency_rpm_fraction` of 0", ":5:26"]),
    ] {
        warned_once(&text, &[], &words);
    }
    assert_eq!(warned(&timeouts("total_ms = 5000"), &[]), Vec::<String>::new(), "a default contradicts nobody");
}

/// Every table of the file, by its header and what must stand before it, and its keys as the schema has them.
fn every_table() -> Vec<(String, Vec<String>)> {
    let schema = schema().to_value();
    let keys = |name: &str| -> Vec<String> {
        let of = if name.is_empty() { &schema } else { &schema["$defs"][name] };
        of["properties"].as_object().unwrap_or_else(|| panic!("no {name}")).keys().cloned().collect()
    };
    let tables = [
        ("", ""),
        ("[server]", "Server"),
        ("[admin]", "Admin"),
        ("[secrets]", "Secrets"),
        ("[store]", "Store"),
        ("[journal]", "Journal"),
        ("[policy]", "Policy"),
        ("[policy.shadow]", "Shadow"),
        ("[policy.rollback]", "Rollback"),
        ("[stream]", "Stream"),
        ("[limits]", "Limits"),
        ("[cooldown]", "Cooldown"),
        ("[budget]", "Budget"),
        ("[log]", "Log"),
        ("[[backend]]", "Backend"),
        ("[[backend]]\n[backend.timeouts]", "Timeouts"),
        ("[[backend]]\n[backend.health_check]", "HealthCheck"),
        ("[[backend]]\n[backend.limits.m]", "ModelLimits"),
        ("[[backend]]\n[backend.price.m]", "Price"),
        ("[[backend]]\n[[backend.price.m.tiers]]", "PriceTier"),
        ("[[client]]", "Client"),
    ];
    let named = schema["$defs"].as_object().unwrap().values().filter(|def| def["properties"].is_object()).count();
    assert_eq!(named, tables.len() - 1, "a section is missing here");
    tables.map(|(header, name)| (header.to_owned(), keys(name))).to_vec()
}

#[test]
fn a_misspelt_key_of_any_section_is_told_with_its_line_and_the_right_one() {
    for (header, keys) in every_table() {
        let line = if header.is_empty() { 1 } else { header.lines().count() + 1 };
        for key in &keys {
            let misspelt = format!("{key}x");
            let told = refusal(format!("{header}\n{misspelt} = 1\n").trim_start());
            for words in
                [format!("unknown key `{misspelt}`"), format!("pointsman.toml:{line}:1"), format!("write `{key}`")]
            {
                assert!(told.contains(&words), "{header} {misspelt}: no {words:?} in\n{told}");
            }
        }
    }
}

#[test]
fn a_wrong_type_in_any_section_is_told_with_its_line_and_the_key() {
    for (header, keys) in every_table() {
        let line = if header.is_empty() { 1 } else { header.lines().count() + 1 };
        for key in &keys {
            let text = format!("{header}\n{key} = [[[1]]]\n");
            let told = refusal(text.trim_start());
            let wrong = told.split("error: ").find(|problem| problem.contains(&format!("pointsman.toml:{line}:")));
            assert!(wrong.is_some_and(|problem| problem.contains(&format!("`{key}`"))), "{header} {key}: {told}");
        }
    }
}

#[test]
fn every_problem_of_a_file_is_told_at_once_and_in_order() {
    let text = "[server]\nlisten = 1\nfoo = 2\n[[backend]]\nid = \"a\"\nrpm = \"x\"\ntier = \"z\"\n[[backend]]\nid = \"a\"\nbase_url = \"x\"\nweight = 0\n";
    let told = refusal(text);
    assert!(told.ends_with("8 problems"), "{told}");
    let lines: Vec<usize> = told
        .lines()
        .filter_map(|line| line.split("--> pointsman.toml:").nth(1)?.split(':').next()?.parse().ok())
        .collect();
    assert_eq!(lines, [2, 3, 4, 6, 7, 9, 10, 11]);
}

#[test]
fn a_reported_key_is_not_also_called_missing() {
    refused("[[backend]]\nid = \"a\"\nbase_url = true\n", &["`base_url` must be text"]);
    refused("[[backend]]\nbase_url = \"http://x\"\n", &["backend number 1 has no id", ":1:1"]);
    refused("[[backend]]\nid = \"a\"\n", &["backend `a` has no base_url"]);
    refused("", &["there is no [[backend]]", "pointsman demo"]);
}

#[test]
fn broken_toml_is_told_with_its_place() {
    let told = refusal("[server\nlisten = \n[[backend]]\nid = 'a\n");
    assert!(told.contains("pointsman.toml:1:8") && told.contains("pointsman.toml:4:"), "{told}");
}

#[test]
fn the_environment_overrides_the_file() {
    let env = [
        ("NVIDIA_API_KEY", "nv-1"),
        ("POINTSMAN_ADMIN_TOKEN", "t"),
        ("POINTSMAN__SERVER__LISTEN", "127.0.0.1:9"),
        ("POINTSMAN__BACKEND__NVIDIA_1__RPM", "7"),
        ("POINTSMAN__BACKEND__NVIDIA_1__API_KEY", "12345"),
        ("POINTSMAN__BACKEND__NVIDIA_1__TIMEOUTS__IDLE_MS", "1"),
        ("POINTSMAN__BACKEND__NVIDIA_1__MODELS", "[\"x\", \"y\"]"),
        ("POINTSMAN__CLIENT__AGENT_1__BUDGET_USD_PER_DAY", "3"),
        ("POINTSMAN__POLICY__SETTINGS__MAX_POOL_RETRIES", "9"),
        ("SIDECAR_PRIMARY_WAIT_MS", "250"),
        ("SIDECAR_PRIMARY_WAIT_MAX_RETRIES", "2"),
        ("POINTSMAN__STORE__PATH", ":memory:"),
    ];
    let Loaded { config, warnings, .. } = checked(EXAMPLE, &env);
    let told: Vec<&str> = warnings.iter().map(|warning| warning.message.as_str()).collect();
    let price = "there is a price for `meta/llama-3.1-70b-instruct`, which `nvidia-1` never sends";
    let unserved = "`nvidia-1` has no price for `x`, `y`: `agent-1`, which has a budget, is not served there";
    assert_eq!(told, [price, unserved], "a secret in the environment is where it belongs");
    assert_eq!(config.server.listen.port(), 9);
    assert_eq!(config.backends[0].backend.limits.rpm, Some(7));
    assert_eq!(config.backends[0].api_key.as_ref().unwrap().expose(), "12345");
    assert_eq!(config.backends[0].backend.timeouts.idle, Duration::from_millis(1));
    assert_eq!(config.table().models, ["x", "y"]);
    assert_eq!(config.clients[0].budget_usd_per_day, Some(3.0));
    assert_eq!(config.policy.settings["max_pool_retries"], 9);
    assert_eq!(config.policy.settings["primary_wait_ms"], 250);
    assert_eq!(config.policy.settings["primary_wait_max_retries"], 2);
    assert_eq!(config.store.path, None);
}

#[test]
fn a_wrong_variable_is_blamed_by_name() {
    for (name, value, words) in [
        ("POINTSMAN__SERVR__LISTEN", "x", "unknown key `servr`"),
        ("POINTSMAN__SERVER__LISTN", "x", "write `listen`"),
        ("POINTSMAN__BACKEND__B__RPM", "1", "there is no backend with the id `B`"),
        ("POINTSMAN__BACKEND__A", "1", "none of its keys"),
        ("POINTSMAN__BACKEND__A__RPM", "many", "`rpm` must be a whole number"),
        ("POINTSMAN__BACKEND__A__RPM__X", "1", "must be a whole number"),
        ("POINTSMAN__BACKEND__A__ID__X", "1", "is a value and has no keys"),
        ("POINTSMAN__RPM", "1", "this names no setting"),
        ("POINTSMAN__", "1", "this names no setting"),
        ("SIDECAR_PRIMARY_WAIT_MS", "soon", "`soon` is not a whole number"),
        ("POINTSMAN_LOG", "inof", "did you mean `info`?"),
    ] {
        let told = refusal_with(ONE, &[(name, value)]);
        assert!(told.contains(words) && told.contains(&format!("environment variable {name}")), "{name}: {told}");
    }
}

#[test]
fn a_revision_follows_what_is_said_and_not_how() {
    let revision = |text: &str, env: &dyn Env| checked(text, env).config.revision;
    let first = revision(&format!("{ONE}rpm = 5\nweight = 1\napi_key = \"env:K\"\n"), &[("K", "k1")]);
    assert_eq!(first.len(), 12);
    assert_eq!(first, revision(&format!("# hi\n{ONE}api_key='env:K'\nweight = 1\n\nrpm = 0x5\n"), &[("K", "k2")]));
    assert_ne!(first, revision(&format!("{ONE}rpm = 6\nweight = 1\napi_key = \"env:K\"\n"), &[("K", "k1")]));
    let literal = |key: &str| revision(&format!("{ONE}api_key = \"{key}\"\n"), &[]);
    assert_eq!(literal("sk-1"), literal("sk-2"));
}

#[test]
fn the_policy_has_a_stand_in_and_a_deadline_within_the_engines_bound() {
    let policy = |text: &str| checked(&format!("{ONE}[policy]\n{text}\n"), &[]).config.policy;
    assert_eq!((policy("").on_fault, policy("").deadline), (OnFault::AskDefault, Duration::from_millis(5)));
    assert_eq!(policy("on_fault = \"default\"").on_fault, OnFault::AskDefault);
    assert_eq!(policy("on_fault = \"refuse\"").on_fault, OnFault::Refuse);
    assert_eq!(policy("deadline_ms = 90").deadline, Duration::from_millis(90));
    for (wrong, words) in [
        ("on_fault = \"ignore\"", "expected \"default\" or \"refuse\""),
        ("deadline_ms = 91", "at most 90"),
        ("deadline_ms = 0", "deadline_ms"),
    ] {
        let error = parse(&format!("{ONE}[policy]\n{wrong}\n"), "p.toml", &[]).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn translation_is_lenient_unless_it_is_strict() {
    let translation = |text: &str| checked(&format!("{ONE}[server]\n{text}\n"), &[]).config.server.translation;
    assert_eq!((translation(""), translation("translation = \"lenient\"")), (Strictness::Lenient, Strictness::Lenient));
    assert_eq!(translation("translation = \"strict\""), Strictness::Strict);
    let error = parse(&format!("{ONE}[server]\ntranslation = \"loose\"\n"), "p.toml", &[]).unwrap_err().to_string();
    assert!(error.contains("\"lenient\" or \"strict\""), "{error}");
}

#[test]
fn a_shadow_has_a_file_defaults_and_ranges() {
    let policy = |text: &str| checked(&format!("{ONE}[policy.settings]\na = 1\n{text}"), &[]).config.policy;
    let offered = |policy: &Policy| policy.offer_to_shadow(policy.shadow.as_ref().unwrap(), None).json().to_owned();
    assert_eq!(policy("").shadow, None);
    let with_default = policy("[policy.shadow]\nfile = \"s.wasm\"\n");
    let default = with_default.shadow.as_ref().unwrap();
    assert_eq!((default.deadline, default.core_share), (Duration::from_millis(5), 0.1));
    assert!(default.file.ends_with("s.wasm"));
    assert_eq!(offered(&with_default), r#"{"a":1}"#, "the policy's settings");
    let own = policy("[policy.shadow]\nfile = \"s.wasm\"\nsettings = { b = 2 }\n");
    assert_eq!(offered(&own), r#"{"b":2}"#);
    for (wrong, words) in [
        ("deadline_ms = 5", "the shadow has no file"),
        ("file = \"\"", "the shadow has no file"),
        ("file = \"s.wasm\"\ndeadline_ms = 91", "at most 90"),
        ("file = \"s.wasm\"\ncore_share = 0.0", "needs some time"),
        ("file = \"s.wasm\"\ncore_share = 1.5", "between 0 and 1"),
    ] {
        let text = format!("{ONE}[policy.shadow]\n{wrong}\n");
        let error = parse(&text, "p.toml", &[]).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn the_rollback_rule_has_defaults_a_switch_and_ranges() {
    use pointsman_core::lifecycle::fault_breaker::FaultLimits;
    let rollback = |text: &str| checked(&format!("{ONE}[policy.rollback]\n{text}\n"), &[]).config.policy.rollback;
    assert_eq!(rollback(""), Some(FaultLimits::default()));
    assert_eq!(rollback("enabled = false"), None);
    let rule = FaultLimits { first_decisions: 10, window: std::time::Duration::from_secs(1), ..FaultLimits::default() };
    assert_eq!(rollback("first_decisions = 10\nwindow_ms = 1000"), Some(rule));
    for wrong in
        ["first_decisions = 0", "fault_permille = 1001", "window_faults = 10001", "window_ms = 0", "faults = 1"]
    {
        let text = format!("{ONE}[policy.rollback]\n{wrong}\n");
        let name = wrong.split(' ').next().unwrap();
        let error = parse(&text, "p.toml", &ENV).err().unwrap_or_else(|| panic!("{wrong} is taken"));
        assert!(error.to_string().contains(name), "{wrong}: {error}");
    }
}

#[test]
fn the_schema_knows_the_documented_keys() {
    let schema = schema().to_value().to_string();
    for key in [
        "base_url",
        "max_body_bytes",
        "memory_budget_mb",
        "spill_dir",
        "budget_usd_per_day",
        "first-content",
        "retry_after_cap_ms",
        "fault_permille",
        "POINTSMAN_SEAL_KEY",
    ] {
        assert!(schema.contains(key), "{key}");
    }
    assert!(!schema.contains("null") && !schema.contains("Raw"), "{schema}");
}

fn any_mutation() -> impl Strategy<Value = String> {
    let edits =
        proptest::collection::vec((0..EXAMPLE.len(), 0..12_usize, "[\\[\\]\"'=.{}# \n\r0-9a-z\u{e9}-]{0,6}"), 1..8);
    edits.prop_map(|edits| {
        let mut text = EXAMPLE.to_owned();
        for (at, cut, new) in edits {
            let start = text.floor_char_boundary(at);
            let end = text.floor_char_boundary(start + cut);
            text.replace_range(start..end, &new);
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn any_text_is_answered(text in "\\PC{0,200}|[\\[\\]\"'=.{}# \n\ta-z0-9]{0,200}") {
        if let Err(error) = parse(&text, "p.toml", &ENV) {
            prop_assert!(!error.to_string().is_empty() && !error.diagnostics.is_empty());
        }
    }

    #[test]
    fn any_edit_of_a_good_file_is_taken_or_explained(text in any_mutation()) {
        match parse(&text, "p.toml", &ENV) {
            Ok(loaded) => prop_assert!(!loaded.config.backends.is_empty()),
            Err(error) => prop_assert!(error.to_string().starts_with("error: ") || error.to_string().contains("\nerror: ")),
        }
    }

    #[test]
    fn any_variable_is_answered(name in "POINTSMAN__[A-Z_]{0,30}|POINTSMAN__(SERVER|BACKEND__NVIDIA_1|POLICY__SETTINGS)__[A-Z_]{0,12}", value in "\\PC{0,20}") {
        let env = [ENV[0], ENV[1], (name.as_str(), value.as_str())];
        if let Err(error) = parse(EXAMPLE, "p.toml", &env) {
            prop_assert!(error.to_string().contains(&name), "{}", error);
        }
    }
}

#[test]
fn two_listeners_at_one_address_are_refused() {
    for (server, admin) in
        [("127.0.0.1:9901", None), ("127.0.0.1:7000", Some("127.0.0.1:7000")), ("127.0.0.1:7000", Some("0.0.0.0:7000"))]
    {
        let admin = admin.map_or(String::new(), |listen| format!("listen = \"{listen}\"\n"));
        let text =
            format!("[server]\nlisten = \"{server}\"\n[admin]\ntoken = \"env:POINTSMAN_ADMIN_TOKEN\"\n{admin}{ONE}");
        let error = parse(&text, "pointsman.toml", &ENV).unwrap_err().to_string();
        assert!(error.contains("at the same address") && error.contains("would both listen on port"), "{error}");
    }
    checked(&format!("[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n{ONE}"), &[]);
}
