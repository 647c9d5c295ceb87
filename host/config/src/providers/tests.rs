//! Starting without a file: the configuration made from the environment.

use pointsman_core::table::Tier;

use super::*;
use crate::{Config, parse};

fn found<const N: usize>(env: [(&str, &str); N]) -> Config {
    let Discovered { text, remarks } = discover(&env).unwrap();
    assert_eq!(remarks, Vec::<String>::new());
    let loaded = parse(&text, "env", &env).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(loaded.warnings, []);
    loaded.config
}

fn tiers(config: &Config) -> Vec<(&str, Tier)> {
    config.backends.iter().map(|b| (&*b.backend.id, b.backend.tier)).collect()
}

/// Lists the model name each backend sends for this model, in the order of the table.
fn sent(config: &Config, model: &str) -> Vec<Option<String>> {
    config.backends.iter().map(|one| one.backend.sent_model(model)).collect()
}

fn some(model: &str) -> Option<String> {
    Some(model.to_owned())
}

#[test]
fn free_keys_are_primary_and_a_paid_one_stands_in_with_a_cheap_model_that_has_a_price() {
    let config = found([("OPENAI_API_KEY", "sk-1"), ("NVIDIA_API_KEY", "nv-1")]);
    assert_eq!(tiers(&config), [("nvidia-1", Tier::Primary), ("openai-1", Tier::Fallback)]);
    assert_eq!(config.backends[0].backend.limits.rpm, Some(40));
    let llama = "meta/llama-3.1-70b-instruct";
    assert_eq!(sent(&config, llama), [some(llama), some("gpt-4.1-mini")]);
    assert_eq!(sent(&config, "gpt-5"), [None, some("gpt-5")], "one's own models are sent as asked, and nowhere else");
    assert_eq!(sent(&config, "gpt-oss-120b"), [some("gpt-oss-120b"), some("gpt-4.1-mini")]);
    let price = config.backends[1].backend.price("gpt-4.1-mini").unwrap();
    assert_eq!((price.input_per_mtok, price.output_per_mtok, price.cached_input_per_mtok), (0.40, 1.60, Some(0.10)));
}

#[test]
fn several_paid_providers_do_not_stand_in_for_one_another() {
    let config = found([
        ("NVIDIA_API_KEY", "a"),
        ("GROQ_API_KEY", "b"),
        ("OPENAI_API_KEY", "c"),
        ("ANTHROPIC_API_KEY", "d"),
        ("OPENROUTER_API_KEY", "e"),
    ]);
    let order = ["nvidia-1", "groq-1", "openrouter-1", "openai-1", "anthropic-1"];
    assert_eq!(tiers(&config).iter().map(|(id, _)| *id).collect::<Vec<_>>(), order);
    let stand_ins = [some("openai/gpt-4.1-mini"), some("gpt-4.1-mini"), some("claude-haiku-4-5")];
    assert_eq!(sent(&config, "llama")[2..], stand_ins);
    assert_eq!(sent(&config, "gpt-4o"), [None, None, None, some("gpt-4o"), None]);
    assert_eq!(sent(&config, "claude-x"), [None, None, None, None, some("claude-x")]);
    let scout = "meta-llama/llama-4-scout";
    assert_eq!(sent(&config, scout), [some(scout), some(scout), some(scout), None, None], "groq has it too");
}

