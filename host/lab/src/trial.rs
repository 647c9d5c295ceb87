//! A policy put through a scenario, and what became of the scenario's expectations.

use std::sync::Arc;
use std::time::Duration;

use pointsman_core::contract::Query;
use pointsman_core::record::End;
use pointsman_core::time::Timestamp;
use pointsman_core::usd::total_usd;
use pointsman_engine::{Compiled, LoadError, Texts, Verdict};

use super::answer::Answer;
use super::recorder::{Decided, Recorded, Recorder};
use super::scenario::{Count, Expectation, Expected, Request, RunExpectation, Scenario, Script};
use super::settings::GivenSettings;
use super::story::in_words;
use super::world::{Ask, Attempt, Environment, RecordedQuestion, Watcher, World};

/// Result of playing a scenario with a policy.
#[derive(Debug)]
pub struct Trial {
    /// Every expectation that was not met, and every policy fault; none: it passed.
    pub failures: Vec<Failure>,
    /// Every exchange, in the order of arrival.
    pub exchanges: Vec<Recorded>,
    /// From time 0 to the last thing that happened.
    pub simulated: Duration,
    /// Settings of the scenario that the policy does not know.
    pub left_out: Vec<String>,
}

/// Something that is not as it was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Index in [`Trial::exchanges`]; `None`: about all together.
    pub exchange: Option<usize>,
    /// The violated expectation in one sentence.
    pub sentence: String,
}

impl Trial {
    /// Puts a policy through a scenario, with an empty `state` of its own, and these settings over the scenario's.
    ///
    /// # Errors
    /// The policy refuses the scenario's settings or table.
    pub fn run(policy: &Compiled, scenario: &Scenario, given: &GivenSettings) -> Result<Self, LoadError> {
        let offer = given.over(scenario.offer());
        let policy = policy.isolated(&offer, Arc::new(scenario.config.table()))?;
        let left_out = policy.left_out().to_vec();
        let mut found = StateFound { questions: scenario.recorded(), asked: 0 };
        let played = Self::play(scenario, |query, texts| {
            policy.bring_state(found.next(query), query.now_ms);
            policy.decide(query, texts)
        });
        Ok(Self { left_out, ..played })
    }

    /// Puts whoever decides through a scenario.
    pub fn play(scenario: &Scenario, decide: impl FnMut(&Query, &Arc<Texts>) -> Verdict) -> Self {
        let after = world(scenario, decide, Recorder::new(scenario.start)).run();
        let exchanges = after.watcher.exchanges;
        let mut failures = Vec::new();
        for (index, recorded) in exchanges.iter().enumerate() {
            let sentences = unmet(&scenario.requests[after.outside.cast[index]].expect, recorded);
            failures.extend(sentences.into_iter().map(|sentence| Failure { exchange: Some(index), sentence }));
        }
        let of_all = unmet_of_all(&scenario.expect, &exchanges);
        failures.extend(of_all.into_iter().map(|sentence| Failure { exchange: None, sentence }));
        Self { failures, exchanges, simulated: after.now.since(scenario.start), left_out: Vec::new() }
    }

    /// Lets somebody else watch a scenario; who watched.
    #[cfg(test)]
    pub fn watched<W: Watcher>(
        scenario: &Scenario,
        decide: impl FnMut(&Query, &Arc<Texts>) -> Verdict,
        watcher: W,
    ) -> W {
        world(scenario, decide, watcher).run().watcher
    }

    /// Returns true if everything was as expected.
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }
}

/// The world of a scenario.
fn world<D: FnMut(&Query, &Arc<Texts>) -> Verdict, W: Watcher>(
    scenario: &Scenario,
    decide: D,
    watcher: W,
) -> World<Stage<'_>, D, W> {
    let (start, seed, spent) = (scenario.start, scenario.seed, &scenario.spent_usd);
    let world = World::new(&scenario.config.setup(), start, seed, spent, Stage::new(scenario), decide, watcher);
    world.assuming(&scenario.pasts).following(scenario.recorded())
}

/// Values that recorded questions found in `state`, for as long as the record is followed.
struct StateFound<'a> {
    questions: &'a [RecordedQuestion],
    asked: usize,
}

impl<'a> StateFound<'a> {
    /// Returns the values found at the next question.
    fn next(&mut self, query: &Query) -> &'a [(String, Option<i64>)] {
        let recorded = self.questions.get(self.asked).filter(|question| question.seed == query.seed);
        self.asked += 1;
        recorded.map_or(&[], |question| &question.state)
    }
}

/// The scenario's requests and its backends' scripts.
struct Stage<'a> {
    start: Timestamp,
    requests: &'a [Request],
    scripts: &'a [Script],
    /// Arrivals as (time, entry of `requests`), the last first.
    to_come: Vec<(Timestamp, usize)>,
    /// Index in `requests` that each exchange came from.
    cast: Vec<usize>,
    /// Number of answers that each backend has given by its script.
    given: Vec<usize>,
}

impl<'a> Stage<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let of_entry = |(entry, request): (usize, &Request)| {
            let (first, every) = (scenario.start + request.at, request.every);
            (0..request.times).map(move |n| (first + every * n, entry)).collect::<Vec<_>>()
        };
        let mut to_come: Vec<_> = scenario.requests.iter().enumerate().flat_map(of_entry).collect();
        // Those of the same time come in the order of the file.
        to_come.sort_by_key(|(at, _)| *at);
        to_come.reverse();
        Self {
            start: scenario.start,
            requests: &scenario.requests,
            scripts: &scenario.scripts,
            to_come,
            cast: Vec::new(),
            given: vec![0; scenario.scripts.len()],
        }
    }
}

