//! Properties of every answer, however its bytes are split and whatever happens meanwhile.

use proptest::prelude::*;

use super::*;

fn events() -> impl Strategy<Value = Vec<&'static str>> {
    let event = prop::sample::select(vec![HELLO, WORLD, ": ping\n\n", "data: {nonsense\n\n", USED]);
    prop::collection::vec(event, 0..12)
}

fn ends() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        String::new(),
        STOP.to_owned(),
        format!("{STOP}{DONE}"),
        format!("{STOP}{USED}data: [DONE]"),
        DONE.to_owned(),
    ])
}

fn gates() -> impl Strategy<Value = Commit> {
    prop_oneof![Just(Commit::Headers), Just(Commit::FirstContent), Just(Commit::Tokens(3)), Just(Commit::Complete)]
}

fn split(text: &str, cuts: &[usize]) -> Vec<Bytes> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
    cuts.extend([0, text.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|w| Bytes::copy_from_slice(&text.as_bytes()[w[0]..w[1]])).collect()
}

fn in_pieces(case: &Case, head: Input, text: &str, cuts: &[usize], end: Input) -> Run {
    let pieces = split(text, cuts).into_iter().map(|piece| (60, Input::Bytes(piece)));
    case.run([(50, head)].into_iter().chain(pieces).chain([(70, end)]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_split_of_a_stream_comes_to_the_same(
        events in events(),
        end in ends(),
        is_cut: bool,
        commit in gates(),
        cuts in prop::collection::vec(0usize..2_000, 0..12),
    ) {
        let case = Case::stream().commit(commit);
        let text = events.concat() + &end;
        let end = || if is_cut { broken() } else { Input::End };
        let at_once = in_pieces(&case, stream_head(), &text, &[], end());
        let in_parts = in_pieces(&case, stream_head(), &text, &cuts, end());
        prop_assert_eq!(at_once.came_to(), in_parts.came_to());
        prop_assert_eq!(at_once.text(), in_parts.text());
        prop_assert_eq!(&at_once.ended().outcome, &in_parts.ended().outcome);
        prop_assert_eq!(at_once.ended().usage, in_parts.ended().usage);
    }

    #[test]
    fn any_split_of_a_whole_answer_comes_to_the_same(
        body in prop::sample::select(vec![COMPLETION, "<html>", r#"{"error":{"message":"x"}}"#, ""]),
        status in prop::sample::select(vec![200u16, 302, 400, 429, 500]),
        streaming: bool,
        cuts in prop::collection::vec(0usize..400, 0..6),
    ) {
        let case = if streaming { Case::stream() } else { Case::chat() };
        let head = || head(status, &[("content-type", "application/json")]);
        let at_once = in_pieces(&case, head(), body, &[], Input::End);
        let in_parts = in_pieces(&case, head(), body, &cuts, Input::End);
        prop_assert_eq!(at_once.came_to(), in_parts.came_to());
        // The stream that is made of it has the time in it, which is the same too.
        prop_assert_eq!(at_once.text(), in_parts.text());
        prop_assert_eq!(&at_once.ended().outcome, &in_parts.ended().outcome);
    }

    /// [`Run`] holds it to one end, to silence before the commit and after the end, and to deadlines that are never early.
    #[test]
    fn whatever_happens_it_ends_once(
        script in prop::collection::vec((0u64..700, 0usize..14), 0..14),
        streaming: bool,
        commit in gates(),
    ) {
        let case = if streaming { Case::stream() } else { Case::chat() }.commit(commit);
        let mut at = 0;
        let script = script.into_iter().map(|(gap, what)| {
            at += gap;
            let input = match what {
                0 => Input::SendFailed(Outcome::new(Kind::Reset, "reset")),
                1 | 2 => stream_head(),
                3 => json_head(),
                4 => head(429, &[("retry-after", "1")]),
                5 => Input::Head(parts(200, &[]), BodyKind::Empty),
                6 | 7 => bytes(HELLO),
                8 => bytes(STOP),
                9 => bytes(COMPLETION),
                10 => Input::End,
                11 => broken(),
                12 => Input::Timer,
                _ => Input::LastBytes(DONE.into()),
            };
            (at, input)
        });
        let run = case.run(script.collect::<Vec<_>>());
        prop_assert!(run.ended().first_token.is_none_or(|first| Some(first) >= run.ended().first_byte));
    }
}
