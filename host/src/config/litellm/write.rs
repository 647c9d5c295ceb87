//! What was read, as the text of a `pointsman.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::entry::{Made, Target};

/// The whole `pointsman.toml`.
pub(super) fn file(notes: &[String], settings: &str, backends: &[Made]) -> String {
    let mut out = String::from("# Converted from a LiteLLM configuration. Check it: pointsman config check FILE\n");
    if !notes.is_empty() {
        out.push_str("#\n# Not carried over:\n");
        for note in notes {
            put(&mut out, format_args!("# - {}\n", note.replace(['\n', '\r'], " ")));
        }
    }
    put(&mut out, format_args!("\n{settings}"));
    let mut ids = BTreeSet::new();
    for made in backends {
        let suffix = if made.target.tier == "fallback" { "-fallback" } else { "" };
        let stem = format!("{}{suffix}", made.target.provider.replace('_', "-"));
        let id = (1..).map(|n| format!("{stem}-{n}")).find(|id| ids.insert(id.clone()));
        made.write(&id.unwrap_or(stem), &mut out);
    }
    out
}

impl Made {
    fn write(&self, id: &str, out: &mut String) {
        let Target { base_url, dialect, api_key, headers, tier, limits, total_ms, .. } = &self.target;
        put(
            out,
            format_args!("[[backend]]\nid = {}\ntier = \"{tier}\"\nbase_url = {}\n", quoted(id), quoted(base_url)),
        );
        put(out, format_args!("dialect = \"{dialect}\"\n"));
        if !api_key.is_empty() {
            put(out, format_args!("api_key = {}\n", quoted(api_key)));
        }
        for (key, value) in limits {
            put(out, format_args!("{key} = {value}\n"));
        }
        if let Some(ms) = total_ms {
            put(out, format_args!("timeouts = {{ total_ms = {ms} }}\n"));
        }
        let pairs = |map: &BTreeMap<String, String>| {
            map.iter().map(|(k, v)| format!("{} = {}", quoted(k), quoted(v))).collect::<Vec<_>>().join(", ")
        };
        if !headers.is_empty() {
            put(out, format_args!("headers = {{ {} }}\n", pairs(headers)));
        }
        put(out, format_args!("models = {{ {} }}\n", pairs(&self.models)));
        for (model, (input, output)) in &self.prices {
            put(out, format_args!("[backend.price.{}]\n", quoted(model)));
            put(out, format_args!("input_per_mtok = {input:?}\noutput_per_mtok = {output:?}\n"));
        }
        out.push('\n');
    }
}

/// As a TOML string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Adds a text.
pub(super) fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string cannot fail");
}
