//! Exchanges of worlds, recorded as the server records them, told, and lived through again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::clients::Spending;
use pointsman_core::contract::{Decision, Dispatch, Query};
use pointsman_core::journal::{Failed, Happened, Question, StateUse, Step, Trail};
use pointsman_core::record::{AttemptRecord, End};
use pointsman_core::rfc3339::Rfc3339;
use pointsman_core::time::Timestamp;
use pointsman_engine::{Compiled, Engine, EngineLimits, Texts, Verdict};
use pointsman_store::{AttemptRow, ExchangeRow};

use super::*;
use crate::scenario::Scenario;
use crate::settings::GivenSettings;
use crate::trial::Trial;
use crate::world::{Ask, EventKind, Finished, Scene, Watcher};

/// Remembers every exchange of a world as the journal would.
struct Journal {
    setup: Arc<pointsman_core::journal::Setup>,
    exchanges: Vec<Journaled>,
    asked: Vec<Option<Query>>,
}

impl Watcher for Journal {
    fn saw(&mut self, scene: &Scene<'_>, sight: EventKind<'_>) {
        let index = scene.exchange as usize;
        if let EventKind::Arrived(ask) = sight {
            self.exchanges.push(arrived(scene, ask, &self.setup));
            return self.asked.push(None);
        }
        let Journaled { exchange, trail, .. } = &mut self.exchanges[index];
        let at = scene.now.since(trail.arrived);
        let what = match sight {
            EventKind::Arrived(_) | EventKind::Granted { .. } => return,
            EventKind::Asked(query) => return self.asked[index] = Some(query.clone()),
            EventKind::Decided(verdict) => {
                let Verdict { decision, notes, fault, state } = verdict.clone();
                let fault = fault.map(|f| Failed { kind: f.kind.as_str().to_owned(), message: f.message });
                let query = self.asked[index].take().unwrap();
                let took = Duration::ZERO;
                Happened::Asked(Box::new(Question { query, decision, notes, fault, state, took }))
            }
            EventKind::Sent { sending, probe, model: _ } => {
                Happened::Sent { backend: sending.backend, lane: sending.lane, probe, join: sending.join }
            }
            EventKind::Committed => Happened::Committed,
            EventKind::Ended(_) => Happened::Ended,
            EventKind::Waits { max, model: _ } => Happened::Waits { max },
            EventKind::Waited { granted } => Happened::Waited { granted },
            EventKind::Finished(finished) => return finish(exchange, scene, finished),
        };
        trail.steps.push(Step { at, what });
    }
}

fn arrived(scene: &Scene<'_>, ask: &Ask, setup: &Arc<pointsman_core::journal::Setup>) -> Journaled {
    let Texts { path, session, labels, .. } = (*ask.texts).clone();
    let exchange = ExchangeRow {
        id: format!("req_{}", scene.exchange),
        started: Rfc3339(scene.now).to_string(),
        elapsed_ms: 0,
        client: None,
        session,
        operation: ask.facts.operation.as_str().to_owned(),
        path,
        model: ask.model.to_string(),
        streaming: ask.facts.streaming,
        status: 0,
        end: End::ClientGone.as_str().to_owned(),
        lane: None,
        backend: None,
        waits: 0,
        waited_ms: 0,
        first_byte_ms: None,
        policy: "p".to_owned(),
        policy_faults: 0,
        input_tokens: 0,
        output_tokens: 0,
        cached_input_tokens: 0,
        estimated: false,
        cost_usd: 0.0,
        notes: Vec::new(),
        error: None,
        denied: None,
        saved_usd: None,
        attempts: Vec::new(),
    };
    let trail = Trail::new(scene.now, ask.facts.clone(), labels, Spending::default());
    Journaled { exchange, trail, setup: setup.clone(), sampled: true }
}

