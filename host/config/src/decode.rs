//! From the tree to the raw structs: every wrong key and every wrong type of a file is told at once.
//!
//! Serde stops at the first error. So what it stumbled over is reported, taken out of the tree, and it is asked again.

use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;
use toml::Value;

use super::diagnostic::Problems;
use super::hints;
use super::tree::{Body, Node, Path, Step};

/// Reads the tree; errors in it are reported and left out. `also` names keys that are known too, though they stand
/// in another tree: by the list they stand in, `""` for the top level.
pub(super) fn decode<T: DeserializeOwned + Default>(
    tree: &mut Node,
    report: &mut Problems<'_>,
    also: &[(&str, &[&str])],
) -> T {
    refuse_lists(tree, report);
    while report.errors() < Problems::MAX_PROBLEMS {
        let error = match serde_path_to_error::deserialize(tree.to_value()) {
            Ok(raw) => return raw,
            Err(error) => error,
        };
        let path = path_of(error.path());
        let complaint = Complaint::read(error.inner().message());
        if takes_text(&complaint) && speak_literally(tree, &path) {
            continue;
        }
        complaint.with(also, &path).report(tree, &path, report);
        if !tree.refuse(&path) {
            break;
        }
    }
    T::default()
}

/// Tables of fixed keys, wherever they stand.
const TABLES: [&str; 14] = [
    "server",
    "admin",
    "secrets",
    "store",
    "journal",
    "policy",
    "stream",
    "limits",
    "cooldown",
    "log",
    "shadow",
    "rollback",
    "timeouts",
    "health_check",
];

/// Serde would read a list as a table's values in the order of its keys.
fn refuse_lists(tree: &mut Node, report: &mut Problems<'_>) {
    let Body::Table { entries, .. } = &tree.body else { return };
    let mut found: Vec<Path> = Vec::new();
    for (name, node) in entries {
        look_for_lists(&Path::of(name), node, &mut found);
    }
    for path in found.into_iter().rev() {
        if let Some(node) = tree.find(&path) {
            report.error(Some(&node.site), format!("`{}` must be a table", path.name())).label("this is a list");
        }
        tree.refuse(&path);
    }
}

fn look_for_lists(at: &Path, node: &Node, found: &mut Vec<Path>) {
    match &node.body {
        Body::List(_) if TABLES.contains(&at.name()) => found.push(at.clone()),
        Body::List(items) => {
            for (index, item) in items.iter().enumerate() {
                match &item.body {
                    Body::List(_) if ["backend", "client"].contains(&at.name()) => found.push(at.index(index)),
                    Body::Table { .. } => look_for_lists(&at.index(index), item, found),
                    Body::List(_) | Body::Leaf(_) => {}
                }
            }
        }
        Body::Table { entries, .. } if at.name() != "settings" => {
            entries.iter().for_each(|(name, node)| look_for_lists(&at.key(name), node, found));
        }
        Body::Table { .. } | Body::Leaf(_) => {}
    }
}

/// An error of serde, recognised by the texts that its derive writes.
enum Complaint {
    UnknownKey { known: Vec<String> },
    UnknownWord { known: Vec<String> },
    WrongType { found: String, expected: String },
    Other(String),
}

impl Complaint {
    fn read(message: &str) -> Self {
        let known = || quoted(message.split_once("expected").map_or("", |(_, rest)| rest));
        if message.starts_with("unknown field") {
            return Complaint::UnknownKey { known: known() };
        }
        if message.starts_with("unknown variant") {
            return Complaint::UnknownWord { known: known() };
        }
        let wrong = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
        match wrong.and_then(|rest| rest.rsplit_once("expected ")) {
            Some((found, expected)) => Complaint::WrongType { found: in_words(found), expected: in_words(expected) },
            None => Complaint::Other(message.to_owned()),
        }
    }

