//! `[[backend]]`: ids, addresses, headers, time limits.

use std::collections::{BTreeMap, HashMap};

use http::{HeaderName, HeaderValue, Uri};
use pointsman_core::http::path_template::PathTemplate;
use pointsman_core::http::query::{OwnQuery, decoded};
use pointsman_core::table::{Backend, Dialect, Limits, Table, Tier, Timeouts};

use super::Check;
use super::secrets::is_reference;
use crate::checked::{BackendConfig, HealthCheck};
use crate::defaults;
use crate::raw::{RawBackend, RawDialect, RawHealthCheck, RawQuery, RawTier, RawTimeouts};
use crate::secret::trimmed;
use crate::tree::Path;

/// Headers that belong to the proxy.
const OURS: [&str; 10] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];

/// Models of all backends together: a policy gets to know each of them within a second.
const MAX_MODELS: usize = 15_000;

impl Check<'_, '_> {
    pub(super) fn backends(&mut self, raw: Vec<RawBackend>) -> Vec<BackendConfig> {
        let list = Path::of("backend");
        if raw.is_empty() && !self.tree.refused(&list) {
            let problem = self.report.error(None, "there is no [[backend]]: requests could go nowhere");
            problem.help("add a [[backend]] with an id, a base_url and an api_key; or try `pointsman demo`");
        }
        if raw.len() > Table::MAX_BACKENDS {
            self.error(&list, format!("{} backends are more than {}", raw.len(), Table::MAX_BACKENDS));
            return Vec::new();
        }
        let mut seen: HashMap<String, usize> = HashMap::new();
        let mut backends = Vec::new();
        for (index, raw) in raw.into_iter().enumerate() {
            let at = list.index(index);
            if let Some(first) = raw.id.clone().and_then(|id| seen.insert(id, index)) {
                let message = format!("two backends have the id `{}`", raw.id.as_deref().unwrap_or_default());
                self.duplicate(&list.index(first).key("id"), &at.key("id"), message);
            }
            backends.extend(self.backend(&at, index, raw));
        }
        let models: usize = backends.iter().map(|one: &BackendConfig| one.backend.routes.len()).sum();
        if models > MAX_MODELS {
            self.error(&list, format!("the backends have {models} models, more than {MAX_MODELS}")).help(
                "patterns stand for many: models = [\"gpt-*\", \"*-latest\"]; without `models` a backend serves any",
            );
        }
        backends
    }

    fn backend(&mut self, at: &Path, index: usize, raw: RawBackend) -> Option<BackendConfig> {
        let id = self.name(at, "id", raw.id.as_deref(), &format!("backend number {}", index + 1));
        let owner = id.as_ref().map_or_else(|| format!("backend number {}", index + 1), |id| format!("backend `{id}`"));
        let base_url = match &raw.base_url {
            Some(url) => self.base_url(&at.key("base_url"), url),
            None => {
                let help = "write base_url = \"https://api.example.com/v1\"";
                self.missing(at, "base_url", format!("{owner} has no base_url"), help);
                None
            }
        };
        let api_key = raw.api_key.as_deref().and_then(|text| self.secret(&at.key("api_key"), text, &owner));
        let headers = self.headers(&at.key("headers"), &raw.headers, &owner);
        let has_secrets = api_key.is_some() || headers.iter().any(|(_, value)| value.is_sensitive());
        let address = base_url.clone().unwrap_or_default();
        let outbound = self.outbound(at, &raw, &address, has_secrets, &owner);
        let model_limits = self.model_limits(&at.key("limits"), &raw.limits, &owner);
        let path_template =
            raw.path_template.as_deref().and_then(|text| self.path_template(&at.key("path_template"), text));
        let query = raw.query.map(|query| self.query(&at.key("query"), query, &owner)).unwrap_or_default();
        let backend = Backend {
            id: id.unwrap_or_default().into(),
            tier: raw.tier.map_or(Tier::Primary, tier),
            dialect: raw.dialect.map_or(Dialect::default(), |RawDialect(dialect)| dialect),
            weight: self.at_least(&at.key("weight"), raw.weight, 1, 1),
            limits: Limits {
                burst: self.burst(at, raw.burst, raw.rpm, &owner),
                rpd: self.limit(&at.key("rpd"), raw.rpd),
                tpd: self.limit(&at.key("tpd"), raw.tpd),
                ..self.rate_limits(at, raw.rpm, raw.tpm, raw.max_concurrency)
            },
            model_limits,
            routes: raw.models.map(|models| self.routes(&at.key("models"), models)).unwrap_or_default(),
            prices: self.prices(&at.key("price"), raw.price),
            timeouts: self.timeouts(&at.key("timeouts"), &raw.timeouts),
            labels: raw.labels,
            capabilities: raw.capabilities,
        };
        let health_check =
            raw.health_check.and_then(|check| self.health_check(&at.key("health_check"), check, &backend));
        Some(BackendConfig {
            backend,
            base_url: base_url?,
            path_template,
            query,
            api_key,
            headers,
            outbound,
            stream_options: raw.stream_options,
            empty_answers: raw.empty_answers.unwrap_or(defaults::EMPTY_ANSWERS),
            health_check,
        })
    }

