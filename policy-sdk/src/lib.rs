//! The SDK for Pointsman policies in Rust.
//!
//! A policy is one type with two functions: [`Policy::configure`] is told everything that rarely changes,
//! [`Policy::decide`] is asked what to do next with one exchange. [`export!`] makes a component of it.
//!
//! ```
//! use pointsman_sdk::{Choose, Decision, Policy, Query, Roster, Table, Tier};
//!
//! /// Sends everything to the fastest primary that is ready, and waits a second when none is.
//! struct Fastest {
//!     roster: Roster,
//! }
//!
//! impl Policy for Fastest {
//!     fn configure(_settings: &str, table: &Table) -> Result<Self, String> {
//!         Ok(Self { roster: Roster::new(table) })
//!     }
//!
//!     fn decide(&mut self, query: &Query) -> Decision {
//!         let ready = self.roster.candidates(query).of(Tier::Primary).ready().least_tried(query);
//!         match ready.fastest(&query.request, &mut query.dice()) {
//!             Some(candidate) => candidate.send(),
//!             None => Decision::wait_for_primary(1_000),
//!         }
//!     }
//! }
//!
//! pointsman_sdk::export!(Fastest);
//! # fn main() {}
//! ```
//!
//! What there is: [`Roster`] gives the candidates of a query, [`Choose`] narrows them down and chooses, [`Counter`] counts
//! in the host's shared state, [`Window`] knows nights and weekends, [`settings::parse`] reads `[policy.settings]`, and
//! `testing` (not in components) asks a policy in a unit test.
//!
//! The same type runs natively: hand [`Policy::decide`] a [`Query`] inside [`host::scope`], as the host itself does
//! with the default policy when another one fails.

// The generated code names this crate by its name, also from inside it.
#[cfg(target_arch = "wasm32")]
extern crate self as pointsman_sdk;

mod calendar;
mod choose;
mod columns;
mod counter;
mod decision;
mod dice;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod glue;
pub mod host;
mod pick;
mod query;
mod roster;
pub mod settings;
mod table;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod words;

pub use calendar::{LocalTime, TimeOfDay, Weekday, Window, until_midnight_utc_ms};
pub use choose::{Choose, Patience};
pub use counter::Counter;
pub use decision::{Commit, Decision, Dispatch, Hold, Rejection, Resume};
pub use dice::Dice;
pub use host::{Level, Spending, log, note, request, state};
pub use pick::{Load, pool, soonest_ready};
pub use query::{Attempt, Query, Request, Row};
pub use roster::{Candidate, Roster};
pub use table::{Backend, Lane, Layout, Route, Table, TableParts, Tier};
pub use words::{Operation, Outcome, State};

/// "No such thing" where the contract has an index or an amount.
pub const NONE: u32 = u32::MAX;

/// A routing policy.
pub trait Policy: Sized {
    /// Called once per instance: `settings` is `[policy.settings]` as JSON. An error refuses the configuration with
    /// this text, so it should name the setting and what to write instead.
    fn configure(settings: &str, table: &Table) -> Result<Self, String>;

    /// Decides the next step of this exchange. State in `self` is a cache: any instance may be asked, and an
    /// instance may vanish between two questions.
    fn decide(&mut self, query: &Query) -> Decision;
}

/// Makes a component of a type that is a [`Policy`]; on a native target it only checks that it is one.
#[macro_export]
macro_rules! export {
    ($policy:ty) => {
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn(&str, &$crate::Table) -> ::core::result::Result<$policy, ::std::string::String> =
            <$policy as $crate::Policy>::configure;

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Export;

            impl $crate::glue::Slot for Export {
                type Policy = $policy;

                fn with<R>(f: impl FnOnce(&mut Option<$crate::glue::Instance<$policy>>) -> R) -> R {
                    ::std::thread_local! {
                        static SLOT: ::core::cell::RefCell<Option<$crate::glue::Instance<$policy>>> =
                            const { ::core::cell::RefCell::new(None) };
                    }
                    SLOT.with(|slot| f(&mut slot.borrow_mut()))
                }
            }

    $crate::glue::export_component!(Export with_types_in $crate::glue::bindings);
        };
    };
}
