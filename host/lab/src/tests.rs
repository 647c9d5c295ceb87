//! Scenarios with the default policy: unmet expectations, settings, budgets, determinism.

use std::sync::Arc;
use std::time::Duration;

use pointsman_core::contract::{Decision, Dispatch, Hold, Query, Rejection, RowState};
use pointsman_core::table::Lane;
use pointsman_engine::{Compiled, Engine, EngineLimits, Fault, FaultKind, Texts};

use super::report::{self, Verdict};
use super::scenario::Scenario;
use super::settings::GivenSettings;
use super::trial::Trial;

fn default_policy() -> Compiled {
    let limits = EngineLimits { max_instances: 4, ..EngineLimits::default() };
    Engine::new(limits).unwrap().compile_embedded().unwrap()
}

fn tried(text: &str) -> Trial {
    Trial::run(&default_policy(), &Scenario::parse(text, "s.toml").unwrap(), &GivenSettings::default()).unwrap()
}

fn sentences(trial: &Trial) -> Vec<String> {
    trial.failures.iter().map(ToString::to_string).collect()
}

const ONE_429: &str = include_str!("testdata/one-429.toml");

#[test]
fn what_is_expected_and_happens_passes() {
    let trial = tried(&format!(
        "{ONE_429}decisions = [\"primary a\", \"wait primary\", \"primary a\"]\nend = \"delivered by a\"\n\
         not_before = \"2.42s\"\nwithin = \"2.42s\"\nnotes = [\"expected in 2000 ms\"]\n\
         [expect]\nattempts = {{ a = 2, b = 0 }}\nlanes = {{ primary = 1 }}\ndelivered = 1\nrejected = 0\nspend_usd = 0.0002"
    ));
    assert_eq!(sentences(&trial), [""; 0]);
    assert_eq!(trial.simulated.as_millis(), 2_420);
}

#[test]
fn each_unmet_expectation_has_its_sentence() {
    for (expectation, sentence) in [
        ("end = \"delivered by b\"", "request 1: it was to be delivered by b, and was delivered by a"),
        ("within = \"2s\"", "request 1: it was to end within 2 s, and took 2.42 s"),
        ("not_before = \"3s\"", "request 1: it was not to end before 3 s, and took 2.42 s"),
        ("notes = [\"cheap\"]", "request 1: none of its notes has \"cheap\" in it"),
        (
            "decisions = [\"primary\", \"fallback\"]",
            "request 1: decision 2 was to be \"fallback\", and was \"wait primary\"; \
             all decisions: primary a, wait primary, primary a",
        ),
        (
            "decisions = [\"primary\"]",
            "request 1: its decisions were to be \"primary\", and were \"primary a\", \"wait primary\", \"primary a\"",
        ),
        (
            "decisions = [\"...\", \"fallback\"]",
            "request 1: its decisions were to be \"...\", \"fallback\", and were \"primary a\", \"wait primary\", \"primary a\"",
        ),
        ("[expect]\nattempts = { a = \">=3\" }", "attempts sent to a: was to be at least 3, and was 2"),
        ("[expect]\nlanes = { fallback = 1 }", "exchanges delivered in the fallback lane: was to be 1, and was 0"),
        ("[expect]\ndelivered = \"2..3\"", "exchanges delivered: was to be 2 to 3, and was 1"),
        ("[expect]\nrejected = 1", "exchanges rejected: was to be 1, and was 0"),
        ("[expect]\nspend_usd = \"<=0.0001\"", "USD spent: was to be at most 0.0001, and was 0.0002"),
    ] {
        assert_eq!(sentences(&tried(&format!("{ONE_429}{expectation}"))), [sentence], "{expectation}");
    }
}

#[test]
fn dots_stand_for_any_decisions_where_they_are() {
    for decisions in [
        r#"["..."]"#,
        r#"["...", "primary a"]"#,
        r#"["primary a", "..."]"#,
        r#"["primary", "...", "wait primary", "...", "primary"]"#,
        r#"["...", "wait primary", "..."]"#,
    ] {
        assert!(tried(&format!("{ONE_429}decisions = {decisions}")).passed(), "{decisions}");
    }
}

#[test]
fn a_policy_fault_is_a_failure() {
    let scenario = Scenario::parse(&format!("{ONE_429}end = \"rejected 503\""), "s.toml").unwrap();
    let trial = Trial::play(&scenario, |_: &Query, _: &Arc<Texts>| pointsman_engine::Verdict {
        fault: Some(Fault { kind: FaultKind::Trap, message: "out of luck".to_owned() }),
        ..pointsman_engine::Verdict::of(Decision::Reject(Rejection::default()))
    });
    assert_eq!(sentences(&trial), ["request 1: the policy failed: trap: out of luck"]);
}

/// As in the server, where a wait that is over looks for its permit once more.
#[test]
fn what_comes_free_in_the_moment_a_wait_is_over_is_still_handed_over() {
    let scenario = Scenario::parse(&format!("{ONE_429}end = \"delivered by a\""), "s.toml").unwrap();
    let trial = Trial::play(&scenario, |query: &Query, _: &Arc<Texts>| {
        let hold = Hold { max: Duration::from_secs(2), lane: Lane::Primary };
        let decision = match (query.attempts.len(), query.waits) {
            (1, 0) => Decision::Wait(hold),
            _ if query.rows.is(0, RowState::Ready) => Decision::Primary(Dispatch::default()),
            _ => Decision::Reject(Rejection::default()),
        };
        pointsman_engine::Verdict::of(decision)
    });
    assert_eq!(sentences(&trial), [""; 0], "{}", trial.exchanges[0].story());
    assert!(trial.exchanges[0].story().to_string().contains("waited   2 s, then got a permit of a"));
}

