//! Comparing and grouping, over any decisions.

use std::time::Duration;

use pointsman_core::contract::{
    BackendRow, Commit, Decision, Dispatch, Hold, NONE, Operation, Query, Rejection, RequestFacts, Resume, RowState,
    Rows,
};
use pointsman_core::journal::{Failed, Question, StateUse};
use pointsman_core::table::{Lane, Table};
use pointsman_engine::{Fault, FaultKind, Heard};
use proptest::prelude::*;

use super::compare::{Action, Divergence, Exactness, divergence, exactness, of_decisions, own_notes, same_again};
use super::describe::{count, of_decision};
use super::report::ReplayReport;
use super::summary::{Difference, Diverging, Exact, Forgetful, QuestionRef, Said};

fn question(decision: Decision) -> Question {
    let request = RequestFacts {
        model: 0,
        operation: Operation::Chat,
        client: NONE,
        streaming: false,
        priority: 0,
        prompt_tokens: 1,
        max_tokens: 0,
        session: 0,
        elapsed_ms: 0,
        remaining_ms: 1,
    };
    let query =
        Query { now_ms: 1, seed: 2, request, attempts: Vec::new(), waits: 0, waited_ms: 0, rows: Rows::default() };
    let used = StateUse::Get { key: "a".to_owned(), found: Some(1) };
    let notes = vec!["why".to_owned()];
    Question { query, decision, notes, fault: None, state: vec![used], took: Duration::ZERO }
}

/// The question as it was recorded when the policy failed at it.
fn failed(kind: FaultKind, message: &str) -> Question {
    let mut question = question(primary(Some(0)));
    let fault = Fault { kind, message: message.to_owned() };
    question.notes.extend([format!("{fault}; the default policy decided"), "no primary is ready".to_owned()]);
    question.fault = Some(Failed { kind: kind.as_str().to_owned(), message: fault.message });
    question
}

fn heard(question: &Question) -> Heard {
    let (answer, notes, state) = (Ok(question.decision.clone()), question.notes.clone(), question.state.clone());
    Heard { answer, notes, state, unrecorded: 0 }
}

fn failing(question: &Question, kind: FaultKind) -> Heard {
    let answer = Err(Fault { kind, message: "somewhere else".to_owned() });
    Heard { answer, notes: own_notes(question).to_vec(), ..heard(question) }
}

fn primary(backend: Option<u32>) -> Decision {
    Decision::Primary(Dispatch { backend, ..Dispatch::default() })
}

#[test]
fn the_same_is_the_same_and_every_part_counts() {
    let question = question(primary(Some(0)));
    assert_eq!(exactness(&question, &heard(&question)), Exactness::Same);
    let others: [fn(&mut Heard); 4] = [
        |heard| heard.answer = Ok(primary(None)),
        |heard| heard.notes.clear(),
        |heard| heard.state[0] = StateUse::Get { key: "b".to_owned(), found: Some(1) },
        |heard| heard.state.push(StateUse::Get { key: "a".to_owned(), found: Some(1) }),
    ];
    for other in others {
        let mut heard = heard(&question);
        other(&mut heard);
        assert_eq!(exactness(&question, &heard), Exactness::Differs);
    }
    assert_eq!(exactness(&question, &failing(&question, FaultKind::Trap)), Exactness::Differs);
}

#[test]
fn a_fault_must_come_again_as_the_same_kind() {
    for kind in [FaultKind::Trap, FaultKind::Memory, FaultKind::Invalid] {
        let question = failed(kind, "here");
        assert_eq!(own_notes(&question), ["why"]);
        assert_eq!(exactness(&question, &failing(&question, kind)), Exactness::FailedAgain);
        assert_eq!(exactness(&question, &heard(&question)), Exactness::Differs, "it does not fail");
        let other = if kind == FaultKind::Trap { FaultKind::Invalid } else { FaultKind::Trap };
        assert_eq!(exactness(&question, &failing(&question, other)), Exactness::Differs);
    }
}

#[test]
fn what_time_decided_is_not_compared() {
    for kind in [FaultKind::Deadline, FaultKind::Busy] {
        let recorded = failed(kind, "no answer within 5 ms");
        assert_eq!(exactness(&recorded, &heard(&recorded)), Exactness::Timed);
        let question = question(primary(None));
        assert_eq!(exactness(&question, &failing(&question, kind)), Exactness::Timed);
        assert_eq!(divergence(&question, &failing(&question, kind), &Table::default()), None);
        assert_eq!(same_again(&heard(&question), &failing(&question, kind)), None);
    }
    for message in ["not asked for 80 ms, because", "in `configure` of a fresh instance: here"] {
        let recorded = failed(FaultKind::Trap, message);
        assert_eq!(exactness(&recorded, &heard(&recorded)), Exactness::Timed, "{message}");
    }
}