impl Environment for Stage<'_> {
    fn next_request(&mut self) -> Option<(Timestamp, Ask)> {
        let (at, entry) = self.to_come.pop()?;
        self.cast.push(entry);
        Some((at, self.requests[entry].ask.clone()))
    }

    fn answer(&mut self, attempt: &Attempt<'_>) -> Answer {
        let backend = attempt.sending.backend as usize;
        let script = &self.scripts[backend];
        let at = attempt.now.since(self.start);
        if let Some(outage) = script.outages.iter().find(|o| (o.from..o.until).contains(&at)) {
            return outage.answer.clone();
        }
        let number = self.given[backend].min(script.answers.len() - 1);
        self.given[backend] += 1;
        script.answers[number].clone()
    }
}

/// Lists the expectations that an exchange did not meet.
fn unmet(expect: &Expectation, recorded: &Recorded) -> Vec<String> {
    let mut unmet: Vec<String> = recorded.faults.iter().map(|fault| format!("the policy failed: {fault}")).collect();
    if let Some(expected) = &expect.decisions {
        unmet.extend(unmet_decisions(expected, &recorded.decisions));
    }
    let Some(ended) = &recorded.end else {
        unmet.push("it never ended".to_owned());
        return unmet;
    };
    if let Some(wanted) = expect.end.as_ref().filter(|wanted| !wanted.matches(ended)) {
        unmet.push(format!("it was to be {wanted}, and was {ended}"));
    }
    if let Some(within) = expect.within.filter(|within| ended.took > *within) {
        unmet.push(format!("it was to end within {}, and took {}", in_words(within), in_words(ended.took)));
    }
    if let Some(least) = expect.not_before.filter(|least| ended.took < *least) {
        unmet.push(format!("it was not to end before {}, and took {}", in_words(least), in_words(ended.took)));
    }
    for part in expect.notes.iter().filter(|part| !recorded.notes.iter().any(|note| note.contains(*part))) {
        unmet.push(format!("none of its notes has {part:?} in it"));
    }
    unmet
}

fn unmet_decisions(expected: &[Expected], decisions: &[Decided]) -> Option<String> {
    if is_as_expected(expected, decisions) {
        return None;
    }
    let place = expected.iter().zip(decisions).position(|(expected, decided)| match expected {
        Expected::Any => false,
        Expected::One(pattern) => !pattern.matches(decided),
    });
    let listed = |all: Vec<String>| if all.is_empty() { "nothing".to_owned() } else { all.join(", ") };
    let wanted = listed(expected.iter().map(|e| format!("\"{e}\"")).collect());
    let found = listed(decisions.iter().map(|d| format!("\"{d}\"")).collect());
    // Behind a "..." no one place is to blame.
    let before_any = expected.iter().position(|e| *e == Expected::Any).unwrap_or(expected.len());
    Some(match place.filter(|place| *place < before_any) {
        Some(i) => {
            let (number, wanted, found) = (i + 1, &expected[i], &decisions[i]);
            format!("decision {number} was to be \"{wanted}\", and was \"{found}\"; all decisions: {}", all(decisions))
        }
        None => format!("its decisions were to be {wanted}, and were {found}"),
    })
}

fn all(decisions: &[Decided]) -> String {
    decisions.iter().map(Decided::to_string).collect::<Vec<_>>().join(", ")
}

fn is_as_expected(expected: &[Expected], decisions: &[Decided]) -> bool {
    // Walks both once, and goes back to the last "..." when it was too greedy.
    let (mut e, mut d) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while d < decisions.len() {
        match expected.get(e) {
            Some(Expected::Any) => {
                back = Some((e, d));
                e += 1;
            }
            Some(Expected::One(pattern)) if pattern.matches(&decisions[d]) => {
                e += 1;
                d += 1;
            }
            Some(Expected::One(_)) | None => {
                let Some((any, from)) = back else { return false };
                back = Some((any, from + 1));
                (e, d) = (any + 1, from + 1);
            }
        }
    }
    expected[e..].iter().all(|e| *e == Expected::Any)
}

/// Lists the expectations that all exchanges together did not meet.
fn unmet_of_all(expect: &RunExpectation, exchanges: &[Recorded]) -> Vec<String> {
    let attempts = || exchanges.iter().flat_map(|e| &e.attempts);
    let ends = || exchanges.iter().filter_map(|e| e.end.as_ref());
    let mut unmet = Vec::new();
    let mut compare = |what: String, wanted: Count, found: f64| {
        if !wanted.admits(found) {
            // Money adds up to odd digits.
            let found = (found * 1e9).round() / 1e9;
            unmet.push(format!("{what}: was to be {wanted}, and was {found}"));
        }
    };
    for (backend, wanted) in &expect.attempts {
        let found = attempts().filter(|a| a.backend == *backend).count();
        compare(format!("attempts sent to {backend}"), *wanted, found as f64);
    }
    for (lane, wanted) in &expect.lanes {
        let in_lane = |by: &Option<_>| matches!(by, Some((l, _)) if l == lane);
        let found = ends().filter(|e| e.end == End::Delivered && in_lane(&e.by)).count();
        compare(format!("exchanges delivered in the {} lane", lane.as_str()), *wanted, found as f64);
    }
    let ended = |end: End| ends().filter(|e| e.end == end).count() as f64;
    if let Some(wanted) = expect.delivered {
        compare("exchanges delivered".to_owned(), wanted, ended(End::Delivered));
    }
    if let Some(wanted) = expect.rejected {
        compare("exchanges rejected".to_owned(), wanted, ended(End::Rejected));
    }
    if let Some(wanted) = expect.spend_usd {
        compare("USD spent".to_owned(), wanted, total_usd(attempts().map(|a| a.cost_usd)));
    }
    unmet
}
