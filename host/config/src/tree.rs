//! The configuration as a tree in which every value knows where it came from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use toml::de::{DeFloat, DeInteger, DeTable, DeValue};
use toml::{Spanned, Value};

use super::diagnostic::{Problems, Site};
use super::text_limits::{self, Excess};

/// One value, its origin, and what is beneath it.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Origin of the value.
    pub(super) site: Site,
    /// Origin of its key.
    pub(super) key: Option<Site>,
    /// Text of the environment variable that the value was read from.
    pub(super) spoken: Option<Arc<str>>,
    pub(super) body: Body,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    /// Text, number, truth or date.
    Leaf(Value),
    List(Vec<Node>),
    /// The names in `refused` stood there too, but were taken out after being reported.
    Table {
        entries: BTreeMap<String, Node>,
        refused: BTreeSet<String>,
    },
}

/// One step down the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Key in a table.
    Key(String),
    /// Index in a list.
    Index(usize),
}

/// The way from the root to a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(pub(super) Vec<Step>);

impl Path {
    /// A key of the top level.
    pub fn of(section: &str) -> Self {
        Self::default().key(section)
    }

    /// Returns the path of a key beneath it.
    pub fn key(&self, key: &str) -> Self {
        self.then(Step::Key(key.to_owned()))
    }

    /// Returns the path of an element of it.
    pub fn index(&self, index: usize) -> Self {
        self.then(Step::Index(index))
    }

    fn then(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }

