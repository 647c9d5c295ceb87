//! TOML with comments, written line by line.

/// The text so far.
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
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.line(&format!("# {text}"));
    }

    /// A key that may have to be quoted, and its value in one line.
    pub(super) fn put(&mut self, key: &str, value: impl Into<::toml::Value>) {
        self.line(&format!("{} = {}", quoted_key(key), value.into()));
    }

    pub(super) fn put_if(&mut self, key: &str, value: impl Into<::toml::Value>, is_worth_it: bool) {
        if is_worth_it {
            self.put(key, value);
        }
    }
}

/// A key as it may stand before a `=`.
pub(super) fn quoted_key(key: &str) -> String {
    let is_bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if is_bare { key.to_owned() } else { ::toml::Value::String(key.to_owned()).to_string() }
}

/// `{ a = 1, b = "x" }`, in this order.
pub(super) fn inline(entries: &[(&str, ::toml::Value)]) -> String {
    let entries: Vec<String> = entries.iter().map(|(key, value)| format!("{} = {value}", quoted_key(key))).collect();
    format!("{{ {} }}", entries.join(", "))
}
