//! Components built against published versions of the contract load and decide as they did on that day.
//!
//! `tests/contract/README.md` says what they are.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::clients::Spending;
use pointsman_core::contract::{
    AttemptFacts, BackendRow, Column, Commit, Decision, Dispatch, Hold, Operation, Query, Rejection, RequestFacts,
    Resume, RowState,
};
use pointsman_core::outcome::Kind;
use pointsman_core::table::{Backend, Lane, Limits, Pattern, Route, Table, Tier};
use pointsman_engine::{Engine, EngineLimits, LoadError, Revision, Texts, Verdict};

fn load(component: &str, settings: &str) -> Result<Revision, LoadError> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/contract").join(component);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let engine = Engine::new(EngineLimits { max_instances: 8, ..EngineLimits::default() }).expect("the engine starts");
    engine.load(&bytes, settings, table())
}

fn backend(id: &str, tier: Tier) -> Backend {
    Backend {
        tier,
        limits: Limits { rpm: Some(60), ..Limits::default() },
        routes: vec![Route { asked: Pattern::Exact("m".into()), sent: "maker/m".into() }],
        labels: BTreeMap::from([("region".to_owned(), "eu".to_owned())]),
        capabilities: BTreeMap::from([("prefill".to_owned(), true)]),
        ..Backend::new(id)
    }
}

fn table() -> Arc<Table> {
    Arc::new(Table::new(vec![backend("a", Tier::Primary), backend("b", Tier::Fallback)], vec!["agent".into()]))
}

fn query(prompt_tokens: u32, states: [RowState; 2]) -> Query {
    let row = |state| match state {
        RowState::Cooling => BackendRow::new(state).with(Column::CooldownMs, 2_000).with(Column::ReadyMs, 2_000),
        RowState::Ready => BackendRow::new(state),
        RowState::Throttled | RowState::Probing | RowState::Drained | RowState::Unsuited => {
            BackendRow::new(state).with(Column::ReadyMs, 2_000)
        }
    };
    Query {
        now_ms: 1_000_000,
        seed: 7,
        request: RequestFacts {
            model: 0,
            operation: Operation::Chat,
            client: 0,
            streaming: false,
            priority: 0,
            prompt_tokens,
            max_tokens: 0,
            session: 0,
            elapsed_ms: 0,
            remaining_ms: 60_000,
        },
        attempts: Vec::new(),
        waits: 0,
        waited_ms: 0,
        rows: states.into_iter().map(row).collect(),
    }
}

const READY: [RowState; 2] = [RowState::Ready; 2];

fn decided(revision: &Revision, query: &Query, texts: &Arc<Texts>) -> Verdict {
    let verdict = revision.decide(query, texts);
    assert_eq!(verdict.fault, None);
    verdict
}

#[test]
fn contract_1_0_0_every_decision_is_understood() {
    let revision = load("1.0.0/handmade.wasm", "{}").expect("it loads");
    let decide = |what: u32| decided(&revision, &query(what, READY), &Arc::default()).decision;
    assert_eq!(decide(1), Decision::Primary(Dispatch::default()));
    let millis = |ms| Some(Duration::from_millis(ms));
    let everything = Dispatch {
        backend: Some(0),
        model: Some(0),
        first_byte: millis(1_000),
        first_token: millis(2_000),
        idle: millis(3_000),
        total: millis(4_000),
        commit: Some(Commit::Tokens(7)),
        resume: Some(Resume::Prefill),
    };
    assert_eq!(decide(2), Decision::Primary(everything));
    assert_eq!(decide(3), Decision::Fallback(Dispatch::default()));
    let at_headers = Dispatch { commit: Some(Commit::Headers), resume: Some(Resume::None), ..Dispatch::default() };
    assert_eq!(decide(4), Decision::Emergency(at_headers));
    let refusal = Rejection {
        status: 429,
        kind: "busy".into(),
        message: "come later".into(),
        retry_after: Some(Duration::from_millis(1_500)),
    };
    assert_eq!(decide(6), Decision::Reject(refusal));
}

#[test]
fn contract_1_0_0_every_import_is_there() {
    let revision = load("1.0.0/handmade.wasm", "{}").expect("it loads");
    let texts = Arc::new(Texts {
        model: "four".into(),
        path: "/five".into(),
        session: Some("eleven long".into()),
        labels: vec![("team".into(), "blue green".into())],
        spending: Spending { today_microusd: 500, budget_microusd: None },
    });
    let mut query = query(5, READY);
    let attempt = AttemptFacts {
        backend: 0,
        lane: Lane::Primary,
        outcome: Kind::RateLimited,
        status: 429,
        elapsed_ms: 3,
        waits_before: 0,
    };
    (query.attempts, query.waits) = (vec![attempt; 2], 3);
    let verdict = decided(&revision, &query, &texts);
    assert_eq!(verdict.notes, ["noted"]);
    // Two attempts, three waits, four texts, the money, a count of 1, a number set to 40, and 1.
    let ms = 200_000 + 30_000 + (4 + 5 + 11 + 10) + 500 + 1 + 40 + 1;
    assert_eq!(verdict.decision, Decision::Wait(Hold { max: Duration::from_millis(ms), lane: Lane::Fallback }));
}

#[test]
fn contract_1_0_0_a_refusal_is_told() {
    match load("1.0.0/handmade.wasm", "") {
        Err(LoadError::Refused(words)) => assert_eq!(words, "no settings"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it refuses to do without settings"),
    }
}

#[test]
fn contract_1_0_0_the_default_policy_of_that_day_decides() {
    let revision = load("1.0.0/default.wasm", r#"{"primary_wait_ms": 700}"#).expect("it loads");
    let decide = |states| decided(&revision, &query(10, states), &Arc::default()).decision;
    assert!(matches!(decide(READY), Decision::Primary(_)));
    match decide([RowState::Cooling, RowState::Ready]) {
        Decision::Wait(hold) => assert_eq!(hold, Hold { max: Duration::from_millis(700), lane: Lane::Primary }),
        other => panic!("{other:?}"),
    }
    assert!(matches!(decide([RowState::Drained, RowState::Ready]), Decision::Fallback(_)));
}