    /// Returns its last key.
    pub(super) fn name(&self) -> &str {
        self.0
            .iter()
            .rev()
            .find_map(|step| if let Step::Key(key) = step { Some(key.as_str()) } else { None })
            .unwrap_or("")
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if i == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

impl Node {
    /// Reads a text; none when it is not TOML, with every error of that kind told.
    pub(super) fn parse(text: &str, report: &mut Problems<'_>) -> Option<Self> {
        if let Err(Excess { at, words }) = text_limits::check(text) {
            report.error(Some(&Site::File(at..at + 1)), words).help("is this the right file?");
            return None;
        }
        let (table, errors) = DeTable::parse_recoverable(text);
        if let Some((what, help)) = other_format(text).filter(|_| !errors.is_empty()) {
            let site = errors[0].span().map(Site::File);
            report.error(site.as_ref(), format!("this is {what}, and a configuration is TOML")).help(help);
            return None;
        }
        for error in errors.iter().take(Problems::MAX_PROBLEMS) {
            let site = error.span().map(Site::File);
            let (message, label, help) = syntax(text, error.message(), error.span());
            let problem = report.error(site.as_ref(), message).label(label);
            if let Some(help) = help {
                problem.help(help);
            }
        }
        let root = Spanned::new(table.span(), DeValue::Table(table.into_inner()));
        errors.is_empty().then(|| Self::from_toml(&root, &Site::File, report))
    }

    /// Takes over a parsed value; `site` tells where its bytes are.
    pub(super) fn from_toml(
        value: &Spanned<DeValue<'_>>,
        site: &dyn Fn(std::ops::Range<usize>) -> Site,
        report: &mut Problems<'_>,
    ) -> Self {
        let here = site(value.span());
        let body = match value.get_ref() {
            DeValue::String(text) => Body::Leaf(Value::String(text.to_string())),
            DeValue::Integer(number) => Body::Leaf(integer(number, &here, report)),
            DeValue::Float(number) => Body::Leaf(float(number, &here, report)),
            DeValue::Boolean(truth) => Body::Leaf(Value::Boolean(*truth)),
            DeValue::Datetime(date) => Body::Leaf(Value::Datetime(*date)),
            DeValue::Array(list) => Body::List(list.iter().map(|v| Self::from_toml(v, site, report)).collect()),
            DeValue::Table(table) => {
                let mut entries = BTreeMap::new();
                for (key, value) in table.iter() {
                    let mut node = Self::from_toml(value, site, report);
                    node.key = Some(site(key.span()));
                    entries.insert(key.get_ref().to_string(), node);
                }
                Body::Table { entries, refused: BTreeSet::new() }
            }
        };
        Self { site: here, key: None, spoken: None, body }
    }

    /// Creates an empty table.
    pub(super) fn table(site: Site) -> Self {
        Self { site, key: None, spoken: None, body: Body::Table { entries: BTreeMap::new(), refused: BTreeSet::new() } }
    }

    /// Returns the value without origins.
    pub(super) fn to_value(&self) -> Value {
        match &self.body {
            Body::Leaf(value) => value.clone(),
            Body::List(items) => Value::Array(items.iter().map(Node::to_value).collect()),
            Body::Table { entries, .. } => {
                Value::Table(entries.iter().map(|(key, node)| (key.clone(), node.to_value())).collect())
            }
        }
    }

    pub(super) fn find(&self, path: &Path) -> Option<&Node> {
        path.0.iter().try_fold(self, |node, step| node.child(step))
    }

    pub(super) fn find_mut(&mut self, path: &Path) -> Option<&mut Node> {
        path.0.iter().try_fold(self, |node, step| match (&mut node.body, step) {
            (Body::Table { entries, .. }, Step::Key(key)) => entries.get_mut(key),
            (Body::List(items), Step::Index(index)) => items.get_mut(*index),
            (Body::Table { .. } | Body::List(_) | Body::Leaf(_), Step::Key(_) | Step::Index(_)) => None,
        })
    }

    /// Finds the origin of `path`, or of its nearest existing parent.
    pub(super) fn nearest(&self, path: &Path) -> &Site {
        let mut node = self;
        for step in &path.0 {
            match node.child(step) {
                Some(child) => node = child,
                None => break,
            }
        }
        &node.site
    }

    /// Returns true if a value at `path` was reported and removed.
    pub(super) fn refused(&self, path: &Path) -> bool {
        let Some((Step::Key(key), parent)) = path.0.split_last() else {
            return false;
        };
        match self.find(&Path(parent.to_vec())).map(|node| &node.body) {
            Some(Body::Table { refused, .. }) => refused.contains(key),
            Some(Body::Leaf(_) | Body::List(_)) | None => false,
        }
    }

    /// Takes out what stands at `path`, or at the deepest part of it that exists; false when only the root is left.
    pub(super) fn refuse(&mut self, path: &Path) -> bool {
        let mut depth = path.0.len();
        while depth > 0 && self.find(&Path(path.0[..depth].to_vec())).is_none() {
            depth -= 1;
        }
        let Some((last, parent)) = path.0[..depth].split_last() else {
            return false;
        };
        let Some(parent) = self.find_mut(&Path(parent.to_vec())) else {
            return false;
        };
        match (&mut parent.body, last) {
            (Body::Table { entries, refused }, Step::Key(key)) => {
                refused.insert(key.clone());
                entries.remove(key).is_some()
            }
            (Body::List(items), Step::Index(index)) => {
                items.remove(*index);
                true
            }
            (Body::Table { .. } | Body::List(_) | Body::Leaf(_), Step::Key(_) | Step::Index(_)) => false,
        }
    }

    fn child(&self, step: &Step) -> Option<&Node> {
        match (&self.body, step) {
            (Body::Table { entries, .. }, Step::Key(key)) => entries.get(key),
            (Body::List(items), Step::Index(index)) => items.get(*index),
            (Body::Table { .. } | Body::List(_) | Body::Leaf(_), Step::Key(_) | Step::Index(_)) => None,
        }
    }
}

fn integer(number: &DeInteger<'_>, site: &Site, report: &mut Problems<'_>) -> Value {
    match i64::from_str_radix(number.as_str(), number.radix()) {
        Ok(number) => Value::Integer(number),
        Err(_) => {
            report.error(Some(site), "this number is too large").label("more than 64 bits");
            Value::Integer(1)
        }
    }
}

fn float(number: &DeFloat<'_>, site: &Site, report: &mut Problems<'_>) -> Value {
    match number.as_str().parse() {
        Ok(number) => Value::Float(number),
        Err(_) => {
            report.error(Some(site), "this is not a number");
            Value::Float(1.0)
        }
    }
}

/// The format that a text has in place of TOML, and the advice.
fn other_format(text: &str) -> Option<(&'static str, &'static str)> {
    const YAML: &str = "write it as [[backend]] tables; `pointsman config import-litellm FILE` converts LiteLLM's";
    const JSON: &str = "write it as [[backend]] tables with key = value lines, as the README shows";
    let mut lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let first = lines.next()?;
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
    if first.starts_with('{') {
        Some(("JSON", JSON))
    } else if first == "---" || first.starts_with("- ") || first.split_once(':').is_some_and(|(name, _)| is_name(name))
    {
        Some(("YAML", YAML))
    } else {
        None
    }
}

/// A fault of syntax: the message, what stands beneath the quoted words, and the advice.
fn syntax(text: &str, message: &str, span: Option<std::ops::Range<usize>>) -> (String, String, Option<String>) {
    let at = span.map_or(text.len(), |span| text.floor_char_boundary(span.start));
    let rest = text[at..].lines().next().unwrap_or_default().trim();
    if message == "duplicate key" {
        return ("this key stands in the table twice".to_owned(), "the second time".to_owned(), None);
    }
    if rest.starts_with(['\u{201c}', '\u{201d}', '\u{201e}', '\u{2018}', '\u{2019}', '\u{ab}']) {
        let help = "write straight quotation marks: \"...\"".to_owned();
        return ("these quotation marks are not TOML's".to_owned(), "not a straight \"".to_owned(), Some(help));
    }
    let before = text[..at].lines().last().unwrap_or_default().trim_end();
    if rest.is_empty() && before.ends_with('=') {
        return ("there is no value behind the `=`".to_owned(), "a value belongs here".to_owned(), None);
    }
    (message.to_owned(), "this is not TOML".to_owned(), None)
}
