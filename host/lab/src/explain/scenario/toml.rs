//! TOML with comments, written line by line.

use ::toml::Value;
use pointsman_core::text::{OneLine, is_unseen};

/// A TOML file in the making.
#[derive(Debug, Default)]
pub(super) struct Toml(pub(super) String);

impl Toml {
    pub(super) fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    pub(super) fn blank(&mut self) {
        self.0.push('\n');
    }

    /// A comment; what it says stays in its line.
    pub(super) fn comment(&mut self, text: &str) {
        self.line(&format!("# {}", OneLine(text)));
    }

    /// A key that may have to be quoted, and its value in one line.
    pub(super) fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.line(&format!("{} = {}", quoted_key(key), in_one_line(&value.into())));
    }

    pub(super) fn put_if(&mut self, key: &str, value: impl Into<Value>, is_worth_it: bool) {
        if is_worth_it {
            self.put(key, value);
        }
    }
}

/// A key as it may stand before a `=`.
pub(super) fn quoted_key(key: &str) -> String {
    let is_bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if is_bare { key.to_owned() } else { in_one_line(&Value::String(key.to_owned())) }
}

/// A value in one line, also where its texts have several.
fn in_one_line(value: &Value) -> String {
    let plain = value.to_string();
    if !plain.contains(is_unseen) {
        return plain;
    }
    match value {
        // JSON's escapes are TOML's too.
        Value::String(text) => OneLine(&serde_json::Value::from(text.as_str()).to_string()).to_string(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(in_one_line).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Table(members) => {
            let members: Vec<String> =
                members.iter().map(|(key, value)| format!("{} = {}", quoted_key(key), in_one_line(value))).collect();
            format!("{{ {} }}", members.join(", "))
        }
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => plain,
    }
}

/// `{ a = 1, b = "x" }`, in this order.
pub(super) fn inline(entries: &[(&str, Value)]) -> String {
    let entry = |(key, value): &(&str, Value)| format!("{} = {}", quoted_key(key), in_one_line(value));
    let entries: Vec<String> = entries.iter().map(entry).collect();
    format!("{{ {} }}", entries.join(", "))
}
