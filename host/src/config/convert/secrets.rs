//! Where secrets come from: `env:NAME`, `env:NAME#2`, `file:PATH`, `sealed:...`, or the text itself.

use super::Check;
use crate::config::diagnostic::Site;
use crate::config::tree::{Body, Node, Path, Step};
use crate::seal::SEALED;
use crate::secret::Secret;

/// What a text may begin with that is no secret itself, but leads to one.
const REFERENCES: [&str; 3] = ["env:", "file:", SEALED];

/// Does it lead to a secret, or is it one?
pub(super) fn is_reference(text: &str) -> bool {
    REFERENCES.iter().any(|start| text.starts_with(start))
}

impl Check<'_, '_> {
    /// Resolves what `text` at `at` stands for; `owner` is who needs it ("backend `nvidia-1`").
    pub(super) fn secret(&mut self, at: &Path, text: &str, owner: &str) -> Option<Secret> {
        let value = match text.split_once(':') {
            Some(("env", name)) => self.read_variable(at, name, owner)?,
            Some(("file", path)) => self.read_secret_file(at, path, owner)?,
            Some(("sealed", _)) => {
                let value = self.unsealed(at, text, owner)?;
                return self.usable(at, &value, owner);
            }
            Some(_) | None => self.literal(at, text)?,
        };
        if value.starts_with(SEALED) {
            // It would go out as the key.
            let problem = self.error(at, format!("{owner}: what is found there is itself sealed"));
            problem.help("write the sealed:... text here, in place of the reference");
            return None;
        }
        self.usable(at, value.as_bytes(), owner)
    }

    fn read_variable(&mut self, at: &Path, name: &str, owner: &str) -> Option<String> {
        let (variable, entry) = match name.split_once('#') {
            None => (name, None),
            Some((variable, number)) => match number.parse::<usize>() {
                Ok(number) if number > 0 => (variable, Some(number)),
                Ok(_) | Err(_) => {
                    self.error(at, format!("{owner}: `#` must be followed by a number, 1 or more"));
                    return None;
                }
            },
        };
        let Some(value) = self.env.var(variable) else {
            let part = if matches!(at.0.get(1), Some(Step::Index(_))) {
                format!("[[{}]]", Path(at.0[..1].to_vec()))
            } else {
                "line".to_owned()
            };
            let problem =
                self.error(at, format!("{owner} needs the environment variable {variable}, which is not set"));
            problem.help(format!("export {variable}=..., write \"file:PATH\" instead, or take this {part} out"));
            return None;
        };
        let Some(number) = entry else {
            return Some(value);
        };
        let found = value.split(',').map(str::trim).filter(|v| !v.is_empty()).nth(number - 1).map(str::to_owned);
        if found.is_none() {
            self.error(at, format!("{owner}: {variable} has no entry number {number}"))
                .help("its entries are separated by commas");
        }
        found
    }

    fn read_secret_file(&mut self, at: &Path, path: &str, owner: &str) -> Option<String> {
        match std::fs::read_to_string(self.file(path)) {
            Ok(text) => Some(text.trim().to_owned()),
            Err(error) => {
                let path = self.file(path);
                let problem = self.error(at, format!("{owner}: cannot read {}: {error}", path.display()));
                problem.help("the file must hold the secret and nothing else; relative paths start at the configuration's folder");
                None
            }
        }
    }

    /// A secret in the file itself ends up in backups and in version control.
    fn literal(&mut self, at: &Path, text: &str) -> Option<String> {
        if let Some(Site::File(_)) = self.tree.find(at).map(|node| &node.site)
            && !text.is_empty()
        {
            let problem = self.warn(at, format!("`{}` holds a secret in plain text", at.name()));
            problem.help("write \"env:NAME\" and export NAME, \"file:PATH\", or what `pointsman config seal` prints");
        }
        Some(text.to_owned())
    }

    /// Whatever it is, it must be able to stand in a header.
    fn usable(&mut self, at: &Path, value: &[u8], owner: &str) -> Option<Secret> {
        let unusable = match Secret::for_header(value) {
            Ok(secret) => return Some(secret),
            Err(unusable) => unusable,
        };
        self.error(at, format!("{owner}: the secret {unusable}"));
        None
    }
}

/// Takes the values of secrets out, so that what is left can be hashed and shown. References stay.
pub(super) fn scrub(tree: &mut Node) {
    let lists = [("backend", "api_key"), ("client", "key")];
    for (list, field) in lists {
        for index in 0..length(tree, list) {
            let element = Path::of(list).index(index);
            hide(tree.find_mut(&element.key(field)));
            if let Some(Node { body: Body::Table { entries, .. }, .. }) = tree.find_mut(&element.key("headers")) {
                entries.values_mut().for_each(|node| hide(Some(node)));
            }
        }
    }
    hide(tree.find_mut(&Path::of("admin").key("token")));
    hide(tree.find_mut(&Path::of("secrets").key("key")));
}

fn length(tree: &Node, list: &str) -> usize {
    match tree.find(&Path::of(list)).map(|node| &node.body) {
        Some(Body::List(items)) => items.len(),
        Some(Body::Leaf(_) | Body::Table { .. }) | None => 0,
    }
}

/// Of what is sealed only that it is: the box is the secret in other letters, and in others again whenever the same secret is
/// sealed anew. So a new key of a provider changes the revision as little as it does behind `env:`, and the same one never.
fn hide(node: Option<&mut Node>) {
    if let Some(Node { body: Body::Leaf(value), .. }) = node {
        let kept = match value.as_str() {
            Some(text) if text.starts_with(SEALED) => "sealed:***",
            Some(text) if is_reference(text) => return,
            Some(_) | None => "***",
        };
        *value = toml::Value::String(kept.to_owned());
    }
}
