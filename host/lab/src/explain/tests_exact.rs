//! Exchanges of a storm, each written down as a scenario that the policy which decided it must pass.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::contract::{Commit, Decision, Dispatch, Hold, Query, Rejection};
use pointsman_core::journal::{Happened, StateUse};
use pointsman_core::outcome::Kind;
use pointsman_core::record::End;
use pointsman_core::table::Lane;
use pointsman_engine::{Compiled, Verdict};
use pointsman_store::Journaled;

use super::tests::{default_policy, recorded, recorded_of};
use crate::dice::Dice;
use crate::explain::scenario;
use crate::scenario::Scenario;
use crate::settings::GivenSettings;
use crate::trial::Trial;

/// Requests of one storm.
const REQUESTS: usize = 520;

/// A day on which providers limit, fail and cut, and too many requests come for what they allow.
fn storm(seed: u64) -> String {
    let mut dice = Dice::new(seed, 7);
    let mut text = format!(
        "title = \"storm\"\nseed = {}\n[limits]\nqueue_length = 40\nmax_wait_ms = 20000\n[[client]]\nname = \"c\"\n\
         budget_usd_per_day = 500.0\n",
        seed + 1
    );
    let backends = [
        ("p1", "primary", "rpm = 40\nmax_concurrency = 3"),
        ("p2", "primary", "rpm = 60"),
        ("p3", "primary", "max_concurrency = 2"),
    ]
    .into_iter()
    .chain([(
        "paid",
        "fallback",
        "rpm = 60\nmax_concurrency = 5\nprice = { \"*\" = { input_per_mtok = 3.0, output_per_mtok = 9.0 } }",
    )]);
    for (id, tier, limits) in backends {
        let script: Vec<String> = (0..300).map(|_| answer(&mut dice)).collect();
        let _ = writeln!(
            text,
            "[[backend]]\nid = \"{id}\"\ntier = \"{tier}\"\nmodels = [\"m\", \"n\"]\n{limits}\n\
             timeouts = {{ first_byte_ms = 4000, first_token_ms = 3000, idle_ms = 1500 }}\n\
             script = [{}]\noutages = [{{ from = \"40s\", until = \"55s\", answer = 429, retry_after = \"3s\", after = \"9ms\" }}, \
             {{ from = \"90s\", until = \"100s\", answer = {} }}]",
            script.join(", "),
            if tier == "fallback" { "503" } else { "\"connect-failed\", after = \"4ms\"" }
        );
    }
    for _ in 0..REQUESTS {
        let at = dice.below(140_000);
        let _ = writeln!(
            text,
            "[[request]]\nat = \"{at}ms\"\nmodel = \"{}\"\nstream = {}\npriority = {}\nclient = \"c\"\nprompt_tokens = {}\nsession = \"s{}\"\nend = \"delivered\"{}",
            if dice.one_in(4) { "n" } else { "m" },
            dice.one_in(2),
            dice.below(3),
            dice.between(5, 900),
            dice.below(9),
            if dice.one_in(12) { format!("\nleaves_after = \"{}ms\"", dice.below(6_000)) } else { String::new() },
        );
    }
    text
}

fn answer(dice: &mut Dice) -> String {
    let after = dice.between(20, 2_500);
    match dice.below(20) {
        0 | 1 => {
            format!("{{ answer = 429, retry_after = \"{}ms\", after = \"{}ms\" }}", dice.between(50, 4_000), after / 20)
        }
        2 => format!("{{ answer = 429, after = \"{}ms\" }}", after / 20),
        3 => format!("{{ answer = {}, after = \"{}ms\" }}", dice.pick(&[500, 502, 503]), after / 10),
        4 => "{ answer = \"silent\" }".to_owned(),
        5 => format!("{{ answer = \"cut\", after = \"{after}ms\", tokens = {} }}", dice.below(9)),
        6 => format!("{{ answer = \"stall\", after = \"{after}ms\", tokens = {} }}", dice.below(9)),
        7 => "{ answer = \"reset\", after = \"7ms\" }".to_owned(),
        8 if dice.one_in(3) => "{ answer = 400, body = '{\"error\":{\"message\":\"no\"}}' }".to_owned(),
        _ => format!("{{ answer = 200, after = \"{after}ms\", tokens = {} }}", dice.between(1, 60)),
    }
}

