//! A policy may ask for another model of the table than the client did.

use std::sync::Arc;

use pointsman_core::contract::{Column, Commit, Decision, Dispatch, Operation, Query, Resume, RowState};
use pointsman_core::exchange::{Action, Budgets, Ended, Event, Exchange, Facts, StreamDefaults};
use pointsman_core::fleet::{Fleet, Settings};
use pointsman_core::outcome::{Kind, Outcome};
use pointsman_core::table::{Backend, Dialect, Pattern, Route, Table};
use pointsman_core::time::Timestamp;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn backend(id: &str, dialect: Dialect, models: &[&str]) -> Backend {
    let route = |model: &&str| Route { asked: Pattern::Exact((*model).into()), sent: format!("maker/{model}") };
    Backend { dialect, routes: models.iter().map(route).collect(), ..Backend::new(id) }
}

struct Scene {
    fleet: Fleet,
    exchange: Exchange,
}

/// An exchange for the model `big`; what else there is, is not of its dialect or serves only `small`.
fn scene() -> Scene {
    let backends = vec![
        backend("both", Dialect::OPENAI, &["big", "small"]),
        backend("second", Dialect::OPENAI, &["small"]),
        backend("foreign", Dialect::ANTHROPIC, &["claude"]),
    ];
    let mut fleet = Fleet::new(Settings::default(), 1);
    let view = fleet.adopt(Arc::new(Table::new(backends, Vec::new())), Settings::default());
    let facts = Facts {
        operation: Operation::Chat,
        streaming: false,
        priority: 0,
        prompt_tokens: 10,
        max_tokens: 0,
        client: u32::MAX,
        session: 0,
        translatable: false,
        idempotent: true,
    };
    let streams = StreamDefaults { commit: Commit::FirstContent, resume: Resume::None };
    let exchange = Exchange::new(NOW, view, &"big".into(), facts, Budgets::default(), streams);
    Scene { fleet, exchange }
}

impl Scene {
    fn step(&mut self, event: Event) -> Action {
        self.exchange.step(&mut self.fleet, NOW, event)
    }

    fn asked(&mut self, event: Event) -> Query {
        match self.step(event) {
            Action::Ask(query) => query,
            other => panic!("{other:?}"),
        }
    }

    fn model(&self, name: &str) -> u32 {
        self.exchange.view().model_index(name)
    }

    fn in_flight(&self) -> u32 {
        self.fleet.overview(NOW, self.exchange.view()).iter().map(|o| o.in_flight).sum()
    }
}

fn state(query: &Query, backend: usize) -> u32 {
    query.rows.number(backend, Column::State)
}

#[test]
fn what_is_sent_and_shown_from_then_on_is_the_other_model() {
    let mut scene = scene();
    let query = scene.asked(Event::Arrived);
    assert_eq!(query.request.model, scene.model("big"));
    assert_eq!(state(&query, 1), RowState::Unsuited as u32);

    let small = scene.model("small");
    let dispatch = Dispatch { backend: Some(1), model: Some(small), ..Dispatch::default() };
    match scene.step(Event::Decided(Decision::Primary(dispatch))) {
        Action::Send(sending) => assert_eq!((sending.backend, &*sending.model), (1, "maker/small")),
        other => panic!("{other:?}"),
    }
    assert_eq!(&**scene.exchange.model(), "small");

    let failed = Ended::failed(Outcome::new(Kind::ServerError, "500"));
    let query = scene.asked(Event::Ended(failed));
    assert_eq!(query.request.model, small, "later queries are about it");
    assert_eq!(state(&query, 0), RowState::Ready as u32);
    assert_eq!(query.attempts.len(), 1);
    match scene.step(Event::Decided(Decision::Primary(Dispatch::default()))) {
        Action::Send(sending) => assert_eq!(&*sending.model, "maker/small", "it stays without being said again"),
        other => panic!("{other:?}"),
    }
    assert_eq!(scene.in_flight(), 1);
}

#[test]
fn a_model_that_nobody_serves_in_this_dialect_changes_nothing() {
    let mut scene = scene();
    scene.asked(Event::Arrived);
    let claude = scene.model("claude");
    let dispatch = Dispatch { model: Some(claude), ..Dispatch::default() };
    match scene.step(Event::Decided(Decision::Primary(dispatch))) {
        Action::Send(sending) => assert_eq!(&*sending.model, "maker/big"),
        other => panic!("{other:?}"),
    }
    assert_eq!(&**scene.exchange.model(), "big");
}
