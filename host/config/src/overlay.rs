//! Settings from the environment, laid over the file's.

use std::sync::Arc;

use toml::de::DeValue;

use super::decode::{nearest, suggestion};
use super::diagnostic::{Problems, Site};
use super::hints;
use super::tree::{Body, Node, Path, Step};

/// Prefix of the variables that override settings.
const PREFIX: &str = "POINTSMAN__";

/// Names of the first generation, and the policy setting each one is.
const SIDECAR: [(&str, &str); 2] =
    [("SIDECAR_PRIMARY_WAIT_MS", "primary_wait_ms"), ("SIDECAR_PRIMARY_WAIT_MAX_RETRIES", "primary_wait_max_retries")];

/// The log level's own variable; it goes before `POINTSMAN__LOG__LEVEL`.
const LOG_LEVEL: &str = "POINTSMAN_LOG";

/// The process environment, or what a test gives for it.
pub trait Env {
    /// One variable; none when it is not set, is empty, or is not text.
    fn var(&self, name: &str) -> Option<String>;
    /// The names of all variables.
    fn names(&self) -> Vec<String>;
}

/// The environment of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnv;

impl Env for ProcessEnv {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }

    fn names(&self) -> Vec<String> {
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
    }
}

/// For tests and for configurations that must not depend on the process: only what the list says.
impl<const N: usize> Env for [(&str, &str); N] {
    fn var(&self, name: &str) -> Option<String> {
        self.iter().find(|(n, value)| *n == name && !value.is_empty()).map(|(_, value)| (*value).to_owned())
    }

    fn names(&self) -> Vec<String> {
        self.iter().map(|(name, _)| (*name).to_owned()).collect()
    }
}

/// Lays every variable of ours over the tree; variables that fit nowhere are reported.
pub(super) fn overlay(tree: &mut Node, env: &dyn Env, report: &mut Problems<'_>) {
    for (name, setting) in SIDECAR {
        if let Some(text) = env.var(name) {
            let path = Path::of("policy").key("settings").key(setting);
            match text.trim().parse::<u32>() {
                Ok(_) => Override { name: name.into(), text }.set(tree, &path, report),
                Err(_) => {
                    let message = format!("`{text}` is not a whole number, 0 or more");
                    let problem = report.error(Some(&Site::Variable(name.into())), message);
                    problem.help(format!("it sets {setting}; write a number, or unset the variable"));
                }
            }
        }
    }
    let mut names = env.names();
    names.sort_unstable();
    for name in names.iter().filter(|name| name.starts_with(PREFIX)) {
        if let Some(text) = env.var(name) {
            let variable = Override { name: name.as_str().into(), text };
            if let Some(path) = variable.path(tree, report) {
                variable.set(tree, &path, report);
            }
        }
    }
    warn_of_near_misses(&names, report);
    if let Some(text) = env.var(LOG_LEVEL) {
        Override { name: LOG_LEVEL.into(), text }.set(tree, &Path::of("log").key("level"), report);
    }
}

/// Variables with single underscores where two belong are read by nobody.
fn warn_of_near_misses(names: &[String], report: &mut Problems<'_>) {
    for name in names {
        let Some(rest) = name.strip_prefix("POINTSMAN_").filter(|rest| !rest.starts_with('_')) else { continue };
        let Some((section, key)) = rest.split_once('_') else { continue };
        let key = key.trim_start_matches('_');
        if !hints::has_key(&section.to_ascii_lowercase(), &key.to_ascii_lowercase()) || report.mentions(name) {
            continue;
        }
        let meant = format!("{PREFIX}{section}__{key}");
        if names.contains(&meant) {
            continue;
        }
        let problem = report.warn(Some(&Site::Variable(name.as_str().into())), "this variable is not read");
        problem.help(format!("did you mean {meant}, with two underscores between its parts?"));
    }
}

struct Override {
    name: Arc<str>,
    text: String,
}

impl Override {
    fn site(&self) -> Site {
        Site::Variable(self.name.clone())
    }