#[test]
fn settings_that_the_policy_refuses_are_told() {
    let text = ONE_429.replace("[[request]]", "[settings]\nprimary_wait = 1\n[[request]]\nend = \"delivered\"");
    let scenario = Scenario::parse(&text, "s.toml").unwrap();
    let refusal = Trial::run(&default_policy(), &scenario, &GivenSettings::default()).unwrap_err().to_string();
    assert!(refusal.contains("refused its configuration") && refusal.contains("primary_wait"), "{refusal}");
}

#[test]
fn settings_that_were_recorded_under_another_policy_are_left_out_and_told() {
    let trial = |settings: &str, given: &GivenSettings| {
        let text = ONE_429.replace("[[request]]", &format!("[settings]\n{settings}\n[[request]]\nend = \"delivered\""));
        let scenario = Scenario::parse(&format!("settings_of = \"0123456789ab\"\n{text}"), "s.toml").unwrap();
        Trial::run(&default_policy(), &scenario, given).map_err(|error| error.to_string())
    };
    let set = |key: &str, value: i32| GivenSettings::new(None, [(key.to_owned(), value.into())].into_iter().collect());
    let none = GivenSettings::default();
    assert_eq!(trial("patience = 1\nprimary_wait_ms = 100", &none).unwrap().left_out, ["patience"]);
    let wrong = trial("patience = 1\nprimary_wait_ms = -1", &none).unwrap_err();
    assert!(wrong.contains("`primary_wait_ms` must be a whole number"), "{wrong}");
    let longer = set("primary_wait_ms", 100);
    assert_eq!(trial("primary_wait_ms = -1", &longer).unwrap().left_out, [""; 0]);
    // The policy that decided is told what it was told then: others' keys and tables stood beside its own.
    let own = default_policy().id().to_string();
    let text = ONE_429.replace(
        "[[request]]",
        "[settings]\npatience = { ms = 1 }\nprimary_wait_ms = 100\n[[request]]\nend = \"delivered\"",
    );
    let scenario = Scenario::parse(&format!("settings_of = \"{own}\"\n{text}"), "s.toml").unwrap();
    let decided = Trial::run(&default_policy(), &scenario, &GivenSettings::default()).unwrap();
    assert_eq!(decided.left_out, ["patience"]);
    let unknown = set("patience", 1);
    assert!(trial("", &unknown).unwrap_err().contains("`patience` is no setting"));
}

#[test]
fn a_clients_budget_and_spending_count() {
    let text = r#"
        title = "budget"
        start = "2026-01-05T23:59:00Z"
        [[backend]]
        id = "a"
        models = ["m"]
        price = { m = { input_per_mtok = 0.0, output_per_mtok = 1000.0 } }
        [[client]]
        name = "c"
        budget_usd_per_day = 1.0
        spent_usd = 0.98
        models = ["m"]
        [[request]]
        client = "c"
        end = "delivered by a"
        [[request]]
        at = "1s"
        client = "c"
        end = "rejected 429"
        [[request]]
        at = "2s"
        client = "c"
        model = "x"
        end = "rejected 404"
        [[request]]
        at = "61s"
        client = "c"
        end = "delivered by a"
        [expect]
        spend_usd = 0.04
    "#;
    assert_eq!(sentences(&tried(text)), [""; 0], "the budget is spent, and is whole again at midnight");
}

#[test]
fn over_its_budget_a_client_gets_what_costs_nothing() {
    let text = |more: &str, ends: [&str; 2]| {
        format!(
            r#"
            title = "over budget"
            [[backend]]
            id = "free"
            models = ["m"]
            script = [{{ answer = 503 }}, {{ answer = 200 }}]
            [[backend]]
            id = "paid"
            tier = "fallback"
            models = ["m", "x"]
            price = {{ "*" = {{ input_per_mtok = 1.0, output_per_mtok = 10.0 }} }}
            [[client]]
            name = "c"
            budget_usd_per_day = 1.0
            spent_usd = 1.0
            {more}
            [[request]]
            client = "c"
            end = "{}"
            [[request]]
            client = "c"
            model = "x"
            end = "{}"
            [expect]
            spend_usd = 0
            "#,
            ends[0], ends[1]
        )
    };
    let waits = text("", ["delivered by free", "rejected 429"]);
    assert_eq!(sentences(&tried(&waits)), [""; 0], "it waits for the free one although the other is ready");
    let refused = text("free_when_over_budget = false", ["rejected 429"; 2]);
    assert_eq!(sentences(&tried(&refused)), [""; 0]);
}

#[test]
fn the_same_seed_gives_the_same_report_byte_for_byte() {
    let policy = default_policy();
    let report = |seed: u64| {
        let text = format!(
            "title = \"t\"\nseed = {seed}\n[[backend]]\nid = \"a\"\nmodels = [\"m\"]\nscript = [{{ answer = 500 }}, {{ answer = 429 }}, {{ answer = 200 }}]\n\
             [[backend]]\nid = \"b\"\nmodels = [\"m\"]\nscript = [{{ answer = \"reset\" }}, {{ answer = 200 }}, {{ answer = 503 }}, {{ answer = 200 }}]\n\
             [[request]]\ntimes = 50\nevery = \"70ms\"\nstream = true\nend = \"delivered\"\n"
        );
        let scenario = Scenario::parse(&text, "s.toml").unwrap();
        let trial = Trial::run(&policy, &scenario, &GivenSettings::default()).unwrap();
        let verdict = Verdict { file: "s.toml".into(), title: None, trial: Ok(trial), took: Default::default() };
        report::json("p", &[verdict]).to_string()
    };
    assert_eq!(report(7), report(7));
    assert_ne!(report(7), report(8), "the seed is of no use");
}
