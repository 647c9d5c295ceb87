//! Advice: what was most likely meant, in place of what was written.

use super::*;

/// Warnings of a configuration that is taken.
fn warnings(text: &str, env: &dyn Env) -> String {
    let warnings = checked(text, env).warnings;
    warnings.iter().map(|warning| format!("{warning}\n")).collect()
}

fn backend(more: &str) -> String {
    format!("{ONE}{more}\n")
}

#[test]
fn an_unknown_key_leads_to_the_one_that_was_meant() {
    for (line, words) in [
        ("requests_per_minute = 40", "write `rpm`"),
        ("tokens-per-minute = 40", "write `tpm`"),
        ("key = \"env:K\"", "write `api_key`"),
        ("apikey = \"env:K\"", "write `api_key`"),
        ("url = \"https://a.example/v1\"", "write `base_url`"),
        ("endpoint = \"https://a.example/v1\"", "write `base_url`"),
        ("name = \"a\"", "write `id`"),
        ("type = \"openai\"", "write `dialect`"),
        ("max_parallel_requests = 4", "write `max_concurrency`"),
        ("rpmm = 4", "write `rpm`"),
        ("listen = \"127.0.0.1:1\"", "`listen` is a key of [admin] or [server]: move the line there"),
        ("budget_usd_per_day = 1", "`budget_usd_per_day` is a key of [[client]]: move the line there"),
        ("colour = 1", "known here: id, tier"),
    ] {
        refused(&backend(line), &["unknown key", words, ":4:1"]);
    }
    refused(&backend("[server]\nport = 8080"), &["unknown key `port`", "write `listen`"]);
    refused(&backend("[server]\nrpm = 8080"), &["`rpm` is a key of [[backend]] or [[client]]"]);
    let told = refusal("[[model_list]]\nid = \"a\"\n");
    assert!(told.contains("unknown key `model_list`") && told.contains("write `backend`"), "{told}");
}

#[test]
fn a_value_of_the_wrong_type_comes_with_the_right_one() {
    for (line, words) in [
        ("rpm = \"40\"", "write 40, without quotation marks"),
        ("stream_options = \"true\"", "write true, without quotation marks"),
        ("id = 7", "write it in quotation marks: \"7\""),
        ("[server]\nlisten = 8080", "write \"127.0.0.1:8080\""),
        ("[stream]\ncommit = { token = 20 }", "`commit` cannot be { token = ... }"),
        ("[stream]\ncommit = { token = 20 }", "write `tokens`"),
        ("[server]\nexhausted_status = \"429\"", "expected \"503\" or \"common\""),
    ] {
        let text = if line.starts_with("id") { ONE.replace("id = \"a\"", line) } else { backend(line) };
        refused(&text, &[words]);
    }
    refused("[backend]\nid = \"a\"\n", &["`backend` must be a list", "write [[backend]], with two brackets"]);
    let told = refusal(&backend("[server]\nexhausted_status = \"429\""));
    assert_eq!(told.matches("common").count(), 1, "{told}");
}

#[test]
fn another_format_and_broken_syntax_are_named() {
    for (text, words) in [
        ("model_list:\n  - model_name: a\n", "this is YAML, and a configuration is TOML"),
        ("# mine\n---\nbackend:\n", "this is YAML"),
        ("{\"backend\": []}", "this is JSON, and a configuration is TOML"),
        ("rpm = \n", "there is no value behind the `=`"),
        ("[server]\nlisten = \"a\"\nlisten = \"b\"\n", "this key stands in the table twice"),
        ("[[backend]]\nid = \u{201c}a\u{201d}\n", "write straight quotation marks"),
    ] {
        refused(text, &[words]);
    }
}

