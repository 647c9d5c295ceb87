//! Sources of secrets: `env:NAME`, `env:NAME#2`, `file:PATH`, `file:PATH#2`, `sealed:...`, or the text itself.

use pointsman_engine::plain_file;
use zeroize::Zeroizing;

use super::Check;
use crate::diagnostic::Site;
use crate::seal::SEALED;
use crate::secret::{Secret, trimmed};
use crate::tree::{Body, Node, Path, Step};

/// Prefixes of texts that refer to a secret instead of being one.
const REFERENCES: [&str; 3] = ["env:", "file:", SEALED];

/// A secret's and a certificate's file is no larger, in bytes.
pub(super) const MAX_FILE_BYTES: u64 = 1 << 20;

/// Returns true if the text refers to a secret instead of being one.
pub(super) fn is_reference(text: &str) -> bool {
    REFERENCES.iter().any(|start| text.starts_with(start))
}

impl Check<'_, '_> {
    /// Resolves what `text` at `at` stands for; `owner` is who needs it ("backend `nvidia-1`").
    pub(super) fn secret(&mut self, at: &Path, text: &str, owner: &str) -> Option<Secret> {
        let value = match text.split_once(':') {
            Some(("env", name)) => self.read_variable(at, name.trim(), owner)?,
            Some(("file", path)) => self.read_secret_file(at, path.trim(), owner)?,
            Some(("sealed", _)) => {
                let value = self.unsealed(at, text, owner)?;
                return self.usable(at, &value, owner);
            }
            Some(_) | None => {
                if variable_meant(trimmed(text)).is_some() {
                    return self.variables_name(at, text, owner);
                }
                self.literal(at, text, owner)?
            }
        };
        if value.starts_with(SEALED) {
            // It would go out as the key.
            let problem = self.error(at, format!("{owner}: what is found there is itself sealed"));
            problem.help("write the sealed:... text here, in place of the reference");
            return None;
        }
        self.usable(at, value.as_bytes(), owner)
    }

    pub(super) fn read_variable(&mut self, at: &Path, name: &str, owner: &str) -> Option<String> {
        let (variable, number) = match name.split_once('#') {
            None => (name, None),
            Some((variable, number)) => (variable, Some(self.number(at, number, owner)?)),
        };
        let Some(value) = self.env.var(variable) else {
            let is_empty = self.env.names().iter().any(|name| name == variable);
            let state = if is_empty { "is empty" } else { "is not set" };
            let like_it = self.env_like(variable);
            let problem = self.error(at, format!("{owner} needs the environment variable {variable}, which {state}"));
            problem.help(match like_it {
                Some(other) => format!("did you mean \"env:{other}\", which is set?"),
                None => format!(
                    "export {variable}=..., write \"file:PATH\" instead, or take this {} out",
                    element(at).unwrap_or_else(|| "line".to_owned())
                ),
            });
            return None;
        };
        let entries = value.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
        // A header's value may be a list of its own; a key holds no comma.
        let is_list = value.contains(',') && !is_header(at);
        let list = List { source: format!("env:{variable}"), entries, is_list, separated: "separated by commas" };
        match number {
            Some(number) => self.entry(at, &list, number, owner),
            None if list.is_list => self.refuse_list(at, &list, owner),
            None => Some(value),
        }
    }

    /// A variable that is set and has nearly this name.
    fn env_like(&self, name: &str) -> Option<String> {
        let plain = |name: &str| name.replace('_', "").to_ascii_uppercase();
        let is_near = |other: &String| {
            other != name && strsim::damerau_levenshtein(&plain(name), &plain(other)) <= usize::from(name.len() >= 8)
        };
        self.env.names().into_iter().find(|other| is_near(other) && self.env.var(other).is_some())
    }

    fn read_secret_file(&mut self, at: &Path, path: &str, owner: &str) -> Option<String> {
        // A file's name may hold a `#` itself.
        let (path, number) = match path.rsplit_once('#') {
            Some((name, number)) if !self.file(path).exists() => (name, Some(self.number(at, number, owner)?)),
            Some(_) | None => (path, None),
        };
        let text = self.read_file(at, path, owner)?;
        let entries: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let is_list = entries.len() > 1;
        let list = List { source: format!("file:{path}"), entries, is_list, separated: "one on each line" };
        match number {
            Some(number) => self.entry(at, &list, number, owner),
            None if list.is_list => self.refuse_list(at, &list, owner),
            None => Some(trimmed(&text).to_owned()),
        }
    }

    /// Reads a file that holds a secret or a certificate, and notes it as one to be watched.
    pub(super) fn read_file(&mut self, at: &Path, path: &str, owner: &str) -> Option<Zeroizing<String>> {
        let path = self.file(path);
        self.files.insert(path.clone());
        match plain_file::read_text(&path, MAX_FILE_BYTES) {
            Ok(text) => Some(Zeroizing::new(text)),
            Err(error) => {
                let problem = self.error(at, format!("{owner}: cannot read {}: {error}", path.display()));
                problem.help("the file must hold the secret and nothing else; relative paths start at the configuration's folder");
                None
            }
        }
    }