#[test]
fn more_state_than_is_recorded_is_not_compared() {
    let mut question = question(primary(None));
    question.state.push(StateUse::TooMany);
    assert_eq!(exactness(&question, &heard(&question)), Exactness::TooMuchState);
    assert_eq!(same_again(&heard(&question), &heard(&question)), None);
}

#[test]
fn kinds_of_divergence() {
    let send = |dispatch: Dispatch| Decision::Primary(dispatch);
    let plain = Dispatch { backend: Some(0), ..Dispatch::default() };
    let wait = |ms, lane| Decision::Wait(Hold { max: Duration::from_millis(ms), lane });
    let reject = |status| Decision::Reject(Rejection { status, ..Rejection::default() });
    let of = |then: &Decision, now: &Decision| of_decisions(then, now).map(|divergence| divergence.to_string());
    let cases = [
        (send(plain), Decision::Fallback(plain), "primary -> fallback"),
        (send(plain), send(Dispatch { backend: Some(1), model: Some(2), ..plain }), "another backend, primary"),
        (send(plain), send(Dispatch { model: Some(2), idle: Some(Duration::ZERO), ..plain }), "another model, primary"),
        (
            send(plain),
            send(Dispatch { commit: Some(Commit::Complete), ..plain }),
            "limits, commit or resume only, primary",
        ),
        (Decision::Emergency(plain), wait(1, Lane::Primary), "emergency -> wait"),
        (wait(1, Lane::Primary), Decision::Fallback(plain), "wait -> fallback"),
        (wait(1, Lane::Primary), wait(1, Lane::Fallback), "another wait"),
        (reject(0), wait(1, Lane::Primary), "reject -> wait"),
        (send(plain), reject(0), "primary -> reject"),
        (reject(0), reject(429), "another rejection"),
    ];
    for (then, now, expected) in cases {
        assert_eq!(of(&then, &now).as_deref(), Some(expected));
    }
    let question = question(send(plain));
    let quiet = Heard { notes: Vec::new(), ..heard(&question) };
    assert_eq!(divergence(&question, &quiet, &Table::default()), Some(Divergence::Notes));
    assert_eq!(
        divergence(&question, &failing(&question, FaultKind::Trap), &Table::default()),
        Some(Divergence::Fails(FaultKind::Trap))
    );
    let recorded = failed(FaultKind::Trap, "here");
    assert_eq!(
        divergence(&recorded, &Heard { notes: Vec::new(), ..heard(&recorded) }, &Table::default()),
        None,
        "its notes are the twin's"
    );
}

fn difference(exchange: &str) -> Difference {
    let said = || Said { decision: String::new(), notes: Vec::new() };
    let place =
        QuestionRef { exchange: exchange.to_owned(), started: String::new(), model: String::new(), question: 1 };
    Difference { place, recorded: said(), now: said(), state: None }
}

#[test]
fn a_difference_says_where_the_use_of_state_went_another_way() {
    let recorded = question(primary(Some(0)));
    let mut now = heard(&recorded);
    let told = |now: &Heard| {
        let place = difference("a").place;
        Difference::new(place, &recorded, now, &Table::default()).state
    };
    assert_eq!(told(&now), None);
    now.state[0] = StateUse::Add { key: "b\n".to_owned(), delta: 1, ttl_ms: 50, sum: 3 };
    assert_eq!(
        told(&now).as_deref(),
        Some("use 1 of `state`: recorded get a = 1; now add 1 to b\\n = 3, for 50 ms"),
        "on one line"
    );
    now.state.clear();
    assert_eq!(told(&now).as_deref(), Some("use 1 of `state`: recorded get a = 1; now no use of it"));
}

