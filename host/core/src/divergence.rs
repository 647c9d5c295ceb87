//! How two policies' answers to the same question differ, and decisions in words.

use std::fmt::Write as _;

use crate::contract::{Commit, Decision, Dispatch, Resume};
use crate::table::{Lane, Table};

/// How another policy's decision differs from the one that was carried out, the gravest difference first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Divergence {
    /// It does not.
    Same,
    /// The same way, on other terms: model, time limits, commit, resume, length of a wait, words of a rejection.
    Terms,
    /// Another backend of the same lane.
    Backend,
    /// Another lane, to send to or to wait for.
    Lane,
    /// One waits, the other sends.
    Wait,
    /// One rejects, the other does not.
    Reject,
}

impl Divergence {
    /// Every kind.
    pub const ALL: [Divergence; 6] = [
        Divergence::Same,
        Divergence::Terms,
        Divergence::Backend,
        Divergence::Lane,
        Divergence::Wait,
        Divergence::Reject,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Divergence::Same => "same",
            Divergence::Terms => "terms",
            Divergence::Backend => "backend",
            Divergence::Lane => "lane",
            Divergence::Wait => "wait",
            Divergence::Reject => "reject",
        }
    }

    /// Between two decisions over the same table.
    pub fn between(one: &Decision, other: &Decision) -> Self {
        if one == other {
            return Divergence::Same;
        }
        match (one, other) {
            (Decision::Reject(_), Decision::Reject(_)) => Divergence::Terms,
            (Decision::Reject(_), _) | (_, Decision::Reject(_)) => Divergence::Reject,
            (Decision::Wait(a), Decision::Wait(b)) if a.lane == b.lane => Divergence::Terms,
            (Decision::Wait(_), Decision::Wait(_)) => Divergence::Lane,
            (Decision::Wait(_), _) | (_, Decision::Wait(_)) => Divergence::Wait,
            (Decision::Primary(a), Decision::Primary(b))
            | (Decision::Fallback(a), Decision::Fallback(b))
            | (Decision::Emergency(a), Decision::Emergency(b)) => match a.backend == b.backend {
                true => Divergence::Terms,
                false => Divergence::Backend,
            },
            (
                Decision::Primary(_) | Decision::Fallback(_) | Decision::Emergency(_),
                Decision::Primary(_) | Decision::Fallback(_) | Decision::Emergency(_),
            ) => Divergence::Lane,
        }
    }
}

/// A decision as people read it: `primary to nvidia-1`, `wait at most 5000 ms for a primary`, `reject 429 "busy"`.
pub fn words(decision: &Decision, table: &Table) -> String {
    match decision {
        Decision::Primary(dispatch) => sent(Lane::Primary, dispatch, table),
        Decision::Fallback(dispatch) => sent(Lane::Fallback, dispatch, table),
        Decision::Emergency(dispatch) => sent(Lane::Emergency, dispatch, table),
        Decision::Wait(hold) => {
            let lane = hold.lane.as_str();
            let ms = hold.max.as_millis();
            format!("wait at most {ms} ms for {} {lane}", if hold.lane == Lane::Emergency { "an" } else { "a" })
        }
        Decision::Reject(rejection) if rejection.status == 0 => "reject: all pools exhausted".to_owned(),
        Decision::Reject(rejection) => format!("reject {} {:?}", rejection.status, rejection.message),
    }
}

fn sent(lane: Lane, dispatch: &Dispatch, table: &Table) -> String {
    let backend = dispatch.backend.and_then(|index| table.backends.get(index as usize));
    let mut words = format!("{} to {}", lane.as_str(), backend.map_or("any", |backend| &*backend.id));
    if let Some(model) = dispatch.model.and_then(|index| table.models.get(index as usize)) {
        let _ = write!(words, " as {model}");
    }
    for (name, limit) in [
        ("first byte", dispatch.first_byte),
        ("first token", dispatch.first_token),
        ("idle", dispatch.idle),
        ("total", dispatch.total),
    ] {
        if let Some(limit) = limit {
            let _ = write!(words, ", {name} {} ms", limit.as_millis());
        }
    }
    match dispatch.commit {
        None => {}
        Some(Commit::Headers) => words += ", commit headers",
        Some(Commit::FirstContent) => words += ", commit first-content",
        Some(Commit::Tokens(n)) => words += &format!(", commit {n} tokens"),
        Some(Commit::Complete) => words += ", commit complete",
    }
    match dispatch.resume {
        None => {}
        Some(Resume::None) => words += ", resume none",
        Some(Resume::Splice) => words += ", resume splice",
        Some(Resume::Prefill) => words += ", resume prefill",
    }
    words
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::contract::{Hold, Rejection};

    fn to(backend: u32) -> Dispatch {
        Dispatch { backend: Some(backend), ..Dispatch::default() }
    }

    fn wait(ms: u64, lane: Lane) -> Decision {
        Decision::Wait(Hold { max: Duration::from_millis(ms), lane })
    }

    #[test]
    fn the_gravest_difference_is_named() {
        let timed = Dispatch { total: Some(Duration::from_secs(1)), ..to(0) };
        let reject = |kind: &str| Decision::Reject(Rejection { kind: kind.to_owned(), ..Rejection::default() });
        for (one, other, kind) in [
            (Decision::Primary(to(0)), Decision::Primary(to(0)), Divergence::Same),
            (Decision::Primary(to(0)), Decision::Primary(timed), Divergence::Terms),
            (Decision::Primary(to(0)), Decision::Primary(to(1)), Divergence::Backend),
            (Decision::Primary(to(0)), Decision::Primary(Dispatch::default()), Divergence::Backend),
            (Decision::Primary(to(0)), Decision::Emergency(to(0)), Divergence::Lane),
            (wait(5, Lane::Primary), wait(6, Lane::Primary), Divergence::Terms),
            (wait(5, Lane::Primary), wait(5, Lane::Fallback), Divergence::Lane),
            (wait(5, Lane::Primary), Decision::Primary(to(0)), Divergence::Wait),
            (reject("a"), reject("b"), Divergence::Terms),
            (reject("a"), wait(5, Lane::Primary), Divergence::Reject),
        ] {
            assert_eq!(Divergence::between(&one, &other), kind, "{one:?} {other:?}");
            assert_eq!(Divergence::between(&other, &one), kind, "{other:?} {one:?}");
        }
    }

    #[test]
    fn decisions_are_told_in_words() {
        let table = Table::default();
        let gone = Dispatch { total: Some(Duration::from_secs(1)), commit: Some(Commit::Tokens(2)), ..to(7) };
        assert_eq!(words(&Decision::Fallback(gone), &table), "fallback to any, total 1000 ms, commit 2 tokens");
        assert_eq!(words(&wait(5, Lane::Emergency), &table), "wait at most 5 ms for an emergency");
        assert_eq!(words(&Decision::Reject(Rejection::default()), &table), "reject: all pools exhausted");
    }
}