/// Lists the kinds that an exchange belongs to.
fn kinds(journaled: &Journaled) -> Vec<&'static str> {
    let exchange = &journaled.exchange;
    let outcome = |kind: Kind| exchange.attempts.iter().any(|attempt| attempt.outcome == kind.as_str());
    let lane = |lane: &str| exchange.attempts.iter().any(|attempt| attempt.lane == lane);
    let waits = journaled.trail.questions().filter(|question| matches!(question.decision, Decision::Wait(_))).count();
    let of = [
        ("any", true),
        ("one wait", exchange.waits == 1),
        ("two or more waits", exchange.waits >= 2),
        ("a wait that was none", waits > exchange.waits as usize),
        ("a retry", exchange.attempts.len() > 1),
        ("a fallback", lane("fallback")),
        ("an emergency", lane("emergency")),
        ("a 503", exchange.status == 503),
        ("a 429", outcome(Kind::RateLimited)),
        ("a broken stream", outcome(Kind::Cut) || outcome(Kind::Stalled)),
        ("a client that left", exchange.end == End::ClientGone.as_str()),
    ];
    of.into_iter().filter(|(_, is)| *is).map(|(name, _)| name).collect()
}

/// A storm's exchanges under the default policy, and each as a scenario.
fn written(policy: &Compiled, seed: u64) -> Vec<(Journaled, String, Scenario)> {
    let original = Scenario::parse(&storm(seed), "storm.toml").unwrap_or_else(|e| panic!("{e}"));
    let scenario = |journaled: Journaled| {
        let text = scenario::scenario(&journaled);
        let again = Scenario::parse(&text, "again.toml").unwrap_or_else(|e| panic!("{e}\n{text}"));
        (journaled, text, again)
    };
    recorded(policy, &original).into_iter().map(scenario).collect()
}

#[test]
fn a_policy_passes_the_scenario_of_every_exchange_that_it_decided() {
    let policy = default_policy();
    let mut of_kinds: BTreeMap<&'static str, (u32, u32)> = BTreeMap::new();
    for (journaled, text, again) in [3, 4].into_iter().flat_map(|seed| written(&policy, seed)) {
        let trial = Trial::run(&policy, &again, &GivenSettings::default()).unwrap();
        for kind in kinds(&journaled) {
            let (passed, all) = of_kinds.entry(kind).or_default();
            *passed += u32::from(trial.passed());
            *all += 1;
        }
        let sentences: Vec<String> = trial.failures.iter().map(|failure| failure.sentence.clone()).collect();
        let is_exact = text.contains("it goes as it was recorded");
        assert!(trial.passed() || !is_exact, "it says that it is exact: {sentences:?}\n{text}");
    }
    assert_eq!(of_kinds.len(), 11, "{of_kinds:?}");
    for (kind, (passed, all)) in of_kinds {
        assert!(all >= 20, "only {all} exchanges with {kind}");
        assert!(passed * 100 >= all * 95, "{passed} of {all} exchanges with {kind} pass their own scenario");
    }
}

/// Replaying ends where another decision is taken; the simulation goes on by itself.
#[test]
fn after_another_decision_an_exchange_still_comes_to_an_end() {
    let policy = default_policy();
    let mut dice = Dice::new(9, 9);
    let (mut all, mut ended) = (0, BTreeMap::<&str, u32>::new());
    for (journaled, _, again) in written(&policy, 5) {
        let mut answers: Vec<Decision> = journaled.trail.questions().map(|q| q.decision.clone()).collect();
        answers.reverse();
        let other = dice.below(answers.len() as u64 + 1);
        let trial = Trial::play(&again, |query, _| {
            let recorded = answers.pop();
            Verdict::of(match recorded {
                Some(decision) if answers.len() as u64 >= other => decision,
                Some(_) | None => chance(&mut dice, query),
            })
        });
        let end = trial.exchanges[0].end.as_ref().expect("it ends");
        *ended.entry(end.end.as_str()).or_default() += 1;
        all += 1;
    }
    assert!(ended["delivered"] * 4 > all && ended["rejected"] * 50 > all, "{ended:?} of {all}");
}

