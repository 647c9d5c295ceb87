//! The orderly end: no new exchange, a drain with a limit, the rest cut with a word, the last records written.
//!
//! Every step has a limit of its own, so that after the drain's an end takes at most [`AFTER_DRAIN`], whatever hangs;
//! [`Stopping::hurry`] cuts every one of them short.

use std::time::Duration;

use pointsman_store::{Store, StoreError, StoreHandle};
use tokio_util::sync::CancellationToken;

use super::{Running, state_log};
use crate::control::kept_states;
use crate::telemetry::metrics::Totals;

/// The limits of all steps after the drain together, and a little.
const AFTER_DRAIN: Duration = Duration::from_millis(4_700);

/// The same after [`Stopping::hurry`].
pub const AFTER_HURRY: Duration = Duration::from_millis(1_200);

/// After the drain, how long the last bytes may take to leave.
const LAST_BYTES: Duration = Duration::from_millis(500);

/// The same in a hurry: clients that are there are told.
const HURRIED_BYTES: Duration = Duration::from_millis(150);

/// Time for the operator's connections and the background tasks to end.
const LAST_TASKS: Duration = Duration::from_millis(700);

/// Time to write down what the policy did.
const LAST_HISTORY: Duration = Duration::from_millis(700);

/// Time to write the records that wait.
const LAST_RECORDS: Duration = Duration::from_millis(2_500);

/// The same in a hurry.
const HURRIED_RECORDS: Duration = Duration::from_millis(700);

/// An end that has begun.
#[derive(Clone, Default)]
pub struct Stopping {
    hurry: CancellationToken,
}

impl Stopping {
    /// Ends it at once: what is under way is cut, nothing but the last records is waited for.
    pub fn hurry(&self) {
        self.hurry.cancel();
    }

    /// The result of a step, unless it takes longer than its limit or there is a hurry.
    async fn within<T>(&self, limit: Duration, step: impl Future<Output = T>) -> Option<T> {
        self.hurry.run_until_cancelled(tokio::time::timeout(limit, step)).await?.ok()
    }
}

impl Running {
    /// The longest that [`Running::shutdown`] takes.
    pub fn shutdown_limit(&self) -> Duration {
        self.drain_timeout.saturating_add(AFTER_DRAIN)
    }

    /// The side of the record that counts what waits to be written.
    pub fn records(&self) -> StoreHandle {
        self.proxy.store.clone()
    }

    /// Stops accepting, lets exchanges under way finish up to the drain limit, tells those that are left, writes the store.
    ///
    /// # Errors
    /// When records are lost: how many, and why.
    pub async fn shutdown(mut self, stopping: &Stopping) -> Result<(), StoreError> {
        self.proxy.close();
        self.stop.cancel();
        self.drain(stopping).await;
        self.listeners.close();
        // Connections without an exchange have nothing to wait for; a moment lets the last bytes leave.
        if stopping.within(LAST_BYTES, self.listeners.wait()).await.is_none() {
            let _ = tokio::time::timeout(HURRIED_BYTES, self.listeners.wait()).await;
            self.cut.cancel();
        }
        self.over.cancel();
        self.tasks.close();
        stopping.within(LAST_TASKS, self.tasks.wait()).await;
        state_log::report_changes(&self.proxy);
        kept_states::save(&self.proxy);
        // A policy that is being compiled is not waited for: the last records come first.
        stopping.within(LAST_HISTORY, self.control.close()).await;
        let written = match self.store.take() {
            Some(store) => close(store, stopping).await,
            None => Ok(()),
        };
        if let Err(error) = &written {
            tracing::error!(%error, "the last records were not written");
        }
        self.summarise();
        tracing::info!("stopped");
        written
    }

    async fn drain(&self, stopping: &Stopping) {
        let under_way = self.proxy.under_way();
        if under_way > 0 {
            tracing::info!(under_way, limit = ?self.drain_timeout, "draining");
        }
        if stopping.within(self.drain_timeout, self.proxy.drained()).await.is_none() {
            let cut = self.proxy.under_way();
            tracing::warn!(cut, "the drain is over; exchanges still in progress or waiting are told and ended");
        }
        self.proxy.cut.cancel();
    }

    /// Logs the totals in one line.
    fn summarise(&self) {
        let Totals { answered, denied, spent_usd, saved_by_waiting_usd, saved_without_waiting_usd } =
            self.proxy.metrics.totals();
        let saved = match saved_by_waiting_usd {
            Some(usd) => format!("${usd:.4} saved by waiting"),
            None => "what waiting saved is unknown, because no fallback has a price".to_owned(),
        };
        tracing::info!(
            answered,
            denied,
            spent_usd,
            saved_by_waiting_usd,
            saved_without_waiting_usd,
            "since the start: {answered} answers for ${spent_usd:.4}, {saved}"
        );
    }
}

/// Writes what waits; what is not written in time is lost.
async fn close(store: Store, stopping: &Stopping) -> Result<(), StoreError> {
    let records = store.handle();
    let mut closing = tokio::task::spawn_blocking(move || store.close());
    let closed = match stopping.within(LAST_RECORDS, &mut closing).await {
        Some(closed) => Some(closed),
        None => tokio::time::timeout(HURRIED_RECORDS, &mut closing).await.ok(),
    };
    match closed {
        Some(Ok(closed)) => closed,
        Some(Err(panicked)) => Err(lost(&records, panicked.to_string())),
        None => Err(lost(&records, "the store could not be closed in time".to_owned())),
    }
}

fn lost(records: &StoreHandle, reason: String) -> StoreError {
    StoreError::Unwritten { rows: records.unwritten(), reason }
}
