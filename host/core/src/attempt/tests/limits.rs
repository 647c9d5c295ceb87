//! Time limits, and the other ends that no upstream sends.

use super::*;
use crate::overdue::Bet;

fn message(run: &Run) -> &str {
    &run.ended().outcome.message
}

#[test]
fn a_head_has_its_limit() {
    let run = Case::chat().run([]);
    assert_eq!(run.came_to(), (None, 1_000, Kind::TimedOut));
    assert_eq!(message(&run), "no response head within 1s (timeouts.first_byte_ms)");
    let mut short = Case::chat();
    short.sending.timeouts.total = 400 * MS;
    assert_eq!(short.run([]).came_to(), (None, 400, Kind::TimedOut));
    // What comes with the limit has come in time.
    let at_once = [(1_000, json_head()), (1_000, bytes(COMPLETION)), (1_000, Input::End)];
    assert_eq!(Case::chat().run(at_once).kind(), Kind::Answered);
}

#[test]
fn no_connection_is_an_end() {
    for kind in [Kind::ConnectFailed, Kind::Reset, Kind::Malformed] {
        let run = Case::chat().run([(30, Input::SendFailed(Outcome::new(kind, "why")))]);
        assert_eq!(run.came_to(), (None, 30, kind));
        assert_eq!(run.ended().first_byte, None);
    }
}

#[test]
fn the_first_content_has_its_limit_until_the_commit() {
    let mut patient = Case::stream();
    patient.sending.timeouts.idle = 2_000 * MS;
    let run = patient.run([(50, stream_head())]);
    assert_eq!(run.came_to(), (None, 550, Kind::TimedOut), "the head is a sign of life");
    assert_eq!(message(&run), "no first token within 500ms (timeouts.first_token_ms)");
    assert_eq!(run.ended().first_byte, Some(50 * MS));
    let comments = |n: u64| (1..=n).map(|i| (50 + 400 * i, bytes(": processing\n\n")));
    let late = patient.run([(50, stream_head())].into_iter().chain(comments(4)).chain([(2_000, bytes(HELLO))]));
    assert_eq!(late.committed, Some(2_000), "comments are no silence");
    let never = patient.run([(50, stream_head())].into_iter().chain(comments(20)));
    assert_eq!(never.came_to(), (None, 2_500, Kind::TimedOut), "but not for ever in place of an answer");
    let pings = || [(50, stream_head()), (200, bytes(": ping\n\n")), (450, bytes(": ping\n\n")), (700, bytes(HELLO))];
    let run = Case::stream().commit(Commit::Headers).run(pings());
    assert_eq!((run.committed, run.kind()), (Some(50), Kind::Stalled), "and then it fell silent");
    assert_eq!(run.ended().first_token, Some(700 * MS));
}

#[test]
fn silence_has_its_limit_and_every_byte_begins_it_anew() {
    let run = Case::stream().run([(50, stream_head()), (300, bytes(HELLO)), (590, bytes(": ping\n\n"))]);
    assert_eq!(run.came_to(), (Some(300), 890, Kind::Stalled));
    assert_eq!(message(&run), "the stream was silent for 300ms (timeouts.idle_ms)");
    let run = Case::chat().run([(50, json_head()), (100, bytes("{"))]);
    assert_eq!(run.came_to(), (None, 400, Kind::Stalled));
}

#[test]
fn all_of_it_has_its_limit() {
    let script = || (0..60).map(|i| (100 + i * 100, bytes(HELLO)));
    let run = Case::stream().run([(50, stream_head())].into_iter().chain(script()));
    assert_eq!(run.came_to(), (Some(100), 6_300, Kind::Stalled), "a stream that flows has no total limit");
    let limited = || {
        let mut case = Case::stream();
        case.sending.timeouts.stream_total = Some(5_000 * MS);
        case
    };
    let run = limited().run([(50, stream_head())].into_iter().chain(script()));
    assert_eq!(run.came_to(), (Some(100), 5_000, Kind::TimedOut));
    assert_eq!(message(&run), "the attempt took longer than its total time limit");
    // One that never pauses never lets the timer look.
    let case = limited();
    let mut attempt = case.attempt();
    attempt.step(START, stream_head());
    attempt.step(START, bytes(HELLO));
    let Output::Ended(_, ended) = attempt.step(START + 5_001 * MS, bytes(HELLO)) else { panic!("it is over") };
    assert_eq!(ended.outcome.kind, Kind::TimedOut);
}