fn finish(exchange: &mut ExchangeRow, scene: &Scene<'_>, finished: &Finished<'_>) {
    let ms = |d: Duration| d.as_millis() as u64;
    exchange.elapsed_ms = ms(finished.took);
    (exchange.status, exchange.end) = (finished.status, finished.end.as_str().to_owned());
    exchange.lane = finished.by.map(|(lane, _)| lane.as_str().to_owned());
    exchange.backend = finished.by.map(|(_, index)| scene.view.backend(index).id.to_string());
    (exchange.waits, exchange.waited_ms) = (finished.waits.0, ms(finished.waits.1));
    exchange.error = finished.error.map(str::to_owned);
    exchange.attempts = finished.attempts.iter().zip(1..).map(attempt).collect();
}

fn attempt((a, number): (&AttemptRecord, u32)) -> AttemptRow {
    let ms = |d: Duration| d.as_millis() as u64;
    AttemptRow {
        number,
        backend: a.backend.to_string(),
        lane: a.lane.as_str().to_owned(),
        model_sent: a.model_sent.clone(),
        started: Rfc3339(a.started).to_string(),
        elapsed_ms: ms(a.elapsed),
        first_byte_ms: a.first_byte.map(ms),
        first_token_ms: a.first_token.map(ms),
        outcome: a.outcome.as_str().to_owned(),
        status: a.status,
        retry_after_ms: a.retry_after.map(ms),
        message: Some(a.message.clone()).filter(|m| !m.is_empty()),
        input_tokens: a.usage.input_tokens,
        output_tokens: a.usage.output_tokens,
        cached_input_tokens: a.usage.cached_input_tokens,
        estimated: a.usage.estimated,
        cost_usd: a.cost_usd,
        upstream_id: a.upstream_id.as_deref().map(str::to_owned),
        scope: a.scope.blamed().map(str::to_owned),
    }
}

pub(super) fn default_policy() -> Compiled {
    let limits = EngineLimits { max_instances: 4, ..EngineLimits::default() };
    Engine::new(limits).unwrap().compile_embedded().unwrap()
}

/// A scenario's exchanges under the default policy, as a journal has them.
pub(super) fn recorded(policy: &Compiled, scenario: &Scenario) -> Vec<Journaled> {
    let revision = policy.isolated(&scenario.settings(), Arc::new(scenario.config.table())).unwrap();
    recorded_of(scenario, |query, texts| revision.decide(query, texts))
}

/// The same, whoever decides.
pub(super) fn recorded_of(scenario: &Scenario, decide: impl FnMut(&Query, &Arc<Texts>) -> Verdict) -> Vec<Journaled> {
    let setup = Arc::new(scenario.config.setup());
    let journal = Journal { setup: setup.clone(), exchanges: Vec::new(), asked: Vec::new() };
    Trial::watched(scenario, decide, journal).exchanges
}

/// Every exchange of the default policy's own scenarios, written down as a scenario of its own. What is written without a
/// remark goes as it went; most is.
#[test]
fn what_is_written_down_goes_as_it_went() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies/default/scenarios");
    let policy = default_policy();
    let (mut all, mut clean, mut passed) = (0, 0, 0);
    for file in std::fs::read_dir(folder).unwrap().flatten() {
        let name = file.path().display().to_string();
        let original = Scenario::parse(&std::fs::read_to_string(file.path()).unwrap(), &name).unwrap();
        for journaled in recorded(&policy, &original).into_iter().take(5) {
            let text = scenario::scenario(&journaled);
            let again = Scenario::parse(&text, "again.toml").unwrap_or_else(|e| panic!("{name}: {e}\n{text}"));
            let trial = Trial::run(&policy, &again, &GivenSettings::default()).unwrap();
            let sentences: Vec<String> = trial.failures.iter().map(|failure| failure.sentence.clone()).collect();
            let is_clean = text.contains("it goes as it was recorded");
            assert!(!is_clean || trial.passed(), "{name}: {sentences:?}\n{text}\n{}", trial.exchanges[0].story());
            (all, clean, passed) = (all + 1, clean + usize::from(is_clean), passed + usize::from(trial.passed()));
        }
    }
    assert!(all >= 20 && clean == all && passed == all, "{clean} clean and {passed} passed of {all}");
}

