//! Problems of a configuration: the place, the fault, and the text to write instead.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use pointsman_core::text::is_unseen;

use crate::seal::{PRIVATE, SEALED};

/// Severity of a problem: whether the configuration is refused for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// It is taken, but the operator should know.
    Warning,
}

/// Location of a value: a place in a file, or an environment variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A place in a file.
    File {
        /// Its name, as it was given.
        file: Arc<str>,
        /// Line number, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// Start of the value in the quote, from 0.
        indent: usize,
        /// Length of the value in characters, at least 1.
        width: usize,
        /// The line, secrets in it masked.
        quote: String,
    },
    /// In an environment variable of this name.
    Variable(Arc<str>),
}

/// One problem of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Severity of the problem.
    pub severity: Severity,
    /// The fault, without a full stop.
    pub message: String,
    /// Location of the value; `None` for the configuration as a whole.
    pub place: Option<Location>,
    /// Text beneath the quoted words.
    pub label: String,
    /// Another place that has to do with it, and why.
    pub related: Option<(Location, String)>,
    /// Advice: the text to write, or the thing to do.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A problem without a place.
    pub fn error(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            place: None,
            label: String::new(),
            related: None,
            help: None,
        }
    }

    /// Sets the advice, which says what to write instead.
    pub fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    /// Blots out all text values in the quoted line: of a key that is not known it is not known what stands behind it.
    pub fn hide_values(&mut self) -> &mut Self {
        if let Some(Location::File { quote, .. }) = &mut self.place
            && let Some(at) = quote.find('=').filter(|at| quote[*at..].contains(['"', '\'']))
        {
            let blotted: String = quote[at + 1..].chars().map(blot).collect();
            quote.replace_range(at + 1.., &blotted);
        }
        self
    }

    /// Says something beneath the quoted words.
    pub fn label(&mut self, label: impl Into<String>) -> &mut Self {
        self.label = label.into();
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{word}: {}", self.message)?;
        if let Some(place) = &self.place {
            place.quote(f, "-->", &self.label)?;
        }
        if let Some((place, why)) = &self.related {
            place.quote(f, ":::", why)?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

/// Writes `FILE:LINE:COLUMN`, or the variable.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::File { file, line, column, .. } => write!(f, "{file}:{line}:{column}"),
            Location::Variable(name) => write!(f, "environment variable {name}"),
        }
    }
}

impl Location {
    fn quote(&self, f: &mut fmt::Formatter<'_>, arrow: &str, label: &str) -> fmt::Result {
        match self {
            Location::Variable(name) if label.is_empty() => {
                write!(f, "\n  {arrow} environment variable {name}")
            }
            Location::Variable(name) => write!(f, "\n  {arrow} environment variable {name}: {label}"),
            Location::File { file, line, column, indent, width, quote } => {
                let number = line.to_string();
                let gutter = " ".repeat(number.len());
                write!(f, "\n{gutter} {arrow} {file}:{line}:{column}\n{gutter} |\n{number} | {quote}\n{gutter} | ")?;
                write!(f, "{}{}", " ".repeat(*indent), "^".repeat(*width))?;
                if label.is_empty() { Ok(()) } else { write!(f, " {label}") }
            }
        }
    }
}

/// Refused: every problem that was found, in the order of the file.
#[derive(Clone, Debug, thiserror::Error)]
pub struct ConfigError {
    /// All problems found, at least one.
    pub diagnostics: Vec<Diagnostic>,
}

impl ConfigError {
    /// Refused for one reason that has no place in a file.
    pub fn whole(message: impl Into<String>, help: impl Into<String>) -> Self {
        let mut diagnostic = Diagnostic::error(message);
        diagnostic.help(help);
        Self { diagnostics: vec![diagnostic] }
    }
}

impl ConfigError {
    /// The errors alone: what has to be corrected, without what is only advised.
    pub fn errors(&self) -> String {
        let errors: Vec<String> = self.of(Severity::Error).map(Diagnostic::to_string).collect();
        errors.join("\n\n")
    }

