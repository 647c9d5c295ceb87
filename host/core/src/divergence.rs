//! Differences between two policies' answers to the same question, and decisions in words.

use std::fmt::Write as _;

use crate::contract::{Column, Commit, Decision, Dispatch, Query, Resume};
use crate::table::{Backend, Lane, Price, Table};

vocabulary! {
    /// Difference between another policy's decision and the one carried out; of several the gravest counts, in this
    /// order.
    pub enum Divergence {
        /// Both decide the same, with the same terms.
        Same = "same",
        /// Another backend of the same lane that was as good: of the same tier, in the same state, at the same price. Chance may
        /// have chosen, so this is not counted among the differences.
        Tie = "tie",
        /// The same way, on other terms: model, time limits, commit, resume, length of a wait, words of a rejection.
        Terms = "terms",
        /// Another backend of the same lane.
        Backend = "backend",
        /// Another lane, to send to or to wait for.
        Lane = "lane",
        /// One waits, the other sends.
        Wait = "wait",
        /// One rejects, the other does not.
        Reject = "reject",
    }
}

impl Divergence {
    /// Between two decisions at the same question over the same table.
    pub fn between(query: &Query, table: &Table, one: &Decision, other: &Decision) -> Self {
        if one == other {
            return Divergence::Same;
        }
        if is_tie(query, table, one, other) {
            return Divergence::Tie;
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

/// Returns true if two decisions send alike to two equivalent backends: of the same tier, in the same state, at the
/// same price.
pub fn is_tie(query: &Query, table: &Table, one: &Decision, other: &Decision) -> bool {
    let (a, b) = match (one, other) {
        (Decision::Primary(a), Decision::Primary(b))
        | (Decision::Fallback(a), Decision::Fallback(b))
        | (Decision::Emergency(a), Decision::Emergency(b)) => (a, b),
        (
            Decision::Primary(_)
            | Decision::Fallback(_)
            | Decision::Emergency(_)
            | Decision::Wait(_)
            | Decision::Reject(_),
            _,
        ) => return false,
    };
    let (Some(first), Some(second)) = (a.backend, b.backend) else { return false };
    let alike = Dispatch { backend: a.backend, ..*b } == *a;
    let backend = |index: u32| table.backends.get(index as usize);
    let (Some(one), Some(other)) = (backend(first), backend(second)) else { return false };
    let state = |index: u32| query.rows.number(index as usize, Column::State);
    let model = table.models.get(a.model.unwrap_or(query.request.model) as usize).map(String::as_str);
    first != second
        && alike
        && one.tier == other.tier
        && state(first) == state(second)
        && price(one, model) == price(other, model)
}

/// The price of a model by the name that clients use; of one that is in no list, that of all others.
fn price<'b>(backend: &'b Backend, model: Option<&str>) -> Option<&'b Price> {
    let sent = model.and_then(|model| backend.sent_model(model));
    backend.price(sent.as_deref().unwrap_or("*"))
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
    let terms = terms_of(dispatch);
    if !terms.is_empty() {
        let _ = write!(words, ", {terms}");
    }
    words
}

/// Time limits, commit and resume that a decision sets, as people read them; empty where it leaves all to the configuration.
pub fn terms(decision: &Decision) -> String {
    match decision {
        Decision::Primary(dispatch) | Decision::Fallback(dispatch) | Decision::Emergency(dispatch) => {
            terms_of(dispatch)
        }
        Decision::Wait(_) | Decision::Reject(_) => String::new(),
    }
}

fn terms_of(dispatch: &Dispatch) -> String {
    let limits = [
        ("first byte", dispatch.first_byte),
        ("first token", dispatch.first_token),
        ("idle", dispatch.idle),
        ("total", dispatch.total),
    ];
    let limits = limits.into_iter().filter_map(|(name, limit)| Some(format!("{name} {} ms", limit?.as_millis())));
    let commit = dispatch.commit.map(|commit| match commit {
        Commit::Headers => "commit headers".to_owned(),
        Commit::FirstContent => "commit first-content".to_owned(),
        Commit::Tokens(n) => format!("commit {n} tokens"),
        Commit::Complete => "commit complete".to_owned(),
    });
    let resume = dispatch.resume.map(|resume| match resume {
        Resume::None => "resume none".to_owned(),
        Resume::Splice => "resume splice".to_owned(),
        Resume::Prefill => "resume prefill".to_owned(),
    });
    limits.chain(commit).chain(resume).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::contract::{BackendRow, Hold, NONE, Operation, Rejection, RequestFacts, RowState};
    use crate::table::Tier;

    fn to(backend: u32) -> Dispatch {
        Dispatch { backend: Some(backend), ..Dispatch::default() }
    }

    fn wait(ms: u64, lane: Lane) -> Decision {
        Decision::Wait(Hold { max: Duration::from_millis(ms), lane })
    }

    fn backend(id: &str, tier: Tier, input_per_mtok: f64) -> Backend {
        let price = Price { input_per_mtok, output_per_mtok: 1.0, ..Price::default() };
        Backend { id: id.into(), tier, prices: [("*".to_owned(), price)].into(), ..Backend::new("a") }
    }

    /// Primaries 0 and 1 alike, 2 cooling, 3 dearer; a fallback 4.
    fn question() -> (Query, Table) {
        let backends = vec![
            backend("a", Tier::Primary, 1.0),
            backend("b", Tier::Primary, 1.0),
            backend("c", Tier::Primary, 1.0),
            backend("d", Tier::Primary, 2.0),
            backend("e", Tier::Fallback, 1.0),
        ];
        let state = |index| if index == 2 { RowState::Cooling } else { RowState::Ready };
        let rows = (0..backends.len()).map(state).map(BackendRow::new).collect();
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
        let query = Query { now_ms: 0, seed: 1, request, attempts: Vec::new(), waits: 0, waited_ms: 0, rows };
        (query, Table { backends, models: vec!["m".to_owned()], ..Table::default() })
    }

    #[test]
    fn the_gravest_difference_is_named() {
        let (query, table) = question();
        let timed = Dispatch { total: Some(Duration::from_secs(1)), ..to(0) };
        let timed_elsewhere = Dispatch { backend: Some(1), ..timed };
        let reject = |kind: &str| Decision::Reject(Rejection { kind: kind.to_owned(), ..Rejection::default() });
        for (one, other, kind) in [
            (Decision::Primary(to(0)), Decision::Primary(to(0)), Divergence::Same),
            (Decision::Primary(to(0)), Decision::Primary(timed), Divergence::Terms),
            (Decision::Primary(to(0)), Decision::Primary(to(1)), Divergence::Tie),
            (Decision::Emergency(to(0)), Decision::Emergency(to(1)), Divergence::Tie),
            (Decision::Primary(timed), Decision::Primary(timed_elsewhere), Divergence::Tie),
            (Decision::Primary(to(0)), Decision::Primary(timed_elsewhere), Divergence::Backend),
            (Decision::Primary(to(0)), Decision::Primary(to(2)), Divergence::Backend),
            (Decision::Primary(to(0)), Decision::Primary(to(3)), Divergence::Backend),
            (Decision::Emergency(to(0)), Decision::Emergency(to(4)), Divergence::Backend),
            (Decision::Primary(to(0)), Decision::Primary(Dispatch::default()), Divergence::Backend),
            (Decision::Primary(to(0)), Decision::Emergency(to(0)), Divergence::Lane),
            (wait(5, Lane::Primary), wait(6, Lane::Primary), Divergence::Terms),
            (wait(5, Lane::Primary), wait(5, Lane::Fallback), Divergence::Lane),
            (wait(5, Lane::Primary), Decision::Primary(to(0)), Divergence::Wait),
            (reject("a"), reject("b"), Divergence::Terms),
            (reject("a"), wait(5, Lane::Primary), Divergence::Reject),
        ] {
            assert_eq!(Divergence::between(&query, &table, &one, &other), kind, "{one:?} {other:?}");
            assert_eq!(Divergence::between(&query, &table, &other, &one), kind, "{other:?} {one:?}");
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
