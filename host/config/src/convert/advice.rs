//! Warnings of a configuration that is taken: what is allowed, and most likely not meant.

mod limits;
mod prices;

use std::net::IpAddr;

use pointsman_core::route_index::RouteIndex;
use pointsman_core::suited::served_models;
use pointsman_core::table::{Backend, Dialect, Pattern, Route, Tier};

use super::Check;
use crate::checked::{BackendConfig, Config};
use crate::raw::RawConfig;
use crate::tree::Path;

/// Names listed in one warning.
const MAX_LISTED: usize = 5;

/// Ends of host names that lead nowhere beyond one's own network.
const NEAR_DOMAINS: [&str; 6] = [".local", ".localhost", ".internal", ".lan", ".svc", ".home.arpa"];

/// Paths of operations that no dialect has, beside those that dialects have.
const OTHER_OPERATIONS: [&str; 3] = ["/models", "/api/chat", "/api/generate"];

impl Check<'_, '_> {
    /// Warns; only of a configuration without an error, whose lists are as long as the file's.
    pub(super) fn advise(&mut self, config: &Config) {
        for (index, _) in config.backends.iter().enumerate() {
            self.advise_on_address(config, index);
            self.advise_on_prices(config, index);
        }
        self.advise_on_shared_keys(config);
        self.advise_on_names(config);
        self.advise_on_fallbacks(config);
        self.advise_on_budgets(config);
    }

    fn advise_on_address(&mut self, config: &Config, index: usize) {
        let one = &config.backends[index];
        let at = backend_at(index).key("base_url");
        let (url, path) = (one.base_url.to_string(), one.base_url.path());
        let own = Dialect::all().flat_map(|dialect| dialect.format().operations()).map(|(end, _)| *end);
        let operation = own.chain(OTHER_OPERATIONS).find(|operation| path.ends_with(operation));
        if let Some(operation) = operation.filter(|_| !one.backend.dialect.is_opaque()) {
            let base = &url[..url.len() - operation.len()];
            self.warn(&at, format!("`base_url` ends in an operation, {operation}, which is added to it"))
                .label("requests would go to a path with both")
                .help(format!("write \"{base}\""));
        }
        self.advise_on_clear_text(one, &at);
        let listen = config.server.listen;
        let host = one.base_url.host().unwrap_or_default().trim_matches(['[', ']']).replace("localhost", "127.0.0.1");
        let is_here = |ip: std::net::IpAddr| ip == listen.ip() || (listen.ip().is_unspecified() && ip.is_loopback());
        if listen.port() != 0 && one.base_url.port_u16() == Some(listen.port()) && host.parse().is_ok_and(is_here) {
            self.warn(&at, "this is where Pointsman itself listens: requests would go in circles")
                .help("write the provider's address, or another [server] listen");
        }
    }