    /// With further keys that are known where `path` leads.
    fn with(mut self, also: &[(&str, &[&str])], path: &Path) -> Self {
        let table = match keys(path).as_slice() {
            [] => Some(""),
            [only] => Some(*only),
            [_, _, ..] => None,
        };
        if let Complaint::UnknownKey { known } = &mut self {
            let more = also.iter().filter(|(list, _)| Some(*list) == table).flat_map(|(_, keys)| keys.iter());
            known.extend(more.map(|key| (*key).to_owned()));
        }
        self
    }

    fn report(&self, tree: &Node, path: &Path, report: &mut Problems<'_>) {
        let node = tree.find(path);
        let site = node.map_or_else(|| tree.nearest(path), |node| &node.site);
        let name = path.name();
        match self {
            Complaint::UnknownKey { known } => {
                let key = node.and_then(|node| node.key.as_ref()).unwrap_or(site);
                let whose = whose(path);
                let label = format!("not a key of {whose}");
                let problem = report.error(Some(key), format!("unknown key `{name}`")).label(label);
                problem.hide_values().help(advice_on_key(name, known, &whose));
            }
            Complaint::UnknownWord { known } => {
                let (word, shown) = word_of(node);
                let problem = report.error(Some(site), format!("`{name}` cannot be {shown}"));
                problem.label(format!("expected {}", one_of(known)));
                if let Some(near) = nearest(&word, known) {
                    problem.help(format!("write `{near}`"));
                }
            }
            Complaint::WrongType { found, expected } => {
                let problem = report.error(Some(site), format!("`{name}` must be {expected}"));
                if !found.is_empty() {
                    problem.label(format!("this is {found}"));
                }
                if let Some(help) = advice_on_value(name, node, expected) {
                    problem.help(help);
                }
            }
            Complaint::Other(message) => {
                report.error(Some(site), format!("`{name}`: {message}"));
            }
        }
    }
}

fn takes_text(complaint: &Complaint) -> bool {
    matches!(complaint, Complaint::WrongType { expected, .. } if expected == "text")
}

/// A variable such as `12345` reads as a number, but where text is wanted, text it is.
fn speak_literally(tree: &mut Node, path: &Path) -> bool {
    match tree.find_mut(path) {
        Some(Node { spoken, body, .. }) => match spoken.take() {
            Some(text) => {
                *body = Body::Leaf(Value::String(text.to_string()));
                true
            }
            None => false,
        },
        None => false,
    }
}

fn path_of(path: &serde_path_to_error::Path) -> Path {
    let step = |segment: &Segment| match segment {
        Segment::Seq { index } => Some(Step::Index(*index)),
        Segment::Map { key } => Some(Step::Key(key.clone())),
        Segment::Enum { variant } => Some(Step::Key(variant.clone())),
        Segment::Unknown => None,
    };
    Path(path.iter().filter_map(step).collect())
}

/// The table a key stands in, as it is written in the file.
fn whose(path: &Path) -> String {
    match keys(path).as_slice() {
        [] => "the file's top level".to_owned(),
        [list @ ("backend" | "client" | "request")] => format!("[[{list}]]"),
        keys => format!("[{}]", keys.join(".")),
    }
}

/// The keys on the way to the last step.
fn keys(path: &Path) -> Vec<&str> {
    let before = &path.0[..path.0.len().saturating_sub(1)];
    before.iter().filter_map(|step| if let Step::Key(key) = step { Some(key.as_str()) } else { None }).collect()
}

/// Returns the advice for a key that is not known in the table `whose`.
fn advice_on_key(name: &str, known: &[String], whose: &str) -> String {
    if let Some(key) = hints::synonym(name, known).or_else(|| nearest(name, known)) {
        return format!("write `{key}`");
    }
    match hints::sections_with(name).filter(|sections| sections != whose) {
        Some(sections) => format!("`{name}` is a key of {sections}: move the line there"),
        None => suggestion(name, known, "write"),
    }
}

