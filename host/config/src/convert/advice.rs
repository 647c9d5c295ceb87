//! Warnings of a configuration that is taken: what is allowed, and most likely not meant.

mod limits;
mod prices;

use pointsman_core::route_index::RouteIndex;
use pointsman_core::suited::served_models;
use pointsman_core::table::{Backend, Dialect, Pattern, Tier};

use super::Check;
use crate::checked::Config;
use crate::raw::RawConfig;
use crate::tree::Path;

/// Names listed in one warning.
const MAX_LISTED: usize = 5;

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
        let listen = config.server.listen;
        let host = one.base_url.host().unwrap_or_default().trim_matches(['[', ']']).replace("localhost", "127.0.0.1");
        let is_here = |ip: std::net::IpAddr| ip == listen.ip() || (listen.ip().is_unspecified() && ip.is_loopback());
        if listen.port() != 0 && one.base_url.port_u16() == Some(listen.port()) && host.parse().is_ok_and(is_here) {
            self.warn(&at, "this is where Pointsman itself listens: requests would go in circles")
                .help("write the provider's address, or another [server] listen");
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
            if limits
                .iter()
                .all(|limits| limits.rpm.is_none() && limits.tpm.is_none() && limits.max_concurrency.is_none())
            {
                continue;
            }
            let (here, there) = (&one.backend.id, &config.backends[first].backend.id);
            let related = self.report.place(self.tree.nearest(&backend_at(first).key("api_key")));
            let message =
                format!("backends `{there}` and `{here}` have the same key, and limits that are counted apart");
            let problem = self.warn(&backend_at(index).key("api_key"), message);
            problem.label("the same key").related = Some((related, "first here".to_owned()));
            problem.help("the provider counts both together: make them one backend with both their models");
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
            let help = format!(
                "{}; give one of them a name for it, such as models = {{ \"*\" = \"its-cheap-model\" }}",
                serve()
            );
            self.warn(&at, message).label("without a fallback").help(help);
        }
    }
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