#[test]
fn the_environment_is_taken_by_its_word() {
    let key = |reference: &str| backend(&format!("api_key = \"{reference}\""));
    let env = [("OPENAI_API_KEY", "sk-1"), ("EMPTY", "")];
    let told = refusal_with(&key("env:OPENAI_APIKEY"), &env);
    assert!(told.contains("did you mean \"env:OPENAI_API_KEY\", which is set?"), "{told}");
    let told = refusal_with(&key("env:EMPTY"), &env);
    assert!(told.contains("the environment variable EMPTY, which is empty"), "{told}");
    for (name, meant) in [
        ("POINTSMAN_SERVER_LISTEN", Some("POINTSMAN__SERVER__LISTEN")),
        ("POINTSMAN_STORE__PATH", Some("POINTSMAN__STORE__PATH")),
        ("POINTSMAN_LOG_LEVEL", Some("POINTSMAN__LOG__LEVEL")),
        ("POINTSMAN_SERVICE_HOST", None),
        ("POINTSMAN_ADMIN_SERVICE_HOST", None),
        ("POINTSMAN_CONFIG", None),
        ("POINTSMAN_ADMIN_TOKEN", Some("POINTSMAN__ADMIN__TOKEN")),
    ] {
        let told = warnings(ONE, &[(name, "127.0.0.1:1")]);
        assert_eq!(told.contains("is not read"), meant.is_some(), "{name}: {told}");
        assert!(meant.is_none_or(|meant| told.contains(&format!("did you mean {meant},"))), "{told}");
    }
    let used = backend("[admin]\ntoken = \"env:POINTSMAN_ADMIN_TOKEN\"");
    assert!(!warnings(&used, &[("POINTSMAN_ADMIN_TOKEN", "t0ken")]).contains("is not read"), "it is read as a secret");
}

#[test]
fn a_variables_name_in_any_form_is_no_key() {
    for text in [
        "$OPENAI_API_KEY",
        "${OPENAI_API_KEY}",
        "$(OPENAI_API_KEY)",
        "$env:OPENAI_API_KEY",
        "os.environ/OPENAI_API_KEY",
        "os.environ['OPENAI_API_KEY']",
        "process.env.OPENAI_API_KEY",
        "{{ OPENAI_API_KEY }}",
        "${{ secrets.OPENAI_API_KEY }}",
        "{env:OPENAI_API_KEY}",
        "%OPENAI_API_KEY%",
        "env OPENAI_API_KEY",
        "env=OPENAI_API_KEY",
        "!env OPENAI_API_KEY",
        "OPENAI_API_KEY",
    ] {
        let told = warnings(&backend(&format!("api_key = \"{text}\"")), &[]);
        assert!(told.contains("did you mean \"env:OPENAI_API_KEY\"?"), "{text}: {told}");
    }
    let told = warnings(&backend("api_key = 'os.environ[\"OPENAI_API_KEY\"]'"), &[]);
    assert!(told.contains("did you mean \"env:OPENAI_API_KEY\"?"), "{told}");
    let told = warnings(&backend("api_key = \"env:K\""), &[("K", "sk-one-1;sk-two-2")]);
    assert!(told.contains("has a separator in it") && !told.contains("sk-"), "{told}");
}

#[test]
fn addresses_are_suggested_as_they_were_meant() {
    for (url, meant) in [
        ("https//api.example.com/v1", "\"https://api.example.com/v1\""),
        ("https:/api.example.com/v1", "\"https://api.example.com/v1\""),
        ("ftp://api.example.com/v1", "\"https://api.example.com/v1\""),
        ("api.example.com/v1", "\"https://api.example.com/v1\""),
        ("localhost:11434/v1", "\"https://localhost:11434/v1\""),
        ("//api.example.com/v1", "\"https://api.example.com/v1\""),
    ] {
        refused(&format!("[[backend]]\nid = \"a\"\nbase_url = \"{url}\"\n"), &["must begin with http", meant]);
    }
    refused(
        &backend("[server]\nlisten = \"127.0.0.1:9901\""),
        &["[server] and [admin] would both listen on port 9901", "\"127.0.0.1:9902\""],
    );
    let told = |url: &str| {
        warnings(&format!("[[backend]]\nid = \"a\"\nbase_url = \"{url}\"\napi_key = \"env:K\"\n"), &[("K", "k-1")])
    };
    assert!(told("http://api.example.com/v1").contains("is sent to api.example.com unencrypted"));
    for near in ["http://127.0.0.1:1", "http://10.1.2.3:1", "http://vllm:8000", "http://a.b.svc", "https://a.example"] {
        assert!(!told(near).contains("unencrypted"), "{near}");
    }
}

