//! LiteLLM's `config.yaml` as a `pointsman.toml`: what has a counterpart is carried over, and comments say of every entry and
//! setting what became of it.

mod entry;
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
use entry::{Placed, lowest_order, number, reference, text};
use merge::Merged;
use report::{Origin, Report};
use write::{put, quoted};

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
    let mut import = Import { env, file: &file, report: Report::default(), merged: Merged::default() };
    import.backends(&lines);
    let settings = import.settings();
    Ok(write::file(&import.report.lines, &settings, &import.merged.backends))
}

struct Import<'a> {
    env: &'a dyn Env,
    file: &'a File,
    report: Report,
    merged: Merged,
}

impl Import<'_> {
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
        let timeout = number(&self.file.router_settings, "timeout")
            .or_else(|| number(&self.file.litellm_settings, "request_timeout"));
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
        let all = self.file.router_settings.get("model_group_alias").and_then(Value::as_object).into_iter().flatten();
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
        let sections =
            [("router_settings", &self.file.router_settings), ("litellm_settings", &self.file.litellm_settings)];
        for (section, settings) in sections {
            let name = format!("{section}.fallbacks");
            let lists = settings.get("fallbacks").and_then(Value::as_array).into_iter().flatten();
            for (asked, groups) in lists.filter_map(Value::as_object).flatten() {
                for group in groups.as_array().into_iter().flatten() {
                    match group.as_str() {
                        Some(group) => found.push((name.clone(), asked.clone(), group.to_owned())),
                        None => {
                            let what = "not carried over: a fallback that is more than a name";
                            self.report.setting(&format!("{name} of {asked:?}"), what);
                        }
                    }
                }
            }
            for group in settings.get("default_fallbacks").and_then(Value::as_array).into_iter().flatten() {
                let name = format!("{section}.default_fallbacks");
                found.extend(group.as_str().map(|group| (name, "*".to_owned(), group.to_owned())));
            }
        }
        found
    }

    /// The sections beside `[[backend]]`.
    fn settings(&mut self) -> String {
        let mut out = String::new();
        let file = self.file;
        let retries = number(&file.router_settings, "num_retries").or(number(&file.litellm_settings, "num_retries"));
        if let Some(retries) = retries.filter(|retries| *retries >= 0.0) {
            put(&mut out, format_args!("[policy.settings]\nmax_pool_retries = {}\n\n", retries as u64));
        }
        if let Some(key) = text(&file.general_settings, "master_key") {
            put(&mut out, format_args!("[[client]]\nname = \"master\"\nkey = {}\n\n", quoted(&reference(&key))));
        }
        let carried = [
            "fallbacks",
            "default_fallbacks",
            "num_retries",
            "master_key",
            "model_group_alias",
            "timeout",
            "request_timeout",
        ];
        let sections = [
            ("router_settings.", &file.router_settings),
            ("litellm_settings.", &file.litellm_settings),
            ("general_settings.", &file.general_settings),
            ("", &file.rest),
        ];
        for (section, settings) in sections {
            for key in settings.keys().filter(|key| !carried.contains(&key.as_str())) {
                self.report.setting(&format!("{section}{key}"), format!("not carried over{}", instead(key)));
            }
        }
        out
    }
}

/// What Pointsman has in place of a setting.
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
