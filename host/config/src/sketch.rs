//! Files that describe a fleet in the words of `pointsman.toml` and add words of their own: the lab's scenarios.
//!
//! Such a file is split in two. What `pointsman.toml` has too goes through the same checks, so that words, defaults and
//! complaints are the same; the rest is read into a type of the caller's.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use toml::Value;

use super::checked::Config;
use super::diagnostic::{ConfigError, Diagnostic, Problems};
use super::raw::RawConfig;
use super::tree::{Body, Node, Path};
use super::{convert, decode};

/// Sections of `pointsman.toml` that a sketch may have, under the same name.
const SECTIONS: [&str; 3] = ["limits", "cooldown", "stream"];

/// Its lists; their elements may have keys of the sketch's own.
const LISTS: [&str; 2] = ["backend", "client"];

/// Key that stands for `[policy.settings]`.
const SETTINGS: &str = "settings";

/// Keys of a sketch's own, by the list they stand in; `""` is the top level.
pub type OwnKeys = [(&'static str, &'static [&'static str])];

/// Says what is wrong with the values of a sketch's own part.
pub struct Complaints<'a, 't> {
    tree: &'a Node,
    report: &'a mut Problems<'t>,
}

impl Complaints<'_, '_> {
    /// Something is wrong at `at`, or at the deepest part of it that the file has.
    pub fn error(&mut self, at: &Path, message: impl Into<String>) -> &mut Diagnostic {
        self.report.error(Some(self.tree.nearest(at)), message)
    }

    /// Something is wrong with the file as a whole.
    pub fn whole(&mut self, message: impl Into<String>) -> &mut Diagnostic {
        self.report.error(None, message)
    }

    /// Returns true if a problem was reported.
    pub fn is_any(&self) -> bool {
        self.report.errors() > 0
    }

    /// Returns true if a problem of the key at `at` was reported.
    pub fn is_told(&self, at: &Path) -> bool {
        self.tree.refused(at)
    }
}

/// Reads a sketch. `own` names the keys that are not `pointsman.toml`'s; `check` turns them into what they mean.
/// Its result counts only when nothing was complained of.
///
/// `base_url`, `api_key` and a client's `key` may be left out: a sketch sends nothing anywhere.
pub fn sketch<T: DeserializeOwned + Default, C>(
    text: &str,
    file_name: &str,
    own: &OwnKeys,
    check: impl FnOnce(T, Config, &mut Complaints<'_, '_>) -> C,
) -> Result<C, ConfigError> {
    let mut report = Problems::new(file_name, text);
    let Some(tree) = Node::parse(text, &mut report) else {
        return Err(report.finish().expect_err("a text without a tree has an error"));
    };
    let (mut ours, mut theirs) = split(tree, own);
    let raw: RawConfig = decode::decode(&mut ours, &mut report, own);
    let config = convert::convert(raw, &ours, &[], std::path::Path::new(""), &mut report);
    let sections: Vec<&str> = SECTIONS.into_iter().chain(LISTS).chain([SETTINGS]).collect();
    let raw: T = decode::decode(&mut theirs, &mut report, &[("", &sections)]);
    let checked = check(raw, config, &mut Complaints { tree: &theirs, report: &mut report });
    report.finish()?;
    Ok(checked)
}

/// The tree as `pointsman.toml` would have it, and what else there is.
fn split(tree: Node, own: &OwnKeys) -> (Node, Node) {
    let (mut ours, mut theirs) = (Node::table(tree.site.clone()), Node::table(tree.site.clone()));
    let Body::Table { entries, .. } = tree.body else { return (ours, theirs) };
    for (name, node) in entries {
        if SECTIONS.contains(&name.as_str()) {
            put(&mut ours, &name, node);
        } else if name == SETTINGS {
            let mut policy = Node::table(node.site.clone());
            put(&mut policy, "settings", node);
            put(&mut ours, "policy", policy);
        } else if LISTS.contains(&name.as_str()) {
            let keys = own.iter().find(|(list, _)| *list == name).map_or(&[][..], |(_, keys)| keys);
            let (mine, other) = split_list(&name, node, keys);
            put(&mut ours, &name, mine);
            other.into_iter().for_each(|other| put(&mut theirs, &name, other));
        } else {
            put(&mut theirs, &name, node);
        }
    }
    (ours, theirs)
}

/// Each table of a list, split. What is no list of tables is complained of as it would be in `pointsman.toml`.
fn split_list(name: &str, mut node: Node, keys: &[&str]) -> (Node, Option<Node>) {
    let Body::List(items) = &mut node.body else { return (node, None) };
    let mut others = Vec::new();
    for (index, item) in items.iter_mut().enumerate() {
        let mut other = Node::table(item.site.clone());
        if let Body::Table { entries, .. } = &mut item.body {
            for key in keys {
                if let Some(value) = entries.remove(*key) {
                    put(&mut other, key, value);
                }
            }
        }
        complete(name, index, item);
        others.push(other);
    }
    let other = Node { body: Body::List(others), ..Node::table(node.site.clone()) };
    (node, Some(other))
}

/// Puts in what `pointsman.toml` cannot do without, and takes out secrets: nothing is sent.
fn complete(list: &str, index: usize, item: &mut Node) {
    let site = item.site.clone();
    let Body::Table { entries, .. } = &mut item.body else { return };
    let text = |text: String| Node { body: Body::Leaf(Value::String(text)), ..Node::table(site.clone()) };
    let fill = |entries: &mut BTreeMap<String, Node>, key: &str, value: String| {
        entries.entry(key.to_owned()).or_insert_with(|| text(value));
    };
    if list == "backend" {
        entries.remove("api_key");
        entries.remove("headers");
        fill(entries, "base_url", "http://nowhere.invalid".to_owned());
    } else {
        entries.remove("key");
        fill(entries, "key", format!("sha256:{:064x}", index + 1));
    }
}

fn put(table: &mut Node, key: &str, node: Node) {
    if let Body::Table { entries, .. } = &mut table.body {
        entries.insert(key.to_owned(), node);
    }
}
