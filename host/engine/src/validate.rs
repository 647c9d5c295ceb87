//! Checks that a policy's answer is a decision that can be carried out.

use std::time::Duration;

use pointsman_core::contract::{Commit, Decision, Dispatch};
use pointsman_core::table::{Backend, Lane, Table};

/// Texts of a rejection longer than this are refused.
const MAX_REJECTION_BYTES: usize = 10_000;

/// Time limits of a dispatch beyond this are refused.
const MAX_TIME_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Returns the decision if it is valid for this table.
///
/// # Errors
/// The first fault found in it, in a sentence.
pub(crate) fn validate(decision: Decision, table: &Table) -> Result<Decision, String> {
    match &decision {
        Decision::Primary(dispatch) => validate_dispatch(dispatch, Lane::Primary, table)?,
        Decision::Fallback(dispatch) => validate_dispatch(dispatch, Lane::Fallback, table)?,
        Decision::Emergency(dispatch) => validate_dispatch(dispatch, Lane::Emergency, table)?,
        Decision::Wait(hold) if hold.max.is_zero() => {
            return Err("wait of 0 ms: nothing would have changed".to_owned());
        }
        Decision::Wait(_) => {}
        Decision::Reject(rejection) => {
            if rejection.status != 0 && !(400..=599).contains(&rejection.status) {
                return Err(format!("reject with status {}: it must be 0 or 400 to 599", rejection.status));
            }
            let len = rejection.kind.len() + rejection.message.len();
            if len > MAX_REJECTION_BYTES {
                return Err(format!("reject with {len} bytes of text: at most {MAX_REJECTION_BYTES}"));
            }
        }
    }
    Ok(decision)
}

fn validate_dispatch(dispatch: &Dispatch, lane: Lane, table: &Table) -> Result<(), String> {
    if let Some(index) = dispatch.backend {
        let Some(backend) = table.backends.get(index as usize) else {
            let count = table.backends.len();
            return Err(format!("{} to backend {index}: there are only {count}, counted from 0", lane.as_str()));
        };
        if !lane.admits(backend.tier) {
            return Err(format!("{} to backend {}, which is a {}", lane.as_str(), backend.id, backend.tier.as_str()));
        }
    }
    if let Some(model) = dispatch.model {
        validate_model(model, dispatch.backend, lane, table)?;
    }
    for (name, limit) in [
        ("first-byte-ms", dispatch.first_byte),
        ("first-token-ms", dispatch.first_token),
        ("idle-ms", dispatch.idle),
        ("total-ms", dispatch.total),
    ] {
        if limit.is_some_and(|limit| limit.is_zero() || limit > MAX_TIME_LIMIT) {
            return Err(format!("{name} must be 1 to {} ms", MAX_TIME_LIMIT.as_millis()));
        }
    }
    if dispatch.commit == Some(Commit::Tokens(0)) {
        return Err("commit after 0 tokens: write `headers` instead".to_owned());
    }
    Ok(())
}

fn validate_model(model: u32, backend: Option<u32>, lane: Lane, table: &Table) -> Result<(), String> {
    let Some(name) = table.models.get(model as usize) else {
        return Err(format!("model {model}: the table has only {}, counted from 0", table.models.len()));
    };
    let serves = |b: &&Backend| b.sent_model(name).is_some();
    let by = match backend {
        Some(index) => table.backends.get(index as usize).filter(serves),
        None => table.backends.iter().find(|b| lane.admits(b.tier) && serves(b)),
    };
    match by {
        Some(_) => Ok(()),
        None => Err(format!(
            "model {name:?}: the {} asked for does not serve it",
            if backend.is_some() { "backend" } else { "lane" }
        )),
    }
}
