//! Decisions and uses of `state` in words.

use std::fmt::Write;
use std::time::Duration;

use pointsman_core::contract::{Commit, Decision, Dispatch, Rejection, Resume};
use pointsman_core::journal::StateUse;
use pointsman_core::table::Table;
use pointsman_core::text::OneLine;

/// Longer texts of a policy are cut here, in bytes.
const MAX_TEXT_BYTES: usize = 200;

/// All of a decision, with the table's names in it.
pub(super) fn of_decision(decision: &Decision, table: &Table) -> String {
    match decision {
        Decision::Primary(dispatch) | Decision::Fallback(dispatch) | Decision::Emergency(dispatch) => {
            format!("{} {}", decision.as_str(), of_dispatch(dispatch, table))
        }
        Decision::Wait(hold) => format!("wait for {}, at most {}", hold.lane.as_str(), in_words(hold.max)),
        Decision::Reject(rejection) => of_rejection(rejection),
    }
}

fn of_dispatch(dispatch: &Dispatch, table: &Table) -> String {
    let backend = match dispatch.backend {
        Some(index) => table.backends.get(index as usize).map_or("?", |backend| &*backend.id),
        None => "(any)",
    };
    let mut told = backend.to_owned();
    if let Some(model) = dispatch.model {
        let name = table.models.get(model as usize).map_or("?", String::as_str);
        let _ = write!(told, " as {name}");
    }
    let limit = |name: &str, limit: Option<Duration>| limit.map(|limit| format!("{name} {}", in_words(limit)));
    let terms = [
        limit("first byte", dispatch.first_byte),
        limit("first token", dispatch.first_token),
        limit("idle", dispatch.idle),
        limit("total", dispatch.total),
        dispatch.commit.map(of_commit),
        dispatch.resume.map(|resume| of_resume(resume).to_owned()),
    ];
    let terms: Vec<String> = terms.into_iter().flatten().collect();
    if !terms.is_empty() {
        let _ = write!(told, " ({})", terms.join(", "));
    }
    told
}

fn of_commit(commit: Commit) -> String {
    match commit {
        Commit::Headers => "commit headers".to_owned(),
        Commit::FirstContent => "commit first-content".to_owned(),
        Commit::Tokens(n) => format!("commit tokens {n}"),
        Commit::Complete => "commit complete".to_owned(),
    }
}

const fn of_resume(resume: Resume) -> &'static str {
    match resume {
        Resume::None => "resume none",
        Resume::Splice => "resume splice",
        Resume::Prefill => "resume prefill",
    }
}

fn of_rejection(Rejection { status, kind, message, retry_after }: &Rejection) -> String {
    if *status == 0 {
        return "reject, in the host's words".to_owned();
    }
    let after = retry_after.map_or(String::new(), |after| format!(", retry after {}", in_words(after)));
    format!("reject {status} {}: {}{after}", on_one_line(kind), on_one_line(message))
}

/// A use of `state`; none: there was no further one.
pub(super) fn of_state(used: Option<&StateUse>) -> String {
    match used {
        None => "no use of it".to_owned(),
        Some(StateUse::Get { key, found: Some(value) }) => format!("get {} = {value}", on_one_line(key)),
        Some(StateUse::Get { key, found: None }) => format!("get {} = nothing", on_one_line(key)),
        Some(StateUse::Set { key, value, ttl_ms }) => {
            format!("set {} to {value}{}", on_one_line(key), of_ttl(*ttl_ms))
        }
        Some(StateUse::Add { key, delta, ttl_ms, sum }) => {
            format!("add {delta} to {} = {sum}{}", on_one_line(key), of_ttl(*ttl_ms))
        }
        Some(StateUse::TooMany) => "more uses than are recorded".to_owned(),
    }
}

fn of_ttl(ttl_ms: u64) -> String {
    if ttl_ms == 0 { String::new() } else { format!(", for {}", in_words(Duration::from_millis(ttl_ms))) }
}

/// Not rounded: what differs must look different.
fn in_words(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}

/// A policy's text as it may stand on a terminal: bounded, and without what ends the line or moves the cursor.
pub(super) fn on_one_line(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_TEXT_BYTES);
    let mut line = OneLine(&text[..end]).to_string();
    if end < text.len() {
        line.push('…');
    }
    line
}

/// Formats a number in groups of three digits: "10,000".
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut told = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            told.push(',');
        }
        told.push(digit);
    }
    told
}

/// "1 question", "2 questions"
pub(super) fn counted(number: u64, what: &str) -> String {
    format!("{} {what}{}", count(number), if number == 1 { "" } else { "s" })
}
