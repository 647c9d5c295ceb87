//! Time limits, and the other ends that no upstream sends.

use super::*;

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
    let pings = || [(50, stream_head()), (200, bytes(": ping\n\n")), (450, bytes(": ping\n\n")), (700, bytes(HELLO))];
    let run = Case::stream().run(pings());
    assert_eq!(run.came_to(), (None, 500, Kind::TimedOut));
    assert_eq!(message(&run), "no first token within 500ms (timeouts.first_token_ms)");
    assert_eq!(run.ended().first_byte, Some(50 * MS));
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
    let script = (0..60).map(|i| (100 + i * 100, bytes(HELLO)));
    let run = Case::stream().run([(50, stream_head())].into_iter().chain(script));
    assert_eq!(run.came_to(), (Some(100), 5_000, Kind::TimedOut));
    assert_eq!(message(&run), "the attempt took longer than its total time limit");
    // One that never pauses never lets the timer look.
    let case = Case::stream();
    let mut attempt = case.attempt();
    attempt.step(START, stream_head());
    attempt.step(START, bytes(HELLO));
    let Output::Ended(_, ended) = attempt.step(START + 5_001 * MS, bytes(HELLO)) else { panic!("it is over") };
    assert_eq!(ended.outcome.kind, Kind::TimedOut);
}

#[test]
fn a_client_that_leaves_pays_for_what_was_delivered() {
    let left = |commit| {
        let script = [(50, stream_head()), (100, bytes(HELLO)), (150, Input::ClientGone)];
        Case::stream().commit(commit).run(script)
    };
    let run = left(Commit::FirstContent);
    assert_eq!(run.came_to(), (Some(100), 150, Kind::ClientGone));
    assert_eq!((run.ended().usage.output_tokens, run.ended().usage.estimated), (2, true));
    assert_eq!((run.ended().first_byte, run.ended().first_token), (Some(50 * MS), Some(100 * MS)));
    assert_eq!(left(Commit::Complete).ended().usage, Usage::default());
}

#[test]
fn a_shutdown_ends_it_at_nobodys_cost() {
    let run = Case::stream().run([(50, stream_head()), (100, bytes(HELLO)), (150, Input::ShuttingDown)]);
    assert_eq!(run.came_to(), (Some(100), 150, Kind::ClientGone));
    assert_eq!(message(&run), "Pointsman is shutting down");
    assert_eq!(Case::chat().run([(50, Input::ShuttingDown)]).came_to(), (None, 50, Kind::ClientGone));
}
