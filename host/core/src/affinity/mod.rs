//! Affinity: the backend that holds what a request builds on.
//!
//! Things that a provider stores (a response, a file, a batch) and reasoning that only it can decrypt live at the backend that
//! made them: a request that names one is for that backend alone ([`Home::is_binding`]). A session's prompt cache is at the
//! backend that answered it last: it is preferred, and left when it must be. Things are learned from answers, by their ids;
//! sessions are told by clients, or recognised by what coding agents send.

mod background;
mod homes;
mod session;
mod things;

pub use background::{BackgroundResponse, BackgroundResponses};
pub use homes::{Affinity, Learned};
pub(crate) use session::{SESSION_MEMBERS, is_id};
pub use session::{session_in_headers, session_in_user_id};
pub use things::{Learner, response_in_path, things_in_request};

/// The backend that holds what a request builds on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// Its index in the table.
    pub backend: u32,
    /// No other backend could answer.
    pub is_binding: bool,
}

impl Home {
    /// The number of the column `home` for the backend at this index: 0 for any other, 1 for the one that is preferred, 2 for
    /// the only one that can answer.
    pub fn number(home: Option<Self>, index: u32) -> u32 {
        match home {
            Some(home) if home.backend == index => 1 + u32::from(home.is_binding),
            Some(_) | None => 0,
        }
    }
}

/// The words behind the numbers of the column `home`, as the table's attribute of that name tells them.
pub const HOME_WORDS: [&str; 3] = ["none", "preferred", "only"];

/// A key of 64 bits, the same in every build (FNV-1a, 64 bit), of a text within a name space.
pub fn key(space: &str, text: &[u8]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let bytes = space.bytes().chain(std::iter::once(0)).chain(text.iter().copied());
    bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_for_ever_because_it_is_stored() {
        assert_eq!(key("thing", b"resp_1"), 0x7061_66d8_9139_e41f);
        assert_ne!(key("thing", b"a"), key("session", b"a"));
    }

    #[test]
    fn the_number_of_a_home_says_how_much_it_binds() {
        let home = |is_binding| Some(Home { backend: 1, is_binding });
        assert_eq!([Home::number(None, 1), Home::number(home(true), 0)], [0, 0]);
        assert_eq!([Home::number(home(false), 1), Home::number(home(true), 1)], [1, 2]);
        assert_eq!(HOME_WORDS.len(), 3);
    }
}