    fn of(&self, severity: Severity) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics.iter().filter(move |diagnostic| diagnostic.severity == severity)
    }
}

/// Writes the warnings first: what is read last is what refuses the configuration.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in self.of(Severity::Warning).chain(self.of(Severity::Error)) {
            writeln!(f, "{diagnostic}\n")?;
        }
        let errors = self.of(Severity::Error).count();
        let noun = if errors == 1 { "problem" } else { "problems" };
        write!(f, "the configuration is refused: {errors} {noun}")
    }
}

/// Origin of a value, before line and column are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Site {
    /// A range of bytes in the file.
    File(Range<usize>),
    /// An environment variable of this name.
    Variable(Arc<str>),
}

/// Collects the problems of one text.
pub(super) struct Problems<'a> {
    file: Arc<str>,
    text: &'a str,
    found: Vec<Diagnostic>,
    /// Number of errors, those that are not shown included.
    errors: usize,
    warnings: usize,
    /// The latest that was not kept.
    left_out: Diagnostic,
}

impl<'a> Problems<'a> {
    /// More than this many problems are not told one by one.
    pub(super) const MAX_PROBLEMS: usize = 50;

    /// Errors, and warnings, that are kept; of more nobody reads, and each costs a look at the text.
    const MAX_KEPT: usize = 500;

    pub(super) fn new(file: &str, text: &'a str) -> Self {
        Self {
            file: file.into(),
            text,
            found: Vec::new(),
            errors: 0,
            warnings: 0,
            left_out: Diagnostic::error(String::new()),
        }
    }

    pub(super) fn error(&mut self, site: Option<&Site>, message: impl Into<String>) -> &mut Diagnostic {
        self.add(Severity::Error, site, message.into())
    }

    pub(super) fn warn(&mut self, site: Option<&Site>, message: impl Into<String>) -> &mut Diagnostic {
        self.add(Severity::Warning, site, message.into())
    }

    fn add(&mut self, severity: Severity, site: Option<&Site>, message: String) -> &mut Diagnostic {
        let count = match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += 1;
        if *count > Self::MAX_KEPT {
            self.left_out = Diagnostic::error(message);
            return &mut self.left_out;
        }
        let place = site.map(|site| self.place(site));
        self.found.push(Diagnostic { severity, place, ..Diagnostic::error(message) });
        self.found.last_mut().expect("one was just pushed")
    }

    pub(super) fn errors(&self) -> usize {
        self.errors
    }

    /// Returns true if the text has this word in it.
    pub(super) fn mentions(&self, word: &str) -> bool {
        self.text.contains(word)
    }

    /// The warnings, or everything when there is an error among it.
    pub(super) fn finish(mut self) -> Result<Vec<Diagnostic>, ConfigError> {
        self.found.sort_by_key(|d| match &d.place {
            Some(Location::File { line, column, .. }) => (0, *line, *column),
            Some(Location::Variable(_)) => (1, 0, 0),
            None => (2, 0, 0),
        });
        if self.errors() == 0 { Ok(self.found) } else { Err(ConfigError { diagnostics: self.found }) }
    }

    /// Finds line and column; a span over several lines is cut to its first.
    pub(super) fn place(&self, site: &Site) -> Location {
        let span = match site {
            Site::Variable(name) => return Location::Variable(name.clone()),
            Site::File(span) => span,
        };
        let start = self.text.floor_char_boundary(span.start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |i| i + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |i| start + i);
        let end = self.text.floor_char_boundary(span.end.clamp(start, line_end));
        let before = self.text[line_start..start].chars().count();
        let left_out = if before < QUOTE_CHARS { 0 } else { before - QUOTE_CHARS / 2 };
        let section = self.text[..line_start].lines().rev().find(|line| line.trim_start().starts_with('['));
        let quote = masked(self.text[line_start..line_end].trim_end(), section.unwrap_or_default());
        Location::File {
            file: self.file.clone(),
            line: self.text[..start].matches('\n').count() + 1,
            column: before + 1,
            indent: before - left_out,
            width: self.text[start..end].chars().count().clamp(1, QUOTE_CHARS),
            quote: quote.chars().skip(left_out).take(2 * QUOTE_CHARS).collect(),
        }
    }
}