    /// Reads the number behind the `#`, the entry of a list counted from 1.
    fn number(&mut self, at: &Path, text: &str, owner: &str) -> Option<usize> {
        let number = text.parse().ok().filter(|number| *number > 0);
        if number.is_none() {
            self.error(at, format!("{owner}: `#` must be followed by a number, 1 or more"));
        }
        number
    }

    fn entry(&mut self, at: &Path, list: &List<'_>, number: usize, owner: &str) -> Option<String> {
        let List { source, entries, separated, .. } = list;
        let found = entries.get(number - 1).map(|entry| (*entry).to_owned());
        if found.is_none() {
            let count = entries.len();
            let problem = self.error(at, format!("{owner}: {source} has no entry number {number}, it has {count}"));
            problem.help(format!("entries stand {separated}"));
        }
        found
    }

    /// Several keys would go out as one, and the provider would refuse it.
    fn refuse_list(&mut self, at: &Path, list: &List<'_>, owner: &str) -> Option<String> {
        let List { source, entries, separated, .. } = list;
        let count = entries.len();
        let help = match (element(at), count) {
            (Some(element), 2..) => format!(
                "write \"{source}#1\" here, and a {element} of its own for each other key: \"{source}#2\"{}",
                if count > 2 { format!(" to \"{source}#{count}\"") } else { String::new() }
            ),
            (Some(_) | None, _) => format!("write \"{source}#1\" for the first"),
        };
        let keys = if count == 1 { "key" } else { "keys" };
        let message = format!("{owner}: {source} holds a list of {count} {keys}, {separated}, and not one key");
        self.error(at, message).help(help);
        None
    }

    /// A key that is written in the manner of a variable's name; it is sent as it stands.
    fn variables_name(&mut self, at: &Path, text: &str, owner: &str) -> Option<Secret> {
        if let Some(variable) = variable_meant(trimmed(text)) {
            let problem = self.warn(at, format!("{owner}: the key is a variable's name, and is sent as it stands"));
            problem.help(format!("did you mean \"env:{variable}\"?"));
        }
        Secret::for_header(text.as_bytes()).ok()
    }

    /// A secret in the file itself ends up in backups and in version control.
    fn literal(&mut self, at: &Path, text: &str, owner: &str) -> Option<String> {
        if at.name() == "api_key" && text.contains(',') {
            let problem = self.error(at, format!("{owner}: this is a list, and a backend has one key"));
            problem
                .help("export NAME=KEY,KEY and write \"env:NAME#1\" here, \"env:NAME#2\" in a [[backend]] of its own");
            return None;
        }
        if let Some(Site::File(_)) = self.tree.find(at).map(|node| &node.site)
            && !text.is_empty()
            && !is_placeholder(text)
        {
            let problem = self.warn(at, format!("`{}` holds a secret in plain text", at.name()));
            problem.help("write \"env:NAME\" and export NAME, \"file:PATH\", or what `pointsman config seal` prints");
        }
        Some(text.to_owned())
    }

    /// Checks that the value can stand in a header.
    fn usable(&mut self, at: &Path, value: &[u8], owner: &str) -> Option<Secret> {
        let unusable = match Secret::for_header(value) {
            Ok(secret) => {
                if !is_header(at)
                    && let Some((fault, help)) = fault_of_key(secret.expose())
                {
                    self.warn(at, format!("{owner}: the key {fault}")).help(help);
                }
                return Some(secret);
            }
            Err(unusable) => unusable,
        };
        let problem = self.error(at, format!("{owner}: the secret {unusable}"));
        problem.help("one key belongs here; of a list separated by commas, env:NAME#1 is the first");
        None
    }
}