/// The word of a value that should be one of several, and how it is shown; of a table its first key.
fn word_of(node: Option<&Node>) -> (String, String) {
    match node.map(|node| &node.body) {
        Some(Body::Leaf(Value::String(word))) => (word.clone(), format!("\"{word}\"")),
        Some(Body::Leaf(value)) => (value.to_string(), value.to_string()),
        Some(Body::Table { entries, .. }) => {
            let key = entries.keys().next().cloned().unwrap_or_default();
            let shown = format!("{{ {key} = ... }}");
            (key, shown)
        }
        Some(Body::List(_)) => (String::new(), "a list".to_owned()),
        None => (String::new(), "this".to_owned()),
    }
}

/// Returns the advice for a value of the wrong type, where it is plain.
fn advice_on_value(name: &str, node: Option<&Node>, expected: &str) -> Option<String> {
    let is_from_file = node.is_some_and(|node| node.spoken.is_none());
    match &node?.body {
        Body::Leaf(Value::String(text)) if is_from_file => {
            let text = text.trim();
            let fits = match expected {
                "true or false" => text.parse::<bool>().is_ok(),
                "a number" => text.parse::<f64>().is_ok(),
                _ => expected.contains("whole number") && text.parse::<u64>().is_ok(),
            };
            fits.then(|| format!("write {text}, without quotation marks"))
        }
        Body::Leaf(Value::Integer(number)) if name == "listen" => Some(format!("write \"127.0.0.1:{number}\"")),
        Body::Leaf(value @ (Value::Integer(_) | Value::Float(_) | Value::Boolean(_))) if expected == "text" => {
            Some(format!("write it in quotation marks: \"{value}\""))
        }
        Body::Table { .. } if ["backend", "client"].contains(&name) => {
            Some(format!("write [[{name}]], with two brackets, before each of them"))
        }
        Body::Leaf(_) | Body::List(_) | Body::Table { .. } => None,
    }
}

/// The nearest of the known words, or all of them.
pub(super) fn suggestion(word: &str, known: &[String], verb: &str) -> String {
    match nearest(word, known) {
        Some(near) => format!("{verb} `{near}`"),
        None if known.is_empty() => "take it out".to_owned(),
        None => {
            let mut each: Vec<&str> = Vec::new();
            known.iter().for_each(|word| {
                if !each.contains(&word.as_str()) {
                    each.push(word)
                }
            });
            format!("known here: {}", each.join(", "))
        }
    }
}

/// The known word that is most like this one, if any is like it at all.
pub(super) fn nearest<'k>(word: &str, known: &'k [String]) -> Option<&'k str> {
    let word = word.to_lowercase();
    let near = |k: &&String| strsim::damerau_levenshtein(&word, &k.to_lowercase());
    let best = known.iter().min_by_key(near)?;
    let contained = word.len() >= 3 && (best.contains(word.as_str()) || word.contains(best.as_str()));
    (near(&best) <= 1 + word.chars().count() / 4 || contained).then_some(best.as_str())
}

fn one_of(words: &[String]) -> String {
    words.iter().map(|w| format!("\"{w}\"")).collect::<Vec<_>>().join(" or ")
}

/// Extracts the words between backquotes.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Serde's names of types as an operator would say them. Values are left out: they are quoted with their line, masked.
fn in_words(serde: &str) -> String {
    const WORDS: [(&str, &str); 14] = [
        ("a string", "text"),
        ("string", "text"),
        ("a boolean", "true or false"),
        ("boolean", "true or false"),
        ("integer `-", "a negative number"),
        ("integer", "a number"),
        ("floating point", "a number with a fraction"),
        ("a map", "a table"),
        ("map", "a table"),
        ("struct", "a table"),
        ("a sequence", "a list"),
        ("sequence", "a list"),
        ("u", "a whole number, 0 or more"),
        ("f64", "a number"),
    ];
    let serde = serde.trim().trim_end_matches(',');
    let known = WORDS.iter().find(|(start, _)| serde.starts_with(start));
    known.map_or_else(|| serde.to_owned(), |(_, word)| (*word).to_owned())
}
