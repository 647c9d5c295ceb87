//! The life cycle of a policy: what is in force, how it comes and goes, and the names of what happens to it.

mod change;
pub mod component;
mod config_change;
pub mod fault_breaker;
pub mod history;
mod machine;
mod promoting;
pub mod promotion;
mod refusals;
mod refusing;
mod reload;
pub mod shadow;
mod shadow_source;
mod source;
mod upload;

pub use change::{Change, Intent, Superseded};
pub use component::Hash;
pub use config_change::{ConfigChange, ConfigResult, ConfigStep};
pub use machine::{CannotGoBack, Lifecycle, RollbackTarget};
pub use refusals::{Refusal, Requested};
pub use reload::{Reload, Rollback};
pub use shadow_source::{ShadowKey, ShadowSeen, ShadowSource};
pub use source::{SourceSeen, shown};
pub use upload::UploadOptions;

#[cfg(test)]
mod tests;