    /// Resolves a variable to a key: `BACKEND__NVIDIA_1__RPM` is `backend[i].rpm` of the one whose id is `nvidia-1`.
    fn path(&self, tree: &Node, report: &mut Problems<'_>) -> Option<Path> {
        let parts: Vec<&str> = self.name[PREFIX.len()..].split("__").collect();
        if parts.len() < 2 || parts.iter().any(|part| part.is_empty()) {
            let problem = report.error(Some(&self.site()), "this names no setting");
            problem.help("write POINTSMAN__SECTION__KEY, as in POINTSMAN__SERVER__LISTEN");
            return None;
        }
        let mut path = Path::default();
        let mut parts = parts.into_iter();
        while let Some(part) = parts.next() {
            path = match (part, path.0.is_empty()) {
                ("BACKEND", true) => self.element(tree, &path.key("backend"), "id", parts.next()?, report)?,
                ("CLIENT", true) => self.element(tree, &path.key("client"), "name", parts.next()?, report)?,
                _ => path.key(&written_like(tree, &path, part)),
            };
        }
        if let Some(Step::Index(_)) = path.0.last() {
            report
                .error(Some(&self.site()), format!("this names {path}, but none of its keys"))
                .help("add __ and a key");
            return None;
        }
        Some(path)
    }

    /// The element of a list whose `field` reads like `part`.
    fn element(&self, tree: &Node, list: &Path, field: &str, part: &str, report: &mut Problems<'_>) -> Option<Path> {
        let names: Vec<(usize, String)> = match tree.find(list).map(|node| &node.body) {
            Some(Body::List(items)) => {
                items.iter().enumerate().filter_map(|(i, n)| Some((i, text_of(n, field)?))).collect()
            }
            Some(Body::Leaf(_) | Body::Table { .. }) | None => Vec::new(),
        };
        let alike: Vec<&(usize, String)> =
            names.iter().filter(|(_, name)| as_variable(name) == as_variable(part)).collect();
        match alike.as_slice() {
            [(index, _)] => Some(list.index(*index)),
            [] => {
                let known: Vec<String> = names.into_iter().map(|(_, name)| name).collect();
                let problem = report.error(Some(&self.site()), format!("there is no {list} with the {field} `{part}`"));
                problem.help(match nearest(part, &known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => suggestion(part, &known, "did you mean"),
                });
                None
            }
            [(_, first), (_, second), ..] => {
                let message = format!("this could mean the {list} `{first}` or `{second}`");
                report.error(Some(&self.site()), message).help("give them ids that differ in more than punctuation");
                None
            }
        }
    }

    fn set(&self, tree: &mut Node, path: &Path, report: &mut Problems<'_>) {
        let mut node = tree;
        for (depth, step) in path.0.iter().enumerate() {
            node = match (&mut node.body, step) {
                (Body::Table { entries, .. }, Step::Key(key)) => {
                    entries.entry(key.clone()).or_insert_with(|| Node::table(Site::Variable(self.name.clone())))
                }
                (Body::List(items), Step::Index(index)) if *index < items.len() => &mut items[*index],
                (Body::Leaf(_) | Body::List(_) | Body::Table { .. }, Step::Key(_) | Step::Index(_)) => {
                    let parent = Path(path.0[..depth].to_vec());
                    report.error(Some(&self.site()), format!("`{parent}` is a value and has no keys"));
                    return;
                }
            };
        }
        *node = self.value(report);
    }

    /// The text as a TOML value where it is one, else as text.
    fn value(&self, report: &mut Problems<'_>) -> Node {
        let site = self.site();
        let mut node = match DeValue::parse(&self.text) {
            Ok(value) => Node::from_toml(&value, &|_| site.clone(), report),
            Err(_) => Node { body: Body::Leaf(toml::Value::String(self.text.clone())), ..Node::table(site.clone()) },
        };
        node.key = Some(site);
        node.spoken = Some(self.text.as_str().into());
        node
    }
}

/// An existing key that reads like `part` once punctuation is forgotten, else the part in lower case.
fn written_like(tree: &Node, table: &Path, part: &str) -> String {
    let keys: Vec<&String> = match tree.find(table).map(|node| &node.body) {
        Some(Body::Table { entries, .. }) => {
            entries.keys().filter(|key| as_variable(key) == as_variable(part)).collect()
        }
        Some(Body::Leaf(_) | Body::List(_)) | None => Vec::new(),
    };
    keys.first().map_or_else(|| part.to_lowercase(), |key| (*key).clone())
}

/// A name as it can stand in a variable's name.
pub(super) fn as_variable(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

fn text_of(node: &Node, field: &str) -> Option<String> {
    match &node.find(&Path::of(field))?.body {
        Body::Leaf(toml::Value::String(text)) => Some(text.clone()),
        Body::Leaf(_) | Body::List(_) | Body::Table { .. } => None,
    }
}
