//! The life cycle of a policy: what is in force, how it comes and goes, and the names of what happens to it.

mod change;
pub mod component;
pub mod fault_breaker;
pub mod history;
mod machine;
mod promoting;
pub mod promotion;
mod refusals;
mod refusing;
mod reload;
pub mod shadow;
mod source;
mod upload;

pub use change::{Change, Intent, Superseded};
pub use component::Hash;
pub use machine::{CannotGoBack, Lifecycle, RollbackTarget};
pub use refusals::{Refusal, Requested};
pub use reload::{Reload, Rollback};
pub use source::{SourceSeen, shown};
pub use upload::UploadOptions;

#[cfg(test)]
mod tests;
