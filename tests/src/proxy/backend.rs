//! One `[[backend]]` of the configuration.

use toml::{Table, Value};

use crate::upstream::Upstream;

/// One `[[backend]]` of the configuration. Its key is `key-of-ID` unless another is set.
#[derive(Clone)]
pub struct Backend(pub(super) Table);

/// Describes a backend.
pub fn backend(id: &str) -> Backend {
    let mut table = Table::new();
    table.insert("id".into(), id.into());
    table.insert("tier".into(), "primary".into());
    table.insert("dialect".into(), "openai".into());
    table.insert("api_key".into(), format!("key-of-{id}").into());
    Backend(table)
}

impl Backend {
    /// A primary served by this upstream.
    pub fn primary(self, upstream: &Upstream) -> Self {
        self.set("tier", "primary").set("base_url", upstream.url())
    }

    /// A fallback served by this upstream.
    pub fn fallback(self, upstream: &Upstream) -> Self {
        self.set("tier", "fallback").set("base_url", upstream.url())
    }

    /// Sets any key, by its dotted path.
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        set_in(&mut self.0, path, value.into());
        self
    }

    /// Requests a minute.
    pub fn rpm(self, rpm: u32) -> Self {
        self.set("rpm", i64::from(rpm))
    }

    /// Requests at a time.
    pub fn max_concurrency(self, n: u32) -> Self {
        self.set("max_concurrency", i64::from(n))
    }

    /// One of `connect_ms`, `first_byte_ms`, `first_token_ms`, `idle_ms`, `total_ms`.
    pub fn timeout(self, name: &str, ms: u64) -> Self {
        self.set(&format!("timeouts.{name}"), ms as i64)
    }

    /// Serves `asked` as `sent`.
    pub fn model(mut self, asked: &str, sent: &str) -> Self {
        let models = self.0.entry("models").or_insert_with(|| Value::Table(Table::new()));
        models.as_table_mut().expect("models is a table").insert(asked.into(), sent.into());
        self
    }

    /// USD per million tokens of the model sent.
    pub fn price(mut self, sent: &str, input: f64, output: f64) -> Self {
        let prices = self.0.entry("price").or_insert_with(|| Value::Table(Table::new()));
        let mut price = Table::new();
        price.insert("input_per_mtok".into(), input.into());
        price.insert("output_per_mtok".into(), output.into());
        prices.as_table_mut().expect("price is a table").insert(sent.into(), Value::Table(price));
        self
    }
}

pub(super) fn set_in(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| Value::Table(Table::new()));
            set_in(inner.as_table_mut().expect("a section is a table"), rest, value);
        }
    }
}
