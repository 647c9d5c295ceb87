//! The time of tokio's timers, which tests can pause.

use tokio::time::Instant;

/// The time now, for a deadline or a difference that goes with a timer; every other time is `pointsman_engine::clock`'s.
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