    fn health_check(&mut self, at: &Path, raw: RawHealthCheck, backend: &Backend) -> Option<HealthCheck> {
        let interval = self.millis(&at.key("interval_ms"), raw.interval_ms, defaults::HEALTH_CHECK_INTERVAL_MS, 1_000);
        let timeout = self.millis(&at.key("timeout_ms"), raw.timeout_ms, defaults::HEALTH_CHECK_TIMEOUT_MS, 1);
        let Some(model) = raw.model else {
            self.missing(at, "model", "this health check names no model".to_owned(), "write model = \"...\"");
            return None;
        };
        if !backend.serves(&model) {
            self.error(&at.key("model"), format!("this backend does not serve `{model}`")).help("name one of `models`");
        }
        if backend.dialect.format().conversation().is_none() {
            let dialect = backend.dialect.as_str();
            let problem = self.error(at, format!("a backend of the dialect `{dialect}` cannot be checked"));
            problem.help("a check is a chat; leave health_check out, or name the dialect");
        }
        Some(HealthCheck { interval, timeout, model: model.into() })
    }

    /// A name that can stand in headers, metrics and variables.
    pub(super) fn name(&mut self, at: &Path, key: &str, name: Option<&str>, owner: &str) -> Option<String> {
        const MAX_NAME_CHARS: usize = 64;
        let Some(name) = name else {
            self.missing(
                at,
                key,
                format!("{owner} has no {key}"),
                &format!("write {key} = \"...\", a short name of its own"),
            );
            return None;
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:/@".contains(c);
        if name.is_empty() || name.len() > MAX_NAME_CHARS || !name.chars().all(fits) {
            let problem = self.error(
                &at.key(key),
                format!("`{key}` must be 1 to {MAX_NAME_CHARS} characters of a-z A-Z 0-9 - _ . : / @"),
            );
            problem.help(format!("write a short name such as \"{key}-1\""));
            return None;
        }
        Some(name.to_owned())
    }

    fn base_url(&mut self, at: &Path, text: &str) -> Option<Uri> {
        let text = trimmed(text);
        let mut wrong = |what: &str, help: String| {
            self.error(at, format!("`base_url` {what}")).help(help);
            None
        };
        let bare = text.split("://").last().unwrap_or(text).split(['/', '?', '#']).next().unwrap_or("");
        if !text.starts_with("http://") && !text.starts_with("https://") {
            return wrong(
                "must begin with http:// or https://",
                format!("write \"https://{}\"", without_login(without_scheme(text))),
            );
        }
        if bare.is_empty() {
            return wrong("names no host", "write it as \"https://api.example.com/v1\"".to_owned());
        }
        if bare.contains('@') {
            return wrong("must not hold a user name or password", "put the secret into api_key or headers".to_owned());
        }
        if let Some((before, _)) = text.split_once(['?', '#']) {
            return wrong(
                "must not have a query or fragment",
                format!("write \"{before}\", and the parameters as query = {{ name = \"value\" }}"),
            );
        }
        match text.trim_end_matches('/').parse::<Uri>() {
            Ok(uri) => Some(uri),
            Err(error) => {
                wrong(&format!("is not a URL: {error}"), "write it as \"https://api.example.com/v1\"".to_owned())
            }
        }
    }

    fn path_template(&mut self, at: &Path, text: &str) -> Option<PathTemplate> {
        match PathTemplate::parse(text) {
            Ok(template) => Some(template),
            Err(why) => {
                self.error(at, format!("`path_template` {why}")).help("write it as \"/deployments/{model}/{path}\"");
                None
            }
        }
    }

    fn query(&mut self, at: &Path, raw: RawQuery, owner: &str) -> OwnQuery {
        match raw {
            RawQuery::Text(text) => {
                let pairs = text.trim_start_matches('?').split('&').filter(|pair| !pair.is_empty());
                let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
                let pairs: Vec<_> = pairs.map(|(name, value)| (decoded(name), decoded(value))).collect();
                OwnQuery::new(pairs.iter().map(|(name, value)| (&**name, &**value)))
            }
            RawQuery::Named(named) => {
                let value = |(name, text): (String, String)| {
                    let is_secret = is_reference(&text);
                    let value = match is_secret {
                        true => self.secret(&at.key(&name), &text, owner)?.expose().to_owned(),
                        false => text,
                    };
                    Some((name, value, is_secret))
                };
                let pairs: Vec<(String, String, bool)> = named.into_iter().filter_map(value).collect();
                let mut query = OwnQuery::new(pairs.iter().map(|(name, value, _)| (&**name, &**value)));
                pairs.iter().filter(|pair| pair.2).for_each(|(_, value, _)| query.keep_secret(value));
                query
            }
        }
    }

    fn timeouts(&mut self, at: &Path, raw: &RawTimeouts) -> Timeouts {
        let default = Timeouts::default();
        let mut limit = |key: &str, value: Option<u64>, default: std::time::Duration| {
            value.map_or(default, |ms| self.millis(&at.key(key), Some(ms), 1, 1))
        };
        Timeouts {
            connect: limit("connect_ms", raw.connect_ms, default.connect),
            first_byte: limit("first_byte_ms", raw.first_byte_ms, default.first_byte),
            first_token: limit("first_token_ms", raw.first_token_ms, default.first_token),
            idle: limit("idle_ms", raw.idle_ms, default.idle),
            total: limit("total_ms", raw.total_ms, default.total),
            stream_total: raw.total_ms.map(std::time::Duration::from_millis),
        }
    }

    fn headers(&mut self, at: &Path, raw: &BTreeMap<String, String>, owner: &str) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        for (name, text) in raw {
            let at = at.key(name);
            let Ok(header) = name.parse::<HeaderName>() else {
                self.error(&at, format!("`{name}` is not a header name"));
                continue;
            };
            if OURS.contains(&header.as_str()) {
                self.error(&at, format!("`{name}` is set by the proxy itself")).help("take it out");
                continue;
            }
            let (value, is_secret) = if is_reference(text) {
                (self.secret(&at, text, owner).map(|s| s.expose().to_owned()), true)
            } else {
                (Some(trimmed(text).to_owned()), is_secret_header(header.as_str()))
            };
            match value.map(|value| HeaderValue::from_str(&value)) {
                Some(Ok(mut value)) => {
                    value.set_sensitive(is_secret);
                    headers.push((header, value));
                }
                Some(Err(_)) => {
                    self.error(&at, format!("the value of `{name}` has characters that cannot stand in a header"));
                }
                None => {}
            }
        }
        headers
    }
}

/// Returns true for a header whose value is a secret, by its name.
fn is_secret_header(name: &str) -> bool {
    const WORDS: [&str; 10] =
        ["auth", "credential", "cookie", "jwt", "key", "passw", "secret", "session", "signature", "token"];
    WORDS.iter().any(|word| name.contains(word))
}

/// An address without what stands in the place of its scheme: `https//`, `https:/`, `ftp://`.
fn without_scheme(address: &str) -> &str {
    let end = address.find(['/', '.']).unwrap_or(address.len());
    let scheme = address[..end].trim_end_matches(':');
    let is_scheme = scheme.len() <= 6 && !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphabetic());
    let rest = address[end..].trim_start_matches('/');
    if is_scheme && rest.len() < address.len() - end && !rest.is_empty() && rest.contains(['.', ':']) {
        rest
    } else {
        address.trim_start_matches([':', '/'])
    }
}

/// An address without the user and password before its host.
fn without_login(address: &str) -> &str {
    address.rsplit_once('@').map_or(address, |(_, host)| host)
}

fn tier(raw: RawTier) -> Tier {
    match raw {
        RawTier::Primary => Tier::Primary,
        RawTier::Fallback => Tier::Fallback,
    }
}
