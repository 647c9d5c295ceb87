//! The report of a replay, for people and for machines.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use pointsman_engine::left_out_words;
use pointsman_store::{Journaled, Skipped};
use serde_json::{Value as Json, json};

use super::describe::{count, counted};
use super::summary::{Difference, Diverging, Exact, Forgetful};

/// Results of a replay, by revision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplayReport {
    /// Number of recorded exchanges that were read.
    pub exchanges: u64,
    /// Times of arrival of the first and the last of them.
    pub span: Option<(String, String)>,
    /// Questions that were too much to record, in how many exchanges.
    pub left_out: u64,
    /// Counts of records that could not be read.
    pub skipped: Skipped,
    /// The revision that was chosen; none: each exchange was put to the one that decided it.
    pub candidate: Option<String>,
    /// Recorded settings that the candidate does not know.
    pub settings_left_out: BTreeSet<String>,
    /// Revisions that were put their own questions.
    pub exact: IndexMap<String, Exact>,
    /// Divergences of the candidate from other policies' decisions.
    pub diverging: Diverging,
    /// The same questions, put to fresh instances; by revision.
    pub forgetful: IndexMap<Arc<str>, Forgetful>,
    /// Revisions whose component is not kept, with their exchanges.
    pub missing: IndexMap<String, u64>,
    /// Duration of the replay, reading included.
    pub took: Duration,
}

impl ReplayReport {
    /// One more exchange was read.
    pub fn note(&mut self, journaled: &Journaled) {
        self.exchanges += 1;
        let started = &journaled.exchange.started;
        match &mut self.span {
            Some((first, _)) if started < first => first.clone_from(started),
            Some((_, last)) if started > last => last.clone_from(started),
            Some(_) => {}
            None => self.span = Some((started.clone(), started.clone())),
        }
        self.left_out += u64::from(journaled.trail.left_out > 0);
    }

    /// Returns true if questions were asked, and every revision decided its own ones the same again, by used and by
    /// fresh instances.
    pub fn is_good(&self) -> bool {
        let is_exact = self.exact.values().all(|exact| exact.differing == 0);
        let is_forgetful = self.forgetful.values().all(|forgetful| forgetful.differing == 0);
        is_exact && is_forgetful && self.asked() > 0
    }

    /// Returns the number of questions that were put to components.
    pub fn asked(&self) -> u64 {
        self.exact.values().map(|exact| exact.questions).sum::<u64>() + self.diverging.questions
    }

    /// Returns the report as JSON, in the shape that `--json` prints.
    pub fn json(&self) -> Json {
        let span = self.span.as_ref();
        json!({
            "exchanges": self.exchanges,
            "first": span.map(|(first, _)| first),
            "last": span.map(|(_, last)| last),
            "questions": self.asked(),
            "took_ms": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
            "good": self.is_good(),
            "incomplete": self.left_out,
            "unreadable": { "exchanges": self.skipped.trails, "why": self.skipped.why },
            "candidate": self.candidate,
            "settings_left_out": self.settings_left_out,
            "revisions": self.exact.iter().map(|(revision, exact)| self.exact_json(revision, exact)).collect::<Vec<_>>(),
            "divergences": (self.diverging.exchanges > 0).then(|| self.diverging_json()),
            "missing": self.missing.iter().map(|(revision, n)| json!({ "revision": revision, "exchanges": n }))
                .collect::<Vec<_>>(),
        })
    }

    fn exact_json(&self, revision: &str, exact: &Exact) -> Json {
        json!({
            "revision": revision,
            "exchanges": exact.exchanges,
            "questions": exact.questions,
            "differing": exact.differing,
            "first_difference": exact.first,
            "failed_again": exact.failed_again,
            "not_compared": { "time": exact.timed, "state": exact.too_much_state },
            "fresh": self.forgetful.get(revision).map(fresh_json),
        })
    }