#[test]
fn a_stand_in_can_be_named_for_all_for_one_or_for_none() {
    let keys = [("NVIDIA_API_KEY", "a"), ("OPENAI_API_KEY", "b")];
    let stands_in = |name: &str, model: &str| sent(&found([keys[0], keys[1], (name, model)]), "llama")[1].clone();
    assert_eq!(stands_in("POINTSMAN_FALLBACK_MODEL", "gpt-4.1-nano"), some("gpt-4.1-nano"));
    assert_eq!(stands_in("OPENAI_FALLBACK_MODEL", "gpt-4o"), some("gpt-4o"));
    assert_eq!(stands_in("POINTSMAN_FALLBACK_MODEL", "none"), None);
    let both = |more: (&'static str, &'static str)| discover(&[keys[0], keys[1], ("GEMINI_API_KEY", "c"), more]);
    let sent_by = |more| {
        sent(
            &parse(&both(more).unwrap().text, "env", &[keys[0], keys[1], ("GEMINI_API_KEY", "c")]).unwrap().config,
            "llama",
        )
    };
    let flash = "gemini-2.5-flash";
    assert_eq!(sent_by(("POINTSMAN_FALLBACK_MODEL", flash))[1..], [some("gpt-4.1-mini"), some(flash)]);
    assert_eq!(sent_by(("POINTSMAN_FALLBACK_MODEL", "none"))[1..], [None, None]);
    let told = both(("POINTSMAN_FALLBACK_MODEL", "mine")).unwrap_err().to_string();
    assert!(told.contains("\"mine\"") && told.contains("OPENAI_FALLBACK_MODEL, GEMINI_FALLBACK_MODEL"), "{told}");
}

#[test]
fn a_variable_for_a_stand_in_that_is_not_used_is_told() {
    fn told<const N: usize>(env: [(&str, &str); N]) -> Vec<String> {
        discover(&env).unwrap().remarks
    }
    let (free, paid) = (("NVIDIA_API_KEY", "a"), ("OPENAI_API_KEY", "b"));
    let (all, own) = (("POINTSMAN_FALLBACK_MODEL", "gpt-4o"), ("OPENAI_FALLBACK_MODEL", "gpt-4o"));
    assert_eq!([told([free, paid, all]), told([free, paid, own])], [Vec::<String>::new(), Vec::new()]);
    let nothing_free = "no free provider's key is set, so the paid are primary and get each model as it is asked for";
    assert_eq!(
        told([paid, all, own]),
        [
            format!("OPENAI_FALLBACK_MODEL is not used: {nothing_free}"),
            format!("POINTSMAN_FALLBACK_MODEL is not used: {nothing_free}")
        ]
    );
    assert_eq!(
        told([free, own, all]),
        [
            "OPENAI_FALLBACK_MODEL is not used: OPENAI_API_KEY is not set",
            "POINTSMAN_FALLBACK_MODEL is not used: no paid provider's key is set"
        ]
    );
    assert_eq!(
        told([free, paid, own, all, ("NVIDIA_FALLBACK_MODEL", "x")]),
        [
            "NVIDIA_FALLBACK_MODEL is not used: nvidia is free, and so primary",
            "POINTSMAN_FALLBACK_MODEL is not used: OPENAI_FALLBACK_MODEL comes before it"
        ]
    );
    let two = told([free, paid, own, all, ("GEMINI_API_KEY", "c")]);
    assert_eq!(two, ["POINTSMAN_FALLBACK_MODEL is not used: OPENAI_FALLBACK_MODEL comes before it"]);
}

#[test]
fn a_paid_provider_alone_is_primary_and_serves_everything() {
    let config = found([("OPENAI_API_KEY", "sk-1")]);
    assert_eq!(tiers(&config), [("openai-1", Tier::Primary)]);
    assert_eq!(sent(&config, "anything"), [some("anything")]);
    let two = found([("OPENAI_API_KEY", "sk-1"), ("ANTHROPIC_API_KEY", "sk-2")]);
    assert_eq!(tiers(&two), [("openai-1", Tier::Primary), ("anthropic-1", Tier::Primary)]);
    assert_eq!([sent(&two, "llama"), sent(&two, "gpt-5")], [[None, None], [some("gpt-5"), None]]);
}

#[test]
fn lists_and_numbered_variables_are_several_backends_each_key_once() {
    let config = found([
        ("NVIDIA_API_KEY_10", "d"),
        ("NVIDIA_API_KEY", "a, b ,"),
        ("NVIDIA_API_KEY_2", "c"),
        ("NVIDIA_API_KEY_3", "a"),
    ]);
    let keys: Vec<&str> = config.backends.iter().map(|b| b.api_key.as_ref().unwrap().expose()).collect();
    assert_eq!(keys, ["a", "b", "c", "d"]);
    assert_eq!(tiers(&config)[3].0, "nvidia-4");
}