#[test]
fn the_first_difference_is_kept_and_all_are_counted() {
    let mut exact = Exact::default();
    for (exactness, name) in [(Exactness::Same, "0"), (Exactness::Differs, "1"), (Exactness::Differs, "2")] {
        exact.add(exactness, || difference(name));
    }
    assert_eq!((exact.questions, exact.differing), (3, 2));
    assert_eq!(exact.first, Some(difference("1")));

    let forgetful = |numbers: &[u64]| {
        let mut forgetful = Forgetful::default();
        numbers.iter().for_each(|n| forgetful.add(*n, Some(|| difference(&n.to_string()))));
        forgetful
    };
    let mut all = forgetful(&[5, 7]);
    all.join(forgetful(&[4, 6]));
    all.join(Forgetful::default());
    assert_eq!((all.differing, all.first), (4, Some((4, difference("4")))));
}

#[test]
fn groups_are_told_by_size_with_their_first_examples() {
    let mut diverging = Diverging::default();
    for (divergence, name) in [(Divergence::Wait, "a"), (Divergence::Notes, "b"), (Divergence::Notes, "c")] {
        diverging.add("revision");
        diverging.diverged(divergence, 1, || difference(name));
    }
    let groups = diverging.by_size();
    assert_eq!(
        groups.iter().map(|(d, g)| (**d, g.exchanges)).collect::<Vec<_>>(),
        [(Divergence::Notes, 2), (Divergence::Wait, 1)]
    );
    assert_eq!(groups[0].1.examples, [difference("b")]);
    assert_eq!(diverging.recorded["revision"], 3);
}

/// Chance among equals is told apart, and is no difference.
#[test]
fn a_tie_is_told_apart() {
    let config = pointsman_config::parse(
        "[[backend]]\nid = \"a\"\nbase_url = \"http://x\"\n[[backend]]\nid = \"b\"\nbase_url = \"http://x\"\n\
         [[backend]]\nid = \"c\"\nbase_url = \"http://x\"\nprice = { \"*\" = { input_per_mtok = 1.0, output_per_mtok = 1.0 } }\n",
        "p.toml",
        &[],
    );
    let table = config.unwrap_or_else(|e| panic!("{e}")).config.table();
    let to = |backend| Decision::Primary(Dispatch { backend: Some(backend), ..Dispatch::default() });
    let mut recorded = question(to(0));
    recorded.query.rows = [BackendRow::new(RowState::Ready); 3].into_iter().collect();
    let now = |backend| Heard { answer: Ok(to(backend)), ..heard(&recorded) };
    assert_eq!(divergence(&recorded, &now(1), &table), Some(Divergence::Tie(Lane::Primary)));
    assert_eq!(divergence(&recorded, &now(2), &table), Some(Divergence::Backend(Lane::Primary)));
    assert_eq!(divergence(&recorded, &now(0), &table), None);

    let mut diverging = Diverging::default();
    for (found, name) in
        [(Divergence::Tie(Lane::Primary), "a"), (Divergence::Tie(Lane::Primary), "b"), (Divergence::Wait, "c")]
    {
        diverging.add("revision");
        diverging.diverged(found, 1, || difference(name));
    }
    assert_eq!((diverging.differing, diverging.ties), (1, 2));
    let report = ReplayReport { candidate: Some("other".to_owned()), diverging, ..ReplayReport::default() };
    assert_eq!(
        (&report.json()["divergences"]["differing"], &report.json()["divergences"]["ties"]),
        (&1.into(), &2.into())
    );
    let told = report.to_string();
    assert!(told.contains("1 (33.33 %) diverge"), "{told}");
    assert!(told.contains("2 exchanges went to another backend that was as good (a tie)"), "{told}");
}

#[test]
fn numbers_are_told_in_threes() {
    assert_eq!([0, 999, 1_000, 12_345_678].map(count), ["0", "999", "1,000", "12,345,678"]);
}

fn lanes() -> impl Strategy<Value = Lane> {
    prop_oneof![Just(Lane::Primary), Just(Lane::Fallback), Just(Lane::Emergency)]
}

fn limit() -> impl Strategy<Value = Option<Duration>> {
    prop::option::of((1u64..4).prop_map(Duration::from_millis))
}

fn dispatches() -> impl Strategy<Value = Dispatch> {
    let commits = prop_oneof![
        Just(Commit::Headers),
        Just(Commit::FirstContent),
        Just(Commit::Complete),
        (1u32..3).prop_map(Commit::Tokens)
    ];
    let resumes = prop_oneof![Just(Resume::None), Just(Resume::Splice), Just(Resume::Prefill)];
    let terms = (limit(), limit(), limit(), limit(), prop::option::of(commits), prop::option::of(resumes));
    (prop::option::of(0u32..3), prop::option::of(0u32..2), terms).prop_map(|(backend, model, terms)| {
        let (first_byte, first_token, idle, total, commit, resume) = terms;
        Dispatch { backend, model, first_byte, first_token, idle, total, commit, resume }
    })
}

