use pointsman_core::table::{Dialect, Tier};

use super::*;
use crate::{Config, parse};

const ENV: [(&str, &str); 5] = [
    ("NVIDIA_NIM_API_KEY", "n"),
    ("OPENAI_API_KEY", "o"),
    ("ANTHROPIC_API_KEY", "a"),
    ("MASTER", "m"),
    ("BASE", "http://b/v1"),
];

fn import(yaml: &str) -> (String, Config) {
    let text = import_litellm(yaml, &ENV).unwrap();
    let config = parse(&text, "imported.toml", &ENV).unwrap_or_else(|error| panic!("{error}\n{text}")).config;
    (text, config)
}

const YAML: &str = r#"
model_list:
  - model_name: llama
    litellm_params: { model: nvidia_nim/meta/llama-3.1-70b-instruct, rpm: 40, tpm: "100000", order: 1, temperature: 0.1 }
  - model_name: llama
    litellm_params: { model: openai/llama-70b, api_base: os.environ/BASE, api_key: os.environ/OPENAI_API_KEY, order: 2 }
  - model_name: gpt
    litellm_params: { model: gpt-4o-mini, timeout: 30 }
    model_info: { input_cost_per_token: 0.00000015, output_cost_per_token: 6.0e-07 }
  - model_name: gpt-large
    litellm_params: { model: openai/gpt-4o, timeout: 30 }
  - model_name: claude
    litellm_params: { model: anthropic/claude-sonnet-4-5, max_parallel_requests: 4 }
  - model_name: cloudy
    litellm_params: { model: bedrock/anthropic.claude-v2 }
router_settings:
  routing_strategy: least-busy
  num_retries: 2
  fallbacks: [{ llama: ["gpt"] }, { gpt: ["nothing"] }]
general_settings: { master_key: os.environ/MASTER, database_url: "postgres://secret" }
"#;

#[test]
fn a_model_list_becomes_backends() {
    let (text, config) = import(YAML);
    let seen: Vec<(&str, Tier, Dialect)> =
        config.backends.iter().map(|b| (&*b.backend.id, b.backend.tier, b.backend.dialect)).collect();
    assert_eq!(
        seen,
        [
            ("nvidia-nim-1", Tier::Primary, Dialect::OPENAI),
            ("openai-fallback-1", Tier::Fallback, Dialect::OPENAI),
            ("openai-1", Tier::Primary, Dialect::OPENAI),
            ("anthropic-1", Tier::Primary, Dialect::ANTHROPIC),
            ("openai-fallback-2", Tier::Fallback, Dialect::OPENAI),
        ],
        "{text}"
    );
    let backend = |i: usize| &config.backends[i].backend;
    assert_eq!((backend(0).limits.rpm, backend(0).limits.tpm), (Some(40), Some(100_000)));
    assert_eq!(backend(0).sent_model("llama").as_deref(), Some("meta/llama-3.1-70b-instruct"));
    assert_eq!(config.backends[1].base_url.to_string(), "http://b/v1");
    assert_eq!(backend(2).sent_model("gpt-large").as_deref(), Some("gpt-4o"));
    assert_eq!(backend(2).price("gpt-4o-mini").unwrap().input_per_mtok, 0.15);
    assert_eq!(backend(2).timeouts.total.as_secs(), 30);
    assert_eq!(backend(3).limits.max_concurrency, Some(4));
    assert_eq!(backend(4).sent_model("llama").as_deref(), Some("gpt-4o-mini"));
    assert_eq!(config.policy.settings["max_pool_retries"], 2);
    assert_eq!(config.client_of("m"), Some(0));
}

#[test]
fn every_line_of_the_report_says_which_entry_and_what_became_of_it() {
    let (text, _) = import(YAML);
    for line in [
        "line 3: model_list[0] (model_name \"llama\"): not carried over: litellm_params.temperature",
        "line 3: model_list[0] (model_name \"llama\"): \"llama\" is sent to nvidia-nim-1 (primary) as \"meta/llama-3.1-70b-instruct\"",
        "line 5: model_list[1] (model_name \"llama\"): \"llama\" is sent to openai-fallback-1 (fallback) as \"llama-70b\"",
        "line 7: model_list[2] (model_name \"gpt\"): \"llama\" is sent to openai-fallback-2 (fallback) as \"gpt-4o-mini\"",
        "line 14: model_list[5] (model_name \"cloudy\"): not carried over: litellm_params.model: bedrock is none of the providers",
        "router_settings.fallbacks of \"gpt\": not carried over: no entry of model_list that could be is called \"nothing\"",
        "router_settings.routing_strategy: not carried over: the policy decides",
        "general_settings.database_url: not carried over: the record is an SQLite file",
    ] {
        assert!(
            text.lines().any(|told| told.strip_prefix("# - ").is_some_and(|told| told.starts_with(line))),
            "{line}:\n{text}"
        );
    }
    assert!(!text.contains("postgres://"), "{text}");
}

