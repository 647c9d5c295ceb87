//! The columns of a row that this SDK knows, and the numbers of the states: generated from host/core by its test sdk_lists.

use crate::NONE;
use crate::words::State;

/// A number of a backend's row that this SDK knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    State,
    CooldownMs,
    CooldownReason,
    ReadyMs,
    RequestsLeft,
    TokensLeft,
    InFlight,
    ConcurrencyLeft,
    LatencyMs,
    FirstTokenMs,
    ErrorPermille,
    Failures,
    EmergencyMs,
    Queued,
    Home,
}

/// Every column with its name, in the order of the enum.
pub(crate) const COLUMNS: [(Column, &str); 15] = [
    (Column::State, "state"),
    (Column::CooldownMs, "cooldown_ms"),
    (Column::CooldownReason, "cooldown_reason"),
    (Column::ReadyMs, "ready_ms"),
    (Column::RequestsLeft, "requests_left"),
    (Column::TokensLeft, "tokens_left"),
    (Column::InFlight, "in_flight"),
    (Column::ConcurrencyLeft, "concurrency_left"),
    (Column::LatencyMs, "latency_ms"),
    (Column::FirstTokenMs, "first_token_ms"),
    (Column::ErrorPermille, "error_permille"),
    (Column::Failures, "failures"),
    (Column::EmergencyMs, "emergency_ms"),
    (Column::Queued, "queued"),
    (Column::Home, "home"),
];

impl Column {
    /// The number that stands for "unknown" where the host has no such column.
    #[inline]
    pub(crate) const fn unknown(self) -> u32 {
        match self {
            Column::State => NONE,
            Column::CooldownMs => 0,
            Column::CooldownReason => NONE,
            Column::ReadyMs => NONE,
            Column::RequestsLeft => NONE,
            Column::TokensLeft => NONE,
            Column::InFlight => 0,
            Column::ConcurrencyLeft => NONE,
            Column::LatencyMs => 0,
            Column::FirstTokenMs => 0,
            Column::ErrorPermille => 0,
            Column::Failures => 0,
            Column::EmergencyMs => NONE,
            Column::Queued => 0,
            Column::Home => 0,
        }
    }
}

impl State {
    /// The state of this number.
    #[inline]
    pub(crate) const fn of(number: u32) -> Self {
        match number {
            0 => State::Ready,
            1 => State::Throttled,
            2 => State::Cooling,
            3 => State::Probing,
            4 => State::Drained,
            5 => State::Unsuited,
            _ => State::Unknown,
        }
    }
}
