//! LiteLLM's `config.yaml` as a `pointsman.toml`: what has a counterpart is carried over, and comments say of every entry and
//! setting what became of it.

mod entry;
mod fields;
mod merge;
mod providers;
mod report;
mod write;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_saphyr::Spanned;

use super::overlay::Env;
use entry::{Placed, SECONDS, is_seconds, lowest_order, reference};
use fields::{Fields, number};
use merge::Merged;
use report::{ImportReport, Origin};
use write::{put, quoted};

/// The sections beside the list, by the names they are reported by.
const ROUTER: &str = "router_settings.";
const LITELLM: &str = "litellm_settings.";
const GENERAL: &str = "general_settings.";

type Rest = BTreeMap<String, Value>;

#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    model_list: Vec<Entry>,
    router_settings: Rest,
    litellm_settings: Rest,
    general_settings: Rest,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    model_name: String,
    litellm_params: Rest,
    model_info: Rest,
    #[serde(flatten)]
    rest: Rest,
}

/// The same file, for the lines that its entries begin at.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Lines {
    model_list: Vec<Spanned<IgnoredAny>>,
}

/// Converts; the error is one sentence with the place in the YAML. The text parses as a configuration once the
/// variables it names are set.
pub fn import_litellm(yaml: &str, env: &dyn Env) -> Result<String, String> {
    let file: File = serde_saphyr::from_str(yaml)
        .map_err(|error| format!("this is not a LiteLLM configuration: {}", error.without_snippet()))?;
    if file.model_list.is_empty() {
        return Err("there is no model_list in this file".to_owned());
    }
    let lines: Lines = serde_saphyr::from_str(yaml).unwrap_or_default();
    let settings = Fields::new(
        vec![
            (ROUTER, &file.router_settings),
            (LITELLM, &file.litellm_settings),
            (GENERAL, &file.general_settings),
            ("", &file.rest),
        ],
        env,
    );
    let mut import = Import { env, file: &file, settings, report: ImportReport::default(), merged: Merged::default() };
    import.backends(&lines);
    let settings = import.settings();
    Ok(write::file(&import.report.lines, &settings, &import.merged.backends))
}

struct Import<'a> {
    env: &'a dyn Env,
    file: &'a File,
    settings: Fields<'a>,
    report: ImportReport,
    merged: Merged,
}

impl<'a> Import<'a> {
    fn backends(&mut self, lines: &Lines) {
        let placed = self.entries(lines);
        for entry in &placed {
            self.merged.add(entry, &entry.model_name, &entry.read.sent, &mut self.report);
        }
        for (alias, group) in self.aliases() {
            let members = self.members(&placed, &group, &format!("router_settings.model_group_alias {alias:?}"));
            for entry in members {
                self.merged.add(entry, &alias, &named(&entry.read.sent, &alias), &mut self.report);
            }
        }
        for (setting, asked, group) in self.fallbacks() {
            let members = self.members(&placed, &group, &format!("{setting} of {asked:?}"));
            for entry in members {
                let mut entry = entry.clone();
                entry.read.target.tier = "fallback";
                self.merged.add(&entry, &asked, &named(&entry.read.sent, &asked), &mut self.report);
            }
        }
    }

    fn entries(&mut self, lines: &Lines) -> Vec<Placed> {
        let timeout = self.settings.number(&[(ROUTER, "timeout"), (LITELLM, "request_timeout")], SECONDS, is_seconds);
        let mut placed = Vec::new();
        for (index, entry) in self.file.model_list.iter().enumerate() {
            let line = lines.model_list.get(index).map_or(0, |entry| entry.referenced.line());
            let origin = Origin { index, line, model_name: entry.model_name.clone() };
            let lowest = lowest_order(self.file.model_list.iter().filter(|other| other.model_name == entry.model_name));
            match entry::read(entry, lowest, timeout, self.env) {
                Ok(read) => {
                    self.tell_of_order(entry, lowest, &origin);
                    read.remarks.iter().for_each(|remark| self.report.of(&origin, remark));
                    placed.push(Placed { origin, model_name: entry.model_name.clone(), read });
                }
                Err(why) => self.report.of(&origin, format!("not carried over: {why}")),
            }
        }
        placed
    }

    /// There are two tiers, and LiteLLM's order has any number.
    fn tell_of_order(&mut self, entry: &Entry, lowest: Option<f64>, origin: &Origin) {
        let order = number(&entry.litellm_params, "order");
        let others = self.file.model_list.iter().filter(|other| other.model_name == entry.model_name);
        let orders = others.filter_map(|other| number(&other.litellm_params, "order"));
        let second = orders.filter(|order| Some(*order) > lowest).reduce(f64::min);
        if order.is_some() && order > second && second.is_some() {
            self.report.of(
                origin,
                "its litellm_params.order is not kept among the fallbacks, of which the cheapest goes first",
            );
        }
    }