#[test]
fn wildcards_stay_wildcards() {
    let (_, config) = import("model_list: [{ model_name: \"openai/*\", litellm_params: { model: \"openai/*\" } }]");
    assert_eq!(config.backends[0].backend.sent_model("openai/gpt-5").as_deref(), Some("gpt-5"));
}

#[test]
fn other_files_are_refused_in_a_sentence() {
    assert!(import_litellm("a: [", &ENV).unwrap_err().contains("not a LiteLLM configuration"));
    assert!(import_litellm("a: 1", &ENV).unwrap_err().contains("no model_list"));
    assert!(import_litellm("", &ENV).is_err());
}

/// Two regions of Azure before OpenAI, a local model, and names that stand for others.
const OFFICE: &str = r#"
model_list:
  - model_name: gpt-4o
    litellm_params:
      model: azure/gpt-4o-eu
      api_base: https://eu-res.openai.azure.com/
      api_key: os.environ/AZURE_EU
      api_version: "2024-10-21"
      order: 1
    rpm: 600
  - model_name: gpt-4o
    litellm_params:
      model: azure/gpt-4o-us
      api_base: https://us-res.openai.azure.com/openai/deployments/gpt-4o-us
      api_key: os.environ/AZURE_US
      order: 2
  - model_name: gpt-4o
    litellm_params: { model: openai/gpt-4o, api_key: os.environ/OPENAI_API_KEY, order: 3 }
  - model_name: gpt-4o
    litellm_params: { model: openai/gpt-4o-mini, api_key: os.environ/OPENAI_API_KEY }
  - model_name: local
    litellm_params: { model: ollama_chat/llama3.2, api_base: "http://gpu:11434" }
    model_info: { mode: chat, input_cost_per_token: 0 }
  - model_name: local-embed
    litellm_params: { model: ollama/nomic-embed-text, api_base: "http://gpu:11434/api/generate" }
router_settings:
  model_group_alias: { "gpt-4": gpt-4o, secret: { model: local, hidden: true }, lost: gone }
  timeout: 45
litellm_settings: { default_fallbacks: [local], callbacks: [langfuse] }
environment_variables: { A: b }
"#;

#[test]
fn orders_are_tiers_and_azure_and_ollama_are_reached_at_their_openai_compatible_apis() {
    let env = [("AZURE_EU", "e"), ("AZURE_US", "u"), ("OPENAI_API_KEY", "o")];
    let text = import_litellm(OFFICE, &env).unwrap();
    let config = parse(&text, "imported.toml", &env).unwrap_or_else(|error| panic!("{error}\n{text}")).config;
    let seen: Vec<(&str, Tier, String)> =
        config.backends.iter().map(|b| (&*b.backend.id, b.backend.tier, b.base_url.to_string())).collect();
    let at = |id: &'static str, tier: Tier, url: &str| (id, tier, url.to_owned());
    assert_eq!(
        seen,
        [
            at("azure-1", Tier::Primary, "https://eu-res.openai.azure.com/openai/v1"),
            at("azure-fallback-1", Tier::Fallback, "https://us-res.openai.azure.com/openai/v1"),
            at("openai-fallback-1", Tier::Fallback, "https://api.openai.com/v1"),
            at("openai-fallback-2", Tier::Fallback, "https://api.openai.com/v1"),
            at("ollama-chat-1", Tier::Primary, "http://gpu:11434/v1"),
            at("ollama-1", Tier::Primary, "http://gpu:11434/v1"),
            at("ollama-chat-fallback-1", Tier::Fallback, "http://gpu:11434/v1"),
        ],
        "{text}"
    );
    let backend = |i: usize| &config.backends[i].backend;
    assert_eq!(backend(0).limits.rpm, Some(600), "also where it stands beside the parameters");
    assert_eq!(backend(0).sent_model("gpt-4").as_deref(), Some("gpt-4o-eu"), "an alias");
    assert_eq!(backend(1).sent_model("gpt-4o").as_deref(), Some("gpt-4o-us"));
    assert_eq!(backend(4).sent_model("secret").as_deref(), Some("llama3.2"));
    assert_eq!(backend(6).sent_model("anything").as_deref(), Some("llama3.2"));
    assert_eq!(backend(0).timeouts.total.as_secs(), 45);
    assert!(config.backends[4].api_key.is_none(), "ollama needs none");
    for line in [
        "line 3: model_list[0] (model_name \"gpt-4o\"): litellm_params.api_base became https://eu-res.openai.azure.com/openai/v1",
        "line 3: model_list[0] (model_name \"gpt-4o\"): not carried over: litellm_params.api_version (Azure",
        "line 3: model_list[0] (model_name \"gpt-4o\"): \"gpt-4\" is sent to azure-1 (primary) as \"gpt-4o-eu\"",
        "line 17: model_list[2] (model_name \"gpt-4o\"): its litellm_params.order is not kept among the fallbacks",
        "line 19: model_list[3] (model_name \"gpt-4o\"): it has the key of openai-fallback-1, and is a backend of its own",
        "line 21: model_list[4] (model_name \"local\"): not carried over: model_info.mode",
        "router_settings.model_group_alias \"lost\": not carried over: no entry",
        "router_settings.model_group_alias \"secret\": hidden is not carried over",
        "litellm_settings.callbacks: not carried over",
        "environment_variables: not carried over",
    ] {
        assert!(
            text.lines().any(|told| told.strip_prefix("# - ").is_some_and(|told| told.starts_with(line))),
            "{line}:\n{text}"
        );
    }
}