    /// A key that goes over a network unencrypted is read by whoever carries it.
    fn advise_on_clear_text(&mut self, one: &BackendConfig, at: &Path) {
        let host = one.base_url.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_near = match host.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
            Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
            Err(_) => !host.contains('.') || NEAR_DOMAINS.iter().any(|domain| host.ends_with(domain)),
        };
        if one.api_key.is_some() && one.base_url.scheme_str() == Some("http") && !is_near {
            self.warn(at, format!("the key of `{}` is sent to {host} unencrypted", one.backend.id))
                .help("write https:// if the provider has it, which nearly all have");
        }
    }

    /// Names of models that nothing is served by, so that what is said of them has no effect.
    fn advise_on_names(&mut self, config: &Config) {
        for (index, client) in config.clients.iter().enumerate() {
            let at = Path::of("client").index(index).key("models");
            for (i, pattern) in client.models.iter().flatten().enumerate() {
                let Pattern::Exact(name) = pattern else { continue };
                if !config.backends.iter().any(|one| one.backend.serves(name)) {
                    let message = format!("client `{}` may ask for `{name}`, which no backend serves", client.name);
                    self.warn(&at.index(i), message).help("correct the name, or add it to the `models` of a backend");
                }
            }
        }
        for (index, one) in config.backends.iter().enumerate() {
            let sent: Vec<&str> = served(&one.backend).map(|route| route.sent.as_str()).collect();
            if sent.is_empty() || sent.iter().any(|name| name.contains('*')) {
                continue;
            }
            for key in one.backend.model_limits.keys() {
                let is_sent = Pattern::parse(key).is_none_or(|key| sent.iter().any(|name| key.capture(name).is_some()));
                if !is_sent {
                    let at = backend_at(index).key("limits").key(key);
                    let message = format!("there are limits for `{key}`, which `{}` never sends", one.backend.id);
                    self.warn(&at, message)
                        .help(format!("it sends {}; limits go by the name that is sent", names(&sent)));
                }
            }
        }
    }

    /// One key at one provider is one limit there, however many backends share it.
    fn advise_on_shared_keys(&mut self, config: &Config) {
        for (index, one) in config.backends.iter().enumerate() {
            let is_same = |other: &&crate::BackendConfig| {
                one.api_key.is_some() && other.api_key == one.api_key && other.base_url.host() == one.base_url.host()
            };
            let Some(first) = config.backends[..index].iter().position(|other| is_same(&other)) else { continue };
            let limits = [one.backend.limits, config.backends[first].backend.limits];
            let is_limited = limits
                .iter()
                .any(|limits| limits.rpm.is_some() || limits.tpm.is_some() || limits.max_concurrency.is_some());
            if !is_limited && !is_copy(&config.backends[first], one) {
                continue;
            }
            let (here, there) = (&one.backend.id, &config.backends[first].backend.id);
            let related = self.report.place(self.tree.nearest(&backend_at(first).key("api_key")));
            let (what, help) = match is_limited {
                true => (
                    "limits that are counted apart",
                    "the provider counts both together: make them one backend with both their models",
                ),
                false => (
                    "the same models: what the provider limits is limited for both",
                    "give each a key of its own, such as env:NAME#1 and env:NAME#2, or take one of them out",
                ),
            };
            let message = format!("backends `{there}` and `{here}` have the same key, and {what}");
            let problem = self.warn(&backend_at(index).key("api_key"), message);
            problem.label("the same key").related = Some((related, "first here".to_owned()));
            problem.help(help);
        }
    }

    /// A fallback that cannot serve what its primaries serve is none.
    fn advise_on_fallbacks(&mut self, config: &Config) {
        let backends = || config.backends.iter().map(|one| &one.backend);
        let fallbacks: Vec<&Backend> = backends().filter(|backend| backend.tier == Tier::Fallback).collect();
        if fallbacks.is_empty() {
            return;
        }
        let serve = || {
            let one = |backend: &&Backend| format!("`{}` serves {}", backend.id, served_models(backend));
            fallbacks.iter().take(MAX_LISTED).map(one).collect::<Vec<_>>().join("; ")
        };
        let served: Vec<RouteIndex<'_>> = fallbacks.iter().map(|fallback| RouteIndex::new(fallback)).collect();
        for (index, backend) in backends().enumerate().filter(|(_, backend)| backend.tier == Tier::Primary) {
            let at = backend_at(index).key("models");
            let named =
                backend.routes.iter().filter(|route| route.is_served()).filter_map(|route| match &route.asked {
                    Pattern::Exact(name) => Some(name.as_str()),
                    Pattern::Glob { .. } => None,
                });
            let alone: Vec<&str> = named.filter(|name| !served.iter().any(|fallback| fallback.serves(name))).collect();
            let is_open = backend.routes.iter().all(|route| route.asked.is_any() || !route.is_served());
            let is_covered = |fallback: &&Backend| {
                fallback.routes.is_empty()
                    || fallback.routes.iter().any(|route| route.asked.is_any() && route.is_served())
            };
            let id = &backend.id;
            let message = if !alone.is_empty() {
                let noun = if alone.len() == 1 { "a model" } else { "models" };
                format!("`{id}` serves {noun} that no fallback serves: {}", names(&alone))
            } else if is_open && !fallbacks.iter().any(is_covered) {
                format!("`{id}` serves any model, and no fallback does")
            } else {
                continue;
            };
            let whose = if fallbacks.len() == 1 { format!("`{}`", fallbacks[0].id) } else { "one of them".to_owned() };
            let help = format!(
                "{}; add to the models of {whose} what it is to send instead, such as \"*\" = \"its-cheap-model\"",
                serve()
            );
            self.warn(&at, message).label("without a fallback").help(help);
        }
    }
}

fn served(backend: &Backend) -> impl Iterator<Item = &Route> {
    backend.routes.iter().filter(|route| route.is_served())
}

/// Returns true if both are the same to the provider: at one address, with a model in common.
fn is_copy(one: &BackendConfig, other: &BackendConfig) -> bool {
    let sends =
        |backend: &Backend, name: &str| backend.routes.is_empty() || served(backend).any(|route| route.sent == name);
    let of_one = one.backend.routes.is_empty() || served(&one.backend).any(|route| sends(&other.backend, &route.sent));
    let of_other = other.backend.routes.is_empty();
    one.base_url == other.base_url && one.backend.tier == other.backend.tier && (of_one || of_other)
}

fn backend_at(index: usize) -> Path {
    Path::of("backend").index(index)
}

/// Names, and how many more there are.
fn names(all: &[&str]) -> String {
    let listed: Vec<String> = all.iter().take(MAX_LISTED).map(|name| format!("`{name}`")).collect();
    match all.len().saturating_sub(MAX_LISTED) {
        0 => listed.join(", "),
        more => format!("{} and {more} more", listed.join(", ")),
    }
}

impl Check<'_, '_> {
    /// Warns of limits that contradict one another; only those that are written count.
    pub(super) fn advise_on_limits(&mut self, raw: &RawConfig) {
        limits::contradictions(raw).into_iter().for_each(|found| {
            self.warn(&found.at, found.message).help(found.help);
        });
    }
}
