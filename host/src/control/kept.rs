//! The history of policies and their components in the store, for the next start.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use pointsman_core::lifecycle::Hash;
use pointsman_core::lifecycle::history::History;
use pointsman_store::{MAX_POLICY_EVENTS, PolicyEventRow, PolicyStore, StoreError};

use super::component::Component;
use super::rows;

/// Writes the history, and whatever could not be written before.
pub(super) struct HistoryStore {
    policies: PolicyStore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Components of the history that could not be written, for the next time.
    unwritten: Vec<Component>,
    /// The error of the latest try; none: everything is on disk.
    error: Option<String>,
}

impl HistoryStore {
    /// `failed`: the error at the start, and the component that is not written.
    pub(super) fn new(policies: PolicyStore, failed: Option<(String, Component)>) -> Self {
        let state = failed
            .map_or_else(State::default, |(error, component)| State { unwritten: vec![component], error: Some(error) });
        Self { policies, state: Mutex::new(state) }
    }

    /// The error of the latest try to write the history.
    pub(super) fn error(&self) -> Option<String> {
        self.state().error.clone()
    }

    /// Writes the history, and the component that may be new to the store.
    pub(super) async fn save(&self, history: &History, component: Option<&Component>) {
        let mut components = std::mem::take(&mut self.state().unwritten);
        components.extend(component.cloned());
        components.retain(|component| history.find(&component.hash.revision()).is_some());
        let error = save(&self.policies, history, components.clone()).await;
        let mut state = self.state();
        if error.is_some() {
            state.unwritten = components;
        }
        state.error = error;
    }

    /// The component of this hash.
    ///
    /// # Errors
    /// When it is not there, not whole, or SQLite fails.
    pub(super) async fn component(&self, hash: Hash) -> anyhow::Result<Component> {
        component(&self.policies, hash).await
    }

    /// Steps of promotions, the newest first.
    pub(super) fn events(&self) -> Result<Vec<PolicyEventRow>, StoreError> {
        self.policies.events(MAX_POLICY_EVENTS)
    }

    /// The latest step of a promotion.
    pub(super) async fn last_event(&self) -> Option<PolicyEventRow> {
        let policies = self.policies.clone();
        let last = tokio::task::spawn_blocking(move || policies.events(1)).await;
        last.ok()?.ok()?.into_iter().next()
    }

    /// Writes a step of a promotion.
    pub(super) async fn add_event(&self, event: PolicyEventRow) {
        let policies = self.policies.clone();
        let written = tokio::task::spawn_blocking(move || policies.add_event(&event)).await;
        let error = match written {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(panicked) => panicked.to_string(),
        };
        tracing::error!(error, "this step of the promotion could not be written to the store");
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The component of this hash in the store.
pub(super) async fn component(policies: &PolicyStore, hash: Hash) -> anyhow::Result<Component> {
    let policies = policies.clone();
    tokio::task::spawn_blocking(move || {
        let bytes = policies.component(&hash.to_string())?.context("its component is not in the store")?;
        let component = Component::new(bytes.into());
        anyhow::ensure!(component.hash == hash, "its component in the store is damaged");
        Ok(component)
    })
    .await?
}

/// Writes the history and components. Returns the error; none: it is on disk.
pub(super) async fn save(policies: &PolicyStore, history: &History, components: Vec<Component>) -> Option<String> {
    let (policies, rows) = (policies.clone(), rows::from_history(history));
    let components: Vec<_> = components.into_iter().map(|c| (c.hash.to_string(), c.bytes)).collect();
    let saved = tokio::task::spawn_blocking(move || policies.save(&rows, &components)).await;
    let error = saved.map_err(anyhow::Error::from).and_then(|saved| Ok(saved?)).err()?.to_string();
    tracing::error!(error, "the policies are not written to the store: a restart may not come up with this one");
    Some(error)
}