/// Random decisions, also impossible ones, are reproduced exactly.
#[test]
fn decisions_by_chance_are_written_down_exactly_too() {
    let original = Scenario::parse(&storm(6), "storm.toml").unwrap_or_else(|e| panic!("{e}"));
    let mut dice = Dice::new(6, 11);
    let all = recorded_of(&original, |query, _| Verdict::of(chance(&mut dice, query)));
    let texts: Vec<String> = all.iter().map(scenario::scenario).collect();
    let inexact: Vec<&String> = texts.iter().filter(|text| !text.contains("it goes as it was recorded")).collect();
    assert!(inexact.len() * 20 <= all.len(), "{} of {}:\n{}", inexact.len(), all.len(), inexact[0]);
    let asked_in_vain = |text: &&String| text.contains("then = \"ask\"");
    assert!(texts.iter().filter(asked_in_vain).count() * 5 > all.len(), "few were asked again at once");
}

fn chance(dice: &mut Dice, query: &Query) -> Decision {
    let hold = Hold { max: Duration::from_millis(dice.between(1, 3_000)), lane: dice.pick(&Lane::ALL) };
    let backend = dice.one_in(2).then(|| u32::try_from(dice.below(3)).unwrap_or(0));
    let dispatch = Dispatch {
        backend,
        model: dice.one_in(8).then_some(1),
        total: dice.one_in(8).then(|| Duration::from_millis(dice.between(50, 4_000))),
        commit: dice.one_in(8).then_some(Commit::Headers),
        ..Dispatch::default()
    };
    match dice.below(9) {
        0..=2 => Decision::Primary(dispatch),
        3 => Decision::Fallback(Dispatch { backend: backend.map(|_| 3), ..dispatch }),
        4..=6 if query.waits < 9 => Decision::Wait(hold),
        7 if dice.one_in(9) => Decision::Reject(Rejection { status: 429, ..Rejection::default() }),
        _ => Decision::Emergency(dispatch),
    }
}

/// A question found numbers in `state`: they are there again.
#[test]
fn what_was_found_in_state_is_found_again() {
    let text = "title = \"t\"\n[[backend]]\nid = \"a\"\nmodels = [\"m\"]\n[[request]]\nend = \"delivered\"\n";
    let policy = default_policy();
    let mut journaled = recorded(&policy, &Scenario::parse(text, "t.toml").unwrap()).remove(0);
    let Happened::Asked(question) = &mut journaled.trail.steps[0].what else { panic!("the first is a question") };
    let get = |key: &str, found| StateUse::Get { key: key.to_owned(), found };
    question.state = vec![
        get("spent", Some(-3)),
        get("new", None),
        StateUse::Add { key: "n".to_owned(), delta: 2, ttl_ms: 0, sum: 7 },
        get("n", Some(7)),
        StateUse::Set { key: "set".to_owned(), value: 1, ttl_ms: 0 },
        get("set", Some(1)),
    ];
    let text = scenario::scenario(&journaled);
    assert!(text.contains("state = { spent = -3, n = 5 }") && text.contains("it goes as it was recorded"), "{text}");
    let again = Scenario::parse(&text, "again.toml").unwrap();
    assert_eq!(again.recorded()[0].state, [("n".to_owned(), Some(5)), ("spent".to_owned(), Some(-3))]);
    let revision = policy.isolated("", Arc::new(again.config.table())).unwrap();
    revision.bring_state(&again.recorded()[0].state, 1_000);
}

#[test]
fn recorded_questions_with_other_requests_are_refused() {
    let text = "title = \"t\"\n[[backend]]\nid = \"a\"\nmodels = [\"m\"]\n[[request]]\nend = \"delivered\"\n";
    let journaled = recorded(&default_policy(), &Scenario::parse(text, "t.toml").unwrap()).remove(0);
    let written = scenario::scenario(&journaled);
    let more = format!("{written}\n[[request]]\nat = \"1s\"\n");
    let error = Scenario::parse(&more, "two.toml").unwrap_err().to_string();
    assert!(error.contains("recorded questions go with a scenario of one request"), "{error}");
    let broken =
        written.replace("state = \"ready\"", "state = \"well\", x = 1").replace("then = \"send a\"", "then = \"go\"");
    let error = Scenario::parse(&broken, "broken.toml").unwrap_err().to_string();
    for words in ["there is no state `well`", "there is no column `x`", "`then` says what followed"] {
        assert!(error.contains(words), "{words} in {error}");
    }
}