#[test]
fn one_key_in_several_entries_is_one_backend_with_one_limit() {
    let yaml = r#"
model_list:
  - model_name: large
    litellm_params: { model: groq/llama-3.3-70b-versatile, api_key: os.environ/GROQ, rpm: 30, weight: 1, timeout: 10 }
  - model_name: small
    litellm_params: { model: groq/llama-3.1-8b-instant, api_key: os.environ/GROQ, rpm: 60, tpm: 6000, timeout: 20 }
  - model_name: large
    litellm_params: { model: groq/llama-3.3-70b-versatile, api_key: os.environ/GROQ_2, rpm: 30 }
"#;
    let env = [("GROQ", "g1"), ("GROQ_2", "g2")];
    let text = import_litellm(yaml, &env).unwrap();
    let loaded = parse(&text, "imported.toml", &env).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(loaded.warnings, [], "{text}");
    let backends = loaded.config.backends;
    assert_eq!(backends.iter().map(|one| &*one.backend.id).collect::<Vec<_>>(), ["groq-1", "groq-2"]);
    let first = &backends[0].backend;
    assert_eq!((first.limits.rpm, first.limits.tpm, first.timeouts.total.as_secs()), (Some(30), Some(6_000), 20));
    assert_eq!((first.sent_model("small"), first.serves("large")), (Some("llama-3.1-8b-instant".to_owned()), true));
    let told = "line 5: model_list[1] (model_name \"small\"): rpm is 60 here and 30 in line 3: model_list[0] (model_name \"large\"); \
                they have one key, and groq-1 has 30";
    assert!(text.contains(told), "{text}");
    for told in [
        "tpm is 6000 here, and there is none in line 3: model_list[0] (model_name \"large\"); they have one key",
        "weight is 1 in line 3: model_list[0] (model_name \"large\"), and there is none here; they have one key",
        "timeout in ms is 20000 here and 10000 in line 3",
    ] {
        let line = format!("line 5: model_list[1] (model_name \"small\"): {told}");
        assert_eq!(text.matches(&line).count(), 1, "{line}:\n{text}");
    }
}

#[test]
fn each_limit_of_a_merged_backend_is_told_once_with_the_entry_that_it_is_of() {
    let yaml = r#"
model_list:
  - { model_name: a, litellm_params: { model: groq/a, api_key: k }, rpm: 30 }
  - { model_name: b, litellm_params: { model: groq/b, api_key: k, max_parallel_requests: 3 } }
  - { model_name: c, litellm_params: { model: groq/c, api_key: k, rpm: 20, timeout: 9 } }
  - { model_name: d, litellm_params: { model: groq/d, api_key: k, rpm: 20 } }
router_settings: { model_group_alias: { e: b } }
"#;
    let (text, config) = import(yaml);
    let limits = &config.backends[0].backend.limits;
    assert_eq!((config.backends.len(), limits.rpm, limits.max_concurrency), (1, Some(20), Some(3)), "{text}");
    let told: Vec<&str> = text.lines().filter_map(|line| line.strip_suffix("20").or(line.strip_suffix('3'))).collect();
    let told: Vec<&str> =
        told.into_iter().filter_map(|line| line.strip_suffix("; they have one key, and groq-1 has ")).collect();
    let [a, b, c, d] = [(0, "a"), (1, "b"), (2, "c"), (3, "d")]
        .map(|(index, name)| format!("line {}: model_list[{index}] (model_name {name:?})", index + 3));
    assert_eq!(
        told,
        [
            format!("# - {b}: max_concurrency is 3 here, and there is none in {a}"),
            format!("# - {c}: rpm is 20 here and 30 in {a}"),
            format!("# - {c}: max_concurrency is 3 in {b}, and there is none here"),
            format!("# - {d}: max_concurrency is 3 in {b}, and there is none here"),
        ],
        "{text}"
    );
    assert!(text.contains(&format!("{b}: rpm is 30 in {a}, and there is none here")), "{text}");
    assert!(text.contains(&format!("{d}: timeout in ms is 9000 in {c}, and there is none here")), "{text}");
}

