//! The process's limit of file descriptors, raised as far as it may be.

use pointsman_config::{Config, DEFAULT_ADMIN_MAX_CONNECTIONS};
use pointsman_core::descriptors::DescriptorShares;

/// The soft limit where the hard one cannot be had, as on macOS, which refuses more than this (`OPEN_MAX`).
const PORTABLE_LIMIT: u64 = 10_240;

/// A head may be held on every connection of a client: together at most one in so many bytes of the memory for requests,
/// where the configuration says nothing of connections.
const HEADS_OF_MEMORY: u64 = 4;

/// Raises the soft limit to the hard one, and divides it as a configuration asks for.
pub(super) fn divide(config: &Config, memory_bytes: u64) -> DescriptorShares {
    let limit = raise_limit();
    let asked = config.server.max_connections;
    let mut shares = DescriptorShares::of(limit, config.admin.max_connections, asked);
    if asked.is_none() {
        let heads = memory_bytes / HEADS_OF_MEMORY / u64::from(config.server.max_header_bytes);
        shares.downstream = shares.downstream.min(u32::try_from(heads.max(1)).unwrap_or(u32::MAX));
    }
    let DescriptorShares { admin, downstream, upstream } = shares;
    tracing::debug!(limit, admin, downstream, upstream, "file descriptors are divided");
    warn_of_less(limit, "server.max_connections", asked, downstream);
    // As many as there are by default are no more than the operator asked for.
    let asked = Some(config.admin.max_connections).filter(|&asked| asked != DEFAULT_ADMIN_MAX_CONNECTIONS);
    warn_of_less(limit, "admin.max_connections", asked, admin);
    shares
}

/// Warns of a share that is less than was asked for.
fn warn_of_less(limit: u64, setting: &str, asked: Option<u32>, given: u32) {
    if let Some(asked) = asked.filter(|&asked| asked > given) {
        tracing::warn!(
            limit,
            asked,
            given,
            "{setting} is more than the limit of open files allows beside other connections; raise the hard limit \
             (ulimit -Hn, LimitNOFILE=)"
        );
    }
}

/// Returns the soft limit of descriptors, as high as it could be made.
#[cfg(unix)]
fn raise_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    let limits = [before.maximum, Some(PORTABLE_LIMIT)];
    for limit in limits {
        let is_more = match (limit, before.current) {
            (Some(limit), Some(current)) => limit > current,
            (None, current) => current.is_some(),
            (Some(_), None) => false,
        };
        let raised = Rlimit { current: limit, maximum: before.maximum };
        if is_more && setrlimit(Resource::Nofile, raised).is_ok() {
            break;
        }
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(not(unix))]
fn raise_limit() -> u64 {
    PORTABLE_LIMIT
}