/// One exchange with one backend, and these steps.
fn with_steps(steps: Vec<(u64, Happened)>) -> Journaled {
    let text = "title = \"t\"\n[[backend]]\nid = \"a\"\nmodels = [\"m\"]\n[[backend]]\nid = \"b\"\nmodels = [\"m\"]\n\
                [[request]]\nend = \"delivered\"\n";
    let original = Scenario::parse(text, "t.toml").unwrap();
    let mut journaled = recorded(&default_policy(), &original).remove(0);
    let at = |(ms, what)| Step { at: Duration::from_millis(ms), what };
    journaled.trail.steps = steps.into_iter().map(at).collect();
    journaled
}

fn asked(journaled: &Journaled, change: impl FnOnce(&mut Question)) -> Happened {
    let mut question = journaled.trail.questions().next().unwrap().clone();
    change(&mut question);
    Happened::Asked(Box::new(question))
}

#[test]
fn what_was_decided_and_not_had_is_told() {
    let first = {
        let text = "title = \"t\"\n[[backend]]\nid = \"a\"\nmodels = [\"m\"]\n[[request]]\nend = \"delivered\"\n";
        recorded(&default_policy(), &Scenario::parse(text, "t.toml").unwrap()).remove(0)
    };
    let mut lost = first.clone();
    let named = asked(&first, |q| q.decision = Decision::Primary(Dispatch { backend: Some(0), ..Dispatch::default() }));
    lost.trail.steps.insert(0, Step { at: Duration::ZERO, what: named });
    let story = retell(&lost).story.to_string();
    assert!(story.contains("not had  no permit for a, which was ready when the policy was asked"), "{story}");
}

#[test]
fn faults_and_uses_of_state_are_told_and_a_scenario_says_what_it_lacks() {
    let whole = with_steps(Vec::new());
    let original = "title = \"t\"\n[[backend]]\nid = \"a\"\nmodels = [\"m\"]\n[[request]]\nend = \"delivered\"\n";
    let mut journaled = recorded(&default_policy(), &Scenario::parse(original, "t.toml").unwrap()).remove(0);
    let question = asked(&journaled, |q| {
        q.fault = Some(Failed { kind: "trap".to_owned(), message: "no price".to_owned() });
        q.state = vec![
            StateUse::Get { key: "seen".to_owned(), found: Some(3) },
            StateUse::Add { key: "seen".to_owned(), delta: 1, ttl_ms: 60_000, sum: 4 },
        ];
        q.notes = vec!["why".to_owned()];
    });
    journaled.trail.steps[0].what = question;
    let story = text(&journaled, Look { width: 80, unicode: true, colour: false });
    for words in [
        "state    seen is 3\n                       seen +1 is 4 now for 60 s",
        "fault    trap: no price; the default policy decided instead",
        "noted    why",
        "░",
    ] {
        assert!(story.contains(words), "{words:?} in\n{story}");
    }
    let written = scenario::scenario(&journaled);
    assert!(written.contains("state = { seen = 3 }") && written.contains("The policy failed"), "{written}");
    assert!(
        whole.trail.questions().next().is_none()
            && !text(&whole, Look { width: 80, unicode: true, colour: true }).is_empty()
    );
}

#[test]
fn an_attempt_that_its_client_left_is_told_and_expects_no_end() {
    let original = "title = \"t\"\n[[backend]]\nid = \"a\"\nmodels = [\"m\"]\n[[request]]\nend = \"delivered\"\n";
    let mut journaled = recorded(&default_policy(), &Scenario::parse(original, "t.toml").unwrap()).remove(0);
    journaled.trail.steps.retain(|step| !matches!(step.what, Happened::Ended | Happened::Committed));
    (journaled.exchange.end, journaled.exchange.status) = (End::ClientGone.as_str().to_owned(), 0);
    journaled.exchange.attempts[0].outcome = "client_gone".to_owned();
    let retold = retell(&journaled);
    let story = retold.story.to_string();
    assert!(story.contains("outcome  a: client_gone") && story.contains("end      left by its client by a"), "{story}");
    let written = scenario::scenario(&journaled);
    assert!(written.contains("leaves_after = \"") && written.contains("\nend = \"left\""), "{written}");
    Scenario::parse(&written, "s.toml").unwrap();
    assert_eq!(journaled.trail.arrived, Timestamp::from_millis(1_767_571_200_000));
}
