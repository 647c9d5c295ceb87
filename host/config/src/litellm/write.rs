//! Writing the imported settings as a `pointsman.toml`.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::entry::Target;
use super::merge::Made;

/// Writes the whole `pointsman.toml`.
pub(super) fn file(report: &[String], settings: &str, backends: &[Made]) -> String {
    let mut out = String::from("# Converted from a LiteLLM configuration. Check it: pointsman config check FILE\n#\n");
    for line in report {
        put(&mut out, format_args!("# - {}\n", line.replace(['\n', '\r'], " ")));
    }
    put(&mut out, format_args!("\n{settings}"));
    backends.iter().for_each(|made| made.write(&mut out));
    out
}

impl Made {
    fn write(&self, out: &mut String) {
        let Self { id, limits, total_ms, .. } = self;
        let Target { base_url, dialect, api_key, headers, tier, .. } = &self.target;
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

/// Quotes a text as a TOML string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Appends formatted text.
pub(super) fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string cannot fail");
}
