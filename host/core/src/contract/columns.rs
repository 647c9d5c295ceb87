//! The columns of a backend's row, and the words of its state.

/// "No such thing" where the contract has an index or an amount: unlimited, unknown, never.
pub const NONE: u32 = u32::MAX;

/// Makes [`Column`] and what belongs to each column. The SDKs' lists are generated from it (`tests/sdk_lists.rs`).
macro_rules! columns {
    ($($(#[$doc:meta])* $column:ident = $name:literal, unknown: $unknown:expr;)*) => {
        /// A number of a backend's row, as this version knows it. New ones join at the end.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Column {
            $($(#[$doc])* $column,)*
        }

        /// The columns' names, as `configure` tells them.
        pub const COLUMNS: [&str; [$(Column::$column),*].len()] = [$($name),*];

        impl Column {
            /// Every column, in the order of a row.
            pub const ALL: [Column; COLUMNS.len()] = [$(Column::$column),*];

            /// The number that stands for "unknown", in rows that do not have the column.
            pub const fn unknown(self) -> u32 {
                match self {
                    $(Column::$column => $unknown,)*
                }
            }
        }
    };
}

columns! {
    /// State of the backend for the query's model, a [`RowState`].
    State = "state", unknown: NONE;
    /// Milliseconds left of the cooldown; 0 when there is none.
    CooldownMs = "cooldown_ms", unknown: 0;
    /// Cause of the cooldown, or of the one that has to be probed: an index into the outcomes vocabulary; 0
    /// (`answered`) without one.
    CooldownReason = "cooldown_reason", unknown: NONE;
    /// Milliseconds until it could take this request, cooldown and limits taken together; 0 now, `NONE` unknown.
    ReadyMs = "ready_ms", unknown: NONE;
    /// Requests that may go now: under its rpm and burst, and by what the provider said is left; `NONE` unlimited.
    RequestsLeft = "requests_left", unknown: NONE;
    /// Tokens that may go now, likewise; `NONE` unlimited.
    TokensLeft = "tokens_left", unknown: NONE;
    /// Attempts under way.
    InFlight = "in_flight", unknown: 0;
    /// Free slots of its concurrency limit (1 while it is being probed, few while it ramps up); `NONE` unlimited.
    ConcurrencyLeft = "concurrency_left", unknown: NONE;
    /// Moving average of an answer's whole time, in ms; 0 unknown.
    LatencyMs = "latency_ms", unknown: 0;
    /// Moving average of the time to the first content, in ms; 0 unknown.
    FirstTokenMs = "first_token_ms", unknown: 0;
    /// Moving average of the share of failed attempts, in 1/1000.
    ErrorPermille = "error_permille", unknown: 0;
    /// Failures since the last answer.
    Failures = "failures", unknown: 0;
    /// Milliseconds until the emergency lane may use it; 0 now, `NONE` never.
    EmergencyMs = "emergency_ms", unknown: NONE;
    /// Exchanges that wait for a backend of this one's tier and come before the asking one (a new one: all).
    Queued = "queued", unknown: 0;
    /// Things here that the request builds on: 0 none, 1 its session's prompt cache, 2 those that no other backend has.
    Home = "home", unknown: 0;
}

impl Column {
    /// Its name in the contract.
    pub const fn as_str(self) -> &'static str {
        COLUMNS[self as usize]
    }

    /// The column of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.as_str() == name)
    }
}

vocabulary! {
    /// The state of a backend for the model of one query. Its number stands in [`Column::State`]; new ones join at the end.
    #[repr(u32)]
    pub enum RowState {
        /// Would be sent at once.
        Ready = "ready",
        /// A limit is reached; `ready_ms` says when it is not.
        Throttled = "throttled",
        /// In cooldown: nothing is sent but in the emergency lane.
        Cooling = "cooling",
        /// Its cooldown is over and one attempt is finding out whether it is well.
        Probing = "probing",
        /// Taken out by the operator.
        Drained = "drained",
        /// The backend does not serve this model or operation.
        Unsuited = "unsuited",
    }
}

impl RowState {
    /// The state of this number; none for one of a newer version.
    pub fn of(number: u32) -> Option<Self> {
        Self::ALL.get(number as usize).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_has_a_name_at_its_place() {
        assert_eq!(Column::Home as usize, COLUMNS.len() - 1);
        assert_eq!(COLUMNS[Column::EmergencyMs as usize], "emergency_ms");
        assert!(Column::ALL.into_iter().enumerate().all(|(place, column)| column as usize == place));
        assert_eq!(Column::named("ready_ms"), Some(Column::ReadyMs));
        assert_eq!(Column::named("novelty"), None);
    }

    #[test]
    fn every_state_has_its_number() {
        assert!(RowState::ALL.into_iter().all(|state| RowState::of(state as u32) == Some(state)));
        assert_eq!(RowState::of(NONE), None);
    }
}