    fn diverging_json(&self) -> Json {
        let diverging = &self.diverging;
        let group = |(kind, group): (&super::compare::Divergence, &super::summary::Group)| {
            json!({
                "kind": kind.to_string(),
                "exchanges": group.exchanges,
                "share": share(group.exchanges, diverging.exchanges),
                "examples": group.examples,
            })
        };
        let candidate = self.candidate.as_deref().unwrap_or_default();
        json!({
            "recorded": diverging.recorded.iter().map(|(revision, n)| json!({ "revision": revision, "exchanges": n }))
                .collect::<Vec<_>>(),
            "exchanges": diverging.exchanges,
            "questions": diverging.questions,
            "differing": diverging.differing,
            "share": share(diverging.differing, diverging.exchanges),
            "ties": diverging.ties,
            "groups": diverging.by_size().into_iter().map(group).collect::<Vec<_>>(),
            "state_not_recorded": diverging.unrecorded,
            "not_compared": { "time": diverging.timed },
            "fresh": self.forgetful.get(candidate).map(fresh_json),
        })
    }
}

fn fresh_json(forgetful: &Forgetful) -> Json {
    json!({
        "questions": forgetful.questions,
        "differing": forgetful.differing,
        "first_difference": forgetful.first.as_ref().map(|(_, difference)| difference),
    })
}

fn share(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}

fn percent(part: u64, of: u64) -> String {
    format!("{:.2} %", 100.0 * share(part, of))
}

impl fmt::Display for ReplayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (exchanges, asked) = (counted(self.exchanges, "exchange"), counted(self.asked(), "question"));
        let (first, last) = self.span.as_ref().map_or(("", ""), |(first, last)| (first, last));
        writeln!(f, "{exchanges} of {first} to {last}; {asked} asked again in {:.1} s", self.took.as_secs_f64())?;
        for (revision, exact) in &self.exact {
            self.tell_exact(f, revision, exact)?;
        }
        if self.diverging.exchanges > 0 {
            self.tell_diverging(f)?;
        }
        for (revision, exchanges) in &self.missing {
            let exchanges = counted(*exchanges, "exchange");
            writeln!(
                f,
                "\nrevision {revision}: {exchanges} not replayed: its component is not kept any more; give it with --policy FILE"
            )?;
        }
        if self.left_out > 0 {
            let exchanges = counted(self.left_out, "exchange");
            writeln!(f, "\n{exchanges} had more questions than are recorded of one; the later ones are missing")?;
        }
        if self.skipped.trails > 0 {
            let why = self.skipped.why.as_deref().unwrap_or_default();
            writeln!(f, "\n{} could not be read: {why}", counted(self.skipped.trails, "exchange"))?;
        }
        Ok(())
    }
}

impl ReplayReport {
    fn tell_exact(&self, f: &mut fmt::Formatter<'_>, revision: &str, exact: &Exact) -> fmt::Result {
        let (exchanges, questions) = (counted(exact.exchanges, "exchange"), counted(exact.questions, "question"));
        let forgetful = self.forgetful.get(revision);
        write!(f, "\nrevision {revision}, {exchanges}, {questions}: ")?;
        let by_memory = forgetful.is_some_and(|forgetful| forgetful.differing > 0);
        match &exact.first {
            Some(first) => {
                let differing = count(exact.differing);
                writeln!(f, "NON-DETERMINISTIC, {differing} of them answered otherwise now; the first:")?;
                tell(f, first, ["recorded", "now"])?;
            }
            None if by_memory => writeln!(f, "NON-DETERMINISTIC, though it decided the same again")?,
            None => writeln!(f, "the same decisions again, bit for bit")?,
        }
        tell_forgetful(f, forgetful, exact.questions)?;
        if exact.failed_again > 0 {
            writeln!(f, "  {} at which it failed then and failed again", counted(exact.failed_again, "question"))?;
        }
        if exact.timed > 0 {
            let questions = counted(exact.timed, "question");
            writeln!(
                f,
                "  {questions} not compared: a deadline or a shortage decided, which is a matter of the moment"
            )?;
        }
        if exact.too_much_state > 0 {
            let questions = counted(exact.too_much_state, "question");
            writeln!(f, "  {questions} not compared: they used `state` more often than is recorded")?;
        }
        Ok(())
    }

