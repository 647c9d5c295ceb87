//! The words of a refusal: which backends there are, and why each cannot serve the request.

use std::sync::Arc;
use std::time::Duration;

use pointsman_core::contract::{Commit, Decision, Operation, Rejection, Resume};
use pointsman_core::exchange::{Action, Budgets, Event, Exchange, Facts, Refusal, StreamDefaults};
use pointsman_core::fleet::{Fleet, Settings};
use pointsman_core::suited::Unsuited;
use pointsman_core::table::{Backend, Dialect, Pattern, Route, Table, Tier};
use pointsman_core::time::Timestamp;
use pointsman_core::view::View;
use proptest::prelude::*;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn backend(id: &str, tier: Tier, dialect: Dialect, routes: &[(&str, &str)]) -> Backend {
    let route = |(asked, sent): &(&str, &str)| Route { asked: Pattern::parse(asked).unwrap(), sent: (*sent).into() };
    Backend { tier, dialect, routes: routes.iter().map(route).collect(), ..Backend::new(id) }
}

fn facts(operation: Operation, translatable: bool) -> Facts {
    Facts {
        operation,
        streaming: false,
        priority: 0,
        prompt_tokens: 10,
        max_tokens: 0,
        client: u32::MAX,
        session: 0,
        translatable,
        idempotent: true,
    }
}

/// Returns the refusal of a request for `model` when the policy has nothing left to try.
fn refusal(backends: Vec<Backend>, model: &str) -> Refusal {
    let mut fleet = Fleet::new(Settings::default(), 1);
    let view = fleet.adopt(Arc::new(Table::new(backends, Vec::new())), Settings::default());
    let streams = StreamDefaults { commit: Commit::FirstContent, resume: Resume::None };
    let facts = facts(Operation::Chat, false);
    let mut exchange = Exchange::new(NOW, view, &model.into(), facts, Budgets::default(), streams);
    let mut action = exchange.step(&mut fleet, NOW, Event::Arrived);
    if matches!(action, Action::Ask(_)) {
        let nothing =
            Rejection { status: 0, kind: String::new(), message: String::new(), retry_after: Some(Duration::ZERO) };
        action = exchange.step(&mut fleet, NOW, Event::Decided(Decision::Reject(nothing)));
    }
    let Action::Reject(refusal) = action else { panic!("{action:?}") };
    refusal
}

#[test]
fn a_refusal_says_of_every_backend_why_it_cannot_serve_the_model() {
    let (openai, anthropic) = (Dialect::OPENAI, Dialect::ANTHROPIC);
    let free = || backend("free-1", Tier::Primary, openai, &[]);
    let paid = || backend("paid-1", Tier::Fallback, openai, &[("gpt-*", "gpt-*"), ("o1", "o1")]);
    let claude = || backend("claude-1", Tier::Fallback, anthropic, &[("claude-*", "claude-*")]);
    let exhausted = refusal(vec![free(), paid(), claude()], "llama").message;
    assert_eq!(
        exhausted,
        "No backend could answer: free-1 is ready, but the policy did not choose it; \
         no other backend serves \"llama\": paid-1 serves only gpt-*, o1; claude-1 serves only claude-*"
    );
    let unknown = refusal(vec![paid(), claude()], "llama").message;
    assert_eq!(
        unknown,
        "No backend serves the model \"llama\" for this kind of request: paid-1 serves only gpt-*, o1; \
         claude-1 serves only claude-*. GET /v1/models lists what can be asked for"
    );
    let all = refusal(vec![free()], "llama").message;
    assert!(!all.contains("no other backend"), "{all}");
}

#[test]
fn a_refusal_is_bounded_whatever_is_configured_and_asked_for() {
    let long = "m".repeat(10_000);
    let routes: Vec<(&str, &str)> = vec![(&long, "m"); 50];
    let many = (0..200).map(|n| backend(&format!("{n:064}"), Tier::Primary, Dialect::OPENAI, &routes)).collect();
    let message = refusal(many, &"x".repeat(1 << 20)).message;
    assert!(message.contains("; and 192 more") && message.len() < 6_000, "{} bytes: {message}", message.len());
}

proptest! {
    #[test]
    fn a_backend_is_unsuited_exactly_when_it_is_no_candidate(
        dialects in prop::collection::vec(0..3_usize, 1..5),
        stars in prop::collection::vec(prop::sample::select(vec!["", "*", "one"]), 4),
        excepts in any::<bool>(),
        embeddings in any::<bool>(),
        model in prop::sample::select(vec!["gpt-5", "llama", "m", "unknown"]),
        operation in 0..Operation::ALL.len(),
        translatable in any::<bool>(),
    ) {
        let of = |(n, dialect): (usize, &usize)| {
            let mut routes = vec![("m", "m"), ("gpt-*", if excepts { "" } else { "gpt-*" })];
            routes.extend((!stars[n].is_empty()).then_some(("*", stars[n])));
            let dialect = [Dialect::OPENAI, Dialect::ANTHROPIC, Dialect::PLAIN][*dialect];
            let mut backend = backend(&format!("b{n}"), Tier::Primary, dialect, &routes);
            backend.capabilities.insert("embeddings".to_owned(), embeddings);
            backend
        };
        let backends: Vec<Backend> = dialects.iter().enumerate().map(of).collect();
        let mut fleet = Fleet::new(Settings::default(), 1);
        let table = Arc::new(Table::new(backends.clone(), Vec::new()));
        let view: Arc<View> = fleet.adopt(table.clone(), Settings::default());
        let operation = Operation::ALL[operation];
        let want = if translatable { view.want_across(&model.into(), operation, 1) } else { view.want(&model.into(), operation, 1) };
        let suited: Vec<u32> = (0..).zip(&backends)
            .filter(|(_, backend)| Unsuited::of(&table, backend, model, operation, translatable).is_none())
            .map(|(index, _)| index)
            .collect();
        prop_assert_eq!(&*want.candidates, &*suited);
    }
}
