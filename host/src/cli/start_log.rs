//! The log lines of a start: who is served from where. A terminal gets the same as a page.

use std::path::Path;

use super::serving::serving;
use crate::serve::Running;
use pointsman_config::{BackendConfig, Config};

/// Logs the backends, where data is kept, and the addresses.
pub(super) fn log_start(config: &Config, config_file: Option<&Path>, running: &Running) {
    config.backends.iter().for_each(log_backend);
    let file = config_file.map(|file| file.display().to_string());
    let store = config.store.path.as_deref().map_or(":memory:".to_owned(), shown);
    tracing::info!(
        addr = %running.addr,
        admin_addr = %running.admin_addr,
        config_file = file,
        store,
        backends = config.backends.len(),
        clients = config.clients.len(),
        "started"
    );
}

fn log_backend(config: &BackendConfig) {
    let backend = &config.backend;
    let limits = backend.limits;
    tracing::info!(
        backend = &*backend.id,
        tier = backend.tier.as_str(),
        dialect = backend.dialect.as_str(),
        host = config.base_url.authority().map(|authority| host(authority.as_str())),
        models = serving(backend),
        rpm = limits.rpm,
        tpm = limits.tpm,
        max_concurrency = limits.max_concurrency,
        "backend configured"
    );
}

/// Without a user and password.
fn host(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// From the root, so that it says where the file is whatever the process's folder was.
fn shown(path: &Path) -> String {
    std::path::absolute(path).as_deref().unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_base_url_is_not_logged() {
        assert_eq!(host("user:secret@example.com:8443"), "example.com:8443");
        assert_eq!(host("example.com"), "example.com");
    }
}