#[test]
fn limits_names_and_prices_without_effect_are_told() {
    let told = |more: &str| warnings(&backend(more), &[("K", "k-1")]);
    assert!(told("rpm = 100\nrpd = 50").contains("`rpm` (100) is more than `rpd` (50), so it never applies"));
    assert!(told("tpm = 9000\ntpd = 5000").contains("`tpm` (9000) is more than `tpd` (5000)"));
    assert!(told("limits = { x = { rpm = 9, rpd = 5 } }").contains("`rpm` (9) is more than `rpd` (5)"));
    assert!(told("models = [\"x\"]\nlimits = { y = { rpd = 3 } }").contains("limits for `y`, which `a` never sends"));
    assert!(!told("models = [\"x\"]\nlimits = { \"x*\" = { rpd = 3 } }").contains("never sends"));
    assert!(!told("limits = { y = { rpd = 3 } }").contains("never sends"), "it sends any");
    let client = "[[client]]\nname = \"c\"\nkey = \"env:K\"\nmodels = [\"x\", \"z*\", \"y\"]";
    assert!(told(&format!("models = [\"x\"]\n{client}")).contains("client `c` may ask for `y`, which no backend"));
    let price = |line: &str| told(&format!("models = [\"m\"]\n[backend.price.m]\n{line}"));
    assert!(
        price("input_per_mtok = 0.4").contains("has input_per_mtok and no output_per_mtok: its answers count as $0")
    );
    assert!(price("output_per_mtok = 0.4").contains("no input_per_mtok: its prompts count as $0"));
    let of_token = price("input_per_mtok = 0.0000004\noutput_per_mtok = 0.0000016");
    assert!(of_token.contains("is it the price of one?") && of_token.contains("input_per_mtok = 0.4\n"), "{of_token}");
    assert_eq!(price("input_per_mtok = 0\noutput_per_mtok = 0"), "");
    assert_eq!(told("models = [\"text-embedding-3\"]\n[backend.price.text-embedding-3]\ninput_per_mtok = 0.02"), "");
}

#[test]
fn a_backend_that_is_another_one_again_is_told() {
    let two = |first: &str, second: &str| {
        let one = |id: &str, more: &str| {
            format!("[[backend]]\nid = \"{id}\"\nbase_url = \"https://a.example/v1\"\napi_key = \"env:K\"\n{more}\n")
        };
        warnings(&(one("a", first) + &one("b", second)), &[("K", "k-1")])
    };
    let is_told = "have the same key, and the same models";
    assert!(two("", "").contains(is_told), "{}", two("", ""));
    assert!(two("models = [\"m\"]", "").contains(is_told));
    assert!(!two("models = [\"m\"]", "models = [\"n\"]").contains(is_told));
    assert!(
        !two("", "tier = \"fallback\"\nprice = { \"*\" = { input_per_mtok = 1, output_per_mtok = 1 } }")
            .contains(is_told)
    );
    assert!(two("rpm = 4", "rpm = 4").contains("limits that are counted apart"));
}

#[test]
fn what_refuses_a_configuration_is_told_last_and_may_be_had_alone() {
    let text = format!("{ONE}rpmm = 4\n[[client]]\nname = \"c\"\nkey = \"k-in-plain-text\"\n");
    let error = parse(&text, "p.toml", &[]).unwrap_err();
    let told = error.to_string();
    let at = |words: &str| told.find(words).unwrap_or_else(|| panic!("{words}: {told}"));
    assert!(at("warning: `key` holds") < at("error: unknown key `rpmm`"), "{told}");
    assert!(at("error: unknown key `rpmm`") < at("refused: 1 problem"));
    let alone = error.errors();
    assert!(alone.starts_with("error: unknown key `rpmm`") && !alone.contains("warning"), "{alone}");
}
