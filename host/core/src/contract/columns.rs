//! The numbers of a backend's row.

/// "No such thing" where the contract has an index or an amount.
pub const NONE: u32 = u32::MAX;

/// The numbers of a backend's row, in order. New ones join at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Column {
    /// A [`RowState`].
    State,
    /// Milliseconds left of the cooldown; 0 when there is none.
    CooldownMs,
    /// Why it cools, or has to be probed: an index into the outcomes vocabulary; 0 (`answered`) when neither.
    CooldownReason,
    /// Milliseconds until it could take this request, cooldown and limits taken together; 0 now, `NONE` unknown.
    ReadyMs,
    /// Requests that may go now: under its rpm and burst, and by what the provider said is left; `NONE` unlimited.
    RequestsLeft,
    /// Tokens that may go now, likewise; `NONE` unlimited.
    TokensLeft,
    /// Attempts under way.
    InFlight,
    /// Free slots of its concurrency limit (1 while it is being probed, few while it ramps up); `NONE` unlimited.
    ConcurrencyLeft,
    /// Moving average of an answer's whole time, in ms; 0 unknown.
    LatencyMs,
    /// Moving average of the time to the first content, in ms; 0 unknown.
    FirstTokenMs,
    /// Moving average of the share of failed attempts, in 1/1000.
    ErrorPermille,
    /// Failures since the last answer.
    Failures,
    /// Milliseconds until the emergency lane may use it; 0 now, `NONE` never.
    EmergencyMs,
    /// Exchanges that wait for a backend of this one's tier and come before the asking one (a new one: all).
    Queued,
}

/// How many numbers a row has.
pub const STRIDE: usize = COLUMNS.len();

/// The columns' names, as `configure` tells them.
pub const COLUMNS: [&str; 14] = [
    "state",
    "cooldown_ms",
    "cooldown_reason",
    "ready_ms",
    "requests_left",
    "tokens_left",
    "in_flight",
    "concurrency_left",
    "latency_ms",
    "first_token_ms",
    "error_permille",
    "failures",
    "emergency_ms",
    "queued",
];

/// The state of a backend for the model of one query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RowState {
    /// Would be sent at once.
    Ready = 0,
    /// A limit is reached; `ready_ms` says when it is not.
    Throttled = 1,
    /// In cooldown.
    Cooling = 2,
    /// Its cooldown is over and one attempt is finding out whether it is well.
    Probing = 3,
    /// Taken out by the operator.
    Drained = 4,
    /// Does not serve this model or operation.
    Unsuited = 5,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_has_a_name_at_its_place() {
        assert_eq!(Column::Queued as usize, STRIDE - 1);
        assert_eq!(COLUMNS[Column::EmergencyMs as usize], "emergency_ms");
        assert_eq!(COLUMNS[Column::ReadyMs as usize], "ready_ms");
    }
}