/// A quoted line shows at most twice as many characters.
const QUOTE_CHARS: usize = 100;

/// Words in a line that say that a secret may stand behind its `=`.
const SECRET_WORDS: [&str; 6] = ["key", "token", "secret", "password", "authorization", "headers"];

/// Prefixes of values that are not secrets, or whose secret part is masked.
const HARMLESS: [&str; 4] = ["env:", "file:", "sha256:", SEALED];

/// Prefixes that are masked wherever they appear, whatever the key is called.
const MARKS: [&str; 2] = [SEALED, PRIVATE];

/// The line with what may be a secret blotted out, character by character, so that columns stay. In a section of headers every
/// value may be one, whatever its name.
fn masked(line: &str, section: &str) -> String {
    let clean = |c: char| if is_unseen(c) { ' ' } else { c };
    let lower = line.to_ascii_lowercase();
    let word = SECRET_WORDS.iter().filter_map(|word| lower.find(word)).min();
    let word = if section.contains("headers") { Some(0) } else { word };
    let value = word.and_then(|at| Some(at + line[at..].find('=')? + 1)).filter(|at| !harmless(&line[*at..]));
    let marked = MARKS.iter().filter_map(|mark| Some(line.find(mark)? + mark.len()));
    let hidden = marked.chain(value).min().unwrap_or(line.len());
    let line = line[..hidden].chars().map(clean).chain(line[hidden..].chars().map(blot)).collect();
    without_keys(without_logins(line))
}

/// A character of a secret; punctuation stays, so that the place can be recognised.
fn blot(c: char) -> char {
    if is_unseen(c) {
        ' '
    } else if c.is_alphanumeric() || c == '+' || c == '/' {
        '*'
    } else {
        c
    }
}

/// Blots out the user and password of URLs, and the values of their queries.
fn without_logins(mut line: Vec<char>) -> Vec<char> {
    let mut at = 0;
    while let Some(start) = (at..line.len().saturating_sub(2)).find(|i| line[*i..].starts_with(&[':', '/', '/'])) {
        let start = start + 3;
        let end = (start..line.len()).find(|i| matches!(line[*i], '"' | '\'' | ' ' | ',')).unwrap_or(line.len());
        let authority = (start..end).find(|i| matches!(line[*i], '/' | '?' | '#')).unwrap_or(end);
        // A password may have a slash in it that should have been encoded.
        let login = (start..end).rev().find(|i| line[*i] == '@').map_or(start, |i| i.max(start));
        let hidden = if login > start { start..login } else { start..start };
        let query = (authority..end).find(|i| line[*i] == '?').unwrap_or(end);
        for i in hidden.chain(query..end) {
            line[i] = blot(line[i]);
        }
        at = end.max(start);
    }
    line
}

/// So many letters and digits in a row are no word of a configuration, but a key that lost its place: behind a quotation mark that
/// was forgotten, or on a line of its own.
const KEY_CHARS: usize = 32;

fn without_keys(mut line: Vec<char>) -> String {
    let is_of_key = |c: &char| c.is_ascii_alphanumeric() || *c == '+' || *c == '/';
    for run in line.chunk_by_mut(|a, b| is_of_key(a) && is_of_key(b)).filter(|run| run.len() >= KEY_CHARS) {
        run.fill('*');
    }
    line.into_iter().collect()
}