#[test]
fn every_provider_makes_a_valid_backend_and_every_paid_one_a_priced_stand_in() {
    let names: Vec<String> = PROVIDERS.iter().map(Provider::variable).collect();
    let env: [(&str, &str); PROVIDERS.len()] = std::array::from_fn(|i| (names[i].as_str(), names[i].as_str()));
    let config = found(env);
    assert_eq!(config.backends.len(), PROVIDERS.len());
    for one in config.backends.iter().map(|one| &one.backend).filter(|one| one.tier == Tier::Fallback) {
        let stand_in = one.sent_model("llama").unwrap();
        assert!(one.price(&stand_in).is_some_and(|price| price.output_per_mtok > 0.0), "{}: {stand_in}", one.id);
        assert_eq!(one.capabilities.get("embeddings"), Some(&false), "{}", one.id);
    }
}

#[test]
fn the_base_urls_of_sdks_are_honoured_with_the_path_that_the_sdk_would_add() {
    let reached = |name: &str, value: &str| {
        let config = found([("GROQ_API_KEY", "a"), ("OPENAI_API_KEY", "b"), (name, value)]);
        let of = |one: &crate::BackendConfig| one.base_url.to_string();
        config.backends.iter().map(of).collect::<Vec<_>>()
    };
    let (groq, openai) = ("https://api.groq.com/openai/v1", "https://api.openai.com/v1");
    assert_eq!(reached("OPENAI_BASE_URL", "https://eu.api.openai.com/v1/"), [groq, "https://eu.api.openai.com/v1"]);
    assert_eq!(reached("OPENAI_BASE_URL", "http://10.0.0.1:9"), [groq, "http://10.0.0.1:9/v1"]);
    assert_eq!(reached("GROQ_BASE_URL", "http://10.0.0.1:9"), ["http://10.0.0.1:9/openai/v1", openai]);
    assert_eq!(reached("OPENAI_API_BASE", "http://10.0.0.1:9/v1"), [groq, "http://10.0.0.1:9/v1"]);
    assert_eq!(reached("OPENAI_BASE_URL", " 'http://10.0.0.1:9/v1/' "), [groq, "http://10.0.0.1:9/v1"]);
    assert_eq!(reached("OPENAI_BASE_URL", "\"\""), [groq, openai]);
    for wrong in ["nonsense", "ftp://x/v1", "https://x/v1?k=1"] {
        let told = discover(&[("OPENAI_API_KEY", "b"), ("OPENAI_BASE_URL", wrong)]).unwrap_err().to_string();
        assert!(told.contains("OPENAI_BASE_URL") && told.contains(openai), "{told}");
    }
}

#[test]
fn a_base_url_that_is_the_proxy_itself_is_for_its_clients() {
    for (listen, url, is_ours) in [
        ("", "http://127.0.0.1:8080/v1", true),
        ("", "http://localhost:8080/v1", true),
        ("0.0.0.0:9", "http://127.0.0.1:9/v1", true),
        ("127.0.0.1:9", "http://127.0.0.1:8080/v1", false),
        ("", "http://10.0.0.1:8080/v1", false),
    ] {
        let env = [("OPENAI_API_KEY", "b"), ("OPENAI_BASE_URL", url), ("POINTSMAN__SERVER__LISTEN", listen)];
        let Discovered { text, remarks } = discover(&env).unwrap();
        assert_eq!(
            (remarks.len(), text.contains("https://api.openai.com/v1")),
            (usize::from(is_ours), is_ours),
            "{url}"
        );
    }
}

#[test]
fn without_any_key_the_way_out_is_named() {
    let error = discover(&[("OPENAI_API_KEY", "")]).unwrap_err().to_string();
    assert!(error.contains("NVIDIA_API_KEY") && error.contains("pointsman demo"), "{error}");
}
