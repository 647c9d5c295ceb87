//! `[[client]]`: who may send requests, and how many.

use std::collections::HashMap;

use super::Check;
use super::listeners::exhausted_status;
use crate::checked::{Client, Privileges};
use crate::defaults;
use crate::raw::RawClient;
use crate::secret::KeyDigest;
use crate::tree::Path;

/// Clients of a configuration: a request's key is compared with each.
const MAX_CLIENTS: usize = 20_000;

impl Check<'_, '_> {
    pub(super) fn clients(&mut self, raw: Vec<RawClient>) -> Vec<Client> {
        let list = Path::of("client");
        if raw.len() > MAX_CLIENTS {
            self.error(&list.index(MAX_CLIENTS), format!("there are more than {MAX_CLIENTS} clients"));
            return Vec::new();
        }
        let mut names: HashMap<String, usize> = HashMap::new();
        // The operator's own keys, which nobody guesses by the time that it takes to compare them.
        let mut keys: HashMap<[u8; 32], usize> = HashMap::new();
        let mut clients = Vec::new();
        for (index, raw) in raw.into_iter().enumerate() {
            let at = list.index(index);
            if let Some(first) = raw.name.clone().and_then(|name| names.insert(name, index)) {
                let message = format!("two clients have the name `{}`", raw.name.as_deref().unwrap_or_default());
                self.duplicate(&list.index(first).key("name"), &at.key("name"), message);
            }
            let Some(client) = self.client(&at, index, raw) else {
                continue;
            };
            if let Some(first) = keys.insert(client.key.bytes(), index) {
                self.duplicate(
                    &list.index(first).key("key"),
                    &at.key("key"),
                    "two clients have the same key".to_owned(),
                );
            }
            clients.push(client);
        }
        clients
    }

    fn client(&mut self, at: &Path, index: usize, raw: RawClient) -> Option<Client> {
        let owner = format!("client number {}", index + 1);
        let name = self.name(at, "name", raw.name.as_deref(), &owner);
        let owner = name.as_ref().map_or(owner, |name| format!("client `{name}`"));
        let key = match raw.key.as_deref() {
            Some(text) => self.key(&at.key("key"), text, &owner),
            None => {
                let help = "write key = \"sha256:HEX\" (printf %s KEY | sha256sum), or env:NAME";
                self.missing(at, "key", format!("{owner} has no key"), help);
                None
            }
        };
        let models = raw.models.map(|models| {
            let at = at.key("models");
            if models.is_empty() {
                self.error(&at, format!("{owner} could ask for no model")).help("leave `models` out to allow all");
            }
            models.iter().enumerate().filter_map(|(i, text)| self.pattern(&at.index(i), text)).collect()
        });
        let privileges = Privileges {
            priority_max: self.priority_max(at, raw.priority_max),
            labels: raw.labels.map(|names| {
                let at = at.key("labels");
                let pattern = |(i, name): (usize, &String)| self.pattern(&at.index(i), &name.to_ascii_lowercase());
                names.iter().enumerate().filter_map(pattern).collect()
            }),
        };
        Some(Client {
            privileges,
            limits: self.rate_limits(at, raw.rpm, raw.tpm, raw.max_concurrency),
            budget_usd_per_day: self.money(&at.key("budget_usd_per_day"), raw.budget_usd_per_day),
            exhausted_status: raw.exhausted_status.map(exhausted_status),
            free_when_over_budget: raw.free_when_over_budget.unwrap_or(true),
            models,
            name: name?.into(),
            key: key?,
        })
    }

    /// The highest priority of a client's requests, or of those without a key.
    pub(super) fn priority_max(&mut self, at: &Path, raw: Option<i32>) -> i32 {
        let most = raw.unwrap_or(defaults::PRIORITY_MAX);
        if !(-100..=100).contains(&most) {
            self.error(&at.key("priority_max"), format!("`priority_max` must be from -100 to 100, not {most}"));
        }
        most
    }

    fn key(&mut self, at: &Path, text: &str, owner: &str) -> Option<KeyDigest> {
        let Some(hex) = text.strip_prefix("sha256:") else {
            return self.secret(at, text, owner).map(|secret| KeyDigest::of(secret.expose()));
        };
        let digest = KeyDigest::from_hex(hex);
        if digest.is_none() {
            let problem = self.error(at, format!("{owner}: `sha256:` must be followed by 64 hexadecimal digits"));
            problem.help("printf %s KEY | sha256sum prints them");
        }
        digest
    }
}