#[test]
fn what_can_be_taken_from_anywhere_in_an_entry_is() {
    let yaml = r#"
model_list:
  - model_name: m
    litellm_params: { model: openai/m, tpm: os.environ/TPM, weight: 2 }
    model_info: { rpm: 60, tpm: 100, id: x }
    input_cost_per_token: 0.000001
    output_cost_per_token: 2.0e-06
router_settings: { fallbacks: { m: other }, num_retries: os.environ/TPM }
"#;
    let env = [("TPM", "7"), ("OPENAI_API_KEY", "k")];
    let yaml = yaml.replace(
        "router_settings",
        "  - { model_name: other, litellm_params: { model: groq/n, api_key: g } }\nrouter_settings",
    );
    let text = import_litellm(&yaml, &env).unwrap();
    let config = parse(&text, "imported.toml", &env).unwrap_or_else(|error| panic!("{error}\n{text}")).config;
    let backend = &config.backends[0].backend;
    assert_eq!((backend.limits.rpm, backend.limits.tpm), (Some(60), Some(7)), "{text}");
    let price = backend.price("m").unwrap();
    assert_eq!((price.input_per_mtok, price.output_per_mtok), (1.0, 2.0));
    assert_eq!(config.policy.settings["max_pool_retries"], 7);
    assert!(text.contains("\"m\" is sent to groq-fallback-1 (fallback) as \"n\""), "a map and a name alone: {text}");
    let told = "not carried over: model_info.id, model_info.tpm (litellm_params.tpm comes before it)\n";
    assert!(text.contains(told), "{text}");
}

#[test]
fn what_cannot_be_taken_is_told_whichever_key_it_is() {
    let yaml = r#"
model_list:
  - model_name: m
    litellm_params:
      model: openai/m
      rpm: os.environ/NOT_SET
      tpm: many
      weight: 0.5
      timeout: os.environ/NOT_SET
      max_parallel_requests: 0
      extra_headers: { X-A: a, X-B: 1 }
      api_base: https://h/v1
      base_url: https://other/v1
      organization: null
    model_info: { input_cost_per_token: free }
router_settings:
  fallbacks: [m, { m: [{ model: m }] }]
  default_fallbacks: [1]
  timeout: 9
  num_retries: 1
  model_group_alias: [m]
litellm_settings: { request_timeout: 600, num_retries: 5, master_key: sk-secret, fallbacks: m, timeout: 3 }
general_settings: { master_key: 12, fallbacks: [] }
"#;
    let (text, config) = import(yaml);
    let backend = &config.backends[0].backend;
    assert_eq!((backend.timeouts.total.as_secs(), config.policy.settings["max_pool_retries"].clone()), (9, 1.into()));
    let entry = "line 3: model_list[0] (model_name \"m\"): not carried over: litellm_params.base_url, \
        litellm_params.max_parallel_requests (it is not a whole number from 1), \
        litellm_params.rpm (it is in NOT_SET, which is not set here), \
        litellm_params.timeout (it is in NOT_SET, which is not set here), \
        litellm_params.tpm (it is not a whole number from 1), litellm_params.weight (it is not a whole number from 1), \
        model_info.input_cost_per_token (it is not a number from 0), litellm_params.extra_headers.X-B (it is no text)";
    let told: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# - ")).filter(|line| line.contains("not carried")).collect();
    assert_eq!(
        told,
        [
            entry,
            "router_settings.fallbacks[0]: not carried over: it is no map",
            "router_settings.fallbacks of \"m\": not carried over: a fallback that is more than a name",
            "router_settings.default_fallbacks: not carried over: a fallback that is more than a name",
            "router_settings.model_group_alias: not carried over: it is no map",
            "litellm_settings.fallbacks: not carried over: it is no list of maps",
            "litellm_settings.master_key: not carried over",
            "litellm_settings.num_retries: not carried over: router_settings.num_retries comes before it",
            "litellm_settings.request_timeout: not carried over: router_settings.timeout comes before it",
            "litellm_settings.timeout: not carried over",
            "general_settings.fallbacks: not carried over",
            "general_settings.master_key: not carried over: it is no text",
        ]
    );
    assert!(!text.contains("sk-secret") && text.contains("X-A"), "{text}");
}
