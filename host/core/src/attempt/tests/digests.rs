//! Digested answers come to what the same answers come to in bytes.

use proptest::prelude::*;

use super::*;
use crate::contract::NONE;
use crate::exchange::{Facts, Join};

fn facts(streaming: bool) -> Facts {
    Facts {
        operation: Operation::Chat,
        streaming,
        priority: 0,
        prompt_tokens: 7,
        max_tokens: 0,
        client: NONE,
        session: 0,
        translatable: false,
        idempotent: true,
    }
}

const PROMPT: PromptCount = PromptCount { tokens: 7, cached: 0 };

fn digest(contents: u64) -> Input {
    Input::Digest(Digest { contents, is_new: true, ..Digest::default() })
}

fn finish(tokens: u64) -> Input {
    let usage = Usage { input_tokens: 9, output_tokens: tokens, ..Usage::default() };
    Input::Digest(Digest { is_finish: true, is_new: true, usage: Some(usage), ..Digest::default() })
}

fn simulated(case: &Case, told: u32) -> Attempt {
    Attempt::simulated(START, &facts(true), Dialect::OPENAI, &case.sending, PROMPT, told)
}

#[test]
fn a_digested_whole_answer_is_committed_when_it_is_complete() {
    let case = Case::chat();
    let attempt = Attempt::simulated(START, &facts(false), Dialect::OPENAI, &case.sending, PROMPT, 0);
    let run =
        Run::of(attempt, [(400, Input::Head(parts(200, &[]), BodyKind::Digest)), (400, finish(2)), (400, Input::End)]);
    assert_eq!(run.came_to(), (Some(400), 400, Kind::Answered));
    assert_eq!(run.ended().usage.output_tokens, 2);
}

#[test]
fn a_digested_resume_goes_downstream_with_what_is_new() {
    let old = || Input::Digest(Digest { contents: 1, ..Digest::default() });
    let digest_head = || (50, Input::Head(parts(200, &[]), BodyKind::Digest));
    let mut case = Case::stream();
    case.sending.join = Some(Join::Splice);
    let script = [digest_head(), (100, old()), (200, digest(1)), (300, finish(2)), (300, Input::End)];
    assert_eq!(Run::of(simulated(&case, 1), script).came_to(), (Some(200), 300, Kind::Answered));
    let finish_of_less = Input::Digest(Digest { is_finish: true, ..Digest::default() });
    let script = [digest_head(), (100, old()), (300, finish_of_less), (300, Input::End)];
    assert_eq!(Run::of(simulated(&case, 5), script).came_to(), (None, 300, Kind::NotResumed));
}

/// A stream's end.
#[derive(Clone, Copy, Debug)]
enum End {
    Finish,
    Cut,
    Silence,
}

/// The same script in bytes and digested.
fn both(times: &[u64], end: End, at: u64) -> [Vec<(u64, Input)>; 2] {
    let word = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"word\"}}]}\n\n";
    let tokens = times.len() as u64;
    let mut in_bytes = vec![(times[0] / 2, stream_head())];
    let mut digested = vec![(times[0] / 2, Input::Head(parts(200, &[]), BodyKind::Digest))];
    in_bytes.extend(times.iter().map(|at| (*at, bytes(word))));
    digested.extend(times.iter().map(|at| (*at, digest(1))));
    match end {
        End::Finish => {
            let used = format!(
                "data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":9,\"completion_tokens\":{tokens}}}}}\n\n"
            );
            in_bytes.extend([(at, bytes(&format!("{STOP}{used}{DONE}"))), (at, Input::End)]);
            digested.extend([(at, finish(tokens)), (at, Input::End)]);
        }
        End::Cut => {
            in_bytes.push((at, broken()));
            digested.push((at, broken()));
        }
        End::Silence => {}
    }
    [in_bytes, digested]
}

fn gates() -> impl Strategy<Value = Commit> {
    prop_oneof![
        Just(Commit::Headers),
        Just(Commit::FirstContent),
        (1u32..12).prop_map(Commit::Tokens),
        Just(Commit::Complete),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn the_same_script_comes_to_the_same_in_bytes_and_digested(
        gaps in prop::collection::vec(1u64..400, 1..12),
        end in prop::sample::select(vec![End::Finish, End::Cut, End::Silence]),
        commit in gates(),
        first_token in 100u64..900,
        total in 300u64..2_000,
    ) {
        let mut case = Case::stream().commit(commit);
        case.sending.timeouts.first_token = Duration::from_millis(first_token);
        case.sending.timeouts.total = Duration::from_millis(total);
        let times: Vec<u64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
        let [in_bytes, digested] = both(&times, end, times[times.len() - 1] + 50);
        let (in_bytes, digested) = (case.run(in_bytes), Run::of(simulated(&case, 0), digested));
        prop_assert_eq!(in_bytes.came_to(), digested.came_to());
        let (one, other) = (in_bytes.ended(), digested.ended());
        prop_assert_eq!(&one.outcome.message, &other.outcome.message);
        prop_assert_eq!(one.usage, other.usage);
        prop_assert_eq!((one.first_byte, one.first_token), (other.first_byte, other.first_token));
    }
}
