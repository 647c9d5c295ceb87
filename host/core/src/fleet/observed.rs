//! A recorded moment that the fleet shows in place of its own state: for simulations of recorded exchanges.

use crate::contract::BackendRow;

/// A recorded moment. While it is in force, the fleet shows and gives what was recorded, whatever it would do by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The rows that a query shows.
    pub rows: Vec<BackendRow>,
    /// The seed that a query carries.
    pub seed: u64,
    /// The backend of which a permit can be had; none: of none.
    pub admits: Option<u32>,
    /// True if a wait can begin: the queue has room, and there is something to wait for.
    pub can_wait: bool,
}

impl Observed {
    /// The backend that a dispatch to `choice` gets a permit of.
    pub(crate) fn admitted(&self, choice: Option<u32>) -> Option<u32> {
        self.admits.filter(|admitted| choice.is_none_or(|named| named == *admitted))
    }
}
