//! What the instances of one engine share.

use std::sync::Arc;

use super::background::BackgroundWorker;
use super::guest::Shared;
use super::idle::IdleInstances;
use super::limits::EngineLimits;
use super::ticker::Ticker;

/// What the revisions of one engine run on.
pub(crate) struct Runtime {
    pub(crate) limits: EngineLimits,
    pub(crate) ticker: Ticker,
    pub(crate) background: BackgroundWorker,
    pub(crate) idle: IdleInstances,
    /// `state` and the fault log of the revisions that are not isolated.
    pub(crate) shared: Arc<Shared>,
}
