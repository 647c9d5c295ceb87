//! Logs, metrics and live events.

pub mod backlog;
pub mod events;
pub mod logs;
pub mod metrics;
mod page;
mod shadow;

mod cells;
mod counted;
mod directory;
mod exposition;
mod instruments;
mod line;
mod live;
mod sink;
pub mod text_format;

use std::sync::Arc;

use pointsman_core::time::Timestamp;

/// Tells the time; the one clock in the server, a fixed value in tests.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;