/// One value, and it does not show the secret.
fn harmless(value: &str) -> bool {
    let value = value.trim_start().trim_start_matches(['"', '\'']);
    HARMLESS.iter().any(|start| value.starts_with(start)) && value.matches(['"', '\'']).count() <= 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quote(text: &str, span: Range<usize>) -> String {
        let mut report = Problems::new("p.toml", text);
        report.error(Some(&Site::File(span)), "wrong").label("here").help("right");
        report.finish().unwrap_err().diagnostics[0].to_string()
    }

    #[test]
    fn a_problem_is_shown_with_its_line_and_a_caret() {
        let text = "[server]\nlisten = 5\n";
        assert_eq!(
            quote(text, 18..19),
            "error: wrong\n  --> p.toml:2:10\n  |\n2 | listen = 5\n  |          ^ here\n  help: right"
        );
    }

    #[test]
    fn a_login_in_a_url_is_blotted_out() {
        for (line, expected) in [
            (r#"base_url = "https://user:pa55@h/v1""#, r#"base_url = "https://****:****@h/v1""#),
            (r#"base_url = "https://h/v1?api=s3cr&v=1""#, r#"base_url = "https://h/v1?***=****&*=*""#),
            (r#"proxy = "http://u:p/w@h:3128""#, r#"proxy = "http://*:***@h:3128""#),
            (r#"base_url = "https://h/v1""#, r#"base_url = "https://h/v1""#),
            (r#"a = "://", b = "x""#, r#"a = "://", b = "x""#),
        ] {
            assert_eq!(masked(line, "[[backend]]"), expected);
        }
    }

    #[test]
    fn columns_count_characters_and_spans_may_be_anything() {
        let text = "a = \"żółw\" b";
        assert!(quote(text, 14..15).contains("p.toml:1:12"), "{}", quote(text, 14..15));
        for start in 0..30 {
            for end in 0..30 {
                assert!(quote(text, start..end).contains("p.toml:1:"));
            }
        }
        assert!(quote("", 0..0).contains("p.toml:1:1"));
        assert!(quote("a\r\n\r\n", 5..5).contains("p.toml:3:1"));
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let text = format!("x = \"{}\" !", "a".repeat(10_000));
        let shown = quote(&text, text.len() - 1..text.len());
        assert!(shown.len() < 600 && shown.contains(":10008\n"), "{shown}");
    }

    #[test]
    fn secrets_in_a_quoted_line_are_blotted_out() {
        for line in [
            "api_key = \"sk-live-1\" x",
            "api_key = sk-live-1",
            "key = 'sk-live-1",
            "headers = { a = \"sk-live-1\" }",
            "{ api_key = \"env:A\", headers = { b = \"sk-live-1\" } }",
        ] {
            let shown = masked(line, "");
            assert!(!shown.contains("live"), "{shown}");
            assert_eq!(shown.chars().count(), line.chars().count());
        }
        assert_eq!(masked("api_key = \"env:NVIDIA\"", ""), "api_key = \"env:NVIDIA\"");
        assert_eq!(masked("rpm = \"many\"", ""), "rpm = \"many\"");
        assert_eq!(masked("api_key = \"sealed:aB+/9=\"", ""), "api_key = \"sealed:*****=\"");
        assert_eq!(masked("X-Team = 'sealed:aB9' # mine", ""), "X-Team = 'sealed:***' # ****");
        assert_eq!(masked("{ key = \"env:A\", b = \"sealed:aB9\" }", ""), "{ key = \"***:*\", * = \"******:***\" }");
        assert_eq!(masked("x = \"seal-private:aB9\"", ""), "x = \"seal-private:***\"");
        assert_eq!(masked(&format!("id = {}!", "aB9+/".repeat(9)), ""), format!("id = {}!", "*".repeat(45)));
        assert_eq!(
            masked("models = [\"meta/llama-3.1-70b-instruct\"]", ""),
            "models = [\"meta/llama-3.1-70b-instruct\"]"
        );
        assert_eq!(masked("X-Team = \"acme\"", "[backend.headers]"), "X-Team = \"****\"");
        assert_eq!(masked("X-Team = \"env:TEAM\"", "[backend.headers]"), "X-Team = \"env:TEAM\"");
        let text = "[[backend]]\n  [backend.headers]\n# mine\nX-Team = \"acme\"\n[server]\nlisten = 5\n";
        let at = |word: &str| text.find(word).map(|at| at..at + 1).unwrap();
        assert!(quote(text, at("\"acme")).contains("X-Team = \"****\""));
        assert!(quote(text, at("5")).contains("listen = 5"));
    }
}