/// A likely mistake in a key that can be sent, and the advice.
fn fault_of_key(key: &str) -> Option<(&'static str, &'static str)> {
    let is_quoted = |quote: char| key.len() > 1 && key.starts_with(quote) && key.ends_with(quote);
    let has_scheme = ["bearer ", "basic ", "token "]
        .iter()
        .any(|scheme| key.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    if is_placeholder(key) {
        Some(("is a placeholder, and no key", "put the provider's key in its place"))
    } else if ['"', '\'', '`'].into_iter().any(is_quoted) {
        Some(("is in quotation marks, which are sent as a part of it", "take them out where the key comes from"))
    } else if has_scheme {
        let help = "leave the word out: Pointsman writes it where the provider wants it";
        Some(("begins with the word of a scheme, such as Bearer", help))
    } else if is_assignment(key) {
        let help = "leave NAME= out: the file must hold the key and nothing else";
        Some(("begins with a variable's name, as a line of an .env file does", help))
    } else if key.contains([';', '|']) {
        let help = "is it a list? Keys are separated by commas, and env:NAME#1 is the first";
        Some(("has a separator in it, and is sent as one key", help))
    } else if key.contains(char::is_whitespace) {
        Some(("has a space in it", "is there more than the key where it comes from?"))
    } else if variable_meant(key).is_some_and(|name| name != key) {
        Some(("is a variable's name, and is sent as it stands", "put the variable's value in its place"))
    } else {
        None
    }
}

/// Returns true for `NAME=...` and `export NAME=...`, which no key is.
fn is_assignment(key: &str) -> bool {
    let line = key.strip_prefix("export ").unwrap_or(key);
    let Some((name, value)) = line.split_once('=') else { return false };
    let is_name =
        name.len() > 3 && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    is_name && name.contains('_') && !value.is_empty()
}

/// The secrets found at one place.
struct List<'v> {
    /// The reference as written: `env:NAME`.
    source: String,
    entries: Vec<&'v str>,
    /// The reference must say which entry it means.
    is_list: bool,
    separated: &'static str,
}

/// The list of the file that `at` stands in an element of: `[[backend]]`.
fn element(at: &Path) -> Option<String> {
    matches!(at.0.get(1), Some(Step::Index(_))).then(|| format!("[[{}]]", Path(at.0[..1].to_vec())))
}

fn is_header(at: &Path) -> bool {
    at.0.iter().any(|step| *step == Step::Key("headers".to_owned()))
}

/// The variable that a text names in the manner of a shell, of LiteLLM or of a programming language, or by its name alone.
fn variable_meant(text: &str) -> Option<&str> {
    const FORMS: [(&str, &str); 23] = [
        ("${{ secrets.", "}}"),
        ("${{ env.", "}}"),
        ("${env:", "}"),
        ("${", "}"),
        ("$(", ")"),
        ("$env:", ""),
        ("$", ""),
        ("os.environ/", ""),
        ("os.environ[\"", "\"]"),
        ("os.environ['", "']"),
        ("os.environ.get(\"", "\")"),
        ("os.getenv(\"", "\")"),
        ("process.env[\"", "\"]"),
        ("process.env.", ""),
        ("{{", "}}"),
        ("{env:", "}"),
        ("%", "%"),
        ("ENV:", ""),
        ("env/", ""),
        ("env=", ""),
        ("env ", ""),
        ("!env ", ""),
        ("env.", ""),
    ];
    let is_name = |name: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
        !name.is_empty() && name.chars().all(fits) && !name.starts_with(|c: char| c.is_ascii_digit())
    };
    let inner = FORMS.iter().find_map(|(start, end)| text.strip_prefix(start)?.strip_suffix(end));
    if let Some(name) = inner.map(str::trim).filter(|name| is_name(name)) {
        return Some(name);
    }
    let is_shouted = text.ends_with("_KEY") || text.ends_with("_TOKEN");
    (is_shouted && is_name(text) && !text.contains(|c: char| c.is_ascii_lowercase())).then_some(text)
}

/// Returns true for a placeholder that instructions print in place of a key.
fn is_placeholder(text: &str) -> bool {
    const WORDS: [&str; 16] = [
        "your_",
        "your-",
        "your key",
        "your api",
        "yourkey",
        "yourapikey",
        "placeholder",
        "changeme",
        "change-me",
        "change_me",
        "replace_me",
        "replace-me",
        "insert_",
        "insert-",
        "key_here",
        "key-here",
    ];
    let lower = text.to_ascii_lowercase();
    let is_bracketed =
        [("<", ">"), ("[", "]"), ("{", "}")].iter().any(|(a, b)| text.starts_with(a) && text.ends_with(b));
    text.contains("...")
        || text.contains('\u{2026}')
        || is_bracketed
        || lower.contains("xxxx")
        || text.contains("***")
        || ["xxx", "todo"].contains(&&*lower)
        || WORDS.iter().any(|word| lower.contains(word))
}

/// Takes the values of secrets out, so that what is left can be hashed and shown. References stay.
pub(super) fn scrub(tree: &mut Node) {
    let lists = [("backend", "api_key"), ("client", "key")];
    for (list, field) in lists {
        for index in 0..length(tree, list) {
            let element = Path::of(list).index(index);
            hide(tree.find_mut(&element.key(field)));
            // A proxy's URL may hold a password.
            hide(tree.find_mut(&element.key("proxy")).filter(
                |node| matches!(&node.body, Body::Leaf(value) if value.as_str().is_some_and(|text| text.contains('@'))),
            ));
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

/// Replaces sealed text by a fixed mark before hashing. Sealing the same secret again gives another text, so that
/// hashing it would change the revision without a change of the secret; and like behind `env:`, a new key does not
/// change the revision.
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