    /// The entries of a group; where there are none, that is told.
    fn members<'p>(&mut self, placed: &'p [Placed], group: &str, wanted_by: &str) -> Vec<&'p Placed> {
        let members: Vec<&Placed> = placed.iter().filter(|entry| entry.model_name == group).collect();
        if members.is_empty() {
            let what = format!("not carried over: no entry of model_list that could be is called {group:?}");
            self.report.setting(wanted_by, what);
        }
        members
    }

    /// Pairs of another name, and the model_name whose entries it stands for.
    fn aliases(&mut self) -> Vec<(String, String)> {
        let mut aliases = Vec::new();
        let Some(all) = self.settings.get(ROUTER, "model_group_alias") else { return aliases };
        let Some(all) = all.as_object() else {
            self.settings.refused(ROUTER, "model_group_alias", "it is no map");
            return aliases;
        };
        self.settings.took(ROUTER, "model_group_alias");
        for (alias, value) in all {
            let group = value.as_str().or_else(|| value.get("model").and_then(Value::as_str));
            match group {
                Some(group) => aliases.push((alias.clone(), group.to_owned())),
                None => {
                    let name = format!("router_settings.model_group_alias {alias:?}");
                    self.report.setting(&name, "not carried over: it names no model");
                }
            }
            if value.get("hidden").is_some_and(|hidden| hidden == true) {
                let name = format!("router_settings.model_group_alias {alias:?}");
                self.report.setting(&name, "hidden is not carried over: /v1/models lists it");
            }
        }
        aliases
    }

    /// The setting, a model name asked for, and the model_name whose entries stand in for it.
    fn fallbacks(&mut self) -> Vec<(String, String, String)> {
        let mut found = Vec::new();
        for section in [ROUTER, LITELLM] {
            for (asked, groups) in self.fallback_lists(section) {
                let name = format!("{section}fallbacks");
                let of = format!("{name} of {asked:?}");
                found.extend(self.groups(&of, groups).into_iter().map(|group| (name.clone(), asked.to_owned(), group)));
            }
            if let Some(groups) = self.settings.get(section, "default_fallbacks") {
                self.settings.took(section, "default_fallbacks");
                let name = format!("{section}default_fallbacks");
                found.extend(self.groups(&name, groups).into_iter().map(|group| (name.clone(), "*".to_owned(), group)));
            }
        }
        found
    }

    /// Each model name of a section's `fallbacks` with what stands in for it: a list of maps, or one map.
    fn fallback_lists(&mut self, section: &str) -> Vec<(&'a str, &'a Value)> {
        let Some(all) = self.settings.get(section, "fallbacks") else { return Vec::new() };
        let maps = match all {
            Value::Array(maps) => maps.as_slice(),
            Value::Object(_) => std::slice::from_ref(all),
            _ => {
                self.settings.refused(section, "fallbacks", "it is no list of maps");
                return Vec::new();
            }
        };
        self.settings.took(section, "fallbacks");
        for index in (0..maps.len()).filter(|index| !maps[*index].is_object()) {
            self.report.setting(&format!("{section}fallbacks[{index}]"), "not carried over: it is no map");
        }
        maps.iter().filter_map(Value::as_object).flatten().map(|(asked, groups)| (asked.as_str(), groups)).collect()
    }

    /// The names in a list of them, or the only one; what else is there is told.
    fn groups(&mut self, wanted_by: &str, groups: &Value) -> Vec<String> {
        let all = match groups {
            Value::Array(all) => all.as_slice(),
            _ => std::slice::from_ref(groups),
        };
        for _ in all.iter().filter(|group| !group.is_string()) {
            self.report.setting(wanted_by, "not carried over: a fallback that is more than a name");
        }
        all.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// Writes the sections beside `[[backend]]`.
    fn settings(&mut self) -> String {
        let mut out = String::new();
        let settings = &mut self.settings;
        let is_count = |n: f64| (0.0..4e9).contains(&n) && n.fract() == 0.0;
        let retries = [(ROUTER, "num_retries"), (LITELLM, "num_retries")];
        if let Some(retries) = settings.number(&retries, "a whole number from 0", is_count) {
            put(&mut out, format_args!("[policy.settings]\nmax_pool_retries = {}\n\n", retries as u64));
        }
        if let Some(key) = settings.text(GENERAL, "master_key") {
            put(&mut out, format_args!("[[client]]\nname = \"master\"\nkey = {}\n\n", quoted(&reference(&key))));
        }
        for (name, why) in settings.left() {
            let key = name.rsplit_once('.').map_or(name.as_str(), |(_, key)| key);
            let why = why.map_or_else(|| instead(key).to_owned(), |why| format!(": {why}"));
            self.report.setting(&name, format!("not carried over{why}"));
        }
        out
    }
}

/// Names Pointsman's equivalent of a LiteLLM setting.
fn instead(setting: &str) -> &'static str {
    match setting {
        "routing_strategy" | "routing_strategy_args" => ": the policy decides",
        "allowed_fails" | "cooldown_time" | "disable_cooldowns" => {
            ": cooldowns follow the provider's answers, see [cooldown]"
        }
        "redis_host" | "redis_port" | "redis_password" | "redis_url" => ": limits are kept by the process itself",
        "database_url" | "store_model_in_db" => ": the record is an SQLite file, see [store]",
        "enable_pre_call_checks" => ": limits are always looked at before sending",
        "context_window_fallbacks" => ": a request that is too long for a backend goes on to the others by itself",
        "drop_params" => ": requests are forwarded as they come",
        _ => "",
    }
}

/// The name that is sent where another is asked for.
fn named(sent: &str, asked: &str) -> String {
    if asked.contains('*') { sent.to_owned() } else { sent.replace('*', asked) }
}

#[cfg(test)]
mod tests;
