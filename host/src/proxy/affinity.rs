//! Backends of sessions and stored things, shared by all exchanges.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pointsman_core::affinity::{Affinity, Home, Learned, key, things_in_request};
use pointsman_core::time::Timestamp;
use pointsman_core::view::View;
use pointsman_store::{HomeRow, StoreHandle};

use super::request::ProxyRequest;

/// The homes of sessions and things, behind a lock.
#[derive(Debug, Default)]
pub struct SharedAffinity {
    homes: Mutex<Affinity>,
    /// The home of any thing is known, so that requests are searched for ids.
    knows_things: AtomicBool,
}

impl SharedAffinity {
    /// Takes over what the last run has recorded; the rows that end last first.
    pub fn restored(now: Timestamp, rows: Vec<HomeRow>) -> Self {
        let mut homes = Affinity::default();
        for HomeRow { key, backend, until_ms } in rows {
            homes.restore_thing(now, key, &Arc::from(backend), Timestamp::from_millis(until_ms));
        }
        let knows_things = homes.knows_things().into();
        Self { homes: Mutex::new(homes), knows_things }
    }

    /// The backend that holds what a request builds on: a thing that it names, else its session's prompt cache.
    pub(super) fn home(&self, now: Timestamp, request: &ProxyRequest, view: &View) -> Option<Home> {
        if view.table.backends.len() < 2 {
            return None;
        }
        let things = match self.knows_things.load(Ordering::Relaxed) {
            true => things_in_request(request.operation, request.own_path(), &request.body),
            false => Vec::new(),
        };
        let session = session_key(request);
        if things.is_empty() && session.is_none() {
            return None;
        }
        let index = |id: &Arc<str>| view.table.backends.iter().position(|backend| backend.id == *id).map(|i| i as u32);
        let homes = self.homes.lock().unwrap_or_else(PoisonError::into_inner);
        let thing = homes.of_things(now, &things).and_then(index);
        let session = || session.and_then(|key| homes.of_session(now, key)).and_then(index);
        let binding = thing.map(|backend| Home { backend, is_binding: true });
        binding.or_else(|| session().map(|backend| Home { backend, is_binding: false }))
    }

    /// Remembers that this backend answers the request's session.
    pub(super) fn answers(&self, now: Timestamp, request: &ProxyRequest, backend: &Arc<str>) {
        if let Some(key) = session_key(request) {
            self.homes.lock().unwrap_or_else(PoisonError::into_inner).remember_session(now, key, backend);
        }
    }

    /// Remembers that this backend has made these things, in the store too.
    pub(super) fn made(&self, now: Timestamp, things: &[Learned], backend: &Arc<str>, store: &StoreHandle) {
        if things.is_empty() {
            return;
        }
        let mut rows = Vec::new();
        {
            let mut homes = self.homes.lock().unwrap_or_else(PoisonError::into_inner);
            for thing in things {
                if let Some(until) = homes.remember_thing(now, *thing, backend) {
                    rows.push(HomeRow { key: thing.key, backend: backend.to_string(), until_ms: until.as_millis() });
                }
            }
        }
        self.knows_things.store(true, Ordering::Relaxed);
        if !rows.is_empty() {
            store.save_homes(rows);
        }
    }
}

/// The key of the prompt cache that a request may find: of its client, session and model. What a client stores has one key, so
/// that its files and what is made of them come together.
fn session_key(request: &ProxyRequest) -> Option<u64> {
    let client = request.client.as_deref().unwrap_or_default();
    if request.operation.is_about_stored_things() {
        return Some(key("stored", format!("{client}\0{}", request.operation.as_str()).as_bytes()));
    }
    if !request.operation.is_read() || request.pinned.is_some() {
        return None;
    }
    let session = request.texts.session.as_deref()?;
    Some(key("session", format!("{client}\0{session}\0{}", request.model).as_bytes()))
}
