//! Reasons why no response head arrived, or no connection was made.

use std::time::Duration;

use super::slots::is_own_shortage;

/// The reason why no response head arrived.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No connection: refused, unreachable, unknown name, TLS.
    #[error("cannot connect to {origin}: {reason}")]
    Connect {
        /// Origin of the upstream.
        origin: String,
        /// Cause of the failure.
        reason: String,
    },
    /// No connection within the time limit.
    #[error("no connection to {origin} within {limit:?} (timeouts.connect_ms)")]
    ConnectTimeout {
        /// Origin of the upstream.
        origin: String,
        /// Time limit of the connection attempt.
        limit: Duration,
    },
    /// This process has no descriptor, port or memory left for a connection; the upstream was not asked.
    #[error("Pointsman has no room for another connection: {0}")]
    OwnShortage(String),
    /// The connection broke before the head was there.
    #[error("the connection broke before a response: {reason}")]
    Reset {
        /// Cause of the failure.
        reason: String,
        /// The connection had served before: its end may have crossed the request.
        reused: bool,
    },
    /// The upstream's bytes are not HTTP.
    #[error("the upstream's response is not valid HTTP: {0}")]
    Malformed(String),
}

/// The reason why there is no connection.
pub(super) enum NotMade {
    Failed(String),
    OwnShortage(String),
}

impl NotMade {
    pub(super) fn by(error: &(dyn std::error::Error + 'static)) -> Self {
        let reason = causes(error);
        if is_own_shortage(error) { Self::OwnShortage(reason) } else { Self::Failed(reason) }
    }
}

pub(super) fn broken(error: &hyper::Error, reused: bool) -> SendError {
    let reason = causes(error);
    let from_io = std::error::Error::source(error).and_then(|e| e.downcast_ref::<std::io::Error>());
    // A flood in place of a head is an error of the reader, not of the parser.
    let is_nonsense = error.is_parse() || from_io.is_some_and(|e| e.kind() == std::io::ErrorKind::InvalidData);
    if is_nonsense { SendError::Malformed(reason) } else { SendError::Reset { reason, reused } }
}

/// An error and its causes in one line.
pub(crate) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text = format!("{text}: {next_text}");
        }
        cause = next.source();
    }
    text
}
