//! Time limits that are bets that another backend is faster: they end an attempt only where one can answer.

use std::time::Duration;

/// A time limit that fails over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bet {
    /// No response head has come.
    FirstByte,
    /// No content of a stream.
    FirstToken,
    /// Nothing more of a body.
    Idle,
}

/// A time limit that has passed and ends the attempt only where another backend can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// The limit that has passed.
    pub bet: Bet,
    /// Length of the limit.
    pub limit: Duration,
}

impl Bet {
    /// The setting of its length, under `timeouts`.
    pub const fn setting(self) -> &'static str {
        match self {
            Bet::FirstByte => "first_byte_ms",
            Bet::FirstToken => "first_token_ms",
            Bet::Idle => "idle_ms",
        }
    }

    /// The part of the answer that did not come in time.
    pub const fn missing(self) -> &'static str {
        match self {
            Bet::FirstByte => "no response head",
            Bet::FirstToken => "no first token",
            Bet::Idle => "nothing more of its answer",
        }
    }
}