/// Nobody else can answer: what is overdue is put off, each time the attempt asks.
fn alone(case: &Case, script: impl IntoIterator<Item = (u64, Input)>) -> (Vec<Bet>, Run) {
    let mut run = Run::begun(case.attempt());
    let mut late = Vec::new();
    for (at, input) in script {
        let at = START + Duration::from_millis(at);
        while run.ended.is_none() && run.attempt.wake_at() < at {
            let due = run.attempt.wake_at();
            match run.attempt.overdue(due) {
                Some(overdue) => {
                    late.push(overdue.bet);
                    run.attempt.put_off(due + 1_000 * MS);
                }
                None => run.to(due + 1 * MS),
            }
        }
        run.now = at.max(run.now);
        run.step(input);
    }
    (late, run)
}

#[test]
fn a_limit_that_fails_over_is_put_off_up_to_the_total_where_nobody_else_can_answer() {
    let (late, run) = alone(&Case::chat(), [(3_500, json_head()), (4_900, bytes(COMPLETION)), (4_900, Input::End)]);
    assert_eq!(run.came_to(), (Some(4_900), 4_900, Kind::Answered));
    assert_eq!(late, [Bet::FirstByte, Bet::FirstByte, Bet::FirstByte, Bet::Idle, Bet::Idle]);
    let (late, run) = alone(&Case::chat(), [(9_000, Input::Timer)]);
    assert_eq!((run.came_to(), late.len()), ((None, 5_000, Kind::TimedOut), 4), "the total is firm");
    let pause =
        [(50, stream_head()), (100, bytes(HELLO)), (3_100, bytes(WORLD)), (3_200, bytes(&format!("{STOP}{DONE}")))];
    let (late, run) = alone(&Case::stream(), pause.into_iter().chain([(3_210, Input::End)]));
    assert_eq!((run.came_to(), late.len()), ((Some(100), 3_210, Kind::Answered), 3));
}

#[test]
fn a_stream_that_stops_for_good_ends_though_it_has_no_total_limit() {
    let (_, run) = alone(&Case::stream(), [(50, stream_head()), (100, bytes(HELLO)), (700_000, Input::Timer)]);
    assert_eq!(run.came_to(), (Some(100), 600_100, Kind::Stalled));
}

#[test]
fn a_client_that_leaves_pays_for_what_flowed() {
    let left = |commit| {
        let script = [(50, stream_head()), (100, bytes(HELLO)), (150, Input::ClientGone)];
        Case::stream().commit(commit).run(script)
    };
    let run = left(Commit::FirstContent);
    assert_eq!(run.came_to(), (Some(100), 150, Kind::ClientGone));
    assert_eq!((run.ended().usage.output_tokens, run.ended().usage.estimated), (2, true));
    assert_eq!((run.ended().first_byte, run.ended().first_token), (Some(50 * MS), Some(100 * MS)));
    let held = left(Commit::Complete).ended().usage;
    assert_eq!((held.input_tokens, held.output_tokens, held.estimated), (7, 2, true), "the provider charges it too");
}

#[test]
fn a_shutdown_ends_it_at_nobodys_cost() {
    let run = Case::stream().run([(50, stream_head()), (100, bytes(HELLO)), (150, Input::ShuttingDown)]);
    assert_eq!(run.came_to(), (Some(100), 150, Kind::ClientGone));
    assert_eq!(message(&run), "Pointsman is shutting down");
    assert_eq!(Case::chat().run([(50, Input::ShuttingDown)]).came_to(), (None, 50, Kind::ClientGone));
}