    fn tell_diverging(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let diverging = &self.diverging;
        let candidate = self.candidate.as_deref().unwrap_or_default();
        let of = |(revision, n): (&String, &u64)| format!("{revision} ({})", count(*n));
        let recorded = diverging.recorded.iter().map(of).collect::<Vec<_>>().join(", ");
        let exchanges = counted(diverging.exchanges, "exchange");
        writeln!(f, "\nrevision {candidate} on {exchanges} that were decided by {recorded}:")?;
        let left_out: Vec<String> = self.settings_left_out.iter().cloned().collect();
        if let Some(words) = left_out_words(&left_out) {
            writeln!(f, "  of what was recorded, {words}")?;
        }
        let (differing, share) = (count(diverging.differing), percent(diverging.differing, diverging.exchanges));
        if diverging.differing == 0 {
            writeln!(f, "  it decides and notes the same{}", if diverging.ties > 0 { ", ties apart" } else { "" })?;
        } else {
            writeln!(
                f,
                "  {differing} ({share}) diverge. Only the first decision that differs counts: what followed would have been another history."
            )?;
        }
        if diverging.ties > 0 {
            let ties = counted(diverging.ties, "exchange");
            writeln!(
                f,
                "  {ties} went to another backend that was as good (a tie), which is not counted as a difference."
            )?;
        }
        for (kind, group) in diverging.by_size() {
            let share = percent(group.exchanges, diverging.exchanges);
            writeln!(f, "\n  {kind}: {} ({share})", counted(group.exchanges, "exchange"))?;
            for example in &group.examples {
                tell(f, example, ["recorded", "candidate"])?;
            }
        }
        if diverging.differing + diverging.ties > 0 {
            writeln!(f)?;
        }
        tell_forgetful(f, self.forgetful.get(candidate), diverging.questions)?;
        if diverging.unrecorded > 0 {
            let questions = counted(diverging.unrecorded, "question");
            writeln!(
                f,
                "  {questions} read `state` that was not recorded there; the last value known of it was answered, or nothing"
            )?;
        }
        if diverging.timed > 0 {
            let questions = counted(diverging.timed, "question");
            writeln!(f, "  {questions} not compared: its time was over, which is a matter of the moment")?;
        }
        Ok(())
    }
}

fn tell_forgetful(f: &mut fmt::Formatter<'_>, forgetful: Option<&Forgetful>, asked: u64) -> fmt::Result {
    let Some(forgetful) = forgetful else { return Ok(()) };
    let questions = match forgetful.questions {
        some if some < asked => format!("{} of the questions", count(some)),
        _ => "all of them".to_owned(),
    };
    let Some((_, first)) = &forgetful.first else {
        return writeln!(f, "  {questions} asked of a fresh instance each as well: no difference");
    };
    let differing = count(forgetful.differing);
    writeln!(
        f,
        "  its answers depend on what it remembers in memory, which may vanish: {questions} asked of a fresh instance each,\n  \
         {differing} answered otherwise; the first:"
    )?;
    tell(f, first, ["remembering", "fresh"])
}

fn tell(f: &mut fmt::Formatter<'_>, difference: &Difference, [then, now]: [&str; 2]) -> fmt::Result {
    let place = &difference.place;
    writeln!(f, "    {} of {}, question {}, model {}", place.exchange, place.started, place.question, place.model)?;
    for (name, said) in [(then, &difference.recorded), (now, &difference.now)] {
        writeln!(f, "      {name:<12}{}", said.decision)?;
        // A note that is the same says why; one that differs is the difference.
        said.notes.iter().try_for_each(|note| writeln!(f, "      {:<12}note: {note}", ""))?;
    }
    difference.state.as_ref().map_or(Ok(()), |state| writeln!(f, "      {state}"))
}
