//! Replies to requests that are refused before they are routed.

use std::time::Duration;

use http::header::{AUTHORIZATION, CONNECTION, HOST};
use http::{HeaderValue, Method, StatusCode, Version};
use pointsman_config::Client;
use pointsman_core::clients::ClientDenied;
use pointsman_core::denial::Denial;
use pointsman_core::dialect::envelope::ErrorKind;
use pointsman_core::dialect::request_body::BodyError;
use pointsman_core::http::framing::Fault;
use pointsman_core::http::url;
use pointsman_core::memory_budget::NoRoom;

use super::door::Door;
use super::request_body::{BODY_IDLE, BodyProblem};
use crate::proxy::{OwnError, Reply, Unknown};

/// A request that comes while the proxy ends.
pub(super) fn shutting_down(door: &Door<'_>) -> Reply {
    let message = "Pointsman is shutting down; try again in a moment";
    door.deny(Denial::ShuttingDown, ErrorKind::ShuttingDown, message)
}

/// A body that cannot be used.
pub(super) fn unusable(door: &Door<'_>, error: &BodyError) -> Reply {
    let (denial, kind) = match error {
        BodyError::Ambiguous(_) | BodyError::LongModel | BodyError::Undecodable(_) => {
            (Denial::BadRequest, ErrorKind::InvalidRequest)
        }
        BodyError::TooLarge(_) => (Denial::BodyTooLarge, ErrorKind::BodyTooLarge),
    };
    door.deny(denial, kind, &error.to_string())
}

/// A request whose framing can be read in two ways, or whose head is too large.
pub(super) fn misframed(door: &Door<'_>, fault: Fault) -> Reply {
    let kind = match fault {
        Fault::HeadTooLarge | Fault::TooManyFields => ErrorKind::HeadersTooLarge,
        _ => ErrorKind::InvalidRequest,
    };
    door.deny(Denial::BadRequest, kind, fault.message())
}

/// A request without a known key.
pub(super) fn unidentified(door: &Door<'_>, unknown: Unknown) -> Reply {
    let (denial, message) = match unknown {
        Unknown::Missing => {
            (Denial::MissingKey, "No client key; send one of the keys configured under [[client]] as a bearer token")
        }
        Unknown::Wrong => {
            (Denial::WrongKey, "This client key is not known here; the operator configures keys under [[client]]")
        }
    };
    door.deny(denial, ErrorKind::Unauthorised, message)
}

/// Requests that cannot be put under a backend's base URL.
pub(super) fn unforwardable(head: &http::request::Parts, door: &Door<'_>) -> Option<Reply> {
    let bad = |message| Some(door.deny(Denial::BadRequest, ErrorKind::InvalidRequest, message));
    if head.method == Method::CONNECT || head.uri.path_and_query().is_none_or(|p| !p.as_str().starts_with('/')) {
        return bad("Pointsman forwards requests with a path under its backends' base URLs; this request has none");
    }
    if head.method == Method::TRACE {
        // It would show the backend's key to the client (RFC 9110 section 9.3.8).
        let status = Some(StatusCode::METHOD_NOT_ALLOWED);
        let error = OwnError { status, ..OwnError::new(ErrorKind::InvalidRequest, "TRACE is not forwarded") };
        return Some(door.deny_with(Denial::BadRequest, &error));
    }
    let times = |name| head.headers.get_all(name).iter().count();
    if times(AUTHORIZATION) > 1 || times(HOST) > 1 || (head.version == Version::HTTP_11 && times(HOST) == 0) {
        return bad("The request must have one Host header and at most one Authorization header (RFC 9110)");
    }
    if url::has_dots(head.uri.path()) {
        return bad("The path has a \".\" or \"..\" segment; send the path it stands for");
    }
    None
}

/// A body that was not read to its end, or is larger than `limit` bytes.
pub(super) fn unread(door: &Door<'_>, problem: &BodyProblem, limit: u64) -> Reply {
    let (denial, kind, message) = match problem {
        BodyProblem::NoRoom(no_room) => return without_room(door, *no_room),
        BodyProblem::TooLarge => (
            Denial::BodyTooLarge,
            ErrorKind::BodyTooLarge,
            format!("The request body is larger than {limit} bytes (server.max_body_bytes)"),
        ),
        BodyProblem::Slow => {
            let message = format!("The request body paused for longer than {BODY_IDLE:?}");
            (Denial::BadRequest, ErrorKind::InvalidRequest, message)
        }
        BodyProblem::Broken(why) => {
            (Denial::BadRequest, ErrorKind::InvalidRequest, format!("The request body broke off: {why}"))
        }
    };
    let mut reply = door.deny(denial, kind, &message);
    // The rest of the body is not read, so the connection cannot be used again.
    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    reply
}

/// A request for which there is no memory.
pub(super) fn without_room(door: &Door<'_>, no_room: NoRoom) -> Reply {
    door.count_without_memory();
    let (denial, error) = match no_room {
        NoRoom::Now { retry_after } => {
            let message = "The requests under way hold the memory that this client may use (server.memory_budget_mb); try again later";
            (
                Denial::Memory,
                OwnError { retry_after: Some(retry_after), ..OwnError::new(ErrorKind::Overloaded, message) },
            )
        }
        NoRoom::Ever => {
            let message = "The request takes more memory than there is for large requests (server.memory_budget_mb)";
            (Denial::BodyTooLarge, OwnError::new(ErrorKind::BodyTooLarge, message))
        }
    };
    door.deny_with(denial, &error)
}

/// A request beyond its client's limits.
pub(super) fn over_limit(door: &Door<'_>, client: &Client, denied: ClientDenied) -> Reply {
    let (name, limits) = (&client.name, client.limits);
    let (denial, kind, message, retry_after) = match denied {
        ClientDenied::Rate { retry_after } => {
            let rpm = limits.rpm.map(|rpm| format!("{rpm} requests a minute, client.rpm"));
            let tpm = limits.tpm.map(|tpm| format!("{tpm} tokens a minute, client.tpm"));
            let which: Vec<String> = rpm.into_iter().chain(tpm).collect();
            let message = format!("The key {name:?} has used up its rate limit ({})", which.join("; "));
            (Denial::ClientRate, ErrorKind::RateLimited, message, retry_after)
        }
        ClientDenied::Concurrency => {
            let most = limits.max_concurrency.unwrap_or_default();
            let message =
                format!("The key {name:?} has {most} requests under way, the most it may (client.max_concurrency)");
            (Denial::ClientConcurrency, ErrorKind::RateLimited, message, Duration::from_secs(1))
        }
        ClientDenied::Budget { spent_usd, reserved_usd, retry_after } => {
            let budget = client.budget_usd_per_day.unwrap_or_default();
            let reserved = match spent_usd < budget {
                true => format!(", and {reserved_usd:.4} USD are reserved for its requests under way"),
                false => String::new(),
            };
            let message = format!(
                "The key {name:?} has spent {spent_usd:.4} USD of its {budget} USD for today (client.budget_usd_per_day){reserved}"
            );
            (Denial::ClientBudget, ErrorKind::BudgetExceeded, message, retry_after)
        }
    };
    let error = OwnError { retry_after: Some(retry_after), ..OwnError::new(kind, &message) };
    door.deny_with(denial, &error)
}