fn decisions() -> impl Strategy<Value = Decision> {
    let rejections = (0u16..3, "[ab]?", "[ab]?", limit()).prop_map(|(status, kind, message, retry_after)| {
        Decision::Reject(Rejection { status, kind, message, retry_after })
    });
    let sends = (lanes(), dispatches()).prop_map(|(lane, dispatch)| match lane {
        Lane::Primary => Decision::Primary(dispatch),
        Lane::Fallback => Decision::Fallback(dispatch),
        Lane::Emergency => Decision::Emergency(dispatch),
    });
    let waits = (1u64..4, lanes()).prop_map(|(ms, lane)| Decision::Wait(Hold { max: Duration::from_millis(ms), lane }));
    prop_oneof![3 => sends, 1 => waits, 1 => rejections]
}

/// Returns the divergence with the two decisions exchanged.
fn mirrored(divergence: Divergence) -> Divergence {
    match divergence {
        Divergence::Lane(then, now) => Divergence::Lane(now, then),
        Divergence::WaitToSend(lane) => Divergence::SendToWait(lane),
        Divergence::SendToWait(lane) => Divergence::WaitToSend(lane),
        Divergence::RejectTo(action) => Divergence::ToReject(action),
        Divergence::ToReject(action) => Divergence::RejectTo(action),
        same @ (Divergence::Backend(_)
        | Divergence::Tie(_)
        | Divergence::Model(_)
        | Divergence::Wait
        | Divergence::Rejection
        | Divergence::Terms(_)
        | Divergence::Fails(_)
        | Divergence::Notes) => same,
    }
}

/// Checks that the kind is true of both decisions.
fn holds(divergence: Divergence, then: &Decision, now: &Decision) -> bool {
    let word = |action: Action| match action {
        Action::Send(lane) => lane.as_str(),
        Action::Wait => "wait",
    };
    let (before, after) = match divergence {
        Divergence::Lane(then, now) => (then.as_str(), now.as_str()),
        Divergence::Backend(lane) | Divergence::Tie(lane) | Divergence::Model(lane) | Divergence::Terms(lane) => {
            (lane.as_str(), lane.as_str())
        }
        Divergence::WaitToSend(lane) => ("wait", lane.as_str()),
        Divergence::SendToWait(lane) => (lane.as_str(), "wait"),
        Divergence::RejectTo(action) => ("reject", word(action)),
        Divergence::ToReject(action) => (word(action), "reject"),
        Divergence::Wait => ("wait", "wait"),
        Divergence::Rejection => ("reject", "reject"),
        Divergence::Fails(_) | Divergence::Notes => return false,
    };
    then.as_str() == before && now.as_str() == after
}

proptest! {
    #[test]
    fn any_two_decisions_are_the_same_or_of_one_kind(then in decisions(), now in decisions()) {
        let found = of_decisions(&then, &now);
        prop_assert_eq!(found.is_none(), then == now);
        prop_assert_eq!(found.map(mirrored), of_decisions(&now, &then));
        prop_assert!(found.is_none_or(|divergence| holds(divergence, &then, &now)), "{:?}", found);
        prop_assert_eq!(of_decisions(&then, &then), None);
    }

    #[test]
    fn decisions_that_differ_look_different(then in decisions(), now in decisions()) {
        let words = [&then, &now].map(|decision| of_decision(decision, &Table::default()));
        // Of a table without backends and models no name is known; the host's own rejection has none of its own.
        let nameless = |decision: &Decision| match decision {
            Decision::Primary(d) | Decision::Fallback(d) | Decision::Emergency(d) => d.backend.is_some() || d.model.is_some(),
            Decision::Reject(rejection) => rejection.status == 0,
            Decision::Wait(_) => false,
        };
        if !nameless(&then) && !nameless(&now) {
            prop_assert_eq!(words[0] == words[1], then == now, "{:?}", words);
        }
    }

    #[test]
    fn the_same_again_is_exact_and_diverges_in_nothing(decision in decisions()) {
        let question = question(decision);
        let heard = heard(&question);
        prop_assert_eq!(exactness(&question, &heard), Exactness::Same);
        prop_assert_eq!(divergence(&question, &heard, &Table::default()), None);
        prop_assert_eq!(same_again(&heard, &heard), Some(true));
    }
}
