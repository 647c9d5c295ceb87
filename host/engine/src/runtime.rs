//! State shared by the instances of one engine.

use std::sync::Arc;

use super::address_space::InstanceCount;
use super::background::BackgroundWorker;
use super::guest::Shared;
use super::idle::IdleInstances;
use super::limits::EngineLimits;
use super::ticker::Ticker;

/// State shared by the revisions of one engine.
pub(crate) struct Runtime {
    pub(crate) limits: EngineLimits,
    pub(crate) instances: Arc<InstanceCount>,
    pub(crate) ticker: Ticker,
    pub(crate) background: BackgroundWorker,
    pub(crate) idle: IdleInstances,
    /// `state` and the fault log of the revisions that are not isolated.
    pub(crate) shared: Arc<Shared>,
}
